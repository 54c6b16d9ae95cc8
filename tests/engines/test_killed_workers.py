"""Workers are killed, and their messages are delivered to other workers, as a queue would do.

Those take the jobs over as the next attempt. tests/integration/interleavings.py has every order of the calls.
"""

import collections
import multiprocessing
import random
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from batch_progress.recorder import BatchRecorder
from batch_progress.table import job_key
from tests.engines.worker import outcome, work
from tests.integration.world import World, unique

WORKERS = 50
JOBS = 5_000
KILLED = WORKERS // 3
# The number of messages that a worker holds.
AT_ONCE = 5
# The share of messages that are delivered twice without a crash.
TWICE = 0.02


@dataclass
class Worker:
    """A process and its unacknowledged messages."""

    process: BaseProcess
    queue: Connection
    holds: list[str] = field(default_factory=list)


def test_killed_workers(world: World) -> None:
    """50 processes do 5,000 jobs and a third of them is killed: every job ends once and the counts are exact."""
    batch_id = unique("batch")
    job_ids = BatchRecorder(world.jobs_table).create(
        batch_id, "demo", [f"https://example.com/{n}" for n in range(JOBS)]
    )

    redelivered = work_off(world.jobs_table, batch_id, job_ids)

    assert redelivered >= KILLED
    outcomes = {job_id: outcome(job_id) for job_id in job_ids}
    data = world.get(batch_id).data
    assert outcomes == {job["job_id"]: (job["status"], job["items_extracted"]) for job in data["jobs"]}
    assert JOBS == len(data["jobs"])
    statuses = collections.Counter(status for status, _ in outcomes.values())
    assert (JOBS, statuses["completed"], statuses["failed"], 0, sum(items for _, items in outcomes.values())) == tuple(
        data[name] for name in ("total_urls", "completed", "failed", "pending", "total_items_extracted")
    )
    attempts = collections.Counter(attempt(world, batch_id, job_id) for job_id in job_ids)
    # Some jobs of killed workers were under way.
    assert 0 < attempts[1] < JOBS


def attempt(world: World, batch_id: str, job_id: str) -> int:
    """Return the number of a job's latest attempt."""
    answer = world.dynamodb.get_item(TableName=world.jobs_table, Key=job_key(batch_id, job_id))
    return int(answer["Item"]["attempt"]["N"])


def work_off(table: str, batch_id: str, job_ids: list[str]) -> int:
    """Deliver all jobs until each is done, killing workers at random; return the number of redeliveries."""
    chance = random.Random(5)  # noqa: S311  # a shuffle
    messages = collections.deque(job_ids + [job_id for job_id in job_ids if chance.random() < TWICE])
    # A worker is killed when the number of done jobs reaches the next of these.
    deaths = sorted(chance.randrange(JOBS // 20, JOBS * 9 // 10) for _ in range(KILLED))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.engines.worker"])
    workers = [started(processes, table, batch_id) for _ in range(WORKERS)]
    done: set[str] = set()
    redelivered = 0
    try:
        # A message that was delivered twice is done when both workers are: the second one may have taken the job over.
        while messages or any(worker.holds for worker in workers):
            for worker in workers:
                while messages and len(worker.holds) < AT_ONCE:
                    worker.holds.append(messages.popleft())
                    worker.queue.send(worker.holds[-1])
            while deaths and len(done) >= deaths[0]:
                deaths.pop(0)
                victim = workers.pop(chance.randrange(len(workers)))
                victim.process.kill()
                victim.process.join()
                # These include jobs that the worker has done but not acknowledged.
                messages.extendleft(victim.holds)
                redelivered += len(victim.holds)
            by_queue = {worker.queue: worker for worker in workers}
            for queue in wait(by_queue, timeout=30):
                assert isinstance(queue, Connection)
                job_id = queue.recv()
                by_queue[queue].holds.remove(job_id)
                done.add(job_id)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
    return redelivered


def started(processes: multiprocessing.context.ForkServerContext, table: str, batch_id: str) -> Worker:
    """Start a worker."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=work, args=(theirs, table, batch_id))
    process.start()
    theirs.close()
    return Worker(process, ours)
