"""Cursors: what goes in comes out, and nothing else gets in."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress.progress import Basis, Counts, Estimate
from functions.progress.cursor import Cursor

NATURAL = st.integers(0, 2**63 - 1)
SECOND = st.integers(0, 253_402_300_799)
CURSOR = Cursor.behind("job_a", Counts(10, 7, 1, 245), Estimate(Basis.OBSERVED, 300, 200, 400))
TEXT = CURSOR.encode("batch")


@given(
    job_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=255),
    done=st.tuples(NATURAL, NATURAL, NATURAL),
    items=NATURAL,
    estimate=st.builds(Estimate, st.sampled_from(Basis), SECOND, SECOND, SECOND),
)
def test_what_goes_in_comes_out(job_id: str, done: tuple[int, int, int], items: int, estimate: Estimate) -> None:
    """In letters that need no escaping in a URL."""
    counts = Counts(sum(done), done[0], done[1], items)
    cursor = Cursor.behind(job_id, counts, estimate)
    text = cursor.encode("batch")
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    again = Cursor.decode(text, "batch")
    assert (job_id, counts, estimate) == (again.after, again.counts, again.estimate)


@given(data=st.data())
def test_a_damaged_cursor_is_none(data: st.DataObject) -> None:
    """Any other letter anywhere, and any piece missing."""
    at = data.draw(st.integers(0, len(TEXT) - 1))
    letter = data.draw(st.sampled_from("Aa0-_=/ é"))
    for damaged in (TEXT[:at] + letter + TEXT[at + 1 :], TEXT[:at] + TEXT[at + 1 :], TEXT[:at], TEXT + letter):
        if damaged != TEXT:
            with pytest.raises(ValueError):  # noqa: PT011  # whichever check it fails
                Cursor.decode(damaged, "batch")


def test_a_cursor_is_of_its_batch() -> None:
    with pytest.raises(ValueError, match="not of this batch"):
        Cursor.decode(TEXT, "other")


@pytest.mark.parametrize("job_id", ["x" * 1_021, "é" * 511])
def test_a_key_longer_than_dynamodb_takes_is_none_of_ours(job_id: str) -> None:
    with pytest.raises(ValueError, match="not as encode writes it"):
        Cursor.decode(Cursor.behind(job_id, CURSOR.counts, CURSOR.estimate).encode("batch"), "batch")


def test_counts_that_do_not_add_up_are_none_of_ours() -> None:
    forged = Cursor.behind("a", Counts(1, 1, 1, 0), CURSOR.estimate)
    with pytest.raises(ValueError, match="not as encode writes it"):
        Cursor.decode(forged.encode("batch"), "batch")


def test_spare_bits_of_the_last_letter_are_not_taken() -> None:
    """One cursor has one text."""
    for length in range(4):
        text = Cursor.behind("a" * length, CURSOR.counts, CURSOR.estimate).encode("batch")
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef0123":
            other = text[:-1] + letter
            if other != text and base64.urlsafe_b64decode(other + "=" * (-len(other) % 4)) == raw:
                with pytest.raises(ValueError, match="not as encode writes it"):
                    Cursor.decode(other, "batch")
