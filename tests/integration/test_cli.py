"""The command in a process of its own: Ctrl-C, and a reader that leaves."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from batch_progress_cli.failure import FAILED, INTERRUPTED
from tests.integration.server import CEILING, COMMAND, LocalApi, unmeasured
from tests.integration.world import unique


@contextmanager
def command(api: LocalApi, line: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command; `PORT`, `URL` and `BATCH` stand for those of the local API and for a new id."""
    values = {"PORT": api.address.rpartition(":")[2], "URL": api.address, "BATCH": unique("batch")}
    with subprocess.Popen(  # noqa: S603  # the project's own command
        [COMMAND, *(values.get(word, word) for word in line.split())],
        env=unmeasured() | {"FREDDY_API_KEY": "demo-token"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    ("line", "said", "status"),
    [
        ("serve --port 0", "The batch progress API is running on", 0),
        ("watch batch_xyz789 --url URL --json", '"total_urls": 10', INTERRUPTED),
        ("events --local PORT", "  event  Batch ", INTERRUPTED),
        ("simulate BATCH --jobs 1 --stalls 1 --local PORT", " of demo: 1 jobs", INTERRUPTED),
    ],
)
def test_ctrl_c_ends_what_runs_on(local_api: LocalApi, line: str, said: str, status: int) -> None:
    with command(local_api, line) as process:
        assert process.stdout
        assert said in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=CEILING)
    assert (status, "") == (process.returncode, errors)


@pytest.mark.parametrize(
    "line",
    [
        "watch batch_xyz789 --url URL",
        "watch batch_xyz789 --url URL --json",
        "events --local PORT",
        "events --local PORT --json",
        "simulate BATCH --jobs 1 --median 0.1 --local PORT",
        "token jwt --owner demo --local PORT",
        "token list --local PORT",
        "token revoke 12345678 --local PORT",
    ],
)
def test_a_reader_that_has_gone_ends_it(local_api: LocalApi, line: str) -> None:
    """As with `| head -1`: status 2, and no traceback."""
    with command(local_api, line) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert FAILED == process.wait(timeout=CEILING)
        errors = process.stderr.read()
    assert "" == errors or (errors.startswith("batch-progress: no such token") and errors.count("\n") == 1)
