"""The queue of checks, the bus of events, and the supervisor between them."""

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from batch_progress_cli.local_server import REGION
from local_cloud.background import in_background

type Handler = Callable[[dict[str, Any]], Any]

CHECKS = "ChecksQueue"
ACCOUNT = "123456789012"
# How often the queue is asked for messages.
_POLL_SECONDS = 0.3
# A message that was not handled comes again after this many seconds.
_VISIBILITY_SECONDS = 30.0
# A stream of events that a client reads slowly loses the oldest ones.
_MOST_EVENTS = 1_000
_PAUSE_SECONDS = 15.0

logger = logging.getLogger(__name__)


def queue_url(address: str) -> str:
    """Return the URL of the queue at an address."""
    return f"{address}/{ACCOUNT}/{CHECKS}"


@dataclass(frozen=True, order=True)
class Message:
    """A message of the queue.

    Attributes:
        visible: From when it can be received, in seconds of `time.monotonic`.
        message_id: Its id.
        body: A check.
    """

    visible: float
    message_id: str
    body: str = field(compare=False)


class Queue:
    """The queue of checks. Its messages come in the order in which they become visible."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._lock = threading.Lock()

    def send(self, body: str, delay: float) -> str:
        """Add a message that can be received after `delay` seconds; return its id."""
        message = Message(time.monotonic() + delay, str(uuid4()), body)
        self._add(message)
        return message.message_id

    def deliver(self, handler: Handler, most: int) -> None:
        """Call the supervisor with messages that are due, at most `most`, as its event source mapping does."""
        messages = self._due(most)
        if not messages:
            return
        failed = {message.message_id for message in messages}
        try:
            records = [{"messageId": message.message_id, "body": message.body} for message in messages]
            failed = {failure["itemIdentifier"] for failure in handler({"Records": records})["batchItemFailures"]}
        except Exception:
            logger.exception("The checks were not done")
        for message in messages:
            if message.message_id in failed:
                self._add(Message(time.monotonic() + _VISIBILITY_SECONDS, message.message_id, message.body))

    def _add(self, message: Message) -> None:
        with self._lock:
            heapq.heappush(self._messages, message)

    def _due(self, most: int) -> list[Message]:
        now = time.monotonic()
        due: list[Message] = []
        with self._lock:
            while self._messages and self._messages[0].visible <= now and len(due) < most:
                due.append(heapq.heappop(self._messages))
        return due

    def delivered(self, handler: Handler, most: int) -> AbstractContextManager[None]:
        """Deliver messages to the supervisor, at most `most` at once, while the block runs."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(_POLL_SECONDS):
                self.deliver(handler, most)

        return in_background(run, stop, CHECKS)


class EventBus:
    """The bus: it hands each event to one function, as EventBridge delivers it."""

    def __init__(self, target: Callable[[dict[str, Any]], None]) -> None:
        self._target = target

    def put(self, entry: dict[str, Any], detail: dict[str, Any]) -> str:
        """Deliver an entry of `PutEvents`, whose detail is decoded; return the event's id."""
        event_id = str(uuid4())
        self._target(
            {
                "version": "0",
                "id": event_id,
                "detail-type": entry["DetailType"],
                "source": entry["Source"],
                "account": ACCOUNT,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "region": REGION,
                "resources": entry.get("Resources", []),
                "detail": detail,
            }
        )
        return event_id


class EventLog:
    """The latest events, for clients that print them."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, bytes]] = deque(maxlen=_MOST_EVENTS)
        self._changed = threading.Condition()
        self._number = 0

    def add(self, event: bytes) -> None:
        """Add an event, as JSON."""
        with self._changed:
            self._number += 1
            self._events.append((self._number, event))
            self._changed.notify_all()

    def lines(self) -> Iterator[bytes]:
        """Yield the events since the start as lines, then each as it comes, and an empty line in long pauses."""
        seen = 0
        while True:
            seen, new = self._after(seen)
            yield from new
            if not new:
                # Fails if the client has gone.
                yield b"\n"

    def _after(self, seen: int) -> tuple[int, list[bytes]]:
        """Wait for events after the first `seen`; return the number of all events, and the lines of the new ones."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > seen, _PAUSE_SECONDS)
            return self._number, [event + b"\n" for number, event in self._events if number > seen]
