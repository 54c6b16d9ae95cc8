"""Large batches: the estimate from the handler's tally, compared with the one from all durations.

A batch is scheduled, then read at some moment, page by page, in several orders of its job ids.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import NamedTuple

from batch_progress.forecast import GOLDEN
from batch_progress.model import Batch, Job, Page
from batch_progress.progress import Estimate, Observed, Tally, estimate
from batch_progress.table import JobStatus
from benchmarks.replays import INDEPENDENT, TIMEOUT, Pool, schedule

CREATED = datetime(2024, 12, 16, 10, 0, tzinfo=UTC)
WORKERS = 25
MEDIAN_SECONDS = 5.0
PAGE_JOBS = 4_000  # 1 MB of items of 260 bytes
FOUND = (JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.COMPLETED)
JOBS = {status: Job("job", "https://shop.example.com", status, 1) for status in FOUND}
type Span = tuple[float, float]
"""The start and the end of a job, in seconds after the batch was created."""


def by_duration(spans: Sequence[Span]) -> list[Span]:
    """Sort the jobs by their duration, shortest first."""
    return sorted(spans, key=lambda span: span[1] - span[0])


def evenly(spans: Sequence[Span]) -> list[Span]:
    """Place jobs that started one after another far apart, so that any part of the order has as many ended ones."""
    return [span for _, span in sorted((number * GOLDEN % 1, span) for number, span in enumerate(spans))]


def shuffled(spans: Sequence[Span]) -> list[Span]:
    """Shuffle the jobs, the same way each time."""
    return random.Random(1).sample(spans, len(spans))


# Orders of the job ids, made from that of their starts.
ORDERS: dict[str, Callable[[Sequence[Span]], Sequence[Span]]] = {
    "ended first": lambda spans: spans,
    "ended last": lambda spans: spans[::-1],
    "evenly": evenly,
    "shuffled": shuffled,
    "by duration": by_duration,
}


def spans_of(family: str, jobs: int, seed: int = 0) -> list[Span]:
    """Schedule a batch whose median job takes `MEDIAN_SECONDS`, with short pauses; return the jobs by their start."""
    rng = random.Random(f"{family} {jobs} {seed}")
    durations = [INDEPENDENT[family](rng) for _ in range(jobs)]
    scale = MEDIAN_SECONDS / sorted(durations)[jobs // 2]
    durations = [duration * scale for duration in durations]
    return sorted(schedule(Pool(family, family, durations), durations, WORKERS, 0.08 * MEDIAN_SECONDS, rng))


class Compared(NamedTuple):
    """The estimate from the tally and the one from all durations, at one moment, and the truth."""

    sampled: Estimate
    full: Estimate
    now: float
    end: float

    @property
    def difference(self) -> float:
        """The difference between the two estimates, relative to the time left according to all durations."""
        return abs(self.sampled.completion - self.full.completion) / (self.full.completion - self.now)

    @property
    def width(self) -> float:
        """The width of the range, relative to that of the range from all durations."""
        return (self.sampled.latest - self.sampled.earliest) / (self.full.latest - self.full.earliest)

    @property
    def errors(self) -> tuple[float, float]:
        """The errors of the two estimates, relative to the true time left."""
        left = self.end - self.now
        return abs(self.sampled.completion - self.end) / left, abs(self.full.completion - self.end) / left


def compare(spans: Sequence[Span], passed: float, order: str, total_urls: int) -> Compared:
    """Estimate when a batch ends, `passed` seconds after it was created.

    Args:
        spans: When each job started and ended.
        passed: Seconds.
        order: The order of the job ids, one of `ORDERS`.
        total_urls: The declared total, 0 if not declared.
    """
    batch = Batch("b", "demo", total_urls, CREATED, parallel_jobs=WORKERS, timeout_per_url=TIMEOUT)
    tally = Tally(batch)
    for page in pages(ORDERS[order](spans), passed):
        tally.add(page)
    counts, now = tally.counts(), CREATED.timestamp() + passed
    return Compared(
        sampled=estimate(batch, counts, tally.observed(), now),
        full=estimate(batch, counts, all_times(spans, passed), now),
        now=now,
        end=CREATED.timestamp() + max(end for _, end in spans),
    )


def when_ended(spans: Sequence[Span], jobs: int) -> float:
    """Return the seconds until this number of jobs had ended."""
    return sorted(end for _, end in spans)[jobs - 1]


def all_times(spans: Sequence[Span], passed: float) -> Observed:
    """Return the times of all jobs."""
    return Observed(
        durations=[end - start for start, end in spans if end <= passed],
        started=[moment(start) for start, end in spans if start <= passed < end],
        last_finished=moment(passed),
        last_moved=moment(passed),
    )


def pages(spans: Sequence[Span], passed: float) -> Iterator[Page]:
    """Yield the batch's state `passed` seconds after it was created."""
    for some in batched(spans, PAGE_JOBS, strict=False):
        begun = [start <= passed for start, _ in some]
        done = [end <= passed for _, end in some]
        yield Page(
            jobs=[JOBS[FOUND[start + end]] for start, end in zip(begun, done, strict=True)],
            started=[moment(start) if known else None for (start, _), known in zip(some, begun, strict=True)],
            finished=[moment(end) if known else None for (_, end), known in zip(some, done, strict=True)],
            seen=[None] * len(some),
            error_codes=[None] * len(some),
        )


def moment(seconds: float) -> datetime:
    """Return a moment as the table stores it, in milliseconds."""
    return CREATED + timedelta(milliseconds=round(seconds * 1_000))
