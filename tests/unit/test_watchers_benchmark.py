"""The parts of the watchers' benchmark that decide: a partition's limit and rows, and the judgement of an answer."""

import json
from math import inf

import msgspec
import pytest

from batch_progress import table
from batch_progress.table import Item
from benchmarks import partition
from benchmarks.cost import PAGE_BYTES
from benchmarks.freshness import History, Poll, allowed_age, ends_seen, older_than_told, right
from benchmarks.partition import Bucket, Partition, Rows, Span

NAMES = frozenset({"sk", "status"})
# 1,000 jobs had ended before; three more end at 10, 20 and 30. Each write takes a second.
HISTORY = History(1_000, begun=[29, 9, 19], finished=[30, 10, 20])
LARGE = 1_000.0


def row(key: str, status: str = "pending", letters: int = 0) -> Item:
    return table.item(batch_id="batch", sk=key, status=status, url="x" * letters)


def rows(count: int, letters: int = 0) -> Rows:
    made = Rows()
    for number in range(count):
        made.put(f"JOB#{number:03}", row(f"JOB#{number:03}", letters=letters))
    return made


def keys(page: partition.Page) -> list[str]:
    return [item["sk"]["S"] for item in msgspec.json.decode(b"[" + page.rows + b"]")]


def span(low: str = "", limit: int | None = None) -> Span:
    return Span(low, "JOB$", limit, NAMES)


def poll(
    told: int,
    *,
    began: float,
    status: int = 200,
    as_of: float | None = None,
    total: int = -1,
    adds_up: bool = True,
) -> Poll:
    return Poll("limit=0", began, began + 0.5, status, told, as_of, total, adds_up)


# The limit


def test_an_empty_bucket_admits_nothing_until_it_has_refilled() -> None:
    """A call takes what it needs even if that is more than is left; the next one waits until the debt is paid."""
    bucket = Bucket(rate=100, burst=50, now=0)
    assert bucket.admits(0)
    bucket.take(150)
    assert not bucket.admits(1.0)
    assert bucket.admits(1.01)


def test_a_bucket_saves_no_more_than_its_burst() -> None:
    """After any pause, it lets through the burst and then the rate."""
    bucket = Bucket(rate=100, burst=50, now=0)
    assert bucket.admits(1_000)
    bucket.take(50)
    assert not bucket.admits(1_000)
    assert bucket.admits(1_000.1)


def test_reads_beyond_the_limit_are_refused_as_dynamodb_refuses_them() -> None:
    """The error is retryable, costs nothing, and is counted; a second later reads are answered again."""
    now = 0.0
    line = Partition("http://127.0.0.1:1", "jobs", clock=lambda: now)
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=progress/20241216/eu-central-1/dynamodb/aws4_request"}
    body = json.dumps({"TableName": "jobs", "Key": table.batch_key("none"), "ConsistentRead": True}).encode()

    replies = [line.answer("GetItem", headers, body) for _ in range(int(partition.READS_PER_SECOND) + 2)]

    assert [200] * int(partition.READS_PER_SECOND) + [400] * 2 == [reply.status for reply in replies]
    assert "ThrottlingException" == json.loads(replies[-1].body)["__type"].rpartition("#")[2]
    now = 1.0
    assert 200 == line.answer("GetItem", headers, body).status
    totals = json.loads(line.answer("Totals", {}, b"{}").body)
    assert {
        "progress jobs read units": partition.READS_PER_SECOND + 1,
        "progress jobs read calls": partition.READS_PER_SECOND + 1,
        "progress jobs read refused": 2,
    } == totals


# The copy of the rows


def test_a_page_ends_with_the_row_that_reaches_a_megabyte() -> None:
    """The next page begins with the row after it; the last one has no key to go on from."""
    copy = rows(5, letters=400_000)
    pages = [copy.page(span())]
    while last := pages[-1].last:
        pages.append(copy.page(span(last + "\0")))
    assert [["JOB#000", "JOB#001", "JOB#002"], ["JOB#003", "JOB#004"]] == [keys(page) for page in pages]
    assert pages[1].read < PAGE_BYTES < pages[0].read


def test_a_page_ends_at_its_limit() -> None:
    assert ["JOB#000", "JOB#001"] == keys(rows(5).page(span(limit=2)))
    assert "JOB#001" == rows(5).page(span(limit=2)).last
    assert None is rows(5).page(span(limit=6)).last


