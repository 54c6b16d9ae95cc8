"""Entity tags: a poll that finds no change is answered with one small read.

A tag is `W/"<made>.<eta>.<digest>"`: when the full answer was made; when the batch was then expected to end, 0 for a
finished or stalled one; and a digest of the request's parameters and of the `BATCH` item, whose revision increases with
the changes of jobs. Times are in epoch seconds. A tag is trusted for a minute, but not after its `eta`
(docs/decisions/0003-revision.md).
"""

import hashlib
import re
from typing import Final, Self

import msgspec
from msgspec.structs import replace

from batch_progress.model import NO_NOTES, Batch
from batch_progress.progress import Basis, Progress
from functions.progress.query import Query

# A client that sends a tag sees a change within this time, even if the revision is not increased.
TRUSTED_SECONDS: Final = 60
# The clocks of environments differ a little. A tag from further in the future is not trusted.
_CLOCK_SKEW_SECONDS: Final = 5
_TAG: Final = re.compile(r'(?:W/)?"([0-9]{1,12})\.([0-9]{1,12})\.([0-9a-f]{24})"')
_encoder: Final = msgspec.json.Encoder(order="deterministic")


class Tag(msgspec.Struct, frozen=True):
    """An entity tag of this service."""

    made: int
    eta: int
    digest: str

    @classmethod
    def of(cls, batch: Batch, query: Query, progress: Progress, *, gzip: bool) -> Self:
        """Make the tag of a full answer."""
        expected = progress.estimate
        moving = expected.basis not in (Basis.FINISHED, Basis.STALLED)
        finished = expected.basis is Basis.FINISHED
        return cls(
            int(progress.as_of),
            expected.completion if moving else 0,
            digest(batch, query, gzip=gzip, finished=finished),
        )

    def __str__(self) -> str:
        """Return the value of the `ETag` header."""
        return f'W/"{self.made}.{self.eta}.{self.digest}"'


def tags(header: str) -> list[Tag]:
    """Return the tags in an `If-None-Match` header that have this service's format."""
    return [Tag(int(made), int(eta), digest) for made, eta, digest in _TAG.findall(header)]


def trusted(tag: Tag, now: float) -> bool:
    """Whether a tag whose digest matches can be answered with `304`."""
    fresh = now - TRUSTED_SECONDS <= tag.made <= now + _CLOCK_SKEW_SECONDS
    return fresh and (tag.eta == 0 or tag.eta > now)


def digest(batch: Batch, query: Query, *, gzip: bool, finished: bool) -> str:
    """Hash everything that an answer depends on except the jobs, whose changes increase the batch's revision."""
    content = _encoder.encode((replace(batch, notes=NO_NOTES), query, gzip, finished))
    return hashlib.blake2b(content, digest_size=12).hexdigest()
