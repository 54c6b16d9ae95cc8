"""What a batch's jobs add up to, and when it will be done: values in, values out."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from math import ceil, floor
from typing import Final, assert_never

import msgspec

from batch_progress.forecast import time_left
from batch_progress.model import Batch, Page
from batch_progress.table import DEFAULT_TIMEOUT_SECONDS, LAST_SECOND, JobStatus

# How likely a batch ends between `earliest` and `latest`.
CONFIDENCE: Final = 0.8
# Durations of so many ended jobs tell the forecast all that more of them would.
_SAMPLE: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Counts(msgspec.Struct, frozen=True):
    """How far a batch is.

    `completed + failed + pending == total_urls`, and none is negative.

    Attributes:
        total_urls: The declared total, or the number of jobs where that is larger.
        completed: Jobs that ended well.
        failed: Jobs that failed or were cancelled: ended, and nothing more will come.
        total_items_extracted: Over all jobs, whatever their status.
    """

    total_urls: int
    completed: int
    failed: int
    total_items_extracted: int

    @property
    def pending(self) -> int:
        """Jobs that have not ended, and declared URLs without a job."""
        return self.total_urls - self.completed - self.failed

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.pending == 0


class Observed(msgspec.Struct, frozen=True):
    """What a batch's times tell; all in seconds or as moments.

    Attributes:
        durations: Of jobs that completed or failed; of a large batch, an even sample.
        started: When each job that is now running began, `None` where not recorded.
        last_finished: The latest end of a job, `None` when none is recorded.
        last_moved: The latest recorded start or end, `None` when there is none.
    """

    durations: list[float]
    started: list[datetime | None]
    last_finished: datetime | None
    last_moved: datetime | None


class Tally:
    """Adds up a batch page by page, so that no page need be kept."""

    def __init__(self, batch: Batch) -> None:
        """Start at nothing."""
        self._batch = batch
        self._stride = max(1, batch.total_urls // _SAMPLE)
        self._statuses: Counter[str] = Counter()
        self._items = 0
        self._durations: list[float] = []
        self._running: list[datetime | None] = []
        self._last_started: datetime | None = None
        self._last_finished: datetime | None = None

    def add(self, page: Page) -> None:
        """Take in the next page."""
        statuses = [job.status for job in page.jobs]
        self._statuses.update(statuses)
        self._items += sum([job.items_extracted for job in page.jobs])
        self._last_started = _latest((self._last_started, *page.started))
        self._last_finished = _latest((self._last_finished, *page.finished))
        self._running += [
            started for status, started in zip(statuses, page.started, strict=True) if status == JobStatus.PROCESSING
        ]
        sample = islice(zip(statuses, page.started, page.finished, strict=True), 0, None, self._stride)
        self._durations += [
            (finished - started).total_seconds()
            for status, started, finished in sample
            if started and finished and status in _RAN
        ]

    def counts(self) -> Counts:
        """Return the counts of what was added."""
        counted: Counter[str] = Counter()
        for status, jobs in self._statuses.items():
            counted[JobStatus(status).counted_as] += jobs
        return Counts(
            total_urls=max(self._batch.total_urls, counted.total()),
            completed=counted["completed"],
            failed=counted["failed"],
            total_items_extracted=self._items,
        )

    def observed(self) -> Observed:
        """Return the times of what was added."""
        return Observed(
            durations=self._durations,
            started=self._running,
            last_finished=self._last_finished,
            last_moved=_latest((self._last_started, self._last_finished)),
        )


def _ran(status: JobStatus) -> bool:
    """Whether the time from start to end of a job of this status is how long a job takes."""
    match status:
        case JobStatus.COMPLETED | JobStatus.FAILED:
            return True
        case JobStatus.PENDING | JobStatus.PROCESSING | JobStatus.CANCELLED:
            return False
        case _:
            assert_never(status)


_RAN: Final = frozenset(filter(_ran, JobStatus))


def _latest(moments: Iterable[datetime | None]) -> datetime | None:
    return max(filter(None, moments), default=None)


class Basis(StrEnum):
    """What an estimate is made from."""

    DECLARED = "declared"
    OBSERVED = "observed"
    STALLED = "stalled"
    FINISHED = "finished"


class Estimate(msgspec.Struct, frozen=True):
    """When a batch will be done, or was.

    Attributes:
        basis: `declared` while no job has ended, `observed` after, `stalled` when jobs are left and nothing has
            moved for longer than a job may take, `finished` when none is left.
        completion: Epoch seconds; of an unfinished batch never in the past.
        earliest: Epoch seconds; with `latest` an interval that holds the end with probability `CONFIDENCE`.
        latest: Epoch seconds.
    """

    basis: Basis
    completion: int
    earliest: int
    latest: int


def estimate(batch: Batch, counts: Counts, observed: Observed, now: float) -> Estimate:
    """Estimate when the batch will be done.

    Args:
        batch: What it declares.
        counts: How far it is.
        observed: What its times tell.
        now: Epoch seconds.
    """
    if counts.finished:
        ended = observed.last_finished or batch.created_at
        at = _second(floor(now if ended is None else _epoch(ended)))
        return Estimate(Basis.FINISHED, at, at, at)
    running = [0.0 if started is None else now - _epoch(started) for started in observed.started]
    left = time_left(
        observed.durations,
        running,
        max(counts.pending - len(running), 0),
        workers=batch.parallel_jobs,
        timeout=batch.timeout_per_url,
    )
    if _stalled(batch, observed, now):
        basis = Basis.STALLED
    else:
        basis = Basis.OBSERVED if counts.completed + counts.failed else Basis.DECLARED
    completion, earliest, latest = (_second(ceil(now + seconds)) for seconds in left)
    return Estimate(basis, completion, earliest, latest)


def _stalled(batch: Batch, observed: Observed, now: float) -> bool:
    """Tell whether nothing has moved for longer than a job may take."""
    moved = observed.last_moved or batch.created_at
    longest = batch.timeout_per_url or max(DEFAULT_TIMEOUT_SECONDS, max(observed.durations, default=0.0))
    return moved is not None and now - _epoch(moved) > longest


def _epoch(moment: datetime) -> float:
    return (moment - _EPOCH).total_seconds()


def _second(epoch: int) -> int:
    """Keep within what RFC 3339 can write."""
    return min(max(epoch, 0), LAST_SECOND)


def poll_after(expected: Estimate, now: float) -> int | None:
    """Return in how many seconds another poll is worthwhile; `None` when the batch is finished."""
    match expected.basis:
        case Basis.FINISHED:
            return None
        case Basis.STALLED:
            return poll_again(None)
    return poll_again(expected.completion - now)


# A batch polled this many times in the time it has left shows visible progress each time.
_POLLS: Final = 20
_STALLED_POLL_SECONDS: Final = 30


def poll_again(seconds_left: float | None) -> int:
    """Return in how many seconds, 1 to 60, another poll is worthwhile.

    Args:
        seconds_left: Until the batch should be done; `None` when it is stalled.
    """
    if seconds_left is None:
        return _STALLED_POLL_SECONDS
    return min(max(ceil(seconds_left / _POLLS), 1), 60)
