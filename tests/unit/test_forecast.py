"""The forecast: its invariants, and its use of what is observed."""

import heapq
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_progress.forecast import Forecast, time_left, time_left_from_samples
from batch_progress.table import DEFAULT_TIMEOUT_SECONDS

SECONDS = st.floats(min_value=0, max_value=1e5)
ANYTHING = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, -math.inf, math.inf, math.nan, 1e308, 5e-324]))
JOBS = st.lists(SECONDS, max_size=40)
WORKERS = st.one_of(st.none(), st.integers(1, 60), st.sampled_from([0, -1, 10**9]))
TIMEOUT = st.one_of(
    st.none(), st.floats(min_value=0.1, max_value=1e4), st.sampled_from([0.0, -1.0, math.inf, math.nan])
)


def is_sound(made: Forecast) -> bool:
    """Tell whether a forecast is finite, not negative, and in order."""
    return all(math.isfinite(seconds) for seconds in made) and 0 <= made.low <= made.median <= made.high


def durations(count: int, seed: int = 1, spread: float = 0.5) -> list[float]:
    """Make durations around five seconds, always the same ones."""
    rng = random.Random(seed)  # noqa: S311  # jobs, not secrets
    return [rng.lognormvariate(math.log(5), spread) for _ in range(count)]


def replay(jobs: list[float], workers: int, share: float) -> tuple[list[float], list[float], int, float]:
    """Simulate the jobs first come, first served.

    Return, at `share` of the run: durations of ended jobs, ages of running jobs, number of pending jobs, seconds left.
    """
    free = [0.0] * workers
    spans = []
    for seconds in jobs:
        start = heapq.heappop(free)
        spans.append((start, start + seconds))
        heapq.heappush(free, start + seconds)
    end = max(free)
    now = share * end
    finished = [stop - start for start, stop in spans if stop <= now]
    running = [now - start for start, stop in spans if start <= now < stop]
    return finished, running, sum(start > now for start, _ in spans), end - now


@settings(max_examples=150, deadline=None)
@given(JOBS, JOBS, st.integers(0, 3000), WORKERS, TIMEOUT)
def test_is_finite_never_negative_and_in_order(
    finished: list[float], running: list[float], pending: int, workers: int | None, timeout: float | None
) -> None:
    """Never NaN, infinite or negative; low <= median <= high."""
    made = time_left(finished, running, pending, workers=workers, timeout=timeout)
    assert is_sound(made)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANYTHING, max_size=20), st.lists(ANYTHING, max_size=20), st.integers(-5, 100), WORKERS, TIMEOUT)
def test_any_clock_makes_a_finite_forecast(
    finished: list[float], running: list[float], pending: int, workers: int | None, timeout: float | None
) -> None:
    """Ages and durations may be negative, NaN or infinite; the forecast never is."""
    made = time_left(finished, running, pending, workers=workers, timeout=timeout)
    assert is_sound(made)


@settings(max_examples=150, deadline=None)
@given(
    JOBS,
    JOBS,
    st.one_of(st.integers(0, 200), st.integers(0, 5000)),
    st.one_of(st.just(1), st.integers(1, 300)),
    WORKERS,
    TIMEOUT,
)
def test_more_pending_never_means_sooner(
    finished: list[float], running: list[float], pending: int, more: int, workers: int | None, timeout: float | None
) -> None:
    """Median, low and high never fall if only pending jobs are added."""
    fewer = time_left(finished, running, pending, workers=workers, timeout=timeout)
    added = time_left(finished, running, pending + more, workers=workers, timeout=timeout)
    assert all(before <= after for before, after in zip(fewer, added, strict=True))


def test_more_pending_never_means_sooner_one_by_one() -> None:
    """The same across the limit up to which jobs are simulated one by one."""
    finished, running = durations(40), durations(100, seed=2)
    made = [time_left(finished, running, pending, workers=120, timeout=60) for pending in range(300)]
    for index in range(3):
        assert sorted(one[index] for one in made) == [one[index] for one in made]


