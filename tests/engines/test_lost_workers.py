"""Workers are killed while they run a job, with and without redelivery of its message: the batch ends by itself."""

import collections
import heapq
import multiprocessing
import random
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from batch_progress.recorder import BatchRecorder
from batch_progress.table import JOB_PREFIX, WORKER_LOST
from tests.engines.supervised import Supervised, supervised
from tests.engines.worker import outcome, work_visibly
from tests.integration.world import World, unique

WORKERS = 50
JOBS = 5_000
KILLED = WORKERS // 2
# Far longer than a job takes and than a busy machine keeps a worker waiting.
LOST_AFTER = 30
# Seconds until the message of a killed worker is delivered again: before or after its job is lost.
REDELIVERED = (5, 60)


@dataclass
class Worker:
    """A process and the job that it runs."""

    process: BaseProcess
    queue: Connection
    job_id: str | None = None


@pytest.fixture
def made(world: World) -> tuple[str, list[str]]:
    """A batch and its job ids."""
    batch_id = unique("batch")
    urls = [f"https://example.com/{number}" for number in range(JOBS)]
    recorder = BatchRecorder(world.jobs_table)
    return batch_id, recorder.create(batch_id, "demo", urls, timeout_per_url=20, lost_after=LOST_AFTER)


def test_killed_workers_without_redelivery(world: World, dynamodb_endpoint: str, made: tuple[str, list[str]]) -> None:
    """Exactly the jobs that they ran are `WORKER_LOST`, and the batch is announced as finished once."""
    batch_id, job_ids = made
    with supervised(world, dynamodb_endpoint) as around:
        killed = Crew(world.jobs_table, batch_id, job_ids, redelivery=False).work_off()
        finished = around.wait_for_finish(300)
    rows = rows_of(world, batch_id)
    lost = {job_id for job_id, row in rows.items() if row.get("error_code") == {"S": WORKER_LOST}}
    assert killed == lost
    assert KILLED == len(killed)
    expected = {job_id: outcome(job_id) for job_id in job_ids} | dict.fromkeys(killed, ("failed", 0))
    assert expected == {job_id: (row["status"]["S"], int(row["items_extracted"]["N"])) for job_id, row in rows.items()}
    assert 1 == len(around.of("Batch Finished"))
    agree(finished, rows)
    assert {"error_code": WORKER_LOST, "jobs": len(killed)} in finished["summary"]["failures"]
    cheap(around)


def test_killed_workers_with_redelivery(world: World, dynamodb_endpoint: str, made: tuple[str, list[str]]) -> None:
    """Their jobs are done by the next attempt, before or after they are lost. The last event has the final counts."""
    batch_id, job_ids = made
    with supervised(world, dynamodb_endpoint) as around:
        killed = Crew(world.jobs_table, batch_id, job_ids, redelivery=True).work_off()
        finished = around.wait_for_finish(300)
    rows = rows_of(world, batch_id)
    expected = {job_id: outcome(job_id) for job_id in job_ids}
    assert expected == {job_id: (row["status"]["S"], int(row["items_extracted"]["N"])) for job_id, row in rows.items()}
    assert KILLED == len(killed)
    assert {2} == {int(rows[job_id]["attempt"]["N"]) for job_id in killed}
    agree(finished, rows)
    assert len({event["id"] for event in around.of("Batch Finished")}) == len(around.of("Batch Finished"))


def agree(finished: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """The counts of an event are those of the rows."""
    statuses = collections.Counter(row["status"]["S"] for row in rows.values())
    items = sum(int(row["items_extracted"]["N"]) for row in rows.values())
    assert (JOBS, statuses["completed"], statuses["failed"], 0, items) == tuple(
        finished[name] for name in ("total_urls", "completed", "failed", "pending", "total_items_extracted")
    )


def cheap(around: Supervised) -> None:
    """Few of the checks counted."""
    assert len(around.done) < 100


def rows_of(world: World, batch_id: str) -> dict[str, dict[str, Any]]:
    """Return the job items by job id."""
    pages = world.dynamodb.get_paginator("query").paginate(
        TableName=world.jobs_table,
        KeyConditionExpression="batch_id = :batch AND begins_with(sk, :job)",
        ExpressionAttributeValues={":batch": {"S": batch_id}, ":job": {"S": JOB_PREFIX}},
        ConsistentRead=True,
    )
    return {item["sk"]["S"].removeprefix(JOB_PREFIX): item for page in pages for item in page["Items"]}


class Crew:
    """Workers and their messages."""

    def __init__(self, table: str, batch_id: str, job_ids: list[str], *, redelivery: bool) -> None:
        self._chance = random.Random(5)  # noqa: S311  # a shuffle
        self._redelivery = redelivery
        # When each message is delivered, and whether its worker is killed.
        self._messages = [(0.0, job_id) for job_id in job_ids]
        self._doomed = set(self._chance.sample(job_ids[JOBS // 20 : JOBS * 9 // 10], KILLED))
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["tests.engines.worker"])
        self._workers = [started(processes, table, batch_id) for _ in range(WORKERS)]

    def work_off(self) -> set[str]:
        """Deliver all jobs, one to a worker at a time, and kill workers that have just started one.

        Returns:
            The jobs that killed workers have left behind.
        """
        killed = set[str]()
        try:
            while self._messages or any(worker.job_id for worker in self._workers):
                self._deliver(self._doomed - killed)
                by_queue = {worker.queue: worker for worker in self._workers}
                for queue in wait(by_queue, timeout=1):
                    assert isinstance(queue, Connection)
                    worker, (done, job_id) = by_queue[queue], queue.recv()
                    assert worker.job_id == job_id
                    if done:
                        worker.job_id = None
                    elif job_id in self._doomed - killed:
                        self._kill(worker)
                        killed.add(job_id)
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
        return killed

    def _deliver(self, doomed: set[str]) -> None:
        for worker in self._workers:
            if worker.job_id is None and self._messages and self._messages[0][0] <= time.monotonic():
                _, worker.job_id = heapq.heappop(self._messages)
                worker.queue.send((worker.job_id, worker.job_id in doomed))

    def _kill(self, worker: Worker) -> None:
        worker.process.kill()
        worker.process.join()
        self._workers.remove(worker)
        if self._redelivery:
            assert worker.job_id
            heapq.heappush(self._messages, (time.monotonic() + self._chance.uniform(*REDELIVERED), worker.job_id))


def started(processes: multiprocessing.context.ForkServerContext, table: str, batch_id: str) -> Worker:
    """Start a worker."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=work_visibly, args=(theirs, table, batch_id))
    process.start()
    theirs.close()
    return Worker(process, ours)
