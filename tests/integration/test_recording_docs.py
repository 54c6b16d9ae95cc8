"""The examples in docs/recording.md, with only the names of the table and the batch changed."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_progress.errors import IllegalTransition
from batch_progress.recorder import LEAST_LOST_AFTER, LOST_AFTER_TIMEOUTS, BatchRecorder
from batch_progress.table import DEFAULT_TIMEOUT_SECONDS, DEFAULT_WORKERS
from tests.integration.server import CEILING, COMMAND, LocalApi, unmeasured
from tests.integration.world import Context, World, unique

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/recording.md").read_text()


class ScrapeFailed(Exception):
    """Raised by the examples' scraper."""


class Killed(BaseException):
    """The process ends here: nothing after it runs, except what Python does for any exception."""


class Scraper:
    """The examples' scraper: two pages of items, and an event for some URLs.

    Attributes:
        pages: The URLs of the pages scraped.
        during: Called between the two pages of a URL, by a part of the URL, once.
    """

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.during: dict[str, Callable[[], object]] = {}

    def scrape(self, url: str) -> Iterator[list[str]]:
        """Yield the pages of a URL; fail for one with `gone` in it."""
        if "gone" in url:
            raise ScrapeFailed("The page is gone.")
        yield ["a", "b"]
        self.pages.append(url)
        for part in [part for part in self.during if part in url]:
            self.during.pop(part)()
        yield ["c"]

    async def scrape_async(self, url: str) -> list[str]:
        """Return the items of a URL; hang for one with `7` in it."""
        await asyncio.sleep(3_600 if "7" in url else 0)
        return [item for page in self.scrape(url) for item in page]


@pytest.fixture(autouse=True)
def scraper(monkeypatch: pytest.MonkeyPatch) -> Scraper:
    scraper, module = Scraper(), types.ModuleType("scraper")
    vars(module).update(scrape=scraper.scrape, scrape_async=scraper.scrape_async, ScrapeFailed=ScrapeFailed)
    monkeypatch.setitem(sys.modules, "scraper", module)
    return scraper


