"""The entity tag: what lets an unchanged poll be answered with one small read.

`W/"<made>.<eta>.<digest>"`: when the full answer was made, when the batch was then thought to end (0 where that no
longer moves), both in epoch seconds, and a digest of the question and of the `BATCH` item, whose revision grows
with each change of a job. The tag is as good as its digest for a minute, and no longer than its ETA lies ahead
(docs/decisions/0003-revision.md).
"""

import hashlib
import re
from typing import Final, Self

import msgspec

from batch_progress.model import Batch
from batch_progress.progress import Basis, Estimate
from functions.progress.query import Query

# A client that sends a tag learns of a change within this time, even when no revision arrives.
TRUSTED_SECONDS: Final = 60
# Environments' clocks differ a little; a tag from further ahead is none of ours.
_CLOCK_SKEW_SECONDS: Final = 5
_TAG: Final = re.compile(r'(?:W/)?"([0-9]{1,12})\.([0-9]{1,12})\.([0-9a-f]{24})"')
_encoder: Final = msgspec.json.Encoder(order="deterministic")


class Tag(msgspec.Struct, frozen=True):
    """An entity tag of ours."""

    made: int
    eta: int
    digest: str

    @classmethod
    def of(cls, batch: Batch, query: Query, expected: Estimate, *, made: float, gzip: bool) -> Self:
        """Make the tag of a full answer."""
        moving = expected.basis not in (Basis.FINISHED, Basis.STALLED)
        finished = expected.basis is Basis.FINISHED
        return cls(int(made), expected.completion if moving else 0, digest(batch, query, gzip=gzip, finished=finished))

    def __str__(self) -> str:
        """Write it as a header's value."""
        return f'W/"{self.made}.{self.eta}.{self.digest}"'


def tags(header: str) -> list[Tag]:
    """Return the tags in an `If-None-Match` that can be ours."""
    return [Tag(int(made), int(eta), digest) for made, eta, digest in _TAG.findall(header)]


def trusted(tag: Tag, now: float) -> bool:
    """Tell whether a tag may still be answered with `304`, if its digest holds."""
    fresh = now - TRUSTED_SECONDS <= tag.made <= now + _CLOCK_SKEW_SECONDS
    return fresh and (tag.eta == 0 or tag.eta > now)


def digest(batch: Batch, query: Query, *, gzip: bool, finished: bool) -> str:
    """Digest all that an answer depends on but the jobs; their changes are in the batch's revision."""
    content = _encoder.encode((batch, query, gzip, finished))
    return hashlib.blake2b(content, digest_size=12).hexdigest()
