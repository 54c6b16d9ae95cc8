"""A scraper's workload: jobs that take their time and sometimes fail, recorded as real workers record theirs."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from batch_progress.errors import BatchProgressError
from batch_progress.recorder import BatchRecorder
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible

# Simulated batches are not to be kept.
_LASTS = timedelta(days=1)

_SITES = ("shop.example.com", "news.example.org", "jobs.example.net")
_FAILURES = (
    ("HTTP_404", "The page is gone."),
    ("HTTP_429", "The site asks for fewer requests."),
    ("HTTP_503", "The site is overloaded."),
    ("PARSE_ERROR", "The page has no list of items."),
)


@dataclass(frozen=True)
class Workload:
    """What is to be scraped, and how it goes.

    Attributes:
        jobs: How many pages.
        workers: How many of them at a time.
        median: Seconds that half of the pages stay below.
        spread: How much they differ: the standard deviation of the logarithm of their seconds.
        timeout: Seconds after which a page is given up.
        failures: The share that fails of itself.
        stalls: The share on which a worker hangs.
        stall: Seconds that it hangs, whatever the timeout.
        items: The most that a page yields.
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

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            Failed: One of them is out of its bounds; the message says which and why.
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
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise Failed(f"{name} is {value:g}; it must be from {least:,} to {most:,}")


@dataclass(frozen=True)
class Task:
    """A job to come.

    Attributes:
        url: The page.
        seconds: How long it takes.
        items: What it yields.
        failure: Code and message when it fails, `None` when it completes.
    """

    url: str
    seconds: float
    items: int
    failure: tuple[str, str] | None


def plan(workload: Workload, seed: int) -> list[Task]:
    """Return the jobs of a workload; the same for the same seed, whatever the workers' timing."""
    chance = random.Random(seed)  # noqa: S311  # a workload, no secret
    return [_task(workload, number, chance) for number in range(1, workload.jobs + 1)]


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
    """Make the batch of a workload, for ever or for so long; return the ids of its jobs."""
    return recorder.create(
        batch_id,
        owner,
        [task.url for task in tasks],
        parallel_jobs=workload.workers,
        timeout_per_url=workload.timeout,
        expires_at=datetime.now(UTC) + lasts if lasts else None,
    )


@dataclass
class Crew:
    """Workers that take the jobs of a batch one by one, each at its own pace.

    Attributes:
        recorder: Where they record.
        batch_id: The batch.
        stop: Set by whoever wants them to leave everything as it is.
    """

    recorder: BatchRecorder
    batch_id: str
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, tasks: dict[str, Task], workers: int) -> None:
        """Do every task, given by the id of its job; return when all are done or it is to stop.

        The first exception of a worker goes on, once the others have ended the job that they are at.
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
            self.recorder.start(self.batch_id, job_id)
            if self.stop.wait(task.seconds):
                return
            if task.failure:
                self.recorder.fail(self.batch_id, job_id, *task.failure)
            else:
                self.recorder.complete(self.batch_id, job_id, task.items)


def simulate(recorder: BatchRecorder, batch_id: str, owner: str, workload: Workload, seed: int) -> str:
    """Make the batch of a workload and work it off; return how it went.

    Raises:
        Failed: The batch cannot be made, or somebody else works on it.
    """
    tasks = plan(workload, seed)
    try:
        job_ids = create(recorder, batch_id, owner, workload, tasks, lasts=_LASTS)
        Crew(recorder, batch_id).work(dict(zip(job_ids, tasks, strict=True)), workload.workers)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise Failed(visible(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 400)) from error
    except BatchProgressError as error:
        raise Failed(visible(f"{error.code}: {error.__cause__ or error}", 400)) from error
    failed = sum(task.failure is not None for task in tasks)
    return f"{len(tasks) - failed} completed, {failed} failed, {sum(task.items for task in tasks):,} items"
