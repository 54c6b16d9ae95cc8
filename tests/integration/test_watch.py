"""`batch-progress watch` against the local server: in a pseudo-terminal, in a pipe, over a faulty connection."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import botocore.session
import httpx
import pytest
from botocore.config import Config
from typer.testing import CliRunner

from batch_progress.recorder import BatchRecorder
from batch_progress_cli.main import app
from batch_progress_cli.simulation import Crew, Task
from tests.integration.server import CEILING, COMMAND, LocalApi, closed_port, unmeasured
from tests.integration.world import progress_path, unique

CURSOR_HIDDEN, CURSOR_SHOWN = b"\x1b[?25l", b"\x1b[?25h"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]\u202e\r"


def dynamodb(api: LocalApi) -> Any:  # noqa: ANN401  # boto has no types
    """Return a client of the local server's tables."""
    return botocore.session.Session().create_client(
        "dynamodb",
        endpoint_url=api.address,
        region_name="eu-central-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(proxies={}),
    )


@dataclass(frozen=True)
class Batch:
    """A batch on the local server whose jobs the test does."""

    recorder: BatchRecorder
    batch_id: str
    job_ids: list[str]

    def work(self, *, first: int = 0, last: int | None = None, failures: int = 0, seconds: float = 0.3) -> None:
        """Do some of its jobs with two workers, each job in a number of seconds. The last `failures` jobs fail."""
        count = len(self.job_ids)
        tasks = {
            job_id: Task("", seconds, 5, ("HTTP_404", "The page is gone.") if number >= count - failures else None)
            for number, job_id in enumerate(self.job_ids)
        }
        Crew(self.recorder, self.batch_id).work(dict(list(tasks.items())[first:last]), 2)


# Jobs that are done before the first poll, so that the API expects the end soon and `Retry-After` is short.
DONE = 2


def batch(api: LocalApi) -> Batch:
    """Make a batch of `demo` of which 2 of 8 jobs are done."""
    made = _batch(api, 8)
    made.work(last=DONE)
    return made


def finished(api: LocalApi, failures: int = 0) -> Batch:
    """Make a batch of `demo` whose only job is done."""
    made = _batch(api, 1)
    made.work(failures=failures)
    return made


def _batch(api: LocalApi, jobs: int) -> Batch:
    recorder, batch_id = BatchRecorder("JobsTable", dynamodb(api)), unique("batch")
    urls = [f"https://example.com/{number}" for number in range(jobs)]
    # Commands take a while to start on a busy machine, and the batch must not stall meanwhile.
    return Batch(recorder, batch_id, recorder.create(batch_id, "demo", urls, parallel_jobs=2, timeout_per_url=60))


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    errors: str


def environment(**values: str) -> dict[str, str]:
    return {
        **unmeasured(),
        "FREDDY_API_KEY": "demo-token",
        "COLUMNS": "",
        "LINES": "",
        "TERM": "xterm-256color",
    } | values


