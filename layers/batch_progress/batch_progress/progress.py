"""Compute the counts of a batch and estimate when it ends. Pure functions of their arguments."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil, floor
from typing import Final, assert_never

import msgspec

from batch_progress.forecast import time_left_from_samples
from batch_progress.model import Batch, Page
from batch_progress.sample import Sample
from batch_progress.table import DEFAULT_TIMEOUT_SECONDS, LAST_SECOND, JobStatus

# The probability that a batch ends between `earliest` and `latest`.
CONFIDENCE: Final = 0.8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Counts(msgspec.Struct, frozen=True):
    """The counts of a batch.

    `completed + failed + pending == total_urls`, and none is negative.

    Attributes:
        total_urls: The declared total, or the number of jobs if that is larger.
        completed: Jobs whose status is `completed`.
        failed: Jobs whose status is `failed` or `cancelled`, and the declared URLs without a job of a cancelled batch.
        total_items_extracted: The items of all jobs, whatever their status.
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
        """Whether all jobs have ended."""
        return self.pending == 0


class Failures(msgspec.Struct, frozen=True):
    """Jobs that failed for one reason.

    Attributes:
        error_code: Their error code, cut to `LONGEST_CODE` characters; `None` if they have none.
        jobs: The number of jobs.
    """

    error_code: str | None
    jobs: int


class Summary(msgspec.Struct, frozen=True):
    """What the counts do not tell.

    Attributes:
        statuses: The number of jobs of each status. They sum to `total_urls`: declared URLs without a job are
            `pending`, or `cancelled` in a cancelled batch.
        failures: The most frequent reasons of jobs whose status is `failed`, the most frequent first, at most
            `MOST_FAILURES`.
    """

    statuses: dict[JobStatus, int]
    failures: list[Failures]


LONGEST_CODE: Final = 100
MOST_FAILURES: Final = 10


class Observed(msgspec.Struct, frozen=True):
    """The times of a batch's jobs.

    Attributes:
        durations: Seconds that jobs took to complete or fail; an even sample if there are many.
        started: When each running job started, `None` if not recorded; if there are many, the first start and an even
            sample.
        last_finished: The latest recorded end of a job, `None` if there is none.
        last_moved: The latest recorded start, sign of life or end of a job, `None` if there is none.
        ran: The number of jobs that `durations` is a sample of; a smaller number than it has is ignored.
        running: The same for `started`.
    """

    durations: list[float]
    started: list[datetime | None]
    last_finished: datetime | None
    last_moved: datetime | None
    ran: int = 0
    running: int = 0


