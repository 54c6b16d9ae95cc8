"""Follow a batch: ask, show what changed, wait as long as the API asks, until nothing is pending."""

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

# What a failing service is given: from one second, doubled with each failure.
_LONGEST_BACKOFF: Final = 30.0
_RATE_WINDOW: Final = 120.0


@dataclass
class Rate:
    """How many jobs end in a minute, as seen of late."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, at: float, ended: int) -> None:
        """Note how many had ended at a moment of `time.monotonic`."""
        if self._seen and ended < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at, ended))
        while at - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()

    @property
    def per_minute(self) -> float | None:
        """The rate, `None` until there is enough to tell."""
        if not self._seen:
            return None
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - begin) * 60 if end - begin >= 1 else None


@dataclass(frozen=True)
class State:
    """What is known of a batch.

    Attributes:
        progress: What the API said last.
        now: The service's clock when it said so, or that nothing had changed.
        per_minute: How many jobs end in a minute, `None` when that is not known yet.
    """

    progress: Progress
    now: datetime
    per_minute: float | None = None


class View(Protocol):
    """Where the state is shown."""

    def show(self, state: State) -> None:
        """Show what is known now."""

    def trouble(self, reason: str | None, wait: float) -> None:
        """Tell of a question without an answer, or with `None` that there are answers again."""

    def wait(self, seconds: float) -> None:
        """Wait until the next question."""


def follow(api: Api, view: View, patience: float) -> int:
    """Follow a batch to its end; return the exit status: 0 when every job completed, 1 when some did not.

    Args:
        api: The batch to ask for.
        view: Where to show it.
        patience: How many seconds without an answer are too many.

    Raises:
        Failed: The API refuses, or is away for too long.
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
            raise RuntimeError("a first answer that says nothing changed")
        rate.add(answered, progress.completed + progress.failed)
        view.show(State(progress, reply.now, rate.per_minute))
        if progress.finished:
            return NO if progress.failed else 0
        view.wait(reply.wait)


def _backoff(failures: int, asked: float | None) -> float:
    """Return how long to wait after so many failures before: longer each time, and no two clients alike."""
    longest = min(2.0**failures, _LONGEST_BACKOFF)
    return max(longest * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311  # spreads clients, guards nothing


@contextmanager
def terminable() -> Iterator[None]:
    """Let a request to terminate leave the terminal as it was."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
