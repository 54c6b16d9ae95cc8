"""What supervising a batch costs, compared with what its workers' own writes cost: `supervision.json`.

`python -m benchmarks.supervision` writes it (two minutes), and `benchmarks.cost_tables` makes a table of it.
The functions' own code runs on an in-memory DynamoDB that counts capacity units, in simulated time, so the result is
the same on every machine.
"""

import heapq
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import ceil
from typing import Any, Final

import msgspec

from batch_progress import decode, table
from batch_progress.chains import Chains
from batch_progress.dynamodb import Client, Reason, RequestRefused
from batch_progress.revision import Revisions
from batch_progress.supervision import Check, Event
from batch_progress.supervisor import Supervisor
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item, JobStatus, timestamp
from benchmarks.cost import SUPERVISION
from local_cloud.template import stream_mapping
from tests.hostile.histories.engine import Engine, Key, Refused, Served

WRITE_UNIT_BYTES: Final = 1_024
# Assumed: time of a call of DynamoDB, SQS or EventBridge, and CPU time for each 1,000 jobs at the function's memory.
CALL_SECONDS: Final = 0.006
SECONDS_PER_THOUSAND_JOBS: Final = 0.010
DELIVERED_AT_ONCE: Final = stream_mapping().batch_size

# Jobs and workers of each batch. A job takes about ten seconds.
BATCHES: Final = {10: 3, 50: 2, 1_000: 20, 50_000: 100}
_BATCH: Final = "batch_xyz789"
_TABLE: Final = "jobs"
_START: Final = 1_734_345_000.0
_MEDIAN_SECONDS: Final = 9.0
_SPREAD: Final = 0.45
# Jobs that a writer creates per second.
_CREATED_PER_SECOND: Final = 1_000


@dataclass
class Bill:
    """What one part of the system used."""

    read_units: float = 0.0
    write_units: int = 0
    calls: int = 0
    messages: int = 0
    events: int = 0
    invocations: int = 0
    jobs_read: int = 0


class Meter(Client):
    """A client of the in-memory engine that adds to a bill."""

    def __init__(self, engine: Engine, bill: Bill) -> None:
        self._engine = engine
        self.bill = bill

    def query(self, *, detailed: bool = False, **arguments: Any) -> decode.QueryPage[Any]:  # noqa: ANN401
        """Read one page."""
        page = decode.query_page(self._ask("Query", arguments), detailed=detailed)
        self.bill.jobs_read += page.count
        return page

    def get_item(self, **arguments: Any) -> decode.GetResult:  # noqa: ANN401
        """Read one item."""
        return decode.get_result(self._ask("GetItem", arguments))

    def update_item(self, **arguments: Any) -> decode.UpdateResult:  # noqa: ANN401
        """Change one item."""
        return decode.update_result(self._ask("UpdateItem", arguments))

    def _ask(self, operation: str, arguments: dict[str, Any]) -> bytes:
        self.bill.calls += 1
        try:
            response, served = self._engine.call(operation, arguments)
        except Refused as error:
            self.bill.write_units += operation == "UpdateItem"
            raise RequestRefused(Reason.REFUSED, error.code, 400, error.message) from error
        self.bill.read_units += served.units
        self.bill.write_units += written(served)
        return msgspec.json.encode(response)


def written(served: Served) -> int:
    """Return the write units of an operation: the larger one of the item before and after counts."""
    if served.operation != "UpdateItem":
        return 0
    before = served.before.size if served.before else 0
    return ceil(max(before, served.versions[0].size) / WRITE_UNIT_BYTES)


