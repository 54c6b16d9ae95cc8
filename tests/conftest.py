"""What all tests share."""

import signal

from hypothesis import HealthCheck, Phase, settings

# A property is about values; how long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For `make mutation`: the same examples each time, and none made smaller once a test has failed.
settings.register_profile(
    "mutation",
    settings.get_profile("untimed"),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("untimed")

# Some tests end a command by Ctrl-C. What is started in the background may have been told to ignore that, and hands it
# on to what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
