"""`batch-progress simulate`: a workload recorded live, and the function's answers about it."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from batch_progress.recorder import BatchRecorder
from batch_progress_cli import simulation
from batch_progress_cli.main import app
from batch_progress_cli.simulation import Crew, Workload, create, plan
from local_cloud.live_batch import LiveBatch
from tests.integration.server import CEILING, COMMAND, LocalApi
from tests.integration.world import World, attributes, unique

EXISTS = "batch-progress: the batch {} exists already; give another id, or none for a new one\n"
QUICK = ("--median", "0.05", "--spread", "0.2", "--timeout", "1")


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_what_it_says_is_what_the_function_tells(world: World) -> None:
    """The same seed makes the same workload."""
    said = []
    for batch_id in (unique("batch"), unique("batch")):
        done = simulate(batch_id, "--jobs", "20", "--failures", "0.3", "--seed", "5", *QUICK)
        assert 0 == done.exit_code, done.stderr
        first, last = done.stdout.splitlines()
        assert f"{batch_id} of demo: 20 jobs, 4 workers, seed 5" == first
        data = world.get(batch_id, include="details").data
        assert f"{data['completed']} completed, {data['failed']} failed, {data['total_items_extracted']} items" == last
        assert (20, 0) == (data["total_urls"], data["pending"])
        assert all(job["started_at"] <= job["finished_at"] for job in data["jobs"])
        assert all((job["error_code"] is not None) == (job["status"] == "failed") for job in data["jobs"])
        said.append(last)
    assert said[0] == said[1]
    assert not said[0].startswith("20 completed")


def test_without_a_name_and_a_seed_it_says_which_it_took(world: World) -> None:
    done = simulate("--jobs", "2", *QUICK)
    found = re.match(r"(batch_[0-9a-f]{10}) of demo: 2 jobs, 4 workers, seed \d+\n", done.stdout)
    assert found
    assert 2 == world.get(found[1]).data["total_urls"]


def test_a_batch_that_stands_still_stalls(world: World, later: Callable[[float], None]) -> None:
    """A worker hangs for longer than a job may take."""
    batch_id, stop = unique("batch"), threading.Event()
    workload = Workload(jobs=2, workers=1, stalls=1, stall=3_600, timeout=1)
    tasks, recorder = plan(workload, seed=1), BatchRecorder(world.jobs_table, world.dynamodb)
    job_ids = create(recorder, batch_id, "demo", workload, tasks)
    crew = Crew(recorder, batch_id, stop)
    worker = threading.Thread(target=crew.work, args=(dict(zip(job_ids, tasks, strict=True)), 1))
    worker.start()
    try:
        deadline = time.monotonic() + CEILING
        while "processing" not in [job["status"] for job in world.get(batch_id, include="details").data["jobs"]]:
            assert time.monotonic() < deadline
        later(60)
        assert "stalled" == world.get(batch_id, include="estimate").data["estimate"]["basis"]
    finally:
        stop.set()
        worker.join()


def test_ctrl_c_leaves_the_batch_as_it_is(local_api: LocalApi) -> None:
    """Status 130, and no traceback."""
    batch_id, port = unique("batch"), local_api.address.rpartition(":")[2]
    arguments = [batch_id, "--jobs", "2", "--workers", "1", "--stalls", "1", "--timeout", "1", "--local", port]
    with subprocess.Popen(  # noqa: S603  # the project's own command
        [COMMAND, "simulate", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(f"{batch_id} of demo: 2 jobs")
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(timeout=CEILING)
        assert "" == process.stderr.read()


def polled(url: str) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(url, headers={"X-API-Key": "demo-token"}, timeout=CEILING).json()
    return body


def test_ctrl_c_ends_the_creation_of_a_large_batch(local_api: LocalApi) -> None:
    """The batch keeps the jobs that were created, and the server answers others."""
    batch_id, port = unique("batch"), local_api.address.rpartition(":")[2]
    with subprocess.Popen(  # noqa: S603  # the project's own command
        [COMMAND, "simulate", batch_id, "--jobs", "20000", "--local", port],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(f"{batch_id} of demo: 20000 jobs")
        url = f"{local_api.address}/api/v1/scrape/batch/{batch_id}/progress?limit=1"
        deadline = time.monotonic() + CEILING
        while not polled(url).get("data", {}).get("jobs"):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        assert (130, "", "") == (process.wait(timeout=CEILING), process.stdout.read(), process.stderr.read())
    data = polled(url)["data"]
    assert (20_000, 0) == (data["total_urls"], data["completed"] + data["failed"])


def test_simulations_at_once_do_not_disturb_each_other(local_api: LocalApi) -> None:
    batches, port = [unique("batch") for _ in range(2)], local_api.address.rpartition(":")[2]
    processes = [
        subprocess.Popen(  # noqa: S603  # the project's own command
            [COMMAND, "simulate", batch_id, "--jobs", "300", "--workers", "150", "--local", port, *QUICK],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for batch_id in batches
    ]
    for process, batch_id in zip(processes, batches, strict=True):
        said, errors = process.communicate(timeout=CEILING)
        url = f"{local_api.address}/api/v1/scrape/batch/{batch_id}/progress"
        data = polled(url)["data"]
        assert (0, "", 300, 0) == (process.returncode, errors, data["total_urls"], data["pending"])
        assert f"\n{data['completed']} completed, {data['failed']} failed, " in said


def test_killed_workers_leave_their_jobs_to_the_supervisor(world: World) -> None:
    """It waits until their jobs have ended, and says how. The same seed kills the same ones."""
    batch_id, arguments = unique("batch"), ("--jobs", "12", "--failures", "0", "--seed", "5", *QUICK)
    recorder, stop = BatchRecorder(world.jobs_table, world.dynamodb), threading.Event()

    def supervise() -> None:
        """Fail one job, and let another worker do the other one."""
        while not stop.wait(0.1):
            statuses = {job["sk"]["S"][4:]: job["status"]["S"] for job in items(world, batch_id)}
            left = [job_id for job_id, status in statuses.items() if status == "processing"]
            if len(left) == 2 and "pending" not in statuses.values():
                recorder.fail(batch_id, left[0], "WORKER_LOST", "No sign of life.")
                recorder.complete(batch_id, left[1], 7)

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        done = simulate(batch_id, "--kill-workers", "2", "--lost-after", "1", *arguments)
    finally:
        stop.set()
        supervisor.join()
    assert 0 == done.exit_code, done.stderr
    _, worked, killed, *ended = done.stdout.splitlines()
    jobs = world.get(batch_id, include="details").data["jobs"]
    (lost,) = [job["job_id"] for job in jobs if job["error_code"] == "WORKER_LOST"]
    found = re.fullmatch(r"killed at work: (job_\d+), (job_\d+); lost after 1 seconds of silence", killed)
    assert found
    assert worked.startswith("10 completed, 0 failed")
    assert lost == found[1]
    assert [f"{lost} is failed: No sign of life.", f"{found[2]} is completed: done by another worker"] == ended
    assert {"1"} == {job["attempt"]["N"] for job in items(world, batch_id)}


def items(world: World, batch_id: str) -> list[dict[str, Any]]:
    """Return the items of a batch's jobs."""
    return list(
        world.dynamodb.query(
            TableName=world.jobs_table,
            KeyConditionExpression="batch_id = :batch_id AND begins_with(sk, :job)",
            ExpressionAttributeValues=attributes({":batch_id": batch_id, ":job": "JOB#"}),
        )["Items"]
    )


