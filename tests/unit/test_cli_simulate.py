"""The workload of simulated workers."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from batch_progress.errors import IllegalTransition, ServiceUnavailable
from batch_progress_cli.simulation import Crew, Task, Workload, plan


@dataclass
class Recorder:
    """Records its calls."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    broken: str = ""

    def start(self, batch_id: str, job_id: str) -> int:
        if job_id == self.broken:
            raise ServiceUnavailable
        self.calls.append(("start", batch_id, job_id))
        return 7

    def complete(self, batch_id: str, job_id: str, items: int) -> None:
        self.calls.append(("complete", batch_id, job_id, items))

    def fail(self, batch_id: str, job_id: str, code: str, message: str, *, attempt: int) -> None:
        self.calls.append(("fail", batch_id, job_id, code, message, attempt))


def crew(recorder: Recorder) -> Crew:
    return Crew(recorder, "batch_a")  # type: ignore[arg-type]  # a fake


def test_the_same_seed_is_the_same_workload() -> None:
    workload = Workload(jobs=50, failures=0.3, stalls=0.1)
    assert plan(workload, 7) == plan(workload, 7)
    assert plan(workload, 7) != plan(workload, 8)


def test_no_failures_unless_asked_for() -> None:
    tasks = plan(Workload(jobs=200, failures=0, timeout=3_600), 1)
    assert [None] * 200 == [task.failure for task in tasks]


def test_a_page_over_the_timeout_is_given_up() -> None:
    """It fails at the timeout, with a reason and no items."""
    task = plan(Workload(jobs=1, median=10, spread=0, timeout=2), 1)[0]
    assert (2, 0, ("TIMEOUT", "The page did not answer within 2 seconds.")) == (task.seconds, task.items, task.failure)


def test_a_stall_comes_on_top() -> None:
    task = plan(Workload(jobs=1, median=1, spread=0, stalls=1, stall=60), 1)[0]
    assert 61 == task.seconds


def test_every_job_is_recorded_as_it_ends() -> None:
    recorder = Recorder()
    crew(recorder).work({"a": Task("u", 0, 3, None), "b": Task("u", 0, 0, ("HTTP_404", "gone"))}, workers=1)
    assert [
        ("start", "batch_a", "a"),
        ("complete", "batch_a", "a", 3),
        ("start", "batch_a", "b"),
        ("fail", "batch_a", "b", "HTTP_404", "gone", 7),
    ] == recorder.calls


def test_killed_workers_are_the_same_for_a_seed() -> None:
    """Whether workers are killed changes nothing else of the workload."""
    workload = Workload(jobs=50, failures=0.3)
    tasks = plan(replace(workload, killed=3), 7)
    assert 3 == sum(task.killed for task in tasks)
    assert tasks == plan(replace(workload, killed=3), 7)
    assert plan(workload, 7) == [replace(task, killed=False) for task in tasks]


def test_a_killed_worker_records_no_end() -> None:
    """A new worker takes its place and does the other jobs."""
    recorder = Recorder()
    crew(recorder).work({"a": Task("u", 0, 3, None, killed=True), "b": Task("u", 0, 3, None)}, workers=1)
    assert [("start", "batch_a", "a"), ("start", "batch_a", "b"), ("complete", "batch_a", "b", 3)] == recorder.calls


@pytest.mark.parametrize(("current", "goes_on"), [("failed", True), ("cancelled", False)])
def test_a_worker_that_hung_too_long(current: str, goes_on: bool) -> None:  # noqa: FBT001
    """Its job was failed as lost meanwhile: it does the next one. A cancelled job ends the simulation."""

    class Late(Recorder):
        def fail(self, batch_id: str, job_id: str, code: str, message: str, *, attempt: int) -> None:
            super().fail(batch_id, job_id, code, message, attempt=attempt)
            raise IllegalTransition(batch_id, job_id, current, "failed")

    recorder = Late()
    tasks = {"a": Task("u", 0, 0, ("TIMEOUT", "")), "b": Task("u", 0, 3, None)}
    if goes_on:
        crew(recorder).work(tasks, workers=1)
    else:
        with pytest.raises(IllegalTransition):
            crew(recorder).work(tasks, workers=1)
    assert goes_on == (("complete", "batch_a", "b", 3) in recorder.calls)


def test_stopped_workers_leave_their_jobs_unchanged() -> None:
    stop = threading.Event()

    class Stopping(Recorder):
        def start(self, batch_id: str, job_id: str) -> int:
            attempt = super().start(batch_id, job_id)
            if len(self.calls) == 2:
                stop.set()
            return attempt

    recorder = Stopping()
    team = Crew(recorder, "batch_a", stop)  # type: ignore[arg-type]  # a fake
    team.work({str(number): Task("u", 300, 0, None) for number in range(9)}, workers=2)
    assert {("start", "batch_a", "0"), ("start", "batch_a", "1")} == set(recorder.calls)


def test_a_worker_that_breaks_ends_the_others() -> None:
    recorder = Recorder(broken="1")
    with pytest.raises(ServiceUnavailable):
        crew(recorder).work({str(number): Task("u", 0.2, 0, None) for number in range(99)}, workers=2)
    # All 99 jobs would be 198 calls.
    assert len(recorder.calls) < 100
