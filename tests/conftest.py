"""Settings of all tests."""

import signal

import pytest
from hypothesis import HealthCheck, Phase, settings

# No deadline for an example: its duration depends on the machine's load.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For `make mutation`: the same examples every time, and no shrinking of a failing one.
settings.register_profile(
    "mutation",
    settings.get_profile("untimed"),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("untimed")

# Some tests end a command with SIGINT. A background job of a shell ignores SIGINT, and so do its child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one worker process, and all tests of the shared local API in one."""
    for item in items:
        shared = "local_api" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("local_api" if shared else item.path.stem))
