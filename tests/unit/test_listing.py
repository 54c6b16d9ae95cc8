"""The jobs of an answer: where it is cut, how full it is then, and what finding the cut costs."""

import base64
import gzip
import json
import random
import string
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip

from batch_progress.kept import KeptCounts
from batch_progress.model import Batch, Job, Page
from batch_progress.progress import Basis, Counts, Estimate, Progress
from batch_progress.store import BatchStore, ReadStats
from functions.progress import coding
from functions.progress import listing as listing_module
from functions.progress.answer import full_answer
from functions.progress.coding import LAMBDA_LIMIT, Body, Gzip, Identity, PlainObject, Written
from functions.progress.counting import Asked, LargeBatches, Sources
from functions.progress.cursor import Cursor
from functions.progress.envelope import rfc3339
from functions.progress.listing import Listing
from functions.progress.query import Query

KINDS = [Gzip, Identity, PlainObject]
COUNTS = Counts(300_000, 200_000, 1, 5)
EXPECTED = Estimate(Basis.OBSERVED, 1_800_000_000, 1_700_000_000, 1_900_000_000)
PROGRESS = Progress(1_700_000_000, COUNTS, EXPECTED, None)
FOUR_FIFTHS = 0.8


def job(number: int, url: str) -> Job:
    return Job(f"job_{number:06}", url, "completed", number % 60)


def small(number: int, source: random.Random) -> Job:
    return job(number, f"https://shop.example.com/{source.choice(('products', 'outdoor'))}/item-{number:06}.html")


def large(number: int, source: random.Random, length: int = 2_000) -> Job:
    return job(
        number, "https://example.com/?" + "".join(source.choices(string.ascii_letters + string.digits, k=length))
    )


