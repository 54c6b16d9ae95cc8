"""Settings of all tests."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# No deadline for an example: its duration depends on the machine's load.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples every time: a test fails because of a change, not by chance.
settings.register_profile("repeatable", settings.get_profile("random"), derandomize=True, database=None)
# For `make mutation`: no shrinking of a failing example.
settings.register_profile("mutation", settings.get_profile("repeatable"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("repeatable")

# Some tests end a command with SIGINT. A background job of a shell ignores SIGINT, and so do its child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


INTEGRATION = Path(__file__).parent / "integration"
# These share one local server (tests/integration/server.py).
SHARING = {path.name for path in INTEGRATION.glob("test_*.py") if "local_api" in path.read_text(encoding="utf-8")}


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives each worker process whole files, and all files that share the local server to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "local_api" if Path(file).name in SHARING and "integration" in file else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)
