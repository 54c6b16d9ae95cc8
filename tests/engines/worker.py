"""A scraper's process that does the jobs it receives until it is stopped or killed."""

import contextlib
import time
from multiprocessing.connection import Connection
from zlib import crc32

from batch_progress.errors import IllegalTransition
from batch_progress.recorder import BatchRecorder


class PageGone(Exception):
    """Raised for some pages."""


def outcome(job_id: str) -> tuple[str, int]:
    """Return a job's final status and items, the same for every worker."""
    number = crc32(job_id.encode())
    return ("failed" if number % 10 == 0 else "completed"), number % 100


def work(queue: Connection, table: str, batch_id: str) -> None:
    """Do jobs and acknowledge each."""
    recorder = BatchRecorder(table)
    while job_id := queue.recv():
        # The job has already ended: its message was delivered twice.
        with contextlib.suppress(PageGone, IllegalTransition), recorder.job(batch_id, job_id) as job:
            status, job.items_extracted = outcome(job_id)
            if status == "failed":
                raise PageGone(job_id)
        queue.send(job_id)


def work_visibly(queue: Connection, table: str, batch_id: str) -> None:
    """Do jobs, tell when each has started, and acknowledge it. Never end a job that is to be killed."""
    recorder = BatchRecorder(table)
    while message := queue.recv():
        job_id, killed = message
        with contextlib.suppress(PageGone, IllegalTransition), recorder.job(batch_id, job_id) as job:
            queue.send((False, job_id))
            time.sleep(3_600 if killed else crc32(job_id.encode()) % 50 / 1_000)
            status, job.items_extracted = outcome(job_id)
            if status == "failed":
                raise PageGone(job_id)
        queue.send((True, job_id))
