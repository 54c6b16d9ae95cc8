"""The Python client against the local server: over a bad line, without the server for a while, over many pages."""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from batch_progress.client import AsyncProgressClient, Job, NotFound, Progress, ProgressClient, TimedOut, Unavailable
from tests.hostile.misbehaving import Reply, misbehaving, write_certificate
from tests.integration.server import CEILING, LocalApi
from tests.integration.test_watch import DONE, bad_line, batch, finished

TOKEN = "demo-token"

type Wait = Callable[..., Progress]


def wait_in_threads(address: str, batch_id: str, **options: Any) -> Progress:  # noqa: ANN401  # those of `wait`
    with ProgressClient(address, TOKEN) as client:
        return client.wait(batch_id, **options)


def wait_in_asyncio(address: str, batch_id: str, **options: Any) -> Progress:  # noqa: ANN401  # those of `wait`
    async def wait() -> Progress:
        async with AsyncProgressClient(address, TOKEN) as client:
            return await client.wait(batch_id, **options)

    return asyncio.run(wait())


both = pytest.mark.parametrize("wait", [wait_in_threads, wait_in_asyncio], ids=["threads", "asyncio"])


@both
def test_over_a_bad_line_it_sees_the_end(local_api: LocalApi, wait: Wait) -> None:
    """Every third connection is dropped, before the answer or within it. No state goes back."""
    made = batch(local_api)
    seen: list[int] = []
    with bad_line(local_api.address) as (address, connections):

        def work() -> None:
            # The third connection fails.
            while len(connections) <= 3:
                time.sleep(0.05)
            made.work(first=DONE, failures=1)

        worker = threading.Thread(target=work)
        worker.start()
        end = wait(address, made.batch_id, on_change=lambda progress: seen.append(progress.ended))
        worker.join()
    assert (7, 1, 0, 35) == (end.completed, end.failed, end.pending, end.total_items_extracted)
    assert (DONE, 8) == (seen[0], seen[-1])
    assert sorted(seen) == seen


