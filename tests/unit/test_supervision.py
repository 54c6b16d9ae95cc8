"""When a batch is checked, which jobs are lost, and what is announced."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batch_progress.model import Batch
from batch_progress.progress import Basis, Counts, Estimate, Failures, Progress, Summary
from batch_progress.supervision import (
    LONGEST_DELAY_SECONDS,
    LOOK_SECONDS,
    OLDEST_COUNT_SECONDS,
    OVERDUE_SECONDS,
    SOON_SECONDS,
    Announced,
    Announcement,
    Chain,
    Check,
    Count,
    Kind,
    after_count,
    after_look,
    announcement,
    delay_seconds,
    event,
    is_outdated,
    lost_at,
    must_count,
    wants_check,
)
from batch_progress.table import JobStatus

NOW = 1_734_345_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)


def batch(**values: Any) -> Batch:  # noqa: ANN401  # attributes of a batch
    return Batch(
        "b", "alice", **{"total_urls": 10, "timeout_per_url": 30.0, "lost_after": 90.0, "revision": 7} | values
    )


def count(**values: Any) -> Count:  # noqa: ANN401  # attributes of a count
    return Count(**{"revision": 7, "pending": 4, "stalled": False, "units": 200.0} | values)


def check(**values: Any) -> Check:  # noqa: ANN401  # attributes of a check
    defaults: dict[str, Any] = {"batch_id": "b", "number": 3, "sent": NOW - 60, "revision": 7, "counted": NOW - 60}
    return Check(**defaults | values)


# What is known of the batch since a count


@pytest.mark.parametrize(
    ("revision", "of_count", "outdated"),
    [
        (7, {}, False),
        (10, {}, False),
        (11, {}, True),
        (6, {}, True),
        (7, {"pending": 0}, False),
        (8, {"pending": 0}, True),
        (7, {"stalled": True}, False),
        (8, {"stalled": True}, True),
        (7, {"same": False}, True),
    ],
)
def test_a_count_is_outdated_when_the_batch_may_be_another(
    revision: int, of_count: dict[str, Any], *, outdated: bool
) -> None:
    """As many changes as jobs were pending, a movement after a stall, or another `BATCH` item."""
    assert outdated == is_outdated(batch(revision=revision), count(**of_count))


# Asking for a check


@pytest.mark.parametrize(
    ("due", "of_count", "wanted"),
    [
        pytest.param(None, count(), True, id="no chain"),
        pytest.param(None, None, True, id="no chain, no count"),
        pytest.param(NOW - OVERDUE_SECONDS - 1, count(), True, id="overdue"),
        pytest.param(NOW - OVERDUE_SECONDS, count(pending=0, revision=0), False, id="late, by all of its time"),
        pytest.param(NOW - OVERDUE_SECONDS + 1, count(pending=0, revision=0), False, id="late"),
        pytest.param(NOW, count(revision=0), False, id="on its way"),
        pytest.param(NOW + SOON_SECONDS, count(revision=0), False, id="soon"),
        pytest.param(NOW + SOON_SECONDS + 1, count(revision=0), True, id="may have finished"),
        pytest.param(NOW + 60, count(revision=4), False, id="cannot have finished"),
        pytest.param(NOW + 60, None, False, id="not counted yet"),
    ],
)
def test_a_change_asks_for_a_check(due: float | None, of_count: Count | None, *, wanted: bool) -> None:
    assert wanted == wants_check(batch(), Chain(3, due), of_count, NOW)


@pytest.mark.parametrize(("expires_at", "wanted"), [(NOW, False), (NOW - 1, False), (NOW + 1, True), (None, True)])
def test_an_expired_batch_is_not_checked(expires_at: float | None, *, wanted: bool) -> None:
    assert wanted == wants_check(batch(expires_at=expires_at), Chain(0, None), None, NOW)


# Looking or counting


@pytest.mark.parametrize(
    ("one", "of_batch", "of_count", "counts"),
    [
        pytest.param({"sent": 0.0}, {}, count(), True, id="asked for"),
        pytest.param({}, {}, None, True, id="never counted"),
        pytest.param({}, {"revision": 11}, count(), True, id="may have finished"),
        pytest.param({}, {"revision": 9}, count(), False, id="it moves"),
        pytest.param({"due": NOW}, {}, count(), True, id="nothing moved until its time"),
        pytest.param({"due": NOW + 1}, {}, count(), False, id="nothing moved, but its time has not come"),
        pytest.param({"due": NOW}, {"revision": 9}, count(), False, id="it moved before its time"),
        pytest.param({"due": None}, {}, count(), False, id="nothing can happen"),
        pytest.param({"counted": NOW - 300}, {}, count(units=10.0), True, id="small and counted long ago"),
        pytest.param({"counted": NOW - 299}, {}, count(units=10.0), False, id="small and counted lately"),
        pytest.param({"counted": NOW - OLDEST_COUNT_SECONDS}, {}, count(units=1e6), True, id="counted an hour ago"),
    ],
)
def test_a_check_counts_when_only_the_jobs_can_show_what_happened(
    one: dict[str, Any], of_batch: dict[str, Any], of_count: Count | None, *, counts: bool
) -> None:
    assert counts == must_count(check(**one), batch(**of_batch), of_count, NOW)


def test_a_look_at_a_batch_that_rests_waits_for_the_same_moment() -> None:
    following = after_look(check(due=NOW + 500), batch(), NOW)
    assert Check("b", 4, NOW, 7, NOW + 500, NOW - 60) == following


@pytest.mark.parametrize(
    ("values", "due"),
    [
        # It has moved since the check was sent, 60 s ago: it cannot have stalled before its timeout after that.
        ({"timeout_per_url": 600.0, "lost_after": 1_800.0}, NOW - 60 + 600),
        ({"timeout_per_url": 30.0}, NOW + LOOK_SECONDS),
        ({"timeout_per_url": None}, NOW + LOOK_SECONDS),
        ({"timeout_per_url": 600.0, "lost_after": 300.0}, NOW - 60 + 300),
        ({"timeout_per_url": 600.0, "lost_after": None}, NOW - 60 + 600),
    ],
)
def test_a_look_at_a_batch_that_moves_is_repeated(values: dict[str, Any], due: float) -> None:
    following = after_look(check(due=NOW), batch(revision=9, **values), NOW)
    assert Check("b", 4, NOW, 9, due, NOW - 60) == following


@pytest.mark.parametrize(
    ("lost", "stall", "units", "due"),
    [
        pytest.param(NOW + 40, NOW + 30, 1.0, NOW + 31, id="stall first"),
        pytest.param(NOW + 20, NOW + 30, 1.0, NOW + 21, id="loss first"),
        pytest.param(None, NOW + 100, 1.0, NOW + 91, id="a job that starts now can be lost first"),
        pytest.param(NOW + 40, None, 1.0, NOW + 41, id="has stalled"),
        pytest.param(None, None, 1.0, None, id="nothing can happen"),
        pytest.param(NOW - 10, None, 1.0, NOW + 5, id="at once"),
        pytest.param(NOW + 1, None, 20.0, NOW + 20, id="not too soon after a count that cost much"),
        pytest.param(NOW + 1, None, 5_000.0, NOW + LOOK_SECONDS, id="but within a minute"),
    ],
)
def test_the_next_check_comes_when_something_can_happen(
    lost: float | None, stall: float | None, units: float, due: float | None
) -> None:
    following = after_count(check(), batch(), units, lost, stall, NOW)
    assert Check("b", 4, NOW, 7, due, NOW) == following


@pytest.mark.parametrize(
    ("due", "seconds"),
    [(NOW - 1, 0), (NOW, 0), (NOW + 0.2, 1), (NOW + 30, 30), (NOW + 1e6, LONGEST_DELAY_SECONDS), (None, 900)],
)
def test_a_delay_is_one_that_the_queue_takes(due: float | None, seconds: int) -> None:
    assert seconds == delay_seconds(check(due=due), NOW)


# Lost jobs


@pytest.mark.parametrize(
    ("status", "started", "seen", "lost_after", "at"),
    [
        ("processing", -100, None, 90.0, -10),
        ("processing", -100, -20, 90.0, 70),
        ("processing", -20, -100, 90.0, 70),
        ("processing", None, -100, 90.0, -10),
        ("processing", None, None, 90.0, None),
        ("processing", -100, None, None, None),
        ("pending", -100, None, 90.0, None),
        ("completed", -100, None, 90.0, None),
    ],
)
def test_a_job_is_lost_after_its_last_sign_of_life(
    status: str, started: int | None, seen: int | None, lost_after: float | None, at: int | None
) -> None:
    first, last = (None if each is None else MOMENT + timedelta(seconds=each) for each in (started, seen))
    assert (None if at is None else NOW + at) == lost_at(status, first, last, lost_after)


# Announcements


def progress(basis: Basis = Basis.FINISHED, *, completed: int = 8, failed: int = 2, end: float = NOW) -> Progress:
    counts = Counts(10, completed, failed, 271)
    end = int(end)
    return Progress(NOW + 1.5, counts, Estimate(basis, end, end, end), summary(completed, failed))


def summary(completed: int = 8, failed: int = 2) -> Summary:
    statuses = dict.fromkeys(JobStatus, 0) | {JobStatus.COMPLETED: completed, JobStatus.FAILED: failed}
    return Summary(statuses, [Failures("TIMEOUT", 1), Failures(None, 1)])


def told(of: Progress, revision: int, announced: Announced, moved: datetime | None = MOMENT) -> Announcement | None:
    return announcement(of, revision, announced, ended=MOMENT, moved=moved)


def done(announced: Announced, one: Announcement) -> Announced:
    """Return the notes from after an event was put."""
    return announced.noted(replace(one, put=True))


def test_the_event_of_a_finished_batch_is_the_contracts() -> None:
    finished = told(progress(), 37, Announced())
    assert finished
    made = event(finished, batch(), progress(), summary())
    assert "Batch Finished" == made.detail_type
    assert {
        "id": "b/finished/37",
        "batch_id": "b",
        "owner_id": "alice",
        "total_urls": 10,
        "completed": 8,
        "failed": 2,
        "pending": 0,
        "total_items_extracted": 271,
        "at": "2024-12-16T10:30:00Z",
        "summary": {
            "statuses": {"pending": 0, "processing": 0, "completed": 8, "failed": 2, "cancelled": 0},
            "failures": [{"error_code": "TIMEOUT", "jobs": 1}, {"error_code": None, "jobs": 1}],
            "as_of": "2024-12-16T10:30:01Z",
        },
    } == made.detail


def test_a_stall_tells_the_last_movement() -> None:
    stalled = told(progress(Basis.STALLED, completed=5), 37, Announced(), MOMENT - timedelta(seconds=45.6))
    assert stalled
    made = event(stalled, batch(), progress(Basis.STALLED, completed=5), summary(5))
    assert ("Batch Stalled", "b/stalled/37", "2024-12-16T10:29:14Z") == (
        made.detail_type,
        made.detail["id"],
        made.detail["at"],
    )


@pytest.mark.parametrize("basis", [Basis.DECLARED, Basis.OBSERVED])
def test_a_batch_that_runs_is_not_announced(basis: Basis) -> None:
    assert told(progress(basis, completed=5), 37, Announced()) is None


def test_a_stall_without_any_time_is_not_announced() -> None:
    assert told(progress(Basis.STALLED, completed=5), 37, Announced(), None) is None


def test_what_was_announced_is_not_announced_again() -> None:
    """Whatever the revision; other counts or another end are announced."""
    first = told(progress(), 37, Announced())
    assert first
    announced = done(Announced(), first)
    assert told(progress(), 99, announced) is None
    again = [told(progress(completed=9, failed=1), 99, announced), told(progress(end=NOW + 1), 99, announced)]
    assert ["b/finished/99"] * 2 == [each.id("b") for each in again if each]


def test_a_stall_does_not_make_a_finish_forgotten() -> None:
    finished = told(progress(), 37, Announced())
    assert finished
    announced = done(Announced(), finished)
    stalled = told(progress(Basis.STALLED, completed=7), 38, announced)
    assert stalled
    announced = done(announced, stalled)
    assert told(progress(), 40, announced) is None
    assert told(progress(Basis.STALLED, completed=7), 40, announced) is None


def test_an_announcement_that_may_have_been_put_keeps_its_id() -> None:
    begun = told(progress(), 37, Announced())
    assert begun
    assert begun == told(progress(), 38, Announced().noted(begun))
    # Not for other facts: consumers drop a repeated id.
    other = told(progress(completed=9, failed=1), 37, Announced().noted(begun))
    assert other
    assert "b/finished/38" == other.id("b")


def test_no_id_is_used_for_two_announcements() -> None:
    """The stream may be late: the revision is then still that of the announcement before."""
    first = told(progress(), 37, Announced())
    assert first
    second = told(progress(end=NOW + 1), 37, done(Announced(), first))
    assert second
    assert ("b/finished/37", "b/finished/38") == (first.id("b"), second.id("b"))
    assert ([10, 8, 2, 271, int(NOW)], [10, 8, 2, 271, int(NOW) + 1]) == (first.facts, second.facts)


def test_an_end_that_is_not_recorded_is_no_news() -> None:
    """It is then the time of the count, another one at each count."""
    first = announcement(progress(), 37, Announced(), ended=None, moved=None)
    assert first
    assert [10, 8, 2, 271, 0] == first.facts
    again = announcement(progress(end=NOW + 60), 37, done(Announced(), first), ended=None, moved=None)
    assert again is None


def test_times_are_in_utc_wherever_the_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = told(progress(), 37, Announced())
    assert finished
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        made = event(finished, batch(), progress(), summary())
    time.tzset()
    assert "2024-12-16T10:30:00Z" == made.detail["at"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Basis.FINISHED, Basis.STALLED]), st.integers(0, 3), st.integers(0, 5), st.booleans()
        ),
        max_size=20,
    )
)
def test_every_id_has_one_meaning(steps: list[tuple[Basis, int, int, bool]]) -> None:
    """Whatever is announced in whatever order, with crashes after the event was put."""
    announced, meanings = Announced(), dict[str, list[int]]()
    for basis, fact, revision, crash in steps:
        one = told(progress(basis, end=NOW + fact), revision, announced, MOMENT + timedelta(seconds=fact))
        if one is None:
            continue
        assert one.facts == meanings.setdefault(one.id("b"), one.facts)
        announced = announced.noted(one) if crash else done(announced, one)


def test_notes_can_be_read_as_they_are_written() -> None:
    one = Announcement(Kind.STALLED, 3, [5])
    notes = Announced(None, one)
    assert notes == msgspec.json.decode(msgspec.json.encode(notes), type=Announced)


def test_a_check_that_is_asked_for_is_a_short_message() -> None:
    assert b'{"batch_id":"b","number":3}' == msgspec.json.encode(Check("b", 3))
