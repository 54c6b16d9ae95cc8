"""Decide how a batch is supervised: when to check it, which jobs are lost, and what to announce. Pure functions.

Each batch has one chain of checks: each check asks for the next one (docs/decisions/0014-supervision.md). A check that
comes when its time is up usually only looks at the `BATCH` item; it reads the whole batch when something may have
happened that only the jobs show.
"""

from datetime import UTC, datetime
from enum import StrEnum
from math import ceil
from typing import Any, Final

import msgspec

from batch_progress.model import Batch
from batch_progress.progress import Basis, Progress, Summary
from batch_progress.table import DEFAULT_TIMEOUT_SECONDS, JobStatus

# SQS delays a message by at most this.
LONGEST_DELAY_SECONDS: Final = 900
# A batch whose jobs change is checked at most this often, so that a check costs little compared with the changes.
LOOK_SECONDS: Final = 60.0
# The least time between two counts that only the passing of time requires.
LEAST_DELAY_SECONDS: Final = 5.0
# While its jobs change, a batch is counted once per this many seconds per read unit of a count, but at least once
# an hour: a count finds jobs that are lost while others go on.
SECONDS_PER_UNIT: Final = 30.0
OLDEST_COUNT_SECONDS: Final = 3_600.0
# A check that is overdue by this time is lost: SQS has given it up, or it was never sent.
OVERDUE_SECONDS: Final = 300.0
# A check that is due within this time is as good as one now.
SOON_SECONDS: Final = 3.0
# The delay of the first check of a batch: all jobs of a small batch have been created after it.
FIRST_DELAY_SECONDS: Final = 2


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """A check, as the queue carries it.

    Attributes:
        batch_id: The batch to check.
        number: Its number in the batch's chain.
        sent: When it was sent, in epoch seconds. 0 if the batch must be counted.
        revision: The batch's revision then.
        due: If the batch is still at that revision at this time, it must be counted; `None` if nothing can happen
            unless it changes.
        counted: When the supervisor last counted the batch.
    """

    batch_id: str
    number: int
    sent: float = 0.0
    revision: int = 0
    due: float | None = None
    counted: float = 0.0


class Chain(msgspec.Struct, frozen=True):
    """What is noted on a `BATCH` item about its checks.

    Attributes:
        number: The number of the latest check, 0 before the first.
        due: When it is due, in epoch seconds; `None` if the chain has ended or has not begun.
    """

    number: int
    due: float | None


class Count(msgspec.Struct, frozen=True):
    """What is known of the latest count of a batch, by the progress function or the supervisor.

    Attributes:
        revision: The batch's revision then.
        pending: The number of jobs that had not ended.
        stalled: Whether it was stalled.
        units: What it cost in read units.
        same: Whether the `BATCH` item, as others write it, is still the one that was counted: not cancelled since, say.
    """

    revision: int
    pending: int
    stalled: bool
    units: float
    same: bool = True


def is_outdated(batch: Batch, count: Count) -> bool:
    """Whether changes since a count require a new one.

    They do if as many jobs have changed as were pending, so that the batch may have finished; if it was stalled and
    moves again; or if its `BATCH` item has changed, for example because it was cancelled.
    """
    changes = batch.revision - count.revision
    return not count.same or changes < 0 or (changes > 0 and (count.stalled or changes >= count.pending))


def wants_check(batch: Batch, chain: Chain, count: Count | None, now: float) -> bool:
    """Whether a batch whose jobs have just changed needs a check now.

    Args:
        batch: The batch, after the change was counted into its revision.
        chain: Its chain of checks.
        count: Its latest count, `None` if there is none.
        now: Epoch seconds.
    """
    if has_expired(batch, now):
        return False
    if chain.due is None or now - chain.due > OVERDUE_SECONDS:
        return True
    # A check that is due is on its way. When it is done, it looks whether the batch has changed meanwhile.
    return chain.due > now + SOON_SECONDS and count is not None and is_outdated(batch, count)


def has_expired(batch: Batch, now: float) -> bool:
    """Whether a batch counts as deleted."""
    return batch.expires_at is not None and batch.expires_at <= now


def must_count(check: Check, batch: Batch, count: Count | None, now: float) -> bool:
    """Whether a check must read the whole batch; otherwise nothing has happened that only the jobs show."""
    if not check.sent or count is None or is_outdated(batch, count):
        return True
    if now - check.counted >= min(SECONDS_PER_UNIT * count.units, OLDEST_COUNT_SECONDS):
        return True
    return batch.revision == check.revision and check.due is not None and now >= check.due


def after_look(check: Check, batch: Batch, now: float) -> Check:
    """Return the next check after one that did not count; its number is one higher."""
    if batch.revision == check.revision:
        due = check.due
    else:
        # Something moved after the check was sent, so nothing can stall earlier than this.
        longest = batch.timeout_per_url or DEFAULT_TIMEOUT_SECONDS
        due = max(check.sent + min(longest, batch.lost_after or longest), now + LOOK_SECONDS)
    return Check(check.batch_id, check.number + 1, now, batch.revision, due, check.counted)


def after_count(
    check: Check, batch: Batch, units: float, next_lost: float | None, next_stall: float | None, now: float
) -> Check:
    """Return the next check after one that counted a batch which has not finished.

    Args:
        check: The check.
        batch: The batch at the time of the count.
        units: What the count cost in read units.
        next_lost: When the next job is lost if it shows no sign of life; `None` if none can be.
        next_stall: When the batch stalls if nothing moves; `None` if it has, or cannot.
        now: When it was counted, in epoch seconds.
    """
    moments = [moment for moment in (next_lost, next_stall) if moment is not None]
    if next_stall is not None and batch.lost_after is not None:
        # A job that starts now can be lost then.
        moments.append(now + batch.lost_after)
    due = min(moments, default=None)
    if due is not None:
        # A moment later, because nothing is lost or stalled before the time is over.
        due = max(due + 1, now + min(max(LEAST_DELAY_SECONDS, units), LOOK_SECONDS))
    return Check(check.batch_id, check.number + 1, now, batch.revision, due, now)


