"""When clients that obey `Retry-After` see the end of a large batch, and what that costs: `make bench-ending`.

The function's own counting runs on a simulated table in simulated time, so the result is the same on every machine.
Clients ask for `limit=0`. Jobs end as their workers go on; the revision follows as the stream delivers their changes.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush, heapreplace
from statistics import mean, quantiles
from typing import Any, Final

import msgspec

from batch_progress.kept import KeptCount
from batch_progress.model import Batch, Job, Notes, Page
from batch_progress.store import ReadStats
from batch_progress.table import JobStatus
from benchmarks.freshness import LEASE_SECONDS
from functions.progress.coding import Identity
from functions.progress.counting import Asked, Counting, LargeBatches, Sources
from functions.progress.listing import Listing
from functions.progress.query import Query

START: Final = 1_734_345_000.0
ROUNDS: Final = 40
# The batch is watched for about so long before its end.
WATCHED_SECONDS: Final = 150.0
# Read units and seconds that counting one job takes, and read units of a `BATCH` item.
UNITS_PER_JOB: Final = 0.0246
SECONDS_PER_JOB: Final = 1 / 60_000
ITEM_UNITS: Final = 0.5
# The stream collects changes for a second, and is read 0.4 s later.
COLLECTED_SECONDS: Final = 1.0
DELIVERED_SECONDS: Final = 0.4
REQUEST_SECONDS: Final = 0.05


class Work(msgspec.Struct, frozen=True):
    """A batch and its clients.

    Attributes:
        jobs: The number of jobs.
        workers: The number of jobs that run at once.
        seconds: The mean duration of a job.
        spread: The standard deviation of the logarithm of a job's duration.
        timeout: The seconds after which a job is stopped.
        clients: The number of clients.
    """

    jobs: int
    workers: int
    seconds: float
    spread: float
    timeout: float
    clients: int


WORKS: Final = (
    Work(20_000, 10, 6.0, 1.2, 30.0, 20),
    Work(50_000, 50, 2.0, 0.6, 30.0, 20),
    Work(50_000, 10, 6.0, 1.2, 30.0, 20),
    Work(50_000, 50, 6.0, 1.0, 30.0, 100),
    Work(100_000, 20, 10.0, 1.2, 120.0, 20),
)


class Simulated:
    """The jobs table: it is read and written as by `BatchStore` and `KeptCounts`."""

    def __init__(self, work: Work, draw: random.Random) -> None:
        self.now = START
        self.read_units = 0.0
        self._work = work
        watched = min(int(WATCHED_SECONDS * work.workers / work.seconds), work.jobs)
        self._ended_before = self._ended(work.jobs - watched, draw)
        free = [START + draw.random() * work.seconds for _ in range(work.workers)]
        heapify(free)
        self._started: list[float] = []
        self._ends: list[float] = []
        for _ in range(watched):
            self._started.append(free[0])
            self._ends.append(free[0] + self._duration(draw))
            heapreplace(free, self._ends[-1])
        self.last = max(self._ends)
        changes = {(job, int(at)) for times in (self._started, self._ends) for job, at in enumerate(times)}
        self._delivered = sorted(second + COLLECTED_SECONDS + DELIVERED_SECONDS for _, second in changes)
        # What was kept on the `BATCH` item, from when on.
        self._notes = [(START, Notes())]

    def _duration(self, draw: random.Random) -> float:
        work = self._work
        return min(work.seconds * draw.lognormvariate(-(work.spread**2) / 2, work.spread), work.timeout)

    def _ended(self, jobs: int, draw: random.Random) -> Page:
        """Return the jobs that ended before the batch is watched."""
        started = [_moment(START - 60 - self._duration(draw)) for _ in range(jobs)]
        return _page([JobStatus.COMPLETED.value] * jobs, list(started), [_moment(START - 60)] * jobs)

    def batch(self, batch_id: str, owner_id: str | None, now: float, stats: ReadStats) -> Batch:
        """Read the `BATCH` item as it is now."""
        stats.read_units += ITEM_UNITS
        self.read_units += ITEM_UNITS
        notes = next(notes for since, notes in reversed(self._notes) if since <= now)
        work = self._work
        return Batch(
            batch_id,
            owner_id,
            work.jobs,
            _moment(START - work.jobs * work.seconds / work.workers),
            work.workers,
            work.timeout,
            revision=work.jobs + bisect_right(self._delivered, now),
            notes=notes,
        )

    def read(
        self, batch_id: str, owner_id: str | None, now: float, stats: ReadStats, *, detailed: bool
    ) -> tuple[Batch, Iterator[Page]]:
        """Read the whole batch."""
        assert not detailed  # noqa: S101  # the clients do not ask for details
        return self.batch(batch_id, owner_id, now, stats), self._pages(stats)

    def _pages(self, stats: ReadStats) -> Iterator[Page]:
        now = self.now
        statuses = [
            JobStatus.COMPLETED.value
            if end <= now
            else JobStatus.PROCESSING.value
            if start <= now
            else JobStatus.PENDING.value
            for start, end in zip(self._started, self._ends, strict=True)
        ]
        started = [_moment(at) if at <= now else None for at in self._started]
        units = self._work.jobs * UNITS_PER_JOB
        stats.read_units += units
        self.read_units += units
        yield _page(statuses, started, [_moment(at) if at <= now else None for at in self._ends])
        self.now += self._work.jobs * SECONDS_PER_JOB
        yield self._ended_before

    def claim(self, _batch_id: str, now: float) -> bool:
        """Note that a request counts the batch."""
        self._notes.append((now, Notes(self._notes[-1][1].counted, now + LEASE_SECONDS)))
        return True

    def keep(self, _batch_id: str, kept: KeptCount) -> bool:
        """Keep a count from now on."""
        self._notes.append((self.now, Notes(kept.encode())))
        return True


def _page(statuses: list[str], started: list[datetime | None], finished: list[datetime | None]) -> Page:
    nothing: list[Any] = [None] * len(statuses)
    return Page([Job("", "", status, 0) for status in statuses], started, finished, nothing, nothing)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def watched(work: Work, seed: int) -> tuple[list[float], float]:
    """Watch a batch to its end; return the seconds after which each client saw it, and the read units a second."""
    draw = random.Random(seed)
    table = Simulated(work, draw)
    sources = Sources(table, table, LargeBatches())  # type: ignore[arg-type]  # the methods that counting calls
    polls = [START, *(START + 5 + draw.uniform(0, 2) for _ in range(work.clients - 1))]
    heapify(polls)
    seen = []
    units = 0.0
    while polls:
        table.now = heappop(polls)
        if table.now <= table.last:
            units = table.read_units
        asked = Asked(Query("batch", limit=0), "owner", lambda: table.now, ReadStats())
        wait = Counting(sources, asked, Listing(asked.query, Identity())).counted().poll_after
        if wait is None:
            seen.append(table.now - table.last)
        else:
            heappush(polls, table.now + wait + REQUEST_SECONDS)
    return seen, units / (table.last - START)


def main() -> None:
    """Print a line for each batch."""
    print("   jobs  workers  clients  end seen by all after: median  9 in 10  most   read units a second")
    for work in WORKS:
        rounds = [watched(work, seed) for seed in range(ROUNDS)]
        last = [max(seen) for seen, _ in rounds]
        tenths = quantiles(last, n=10)
        print(
            f"{work.jobs:>7,}{work.workers:>9}{work.clients:>9}{tenths[4]:>37.1f}{tenths[8]:>9.1f}{max(last):>6.1f}"
            f"{mean(units for _, units in rounds):>22.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
