"""Counts, estimates and polling intervals from jobs."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batch_progress.forecast import time_left, time_left_from_samples
from batch_progress.model import Batch, Job, Page
from batch_progress.progress import Basis, Counts, Estimate, Observed, Tally, estimate, poll_after, poll_again
from batch_progress.sample import LARGEST
from batch_progress.table import LAST_SECOND, JobStatus

CREATED = datetime(2024, 12, 16, 10, 0, tzinfo=UTC)
BATCH = Batch("b", "demo", created_at=CREATED)
NOW = CREATED.timestamp() + 100


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else CREATED + timedelta(seconds=seconds)


def page(*jobs: tuple[str, float | None, float | None], items: int = 0) -> Page:
    """Return jobs with these statuses, and starts and ends in seconds after the batch's creation."""
    return Page(
        [Job(f"job_{number}", "u", status, items) for number, (status, _, _) in enumerate(jobs)],
        [at(started) for _, started, _ in jobs],
        [at(finished) for _, _, finished in jobs],
        [None] * len(jobs),
        [None] * len(jobs),
    )


def tally(*pages: Page, batch: Batch = BATCH) -> Tally:
    added = Tally(batch)
    for one in pages:
        added.add(one)
    return added


@given(
    statuses=st.lists(st.lists(st.sampled_from(JobStatus), max_size=9), max_size=4),
    declared=st.integers(0, 40),
)
def test_counts(statuses: list[list[JobStatus]], declared: int) -> None:
    """They always sum, for any pages, and none is negative."""
    pages = [page(*((status, None, None) for status in some), items=2) for some in statuses]
    everything = [status for some in statuses for status in some]
    counts = tally(*pages, batch=Batch("b", "demo", declared)).counts()
    assert max(declared, len(everything)) == counts.total_urls
    assert everything.count(JobStatus.COMPLETED) == counts.completed
    assert everything.count(JobStatus.FAILED) + everything.count(JobStatus.CANCELLED) == counts.failed
    assert counts.total_urls == counts.completed + counts.failed + counts.pending
    assert counts.pending >= 0
    assert 2 * len(everything) == counts.total_items_extracted
    assert (counts.pending == 0) == counts.finished


@given(
    statuses=st.lists(st.lists(st.sampled_from(JobStatus), max_size=9), max_size=4),
    declared=st.integers(0, 40),
    cancelled=st.booleans(),
)
def test_the_summary_adds_up(statuses: list[list[JobStatus]], declared: int, *, cancelled: bool) -> None:
    """The statuses sum to the total. URLs without a job are pending, or cancelled if the batch is."""
    pages = [page(*((status, None, None) for status in some)) for some in statuses]
    everything = [status for some in statuses for status in some]
    batch = Batch("b", "demo", declared, cancelled_at=at(0) if cancelled else None)
    added = tally(*pages, batch=batch)
    counts, summary = added.counts(), added.summary()
    absent = Counter({JobStatus.CANCELLED if cancelled else JobStatus.PENDING: max(declared - len(everything), 0)})
    assert dict.fromkeys(JobStatus, 0) | Counter(everything) + absent == summary.statuses
    assert list(JobStatus) == list(summary.statuses)
    assert counts.total_urls == sum(summary.statuses.values())
    assert counts.completed == summary.statuses[JobStatus.COMPLETED]
    assert counts.failed == summary.statuses[JobStatus.FAILED] + summary.statuses[JobStatus.CANCELLED]


def failed(*codes: str | None) -> Page:
    """Return failed jobs with these error codes."""
    return replace(page(*(("failed", None, None) for _ in codes)), error_codes=list(codes))


def test_failures_are_counted_by_reason() -> None:
    """The most frequent first, then in the order of the code; no code comes last among equals."""
    summary = tally(failed("B", None, "TIMEOUT"), failed("A", "TIMEOUT"), failed(None, "B", "A")).summary()
    expected = [("A", 2), ("B", 2), ("TIMEOUT", 2), (None, 2)]
    assert expected == [(each.error_code, each.jobs) for each in summary.failures]


def test_only_failed_jobs_have_a_reason() -> None:
    """A job that is done by another attempt may still have the code of the first one."""
    other = page(("completed", None, None), ("cancelled", None, None), ("processing", None, None))
    assert [] == tally(replace(other, error_codes=["TIMEOUT"] * 3)).summary().failures


def test_the_ten_most_frequent_reasons_are_told() -> None:
    """Codes are cut to 100 characters first, and those equal after it are one."""
    codes = [f"CODE_{number:02}" for number in range(12) for _ in range(12 - number)]
    long = ["x" * 100 + str(number) for number in range(13)]
    failures = tally(failed(*codes, *long)).summary().failures
    assert [("x" * 100, 13), *((f"CODE_{number:02}", 12 - number) for number in range(9))] == [
        (each.error_code, each.jobs) for each in failures
    ]