@settings(max_examples=60, deadline=None)
@given(JOBS, JOBS, st.integers(0, 100), WORKERS, TIMEOUT, st.randoms(use_true_random=False))
def test_same_jobs_make_the_same_forecast_in_any_order(
    finished: list[float],
    running: list[float],
    pending: int,
    workers: int | None,
    timeout: float | None,
    rng: random.Random,
) -> None:
    """It is deterministic and does not depend on the order of jobs."""
    made = time_left(finished, running, pending, workers=workers, timeout=timeout)
    shuffled = rng.sample(finished, len(finished)), rng.sample(running, len(running))
    assert made == time_left(*shuffled, pending, workers=workers, timeout=timeout)


@settings(max_examples=100, deadline=None)
@given(JOBS, st.lists(SECONDS, min_size=1, max_size=40), st.floats(min_value=0.1, max_value=1e4))
def test_timeout_caps_what_is_left(finished: list[float], running: list[float], timeout: float) -> None:
    """Without pending jobs the batch ends within the timeout."""
    made = time_left(finished, running, 0, workers=None, timeout=timeout)
    assert made.high <= max(timeout - max(min(running), 0.001), 0.0)


def test_a_single_waiting_job_takes_time() -> None:
    """It does so without running jobs, with and without ended ones."""
    assert time_left([], [], 1, workers=None, timeout=None).low > 0
    assert time_left([5.0] * 10, [], 1, workers=3, timeout=30).low > 1


def test_nothing_left_takes_no_time() -> None:
    """Without running and pending jobs all three values are 0."""
    assert Forecast(0.0, 0.0, 0.0) == time_left([], [], 0, workers=None, timeout=None)
    assert Forecast(0.0, 0.0, 0.0) == time_left([5.0] * 10, [], 0, workers=3, timeout=30)


@pytest.mark.parametrize(
    ("ended", "running", "pending"), [(100_000, 0, 1), (50_000, 1_000, 49_000), (0, 100_000, 0), (0, 0, 100_000)]
)
def test_a_hundred_thousand_jobs_are_no_trouble(ended: int, running: int, pending: int) -> None:
    """The forecast works for any number of jobs up to 100,000."""
    made = time_left(durations(ended), durations(running, seed=2), pending, workers=25, timeout=60)
    assert is_sound(made)


def test_very_many_workers_leave_the_longest_job() -> None:
    """With a worker per job the batch takes as long as its longest job."""
    made = time_left([5.0] * 500, [], 200, workers=10**9, timeout=60)
    assert 4 < made.median < 15


def test_older_running_jobs_mean_later() -> None:
    """Ages are the first evidence: jobs that have run for longer take longer."""
    finished = [2.0, 3.0, 4.0]
    young = time_left(finished, [1.0] * 5, 30, workers=5, timeout=60)
    old = time_left(finished, [20.0] * 5, 30, workers=5, timeout=60)
    assert young.median * 1.5 < old.median
    assert young.high < old.high


def test_running_jobs_count_for_more_than_the_short_ones_that_ended_first() -> None:
    """Two short jobs of twenty do not make the forecast short."""
    finished, ages = [0.5, 0.6], [8.0] * 18
    made = time_left(finished, ages, 80, workers=20, timeout=60)
    work_of_the_quick = 0.55 * 80 / 20
    assert made.median > 5 * work_of_the_quick


def test_before_anything_ended_the_timeout_is_the_prior() -> None:
    """A longer timeout means longer jobs. The default timeout applies if none is declared."""
    short = time_left([], [0.1] * 3, 20, workers=3, timeout=10)
    long = time_left([], [0.1] * 3, 20, workers=3, timeout=120)
    assert short.median < long.median
    undeclared = time_left([], [], 20, workers=3, timeout=None)
    assert time_left([], [], 20, workers=3, timeout=DEFAULT_TIMEOUT_SECONDS).median == pytest.approx(
        undeclared.median, rel=0.2
    )


def test_before_anything_ended_parallelism_shares_out_the_work() -> None:
    """Ten workers are several times as fast as one."""
    one = time_left([], [], 50, workers=1, timeout=30)
    ten = time_left([], [], 50, workers=10, timeout=30)
    assert ten.median < one.median / 4


