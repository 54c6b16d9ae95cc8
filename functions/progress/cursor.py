"""Cursors: the end of a page, as an opaque text that is valid for one batch.

A cursor carries the counts and the estimate of the walk's first page, so that all pages agree and a later page reads
only its own jobs. Its checksum detects damage and cursors of other batches. It is not a signature and need not be: a
forged cursor misleads only the client that forged it, because every page checks who owns the batch.

The content is a JSON array whose first element is the version. To add a field, append it with a default and leave
`VERSION` alone: a deployment that does not know the field ignores it, and a cursor without it gets the default, so
that cursors survive a deployment, a rollback and a canary. Raise `VERSION` only when the meaning of an existing field
changes; `decode` then refuses the other version and says why.

In version 2 `after` is base64. It is used only for job ids that are longer in JSON, because of its escapes: a cursor
must fit into API Gateway's 10,240 bytes of headers. All other cursors stay readable for a deployment that knows only
version 1.
"""

import base64
import binascii
import hashlib
import re
from typing import Annotated, ClassVar, Final, Self

import msgspec
from msgspec.structs import replace

from batch_progress.progress import Basis, Counts, Estimate
from batch_progress.table import LAST_SECOND, LONGEST_JOB_ID_BYTES

VERSION: Final = 1
_BASE64_VERSION: Final = 2
_CHECKSUM_BYTES: Final = 8
_CURSOR: Final = re.compile("[A-Za-z0-9_-]{1,4096}")

_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Second = Annotated[int, msgspec.Meta(ge=0, le=LAST_SECOND)]


class InvalidCursor(ValueError):
    """The text is not a cursor of this batch. The message is for the client."""


class _Head(msgspec.Struct, array_like=True):
    """The first element of every version; the others are ignored."""

    version: int


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A page begins after the job `after`. The other values are those of the walk's first page."""

    RULE: ClassVar[str] = "must be the 'next_cursor' of a page of this batch"
    OTHER_VERSION: ClassVar[str] = (
        "was made by another version of this service that this one cannot read; start again without 'cursor'"
    )

    version: int
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
            VERSION,
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
        """Return the text that `decode` accepts, which consists of `A-Za-z0-9_-`."""
        encoded = base64.urlsafe_b64encode(self.after.encode()).decode()
        if len(encoded) + 2 < len(msgspec.json.encode(self.after)):
            return _encode(batch_id, msgspec.json.encode(replace(self, version=_BASE64_VERSION, after=encoded)))
        return _encode(batch_id, msgspec.json.encode(self))

    @classmethod
    def decode(cls, text: str, batch_id: str) -> Self:
        """Parse a cursor.

        Raises:
            InvalidCursor: The text is not a cursor of this batch, or is of a version that this one cannot read.
        """
        if not _CURSOR.fullmatch(text):
            raise InvalidCursor(cls.RULE)
        try:
            content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[_CHECKSUM_BYTES:]
        except binascii.Error:
            raise InvalidCursor(cls.RULE) from None
        # Compare the encoded text, not only the checksum: base64 ignores spare bits in the last letter, so a changed
        # text could decode to the same bytes.
        if _encode(batch_id, content) != text:
            raise InvalidCursor(cls.RULE)
        try:
            if content.startswith(b'["'):
                # The first cursors had no version: their array begins with `after`.
                content = b"[1," + content[1:]
            version = msgspec.json.decode(content, type=_Head).version
            if version not in (VERSION, _BASE64_VERSION):
                raise InvalidCursor(cls.OTHER_VERSION)
            cursor = msgspec.json.decode(content, type=cls)
            if version == _BASE64_VERSION:
                after = base64.b64decode(cursor.after.encode(), b"-_", validate=True).decode()
                cursor = replace(cursor, version=VERSION, after=after)
        except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error):
            raise InvalidCursor(cls.RULE) from None
        if len(cursor.after.encode()) > LONGEST_JOB_ID_BYTES or cursor.counts.pending < 0:
            raise InvalidCursor(cls.RULE)
        return cursor


def _encode(batch_id: str, content: bytes) -> str:
    checksum = hashlib.blake2b(batch_id.encode() + b"\0" + content, digest_size=_CHECKSUM_BYTES).digest()
    return base64.urlsafe_b64encode(checksum + content).rstrip(b"=").decode()
