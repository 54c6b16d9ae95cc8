"""The chain of checks of each batch: ask for a check, and note it on the `BATCH` item.

A check is sent before it is noted, and only checks with a lower number than the noted one are dropped. So a crash
between the two repeats a check, and never loses the chain (docs/decisions/0014-supervision.md).
"""

from typing import Final

import msgspec

from batch_progress import decode, table
from batch_progress.dynamodb import Client, RequestRefused
from batch_progress.kept import KeptCount, fingerprint
from batch_progress.messages import Queue
from batch_progress.model import Batch
from batch_progress.progress import Basis
from batch_progress.store import batch_of
from batch_progress.supervision import FIRST_DELAY_SECONDS, Announced, Chain, Check, Count, wants_check

_encoder: Final = msgspec.json.Encoder()
_announced: Final = msgspec.json.Decoder(Announced)


class _Notes(msgspec.Struct, frozen=True):
    """The attributes of a `BATCH` item that only the supervision needs. Malformed ones are absent."""

    check_number: decode.Count | None = None
    check_due: decode.Seconds | None = None
    announced: decode.Text | None = None


class Supervised(msgspec.Struct, frozen=True):
    """A `BATCH` item with what is noted about its supervision.

    Attributes:
        batch: The batch.
        chain: Its chain of checks.
        count: Its latest count, `None` if there is none.
        announced_text: The stored note of what has been announced; `None` if nothing has.
    """

    batch: Batch
    chain: Chain
    count: Count | None
    announced_text: str | None

    @property
    def announced(self) -> Announced:
        """What has been announced; nothing, if the notes cannot be read."""
        try:
            return _announced.decode(self.announced_text or "[]")
        except msgspec.DecodeError:
            return Announced()


def supervised(raw: msgspec.Raw, batch_id: str) -> Supervised | None:
    """Return a `BATCH` item, `None` if it does not exist or has no owner: it is not supervised then."""
    if not bytes(raw):
        return None
    item, _ = decode.item(raw, decode.Item)
    notes, _ = decode.item(raw, _Notes)
    batch = batch_of(item, batch_id)
    if batch.owner_id is None:
        return None
    number = notes.check_number.N if notes.check_number else 0
    return Supervised(
        batch=batch,
        chain=Chain(number, notes.check_due.N if notes.check_due else None),
        count=_count(batch),
        announced_text=notes.announced.S if notes.announced else None,
    )


def _count(batch: Batch) -> Count | None:
    kept = KeptCount.read(batch)
    return None if kept is None else count_of(kept, batch)


def count_of(kept: KeptCount, batch: Batch) -> Count:
    """Return what supervision needs of a count."""
    progress = kept.progress
    return Count(
        revision=kept.revision,
        pending=progress.counts.pending,
        stalled=progress.estimate.basis is Basis.STALLED,
        units=kept.units,
        same=kept.batch == fingerprint(batch),
    )


class Chains:
    """Asks for checks."""

    def __init__(self, client: Client, jobs_table: str, queue: Queue) -> None:
        self._client = client
        self._table = jobs_table
        self._queue = queue

    def ask(self, check: Check, delay: int, now: float) -> Supervised | None:
        """Send a check, then note it. Return the batch after that.

        Args:
            check: The check.
            delay: The seconds after which it arrives.
            now: Epoch seconds.

        Returns:
            `None` if it was not noted: a check with at least this number is, or the batch does not exist.

        Raises:
            ServiceUnavailable: It may not have been sent, or it may not be noted.
        """
        self._queue.send(_encoder.encode(check).decode(), delay)
        due = {":due": {"N": f"{now + delay:.3f}"}}
        return self._number(check, "SET #check_number = :number, #check_due = :due", "<", due)

    def end(self, check: Check) -> Supervised | None:
        """Note that no check follows this one; return as `ask` does.

        Raises:
            ServiceUnavailable: It may not be noted.
        """
        return self._number(check, "SET #check_number = :number REMOVE #check_due", "<=", {})

    def _number(self, check: Check, update: str, than: str, values: dict[str, dict[str, str]]) -> Supervised | None:
        # A number that is malformed was not written by this service.
        lower = f"NOT attribute_type(#check_number, :n) OR #check_number {than} :number"
        return self.note(
            check.batch_id,
            update,
            f"(attribute_not_exists(#check_number) OR {lower})",
            {":number": {"N": str(check.number)}, ":n": {"S": "N"}, **values},
        )

    def changed(self, found: Supervised, now: float) -> bool:
        """Ask for a check of a batch whose jobs have just changed, if it needs one. Return whether it did.

        Args:
            found: The batch, after the change was counted into its revision.
            now: Epoch seconds.

        Raises:
            ServiceUnavailable: See `ask`.
        """
        if not wants_check(found.batch, found.chain, found.count, now):
            return False
        first = found.chain.number == 0
        check = Check(found.batch.batch_id, found.chain.number + 1)
        self.ask(check, FIRST_DELAY_SECONDS if first else 0, now)
        return True

    def note(self, batch_id: str, update: str, condition: str, values: dict[str, dict[str, str]]) -> Supervised | None:
        """Change a batch's notes if a condition holds.

        Returns:
            The batch after that, `None` if the condition does not hold or the batch does not exist.

        Raises:
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        used = (*table.SUPERVISOR_ATTRIBUTES, "owner_id")
        text = f"{update} {condition} #owner_id"
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=table.batch_key(batch_id),
                UpdateExpression=update,
                # Without an owner, the update would create a deleted batch again.
                ConditionExpression=f"attribute_exists(#owner_id) AND {condition}",
                ExpressionAttributeNames={f"#{name}": name for name in used if f"#{name}" in text},
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
            )
        except RequestRefused as error:
            if error.code == "ConditionalCheckFailedException":
                return None
            raise
        return supervised(answer.raw, batch_id)
