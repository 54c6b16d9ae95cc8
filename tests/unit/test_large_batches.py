"""The estimate of a large batch: the tally's sample is as good as the times of all jobs."""

import random
from functools import cache

import pytest

from batch_progress.model import Batch
from batch_progress.progress import Tally, estimate
from benchmarks.large import CREATED, ORDERS, Compared, Span, all_times, compare, pages, spans_of, when_ended

# Many short jobs and a few very long ones, or two kinds of jobs.
FAMILIES = ("log-normal", "bimodal")
NEVER: Span = (1e9, 2e9)


@cache
def begun(family: str, jobs: int) -> list[Span]:
    """Return a batch of which only 2,000 jobs are ever started."""
    return spans_of(family, 2_000) + [NEVER] * (jobs - 2_000)


def is_close(both: Compared) -> bool:
    """Whether the estimate is within 10% of the one from all durations, and its range at most 1.3 times as wide."""
    return both.difference <= 0.1 and both.width <= 1.3


@pytest.mark.parametrize(("jobs", "ended"), [(50_000, 300), (200_000, 1_000)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", ORDERS)
def test_few_ended_jobs_make_the_estimate_of_all_durations(family: str, jobs: int, ended: int, order: str) -> None:
    """Wherever in the order of the ids they are."""
    spans = begun(family, jobs)
    both = compare(spans, when_ended(spans, ended), order, jobs)
    assert is_close(both), both


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", ["ended first", "shuffled"])
def test_many_ended_jobs_make_the_estimate_of_all_durations(family: str, order: str) -> None:
    """As well as few."""
    spans = spans_of(family, 20_000)
    both = compare(spans, when_ended(spans, 10_000), order, 20_000)
    assert is_close(both), both


@pytest.mark.parametrize("total_urls", [0, 10, 1_000, 10_000_000])
def test_the_declared_total_does_not_change_the_sample(total_urls: int) -> None:
    """It may be absent, too small or too large."""
    spans = begun("log-normal", 50_000)
    observed = []
    for declared in (50_000, total_urls):
        tally = Tally(Batch("b", "demo", declared, CREATED))
        for page in pages(ORDERS["shuffled"](spans), when_ended(spans, 300)):
            tally.add(page)
        observed.append(tally.observed())
    assert observed[0] == observed[1]
    assert 300 == len(observed[0].durations)


def test_any_number_of_jobs_may_run() -> None:
    """200,000 running jobs, a writer's mistake or not, make a small sample and the estimate of them all."""
    draw = random.Random(3)  # noqa: S311  # jobs, not secrets
    ended: list[Span] = [(0.0, draw.uniform(1, 9)) for _ in range(1_000)]
    running: list[Span] = [(draw.uniform(0, 10), 99.0) for _ in range(200_000)]
    batch = Batch("b", "demo", 250_000, CREATED, parallel_jobs=25, timeout_per_url=60)
    tally = Tally(batch)
    for page in pages(ended + running, 10.0):
        tally.add(page)
    observed, counts, now = tally.observed(), tally.counts(), CREATED.timestamp() + 10
    assert (200_000, 1_000) == (observed.running, observed.ran)
    assert len(observed.started) < 3_000
    full = all_times(ended + running, 10.0)
    both = Compared(estimate(batch, counts, observed, now), estimate(batch, counts, full, now), now, now)
    assert 200_000 == len(full.started)
    assert is_close(both), both