@contextlib.contextmanager
def watching(address: str, batch_id: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Watch in a pipe."""
    with subprocess.Popen(  # noqa: S603  # the project's own command
        [COMMAND, "watch", batch_id, "--url", address, *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def watched(
    address: str, made: Batch, *options: str, failures: int = 0, until: Callable[[], bool] = lambda: True
) -> Outcome:
    """Watch in a pipe to the end. Its jobs are done once the first line is there and a condition holds."""
    with watching(address, made.batch_id, *options) as process:
        assert process.stdout
        first = process.stdout.readline()
        deadline = time.monotonic() + CEILING
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        made.work(first=DONE, failures=failures)
        out, errors = process.communicate(timeout=CEILING)
    return Outcome(process.returncode, first + out, errors)


@dataclass(frozen=True)
class Terminal:
    """A command in a pseudo-terminal, which is its controlling terminal."""

    pid: int
    master: int

    @classmethod
    def run(cls, *arguments: str, **variables: str) -> "Terminal":
        pid, master = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
            os.execve(COMMAND, [str(COMMAND), *arguments], environment(**variables))  # noqa: S606  # no shell is the point
        return cls(pid, master)

    def until(self, mark: bytes) -> bytes:
        """Read until a mark appears."""
        seen, deadline = b"", time.monotonic() + CEILING
        while mark not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(self.master, 65_536)
        return seen

    def end(self) -> tuple[int, bytes]:
        """Read to the end; return the exit status and what was read."""
        seen = b""
        with contextlib.suppress(OSError):  # raised at the end of a terminal
            while block := os.read(self.master, 65_536):
                seen += block
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), seen


@contextlib.contextmanager
def bad_line(address: str) -> Iterator[tuple[str, list[int]]]:
    """Run a proxy that drops every third connection, before the answer or within it."""
    target = urlsplit(address)
    connections: list[int] = []
    assert target.hostname
    assert target.port
    server_address = (target.hostname, target.port)

    def carry(client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(server_address, timeout=CEILING) as onward:
            if number % 3 == 0 and number % 2:
                return
            onward.sendall(client.recv(65_536))
            if number % 3 == 0:
                client.sendall(onward.recv(40))
                return
            while block := onward.recv(65_536):
                client.sendall(block)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = listener.accept()
                connections.append(len(connections) + 1)
                threading.Thread(target=carry, args=(client, connections[-1]), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_in_a_pipe_over_a_bad_line_it_tells_each_change_once(local_api: LocalApi) -> None:
    """Plain lines, the last of them final. Only stderr mentions the faults."""
    with bad_line(local_api.address) as (address, connections):
        # The third connection fails.
        done = watched(address, batch(local_api), until=lambda: len(connections) > 3)
    assert 0 == done.status, done.errors
    lines = done.out.splitlines()
    assert lines[0].startswith("25%: 2 of 8 completed, 0 failed, 6 pending; 10 items; ends in ")
    assert lines[-1].startswith("100%: 8 of 8 completed, 0 failed, 0 pending; 40 items; finished at ")
    counts = [int(line.split(": ")[1].split(" of ")[0]) for line in lines]
    assert sorted(set(counts)) == counts
    assert all(line.isprintable() for line in lines)
    faults = [line for line in done.errors.splitlines() if "no answer" in line]
    assert 0 < len(connections) // 3 <= len(faults)


def test_in_a_terminal_over_a_bad_line_it_draws_to_the_end(local_api: LocalApi) -> None:
    """Bars, redrawn in place. The cursor is shown again at the end."""
    made = batch(local_api)
    with bad_line(local_api.address) as (address, _):
        terminal = Terminal.run("watch", made.batch_id, "--url", address)
        first = terminal.until(b"pending")
        made.work(first=DONE, failures=1)
        status, rest = terminal.end()
    seen = first + rest
    assert 1 == status
    last = seen.rpartition(made.batch_id.encode())[2].decode()
    for part in ("completed", "failed", "pending", "━", "finished at", "last failures", "HTTP_404: The page is gone."):
        assert part in last
    assert b"\x1b[31m" in seen
    assert b"\x1b[1A" in seen
    assert seen.rindex(CURSOR_SHOWN) > seen.rindex(CURSOR_HIDDEN)


def test_no_color_draws_without_colours(local_api: LocalApi) -> None:
    made = finished(local_api, failures=1)
    status, seen = Terminal.run("watch", made.batch_id, "--url", local_api.address, NO_COLOR="1").end()
    assert 1 == status
    assert b"finished at" in seen
    assert b"\x1b[3" not in seen
    assert b";3" not in seen


def test_a_dumb_terminal_gets_lines(local_api: LocalApi) -> None:
    made = finished(local_api)
    status, seen = Terminal.run("watch", made.batch_id, "--url", local_api.address, TERM="dumb").end()
    assert 0 == status
    assert seen.startswith(b"100%: 1 of 1 completed")
    assert b"\x1b" not in seen


def test_ctrl_c_leaves_the_terminal_as_it_was(local_api: LocalApi) -> None:
    """Status 130, a visible cursor, no traceback."""
    terminal = Terminal.run("watch", "batch_xyz789", "--url", local_api.address)
    seen = terminal.until(b"last failures")
    os.write(terminal.master, b"\x03")
    status, rest = terminal.end()
    assert 130 == status
    assert b"Traceback" not in rest
    assert (seen + rest).rindex(CURSOR_SHOWN) > (seen + rest).rindex(CURSOR_HIDDEN)


def test_a_request_to_terminate_too(local_api: LocalApi) -> None:
    terminal = Terminal.run("watch", "batch_xyz789", "--url", local_api.address)
    seen = terminal.until(b"last failures")
    os.kill(terminal.pid, signal.SIGTERM)
    status, rest = terminal.end()
    assert 143 == status
    assert (seen + rest).rindex(CURSOR_SHOWN) > (seen + rest).rindex(CURSOR_HIDDEN)


def test_json_for_scripts(local_api: LocalApi) -> None:
    """Each line is an object; only the last one is final."""
    made = batch(local_api)
    done = watched(local_api.address, made, "--json", failures=2)
    records = [json.loads(line) for line in done.out.splitlines()]
    assert 1 == done.status
    assert len(records) > 1
    assert [False] * (len(records) - 1) + [True] == [record["final"] for record in records]
    assert {
        "batch_id": made.batch_id,
        "total_urls": 8,
        "completed": 6,
        "failed": 2,
        "pending": 0,
        "total_items_extracted": 30,
    }.items() <= records[-1].items()
    assert {"HTTP_404"} == {failure["error_code"] for failure in records[-1]["failures"]}
    assert {"basis", "earliest", "latest", "confidence"} == set(records[-1]["estimate"])


@pytest.mark.parametrize(
    "variables",
    [
        *({"PYTHONIOENCODING": encoding} for encoding in ("cp1252", "latin-1", "ascii")),
        {"PYTHONUTF8": "0", "LC_ALL": "C"},
    ],
    ids=" ".join,
)
def test_no_encoding_ends_it(local_api: LocalApi, variables: dict[str, str]) -> None:
    """A character that the encoding lacks is shown as `?`, in a terminal and in a pipe. JSON is ASCII."""
    made = _batch(local_api, 1)
    made.recorder.start(made.batch_id, made.job_ids[0])
    made.recorder.fail(made.batch_id, made.job_ids[0], "☠", "صفحه 🚀" + "long " * 9)
    for options, ended in (([], "100%: 0 of 1 completed"), (["--json"], '"final": true')):
        done = subprocess.run(  # noqa: S603  # the project's own command
            [COMMAND, "watch", made.batch_id, "--url", local_api.address, *options],
            env=environment(**variables),
            capture_output=True,
            text=True,
            encoding="ascii",
            check=False,
            timeout=CEILING,
        )
        assert (1, "") == (done.returncode, done.stderr)
        assert ended in done.stdout
        assert "?: ???? ?long long" in done.stdout or options
    status, seen = Terminal.run("watch", made.batch_id, "--url", local_api.address, **variables).end()
    assert 1 == status
    assert b"100% of 1 URLs" in seen
    assert b"?: ???? ?long long" in seen


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_no_text_of_a_job_reaches_the_terminal_as_a_command(local_api: LocalApi, options: Sequence[str]) -> None:
    made = _batch(local_api, 1)
    made.recorder.start(made.batch_id, made.job_ids[0])
    made.recorder.fail(made.batch_id, made.job_ids[0], HOSTILE, HOSTILE)
    dynamodb(local_api).update_item(
        TableName="JobsTable",
        Key={"batch_id": {"S": made.batch_id}, "sk": {"S": f"JOB#{made.job_ids[0]}"}},
        UpdateExpression="SET #url = :url",
        ExpressionAttributeNames={"#url": "url"},
        ExpressionAttributeValues={":url": {"S": HOSTILE}},
    )
    status, seen = Terminal.run("watch", made.batch_id, "--url", local_api.address, *options).end()
    assert 1 == status
    text = seen.decode()
    assert "owned" in text
    for sequence in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\r\r"):
        assert sequence not in text


@pytest.mark.parametrize(
    ("batch_id", "token", "said"),
    [
        ("batch_nobody", "demo-token", "404 BATCH_NOT_FOUND: "),
        ("batch_xyz789", "wrong-token", "401 TOKEN_INVALID: "),
        ("batch_xyz789", "demo-expired-token", "401 TOKEN_EXPIRED: "),
        ("batch_xyz789", "", "no token; give --token or set FREDDY_API_KEY"),
    ],
)
def test_a_failure_is_one_line_and_status_2(local_api: LocalApi, batch_id: str, token: str, said: str) -> None:
    done = CliRunner().invoke(app, ["watch", batch_id, "--url", local_api.address], env={"FREDDY_API_KEY": token})
    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith(f"batch-progress: {said}")
    assert 1 == done.stderr.count("\n")


def test_it_gives_up_on_a_stalled_batch(local_api: LocalApi) -> None:
    """Status 3, and one line that names the job that hangs."""
    made = _batch(local_api, 2)
    made.recorder.start(made.batch_id, made.job_ids[1])
    dynamodb(local_api).update_item(
        TableName="JobsTable",
        Key={"batch_id": {"S": made.batch_id}, "sk": {"S": f"JOB#{made.job_ids[1]}"}},
        UpdateExpression="SET started_at = :started",
        ExpressionAttributeValues={":started": {"S": "2026-01-02T03:04:05.000Z"}},
    )
    arguments = ["watch", made.batch_id, "--url", local_api.address, "--give-up-after", "1s"]
    done = CliRunner().invoke(app, arguments, env={"FREDDY_API_KEY": "demo-token"})
    assert 3 == done.exit_code
    assert "; stalled: " in done.stdout
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"batch-progress: gave up: stalled for \d+s, 2 of 2 pending; "
        rf"hanging: {made.job_ids[1]} for \d+d \d\dh https://example\.com/1",
        line,
    )


def test_the_token_of_the_option_comes_first(local_api: LocalApi) -> None:
    made = finished(local_api)
    arguments = ["watch", made.batch_id, "--url", local_api.address, "--token", "demo-token"]
    assert 0 == CliRunner().invoke(app, arguments, env={"FREDDY_API_KEY": "wrong"}).exit_code


def test_it_gives_up_without_an_answer() -> None:
    with closed_port() as port:
        arguments = ["watch", "batch_a", "--url", f"http://127.0.0.1:{port}", "--give-up-after", "2s"]
        done = CliRunner().invoke(app, arguments, env={"FREDDY_API_KEY": "demo-token"})
    assert (2, "") == (done.exit_code, done.stdout)
    assert "gave up after " in done.stderr.splitlines()[-1]


def test_a_reader_that_left_ends_it(local_api: LocalApi) -> None:
    """`watch … | head -1`: no traceback, and not the status of a completed or failed batch."""
    made = batch(local_api)
    with watching(local_api.address, made.batch_id) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        made.work(first=DONE)
        assert 2 == process.wait(timeout=CEILING)
        assert "" == process.stderr.read()


def test_the_live_batch_moves(local_api: LocalApi) -> None:
    """Its counts change, and a poll with an ETag sees each change."""
    address = f"{local_api.address}{progress_path('batch_live')}?limit=0"
    pending: set[int] = set()
    headers, deadline = {"X-API-Key": "demo-token"}, time.monotonic() + CEILING
    while len(pending) < 4:
        assert time.monotonic() < deadline, pending
        answer = httpx.get(address, headers=headers)
        if answer.status_code != 304:
            headers["If-None-Match"] = answer.headers["ETag"]
            pending.add(answer.json()["data"]["pending"])
        time.sleep(0.5)
