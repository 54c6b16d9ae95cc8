"""Where a page ended, as an opaque text that holds for its batch.

It carries the counts and the estimate of the walk's first page, so that all pages agree and a later one reads
only its own jobs. The checksum tells a damaged or foreign cursor from a good one; it is no signature, and need not
be: whoever forges a cursor deceives only itself, since whose the batch is gets checked on every page.
"""

import base64
import hashlib
import re
from typing import Annotated, ClassVar, Final, Self

import msgspec

from batch_progress.progress import Basis, Counts, Estimate

_CHECKSUM_BYTES: Final = 8
# A sort key has at most 1,024 bytes, `JOB#` among them.
_LONGEST_JOB_ID: Final = 1_020
_CURSOR: Final = re.compile("[A-Za-z0-9_-]{1,4096}")

_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Second = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Go on behind the job `after`; the other values are the first page's."""

    RULE: ClassVar[str] = "must be the 'next_cursor' of a page of this batch"

    after: str
    total_urls: _Natural
    completed: _Natural
    failed: _Natural
    total_items_extracted: _Natural
    basis: Basis
    completion: _Second
    earliest: _Second
    latest: _Second

    @classmethod
    def behind(cls, job_id: str, counts: Counts, estimate: Estimate) -> Self:
        """Make the cursor of a page that ended with the job `job_id`."""
        return cls(
            job_id,
            counts.total_urls,
            counts.completed,
            counts.failed,
            counts.total_items_extracted,
            estimate.basis,
            estimate.completion,
            estimate.earliest,
            estimate.latest,
        )

    @property
    def counts(self) -> Counts:
        """The counts of the walk's first page."""
        return Counts(self.total_urls, self.completed, self.failed, self.total_items_extracted)

    @property
    def estimate(self) -> Estimate:
        """The estimate of the walk's first page."""
        return Estimate(self.basis, self.completion, self.earliest, self.latest)

    def encode(self, batch_id: str) -> str:
        """Return the text that `decode` takes, of `A-Za-z0-9_-` alone."""
        content = msgspec.json.encode(self)
        return base64.urlsafe_b64encode(_checksum(batch_id, content) + content).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str, batch_id: str) -> Self:
        """Return the cursor that a text stands for.

        Raises:
            ValueError: It is none, or another batch's.
        """
        if not _CURSOR.fullmatch(text):
            raise ValueError("not of a cursor's letters")
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        checksum, content = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if checksum != _checksum(batch_id, content):
            raise ValueError("not whole, or not of this batch")
        cursor = msgspec.json.decode(content, type=cls)
        made_here = len(cursor.after.encode()) <= _LONGEST_JOB_ID and cursor.counts.pending >= 0
        if not made_here or cursor.encode(batch_id) != text:
            raise ValueError("not as encode writes it")
        return cursor


def _checksum(batch_id: str, content: bytes) -> bytes:
    return hashlib.blake2b(batch_id.encode() + b"\0" + content, digest_size=_CHECKSUM_BYTES).digest()