def test_a_cancelled_batch_ends_when_it_was_cancelled() -> None:
    """Or with its last job, whichever is later."""
    batch = Batch("b", "demo", 3, at(0), cancelled_at=at(40))
    ends: list[tuple[float | None, float]] = [(30, 40), (50, 50), (None, 40)]
    for finished, end in ends:
        added = tally(page(("cancelled", None, finished)), batch=batch)
        second = int(CREATED.timestamp() + end)
        expected = Estimate(Basis.FINISHED, second, second, second)
        assert expected == estimate(batch, added.counts(), added.observed(), NOW)


def test_a_sign_of_life_is_a_move() -> None:
    """A batch whose only job reports is not stalled."""
    moved = replace(page(("processing", 10, None)), seen=[at(95)])
    assert at(95) == tally(moved).observed().last_moved


def test_what_the_times_tell() -> None:
    """Durations of ended jobs, starts of running ones, and the latest times over all pages."""
    observed = tally(
        page(("completed", 0, 7), ("failed", 2, 5), ("cancelled", 1, 50), ("processing", 30, None)),
        page(("processing", None, None), ("pending", 40, None), ("completed", None, 9), ("completed", 3, None)),
    ).observed()
    assert Observed([7.0, 3.0], [at(30), None], at(50), at(50), ran=2, running=2) == observed


def test_a_start_is_a_move_too() -> None:
    """The latest start over all pages, if no end is later."""
    observed = tally(page(("processing", 60, None)), page(("completed", 10, 20), ("processing", 50, None))).observed()
    assert (at(20), at(60)) == (observed.last_finished, observed.last_moved)


def test_no_times_tell_nothing() -> None:
    assert Observed([], [], None, None) == tally(page(("pending", None, None)), page()).observed()


@pytest.mark.parametrize("total_urls", [0, 5_000, 1_000_000])
@pytest.mark.parametrize("before", [0, 1, 20_000])
def test_of_many_ended_jobs_an_even_sample_is_kept(total_urls: int, before: int) -> None:
    """Whatever the declared total, and wherever in the order of ids they are. The counts are those of all jobs."""
    pending = page(*[("pending", None, None)] * before)
    jobs = [("completed" if number % 2 else "failed", 0.0, float(number)) for number in range(5_000)]
    large = tally(pending, page(*jobs[:1_000]), page(*jobs[1_000:]), batch=Batch("b", "demo", total_urls))
    assert Observed([float(number) for number in range(0, 5_000, 4)], [], at(4_999), at(4_999), 5_000) == (
        large.observed()
    )
    assert (2_500, 2_500) == (large.counts().completed, large.counts().failed)


def test_few_ended_jobs_of_a_large_batch_are_all_kept() -> None:
    """One in a hundred, with others that have no duration."""
    jobs = [("completed" if number % 100 == 7 else "pending", 0.0, float(number)) for number in range(50_000)]
    without = [("cancelled", 0.0, 1.0), ("completed", None, 1.0), ("failed", 0.0, None)] * 1_000
    large = tally(page(*without), page(*jobs), batch=Batch("b", "demo", 50_000))
    assert [float(number) for number in range(7, 50_000, 100)] == large.observed().durations
    assert 500 == large.observed().ran


@pytest.mark.parametrize(("jobs", "oldest"), [(LARGEST, []), (LARGEST + 1, [at(1)])])
def test_the_oldest_running_job_is_added_to_a_sample(jobs: int, oldest: list[datetime | None]) -> None:
    """Not to a list of all."""
    observed = tally(page(*[("processing", float(1 + (number + 2) % 4), None) for number in range(jobs)])).observed()
    every = 1 + len(oldest)
    assert [*oldest, *[at(1 + (number + 2) % 4) for number in range(0, jobs, every)]] == observed.started


def test_of_many_running_jobs_an_even_sample_is_kept() -> None:
    """With the oldest, which may be the last to end, and with their number."""
    jobs = [("processing", float(number) if number % 2 else None, None) for number in range(5_000)]
    large = tally(page(*jobs[:3_000]), page(("completed", -9.0, 1.0)), page(*jobs[:2:-1])).observed()
    assert [at(1), *[None] * 750, *[at(number) for number in range(4_999, 2, -4)]] == large.started
    assert (7_997, 1) == (large.running, large.ran)


@pytest.mark.parametrize(
    ("batch", "last", "expected"),
    [
        (BATCH, 90.9, CREATED.timestamp() + 90),
        (BATCH, None, CREATED.timestamp()),
        (Batch("b", "demo"), None, NOW),
    ],
)
def test_a_finished_batch_ended_when_its_last_job_did(batch: Batch, last: float | None, expected: float) -> None:
    """Otherwise when it was created, otherwise now; rounded down to the second."""
    observed = Observed([], [], at(last), at(last))
    found = estimate(batch, Counts(1, 1, 0, 0), observed, NOW + 0.7 if last else NOW)
    assert Estimate(Basis.FINISHED, int(expected), int(expected), int(expected)) == found