def test_no_supervisor_is_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "_GRACE_SECONDS", -1)
    batch_id = unique("batch")
    done = simulate(batch_id, "--kill-workers", "1", "--lost-after", "1", "--jobs", "1", *QUICK)
    assert 2 == done.exit_code
    assert "still processing: job_000001; no supervisor works on this table" in done.stderr
    assert "processing" == world.get(batch_id).data["jobs"][0]["status"]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("arguments", [("--kill-workers", "3"), ("--kill-workers", "-1"), ("--lost-after", "0.5")])
def test_a_value_out_of_range_is_one_line(arguments: tuple[str, ...]) -> None:
    done = simulate("--jobs", "2", *arguments, *QUICK)
    assert (2, 1) == (done.exit_code, done.stderr.count("\n"))


def test_the_local_server_bears_a_limited_number_of_jobs() -> None:
    """Nothing is written above it, whether or not a server runs; a table of AWS may get more."""
    done = simulate("--jobs", "20001", "--local", "9", *QUICK)
    said = "batch-progress: --jobs is 20001; on the local server it must be at most 20,000\n"
    assert (2, "", said) == (done.exit_code, done.stdout, done.stderr)
    Workload(jobs=100_000)


def test_a_batch_of_another_owner_is_one_line(world: World) -> None:
    batch_id = world.put_batch(owner="alice")
    done = simulate(batch_id, *QUICK)
    assert (2, "", EXISTS.format(batch_id)) == (done.exit_code, done.stdout, done.stderr)