class Tally:
    """Adds up a batch page by page, so that no page has to be kept."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._statuses: Counter[str] = Counter()
        self._failures: Counter[str | None] = Counter()
        self._items = 0
        self._durations: Sample[float] = Sample()
        self._started: Sample[datetime | None] = Sample()
        self._first_started: datetime | None = None  # of the running jobs
        self._last_started: datetime | None = None
        self._last_seen: datetime | None = None
        self._last_finished: datetime | None = None

    def add(self, page: Page) -> None:
        """Add the next page."""
        statuses = [job.status for job in page.jobs]
        self._statuses.update(statuses)
        self._items += sum([job.items_extracted for job in page.jobs])
        if _FAILED in statuses:
            self._failures.update(
                [
                    code and code[:LONGEST_CODE]
                    for status, code in zip(statuses, page.error_codes, strict=True)
                    if status == _FAILED
                ]
            )
        self._last_started = _latest((self._last_started, _latest(page.started)))
        self._last_seen = _latest((self._last_seen, _latest(page.seen)))
        self._last_finished = _latest((self._last_finished, _latest(page.finished)))
        if _PROCESSING in statuses:
            running = [started for status, started in zip(statuses, page.started, strict=True) if status == _PROCESSING]
            self._started.add(running, lambda started: started)
            self._first_started = _earliest((self._first_started, _earliest(running)))
        if not _RAN.isdisjoint(statuses):
            ran = [
                at
                for at, status, started, finished in zip(
                    range(len(statuses)), statuses, page.started, page.finished, strict=True
                )
                if finished and started and status in _RAN
            ]
            self._durations.add(
                ran,
                lambda at: (page.finished[at] - page.started[at]).total_seconds(),  # type: ignore[operator]  # see `ran`
            )

    def counts(self) -> Counts:
        """Return the counts of the added pages."""
        statuses = self._all_statuses()
        counted: Counter[str] = Counter()
        for status, jobs in statuses.items():
            counted[status.counted_as] += jobs
        return Counts(
            total_urls=counted.total(),
            completed=counted["completed"],
            failed=counted["failed"],
            total_items_extracted=self._items,
        )

    def summary(self) -> Summary:
        """Return the summary of the added pages."""
        failures = sorted(self._failures.items(), key=_most_frequent_first)
        return Summary(self._all_statuses(), [Failures(code, jobs) for code, jobs in failures[:MOST_FAILURES]])

    def _all_statuses(self) -> dict[JobStatus, int]:
        """Return the number of jobs of each status, with the declared URLs that have no job."""
        statuses = {status: self._statuses[status] for status in JobStatus}
        absent = max(self._batch.total_urls - self._statuses.total(), 0)
        statuses[JobStatus.PENDING if self._batch.cancelled_at is None else JobStatus.CANCELLED] += absent
        return statuses

    def observed(self) -> Observed:
        """Return the times of the added pages."""
        started = self._started.kept
        if self._started.every > 1:  # The batch may end when its oldest job does.
            started = [self._first_started, *started]
        return Observed(
            durations=self._durations.kept,
            started=started,
            last_finished=self._last_finished,
            last_moved=_latest((self._last_started, self._last_seen, self._last_finished)),
            ran=self._durations.seen,
            running=self._started.seen,
        )


def _most_frequent_first(failures: tuple[str | None, int]) -> tuple[int, bool, str]:
    code, jobs = failures
    return -jobs, code is None, code or ""


def _ran(status: JobStatus) -> bool:
    """Whether jobs of this status ran to their end, so that their durations are used for the forecast."""
    match status:
        case JobStatus.COMPLETED | JobStatus.FAILED:
            return True
        case JobStatus.PENDING | JobStatus.PROCESSING | JobStatus.CANCELLED:
            return False
        case _:
            assert_never(status)


# Plain strings: comparing a status with an enum member takes several times as long.
_RAN: Final = frozenset(status.value for status in JobStatus if _ran(status))
_FAILED: Final = JobStatus.FAILED.value
_PROCESSING: Final = JobStatus.PROCESSING.value


def _earliest(moments: Iterable[datetime | None]) -> datetime | None:
    return min(filter(None, moments), default=None)


def _latest(moments: Iterable[datetime | None]) -> datetime | None:
    return max(filter(None, moments), default=None)


class Basis(StrEnum):
    """What an estimate is based on."""

    DECLARED = "declared"
    OBSERVED = "observed"
    STALLED = "stalled"
    FINISHED = "finished"


class Estimate(msgspec.Struct, frozen=True):
    """When a batch is expected to end, or ended. Times are in epoch seconds.

    Attributes:
        basis: `declared` while no job has ended, `observed` after that; `stalled` if jobs have not ended, but none has
            started or ended for longer than a job may take; `finished` if all have ended.
        completion: The expected or actual end. For an unfinished batch, it was not in the past when it was computed.
        earliest: The start of the interval in which the batch ends with probability `CONFIDENCE`.
        latest: The end of that interval.
    """

    basis: Basis
    completion: int
    earliest: int
    latest: int


class Progress(msgspec.Struct, frozen=True):
    """The progress of a whole batch.

    Attributes:
        as_of: When its jobs were counted, in epoch seconds.
        counts: Its counts.
        estimate: When it is expected to end, or ended.
        summary: What the counts do not tell; `None` if it is not known.
    """

    as_of: float
    counts: Counts
    estimate: Estimate
    summary: Summary | None


def estimate(batch: Batch, counts: Counts, observed: Observed, now: float) -> Estimate:
    """Estimate when a batch ends.

    Args:
        batch: The batch.
        counts: Its counts.
        observed: The times of its jobs.
        now: Epoch seconds.
    """
    if counts.finished:
        ended = ended_at(batch, observed)
        at = _second(floor(now if ended is None else _epoch(ended)))
        return Estimate(Basis.FINISHED, at, at, at)
    ages = [0.0 if started is None else now - _epoch(started) for started in observed.started]
    busy = max(observed.running, len(ages))
    left = time_left_from_samples(
        observed.durations,
        ages,
        max(counts.pending - busy, 0),
        ran=observed.ran,
        busy=busy,
        workers=batch.parallel_jobs,
        timeout=batch.timeout_per_url,
    )
    stall = stalls_at(batch, observed)
    if stall is not None and now > stall:
        basis = Basis.STALLED
    else:
        basis = Basis.OBSERVED if counts.completed + counts.failed else Basis.DECLARED
    completion, earliest, latest = (_second(ceil(now + seconds)) for seconds in left)
    return Estimate(basis, completion, earliest, latest)


def ended_at(batch: Batch, observed: Observed) -> datetime | None:
    """Return when a finished batch ended; `None` if no time is recorded."""
    return _latest((observed.last_finished, batch.cancelled_at)) or batch.created_at


def stalls_at(batch: Batch, observed: Observed) -> float | None:
    """Return when an unfinished batch stalls unless a job moves, in epoch seconds; `None` if no time is recorded.

    It stalls when no job has started, shown a sign of life or ended for longer than a job may take.
    """
    moved = observed.last_moved or batch.created_at
    longest = batch.timeout_per_url or max(DEFAULT_TIMEOUT_SECONDS, max(observed.durations, default=0.0))
    return None if moved is None else _epoch(moved) + longest


def _epoch(moment: datetime) -> float:
    return (moment - _EPOCH).total_seconds()


def _second(epoch: int) -> int:
    """Clamp to the years 1970 to 9999, which RFC 3339 can express."""
    return min(max(epoch, 0), LAST_SECOND)


def poll_after(expected: Estimate, now: float) -> int | None:
    """Return the seconds until another poll is worthwhile, `None` if the batch is finished."""
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
    """Return the seconds, 1 to 60, until another poll is worthwhile.

    Args:
        seconds_left: The seconds until the expected end of the batch, `None` if it is stalled.
    """
    if seconds_left is None:
        return _STALLED_POLL_SECONDS
    return min(max(ceil(seconds_left / _POLLS), 1), 60)