@pytest.mark.parametrize(
    ("batch", "observed", "basis"),
    [
        (BATCH, Observed([], [], None, at(95)), Basis.DECLARED),
        (BATCH, Observed([], [], None, at(69)), Basis.STALLED),
        (BATCH, Observed([], [], None, None), Basis.STALLED),
        (BATCH, Observed([40.0], [], at(65), at(65)), Basis.DECLARED),
        (Batch("b", "demo"), Observed([], [], None, None), Basis.DECLARED),
        (Batch("b", "demo", timeout_per_url=5), Observed([40.0], [], None, at(94)), Basis.STALLED),
        (Batch("b", "demo", timeout_per_url=50), Observed([], [], None, at(51)), Basis.DECLARED),
        (Batch("b", "demo", timeout_per_url=50), Observed([], [], None, at(50)), Basis.DECLARED),
        (Batch("b", "demo", timeout_per_url=50), Observed([], [], None, at(49.9)), Basis.STALLED),
    ],
)
def test_what_an_estimate_is_made_from(batch: Batch, observed: Observed, basis: Basis) -> None:
    """Stalled if nothing has changed for longer than a job may take: declared, observed, or 30 s."""
    assert basis is estimate(batch, Counts(2, 0, 0, 0), observed, NOW).basis


@pytest.mark.parametrize("counts", [Counts(3, 1, 0, 0), Counts(3, 0, 1, 0), Counts(3, 1, 1, 0)])
def test_an_ended_job_makes_an_estimate_observed(counts: Counts) -> None:
    assert Basis.OBSERVED is estimate(BATCH, counts, Observed([9.0], [], at(99), at(99)), NOW).basis


@pytest.mark.parametrize("pending", [2, 12])
def test_what_is_left_is_forecast(pending: int) -> None:
    """Running jobs have their ages, or 0 without a recorded start. The others are pending."""
    batch = Batch("b", "demo", created_at=CREATED, parallel_jobs=4, timeout_per_url=40)
    found = estimate(
        batch, Counts(pending + 3, 3, 0, 0), Observed([5.0, 6.0, 9.0], [at(80), None], at(95), at(95)), NOW
    )
    left = time_left([5.0, 6.0, 9.0], [20.0, 0.0], pending - 2, workers=4, timeout=40)
    assert Estimate(Basis.OBSERVED, *(math.ceil(NOW + seconds) for seconds in left)) == found


def test_a_sample_stands_for_all_jobs() -> None:
    """The forecast is that of the number of ended and of running jobs, not of the number in the sample."""
    batch = Batch("b", "demo", created_at=CREATED, parallel_jobs=4, timeout_per_url=40)
    counts, times = Counts(9_000, 3_000, 0, 0), ([5.0, 6.0, 9.0] * 100, [at(80), at(90)] * 100, at(99), at(99))
    found = estimate(batch, counts, Observed(*times, ran=3_000, running=2_000), NOW)
    left = time_left_from_samples(times[0], [20.0, 10.0] * 100, 4_000, ran=3_000, busy=2_000, workers=4, timeout=40)
    assert Estimate(Basis.OBSERVED, *(math.ceil(NOW + seconds) for seconds in left)) == found


def test_a_time_before_1970_is_1970() -> None:
    """Epoch seconds are never negative, even with a wrong clock."""
    ended = datetime(1960, 1, 1, tzinfo=UTC)
    assert 0 == estimate(BATCH, Counts(1, 1, 0, 0), Observed([], [], ended, ended), NOW).completion


@given(
    now=st.floats(0, 1e12),
    durations=st.lists(st.floats(-1e9, 1e9), max_size=5),
    started=st.lists(st.none() | st.datetimes(timezones=st.just(UTC)), max_size=5),
    pending=st.integers(1, 50),
)
def test_a_forecast_is_never_past(
    now: float, durations: list[float], started: list[datetime | None], pending: int
) -> None:
    """Even with wrong clocks, and always a time that RFC 3339 can write."""
    found = estimate(BATCH, Counts(pending, 0, 0, 0), Observed(durations, started, None, None), now)
    assert all(0 <= moment <= LAST_SECOND for moment in (found.completion, found.earliest, found.latest))
    assert found.completion >= min(now, LAST_SECOND)


@pytest.mark.parametrize(
    ("left", "seconds"),
    [(None, 30), (0, 1), (-5, 1), (20, 1), (20.1, 2), (1_200, 60), (10**9, 60)],
)
def test_when_to_poll_again(left: float | None, seconds: int) -> None:
    assert seconds == poll_again(left)


@pytest.mark.parametrize(
    ("basis", "seconds"), [(Basis.FINISHED, None), (Basis.STALLED, 30), (Basis.OBSERVED, 5), (Basis.DECLARED, 5)]
)
def test_when_a_poll_is_worthwhile(basis: Basis, seconds: int | None) -> None:
    """After a twentieth of the time left, whether the answer is a 200 or the 304 that follows it."""
    assert seconds == poll_after(Estimate(basis, 200, 200, 200), 100)
