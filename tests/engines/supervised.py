"""The stream, the queue of checks and the supervisor around an engine's tables, in threads of this process."""

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import boto3
import msgspec
import pytest

from batch_progress import dynamodb
from batch_progress.errors import ServiceUnavailable
from batch_progress.supervision import Check, Event
from batch_progress.supervisor import Done, Interrupted, Supervisor
from functions.revision import app
from local_cloud.background import in_background
from local_cloud.lambda_context import LambdaContext
from local_cloud.stream import Stream, remote
from local_cloud.template import stream_mapping
from tests.integration.world import World

# A check that fails comes again after this time. A deployed queue takes minutes.
REPEATED_SECONDS = 5.0


class LiveQueue:
    """A queue whose messages arrive when their delay is over."""

    def __init__(self) -> None:
        self._messages: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.sent = 0

    def send(self, body: str, delay: float) -> None:
        """Send a message."""
        with self._lock:
            self.sent += 1
            heapq.heappush(self._messages, (time.time() + delay, next(self._numbers), body))

    def due(self) -> str | None:
        """Take a message that has arrived."""
        with self._lock:
            if self._messages and self._messages[0][0] <= time.time():
                return heapq.heappop(self._messages)[2]
        return None


class Supervised:
    """What runs around the tables.

    Attributes:
        queue: The queue of checks.
        events: The events that were put.
        done: The checks that were done.
    """

    def __init__(self, world: World) -> None:
        self.queue = LiveQueue()
        self.events: list[Event] = []
        self.done: list[Done] = []
        self.supervisor = Supervisor(dynamodb.client(), world.jobs_table, self.queue, self)
        self._stop = threading.Event()

    def put(self, event: Event) -> None:
        """Take an event, as a bus does."""
        self.events.append(event)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the details of the events of a kind."""
        return [event.detail for event in self.events if event.detail_type == kind]

    def wait_for_finish(self, seconds: float) -> dict[str, Any]:
        """Wait for `Batch Finished` and for quiet after it; return the last one."""
        deadline, checks = time.monotonic() + seconds, -1
        while not self.of("Batch Finished") or checks != len(self.done):
            assert time.monotonic() < deadline, [done.outcome for done in self.done]
            checks = len(self.done)
            time.sleep(5)
        return self.of("Batch Finished")[-1]

    def checking(self) -> AbstractContextManager[None]:
        """Do the checks that are due while the block runs."""
        return in_background(self._run, self._stop, "checks")

    def _run(self) -> None:
        while not self._stop.is_set():
            body = self.queue.due()
            if body is None:
                time.sleep(0.05)
            else:
                self._check(body)

    def _check(self, body: str) -> None:
        try:
            self.done.append(self.supervisor.check(msgspec.json.decode(body, type=Check)))
        except (ServiceUnavailable, Interrupted):
            self.queue.send(body, REPEATED_SECONDS)


@contextmanager
def supervised(world: World, endpoint: str) -> Iterator[Supervised]:
    """Deliver the table's stream and do the checks while the block runs."""
    around = Supervised(world)
    table = world.dynamodb.describe_table(TableName=world.jobs_table)["Table"]
    streams = boto3.client("dynamodbstreams", endpoint_url=endpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "_queue", lambda: around.queue)
        app._chains.cache_clear()
        stream = Stream(
            remote(streams, table["LatestStreamArn"]),
            lambda event: app.handler(event, LambdaContext(30)),
            stream_mapping(),
        )
        with stream.delivered(), around.checking():
            yield around
    app._chains.cache_clear()
