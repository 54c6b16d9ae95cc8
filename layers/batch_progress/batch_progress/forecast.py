"""Forecast when the last job of a batch ends. All inputs and outputs are in seconds.

Extrapolating the elapsed time is wrong in two ways. Short jobs end first, so early means
are too low. And a rate says nothing about the last few jobs, which determine the end.
This module estimates the distribution of job durations, then simulates the rest of the
batch:

1. Fit a prior: a normal distribution of durations on a power scale. Ended jobs count as
   they are, running ones as censored. Its mean is drawn weakly towards a share of the
   timeout.
2. Estimate the durations: the product-limit estimate over ended jobs (events) and running
   ones (censored at their age). The prior weighs about as much as one ended job.
3. The time left of a running job: that estimate, conditional on the job's age.
4. Simulate the rest of the batch, first come, first served over the workers, a fixed
   number of times with fixed, stratified draws: the same input gives the same result.

Sources: step 1, Dempster, Laird and Rubin (1977); step 2, Kaplan and Meier (1958), with
the prior as in Susarla and Van Ryzin (1976); step 4, Graham (1969). Measurements and
rejected alternatives: docs/decisions/0008-forecast.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from heapq import heapify, heapreplace
from typing import Final, NamedTuple

from batch_progress.table import DEFAULT_TIMEOUT_SECONDS, DEFAULT_WORKERS


class Forecast(NamedTuple):
    """Seconds until the last job of a batch ends."""

    median: float
    """Half of such batches end before this."""
    low: float
    """One batch in ten ends before this."""
    high: float
    """One batch in ten ends after this."""


class Constants(NamedTuple):
    """Constants fitted to replays of finished batches by `benchmarks/fit_forecast.py`."""

    power: float
    """Durations to this power are roughly normal."""
    typical_share: float
    """Expected duration of a job before any is observed, as a share of the timeout."""
    typical_doubt: float
    """Uncertainty of `typical_share`, as the standard deviation of its logarithm."""
    spread: float
    """Expected coefficient of variation of durations."""
    spread_jobs: float
    """Weight of `spread`, in observed jobs."""
    prior_jobs: float
    """Weight of the fitted normal in the product-limit estimate, in ended jobs."""
    prior_width: float
    """The prior's standard deviation, as a share of the fitted one."""
    beyond: float
    """How much longer than the oldest running job a job may take, as a share of that job's age."""
    beyond_jobs: float
    """Weight of `beyond`, in ended jobs."""
    gap: float
    """Expected pause of a worker between two jobs, in median job durations, times `gap_workers`."""
    gap_workers: float
    """Weight of that expectation, in observed workers. Idle ones among these make the estimated pause longer."""
    doubt: float
    """General uncertainty, as the standard deviation of the logarithm of the time left."""
    doubt_mean: float
    """Factor on the relative standard error of the mean job, which is added to `doubt`."""
    doubt_later: float
    """Added upwards only, while most observed jobs are still running: their full durations are not known."""


FITTED: Final = Constants(
    power=0.56,
    typical_share=0.14,
    typical_doubt=0.4,
    spread=0.69,
    spread_jobs=0.78,
    prior_jobs=0.93,
    prior_width=0.69,
    beyond=0.13,
    beyond_jobs=0.24,
    gap=0.3,
    gap_workers=17.0,
    doubt=0.052,
    doubt_mean=1.0,
    doubt_later=0.43,
)

SHORTEST: Final = 1e-3  # seconds; also the duration of a job that ended before it started
LONGEST: Final = 1e8  # seconds, three years

DRAWS: Final = 31  # simulations of the rest of a batch; a prime, see _draws
QUANTILES: Final = 256  # of the distribution of durations
SAMPLED: Final = 256  # at most this many durations of ended jobs are used
PLAYED: Final = 64  # running jobs, and waiting ones, simulated one by one; sampled or pooled beyond
ROUNDS: Final = 6  # of expectation maximisation
PRIOR_POINTS: Final = 12  # equally likely durations that represent the prior
BEYOND: Final = (0.3, 1.0, 3.0)  # events beyond the oldest running job, in units of `beyond`
WIDEST: Final = 2.0  # the largest coefficient of variation; running jobs alone would not bound it
FAR_OUT: Final = 6.0  # standard deviations from the mean; further out, an approximation is used
SQRT2: Final = math.sqrt(2)
NORMAL_PEAK: Final = math.sqrt(2 / math.pi)  # twice the standard normal's density at 0
GOLDEN: Final = (math.sqrt(5) - 1) / 2


