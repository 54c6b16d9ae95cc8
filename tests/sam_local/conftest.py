"""The built functions in containers, on the tables of `make run`."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sam_local.docker import BRIDGE
from tests.sam_local.image import ARCHITECTURE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/containers.md"
STARTS_WITHIN = 240

type Invoke = Callable[[str], Any]


def command(beginning: str) -> str:
    """Return the documents' only command with this beginning, for this machine."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block.strip() for block in blocks if block.startswith(beginning))
    # The documents have an example's bridge and architecture.
    return str(found).replace("172.17.0.1", BRIDGE).replace("x86_64", ARCHITECTURE)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nothing comes from the network: neither images nor packages."""
    home = tmp_path_factory.mktemp("sam")
    without_build = home / "sam"
    without_build.write_text(f'#!/bin/sh\n[ "$1" = build ] || exec {ROOT}/.venv-sam/bin/sam "$@"\n')
    without_build.chmod(0o700)
    ours = {
        "MAKEFLAGS": f"SAM={without_build}",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_LAYER_CACHE_BASEDIR": str(home / "layers"),
        "SAM_SKIP_PULL_IMAGE": "1",
    }
    # Compiling SAM for each command would take a third of the time.
    others = ("AWS_", "MAKE", "MFLAGS", "PYTHONDONTWRITEBYTECODE")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return theirs | ours


@contextlib.contextmanager
def at_work(block: str, environment: dict[str, str], until: Callable[[str], bool]) -> Iterator[None]:
    """Run a command until the block ends, which begins once the command is ready. Ctrl-C ends it."""
    with (
        tempfile.NamedTemporaryFile() as screen,  # a full pipe would block it
        subprocess.Popen(  # noqa: S603  # the documents' own
            ["/bin/sh", "-ec", block],
            cwd=ROOT,
            env=environment,
            stdout=screen,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches this process group only
        ) as process,
    ):
        printed = Path(screen.name)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not until(printed.read_text()):
                assert process.poll() is None, printed.read_text()
                assert time.monotonic() < deadline, f"it does not start: {printed.read_text()}"
                time.sleep(0.1)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)


def listens(port: int) -> bool:
    """Tell whether a port of this machine accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="session", autouse=True)
def held(environment: dict[str, str]) -> Iterator[str]:
    """The address of `make run`."""
    with at_work(command("make run"), environment, lambda screen: "Ctrl-C ends it." in screen):
        yield f"http://{BRIDGE}:3000"


@pytest.fixture(scope="session")
def invoke(environment: dict[str, str]) -> Invoke:
    """Run a `sam local invoke`; return the function's answer."""

    def run(block: str) -> Any:  # noqa: ANN401  # whatever JSON it is
        done = subprocess.run(  # noqa: S603  # the documents' own
            ["/bin/sh", "-ec", block], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
