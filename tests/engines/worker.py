"""A scraper's process that works off the jobs it is handed, until it is told to stop or killed."""

import contextlib
from multiprocessing.connection import Connection
from zlib import crc32

from batch_progress.errors import IllegalTransition
from batch_progress.recorder import BatchRecorder


class PageGone(Exception):
    """What some of the pages end in."""


def outcome(job_id: str) -> tuple[str, int]:
    """Return how a job ends whoever does it: its status, and how many items it has."""
    number = crc32(job_id.encode())
    return ("failed" if number % 10 == 0 else "completed"), number % 100


def work(queue: Connection, table: str, batch_id: str) -> None:
    """Do jobs, and say of each that it is done."""
    recorder = BatchRecorder(table)
    while job_id := queue.recv():
        # A job that has ended already came twice.
        with contextlib.suppress(PageGone, IllegalTransition), recorder.job(batch_id, job_id) as job:
            status, job.items_extracted = outcome(job_id)
            if status == "failed":
                raise PageGone(job_id)
        queue.send(job_id)
