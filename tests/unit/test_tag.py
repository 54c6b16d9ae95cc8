"""ETags: how one is written and read, how long it holds, and its digest."""

from copy import replace
from datetime import UTC, datetime

import pytest

from batch_progress.model import Batch
from batch_progress.progress import Basis, Counts, Estimate, Progress
from batch_progress.table import JobStatus
from functions.progress.cursor import Cursor
from functions.progress.query import Query
from functions.progress.tag import TRUSTED_SECONDS, Tag, digest, tags, trusted

NOW = 1_734_345_002.75
DIGEST = "0123456789abcdef01234567"
BATCH = Batch("batch", "owner", 10, datetime(2024, 12, 16, tzinfo=UTC), 3, 30.0, expires_at=1_800_000_000.0, revision=7)
QUERY = Query("batch")
CURSOR = Cursor.behind("a", Counts(10, 7, 1, 245), Estimate(Basis.OBSERVED, 1, 0, 2))


def made(age: float, eta: int = 0) -> Tag:
    return Tag(int(NOW - age), eta, DIGEST)


def test_what_is_written_is_read() -> None:
    tag = Tag(int(NOW), int(NOW) + 90, DIGEST)
    assert 'W/"1734345002.1734345092.0123456789abcdef01234567"' == str(tag)
    assert [tag, tag] == tags(f'"x", {tag},{str(tag).removeprefix("W/")}')


@pytest.mark.parametrize("age", [-5, 0, 59])
def test_a_young_tag_is_trusted(age: int) -> None:
    assert trusted(made(age), NOW)


@pytest.mark.parametrize("age", [-7, TRUSTED_SECONDS + 1, 86_400])
def test_a_tag_that_is_old_or_from_the_future_is_not(age: int) -> None:
    """The clocks of two environments differ by a few seconds at most."""
    assert not trusted(made(age), NOW)


def test_a_tag_is_never_trusted_for_more_than_a_minute() -> None:
    """The minute starts at the read. The tag has the time of the read in whole seconds."""
    tag = Tag(int(NOW), 0, DIGEST)
    assert trusted(tag, int(NOW) + TRUSTED_SECONDS)
    assert not trusted(tag, int(NOW) + TRUSTED_SECONDS + 0.01)


@pytest.mark.parametrize(("eta", "good"), [(0, True), (1, True), (-0.75, False), (-1, False)])
def test_a_forecast_ends_the_trust(eta: float, *, good: bool) -> None:
    at = int(NOW + eta) if eta else 0
    assert good == trusted(Tag(int(NOW), at, DIGEST), NOW)


@pytest.mark.parametrize(
    ("basis", "eta"), [(Basis.DECLARED, 99), (Basis.OBSERVED, 99), (Basis.STALLED, 0), (Basis.FINISHED, 0)]
)
def test_only_a_forecast_that_holds_still_is_in_the_tag(basis: Basis, eta: int) -> None:
    progress = Progress(NOW, Counts(10, 7, 1, 245), Estimate(basis, 99, 50, 150), None)
    tag = Tag.of(BATCH, QUERY, progress, gzip=True)
    finished = basis is Basis.FINISHED
    assert Tag(int(NOW), eta, digest(BATCH, QUERY, gzip=True, finished=finished)) == tag


def test_the_digest_has_everything_that_an_answer_depends_on() -> None:
    """Each attribute of the batch item and each part of the query changes it."""
    batches = [
        BATCH,
        replace(BATCH, batch_id="other"),
        replace(BATCH, owner_id="other"),
        replace(BATCH, owner_id=None),
        replace(BATCH, total_urls=11),
        replace(BATCH, created_at=None),
        replace(BATCH, parallel_jobs=4),
        replace(BATCH, timeout_per_url=31.0),
        replace(BATCH, lost_after=90.0),
        replace(BATCH, cancelled_at=datetime(2024, 12, 16, tzinfo=UTC)),
        replace(BATCH, revision=8),
        replace(BATCH, expires_at=None),
    ]
    queries = [
        replace(QUERY, batch_id="other"),
        replace(QUERY, status=frozenset({JobStatus.FAILED})),
        replace(QUERY, status=frozenset({JobStatus.FAILED, JobStatus.PENDING})),
        replace(QUERY, limit=0),
        replace(QUERY, limit=1),
        replace(QUERY, cursor=CURSOR),
        replace(QUERY, details=True),
        replace(QUERY, estimate=True),
        replace(QUERY, summary=True),
    ]
    digests = [digest(batch, QUERY, gzip=False, finished=False) for batch in batches]
    digests += [digest(BATCH, query, gzip=False, finished=False) for query in queries]
    digests += [digest(BATCH, QUERY, gzip=True, finished=False), digest(BATCH, QUERY, gzip=False, finished=True)]
    assert len(digests) == len(set(digests))


def test_the_digest_does_not_depend_on_the_order_of_a_set() -> None:
    """Two processes have different string hashes and make the same tag."""
    both = (JobStatus.FAILED, JobStatus.PENDING, JobStatus.COMPLETED)
    queries = [replace(QUERY, status=frozenset(order)) for order in (both, both[::-1])]
    assert digest(BATCH, queries[0], gzip=False, finished=False) == digest(
        BATCH, queries[1], gzip=False, finished=False
    )
