"""The local API in a process of its own, started by the real command."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("batch-progress")
# Seconds after which a test stops waiting. Even a busy machine needs far less.
CEILING = 240


@dataclass(frozen=True)
class LocalApi:
    """A running local API."""

    process: subprocess.Popen[bytes]
    # Files, because a full pipe would block the process.
    screen: Path
    errors: Path

    @property
    def address(self) -> str:
        """Its address, as printed on the screen."""
        found = re.search(r"http://127\.0\.0\.1:\d+", self.screen.read_text())
        assert found
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=CEILING)


def unmeasured() -> dict[str, str]:
    """Return this process's environment without coverage's settings, which would trace a command and its engine."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@contextlib.contextmanager
def running(*options: str, prefix: Sequence[str] = (), **environment: str) -> Iterator[LocalApi]:
    """Start the command, after `prefix`, and wait until it is ready; stop it at the end if the test has not.

    It takes a free port, unless the options name one.
    """
    with (
        tempfile.NamedTemporaryFile() as screen,
        tempfile.NamedTemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603  # the project's own command
            [*prefix, COMMAND, "serve", "--port", "0", *options],
            stdout=screen,
            stderr=errors,
            env=unmeasured() | environment,
        ) as process,
    ):
        api = LocalApi(process, Path(screen.name), Path(errors.name))
        try:
            deadline = time.monotonic() + CEILING
            while "Ctrl-C ends it." not in api.screen.read_text():
                assert process.poll() is None, api.errors.read_text()
                assert time.monotonic() < deadline, "it does not start"
                time.sleep(0.05)
            yield api
        finally:
            if process.poll() is None:
                api.stop()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Keep a port of loopback at which nothing listens until the block ends, so that no other process takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def local_api() -> Iterator[LocalApi]:
    """A local API that all tests share. A test must not change data that another test reads."""
    with running() as api:
        yield api