@pytest.mark.usefixtures("world")
def test_a_batch_that_exists_is_one_line() -> None:
    batch_id = unique("batch")
    assert 0 == simulate(batch_id, "--jobs", "2", "--seed", "1", *QUICK).exit_code
    done = simulate(batch_id, "--jobs", "2", "--seed", "1", *QUICK)
    assert (2, "", EXISTS.format(batch_id)) == (done.exit_code, done.stdout, done.stderr)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("b 1",), "the batch id 'b 1' must be 1 to 128 of A-Z, a-z, 0-9, '_' and '-'"),
        (("--owner", ""), "the owner '' must be 1 to 256 characters"),
        (("--owner", "\udcff"), "the owner '?' must be 1 to 256 characters"),
    ],
)
def test_a_bad_name_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    """Nothing is printed before it: no batch is said to begin."""
    done = simulate(*arguments, *QUICK)
    assert (2, "", f"batch-progress: {said}\n") == (done.exit_code, done.stdout, done.stderr)


class Attempts:
    """A client that notes the attempts that begin."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401  # botocore ships no types
        self._client = client
        self.attempts: list[int] = []

    def update_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # botocore's
        answer: dict[str, Any] = self._client.update_item(**arguments)
        self.attempts += (
            [int(answer["Attributes"]["attempt"]["N"])] if "attempt" in answer.get("Attributes", {}) else []
        )
        return answer

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # botocore's
        return getattr(self._client, name)


def test_the_live_batch_begins_again_as_a_fresh_one(world: World) -> None:
    """A reader never sees a missing batch, too many jobs, or a job of the round before."""
    workload = Workload(jobs=6, workers=3, median=0.1, spread=0.2, timeout=1, failures=0.3)
    creations: set[str] = set()
    client = Attempts(world.dynamodb)
    live = LiveBatch(client, world.jobs_table, workload, pause_seconds=0.3, redelivered_after_seconds=0.3)
    with live.at_work():
        deadline = time.monotonic() + CEILING
        while len(creations) < 5:  # one of a round in which a worker is killed
            assert time.monotonic() < deadline, creations
            time.sleep(0.02)
            items = world.dynamodb.query(
                TableName=world.jobs_table,
                KeyConditionExpression="batch_id = :batch_id",
                ExpressionAttributeValues=attributes({":batch_id": "batch_live"}),
            )["Items"]
            if len(items) == 7:
                creations.add(items[0]["created_at"]["S"])
            else:
                assert not creations
    data = world.get("batch_live", owner="demo", include="details").data
    assert 6 == data["total_urls"] == len(data["jobs"])
    assert 2 == max(client.attempts), "no killed worker's job was done by another"
    began = max(creations)
    assert all(job["started_at"] is None or job["started_at"] >= began for job in data["jobs"])
