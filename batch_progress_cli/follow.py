"""Follow a batch until every job has ended, and show each state. The client's protocol decides when to poll."""

import contextlib
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from batch_progress.client.connection import Connection
from batch_progress.client.errors import ProgressError, Stalled, Unavailable
from batch_progress.client.protocol import Pause, backoff, listing
from batch_progress.client.protocol import follow as polls
from batch_progress.client.results import Progress
from batch_progress_cli.api import Job
from batch_progress_cli.duration import span
from batch_progress_cli.failure import NO, Failed, GaveUpStalled
from batch_progress_cli.terminal import visible

_RATE_WINDOW: Final = 120.0
# Up to this many URLs, failed jobs are listed each time that more have failed: the API reads the whole batch for it.
_LISTED_URLS: Final = 1_000
# How often a list that fails after the last answer is tried again.
_LAST_TRIES: Final = 4
# How many of the jobs that hang are named.
_NAMED: Final = 3


@dataclass(frozen=True)
class Patience:
    """After how many seconds to give up.

    Attributes:
        silence: Without an answer.
        stall: With a batch that is stalled.
    """

    silence: float = 300.0
    stall: float = math.inf


@dataclass
class Rate:
    """Jobs that end per minute, measured over the last two minutes."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, at: float, ended: int) -> None:
        """Record how many jobs had ended at a time of `time.monotonic`."""
        if self._seen and ended < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at, ended))
        while at - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()

    @property
    def per_minute(self) -> float | None:
        """The rate; `None` until the measurements span a second."""
        if not self._seen:
            return None
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - begin) * 60 if end - begin >= 1 else None


@dataclass(frozen=True)
class State:
    """What a view shows.

    Attributes:
        progress: The last state of the batch.
        now: The server's time of the last answer.
        per_minute: Jobs that end per minute; `None` when unknown.
        age: How many seconds old the count was when it came; 0 if it was as good as new.
        failures: The failed jobs; `None` if the batch is too large to list them.
        hanging: The jobs that have been `processing` for longest, if the batch is stalled.
    """

    progress: Progress
    now: datetime
    per_minute: float | None = None
    age: float = 0.0
    failures: list[Job] | None = None
    hanging: tuple[Job, ...] = ()

    def named(self, now: datetime) -> list[str]:
        """Return the jobs that hang, as texts without characters that control a terminal."""
        more = self.progress.processing - len(self.hanging) if self.hanging else 0
        return [*(_hanging(job, now) for job in self.hanging), *([f"and {more:,} more"] if more > 0 else [])]

    def stall(self, now: datetime) -> str:
        """Return which jobs hang, as one line."""
        if self.hanging:
            return f"hanging: {', '.join(self.named(now))}"
        if self.progress.processing:
            return f"{self.progress.processing:,} processing"
        return "no job is processing"


class _Lists:
    """The jobs that the views show, listed again when they may be others."""

    def __init__(self, connection: Connection, batch_id: str) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self.failures: list[Job] | None = []
        self.hanging: tuple[Job, ...] = ()
        self._failed: object = (0, [])
        self._stalled: object = None

    def update(self, progress: Progress) -> bool:
        """List jobs if that is necessary; return whether the lists are up to date.

        Raises:
            ProgressError: A failure is not retryable.
        """
        try:
            failed = progress.failed, progress.reasons
            if progress.total_urls > _LISTED_URLS:
                self.failures = None
            elif failed != self._failed:
                self.failures = self._jobs("failed")
                self._failed = failed
            stalled = (progress.completed, progress.failed, progress.processing) if progress.stalled else None
            if stalled != self._stalled:
                self.hanging = ()
                if stalled and (progress.processing or not progress.summary):
                    self.hanging = tuple(sorted(self._jobs("processing"), key=_age_order)[:_NAMED])
                self._stalled = stalled
        except Unavailable:
            return False
        return True

    def _jobs(self, status: str) -> list[Job]:
        """Return the first 1,000 jobs with a status: one page, asked for once."""
        with contextlib.closing(self._connection.run(listing(self._batch_id, status, Job, retry_for=0))) as run:
            return next(page for page in run if not isinstance(page, Pause)).jobs


class View(Protocol):
    """An output format."""

    def show(self, state: State) -> None:
        """Show a state."""

    def trouble(self, reason: str | None, wait: float) -> None:
        """Report a failed poll and the seconds until the next one; `None` reports that polls succeed again."""

    def wait(self, seconds: float) -> None:
        """Wait until the next poll."""


def follow(connection: Connection, batch_id: str, view: View, patience: Patience) -> int:
    """Follow a batch to its end; return the exit status: 0 when every job completed, 1 otherwise.

    Raises:
        Failed: A failure is not retryable, or retrying took longer than `patience` allows.
        GaveUpStalled: The batch was stalled for longer than `patience` allows.
    """
    rate, lists, troubled = Rate(), _Lists(connection, batch_id), False
    try:
        for step in connection.run(polls(batch_id, retry_for=patience.silence, stall=patience.stall)):
            if isinstance(step, Pause):
                if step.trouble:
                    troubled = True
                    view.trouble(_line(step.trouble), step.seconds)
                view.wait(step.seconds)
                continue
            if troubled:
                troubled = False
                view.trouble(None, 0)
            # A 304 after an old count does not make that count newer.
            if step.fresh or not step.age:
                rate.add(time.monotonic() - step.age, step.progress.ended)
            _update(lists, step.progress, view)
            state = State(step.progress, step.now, rate.per_minute, step.age, lists.failures, lists.hanging)
            view.show(state)
    except Stalled as error:
        progress = state.progress
        raise GaveUpStalled(
            f"gave up: stalled for {span(error.seconds)}, {progress.pending:,} of {progress.total_urls:,} pending; "
            f"{state.stall(state.now)}"
        ) from error
    except ProgressError as error:
        raise Failed(_line(error)) from error
    return NO if state.progress.failed else 0


def _line(error: ProgressError) -> str:
    return visible(str(error), 400)


def _update(lists: _Lists, progress: Progress, view: View) -> None:
    """List jobs. If that fails the next poll tries again, but after the last answer there is none."""
    tries = 0
    while not lists.update(progress) and progress.finished and tries < _LAST_TRIES:
        view.wait(backoff(tries, None))
        tries += 1


def _hanging(job: Job, now: datetime) -> str:
    started = _started(job)
    since = f" for {span((now - started).total_seconds())}" if started else ""
    return f"{visible(job.job_id, 64)}{since} {visible(job.url, 200)}"


def _age_order(job: Job) -> tuple[bool, datetime]:
    """Sort the longest first, and those without a valid start last."""
    started = _started(job)
    return started is None, started or datetime.max.replace(tzinfo=UTC)


def _started(job: Job) -> datetime | None:
    try:
        started = datetime.fromisoformat(job.started_at or "")
    except ValueError:
        return None
    return started if started.tzinfo else None


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Exit on SIGTERM through the context managers, so that the terminal is restored."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
