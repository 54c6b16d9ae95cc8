"""The command line's time spans and untrusted text."""

import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress_cli.duration import duration, span
from batch_progress_cli.events import event_line
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


def test_an_event_is_a_line_with_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the time at which it is printed: `events` begins with those since the server's start."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    failures: list[dict[str, Any]] = [{"error_code": "TIME\x1bOUT", "jobs": 2}, {"error_code": None, "jobs": 1}]
    line = event_line(finished(failures))
    monkeypatch.undo()
    time.tzset()
    assert "10:00:03  event  Batch Finished  batch_a  7 completed, 3 failed, 0 pending (2 TIME?OUT, 1 no code)" == line


def finished(failures: list[dict[str, Any]], cancelled: int = 0) -> dict[str, Any]:
    """Return the event of a batch of ten jobs of which three failed or were cancelled."""
    statuses = {"pending": 0, "processing": 0, "completed": 7, "failed": 3 - cancelled, "cancelled": cancelled}
    detail = {
        "batch_id": "batch_a",
        "completed": 7,
        "failed": 3,
        "pending": 0,
        "summary": {"statuses": statuses, "failures": failures},
    }
    return {"time": "2026-11-24T10:00:03Z", "detail-type": "Batch Finished", "detail": detail}


def test_an_event_names_the_cancelled_jobs() -> None:
    """They count as failed, but none of the reasons is theirs."""
    line = event_line(finished([{"error_code": "TIMEOUT", "jobs": 1}], cancelled=2))
    assert line.endswith("7 completed, 3 failed, 0 pending (1 TIMEOUT, 2 cancelled)")
    assert event_line(finished([], cancelled=3)).endswith("3 failed, 0 pending (3 cancelled)")


def test_a_plain_text_stays_as_it_is() -> None:
    assert "https://example.com/ü?a=[b]" == visible("https://example.com/ü?a=[b]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\x1b[2Jb", "a?[2Jb"), ("a\nb", "a?b"), ("a\x9b31mb", "a?31mb"), ("a\u202eb", "a?b"), ("\x07", "?")],
)
def test_each_dangerous_character_leaves_a_mark(text: str, expected: str) -> None:
    assert expected == visible(text)
