"""Poll a batch until every job has ended, at the pace of `Retry-After`, and show each state."""

import contextlib
import math
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from batch_progress_cli.api import Api, Job, NoAnswer, Progress
from batch_progress_cli.duration import span
from batch_progress_cli.failure import NO, Failed, GaveUpStalled
from batch_progress_cli.terminal import visible

# Backoff starts at one second and doubles with each failure, up to this.
_LONGEST_BACKOFF: Final = 30.0
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

    def stall(self, now: datetime) -> str:
        """Return which jobs hang, as one line without characters that control a terminal."""
        if self.hanging:
            more = self.progress.processing - len(self.hanging)
            named = ", ".join(_hanging(job, now) for job in self.hanging)
            return f"hanging: {named}{f', and {more:,} more' if more > 0 else ''}"
        if self.progress.processing:
            return f"{self.progress.processing:,} processing"
        return "no job is processing"


class _Lists:
    """The jobs that the views show, listed again when they may be others."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.failures: list[Job] | None = []
        self.hanging: tuple[Job, ...] = ()
        self._failed: object = (0, [])
        self._stalled: object = None

    def update(self, progress: Progress) -> bool:
        """List jobs if that is necessary; return whether the lists are up to date.

        Raises:
            Failed: A failure is not retryable.
        """
        try:
            failed = progress.failed, progress.reasons
            if progress.total_urls > _LISTED_URLS:
                self.failures = None
            elif failed != self._failed:
                self.failures = self._api.jobs("failed")
                self._failed = failed
            stalled = (progress.completed, progress.failed, progress.processing) if progress.stalled else None
            if stalled != self._stalled:
                self.hanging = ()
                if stalled and (progress.processing or not progress.summary):
                    self.hanging = tuple(sorted(self._api.jobs("processing"), key=_age_order)[:_NAMED])
                self._stalled = stalled
        except NoAnswer:
            return False
        return True


class View(Protocol):
    """An output format."""

    def show(self, state: State) -> None:
        """Show a state."""

    def trouble(self, reason: str | None, wait: float) -> None:
        """Report a failed poll and the seconds until the next one; `None` reports that polls succeed again."""

    def wait(self, seconds: float) -> None:
        """Wait until the next poll."""


def follow(api: Api, view: View, patience: Patience) -> int:
    """Follow a batch to its end; return the exit status: 0 when every job completed, 1 otherwise.

    Raises:
        Failed: A failure is not retryable, or retrying took longer than `patience` allows.
        GaveUpStalled: The batch was stalled for longer than `patience` allows.
    """
    progress, age, rate, lists = None, 0.0, Rate(), _Lists(api)
    stalled_since: float | None = None
    answered, failures = time.monotonic(), 0
    while True:
        try:
            reply = api.ask()
        except NoAnswer as reason:
            silent = time.monotonic() - answered
            wait = _backoff(failures, reason.wait)
            if silent + wait > patience.silence:
                raise Failed(f"gave up after {silent:.0f} seconds: {reason}") from reason
            failures += 1
            view.trouble(str(reason), wait)
            view.wait(wait)
            continue
        if failures:
            view.trouble(None, 0)
        answered, failures = time.monotonic(), 0
        if reply.progress:
            progress, age = reply.progress, reply.age
        if progress is None:
            raise RuntimeError("the first answer was 304")
        # A 304 after an old count does not make that count newer.
        if reply.progress or not age:
            rate.add(answered - age, progress.completed + progress.failed)
        _update(lists, progress, view)
        state = State(progress, reply.now, rate.per_minute, age, lists.failures, lists.hanging)
        view.show(state)
        if progress.finished:
            return NO if progress.failed else 0
        stalled_since = (stalled_since or answered) if progress.stalled else None
        stalled = answered - stalled_since if stalled_since else -math.inf
        if stalled >= patience.stall:
            raise GaveUpStalled(
                f"gave up: stalled for {span(stalled)}, {progress.pending:,} of {progress.total_urls:,} pending; "
                f"{state.stall(reply.now)}"
            )
        view.wait(min(reply.wait, patience.stall - stalled))


def _update(lists: _Lists, progress: Progress, view: View) -> None:
    """List jobs. If that fails the next poll tries again, but after the last answer there is none."""
    tries = 0
    while not lists.update(progress) and progress.finished and tries < _LAST_TRIES:
        view.wait(_backoff(tries, None))
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


def _backoff(failures: int, asked: float | None) -> float:
    """Return the seconds to wait after a failure: exponential backoff with jitter, at least `Retry-After`."""
    longest = min(2.0**failures, _LONGEST_BACKOFF)
    return max(longest * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311  # jitter, not a secret


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Exit on SIGTERM through the context managers, so that the terminal is restored."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
