"""The queue of checks and the bus of events, both of the embedded engine, and the supervisor behind them.

The engine is moto, which serves every AWS service at the address of its DynamoDB.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from batch_progress.supervision import SOURCE
from batch_progress_cli.local_server import REGION
from local_cloud.background import in_background

type Handler = Callable[[dict[str, Any]], Any]
type Message = dict[str, Any]

CHECKS = "ChecksQueue"
EVENTS = "Events"
_RULE = "every-event"
_ACCOUNT = "123456789012"
# How often the queues are asked for messages.
_POLL_SECONDS = 0.3
# A stream of events that a client reads slowly loses the oldest ones.
_MOST_EVENTS = 1_000
_PAUSE_SECONDS = 15.0

logger = logging.getLogger(__name__)


def queue_url(engine: str, name: str) -> str:
    """Return the URL of a queue of the engine at an address."""
    return f"{engine}/{_ACCOUNT}/{name}"


def create_queues() -> None:
    """Create the queue of checks, and a queue that receives every event by a rule of the bus."""
    import botocore.session  # noqa: PLC0415  # slow

    session = botocore.session.Session()
    sqs, events = (session.create_client(name) for name in ("sqs", "events"))
    for name in (CHECKS, EVENTS):
        sqs.create_queue(QueueName=name)
    events.put_rule(Name=_RULE, EventPattern=msgspec.json.encode({"source": [SOURCE]}).decode())
    target = {"Id": EVENTS, "Arn": f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{EVENTS}"}
    events.put_targets(Rule=_RULE, Targets=[target])


class Poller:
    """A thread that receives the messages of a queue and deletes those that were handled."""

    def __init__(self, engine: str, queue: str, handled: Callable[[list[Message]], set[str]]) -> None:
        """Take the queue, and a function that returns the ids of the messages that must come again."""
        import botocore.session  # noqa: PLC0415  # slow

        self._sqs = botocore.session.Session().create_client("sqs")
        self._url = queue_url(engine, queue)
        self._handled = handled
        self._name = queue
        self._stop = threading.Event()

    def polling(self) -> AbstractContextManager[None]:
        """Receive messages while the block runs."""
        return in_background(self._run, self._stop, self._name)

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                self._receive()
            except Exception:
                logger.exception("The messages of %s were not handled", self._name)

    def _receive(self) -> None:
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, VisibilityTimeout=30)
        messages = answer.get("Messages", [])
        failed = self._handled(messages) if messages else set()
        for message in messages:
            if message["MessageId"] not in failed:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])


def delivered(handler: Handler) -> Callable[[list[Message]], set[str]]:
    """Return what calls the supervisor with messages as its event source mapping does."""

    def handled(messages: list[Message]) -> set[str]:
        records = [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]
        answer = handler({"Records": records})
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    return handled


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