def test_undeclared_workers_are_as_many_as_are_seen() -> None:
    """Without declared workers the number of running jobs is used."""
    finished = durations(20)
    seen = time_left(finished, [2.0] * 10, 100, workers=None, timeout=60)
    assert time_left(finished, [2.0] * 10, 100, workers=10, timeout=60) == seen


def test_more_running_than_declared_wins() -> None:
    """Ten running jobs override a declaration of three workers."""
    finished = durations(20)
    made = time_left(finished, [2.0] * 10, 100, workers=3, timeout=60)
    assert time_left(finished, [2.0] * 10, 100, workers=10, timeout=60) == made


@pytest.mark.parametrize(
    ("finished", "running", "pending", "workers", "timeout", "expected"),
    [
        ([], [], 20, None, None, (87.88605, 40.25659, 200.9816)),
        ([], [], 90, 1, 60, (804.0518, 350.2916, 1898.261)),
        ([], [0.5, 4, 9], 12, None, 120, (93.37048, 47.30284, 227.886)),
        ([5] * 40, [25], 0, 3, 60, (3.25, 0.9207703, 10.32646)),
        ([1] * 9, [80], 2, None, None, (18.60715, 5.566483, 71.72857)),
        (durations(30), durations(7, seed=2), 25, 10, 45, (29.26851, 24.42503, 37.70556)),
        (durations(300), durations(100, seed=2), 400, 120, 30, (41.13765, 36.84786, 80.04051)),
        ([2, 2.1, 2.2], [], 1000, 4, 8, (620.6965, 504.0321, 763.8574)),
        ([-1, 3, 1e9], [-2, 6], 5, 2, 10, (24.57114, 6.061215, 89.57725)),
        ([0.2, 40, 7], [29.5], 0, 1, 30, (0.5, 0.1486715, 0.5)),
        ([5, 6], durations(20), 30, 22, 60, (32.59202, 23.08371, 132.3058)),
        ([0.001] * 3 + [500], [], 6, 2, None, (525.0731, 47.55568, 1373.733)),
        (durations(20), [], 3, 12, 60, (12.04889, 8.244147, 13.61843)),
    ],
)
def test_the_arithmetic_is_the_one_that_was_measured(
    finished: list[float],
    running: list[float],
    pending: int,
    workers: int | None,
    timeout: float | None,
    expected: tuple[float, float, float],
) -> None:
    """`make bench-forecast` measures the forecast's error. Run it again if you change a number here."""
    made = time_left(finished, running, pending, workers=workers, timeout=timeout)
    assert expected == pytest.approx(tuple(made), rel=1e-6)


@pytest.mark.parametrize(
    ("seen", "taken_for"), [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6), (9, 10), (10, 10), (12, 12), (13, 15), (18, 20)]
)
def test_workers_seen_are_rounded_as_people_choose_them(seen: int, taken_for: int) -> None:
    """They are rounded up to a multiple of 5 if that adds at most 20%: some workers are between two jobs."""
    finished = durations(20)
    made = time_left(finished, [2.0] * seen, 100, workers=None, timeout=60)
    assert time_left(finished, [2.0] * seen, 100, workers=taken_for, timeout=60) == made


def test_a_clock_behind_counts_as_just_begun() -> None:
    """A start in the future is an age of 0. An end before the start is a duration of 0."""
    made = time_left([5.0] * 10, [-3.0], 5, workers=1, timeout=30)
    assert time_left([5.0] * 10, [0.0], 5, workers=1, timeout=30) == made
    made = time_left([5.0] * 10 + [-2.0], [1.0], 5, workers=1, timeout=30)
    assert time_left([5.0] * 10 + [0.0], [1.0], 5, workers=1, timeout=30) == made


@pytest.mark.parametrize("workers", [1, 3, 10])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_a_steady_batch_settles_within_a_tenth_after_a_fifth(workers: int, share: float) -> None:
    """With jobs of similar length the error is below 10% of the run after 20% of it."""
    jobs = durations(150, spread=0.15)
    finished, running, pending, left = replay(jobs, workers, share)
    made = time_left(finished, running, pending, workers=workers, timeout=60)
    assert made.median == pytest.approx(left, abs=0.1 * left / (1 - share))