def time_left(
    finished: Sequence[float],
    running: Sequence[float],
    pending: int,
    *,
    workers: int | None,
    timeout: float | None,
) -> Forecast:
    """Forecast when the last job ends, with an interval that covers 80% of batches.

    Pure and deterministic; the order of the jobs does not matter. More pending jobs never
    make the forecast earlier. Impossible numbers are clamped to the nearest possible ones.

    Args:
        finished: Duration of each ended job, in seconds. A negative one (clock skew)
            counts as zero.
        running: Age of each running job, in seconds. A negative one counts as zero.
        pending: The number of jobs that have not started.
        workers: The number of jobs that the batch runs at once, `None` if not declared:
            it is then estimated from the running jobs. If more jobs than this are
            running, their number is used.
        timeout: Seconds after which a job is stopped, `None` if not declared: durations
            are then not limited, and the platform's default serves only as the prior.

    Returns:
        Seconds from now, never negative, `low <= median <= high`; three zeros if no job
        is left.
    """
    return time_left_from_samples(
        finished, running, pending, ran=len(finished), busy=len(running), workers=workers, timeout=timeout
    )


def time_left_from_samples(
    finished: Sequence[float],
    running: Sequence[float],
    pending: int,
    *,
    ran: int,
    busy: int,
    workers: int | None,
    timeout: float | None,
) -> Forecast:
    """Forecast when the last job ends, from even samples of the ended jobs and of the running ones.

    `finished` and `running` are samples of `ran` and `busy` jobs. The rest is as in `time_left`.
    """
    if not running and pending <= 0:
        return Forecast(0.0, 0.0, 0.0)
    c = FITTED
    limit = min(max(timeout, SHORTEST), LONGEST) if timeout and timeout > 0 else None
    ended, ages = _in_order(finished), _in_order(running)
    seen, known, busy = len(ended), max(ran, len(ended)), max(busy, len(ages))
    slots = max(workers, busy, 1) if workers else _slots(busy)
    most = limit - ages[0] if limit and pending <= 0 else math.inf
    # The middle of each of SAMPLED equal parts; of running jobs the last of each of PLAYED, to include the oldest job.
    if seen > SAMPLED:
        ended = [ended[(2 * i + 1) * seen // (2 * SAMPLED)] for i in range(SAMPLED)]
    if len(ages) > PLAYED:
        ages = [ages[(i + 1) * len(ages) // PLAYED - 1] for i in range(PLAYED)]

    centre, width = _prior(ended, ages, limit or DEFAULT_TIMEOUT_SECONDS)
    durations = _durations(ended, known, ages, busy, (centre, width))
    if limit:
        durations = [min(seconds, limit) for seconds in durations]
    idle = slots - busy if known or busy else 0
    mean, middle = sum(durations) / QUANTILES, durations[QUANTILES // 2]
    gap = (c.gap * middle + idle * mean) / (c.gap_workers + slots)
    one_in = busy / len(ages) if ages else 1.0  # running jobs for each simulated one
    ends = _ends(durations, ages, (slots - busy) / one_in, max(pending, 0) / one_in, gap)

    doubt = math.hypot(c.doubt, c.doubt_mean * width / (centre * c.power) / math.sqrt(seen + 1))
    later = math.hypot(doubt, c.doubt_later * math.log1p(busy) * busy / (busy + known + 1))
    return _interval(ends, doubt, later, most)


def _in_order(seconds: Sequence[float]) -> list[float]:
    """Sort durations, with impossible ones (negative, NaN, infinite) clamped to the bounds."""
    return sorted([s if SHORTEST < s < LONGEST else LONGEST if s > 1 else SHORTEST for s in seconds])


def _slots(busy: int) -> int:
    """Estimate an undeclared number of workers from the number of running jobs.

    A worker between two jobs is not visible, so the number is rounded up: from one less
    than the platform's default to the default, otherwise to the next multiple of five if
    that adds at most a fifth, since people choose round numbers.
    """
    if busy == DEFAULT_WORKERS - 1:
        return DEFAULT_WORKERS
    rounded = -(-busy // 5) * 5
    return rounded if busy < rounded <= busy * 6 / 5 else max(busy, 1)


def _prior(ended: list[float], ages: list[float], timeout: float) -> tuple[float, float]:
    """Fit a normal to `seconds ** power`: mean and standard deviation on that scale.

    Expectation maximisation: a running job counts with its expected duration, given its
    age. Without any job, the mean is the one expected from the timeout.
    """
    c = FITTED
    expected = (c.typical_share * timeout) ** c.power
    seen = [seconds**c.power for seconds in ended]
    floors = [age**c.power for age in ages]
    known, known_squares = sum(seen), math.sumprod(seen, seen)
    count = len(seen) + len(floors)
    centre = known / len(seen) if seen else expected
    variance = (c.spread * c.power * centre) ** 2
    for _ in range(ROUNDS):
        width = math.sqrt(variance)
        total, squares = known, known_squares
        for floor in floors:
            z = (floor - centre) / width
            # Inverse Mills ratio: the mean of a standard normal, given that it exceeds z.
            hazard = z + 1 / z if z > FAR_OUT else NORMAL_PEAK * math.exp(-z * z / 2) / math.erfc(z / SQRT2)
            mean = centre + width * hazard
            total += mean
            squares += centre * mean + variance + width * hazard * floor
        pull = variance / (centre * c.power * c.typical_doubt) ** 2
        centre = (total + pull * expected) / (count + pull)
        squared_errors = squares - 2 * centre * total + count * centre * centre
        prior_variance = (c.spread * c.power * centre) ** 2
        variance = (c.spread_jobs * prior_variance + max(squared_errors, 0.0)) / (c.spread_jobs + count)
        variance = min(variance, (WIDEST * c.power * centre) ** 2)
    return centre, math.sqrt(variance)


def _durations(ended: list[float], known: int, ages: list[float], busy: int, prior: tuple[float, float]) -> list[float]:
    """Estimate the distribution of durations: `QUANTILES` equally likely seconds, in order.

    The product-limit estimate: at each observed duration, the share of the jobs at risk
    that end there. `ended` and `ages` are samples of `known` and `busy` jobs.
    """
    c = FITTED
    centre, width = prior
    each = -known / len(ended) if ended else 0.0
    events = [(seconds, each) for seconds in ended]
    for score in _scores(PRIOR_POINTS):
        point = max(centre + c.prior_width * width * score, centre / 10)
        events.append((point ** (1 / c.power), -c.prior_jobs / PRIOR_POINTS))
    if ages:
        events += [(ages[-1] * (1 + c.beyond * far), -c.beyond_jobs / len(BEYOND)) for far in BEYOND]
        each = busy / len(ages)
        events += [(age, each) for age in ages]  # censored: at a tie they sort after events
    events.sort()
    at_risk = math.fsum([abs(weight) for _, weight in events])
    surviving = 1.0
    durations: list[float] = []
    last = 0.0
    for seconds, weight in events:
        if weight < 0:
            surviving *= 1 + weight / at_risk if at_risk > -weight else 0.0
            durations += [seconds] * (int(QUANTILES * (1 - surviving) + 0.5) - len(durations))
            last = seconds
            at_risk += weight
        else:
            at_risk -= weight
    return durations + [last] * (QUANTILES - len(durations))


def _ends(durations: list[float], ages: list[float], free: float, waiting: float, gap: float) -> list[float]:
    """Simulate the rest of the batch, once for each draw: seconds until the last job ends.

    `free` workers have no job, `waiting` jobs have not started. Before each of these jobs
    its worker pauses for `gap`.
    """
    takes = [seconds + gap for seconds in durations]
    bulk = max(waiting - PLAYED, 0.0) * sum(takes) / QUANTILES
    alone = PLAYED + min(math.ceil(waiting), PLAYED)
    # For each running job: the index of the first duration longer than its age, the number of durations from there on,
    # and its age, at most that duration.
    older = [min(bisect_right(durations, age), QUANTILES - 1) for age in ages]
    rests = [(at, QUANTILES - at, min(age, durations[at])) for at, age in zip(older, ages, strict=True)]
    ends = []
    for picks in _draws():
        left = [durations[at + pick * n // QUANTILES] - age for (at, n, age), pick in zip(rests, picks, strict=False)]
        ends.append(_last_end(left, free, bulk, takes, picks[PLAYED:alone]))
    return ends


def _interval(ends: list[float], doubt: float, later: float, most: float) -> Forecast:
    """Summarise the draws: the mean of the middle fifth, and the middle 80%, widened by the uncertainty.

    `doubt` (downwards) and `later` (upwards) are standard deviations of the logarithm of
    the time left.
    """
    spread = [
        end * math.exp(score * (later if score > 0 else doubt)) for end, score in zip(ends, _scores(DRAWS), strict=True)
    ]
    ends, spread = sorted(ends), sorted(spread)
    middle = ends[2 * DRAWS // 5 : 3 * DRAWS // 5 + 1]
    median = max(min(sum(middle) / len(middle), most), 0.0)
    low, high = spread[DRAWS // 10], spread[-1 - DRAWS // 10]
    return Forecast(median, min(low, median), max(min(high, most), median))


def _last_end(left: list[float], free: float, bulk: float, takes: list[float], picks: Sequence[int]) -> float:
    """Simulate jobs first come, first served: seconds until the last worker is done.

    One worker becomes free after each of the `left` seconds, and `free` more are free now.
    The jobs take the `picks` of `takes`. Before them, `bulk` seconds of work are spread
    over the workers that become free first, so that they all finish it at the same time:
    much faster than job by job.
    """
    if bulk:
        left.sort()
        work, slots = bulk, free
        for seconds in left:
            if work <= seconds * slots:
                break
            work += seconds
            slots += 1
        level = work / slots
        # All workers that are free at `level` take their first jobs then: no heap is needed for these.
        together = bisect_right(left, level)
        first = together + int(free)
        left[:together] = [level + takes[pick] for pick in picks[:first]]
        picks = picks[first:]
    else:
        left += [0.0] * min(int(free), len(picks))
    heapify(left)
    for pick in picks:
        heapreplace(left, left[0] + takes[pick])
    return max(left)


@cache
def _draws() -> list[tuple[int, ...]]:
    """Make the fixed draws: for each draw, the index of one quantile per simulated job.

    Each job is stratified (McKay, Beckman and Conover 1979): over all draws it gets each
    part of the distribution once. The order comes from inverses modulo a prime
    (Eichenauer and Lehn 1986), so that jobs look independent of each other.
    """
    inverse = [pow(i, DRAWS - 2, DRAWS) for i in range(DRAWS)]
    jobs = []
    for job in range(2 * PLAYED):
        times, turn, shift = job % (DRAWS - 1) + 1, 3 * job * job + job // DRAWS, job * GOLDEN % 1
        parts = [(times * inverse[(draw + turn) % DRAWS] + job) % DRAWS for draw in range(DRAWS)]
        jobs.append([int((part + shift) * QUANTILES / DRAWS) for part in parts])
    return list(zip(*jobs, strict=True))


@cache
def _scores(count: int) -> list[float]:
    """Divide a standard normal into `count` equally likely parts; return the median of each, by Newton's method."""
    scores = []
    for i in range(count):
        score = 0.0
        for _ in range(20):
            below = 0.5 * math.erfc(-score / SQRT2)
            score -= (below - (i + 0.5) / count) * 2 / NORMAL_PEAK / math.exp(-score * score / 2)
        scores.append(score)
    return scores
