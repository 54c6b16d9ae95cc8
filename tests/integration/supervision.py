"""The supervisor over the tables of a world, with a queue, a bus and a clock in memory."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batch_progress import dynamodb
from batch_progress.chains import Chains
from batch_progress.errors import ServiceUnavailable
from batch_progress.revision import Revisions
from batch_progress.supervision import Check, Event
from batch_progress.supervisor import Done, Supervisor
from tests.integration.world import World, attributes

_numbers = itertools.count()


class Unheard:
    """A queue that drops its messages, for tests of other things."""

    def send(self, body: str, delay: int) -> None:
        """Do nothing."""


class Away(ServiceUnavailable):
    """A service that gives no answer."""


@dataclass
class MemoryQueue:
    """A queue with a clock: messages arrive when their delay is over.

    Attributes:
        sent: The time at which each message arrives, a serial number, and its body.
        away: Whether sending fails.
    """

    clock: "Clock"
    sent: list[tuple[float, int, str]] = field(default_factory=list)
    away: bool = False

    def send(self, body: str, delay: int) -> None:
        if self.away:
            raise Away
        assert 0 <= delay <= 900
        self.sent.append((self.clock() + delay, next(_numbers), body))

    @property
    def checks(self) -> list[Check]:
        """The checks on their way, the next one first."""
        return [msgspec.json.decode(body, type=Check) for _, _, body in sorted(self.sent)]


@dataclass
class MemoryBus:
    """A bus that keeps its events.

    Attributes:
        events: The events that were put.
        failures: The number of calls that are still to fail.
    """

    events: list[Event] = field(default_factory=list)
    failures: int = 0

    def put(self, event: Event) -> None:
        if self.failures:
            self.failures -= 1
            raise Away
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, str]]:
        """The `detail-type` and the id of each event."""
        return [(event.detail_type, event.detail["id"]) for event in self.events]


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float

    def __call__(self) -> float:
        return self.now


class Cloud:
    """A stream, a queue and a bus around the supervisor.

    Attributes:
        clock: The clock of the supervisor.
        queue: The queue of checks.
        bus: The bus of events.
        supervisor: The supervisor.
    """

    def __init__(self, world: World, now: float) -> None:
        self.world = world
        self.clock = Clock(now)
        self.queue = MemoryQueue(self.clock)
        self.bus = MemoryBus()
        self.client = dynamodb.client()
        self.supervisor = Supervisor(self.client, world.jobs_table, self.queue, self.bus, self.clock)
        self.revisions = Revisions(self.client, world.jobs_table)
        self.chains = Chains(self.client, world.jobs_table, self.queue)

    def changed(self, batch_id: str, jobs: int = 1) -> bool:
        """Deliver the changes of some jobs; return whether a check was asked for."""
        found = self.revisions.count(batch_id, jobs)
        return found is not None and self.chains.changed(found, self.clock())

    def asked(self, batch_id: str) -> Done:
        """Do a check that must count."""
        return self.supervisor.check(Check(batch_id, int(self.item(batch_id).get("check_number", {"N": "0"})["N"]) + 1))

    def run(self, seconds: float) -> list[Done]:
        """Let time pass, and do the checks that are due."""
        until, done = self.clock.now + seconds, []
        while self.queue.sent and min(self.queue.sent)[0] <= until:
            message = min(self.queue.sent)
            self.queue.sent.remove(message)
            self.clock.now = max(self.clock.now, message[0])
            done.append(self.supervisor.check(msgspec.json.decode(message[2], type=Check)))
            assert len(done) < 1_000
        self.clock.now = until
        return done

    def item(self, batch_id: str, sk: str = "BATCH") -> dict[str, Any]:
        """Return an item, empty if it does not exist."""
        key = attributes({"batch_id": batch_id, "sk": sk})
        found = self.world.dynamodb.get_item(TableName=self.world.jobs_table, Key=key, ConsistentRead=True)
        return dict(found.get("Item", {}))