class Door:
    """A proxy that can be shut: connections are then refused, and open ones are cut."""

    def __init__(self, address: str) -> None:
        target = urlsplit(address)
        self._target = (target.hostname, target.port)
        self._open: list[socket.socket] = []
        # Keeps the port while the door is shut.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self._place = self._held.getsockname()
        self.address = f"http://127.0.0.1:{self._place[1]}"
        self.open()

    def close(self) -> None:
        self.shut()
        self._held.close()

    def open(self) -> None:
        self._listener = socket.create_server(self._place, reuse_port=True)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the door is shut
            while True:
                client, _ = listener.accept()
                onward = socket.create_connection(self._target, timeout=CEILING)
                self._open += [client, onward]
                for pair in ((client, onward), (onward, client)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    def shut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        while self._open:
            with self._open.pop() as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@both
def test_a_server_that_goes_away_and_comes_back(
    local_api: LocalApi, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two polls, for two retries. The batch has ended meanwhile."""
    made, door = batch(local_api), Door(local_api.address)
    refused: list[Exception] = []
    failed = Unavailable.__init__

    def count(error: Unavailable, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # those of the class
        refused.append(error)
        if len(refused) == 2:
            door.open()
        failed(error, *arguments, **options)

    def on_change(_: Progress) -> None:
        if not refused:
            door.shut()
            made.work(first=DONE)

    monkeypatch.setattr(Unavailable, "__init__", count)
    end = wait(door.address, made.batch_id, on_change=on_change)
    door.close()
    assert (8, 0) == (end.completed, end.pending)
    assert 2 == len(refused)


def test_all_jobs_come_over_the_pages_of_the_real_api(local_api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, in the order of their ids, with their times; and those of a status."""
    monkeypatch.setattr("batch_progress.client.protocol._JOBS_PER_PAGE", 3)
    made = batch(local_api)
    with ProgressClient(local_api.address, TOKEN) as client:
        jobs = list(client.jobs(made.batch_id))
        pending = [job.job_id for job in client.jobs(made.batch_id, status="pending")]
    assert made.job_ids == [job.job_id for job in jobs]
    assert made.job_ids[DONE:] == pending
    assert ["completed"] * DONE + ["pending"] * 6 == [job.status for job in jobs]
    first = jobs[0]
    assert isinstance(first, Job)
    assert first.started_at
    assert first.finished_at
    assert 0 < (first.finished_at - first.started_at).total_seconds()
    assert None is first.started_at.utcoffset() or not first.started_at.utcoffset()


def test_an_unknown_batch(local_api: LocalApi) -> None:
    with ProgressClient(local_api.address, TOKEN) as client, pytest.raises(NotFound) as caught:
        client.get("batch_nobody")
    assert ("BATCH_NOT_FOUND", 404, {"batch_id": "batch_nobody"}) == (
        caught.value.code,
        caught.value.status,
        caught.value.details,
    )
    assert caught.value.trace_id


# A server of the test's own


def answer(ended: int) -> bytes:
    """Return the API's answer for a batch of four jobs."""
    times = dict.fromkeys(("earliest", "latest"), "2026-11-24T10:00:00Z")
    data = {
        "batch_id": "batch_a",
        "total_urls": 4,
        "completed": ended,
        "failed": 0,
        "pending": 4 - ended,
        "total_items_extracted": 9,
        "estimated_completion": "2026-11-24T10:00:00Z",
        "estimate": {"basis": "observed", **times, "confidence": 0.8},
    }
    return json.dumps({"success": True, "data": data}).encode()


@contextlib.contextmanager
def served(*replies: Reply) -> Iterator[str]:
    """Serve a series of replies; the last one is repeated."""
    left = list(replies)
    with misbehaving(lambda *_: left.pop(0) if len(left) > 1 else left[0]) as server:
        yield server.address


PACKED = gzip.compress(answer(2))
DAMAGED = [
    Reply(reset=0),
    Reply(body=answer(2), reset=40),
    Reply(hang_up=True),
    Reply(body=answer(2)[:50], promised=len(answer(2))),
    Reply(body=answer(2)[:50]),
    Reply(body=b""),
    Reply(body=PACKED[:-30], headers={"Content-Encoding": "gzip"}),
    Reply(body=b"x" + PACKED[1:], headers={"Content-Encoding": "gzip"}),
    Reply(502, b"<html>"),
    Reply(503, b"", {"Retry-After": "1"}),
]


@both
def test_every_damage_is_survived(wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the wire, and not only as httpx's exceptions."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("batch_progress.client.clients.time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr("batch_progress.client.clients.asyncio", SimpleNamespace(sleep=sleep))
    seen: list[int] = []
    with served(Reply(body=answer(1)), *DAMAGED, Reply(body=answer(4))) as address:
        wait(address, "batch_a", on_change=lambda progress: seen.append(progress.ended))
    assert [1, 4] == seen
    assert 1 + len(DAMAGED) == len(pauses)


@both
def test_a_body_that_trickles_does_not_outlast_the_time(wait: Wait) -> None:
    """Each byte comes long before a read times out, and the last one after a day."""
    body = answer(4)
    with (
        served(Reply(body=body, promised=2_000_000, piece=1, pause=0.05)) as address,
        pytest.raises(TimedOut, match="batch_a: no answer after 2 seconds: no answer"),
    ):
        wait(address, "batch_a", timeout=2)


TRICKLE = Reply(body=answer(4), headers={"X-Long": "x" * 2_000}, head_pause=0.05)


@both
@pytest.mark.parametrize("before", [(), (Reply(body=answer(1), headers={"Retry-After": "1"}),)], ids=["new", "kept"])
def test_headers_that_trickle_do_not_outlast_the_time(wait: Wait, before: tuple[Reply, ...]) -> None:
    """On a new connection, and on one that is used again. The last byte would come after two minutes."""
    with served(*before, TRICKLE) as address, pytest.raises(TimedOut):
        wait(address, "batch_a", timeout=2)


def test_headers_that_trickle_over_tls_do_not_outlast_the_time(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "localhost.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    trusting = httpx.Client(verify=ssl.create_default_context(cafile=certificate), trust_env=False)
    with (
        misbehaving(lambda *_: TRICKLE, context) as server,
        trusting as http,
        pytest.raises(TimedOut, match=r"no answer .*time"),
    ):
        ProgressClient(server.address, TOKEN, http=http).wait("batch_a", timeout=1)


def test_a_given_client_keeps_its_own_time_outs() -> None:
    """Also on the connection that a request of ours has opened, and after the time of that one is over."""
    with served(Reply(body=answer(4)), Reply(body=b"late", pause=1.5)) as address, httpx.Client(timeout=None) as http:  # noqa: S113  # the point
        ProgressClient(address, TOKEN, http=http).wait("batch_a", timeout=1)
        assert "late" == http.get(address).text


@both
@pytest.mark.parametrize("reply", [*DAMAGED[:4], Reply(silent=CEILING)], ids=str)
def test_no_traceback_shows_the_token(wait: Wait, reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    """Not even with the local variables of its frames, as error trackers send them; and no log line does."""
    caplog.set_level(0)
    with served(reply) as address, pytest.raises(TimedOut) as caught:
        wait(address, "batch_a", timeout=0)
    shown: list[str] = []
    left: list[BaseException | None] = [caught.value]
    while left:
        if (error := left.pop()) is not None:
            shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
            left += [error.__cause__, error.__context__]
    text = "".join(shown)
    assert "outcome = Unavailable" in text
    assert caplog.records
    assert TOKEN not in text + caplog.text


def test_a_cancelled_wait_ends_at_once(local_api: LocalApi) -> None:
    """`asyncio.timeout` works too; the connection is usable after it."""
    made = batch(local_api)

    async def waited() -> int:
        async with AsyncProgressClient(local_api.address, TOKEN) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await client.wait(made.batch_id)
            return (await client.get(made.batch_id)).pending

    assert 6 == asyncio.run(waited())


def test_threads_share_a_client(local_api: LocalApi) -> None:
    made = [finished(local_api) for _ in range(4)]
    ends: dict[str, int] = {}
    with ProgressClient(local_api.address, TOKEN) as client:
        threads = [
            threading.Thread(target=lambda one=one: ends.update({one.batch_id: client.wait(one.batch_id).completed}))
            for one in made
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {one.batch_id: 1 for one in made} == ends
