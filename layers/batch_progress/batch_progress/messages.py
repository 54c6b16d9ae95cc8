"""The queue of checks and the bus of events.

botocore is that of Lambda's runtime, and importing it takes a quarter of a second: it is imported with the first
message, because most deliveries of changes need none.
"""

import logging
import time
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec

from batch_progress.errors import ServiceUnavailable
from batch_progress.supervision import SOURCE, Event

_encoder: Final = msgspec.json.Encoder()
# EventBridge takes an entry after a moment if it was throttled or failed inside.
_ATTEMPTS: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.2


class Queue(Protocol):
    """Where checks are sent."""

    def send(self, body: str, delay: int) -> None:
        """Send a message with a delay in seconds.

        Raises:
            ServiceUnavailable: It may not have been sent.
        """


class Bus(Protocol):
    """Where events are put."""

    def put(self, event: Event) -> None:
        """Put an event.

        Raises:
            ServiceUnavailable: It may not have been put.
        """


class ChecksQueue:
    """The SQS queue of checks."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, body: str, delay: int) -> None:
        """Send a message; see `Queue`."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # slow

        try:
            self._client.send_message(QueueUrl=self._url, MessageBody=body, DelaySeconds=delay)
        except (BotoCoreError, ClientError) as error:
            raise ServiceUnavailable from error

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401  # botocore ships no types
        return _client("sqs")


class EventBus:
    """The EventBridge bus of events."""

    def __init__(self, name: str) -> None:
        self._name = name

    def put(self, event: Event) -> None:
        """Put an event; see `Bus`."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # slow

        entry = {
            "EventBusName": self._name,
            "Source": SOURCE,
            "DetailType": event.detail_type,
            "Detail": _encoder.encode(event.detail).decode(),
        }
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE_SECONDS * attempt)
            try:
                answer = self._client.put_events(Entries=[entry])
            except (BotoCoreError, ClientError) as error:
                raise ServiceUnavailable from error
            # A call that succeeds can have failed to put the event.
            if not answer["FailedEntryCount"]:
                return
        raise ServiceUnavailable from EventRefused(answer["Entries"][0])

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401  # botocore ships no types
        return _client("events")


class EventRefused(Exception):
    """EventBridge took the call but not the event."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")


def _client(service: str) -> Any:  # noqa: ANN401  # botocore ships no types
    from botocore.config import Config  # noqa: PLC0415  # slow
    from botocore.session import Session  # noqa: PLC0415  # the same

    # Else each cold start logs where its credentials are from.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    config = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})
    session = Session()
    return session.create_client(service, config=config)
