"""Judge the answers that watchers got: how old a count was, and whether that age is allowed. Pure functions.

Times are in epoch seconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf
from typing import Final

import msgspec

# A `304` may be this old, and so may any count.
LONGEST_AGE: Final = 60.0
# Up to this cost a batch is counted for each answer.
SMALL_UNITS: Final = 100.0
UNITS_PER_SECOND: Final = 100.0
# An older count is given for at most this long while another request counts.
LEASE_SECONDS: Final = 10.0
# Tags and `summary.as_of` are in whole seconds.
ROUNDING_SECONDS: Final = 1.0
_NOT_MODIFIED: Final = 304


class Poll(msgspec.Struct, frozen=True):
    """A request of a watcher, and its answer.

    Attributes:
        kind: What the watcher asks for.
        began: When the request was sent.
        ended: When its answer arrived.
        status: The HTTP status.
        told: Ended jobs by this answer, or by the answer that a `304` confirms. -1 for an error, which has no count.
        as_of: The moment of that count by its summary, rounded down; `None` without a summary.
        total: The batch's jobs by this answer.
        adds_up: Whether completed, failed and pending jobs are all jobs.
    """

    kind: str
    began: float
    ended: float
    status: int
    told: int = -1
    as_of: float | None = None
    total: int = -1
    adds_up: bool = True

    @property
    def finished(self) -> bool:
        """Whether it says that the batch has ended."""
        return self.told >= 0 and self.told == self.total


class History:
    """When the jobs of a batch ended.

    Each end is a write that began and finished; between the two, an answer may contain it or not.
    """

    def __init__(self, already: int, begun: Sequence[float], finished: Sequence[float]) -> None:
        """Take the number of jobs that had ended before, and the times of the writes of the others."""
        self._already = already
        self._begun = sorted(begun)
        self._finished = sorted(finished)

    @property
    def last(self) -> float:
        """When the last job ended."""
        return self._finished[-1]

    def reached(self, ended: int) -> float:
        """Return when this number of jobs had ended."""
        return self._finished[ended - self._already - 1]

    def least(self, at: float) -> int:
        """Return the fewest ended jobs that a count of this moment can have."""
        return self._already + bisect_left(self._finished, at)

    def most(self, at: float) -> int:
        """Return the most ended jobs that a count of this moment can have."""
        return self._already + bisect_right(self._begun, at)

    def behind(self, told: int, at: float) -> float:
        """Return for how many seconds a count had been out of date at a moment; 0 if it was right."""
        if told < self._already:
            return inf
        missing = told - self._already
        if missing >= len(self._finished):
            return 0.0
        return max(at - self._finished[missing], 0.0)


def allowed_age(status: int, units: float) -> float:
    """Return the seconds by which the count of an answer with a `limit` may be out of date.

    Args:
        status: The HTTP status.
        units: The read units that a full count takes.
    """
    if status == _NOT_MODIFIED:
        return LONGEST_AGE + ROUNDING_SECONDS
    if units <= SMALL_UNITS:
        return 0.0
    return min(units / UNITS_PER_SECOND + LEASE_SECONDS, LONGEST_AGE) + ROUNDING_SECONDS


def right(poll: Poll, history: History, units: float) -> bool:
    """Whether an answer adds up and is neither ahead of the jobs nor older than allowed. An error is never right."""
    return (
        poll.adds_up
        and poll.told <= history.most(poll.ended)
        and history.behind(poll.told, poll.began) <= allowed_age(poll.status, units)
    )


def older_than_told(poll: Poll, history: History) -> bool:
    """Whether a count lacks a job that had ended before the moment of which its summary claims it to be."""
    return poll.as_of is not None and poll.told < history.least(poll.as_of)


def ends_seen(watchers: Sequence[Sequence[Poll]], last: float) -> list[float]:
    """Return, for each watcher that saw it, the seconds from the last job's end to the answer that shows it."""
    firsts = [next((poll.ended for poll in polls if poll.finished), None) for polls in watchers]
    return sorted(max(first - last, 0.0) for first in firsts if first is not None)