@pytest.mark.parametrize("workers", [1, 3, 10])
def test_a_four_minute_run_is_never_forecast_as_hours(workers: int) -> None:
    """At any time the forecast is less than ten times too long."""
    rng = random.Random(workers)  # noqa: S311  # jobs, not secrets
    jobs = [rng.lognormvariate(1, 0.7) for _ in range(60 * workers)]
    for percent in range(1, 100):
        finished, running, pending, left = replay(jobs, workers, percent / 100)
        made = time_left(finished, running, pending, workers=workers, timeout=60)
        assert made.median < 10 * left + 5


def test_the_interval_narrows_as_jobs_end() -> None:
    """Relative to the run, late intervals are much narrower than early ones."""
    jobs = durations(200)
    widths = []
    for share in (0.05, 0.3, 0.8):
        finished, running, pending, _ = replay(jobs, 5, share)
        made = time_left(finished, running, pending, workers=5, timeout=60)
        widths.append(made.high - made.low)
    assert sorted(widths, reverse=True) == widths
    assert widths[-1] < widths[0] / 3


def test_the_interval_holds_for_about_four_batches_in_five() -> None:
    """Over many kinds of batches it is neither too narrow nor too wide."""
    held = []
    for seed in range(120):
        rng = random.Random(seed)  # noqa: S311  # jobs, not secrets
        spread, workers = rng.uniform(0.1, 1.0), rng.choice((1, 3, 10))
        jobs = [min(seconds, 60.0) for seconds in durations(rng.randint(30, 200), seed=seed, spread=spread)]
        finished, running, pending, left = replay(jobs, workers, rng.uniform(0.1, 0.9))
        made = time_left(finished, running, pending, workers=workers, timeout=60)
        held.append(made.low <= left <= made.high)
    assert sum(held) / len(held) == pytest.approx(0.8, abs=0.1)


def test_a_straggler_may_take_as_long_again() -> None:
    """A job that runs long after the others may take as long again, and does not end at once."""
    made = time_left([5.0] * 40, [25.0], 0, workers=3, timeout=60)
    assert made.median > 0.5
    assert made.high > 5


@settings(max_examples=50, deadline=None)
@given(JOBS, JOBS, st.integers(-5, 45), st.integers(-5, 45), st.integers(0, 200))
def test_a_sample_stands_for_at_least_its_own_jobs(
    finished: list[float], running: list[float], ran: int, busy: int, pending: int
) -> None:
    """Smaller numbers are ignored."""
    ran, busy = min(ran, len(finished)), min(busy, len(running))
    made = time_left_from_samples(finished, running, pending, ran=ran, busy=busy, workers=4, timeout=60)
    assert time_left(finished, running, pending, workers=4, timeout=60) == made


@pytest.mark.parametrize(("pending", "workers"), [(0, None), (1_000, None), (30_000, 8_000), (30_000, 9_000)])
def test_samples_make_the_forecast_of_all_jobs(pending: int, workers: int | None) -> None:
    """Within 5%, and the range at most a fifth wider or narrower: every eighth ended job, every 40th running one."""
    finished, running = durations(16_000), sorted(durations(8_000, seed=2), reverse=True)
    full = time_left(finished, running, pending, workers=workers, timeout=60)
    made = time_left_from_samples(
        finished[::8], running[::40], pending, ran=16_000, busy=8_000, workers=workers, timeout=60
    )
    assert full.median == pytest.approx(made.median, rel=0.05)
    assert full.high - full.low == pytest.approx(made.high - made.low, rel=0.2)


def test_a_small_sample_makes_a_wide_range() -> None:
    """However many jobs it stands for: its mean is uncertain."""
    few, many = durations(30, spread=1.0), durations(30, spread=1.0) * 100
    full = time_left(many, [1.0], 5_000, workers=1, timeout=60)
    made = time_left_from_samples(few, [1.0], 5_000, ran=3_000, busy=1, workers=1, timeout=60)
    assert full.median == pytest.approx(made.median, rel=0.05)
    assert made.high - made.low > 1.5 * (full.high - full.low)
