"""When a batch will have ended: seconds in, seconds out.

Elapsed-time extrapolation is wrong twice. Short jobs end first, so means taken early
are too low; and a rate says nothing about the last few jobs, on which the end depends.
So this module estimates how long one job takes, and plays the rest of the batch:

1. A prior for the durations: normal on a power scale, its place drawn gently towards a
   share of the timeout, fitted to ended jobs and, as censored, to the running ones.
2. The durations themselves: the product-limit estimate over ended jobs (events) and
   running ones (censored at their age), with the prior as a fraction of a job's weight.
3. What is left of a running job: that estimate, given that the job is as old as it is.
4. The rest of the batch: first come, first served over the workers, a fixed number of
   times with fixed, evenly spread draws. Same input, same answer.

Sources: Kaplan and Meier (1958) for step 2, with Susarla and Van Ryzin (1976) for the
prior in it; Dempster, Laird and Rubin (1977) for step 1; Graham (1969) for step 4. What
was measured, and what was tried and dropped: docs/decisions/0008-forecast.md.
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
    """Seconds until the last job of a batch has ended."""

    median: float
    """As likely too early as too late."""
    low: float
    """One batch in ten ends before this."""
    high: float
    """One batch in ten ends after this."""


class Constants(NamedTuple):
    """What was learnt from replays of finished batches; `benchmarks/fit_forecast.py` fits it."""

    power: float
    """Durations to this power are roughly normal."""
    typical_share: float
    """The job expected before any has been seen, as a share of the timeout."""
    typical_doubt: float
    """How far off that may be, as the standard deviation of its logarithm."""
    spread: float
    """The coefficient of variation expected of durations."""
    spread_jobs: float
    """... and how many ended jobs that expectation is worth."""
    prior_jobs: float
    """How many ended jobs the fitted normal is worth in the product-limit estimate."""
    prior_width: float
    """The prior's standard deviation, as a share of the fitted one."""
    beyond: float
    """How much longer than the oldest running job a job may take, as a share of its age."""
    beyond_jobs: float
    """... and how many ended jobs that is worth."""
    gap: float
    """A worker's pause between two jobs, in median jobs times `gap_workers`."""
    gap_workers: float
    """... that is how many workers seen the expectation is worth; idle ones among them mean longer pauses."""
    doubt: float
    """How far off all of this may be, as the standard deviation of the logarithm of what is left."""
    doubt_mean: float
    """... and what the standard error of the mean job adds to it, as a share of that."""
    doubt_later: float
    """... and what is added upwards while most jobs are still running, and none has shown how long they get."""


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

SHORTEST: Final = 1e-3  # seconds; also what a job gets that ended before it started
LONGEST: Final = 1e8  # seconds, three years

