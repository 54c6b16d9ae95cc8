"""The last count of a large batch, kept on its `BATCH` item, so that its cost does not grow with the number of clients.

A request that counts a large batch keeps what it found. Requests with a `limit` then give that count for a while
instead of counting again. A count is always made from the rows: a kept one is given or replaced, never added to
(docs/decisions/0013-kept-counts.md).
"""

import hashlib
from enum import StrEnum
from math import ceil
from typing import Final, Self

import msgspec
from msgspec.structs import replace

from batch_progress import table
from batch_progress.dynamodb import Client, RequestRefused
from batch_progress.model import NO_NOTES, Batch
from batch_progress.progress import Basis, Estimate, Progress
from batch_progress.table import LAST_SECOND

# A count that costs more read units than this is kept and shared. Smaller batches are counted by every request.
LARGE_UNITS: Final = 100
# Per 100 read units that a count cost, it is shared for one second: all clients of a batch together then cost about 100
# read units a second.
UNITS_PER_SECOND: Final = 100
# A count is never given from this age on, even if no change of its batch is known.
OLDEST_SECONDS: Final = 60
# While no change is known, a count is given up to this age.
UNCHANGED_SECONDS: Final = 50
# The clocks of environments differ a little.
_CLOCK_SKEW_SECONDS: Final = 5
# One request counts, the others wait for it or give the old count; after this time another one may count.
LEASE_SECONDS: Final = 10
# After a count that did not end in time, the batch is not counted again for this time.
GIVEN_UP_SECONDS: Final = 60
# A note that a count did not end in time is this much later than its end, so that it is not a lease.
_NOTE_SECONDS: Final = 1_000_000_000
# A lease that ends later than this was not set by this service, and does not hold.
_FAR_SECONDS: Final = 90

_VERSION: Final = 1
_encoder: Final = msgspec.json.Encoder(order="deterministic")


class KeptCount(msgspec.Struct, frozen=True):
    """A count that is stored on a `BATCH` item, in JSON.

    Attributes:
        version: The version of this format; one that is not known is ignored.
        units: What the count cost, in read units of eventually consistent reads.
        revision: The batch's revision before the first job was read: changes after it may be missing.
        batch: The `fingerprint` of the `BATCH` item that was read.
        progress: What was counted.
    """

    version: int
    units: float
    revision: int
    batch: str
    progress: Progress

    @classmethod
    def of(cls, batch: Batch, progress: Progress, units: float) -> Self:
        """Return the count of a batch."""
        return cls(_VERSION, round(units, 1), batch.revision, fingerprint(batch), progress)

    @classmethod
    def read(cls, batch: Batch) -> Self | None:
        """Return the count on a `BATCH` item, `None` if there is none that can be read."""
        text = batch.notes.counted
        if text is None:
            return None
        try:
            kept = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, RecursionError):
            return None
        return kept if kept.version == _VERSION and kept.is_sound() else None

    def is_sound(self) -> bool:
        """Whether it can be the count of a batch. Nothing else is given to clients."""
        counts, expected, summary = self.progress.counts, self.progress.estimate, self.progress.summary
        numbers = (counts.total_urls, counts.completed, counts.failed, counts.pending, counts.total_items_extracted)
        seconds = (self.progress.as_of, expected.completion, expected.earliest, expected.latest)
        return (
            min(numbers) >= 0
            and all(0 <= second <= LAST_SECOND for second in seconds)
            and summary is not None
            and summary.statuses.keys() == set(table.JobStatus)
            and min(summary.statuses.values()) >= 0
            and sum(summary.statuses.values()) == counts.total_urls
        )

    def encode(self) -> str:
        """Return the JSON text that `read` accepts."""
        return _encoder.encode(self).decode()

    def given(self, now: float) -> Progress:
        """Return what was counted, with an estimate that is not in the past."""
        expected = self.progress.estimate
        if expected.basis is Basis.FINISHED or expected.completion >= now:
            return self.progress
        earliest, completion, latest = (
            max(second, ceil(now)) for second in (expected.earliest, expected.completion, expected.latest)
        )
        return replace(self.progress, estimate=Estimate(expected.basis, completion, earliest, latest))

    def seconds_to_share(self, now: float) -> float:
        """Return the seconds for which the count may still be given while its batch changes; may be negative."""
        return min(self.units / UNITS_PER_SECOND, OLDEST_SECONDS) - (now - self.progress.as_of)


def fingerprint(batch: Batch) -> str:
    """Hash a `BATCH` item as others wrote it, without what this service keeps on it."""
    content = _encoder.encode(replace(batch, revision=0, notes=NO_NOTES))
    return hashlib.blake2b(content, digest_size=12).hexdigest()