def alike(number: int, length: int = 2_000) -> Job:
    return job(number, "https://example.com/" + "catalogue/" * (length // 10) + str(number))


def pages(jobs: list[Job], size: int) -> Iterator[Page]:
    """Yield jobs in pages of about this number of bytes, as DynamoDB does."""
    page: list[Job] = []
    room = size
    for one in jobs:
        page.append(one)
        room -= len(one.url) + 150
        if room <= 0:
            yield Page(page, [], [], [], [])
            page, room = [], size
    yield Page(page, [], [], [], [])


def listed(jobs: list[Job], body: Body, *, size: int = 2**20) -> tuple[Written, Cursor | None]:
    """Write an answer with as many of the jobs as fit; return it with the cursor."""
    listing = Listing(Query("batch"), body)
    for page in pages(jobs, size):
        listing.add(page)
    written, cursor = listing.written(PROGRESS)
    assert len(read(written)["jobs"]) == listing.jobs
    assert read(written).get("next_cursor") == cursor
    return written, None if cursor is None else Cursor.decode(cursor, "batch")


def read(written: Written) -> dict[str, Any]:
    text = gzip.decompress(base64.b64decode(written.text)) if written.compressed else written.text
    data: dict[str, Any] = json.loads(text)["data"]
    return data


def sent(written: Written, kind: type[Body]) -> int:
    """Return the bytes of the response that a body takes."""
    return len(json.dumps(json.loads(written.text) if kind is PlainObject else written.text))


URLS = st.tuples(
    st.sampled_from(["alike", "small", "large", "escaped", "wide"]), st.integers(0, 900), st.integers(1, 60)
)


def mixture(runs: list[tuple[str, int, int]]) -> list[Job]:
    """Return runs of jobs with URLs of one kind and length each."""
    source = random.Random(0)  # noqa: S311  # not a secret
    makers: dict[str, Callable[[int, int], Job]] = {
        "alike": alike,
        "small": lambda number, _: small(number, source),
        "large": lambda number, length: large(number, source, length),
        "escaped": lambda number, length: job(number, '"\\\x7f\x01' * (length // 40)),
        "wide": lambda number, length: job(number, "é\U0001f600" * (length // 40)),
    }
    jobs: list[Job] = []
    for kind, length, many in runs:
        jobs += [makers[kind](len(jobs) + number, length) for number in range(many)]
    return jobs


@pytest.mark.parametrize("kind", KINDS)
@given(runs=st.lists(URLS, min_size=1, max_size=8), room=st.integers(40_000, 80_000), size=st.integers(1_000, 40_000))
def test_a_walk_brings_each_job_once(kind: type[Body], runs: list[tuple[str, int, int]], room: int, size: int) -> None:
    """No answer exceeds the limit, and one that is cut fills four fifths of it, whatever the jobs are like.

    The room is small, to be fast, and still several times a group of jobs, which escaped takes up to 6 KB.
    """
    jobs = mixture(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "ROOM", room)
        patch.setattr(listing_module, "_GROUP_BYTES", 1_000)
        seen: list[Any] = []
        rest = jobs
        while True:
            written, cursor = listed(rest, kind(), size=size)
            data = read(written)
            assert sent(written, kind) <= room + coding._AROUND_JOBS
            assert [300_000, 200_000, 1] == [data[name] for name in ("total_urls", "completed", "failed")]
            seen += data["jobs"]
            if cursor is None:
                break
            assert sent(written, kind) >= FOUR_FIFTHS * room
            rest = [one for one in rest if one.job_id > cursor.after]
    assert [(one.job_id, one.url) for one in jobs] == [(one["job_id"], one["url"]) for one in seen]


SOURCE = random.Random(0)  # noqa: S311  # not a secret
NAMED = {
    "large before small": [large(n, SOURCE) for n in range(3_100)] + [small(n, SOURCE) for n in range(3_100, 200_000)],
    "small before large": [small(n, SOURCE) for n in range(97_000)]
    + [large(n, SOURCE) for n in range(97_000, 100_000)],
    "long and alike": [alike(n) for n in range(55_000)],
    "uneven": [large(n, SOURCE, SOURCE.choice((10, 10, 10, 5_000, 100_000))) for n in range(1_000)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMED)
def test_a_full_sized_answer(monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Body]) -> None:
    """Lambda's limit is kept, four fifths of it are filled, and finding the cut compresses hardly more than is sent."""
    compressed = 0

    def counted(compress: Any) -> Any:  # noqa: ANN401  # a function
        def compress_counted(part: bytes, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # its arguments
            nonlocal compressed
            compressed += len(part)
            return compress(part, *arguments, **options)

        return compress_counted

    monkeypatch.setattr(coding, "_deflate", counted(coding._deflate))
    monkeypatch.setattr(coding, "igzip", SimpleNamespace(compress=counted(igzip.compress)))
    written, cursor = listed(NAMED[name], kind())
    assert sent(written, kind) <= LAMBDA_LIMIT - 16_384
    assert cursor is None or sent(written, kind) >= FOUR_FIFTHS * LAMBDA_LIMIT
    assert (kind is Gzip and name == "long and alike") == (cursor is None)
    if kind is Gzip:
        assert compressed <= 1.2 * len(gzip.decompress(base64.b64decode(written.text)))


def test_an_estimate_is_not_in_the_past_when_the_answer_leaves() -> None:
    """Reading a large batch takes seconds. The counts are of the moment at which the read began."""
    clock = iter(range(1_000, 2_000, 10)).__next__

    class Store:
        def read(self, *_: object, **__: object) -> tuple[Batch, Iterator[Page]]:
            jobs = [job(number, "u") for number in range(9)]
            return Batch("batch", "demo", 100), (Page([one], [None], [None], [None], [None]) for one in jobs if clock())

    sources = Sources(cast("BatchStore", Store()), cast("KeptCounts", None), LargeBatches())
    made = full_answer(sources, Asked(Query("batch"), "demo", clock, ReadStats()), Identity())
    assert 1_000 == made.progress.as_of
    assert made.progress.estimate.completion >= 1_100
    assert read(made.body)["estimated_completion"] >= rfc3339(1_100)


def test_a_large_answer_is_one_gzip_member() -> None:
    """Some clients ignore what follows the first member."""
    written, _ = listed([small(n, SOURCE) for n in range(60_000)], Gzip())
    compressed = base64.b64decode(written.text)
    stream = zlib.decompressobj(wbits=31)
    assert 60_000 == len(json.loads(stream.decompress(compressed))["data"]["jobs"])
    assert (True, b"") == (stream.eof, stream.unused_data)
