"""The command line's time spans and untrusted text."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress_cli.duration import duration, span
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("4w", timedelta(weeks=4)),
    ],
)
def test_a_span_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert expected == duration(text)


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1.5h", "d", "1y", "1d12h", "٣d", "100000d", " 1d"])
def test_any_other_span_is_refused(text: str) -> None:
    with pytest.raises(Failed, match="is not a time span"):
        duration(text)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-3, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (3_599, "59m 59s"),
        (3_600, "1h 00m"),
        (90_000, "1d 01h"),
    ],
)
def test_a_span_is_written_with_its_two_largest_units(seconds: float, expected: str) -> None:
    assert expected == span(seconds)


@given(st.text(max_size=300))
def test_a_text_from_outside_is_one_line_that_a_terminal_does_not_obey(text: str) -> None:
    """Control characters and bidirectional overrides are replaced, and the length is limited."""
    shown = visible(text, 100)
    assert shown.isprintable()
    assert len(shown) <= 100


def test_a_plain_text_stays_as_it_is() -> None:
    assert "https://example.com/ü?a=[b]" == visible("https://example.com/ü?a=[b]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\x1b[2Jb", "a?[2Jb"), ("a\nb", "a?b"), ("a\x9b31mb", "a?31mb"), ("a\u202eb", "a?b"), ("\x07", "?")],
)
def test_each_dangerous_character_leaves_a_mark(text: str, expected: str) -> None:
    assert expected == visible(text)
