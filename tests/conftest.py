"""What all tests share."""

from hypothesis import HealthCheck, settings

# A property is about values; how long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