def delay_seconds(check: Check, now: float) -> int:
    """Return the seconds by which a check that was made by `after_look` or `after_count` is to be delayed."""
    if check.due is None:
        return LONGEST_DELAY_SECONDS
    return min(max(ceil(check.due - now), 0), LONGEST_DELAY_SECONDS)


# ---- Lost jobs ----------------------------------------------------------------------------------------------


def lost_at(status: str, started: datetime | None, seen: datetime | None, lost_after: float | None) -> float | None:
    """Return when a job is lost unless it shows a sign of life, in epoch seconds; `None` if it is not judged."""
    if lost_after is None or status != JobStatus.PROCESSING:
        return None
    signs = [moment.timestamp() for moment in (started, seen) if moment is not None]
    return max(signs) + lost_after if signs else None


# ---- Announcements ------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What is announced of a batch. The value is part of the event's id."""

    FINISHED = "finished"
    STALLED = "stalled"

    @property
    def detail_type(self) -> str:
        """The event's `detail-type`."""
        return f"Batch {self.value.title()}"


SOURCE: Final = "batch-progress"


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """An announcement, in the form that is stored on a `BATCH` item.

    Attributes:
        kind: What is announced.
        revision: The number in the event's id: the batch's revision, or a larger number if that one is in use.
        facts: What makes it another announcement than the one before: the counts and the end, or the last movement.
        put: Whether the event is known to have been put; otherwise it may have been.
    """

    kind: Kind
    revision: int
    facts: list[int]
    put: bool = False

    def id(self, batch_id: str) -> str:
        """Return the event's id. It is the same when the event is repeated."""
        return f"{batch_id}/{self.kind}/{self.revision}"


class Announced(msgspec.Struct, frozen=True, array_like=True):
    """The latest announcements of a batch, in the form that is stored on its `BATCH` item.

    Attributes:
        finished: That it has finished.
        stalled: That it stalls.
    """

    finished: Announcement | None = None
    stalled: Announcement | None = None

    def latest(self, kind: Kind) -> Announcement | None:
        """Return the latest announcement of a kind."""
        return self.finished if kind is Kind.FINISHED else self.stalled

    def noted(self, announcement: Announcement) -> "Announced":
        """Return what to write to the `BATCH` item for an announcement, both before and after its event is sent."""
        if announcement.kind is Kind.FINISHED:
            return Announced(announcement, self.stalled)
        return Announced(self.finished, announcement)


def announcement(
    progress: Progress, revision: int, announced: Announced, *, ended: datetime | None, moved: datetime | None
) -> Announcement | None:
    """Return what is to be announced of a batch, `None` if nothing is.

    Args:
        progress: The batch's progress.
        revision: Its revision when it was counted.
        announced: What has been announced.
        ended: When the batch ended, if it has; `None` if that is not recorded: its end is then when it was counted.
        moved: When a job last moved, or the batch was created; `None` if neither is recorded.
    """
    counts, expected = progress.counts, progress.estimate
    if expected.basis is Basis.FINISHED:
        kind = Kind.FINISHED
        numbers = [counts.total_urls, counts.completed, counts.failed, counts.total_items_extracted]
        facts = [*numbers, 0 if ended is None else expected.completion]
    elif expected.basis is Basis.STALLED and moved is not None:
        kind, facts = Kind.STALLED, [round(moved.timestamp() * 1_000)]
    else:
        return None
    latest = announced.latest(kind)
    if latest is None:
        return Announcement(kind, revision, facts)
    if latest.facts == facts:
        # It may have been put already: a repeat has the same id.
        return None if latest.put else latest
    # The stream may be late, so that the revision is still that of another announcement.
    return Announcement(kind, max(revision, latest.revision + 1), facts)


class Event(msgspec.Struct, frozen=True):
    """An event for EventBridge.

    Attributes:
        detail_type: Its `detail-type`.
        detail: Its `detail`.
    """

    detail_type: str
    detail: dict[str, Any]


def event(told: Announcement, batch: Batch, progress: Progress, summary: Summary) -> Event:
    """Return the event of an announcement."""
    counts = progress.counts
    at = progress.estimate.completion if told.kind is Kind.FINISHED else told.facts[0] / 1_000
    failures = [{"error_code": each.error_code, "jobs": each.jobs} for each in summary.failures]
    return Event(
        told.kind.detail_type,
        {
            "id": told.id(batch.batch_id),
            "batch_id": batch.batch_id,
            "owner_id": batch.owner_id,
            "total_urls": counts.total_urls,
            "completed": counts.completed,
            "failed": counts.failed,
            "pending": counts.pending,
            "total_items_extracted": counts.total_items_extracted,
            "at": _moment(at),
            "summary": {
                "statuses": {str(status): jobs for status, jobs in summary.statuses.items()},
                "failures": failures,
                "as_of": _moment(progress.as_of),
            },
        },
    )


def _moment(epoch: float) -> str:
    """Format epoch seconds as RFC 3339 in whole seconds."""
    return datetime.fromtimestamp(int(epoch), UTC).isoformat().removesuffix("+00:00") + "Z"
