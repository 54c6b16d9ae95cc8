"""A simulated scraper: workers that process the jobs of a batch and record them with `BatchRecorder`."""

import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import TypeAdapter, ValidationError

from batch_progress import table
from batch_progress.errors import BatchProgressError, IllegalTransition
from batch_progress.recorder import BatchRecorder, OwnerId
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible

# Simulated batches expire.
_LASTS = timedelta(days=1)
# The supervisor looks for lost workers at least once a minute or so; twice that is long enough to wait for it.
_GRACE_SECONDS = 150

# A poll that counts these takes a tenth of a second of CPU time on the local server, and creating them a minute.
LARGEST_LOCAL = 20_000

_SITES = ("shop.example.com", "news.example.org", "jobs.example.net")
_FAILURES = (
    ("HTTP_404", "The page is gone."),
    ("HTTP_429", "The site asks for fewer requests."),
    ("HTTP_503", "The site is overloaded."),
    ("PARSE_ERROR", "The page has no list of items."),
)


@dataclass(frozen=True)
class Workload:
    """The parameters of a simulation.

    Attributes:
        jobs: Number of pages, one job each.
        workers: Number of pages processed at the same time.
        median: Median seconds per page.
        spread: Standard deviation of the logarithm of the seconds.
        timeout: Seconds after which a page fails with `TIMEOUT`.
        failures: Share of pages that fail for another reason.
        stalls: Share of pages on which the worker hangs.
        stall: Seconds that a worker hangs, regardless of the timeout.
        items: Maximum number of items per page.
        killed: Number of workers that are killed in the middle of a page. A new worker takes the place of each.
        lost_after: Seconds without a sign of life after which a job is lost; the recorder's default if `None`.
    """

    jobs: int = 40
    workers: int = 4
    median: float = 2.5
    spread: float = 0.45
    timeout: float = 30
    failures: float = 0.05
    stalls: float = 0
    stall: float = 60
    items: int = 40
    killed: int = 0
    lost_after: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            Failed: A value is out of range.
        """
        for name, least, most in (
            ("jobs", 1, 100_000),
            ("workers", 1, 200),
            ("median", 0.001, 3_600),
            ("spread", 0, 5),
            ("timeout", 1, 86_400),
            ("failures", 0, 1),
            ("stalls", 0, 1),
            ("stall", 0, 86_400),
            ("items", 0, 1_000_000),
            ("killed", 0, self.jobs),
            ("lost_after", 1, 86_400),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                option = "kill-workers" if name == "killed" else name.replace("_", "-")
                raise Failed(f"--{option} is {value:g}; it must be from {least:,} to {most:,}")

    def check_local(self) -> None:
        """Check that the local server can handle it.

        Raises:
            Failed: It has too many jobs.
        """
        if self.jobs > LARGEST_LOCAL:
            raise Failed(f"--jobs is {self.jobs}; on the local server it must be at most {LARGEST_LOCAL:,}")


@dataclass(frozen=True)
class Task:
    """The planned course of a job.

    Attributes:
        url: The page.
        seconds: Its duration.
        items: The number of items extracted.
        failure: Error code and message; `None` if the job completes.
        killed: Whether its worker is killed when half of the time has passed, and records no end.
    """

    url: str
    seconds: float
    items: int
    failure: tuple[str, str] | None
    killed: bool = False


def plan(workload: Workload, seed: int) -> list[Task]:
    """Return the jobs of a workload. They depend on the seed only, not on the timing of the workers."""
    chance = random.Random(seed)  # noqa: S311  # a workload, not a secret
    tasks = [_task(workload, number, chance) for number in range(1, workload.jobs + 1)]
    killed = set(chance.sample(range(workload.jobs), workload.killed))
    return [replace(task, killed=number in killed) for number, task in enumerate(tasks)]


def _task(workload: Workload, number: int, chance: random.Random) -> Task:
    url = f"https://{_SITES[number % len(_SITES)]}/page/{number}"
    seconds = workload.median * chance.lognormvariate(0, workload.spread)
    items = chance.randint(0, workload.items)
    fails, hangs, failure = chance.random(), chance.random(), chance.choice(_FAILURES)
    stall = workload.stall if hangs < workload.stalls else 0
    if seconds > workload.timeout:
        return Task(
            url,
            workload.timeout + stall,
            0,
            ("TIMEOUT", f"The page did not answer within {workload.timeout:g} seconds."),
        )
    if fails < workload.failures:
        return Task(url, seconds + stall, 0, failure)
    return Task(url, seconds + stall, items, None)


def create(
    recorder: BatchRecorder,
    batch_id: str,
    owner: str,
    workload: Workload,
    tasks: list[Task],
    *,
    lasts: timedelta | None = None,
) -> list[str]:
    """Create the batch of a workload, which expires after `lasts` if given; return the ids of its jobs."""
    return recorder.create(
        batch_id,
        owner,
        [task.url for task in tasks],
        parallel_jobs=workload.workers,
        timeout_per_url=workload.timeout,
        lost_after=workload.lost_after,
        expires_at=datetime.now(UTC) + lasts if lasts else None,
    )


@dataclass
class Crew:
    """Worker threads that share the jobs of a batch.

    Attributes:
        recorder: Records each start and end.
        batch_id: The batch.
        stop: Stops the workers at once when set; jobs in progress stay `processing`.
    """

    recorder: BatchRecorder
    batch_id: str
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, tasks: dict[str, Task], workers: int) -> None:
        """Process the tasks, given by job id; return when all are done or `stop` is set.

        A worker that is killed leaves its job `processing`, and a new one takes its place.

        After an exception in a worker, the others finish their current job; then it is raised.
        """
        queue, taking, broken = iter(tasks.items()), threading.Lock(), threading.Event()
        with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
            at_work = [pool.submit(self._work, queue, taking, broken) for _ in range(workers)]
            try:
                wait(at_work, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                self.stop.set()
                raise
            finally:
                broken.set()
        for worker in at_work:
            worker.result()

    def _work(self, queue: Iterator[tuple[str, Task]], taking: threading.Lock, broken: threading.Event) -> None:
        while not broken.is_set():
            with taking:
                job_id, task = next(queue, (None, None))
            if job_id is None or task is None:
                return
            attempt = self.recorder.start(self.batch_id, job_id)
            if self.stop.wait(task.seconds / 2 if task.killed else task.seconds):
                return
            if not task.killed:
                self._end(job_id, task, attempt)

    def _end(self, job_id: str, task: Task, attempt: int) -> None:
        if not task.failure:
            self.recorder.complete(self.batch_id, job_id, task.items)
            return
        try:
            self.recorder.fail(self.batch_id, job_id, *task.failure, attempt=attempt)
        except IllegalTransition as error:
            # The worker hung longer than `lost_after`, so its job was failed as lost.
            if error.current != table.JobStatus.FAILED:
                raise


def simulate(client: Any, name: str, batch_id: str, owner: str, workload: Workload, seed: int) -> Iterator[str]:  # noqa: ANN401  # boto has no types
    """Create the batch of a workload in a jobs table and process it; yield what happened, line by line.

    If workers were killed, wait until their jobs have ended.

    Raises:
        Failed: The batch exists or cannot be created, another process changes its jobs, or a killed worker's job does
            not end.
        BotoCoreError, ClientError: DynamoDB does not answer, or refuses a request.
    """
    _check(batch_id, owner)
    tasks = plan(workload, seed)
    recorder = BatchRecorder(name, client)
    if _read(client, name, table.batch_key(batch_id)):
        raise Failed(f"the batch {visible(batch_id, 140)} exists already; give another id, or none for a new one")
    yield f"{visible(batch_id)} of {visible(owner)}: {workload.jobs} jobs, {workload.workers} workers, seed {seed}"
    try:
        job_ids = create(recorder, batch_id, owner, workload, tasks, lasts=_LASTS)
        jobs = dict(zip(job_ids, tasks, strict=True))
        Crew(recorder, batch_id).work(jobs, workload.workers)
    except BatchProgressError as error:
        if isinstance(error.__cause__, (BotoCoreError, ClientError)):
            raise error.__cause__ from error
        raise Failed(visible(f"{error.code}: {error}", 400)) from error
    ended = [task for task in tasks if not task.killed]
    failed = sum(task.failure is not None for task in ended)
    yield f"{len(ended) - failed} completed, {failed} failed, {sum(task.items for task in ended):,} items"
    killed = [job_id for job_id, task in jobs.items() if task.killed]
    if killed:
        yield from _lost(client, name, batch_id, killed)


def _check(batch_id: str, owner: str) -> None:
    """Check what only the recorder would check, before anything is printed.

    Raises:
        Failed: It is not a batch id, or no owner.
    """
    if not re.fullmatch(table.ID_PATTERN, batch_id):
        raise Failed(f"the batch id {visible(batch_id, 140)!r} {table.ID_RULE}")
    try:
        TypeAdapter(OwnerId).validate_python(owner)
    except ValidationError:
        raise Failed(f"the owner {visible(owner, 140)!r} must be 1 to 256 characters") from None


def _read(client: Any, name: str, key: table.Item) -> dict[str, str]:  # noqa: ANN401  # boto has no types
    """Return the attributes of an item as text; empty if it does not exist."""
    item = client.get_item(TableName=name, Key=key, ConsistentRead=True).get("Item", {})
    return {attribute: str(*value.values()) for attribute, value in item.items()}


def _lost(client: Any, name: str, batch_id: str, job_ids: list[str]) -> Iterator[str]:  # noqa: ANN401  # boto has no types
    """Wait until the jobs of killed workers have ended; yield a line for each."""
    seconds = float(_read(client, name, table.batch_key(batch_id)).get("lost_after", "inf"))
    yield f"killed at work: {', '.join(job_ids)}; lost after {seconds:g} seconds of silence"
    deadline = time.monotonic() + seconds + _GRACE_SECONDS
    while job_ids:
        for job_id in list(job_ids):
            job = _read(client, name, table.job_key(batch_id, job_id))
            if job.get("status") != table.JobStatus.PROCESSING:
                job_ids.remove(job_id)
                yield f"{job_id} is {job.get('status', 'gone')}: {job.get('error_message', 'done by another worker')}"
        if job_ids and time.monotonic() > deadline:
            raise Failed(f"still processing: {', '.join(job_ids)}; no supervisor works on this table")
        time.sleep(1)