def blocks(heading: str, language: str) -> list[str]:
    """Return the examples under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found


def example(heading: str, world: World, batch_id: str = "") -> str:
    """Return the example under a heading, for this table and batch."""
    (text,) = blocks(heading, "python")
    return text.replace("jobs-table", world.jobs_table).replace("batch_2024_12_16", batch_id)


def handler(heading: str, world: World) -> Callable[..., Any]:
    """Return the handler of the example under a heading."""
    names: dict[str, Any] = {}
    exec(example(heading, world), names)  # noqa: S102  # the page's own
    made: Callable[..., Any] = names["handler"]
    return made


# First steps


def test_first_steps(local_api: LocalApi) -> None:
    """The lines record a batch. Run again, and with other URLs, they end in the errors that the page shows."""
    (lines,) = blocks("First steps", "sh")
    again, other, items = blocks("First steps", "text")
    assert (0, "2 jobs: ['job_000001', 'job_000002']\n", "") == run(lines, local_api)
    assert again == run(lines, local_api)[2].splitlines(keepends=True)[-1]
    assert other == run(lines.replace(', "https://example.com/page2"', ""), local_api)[2].splitlines(keepends=True)[-1]
    wrong = lines.replace("batch_mine", "batch_mine_2").replace("extracted = 25", 'extracted = ["a", "b"]')
    assert items == "".join(run(wrong, local_api)[2].splitlines(keepends=True)[-2:])


def test_what_create_assumes() -> None:
    lost_after = max(LEAST_LOST_AFTER, LOST_AFTER_TIMEOUTS * DEFAULT_TIMEOUT_SECONDS)
    numbers = re.findall(r"\d+", PAGE.partition("`create` assumes ")[2].partition("\n")[0])
    assert [DEFAULT_WORKERS, DEFAULT_TIMEOUT_SECONDS, lost_after] == [int(number) for number in numbers]


def run(lines: str, api: LocalApi) -> tuple[int, str, str]:
    """Run a shell block against a local API; return the exit status and both outputs."""
    block = lines.replace("http://127.0.0.1:3000", api.address).replace(".venv/bin", str(COMMAND.parent))
    command = ["/bin/sh", "-c", block]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=False, timeout=CEILING)  # noqa: S603
    return done.returncode, done.stdout, done.stderr


# On SQS


class Queue:
    """A batch whose jobs have one message each, and the function that SQS delivers them to."""

    def __init__(self, world: World, recorder: BatchRecorder, urls: list[str]) -> None:
        self.world = world
        self.batch_id = unique("batch")
        self.job_ids = recorder.create(self.batch_id, "demo", urls)
        self.handler = handler("In a Lambda on SQS", world)
        self.messages = {
            job_id: {
                "messageId": f"message-{job_id}",
                "body": json.dumps({"batch_id": self.batch_id, "job_id": job_id, "url": url}),
            }
            for job_id, url in zip(self.job_ids, urls, strict=True)
        }

    def deliver(self, *job_ids: str) -> list[str]:
        """Deliver the messages of these jobs, or of all, in one event; return the jobs to be delivered again."""
        records = [self.messages[job_id] for job_id in job_ids or self.job_ids]
        answer = self.handler({"Records": records}, Context())
        return [failure["itemIdentifier"].removeprefix("message-") for failure in answer["batchItemFailures"]]

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """The status and the items of each job."""
        return [(job["status"], job["items_extracted"]) for job in self.world.get(self.batch_id).data["jobs"]]


@pytest.fixture
def recorder(world: World) -> BatchRecorder:
    return BatchRecorder(world.jobs_table, world.dynamodb)


def test_a_failure_is_delivered_again(world: World, recorder: BatchRecorder) -> None:
    """It restarts the job. A message whose job has ended is deleted, and so is one whose batch is gone."""
    queue = Queue(world, recorder, ["https://example.com/1", "https://example.com/gone", "https://example.com/3"])
    done, failing, cancelled = queue.job_ids
    recorder.cancel(queue.batch_id, cancelled)
    for _ in range(2):
        assert [failing] == queue.deliver()
        assert [("completed", 3), ("failed", 0), ("cancelled", 0)] == queue.jobs
    world.dynamodb.delete_item(
        TableName=world.jobs_table, Key={"batch_id": {"S": queue.batch_id}, "sk": {"S": f"JOB#{done}"}}
    )
    assert [] == queue.deliver(done)
    world.delete_batch(queue.batch_id)
    assert [] == queue.deliver(done)


def test_a_message_that_is_delivered_twice_at_once(world: World, recorder: BatchRecorder, scraper: Scraper) -> None:
    """The second delivery takes the job over; the first one's report tells it to stop."""
    queue = Queue(world, recorder, ["https://example.com/1"])
    scraper.during["/1"] = queue.deliver
    assert [] == queue.deliver()
    assert [("completed", 3)] == queue.jobs
    # The first delivery stopped when it reported its second page.
    assert 2 == len(scraper.pages)


def test_a_late_failure_of_the_first_of_two_deliveries(world: World, recorder: BatchRecorder, scraper: Scraper) -> None:
    """It changes nothing: the other delivery has completed the job."""
    queue = Queue(world, recorder, ["https://example.com/1"])

    def other() -> None:
        queue.deliver()
        raise ScrapeFailed("The connection broke.")

    scraper.during["/1"] = other
    assert queue.job_ids == queue.deliver()
    assert [("completed", 3)] == queue.jobs
    # The message of the failure comes again, and is deleted.
    assert [] == queue.deliver()


def test_a_time_out_of_the_scraper(world: World, recorder: BatchRecorder, scraper: Scraper) -> None:
    """The job fails with the items so far, and the next delivery completes it."""
    queue = Queue(world, recorder, ["https://example.com/1"])
    scraper.during["/1"] = lambda: raise_(TimeoutError("30 seconds"))
    assert queue.job_ids == queue.deliver()
    assert [("failed", 2)] == queue.jobs
    assert [] == queue.deliver()
    assert [("completed", 3)] == queue.jobs