DRAWS: Final = 31  # how often the rest of a batch is played; a prime, see _draws
QUANTILES: Final = 256  # how finely the distribution of durations is kept
SAMPLED: Final = 256  # durations looked at, of however many
PLAYED: Final = 64  # running jobs, and waiting ones, played one by one; the rest is a mean
ROUNDS: Final = 6  # of expectation maximisation
PRIOR_POINTS: Final = 12  # equally likely durations that stand for the prior
BEYOND: Final = (0.3, 1.0, 3.0)  # how far beyond the oldest running job, in `beyond`
WIDEST: Final = 2.0  # the largest coefficient of variation believed; ages alone would set no bound
FAR_OUT: Final = 6.0  # widths from the centre, where the normal's tail underflows
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

    Pure and deterministic; the order of the jobs doesn't matter. More pending jobs never
    make it sooner. Impossible numbers are taken for the nearest possible ones.

    Args:
        finished: Seconds that each ended job took. Negative (clock skew) counts as none.
        running: Seconds that each running job has been running for. The same holds.
        pending: How many jobs have not started.
        workers: How many jobs the batch runs at once. None where it declares none: as
            many as are running. More running than declared wins.
        timeout: Seconds after which a job is cut off. None where none is declared: jobs
            may take any time, and are expected to be as long as the platform's are.

    Returns:
        Seconds from now, never negative, `low <= median <= high`; three zeros where
        nothing is left.
    """
    if not running and pending <= 0:
        return Forecast(0.0, 0.0, 0.0)
    c = FITTED
    limit = min(max(timeout, SHORTEST), LONGEST) if timeout and timeout > 0 else None
    ended, ages = _in_order(finished), _in_order(running)
    known, busy = len(ended), len(ages)
    slots = max(workers, busy, 1) if workers else _slots(busy)
    most = limit - ages[0] if limit and pending <= 0 else math.inf
    if known > SAMPLED:  # the middle of each of so many parts
        ended = [ended[(2 * i + 1) * known // (2 * SAMPLED)] for i in range(SAMPLED)]
    if busy > PLAYED:  # the end of each part, so that the oldest is among them
        ages = [ages[(i + 1) * busy // PLAYED - 1] for i in range(PLAYED)]

    centre, width = _prior(ended, ages, limit or DEFAULT_TIMEOUT_SECONDS)
    durations = _durations(ended, known, ages, busy, (centre, width))
    if limit:
        durations = [min(seconds, limit) for seconds in durations]
    idle = slots - busy if known or busy else 0
    mean, middle = sum(durations) / QUANTILES, durations[QUANTILES // 2]
    gap = (c.gap * middle + idle * mean) / (c.gap_workers + slots)
    one_in = busy / len(ages) if ages else 1.0  # jobs that one of those played stands for
    ends = _ends(durations, ages, (slots - busy) / one_in, max(pending, 0) / one_in, gap)

    doubt = math.hypot(c.doubt, c.doubt_mean * width / (centre * c.power) / math.sqrt(known + 1))
    later = math.hypot(doubt, c.doubt_later * math.log1p(busy) * busy / (busy + known + 1))
    return _interval(ends, doubt, later, most)


def _in_order(seconds: Sequence[float]) -> list[float]:
    """Sort, and bring what no clock can show (negative, NaN, infinite) within bounds."""
    return sorted([s if SHORTEST < s < LONGEST else LONGEST if s > 1 else SHORTEST for s in seconds])


def _slots(busy: int) -> int:
    """Guess how many workers a batch has that declares none, from how many are at work.

    A look finds some of them between two jobs. One short of the platform's default is the
    default, and people choose round numbers: the next multiple of five, if within a fifth.
    """
    if busy == DEFAULT_WORKERS - 1:
        return DEFAULT_WORKERS
    rounded = -(-busy // 5) * 5
    return rounded if busy < rounded <= busy * 6 / 5 else max(busy, 1)


def _prior(ended: list[float], ages: list[float], timeout: float) -> tuple[float, float]:
    """Fit a normal to `seconds ** power`: mean and standard deviation on that scale.

    Expectation maximisation: a running job counts as what it may be expected to take
    beyond its age. Nothing seen at all is the expectation from the timeout.
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
            # Mills' ratio: how far beyond its floor, in widths, a normal may be expected.
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
    """Estimate how long jobs take, as so many equally likely seconds in order.

    The product-limit estimate: at each duration that is seen, the share of the jobs still
    at risk that end there. `ended` and `ages` stand for `known` and `busy` jobs.
    """
    c = FITTED
    centre, width = prior
    events = [(seconds, -known / len(ended)) for seconds in ended]
    for score in _scores(PRIOR_POINTS):
        point = max(centre + c.prior_width * width * score, centre / 10)
        events.append((point ** (1 / c.power), -c.prior_jobs / PRIOR_POINTS))
    if ages:
        events += [(ages[-1] * (1 + c.beyond * far), -c.beyond_jobs / len(BEYOND)) for far in BEYOND]
        events += [(age, busy / len(ages)) for age in ages]  # censored: at a tie they sort after events
    events.sort()
    at_risk = math.fsum([abs(weight) for _, weight in events])
    surviving = 1.0
    durations: list[float] = []
    last = 0.0
    for seconds, weight in events:
        if weight < 0:
            surviving *= max(1 + weight / at_risk, 0.0) if at_risk > 0 else 0.0
            durations += [seconds] * (int(QUANTILES * (1 - surviving) + 0.5) - len(durations))
            last = seconds
        at_risk -= abs(weight)
    return durations + [last] * (QUANTILES - len(durations))