@pytest.mark.parametrize("key", ["JOB#001", "JOB#002", "JOB#003"])
def test_a_changed_row_is_in_the_next_page_read(key: str) -> None:
    """A page is kept until one of its rows changes, the first and the last included."""
    copy = rows(5)
    asked = span("JOB#001", limit=3)
    before = copy.page(asked)
    copy.put(key, row(key, "completed"))
    after = msgspec.json.decode(b"[" + copy.page(asked).rows + b"]")
    assert b"completed" not in before.rows
    assert [key] == [item["sk"]["S"] for item in after if item["status"]["S"] == "completed"]


def test_added_and_deleted_rows() -> None:
    """They appear in their place, and disappear, also from a page that was read before."""
    copy = rows(3)
    copy.page(span())
    copy.put("JOB#0005", row("JOB#0005"))
    copy.put("JOB#002", None)
    copy.put("JOB#009", None)
    assert ["JOB#000", "JOB#0005", "JOB#001"] == keys(copy.page(span()))


# The judgement


@pytest.mark.parametrize(
    ("told", "at", "seconds"),
    [(1_000, 10, 0), (1_000, 12.5, 2.5), (1_001, 12.5, 0), (1_001, 31, 11), (1_003, 99, 0), (999, 1, inf)],
)
def test_how_long_a_count_has_been_out_of_date(told: int, at: float, seconds: float) -> None:
    """It is out of date from the moment at which the first end that it lacks was written."""
    assert seconds == HISTORY.behind(told, at)


def test_the_bounds_of_a_count() -> None:
    """A count has every end that was written before, and may have one whose write is under way."""
    assert (1_000, 1_001) == (HISTORY.least(9.5), HISTORY.most(9.5))
    assert (1_001, 1_001) == (HISTORY.least(10.5), HISTORY.most(10.5))
    assert (10, 30) == (HISTORY.reached(1_001), HISTORY.reached(1_003))
    assert 30 == HISTORY.last


@pytest.mark.parametrize(
    ("status", "units", "seconds"),
    [(200, 100, 0), (200, 1_000, 21), (200, 9_000, 61), (304, 100, 61), (304, 1_000, 61)],
)
def test_the_allowed_age(status: int, units: float, seconds: float) -> None:
    """A small batch is counted for each answer. 10 s are added while another request counts, 1 s for rounding."""
    assert seconds == allowed_age(status, units)


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (poll(1_000, began=30.9), True),  # 20.9 s old
        (poll(1_000, began=31.1), False),  # 21.1 s old
        (poll(1_000, began=70.9, status=304), True),
        (poll(1_000, began=71.1, status=304), False),
        (poll(1_001, began=9), True),  # the write is under way
        (poll(1_002, began=9), False),  # told before it was written
        (poll(1_003, began=40, adds_up=False), False),
        (poll(-1, began=40, status=503), False),
        (poll(999, began=1), False),
    ],
)
def test_which_answers_are_right(answer: Poll, is_right: bool) -> None:  # noqa: FBT001  # a test's parameter
    assert is_right == right(answer, HISTORY, LARGE)


def test_a_small_batch_is_never_out_of_date() -> None:
    assert not right(poll(1_000, began=10.1), HISTORY, 100)
    assert right(poll(1_000, began=10.0), HISTORY, 100)


def test_a_count_is_older_than_told_if_it_lacks_an_end_before_its_moment() -> None:
    assert older_than_told(poll(1_000, began=20, as_of=11), HISTORY)
    assert not older_than_told(poll(1_000, began=20, as_of=10), HISTORY)
    assert not older_than_told(poll(1_001, began=25, as_of=11), HISTORY)
    assert not older_than_told(poll(1_000, began=20), HISTORY)


def test_when_the_end_was_seen() -> None:
    """The seconds from the last end to the first answer that tells of it; a watcher that never saw it has none."""
    early = [poll(1_002, began=29, total=1_003), poll(1_003, began=32, total=1_003), poll(1_003, began=33, total=1_003)]
    late = [poll(1_003, began=40, total=1_003)]
    never = [poll(1_002, began=50, total=1_003), poll(-1, began=51, status=503)]
    assert [2.5, 10.5] == ends_seen([late, early, never], HISTORY.last)
