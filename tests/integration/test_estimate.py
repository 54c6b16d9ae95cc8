"""The estimated completion: never in the past, and constant once the batch is finished."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.world import World, moment, now

ENDED = ["completed", "failed", "cancelled"]


def put_observed(world: World) -> str:
    """Put three jobs that have just ended, one running and two pending."""
    batch_id = world.put_batch(parallel_jobs=2, timeout_per_url=30)
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "started_at": now(-20), "finished_at": now(-15)},
            "b": {"status": "failed", "started_at": now(-20), "finished_at": now(-10)},
            "c": {"status": "completed", "started_at": now(-10), "finished_at": now(-3)},
            "d": {"status": "processing", "started_at": now(-3)},
            "e": {},
            "f": {},
        },
    )
    return batch_id


def put_declared(world: World) -> str:
    """Put one running and three pending jobs."""
    batch_id = world.put_batch(total_urls=4, parallel_jobs=2, timeout_per_url=30, created_at=now(-3))
    world.put_jobs(batch_id, {"a": {"status": "processing", "started_at": now(-2)}, "b": {}, "c": {}})
    return batch_id


def put_stalled(world: World) -> str:
    """Put a batch whose last change was a day ago, when a job ended."""
    batch_id = world.put_batch(total_urls=4, parallel_jobs=2, timeout_per_url=30, created_at=now(-90_000))
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "started_at": now(-86_410), "finished_at": now(-86_400)},
            "b": {"status": "processing", "started_at": now(-86_400)},
            "c": {},
        },
    )
    return batch_id


def put_stalled_from_the_start(world: World) -> str:
    """Put a batch whose only job started a day ago."""
    batch_id = world.put_batch(parallel_jobs=2, timeout_per_url=30, created_at=now(-90_000))
    world.put_jobs(batch_id, {"a": {"status": "processing", "started_at": now(-86_400)}, "b": {}})
    return batch_id


def put_finished(world: World) -> str:
    batch_id = world.put_batch(total_urls=2, created_at=now(-90_000))
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "started_at": now(-80_000), "finished_at": now(-79_000)},
            "b": {"status": "cancelled", "started_at": now(-80_000), "finished_at": now(-79_500)},
        },
    )
    return batch_id


CASES = [
    (put_declared, "declared"),
    (put_observed, "observed"),
    (put_stalled, "stalled"),
    (put_stalled_from_the_start, "stalled"),
    (put_finished, "finished"),
]


@pytest.mark.parametrize(("put", "basis"), CASES)
def test_estimate(world: World, put: Callable[[World], str], basis: str) -> None:
    """Its basis, and an interval around it."""
    data = world.get(put(world), include="estimate").data

    estimate = data["estimate"]
    assert ["basis", "earliest", "latest", "confidence"] == list(estimate)
    assert basis == estimate["basis"]
    assert 0.8 == estimate["confidence"]
    assert moment(estimate["earliest"]) <= moment(data["estimated_completion"]) <= moment(estimate["latest"])


@pytest.mark.parametrize(("put", "basis"), CASES[:4])
def test_forecast_is_never_in_the_past(world: World, put: Callable[[World], str], basis: str) -> None:
    del basis
    batch_id = put(world)
    before = datetime.now(UTC)
    assert before <= moment(world.get(batch_id).data["estimated_completion"])


def test_forecast_of_a_fast_batch_is_near(world: World) -> None:
    """Two pending jobs of a few seconds each take less than an hour."""
    estimated = moment(world.get(put_observed(world)).data["estimated_completion"])
    assert estimated < datetime.now(UTC) + timedelta(minutes=10)


def test_declared_urls_without_jobs_keep_a_batch_unfinished(world: World) -> None:
    batch_id = world.put_batch(total_urls=2)
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-5)}})
    data = world.get(batch_id, include="estimate").data
    assert 1 == data["pending"]
    assert "finished" != data["estimate"]["basis"]


@pytest.mark.parametrize("last", ENDED)
def test_finished_batch_was_done_when_its_last_job_ended(world: World, last: str) -> None:
    """In whatever status and order; rounded down to the second."""
    batch_id = world.put_batch(created_at="2024-12-16T10:00:00.000Z")
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "finished_at": "2024-12-16T10:30:02.123Z"},
            "b": {"status": last, "finished_at": "2024-12-16T10:31:59.999Z"},
            "c": {"status": "failed", "finished_at": "2024-12-16T10:31:59.998Z"},
            "d": {"status": "cancelled"},
        },
    )
    assert "2024-12-16T10:31:59Z" == world.get(batch_id).data["estimated_completion"]


@pytest.mark.parametrize("statuses", [ENDED, []])
def test_finished_batch_without_any_end_was_done_when_created(world: World, statuses: list[str]) -> None:
    """No job has an end time, or there are no jobs."""
    batch_id = world.put_batch(created_at="2024-12-16T10:00:00.999Z")
    world.put_jobs(batch_id, statuses)
    assert "2024-12-16T10:00:00Z" == world.get(batch_id).data["estimated_completion"]


def test_finished_batch_with_nothing_recorded_is_done_now(world: World) -> None:
    batch_id = world.put_batch(created_at=None)
    world.put_jobs(batch_id, ENDED)
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= moment(world.get(batch_id).data["estimated_completion"]) <= datetime.now(UTC)


def test_invalid_end_time_counts_as_not_recorded(world: World) -> None:
    batch_id = world.put_batch(created_at="2024-12-16T10:00:00.000Z")
    jobs = {
        f"job_{number}": {"status": "completed", "finished_at": text}
        for number, text in enumerate(["zzz", "", "2024-02-30T10:00:00.000Z", "2024-12-16T10:31:59.999Z", "9", "2025"])
    }
    world.put_jobs(batch_id, jobs)
    assert "2024-12-16T10:31:59Z" == world.get(batch_id).data["estimated_completion"]


def test_invalid_creation_time_counts_as_not_recorded(world: World) -> None:
    batch_id = world.put_batch(created_at="once upon a time")
    world.put_jobs(batch_id, ENDED)
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= moment(world.get(batch_id).data["estimated_completion"]) <= datetime.now(UTC)


def test_estimate_without_any_declaration(world: World) -> None:
    """Without any declaration, start or end the estimate is still in the future."""
    batch_id = world.put_batch(created_at=None)
    world.put_jobs(batch_id, ["pending", "processing"])
    before = datetime.now(UTC)
    data = world.get(batch_id, include="estimate").data
    assert before <= moment(data["estimated_completion"])


def test_job_from_a_clock_that_runs_ahead(world: World) -> None:
    """A worker's clock may be ahead, and a job may end before its start."""
    batch_id = world.put_batch(total_urls=5)
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "processing", "started_at": now(3600)},
            "b": {"status": "completed", "started_at": now(3600), "finished_at": now(1800)},
            "c": {"status": "completed", "started_at": now(-5), "finished_at": now(3600)},
        },
    )
    before = datetime.now(UTC)
    assert before <= moment(world.get(batch_id).data["estimated_completion"])


def test_estimate_is_of_the_whole_batch_whatever_is_shown(world: World) -> None:
    batch_id = put_finished(world)
    whole = world.get(batch_id, include="estimate").data
    shown = world.get(batch_id, include="estimate", status="pending", limit="1").data
    assert (whole["estimate"], whole["estimated_completion"]) == (shown["estimate"], shown["estimated_completion"])