def _ends(durations: list[float], ages: list[float], free: float, waiting: float, gap: float) -> list[float]:
    """Play the rest of the batch, once for each draw: seconds until the last job ends.

    `free` workers have no job, `waiting` jobs have not begun; each pauses a worker for `gap`.
    """
    takes = [seconds + gap for seconds in durations]
    bulk = max(waiting - PLAYED, 0.0) * sum(takes) / QUANTILES
    alone = PLAYED + min(math.ceil(waiting), PLAYED)
    # Where in `durations` those longer than each running job begin, and how many they are.
    older = [min(bisect_right(durations, age), QUANTILES - 1) for age in ages]
    rests = [(at, QUANTILES - at, min(age, durations[at])) for at, age in zip(older, ages, strict=True)]
    ends = []
    for picks in _draws():
        left = [durations[at + pick * n // QUANTILES] - age for (at, n, age), pick in zip(rests, picks, strict=False)]
        ends.append(_last_end(left, free, bulk, [takes[pick] for pick in picks[PLAYED:alone]]))
    return ends


def _interval(ends: list[float], doubt: float, later: float, most: float) -> Forecast:
    """Sum up the draws: the middle of them, and the middle 80% spread by what they can't know.

    `doubt` and, upwards, `later` are standard deviations of the logarithm of what is left.
    """
    spread = [
        end * math.exp(score * (later if score > 0 else doubt)) for end, score in zip(ends, _scores(DRAWS), strict=True)
    ]
    ends, spread = sorted(ends), sorted(spread)
    middle = ends[2 * DRAWS // 5 : 3 * DRAWS // 5 + 1]
    median = max(min(sum(middle) / len(middle), most), 0.0)
    low, high = spread[DRAWS // 10], spread[-1 - DRAWS // 10]
    return Forecast(median, min(low, median), max(min(high, most), median))


def _last_end(left: list[float], free: float, bulk: float, jobs: list[float]) -> float:
    """Play `jobs` first come, first served: seconds until the last worker is done.

    Workers are free after `left` seconds, `free` more at once. `bulk` seconds of work go
    first, poured over the workers like water, for the sake of speed.
    """
    level = 0.0
    if bulk:
        left.sort()
        work, slots = bulk, free
        for seconds in left:
            if work <= seconds * slots:
                break
            work += seconds
            slots += 1
        level = work / slots
        left = [max(seconds, level) for seconds in left]
    left += [level] * min(int(free), len(jobs))
    heapify(left)
    for seconds in jobs:
        heapreplace(left, left[0] + seconds)
    return max(left)


@cache
def _draws() -> list[tuple[int, ...]]:
    """Make the fixed draws: for each job that is played, one of the quantiles.

    Each job's are stratified (McKay, Beckman and Conover 1979): over the draws it gets each
    part of the distribution once, in an order made by inverses modulo a prime (Eichenauer
    and Lehn 1986), which makes one job's look independent of another's.
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
    """Cut a standard normal into `count` equally likely parts; the median of each, by Newton's method."""
    scores = []
    for i in range(count):
        score = 0.0
        for _ in range(20):
            below = 0.5 * math.erfc(-score / SQRT2)
            score -= (below - (i + 0.5) / count) * 2 / NORMAL_PEAK / math.exp(-score * score / 2)
        scores.append(score)
    return scores