@pytest.mark.parametrize("lost", [False, True], ids=["redelivered soon", "failed as lost before"])
def test_a_kill(world: World, recorder: BatchRecorder, scraper: Scraper, lost: bool) -> None:  # noqa: FBT001
    """Or a time-out of the function. The job stays `processing` with what it reported, until the next delivery."""
    queue = Queue(world, recorder, ["https://example.com/1"])
    scraper.during["/1"] = lambda: raise_(Killed())
    with pytest.raises(Killed):
        queue.deliver()
    assert [("processing", 2)] == queue.jobs
    if lost:
        recorder.fail(queue.batch_id, queue.job_ids[0], "WORKER_LOST", items_extracted=2)
    assert [] == queue.deliver()
    assert [("completed", 3)] == queue.jobs


def test_a_message_that_is_given_up(world: World, recorder: BatchRecorder, scraper: Scraper) -> None:
    """A killed worker's job fails at once. The others keep their ends. What has expired is ignored."""
    queue = Queue(world, recorder, [f"https://example.com/{name}" for name in ("killed", "gone", "fine")])
    killed, failed, done = queue.job_ids
    scraper.during["killed"] = lambda: raise_(Killed())
    with pytest.raises(Killed):
        queue.deliver(killed)
    assert [failed] == queue.deliver(failed, done)
    dead_letters = handler("Messages that are given up", world)
    gone = {"body": json.dumps({"batch_id": unique("gone"), "job_id": killed})}
    for _ in range(2):
        dead_letters({"Records": [*queue.messages.values(), gone]}, Context())
        codes = [job["error_code"] for job in world.get(queue.batch_id, include="details").data["jobs"]]
        assert ["GAVE_UP", "ScrapeFailed", None] == codes
    assert [("failed", 0), ("failed", 0), ("completed", 3)] == queue.jobs


def raise_(error: BaseException) -> None:
    raise error


# In processes


def test_plain_process(world: World, recorder: BatchRecorder) -> None:
    """It can be run again: after a crash, and after a lost job was failed."""
    batch_id = unique("batch")
    text = example("In a plain process", world, batch_id)
    exec(text, {})  # noqa: S102  # the page's own
    counts = ("completed", "pending", "total_items_extracted")
    assert (2, 0, 6) == tuple(world.get(batch_id).data[name] for name in counts)
    other = unique("batch")
    urls = ["https://example.com/page1", "https://example.com/page2"]
    lost, running = recorder.create(other, "demo", urls)
    recorder.start(other, running)
    recorder.fail(other, lost, "WORKER_LOST")
    exec(text.replace(batch_id, other), {})  # noqa: S102  # the page's own
    assert (2, 0, 6) == tuple(world.get(other).data[name] for name in counts)


def test_threads(world: World) -> None:
    batch_id = unique("batch")
    exec(example("In threads", world, batch_id), {})  # noqa: S102  # the page's own
    data = world.get(batch_id).data
    assert (20, 20, 60) == (data["total_urls"], data["completed"], data["total_items_extracted"])


def test_asyncio(world: World) -> None:
    """Two URLs hang: their jobs fail after the timeout. Run again, nothing changes."""
    batch_id = unique("batch")
    text = example("In asyncio, with a timeout", world, batch_id)
    assert "SECONDS = 5\n" in text
    for _ in range(2):
        exec(text.replace("SECONDS = 5\n", "SECONDS = 1\n"), {"__name__": "__main__"})  # noqa: S102  # the page's own
        jobs = world.get(batch_id, include="details").data["jobs"]
        failures = {job["job_id"]: job["error_code"] for job in jobs if job["status"] != "completed"}
        assert {"job_000008": "TimeoutError", "job_000018": "TimeoutError"} == failures


