"""Poll a batch until every job has ended, at the pace of `Retry-After`, and show each state."""

import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from batch_progress_cli.api import Api, NoAnswer, Progress
from batch_progress_cli.failure import NO, Failed

# Backoff starts at one second and doubles with each failure, up to this.
_LONGEST_BACKOFF: Final = 30.0
_RATE_WINDOW: Final = 120.0


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
    """

    progress: Progress
    now: datetime
    per_minute: float | None = None


class View(Protocol):
    """An output format."""

    def show(self, state: State) -> None:
        """Show a state."""

    def trouble(self, reason: str | None, wait: float) -> None:
        """Report a failed poll and the seconds until the next one; `None` reports that polls succeed again."""

    def wait(self, seconds: float) -> None:
        """Wait until the next poll."""


def follow(api: Api, view: View, patience: float) -> int:
    """Follow a batch to its end; return the exit status: 0 when every job completed, 1 otherwise.

    Args:
        api: The batch.
        view: The output.
        patience: The seconds without an answer after which the command gives up.

    Raises:
        Failed: A failure is not retryable, or retrying took longer than `patience`.
    """
    progress, rate = None, Rate()
    answered, failures = time.monotonic(), 0
    while True:
        try:
            reply = api.ask()
        except NoAnswer as reason:
            silent = time.monotonic() - answered
            wait = _backoff(failures, reason.wait)
            if silent + wait > patience:
                raise Failed(f"gave up after {silent:.0f} seconds: {reason}") from reason
            failures += 1
            view.trouble(str(reason), wait)
            view.wait(wait)
            continue
        if failures:
            view.trouble(None, 0)
        answered, failures = time.monotonic(), 0
        progress = reply.progress or progress
        if progress is None:
            raise RuntimeError("the first answer was 304")
        rate.add(answered, progress.completed + progress.failed)
        view.show(State(progress, reply.now, rate.per_minute))
        if progress.finished:
            return NO if progress.failed else 0
        view.wait(reply.wait)


def _backoff(failures: int, asked: float | None) -> float:
    """Return the seconds to wait after a failure: exponential backoff with jitter, at least `Retry-After`."""
    longest = min(2.0**failures, _LONGEST_BACKOFF)
    return max(longest * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311  # jitter, not a secret


@contextmanager
def terminable() -> Iterator[None]:
    """Exit on SIGTERM through the context managers, so that the terminal is restored."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