@dataclass
class Simulation:
    """A batch, its workers and the functions, in simulated time.

    Attributes:
        workers: What the workers' writes used.
        changes: What counting the changes into the revision used.
        supervision: What the checks used, and what asking for them used.
        finished: The number of times that the batch was announced as finished.
    """

    jobs: int
    crew: int
    workers: Bill = field(default_factory=Bill)
    changes: Bill = field(default_factory=Bill)
    supervision: Bill = field(default_factory=Bill)
    finished: int = 0

    def __post_init__(self) -> None:
        """Create the table and the functions."""
        self._now = _START
        self._random = random.Random(1)
        self._engine = Engine(lambda: self._now, self._random)
        self._items = self._engine.create_table(_TABLE, "batch_id", "sk")
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._changed: dict[str, None] = {}
        checks = Meter(self._engine, self.supervision)
        self._revisions = Revisions(Meter(self._engine, self.changes), _TABLE)
        self._chains = Chains(checks, _TABLE, self)
        self._supervisor = Supervisor(checks, _TABLE, self, self, lambda: self._now)

    @property
    def seconds(self) -> float:
        """The seconds that have passed."""
        return self._now - _START

    def run(self) -> None:
        """Create the batch, and let time pass until nothing is left to do."""
        self._write(
            table.item(
                batch_id=_BATCH,
                sk=BATCH_KEY,
                owner_id="alice",
                total_urls=self.jobs,
                created_at=self._timestamp(),
                parallel_jobs=self.crew,
                timeout_per_url=30,
                lost_after=90,
                made_from="0" * 64,
                expires_at=int(_START) + 30 * 86_400,
            )
        )
        self._changed[BATCH_KEY] = None
        for number in range(self.jobs):
            self._later(number / _CREATED_PER_SECOND, partial(self._create, number))
        begin = self.jobs / _CREATED_PER_SECOND
        queue = iter(range(self.jobs))
        for _ in range(self.crew):
            self._later(begin, lambda: self._begin(queue))
        self._later(1.0, self._deliver)
        while self._agenda:
            self._now, _, step = heapq.heappop(self._agenda)
            step()

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (self._now + seconds, self._number, step))

    def _timestamp(self) -> str:
        return timestamp(datetime.fromtimestamp(self._now, UTC))

    # The workers

    def _create(self, number: int) -> None:
        self._write(self._job(number) | table.item(status=JobStatus.PENDING, items_extracted=0))

    def _begin(self, queue: Iterator[int]) -> None:
        number = next(queue, None)
        if number is None:
            return
        item = self._job(number) | table.item(
            status=JobStatus.PROCESSING, items_extracted=0, attempt=1, started_at=self._timestamp()
        )
        self._write(item)
        seconds = self._random.lognormvariate(0, _SPREAD) * _MEDIAN_SECONDS
        self._later(min(seconds, 30.0), lambda: self._end(item, queue))

    def _end(self, item: Item, queue: Iterator[int]) -> None:
        self._write(item | table.item(status=JobStatus.COMPLETED, items_extracted=25, finished_at=self._timestamp()))
        self._begin(queue)

    def _job(self, number: int) -> Item:
        url = f"https://shop.example.com/category/page/{number}"
        return table.item(
            batch_id=_BATCH, sk=f"{JOB_PREFIX}job_{number:06}", url=url, expires_at=int(_START) + 2_592_000
        )

    def _write(self, item: Item) -> None:
        version = self._items.write(Key(item["batch_id"]["S"], item["sk"]["S"]), dict(item))
        self.workers.write_units += ceil(version.size / WRITE_UNIT_BYTES)
        self._changed[item["sk"]["S"]] = None

    # The stream and the queue

    def _deliver(self) -> None:
        """Deliver the changes of a window, as the event source mapping does."""
        changed, self._changed = list(self._changed), {}
        for start in range(0, len(changed), DELIVERED_AT_ONCE):
            jobs = sum(sort_key != BATCH_KEY for sort_key in changed[start : start + DELIVERED_AT_ONCE])
            self.changes.invocations += 1
            found = self._revisions.count(_BATCH, jobs)
            if found is not None:
                self._chains.changed(found, self._now)
        if changed or self._agenda:
            self._later(1.0, self._deliver)

    def send(self, body: str, delay: int) -> None:
        """Take a check, as the queue does."""
        self.supervision.messages += 1
        self._later(float(delay), lambda: self._check(body))

    def _check(self, body: str) -> None:
        self.supervision.invocations += 1
        self._supervisor.check(msgspec.json.decode(body, type=Check))

    def put(self, event: Event) -> None:
        """Take an event, as the bus does."""
        self.supervision.events += 1
        self.finished += event.detail_type == "Batch Finished"


def simulated(jobs: int) -> Simulation:
    """Return a finished simulation of a batch with this number of jobs."""
    simulation = Simulation(jobs, BATCHES[jobs])
    simulation.run()
    return simulation


def row(simulation: Simulation) -> dict[str, int | float]:
    """Return what a batch used, as `supervision.json` has it."""
    bill = simulation.supervision
    return {
        "workers": simulation.crew,
        "seconds": simulation.seconds,
        "worker_write_units": simulation.workers.write_units,
        "deliveries": simulation.changes.invocations,
        "delivery_write_units": simulation.changes.write_units,
        "read_units": bill.read_units,
        "write_units": bill.write_units,
        "messages": bill.messages,
        "events": bill.events,
        "invocations": bill.invocations,
        "milliseconds": round(1_000 * (bill.calls * CALL_SECONDS + bill.jobs_read / 1_000 * SECONDS_PER_THOUSAND_JOBS)),
    }


def main() -> None:
    """Write the results."""
    batches = {}
    for jobs in BATCHES:
        batches[jobs] = row(simulated(jobs))
        print(f"{jobs:,} jobs: {batches[jobs]}")
    SUPERVISION.write_text(json.dumps({"batches": batches}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
