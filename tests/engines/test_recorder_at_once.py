"""Concurrent writers of the same items, on an engine that checks a condition and writes atomically."""

import threading
from collections.abc import Callable

import pytest

from batch_progress.errors import IllegalTransition
from batch_progress.recorder import BatchRecorder
from tests.integration.world import World, unique


@pytest.fixture(scope="module")
def recorder(world: World) -> BatchRecorder:
    return BatchRecorder(world.jobs_table)


def at_once(calls: list[Callable[[], object]]) -> list[BaseException]:
    """Make all calls concurrently and return what they raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # compared by the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_several_make_the_same_batch(world: World, recorder: BatchRecorder) -> None:
    """Meanwhile a worker does its jobs: all calls succeed and nothing is reset."""
    batch_id, urls = unique("batch"), [f"https://example.com/{number}" for number in range(40)]

    def make() -> None:
        recorder.create(batch_id, "demo", urls)
        recorder.complete(batch_id, "job_000001", 3)
        recorder.complete(batch_id, "job_000040", 4)

    assert [] == at_once([make] * 6)
    data = world.get(batch_id).data
    assert (40, 2, 7) == (data["total_urls"], data["completed"], data["total_items_extracted"])


def test_one_of_many_ends_a_job(world: World, recorder: BatchRecorder) -> None:
    """Several workers have the same message: the first one's values stay, the others get `IllegalTransition`."""
    batch_id = unique("batch")
    job_ids = recorder.create(batch_id, "demo", ["https://example.com"] * 20)
    ended = []

    def end(job_id: str, items: int) -> None:
        recorder.complete(batch_id, job_id, items)
        ended.append(items)

    for job_id in job_ids:
        raised = at_once([lambda job_id=job_id, items=items: end(job_id, items) for items in range(8)])  # type: ignore[misc]  # binds the loop's values
        assert [IllegalTransition] * 7 == [type(error) for error in raised]
    assert ended == [job["items_extracted"] for job in world.get(batch_id).data["jobs"]]


def test_jobs_end_while_their_batch_is_cancelled(world: World, recorder: BatchRecorder) -> None:
    """Each job ends once, completed or cancelled, and the call returns the number that it cancelled."""
    batch_id = unique("batch")
    job_ids = recorder.create(batch_id, "demo", ["https://example.com"] * 100)
    cancelled: list[int] = []

    def complete_all() -> None:
        for job_id in job_ids:
            recorder.complete(batch_id, job_id, 1)

    raised = at_once([complete_all, lambda: cancelled.append(recorder.cancel_batch(batch_id))])

    assert {IllegalTransition} >= {type(error) for error in raised}
    data = world.get(batch_id).data
    assert 100 == data["completed"] + cancelled[0]
    assert (cancelled[0], data["completed"]) == (data["failed"], data["total_items_extracted"])