def test_a_killed_process(world: World, tmp_path: Path) -> None:
    """The kernel kills the process of one job; its parent fails the job, and goes on."""
    batch_id = unique("batch")
    (tmp_path / "scraper.py").write_text(
        "import os\n"
        "class ScrapeFailed(Exception): pass\n"
        "def scrape(url):\n"
        "    yield 'ab'\n"
        "    if 'huge' in url: os.kill(os.getpid(), 9)\n"
        "    yield 'c'\n"
    )
    (tmp_path / "worker.py").write_text(example("A process that is killed", world, batch_id))
    done = subprocess.run(
        [sys.executable, "worker.py"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    jobs = world.get(batch_id, include="details").data["jobs"]
    assert ["completed", "failed", "completed"] == [job["status"] for job in jobs]
    assert ("WORKER_KILLED", "The exit code was -9.") == (jobs[1]["error_code"], jobs[1]["error_message"])


# The reference


def test_every_argument_of_create_is_described_with_its_default() -> None:
    section = PAGE.partition("\n## The arguments of `create`\n")[2].partition("\n## ")[0]
    parameters = inspect.signature(BatchRecorder.create).parameters
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert [name for name in parameters if name != "self"] == described
    (call,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert {name: str(default).removesuffix(".0") for name, default in defaults.items()} == dict(
        re.findall(r"(\w+)=(\w+)", call)
    )


def test_every_call_is_described_with_its_defaults() -> None:
    section = PAGE.partition("\n## What the calls do\n")[2].partition("\n## ")[0]
    for name in ("start", "report", "complete", "fail", "cancel", "job"):
        (described,) = re.findall(rf"`(?:with recorder\.)?{name}\((batch_id, .*?)\)", section)
        parameters = inspect.signature(getattr(BatchRecorder, name)).parameters.values()
        expected = [
            one.name if one.default is one.empty else f"{one.name}={json.dumps(one.default)}"
            for one in parameters
            if one.name != "self"
        ]
        assert ", ".join(expected).replace("null", "None").replace("false", "False") == described.replace("=…", "")


def test_another_language(world: World, recorder: BatchRecorder) -> None:
    """The requests make a batch with one completed job. Sent again, each is refused and nothing is reset."""
    batch_id = unique("batch")
    operations = {"PutItem": world.dynamodb.put_item, "UpdateItem": world.dynamodb.update_item}
    texts = blocks("In another language", "json")
    named = [text.replace("jobs-table", world.jobs_table).replace("batch_2024_12_17", batch_id) for text in texts]
    requests = [next(iter(json.loads(text).items())) for text in named]
    assert 5 == len(requests)
    for name, request in requests:
        operations[name](**request)
    for name, request in requests:
        with pytest.raises(world.dynamodb.exceptions.ConditionalCheckFailedException):
            operations[name](**request)
    data = world.get(batch_id).data
    assert (1, 1, 25) == tuple(data[name] for name in ("total_urls", "completed", "total_items_extracted"))
    assert "2024-12-17T10:30:09Z" == data["estimated_completion"]
    # The recorder sees the same state: its call is a no-op.
    recorder.complete(batch_id, "job_000001", 25)


def test_another_language_takes_over_as_the_recorder_does(world: World, recorder: BatchRecorder) -> None:
    """From a recorder's worker, whose number it follows, and after its job was failed as lost. A success wins."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", ["https://example.com/page1"])
    texts = [text for text in blocks("In another language", "json") if "UpdateItem" in text]
    named = [text.replace("jobs-table", world.jobs_table).replace("batch_2024_12_17", batch_id) for text in texts]
    start, report, complete = (json.loads(text)["UpdateItem"] for text in named)
    assert 1 == recorder.start(batch_id, "job_000001")
    assert "2" == world.dynamodb.update_item(**start)["Attributes"]["attempt"]["N"]
    recorder.fail(batch_id, "job_000001", "A", attempt=1)
    with pytest.raises(IllegalTransition):
        recorder.report(batch_id, "job_000001", 1, attempt=1)
    # The example's report is by attempt 1.
    with pytest.raises(world.dynamodb.exceptions.ConditionalCheckFailedException):
        world.dynamodb.update_item(**report)
    recorder.fail(batch_id, "job_000001", "WORKER_LOST")
    assert "3" == world.dynamodb.update_item(**start)["Attributes"]["attempt"]["N"]
    recorder.fail(batch_id, "job_000001", "A", attempt=3)
    world.dynamodb.update_item(**complete)
    (job,) = world.get(batch_id, include="details").data["jobs"]
    assert ("completed", 25, None) == (job["status"], job["items_extracted"], job["error_code"])