class Use(StrEnum):
    """What to do with a kept count."""

    GIVE = "give"
    RENEW = "renew"  # count, or give it if another request is counting at this moment
    COUNT = "count"  # it must not be given


def use(kept: KeptCount | None, batch: Batch, now: float) -> Use:
    """Decide whether a kept count may be given.

    Args:
        kept: The count, `None` if there is none.
        batch: The batch, just read.
        now: Epoch seconds.
    """
    if kept is None or kept.units <= LARGE_UNITS:
        return Use.COUNT
    age = now - kept.progress.as_of
    if not -_CLOCK_SKEW_SECONDS <= age < OLDEST_SECONDS:
        return Use.COUNT
    if kept.batch != fingerprint(batch):
        return Use.RENEW
    changes = batch.revision - kept.revision
    # With as many changes as jobs were pending, the batch may have finished.
    if kept.seconds_to_share(now) > 0 and 0 <= changes < kept.progress.counts.pending:
        return Use.GIVE
    expected = kept.progress.estimate
    holds = expected.basis in (Basis.FINISHED, Basis.STALLED) or expected.completion > now
    return Use.GIVE if changes == 0 and age < UNCHANGED_SECONDS and holds else Use.RENEW


class KeptCounts:
    """Writes the kept counts. Their conditions keep a deleted batch deleted."""

    def __init__(self, client: Client, jobs_table: str) -> None:
        self._client = client
        self._table = jobs_table

    def claim(self, batch_id: str, now: float) -> bool:
        """Return whether this request is the one that counts a batch now, for at most `LEASE_SECONDS`.

        Raises:
            ServiceUnavailable: DynamoDB gave no complete response in time.
            RequestRefused: DynamoDB refused the request.
        """
        return self._update(
            batch_id,
            "SET #counting = :until",
            "attribute_not_exists(#counting) OR NOT attribute_type(#counting, :n)"
            " OR #counting < :now OR #counting > :far",
            ("counting",),
            {
                ":until": _number(now + LEASE_SECONDS),
                ":now": _number(now),
                ":far": _number(now + _FAR_SECONDS),
                ":n": {"S": "N"},
            },
        )

    def keep(self, batch_id: str, kept: KeptCount) -> bool:
        """Keep a count, unless a later one is kept. Return whether it is kept; raises as `claim` does."""
        made = kept.progress.as_of
        return self._update(
            batch_id,
            "SET #counted = :counted, #counted_at = :made REMOVE #counting",
            # A time that is malformed or far ahead must not prevent every later count from being kept.
            "attribute_not_exists(#counted_at) OR NOT attribute_type(#counted_at, :n)"
            " OR #counted_at <= :made OR #counted_at > :far",
            ("counted", "counted_at", "counting"),
            {
                ":counted": {"S": kept.encode()},
                ":made": _number(made),
                ":far": _number(made + OLDEST_SECONDS),
                ":n": {"S": "N"},
            },
        )

    def give_up(self, batch_id: str, now: float) -> bool:
        """Note that a batch cannot be counted in time, so that `gave_up` holds for a minute; raises as `claim` does.

        The note takes the place of this request's lease.
        """
        values = {":until": _number(now + GIVEN_UP_SECONDS + _NOTE_SECONDS)}
        return self._update(batch_id, "SET #counting = :until", "", ("counting",), values)

    def _update(
        self, batch_id: str, update: str, condition: str, names: tuple[str, ...], values: dict[str, dict[str, str]]
    ) -> bool:
        try:
            self._client.update_item(
                TableName=self._table,
                Key=table.batch_key(batch_id),
                UpdateExpression=update,
                # Without an owner, the update would create a deleted batch again.
                ConditionExpression="attribute_exists(#owner_id)" + (f" AND ({condition})" if condition else ""),
                ExpressionAttributeNames={f"#{name}": name for name in (*names, "owner_id")},
                ExpressionAttributeValues=values,
            )
        except RequestRefused as error:
            if error.code == "ConditionalCheckFailedException":
                return False
            raise
        return True


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}


def is_leased(batch: Batch, now: float) -> bool:
    """Whether a request is counting the batch at this moment."""
    return now < (batch.notes.counting or 0) <= now + LEASE_SECONDS + _CLOCK_SKEW_SECONDS


def gave_up(batch: Batch, now: float) -> bool:
    """Whether a request could not count the batch in time, within the last minute or so."""
    return now < (batch.notes.counting or 0) - _NOTE_SECONDS <= now + _FAR_SECONDS
