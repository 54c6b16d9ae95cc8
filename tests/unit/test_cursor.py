"""Cursors: a cursor survives the round trip, and nothing else is accepted."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress.progress import Basis, Counts, Estimate
from batch_progress.table import LAST_SECOND
from functions.progress.cursor import VERSION, Cursor, InvalidCursor, _encode

NATURAL = st.integers(0, 2**63 - 1)
SECOND = st.integers(0, LAST_SECOND)
CURSOR = Cursor.behind("job_a", Counts(10, 7, 1, 245), Estimate(Basis.OBSERVED, 300, 200, 400))
TEXT = CURSOR.encode("batch")
LEGACY = "KsMe4itHf1JbImpvYl9hIiwxMCw3LDEsMjQ1LCJvYnNlcnZlZCIsMzAwLDIwMCw0MDBd"


@given(
    job_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=255),
    done=st.tuples(NATURAL, NATURAL, NATURAL),
    items=NATURAL,
    estimate=st.builds(Estimate, st.sampled_from(Basis), SECOND, SECOND, SECOND),
)
def test_a_cursor_survives_the_round_trip(
    job_id: str, done: tuple[int, int, int], items: int, estimate: Estimate
) -> None:
    """Its text needs no escaping in a URL."""
    counts = Counts(sum(done), done[0], done[1], items)
    cursor = Cursor.behind(job_id, counts, estimate)
    text = cursor.encode("batch")
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    again = Cursor.decode(text, "batch")
    assert (job_id, counts, estimate) == (again.after, again.counts, again.estimate)


@given(data=st.data())
def test_a_damaged_cursor_is_refused(data: st.DataObject) -> None:
    """A changed character anywhere, or a missing part."""
    at = data.draw(st.integers(0, len(TEXT) - 1))
    letter = data.draw(st.sampled_from("Aa0-_=/ é"))
    for damaged in (TEXT[:at] + letter + TEXT[at + 1 :], TEXT[:at] + TEXT[at + 1 :], TEXT[:at], TEXT + letter):
        if damaged != TEXT:
            with pytest.raises(InvalidCursor):  # by any of the checks
                Cursor.decode(damaged, "batch")


def test_a_cursor_is_of_its_batch() -> None:
    with pytest.raises(InvalidCursor, match="of this batch"):
        Cursor.decode(TEXT, "other")


@pytest.mark.parametrize("job_id", ["x" * 1_021, "é" * 511])
def test_a_key_longer_than_dynamodb_takes_is_none_of_ours(job_id: str) -> None:
    with pytest.raises(InvalidCursor, match="of this batch"):
        Cursor.decode(Cursor.behind(job_id, CURSOR.counts, CURSOR.estimate).encode("batch"), "batch")


def test_counts_that_do_not_add_up_are_none_of_ours() -> None:
    forged = Cursor.behind("a", Counts(1, 1, 1, 0), CURSOR.estimate)
    with pytest.raises(InvalidCursor, match="of this batch"):
        Cursor.decode(forged.encode("batch"), "batch")


def test_spare_bits_of_the_last_letter_are_not_taken() -> None:
    """A cursor has exactly one text."""
    for length in range(4):
        text = Cursor.behind("a" * length, CURSOR.counts, CURSOR.estimate).encode("batch")
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef0123":
            other = text[:-1] + letter
            if other != text and base64.urlsafe_b64decode(other + "=" * (-len(other) % 4)) == raw:
                with pytest.raises(InvalidCursor, match="of this batch"):
                    Cursor.decode(other, "batch")


def text_of(*content: object) -> str:
    """Return the text of a cursor with this content."""
    return _encode("batch", json.dumps(content, separators=(",", ":")).encode())


VALUES = ("job_a", 10, 7, 1, 245, "observed", 300, 200, 400)


def test_a_cursor_from_before_there_were_versions_goes_on() -> None:
    """This text was handed out by a deployment of 2026-11-25."""
    assert Cursor.decode(LEGACY, "batch") == CURSOR


def test_a_cursor_of_a_later_deployment_goes_on() -> None:
    """The other side of a canary may have appended fields: an older deployment ignores them."""
    assert Cursor.decode(text_of(VERSION, *VALUES, {"novelty": [1]}, None), "batch") == CURSOR


@pytest.mark.parametrize(
    "job_id",
    [*(c * 1_020 for c in 'x\0\x01\x1f"\\\n\x7f'), "é" * 510, "\U0001f600" * 255, "\x01é" * 340, "x\x01" * 510, "\x01"],
)
def test_any_sort_key_makes_a_short_cursor(job_id: str) -> None:
    """JSON escapes of the key would make the `Link` header longer than API Gateway allows."""
    text = Cursor.behind(job_id, Counts(2**63, 2**62, 1, 2**62), CURSOR.estimate).encode("batch")
    assert len(text) < 2_100
    again = Cursor.decode(text, "batch")
    assert (job_id, VERSION, text) == (again.after, again.version, again.encode("batch"))


@pytest.mark.parametrize("job_id", ["job_a", "x" * 1_020, 'a "quoted" id', "a\nb", "é" * 510])
def test_a_key_that_needs_few_escapes_is_written_in_the_first_version(job_id: str) -> None:
    """A deployment that knows only this version can read it after a rollback."""
    text = Cursor.behind(job_id, CURSOR.counts, CURSOR.estimate).encode("batch")
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[8:]
    assert [1, job_id] == json.loads(content)[:2]


def test_the_second_version_has_the_key_in_base64() -> None:
    assert "\0ÿ" == Cursor.decode(text_of(2, "AMO_", *VALUES[1:]), "batch").after
    for after in ("AA", "AAA", "A", "é", "_w==", "/w==", "A A=", 5):
        with pytest.raises(InvalidCursor, match="of this batch"):
            Cursor.decode(text_of(2, after, *VALUES[1:]), "batch")


@pytest.mark.parametrize("version", [0, 3, 10**6, -1])
def test_a_cursor_of_a_version_that_cannot_be_read_says_so(version: int) -> None:
    """The error asks the client to start again."""
    with pytest.raises(InvalidCursor, match="another version of this service"):
        Cursor.decode(text_of(version, {"anything": "else"}), "batch")


@pytest.mark.parametrize(
    "content", [[], [None], [True], [1.5], [VERSION], [VERSION, *VALUES[:-1]], [VERSION, 1, *VALUES[1:]]]
)
def test_content_that_no_version_wrote_is_refused(content: list[object]) -> None:
    with pytest.raises(InvalidCursor, match="of this batch"):
        Cursor.decode(text_of(*content), "batch")
