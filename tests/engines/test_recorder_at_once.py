"""Concurrent writers of the same items, on an engine that checks a condition and writes atomically."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from batch_progress.errors import BatchConflict, BatchNotFound, IllegalTransition
from batch_progress.recorder import BatchRecorder
from tests.integration.world import World, unique


@pytest.fixture(scope="module")
def recorder(world: World) -> BatchRecorder:
    return BatchRecorder(world.jobs_table)


def at_once(calls: Sequence[Callable[[], object]]) -> list[BaseException]:
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


def test_the_first_of_many_successes_stands(world: World, recorder: BatchRecorder) -> None:
    """Several workers have the same message: one's items are recorded, and the others' calls are no-ops."""
    batch_id = unique("batch")
    job_ids = recorder.create(batch_id, "demo", ["https://example.com"] * 20)
    for job_id in job_ids:
        assert [] == at_once([partial(recorder.complete, batch_id, job_id, items) for items in range(1, 9)])
    first = [job["items_extracted"] for job in world.get(batch_id).data["jobs"]]
    assert set(first) <= set(range(1, 9))
    for job_id in job_ids:
        recorder.complete(batch_id, job_id, 99)
    assert first == [job["items_extracted"] for job in world.get(batch_id).data["jobs"]]


def test_success_wins_over_failures_at_the_same_time(world: World, recorder: BatchRecorder) -> None:
    """Whatever the order, the job is completed, without the error of a failure before it."""
    batch_id = unique("batch")
    job_ids = recorder.create(batch_id, "demo", ["https://example.com"] * 20)
    for job_id in job_ids:
        failures = [partial(recorder.fail, batch_id, job_id, "A") for _ in range(4)]
        assert [] == at_once([*failures, partial(recorder.complete, batch_id, job_id, 5)])
    assert {("completed", 5, None)} == {
        (job["status"], job["items_extracted"], job["error_code"])
        for job in world.get(batch_id, include="details").data["jobs"]
    }


def test_every_start_has_its_own_number(recorder: BatchRecorder) -> None:
    """Then only the last one can report and fail the job."""
    batch_id = unique("batch")
    for job_id in recorder.create(batch_id, "demo", ["https://example.com"] * 20):
        numbers: list[int] = []
        assert [] == at_once([partial(_started, recorder, batch_id, job_id, numbers)] * 8)
        assert list(range(1, 9)) == sorted(numbers)
        reports = [partial(recorder.report, batch_id, job_id, 1, attempt=number) for number in numbers]
        assert [IllegalTransition] * 7 == [type(error) for error in at_once(reports)]


def _started(recorder: BatchRecorder, batch_id: str, job_id: str, numbers: list[int]) -> None:
    numbers.append(recorder.start(batch_id, job_id))


def test_a_batch_is_cancelled_while_several_make_it(world: World, recorder: BatchRecorder) -> None:
    """Every `create` is refused, and no job is left that has not ended."""
    for _ in range(5):
        batch_id, urls = unique("batch"), ["https://example.com"] * 500

        def cancel(batch_id: str = batch_id) -> None:
            while True:
                try:
                    recorder.cancel_batch(batch_id)
                except BatchNotFound:
                    continue
                return

        raised = at_once([*[partial(recorder.create, batch_id, "demo", urls)] * 3, cancel])
        assert [BatchConflict] * 3 == [type(error) for error in raised]
        data = world.get(batch_id).data
        assert (500, 500, 0) == (data["total_urls"], data["failed"], data["pending"])
        assert len(data["jobs"]) < 500


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
