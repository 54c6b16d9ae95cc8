"""Counts: made from job items, never from counters; they always sum."""

from datetime import UTC, datetime

import pytest

from tests.integration.world import World


def counts(data: dict[str, object]) -> list[object]:
    """Return total, completed, failed and pending."""
    return [data["total_urls"], data["completed"], data["failed"], data["pending"]]


def test_failed_counts_cancelled_too_and_pending_what_runs(world: World) -> None:
    batch_id = world.put_batch(total_urls=6)
    world.put_jobs(batch_id, ["completed", "failed", "cancelled", "pending", "processing", "completed"])

    data = world.get(batch_id).data

    assert [6, 2, 2, 2] == counts(data)
    statuses = ["completed", "failed", "cancelled", "pending", "processing", "completed"]
    assert statuses == [job["status"] for job in data["jobs"]]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (None, [3, 1, 1, 1]),
        (0, [3, 1, 1, 1]),
        (2, [3, 1, 1, 1]),
        (3, [3, 1, 1, 1]),
        (10, [10, 1, 1, 8]),
    ],
)
def test_total_is_the_declared_one_or_the_number_of_jobs(
    world: World, declared: int | None, expected: list[int]
) -> None:
    """The larger of the two. Declared URLs without a job are pending."""
    batch_id = world.put_batch(total_urls=declared)
    world.put_jobs(batch_id, ["completed", "failed", "processing"])
    assert expected == counts(world.get(batch_id).data)


@pytest.mark.parametrize(("declared", "expected"), [(None, [0, 0, 0, 0]), (0, [0, 0, 0, 0]), (5, [5, 0, 0, 5])])
def test_batch_without_jobs(world: World, declared: int | None, expected: list[int]) -> None:
    data = world.get(world.put_batch(total_urls=declared)).data
    assert expected == counts(data)
    assert 0 == data["total_items_extracted"]
    assert [] == data["jobs"]


def test_items_of_every_status_are_summed(world: World) -> None:
    """The items of failed, cancelled and running jobs count, too."""
    batch_id = world.put_batch()
    statuses = ["completed", "failed", "cancelled", "pending", "processing"]
    world.put_jobs(
        batch_id,
        {f"job_{n}": {"status": status, "items_extracted": 10**n} for n, status in enumerate(statuses)},
    )
    assert 11111 == world.get(batch_id).data["total_items_extracted"]


def test_items_are_summed_exactly_where_a_float_would_round(world: World) -> None:
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"job_1": {"items_extracted": 2**53}, "job_2": {"items_extracted": 1}})
    assert 2**53 + 1 == world.get(batch_id).data["total_items_extracted"]


def test_counters_on_the_batch_are_ignored(world: World) -> None:
    """Counters that a writer keeps on the batch item are ignored."""
    batch_id = world.put_batch(total_urls=2, completed=2, failed=9, pending=9, total_items_extracted=99)
    world.put_jobs(batch_id, ["completed", "pending"])

    data = world.get(batch_id).data

    assert [2, 1, 0, 1] == counts(data)
    assert 0 == data["total_items_extracted"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("completed", ["job_000001", "job_000004"]),
        ("failed", ["job_000002"]),
        ("cancelled", []),
        ("pending", ["job_000003"]),
        ("processing", ["job_000005"]),
        ("failed,completed", ["job_000001", "job_000002", "job_000004"]),
        ("pending,processing,completed,failed,cancelled", [f"job_00000{number}" for number in range(1, 6)]),
    ],
)
def test_status_filters_jobs_and_leaves_the_counts(world: World, status: str, expected: list[str]) -> None:
    """As a filter, `failed` excludes cancelled jobs, although the count `failed` includes them."""
    batch_id = world.put_batch(total_urls=7)
    world.put_jobs(batch_id, ["completed", "failed", "pending", "completed", "processing"])

    data = world.get(batch_id, status=status).data

    assert expected == [job["job_id"] for job in data["jobs"]]
    assert [7, 2, 1, 4] == counts(data)
    assert "next_cursor" not in data


def test_expired_job_still_counts(world: World) -> None:
    """Only the batch's expiry is checked. Otherwise a batch would lose its jobs one by one."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_1", status="completed", expires_at=int(datetime.now(UTC).timestamp()) - 3600)
    assert [1, 1, 0, 0] == counts(world.get(batch_id).data)


def test_jobs_of_another_batch_do_not_count(world: World) -> None:
    batch_id = world.put_batch()
    longer = world.put_batch(f"{batch_id}0")
    world.put_jobs(longer, ["completed", "completed"])
    assert [0, 0, 0, 0] == counts(world.get(batch_id).data)
