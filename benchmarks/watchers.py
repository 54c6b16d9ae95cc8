"""Measure what watchers of a large batch cost, and how old their counts are: `make bench-watchers`.

Watchers poll one batch while 50 writers work on it. A third of them send ETags with `limit=0`, a third ask for
`limit=0`, a third for `limit=100`. By default each polls once a second, whatever `Retry-After` says.

The functions run unchanged. Each environment of the progress function is a process that answers one request at a time;
there are as many as are needed at once, as in Lambda. DynamoDB Local takes the writes and makes the stream, which the
revision function consumes. `partition.py` is in front of it and refuses what is beyond a partition's limits.

Only the last jobs of the batch are done while it is watched: the others had ended before. The end of each is recorded,
so that every answer can be judged (`freshness.py`). Units a second are those of the time before the very last jobs.
The results are in `watchers.json`, the chart in docs/watchers.png.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import batched, count, islice
from math import ceil
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, LifoQueue, SimpleQueue
from statistics import quantiles
from typing import Any, Final
from urllib.parse import urlsplit

from batch_progress import dynamodb, table
from batch_progress.errors import ServiceUnavailable
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item, JobStatus, timestamp
from benchmarks.cost import size, units
from benchmarks.freshness import SMALL_UNITS, UNITS_PER_SECOND, History, Poll, ends_seen, older_than_told, right
from benchmarks.invocation import environment, event
from benchmarks.partition import READS_PER_SECOND
from benchmarks.run import machine
from benchmarks.workload import JOBS_TABLE, OWNER, TIMEOUT_SECONDS, TOKEN, TOKENS_TABLE, durations
from local_cloud.lambda_context import LambdaContext
from local_cloud.template import timeout_seconds
from tests.hostile import faults
from tests.hostile.load import logged

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "watchers.json"
CHART: Final = ROOT / "docs" / "watchers.png"
KINDS: Final = ("tag", "limit=0", "limit=100")
WRITERS: Final = 50
# Mean seconds of a job. 50 writers then write 50 times a second, which leaves two cores time to answer.
JOB_SECONDS: Final = 2.0
# Share of jobs that fail.
FAILED: Final = 0.04
# Seconds between writes that show whether the stream is read.
STREAM_SECONDS: Final = 0.5
# How long watchers may take to see the end.
PATIENCE_SECONDS: Final = 90.0
# The jobs and the interval of the runs in the chart.
CHARTED: Final = 50_000, 1.0
SERIES: Final = {"before": ("before: counted for each answer", "#c2410c"), "now": ("now: the count is kept", "#0b6e4f")}
# Names of the proxy's totals.
PROGRESS: Final = f"progress {JOBS_TABLE}"
READ: Final = f"{PROGRESS} read units"
_fork: Final = get_context("fork")


# The batch


def batch_items(batch_id: str, jobs: int, left: int, now: datetime) -> Iterator[Item]:
    """Yield the items of a batch of which `left` jobs are pending and all others have ended."""
    draw = random.Random(jobs)
    step = JOB_SECONDS / WRITERS
    yield table.item(
        batch_id=batch_id,
        sk=BATCH_KEY,
        owner_id=OWNER,
        total_urls=jobs,
        created_at=timestamp(now - timedelta(seconds=(jobs - left) * step + TIMEOUT_SECONDS)),
        parallel_jobs=WRITERS,
        timeout_per_url=TIMEOUT_SECONDS,
        revision=2 * (jobs - left),
    )
    for number, seconds in enumerate(islice(durations(draw), jobs)):
        item = table.item(
            batch_id=batch_id,
            sk=f"{JOB_PREFIX}job_{number:06}",
            url=f"https://shop.example.com/outdoor/products/item-{number:06}.html",
            status=JobStatus.PENDING,
        )
        if number < jobs - left:
            finished = now - timedelta(seconds=(jobs - left - number) * step)
            started = finished - timedelta(seconds=seconds)
            item |= table.item(**_ending(draw), started_at=timestamp(started), finished_at=timestamp(finished))
        yield item


def _ending(draw: random.Random) -> dict[str, str | float]:
    """Return the attributes that an ended job has."""
    if draw.random() < FAILED:
        return {"status": JobStatus.FAILED, "items_extracted": 0, "error_code": "TIMEOUT"}
    return {"status": JobStatus.COMPLETED, "items_extracted": draw.randint(1, 60)}


def fill(line: str, items: Sequence[Item]) -> None:
    """Write items."""
    client = faults.client(line)

    def put(some: tuple[Item, ...]) -> None:
        writes = {JOBS_TABLE: [{"PutRequest": {"Item": item}} for item in some]}
        while writes:
            writes = client.batch_write_item(RequestItems=writes)["UnprocessedItems"]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, batched(items, 25, strict=False)))


# The writers


def work(batch_id: str, jobs: Sequence[int], tail: int, told: Connection) -> None:
    """Wait for the signal, then do the jobs, in a process of its own.

    Sends `None` when only `tail` jobs are left, and at the end when the write of each job's end began and finished.
    """
    os.environ["AWS_ACCESS_KEY_ID"] = "writers"
    client = dynamodb.client()
    todo: SimpleQueue[int] = SimpleQueue()
    for job in jobs:
        todo.put(job)
    begun: list[float] = []
    finished: list[float] = []
    lock = threading.Lock()

    def write(job: int, before: JobStatus, **values: str | float) -> None:
        names = {f"#{name}": name for name in values}
        placed = {f":{name}": value for name, value in table.item(**values).items()}
        while True:
            # As a queue would deliver the message again. A repeated write fails its condition.
            with contextlib.suppress(ServiceUnavailable):
                try:
                    client.update_item(
                        TableName=JOBS_TABLE,
                        Key=table.job_key(batch_id, f"job_{job:06}"),
                        UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
                        ConditionExpression="#status = :before",
                        ExpressionAttributeNames=names,
                        ExpressionAttributeValues={**placed, ":before": {"S": before}},
                    )
                except dynamodb.RequestRefused as refused:
                    if refused.code != "ConditionalCheckFailedException":
                        raise
                return

    def writer(number: int) -> None:
        draw = random.Random(number)
        time.sleep(draw.uniform(0, JOB_SECONDS))
        while True:
            try:
                job = todo.get_nowait()
            except Empty:
                return
            write(job, JobStatus.PENDING, status=JobStatus.PROCESSING, started_at=_now())
            time.sleep(draw.uniform(0, 2 * JOB_SECONDS))
            began = time.time()
            write(job, JobStatus.PROCESSING, **_ending(draw), finished_at=_now())
            with lock:
                begun.append(began)
                finished.append(time.time())
                if len(finished) == len(jobs) - tail:
                    told.send(None)

    told.recv()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(writer, range(WRITERS)))
    told.send((begun, finished))


def _now() -> str:
    return timestamp(datetime.now(UTC))


# The environments


def serve(log: Path, asked: Connection) -> None:
    """Answer events one at a time, as an environment of the progress function, until `None` is received."""
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
    from functions.progress.app import handler  # noqa: PLC0415  # reads its settings from this process's environment

    seconds = timeout_seconds("ProgressFunction")
    while (request := asked.recv()) is not None:
        began = time.perf_counter()
        response = handler(request, LambdaContext(seconds))
        asked.send((response, time.perf_counter() - began))


class Environments:
    """The environments of the function. A request goes to the one that was used last, as in Lambda."""

    def __init__(self, most: int, folder: Path) -> None:
        """Start as many as can be needed. They must be started before any thread."""
        self._free: LifoQueue[Connection] = LifoQueue()
        self._all: list[Connection] = []
        self._processes = []
        self.milliseconds: list[float] = []
        for number in range(most):
            here, there = _fork.Pipe()
            process = _fork.Process(target=serve, args=(folder / f"{number}.log", there), daemon=True)
            process.start()
            self._processes.append(process)
            self._all.append(here)
            self._free.put(here)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the handler's answer to an event."""
        free = self._free.get()
        free.send(request)
        response, seconds = free.recv()
        self._free.put(free)
        self.milliseconds.append(seconds * 1_000)
        answer: dict[str, Any] = response
        return answer

    def end(self) -> None:
        """End the processes."""
        for connection in self._all:
            connection.send(None)
        for process in self._processes:
            process.join()


# The watchers


class Watcher:
    """A client that polls until it sees the end of the batch."""

    def __init__(self, number: int, batch_id: str, interval: float, *, summary: bool) -> None:
        """Take its number, which decides what it asks for.

        Args:
            number: Its number.
            batch_id: The batch.
            interval: Seconds between polls; 0 does what `Retry-After` says.
            summary: Whether to ask for the summary, which tells the moment of the count.
        """
        self.kind = KINDS[number % len(KINDS)]
        self._batch_id = batch_id
        self._interval = interval
        self._chance = random.Random(number)
        limit = self.kind.partition("=")[2] or "0"
        self._query = [("limit", limit), *([("include", "summary")] if summary else [])]
        self._held: tuple[str, Poll] | None = None
        self.polls: list[Poll] = []

    def watch(self, environments: Environments, stop: threading.Event) -> None:
        """Poll until the end of the batch or until stopped."""
        pause = self._chance.uniform(0, self._interval or 1.0)
        while not stop.wait(pause):
            began = time.time()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            if self.kind == "tag" and self._held:
                headers["If-None-Match"] = self._held[0]
            response = environments.ask(event(self._batch_id, headers, self._query))
            ended = time.time()
            poll = self._read(response, began, ended)
            self.polls.append(poll)
            if poll.finished:
                return
            waits = response["multiValueHeaders"].get("Retry-After", ["1"])[0]
            pause = max(began + self._interval - ended, 0.0) if self._interval else float(waits)

    def _read(self, response: dict[str, Any], began: float, ended: float) -> Poll:
        status = response["statusCode"]
        if status == HTTPStatus.NOT_MODIFIED and self._held:
            held = self._held[1]
            return Poll(self.kind, began, ended, status, held.told, held.as_of, held.total)
        if status != HTTPStatus.OK:
            return Poll(self.kind, began, ended, status)
        body = base64.b64decode(response["body"]) if response["isBase64Encoded"] else response["body"]
        data = json.loads(body)["data"]
        told = data["completed"] + data["failed"]
        as_of = datetime.fromisoformat(data["summary"]["as_of"]).timestamp() if "summary" in data else None
        adds_up = told + data["pending"] == data["total_urls"]
        poll = Poll(self.kind, began, ended, status, told, as_of, data["total_urls"], adds_up=adds_up)
        self._held = response["multiValueHeaders"]["ETag"][0], poll
        return poll


# One run


class Line:
    """The process of `partition.py`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def totals(self) -> Counter[str]:
        """Return the units, calls and refused calls so far."""
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/", b"{}", {"X-Amz-Target": "Partition.Totals"})
            return Counter(json.loads(connection.getresponse().read()))


@contextlib.contextmanager
def line(engine: str) -> Iterator[Line]:
    """Run the proxy in front of an engine while the block runs."""
    command = [sys.executable, "-m", "benchmarks.partition", engine, JOBS_TABLE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            yield Line(process.stdout.readline().strip())
        finally:
            process.terminate()


@contextlib.contextmanager
def stream(folder: Path, line: str, item: Item) -> Iterator[None]:
    """Run the revision function behind the table's stream while the block runs.

    Args:
        folder: Where its output goes.
        line: The address of the proxy.
        item: A job. It is changed until the function has counted a change, and then restored: the stream is read.
    """
    command = [sys.executable, "-m", "tests.hostile.stream"]
    variables = os.environ | {"AWS_ACCESS_KEY_ID": "revision"}
    with (
        (folder / "stream.txt").open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output) as process,  # noqa: S603  # our own
    ):
        try:
            client = faults.client(line)
            batch = {"TableName": JOBS_TABLE, "Key": table.batch_key(item["batch_id"]["S"])}
            before = client.get_item(**batch)["Item"]
            for number in count(1):
                # A write that changes nothing is not in the stream.
                client.put_item(TableName=JOBS_TABLE, Item=item | table.item(items_extracted=number))
                time.sleep(STREAM_SECONDS)
                counted = client.get_item(**batch)["Item"]["revision"] != before["revision"]
                if counted or process.poll() is not None:
                    break
            client.put_item(TableName=JOBS_TABLE, Item=item)
            yield
            if process.poll() is not None:
                sys.exit(f"watchers: the stream process ended: {(folder / 'stream.txt').read_text()[-500:]}")
        finally:
            process.terminate()


def run(options: argparse.Namespace, through: Line, jobs: int, watchers: int) -> dict[str, Any]:
    """Watch one batch to its end; return the results."""
    batch_id = f"batch_{jobs}_{watchers}"
    full = units(size(item) for item in batch_items(batch_id, jobs, 0, datetime.now(UTC)))
    tail = min(last_jobs(full), jobs // 2)
    left = min(int(options.seconds * WRITERS / JOB_SECONDS) + tail, jobs)
    items = list(batch_items(batch_id, jobs, left, datetime.now(UTC)))
    fill(through.address, items)
    here, there = _fork.Pipe()
    writers = _fork.Process(target=work, args=(batch_id, range(jobs - left, jobs), tail, there), daemon=True)
    with tempfile.TemporaryDirectory() as folder, stream(Path(folder), through.address, items[-1]):
        # Processes are forked before any thread starts.
        sys.stdout.flush()
        writers.start()
        environments = Environments(watchers, Path(folder))
        # An answer before the start, after which the proxy has the encoded rows.
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        probe = environments.ask(event(batch_id, bearer, [("limit", "0"), ("include", "summary")]))
        summary = probe["statusCode"] != HTTPStatus.UNPROCESSABLE_ENTITY
        environments.milliseconds.clear()
        clients = [Watcher(number, batch_id, options.interval, summary=summary) for number in range(watchers)]
        before = through.totals()
        began = time.time()
        here.send(None)
        history, totals = watched(clients, environments, jobs - left, here, through)
        environments.end()
        writers.join()
        log, refused = logged(Path(folder)), reasons(Path(folder))
    return {
        "watchers": watchers,
        "jobs": jobs,
        "count_units": full,
        "interval": options.interval,
        **results(clients, history, full, began),
        "ms": _percentiles(environments.milliseconds, 1),
        **consumed(before, totals[0], history.reached(jobs - tail) - began),
        "end": {
            "jobs": tail,
            "seconds": round(history.last - history.reached(jobs - tail), 1),
            "read_units": totals[1][READ] - totals[0][READ],
        },
        "reasons": refused,
        "tracebacks": log["tracebacks"],
    }


def watched(
    clients: Sequence[Watcher], environments: Environments, already: int, writers: Connection, through: Line
) -> tuple[History, tuple[Counter[str], Counter[str]]]:
    """Let the clients watch to the end.

    Returns:
        When the jobs ended; the proxy's totals when the last jobs began, and at the end.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(len(clients)) as pool:
        watching = [pool.submit(client.watch, environments, stop) for client in clients]
        try:
            writers.recv()
            under_work = through.totals()
            history = History(already, *writers.recv())
            totals = under_work, through.totals()
            wait(watching, PATIENCE_SECONDS)
        finally:
            stop.set()
        for each in watching:
            each.result()
    return history, totals


def results(clients: Sequence[Watcher], history: History, full: float, began: float) -> dict[str, Any]:
    """Judge the answers. Those after the last job are judged only for when the end was seen."""
    polls = [poll for client in clients for poll in client.polls if poll.ended <= history.last]
    seconds = history.last - began
    answered = [poll for poll in polls if poll.told >= 0]
    seen = ends_seen([client.polls for client in clients], history.last)
    judged = [right(poll, history, full) for poll in polls]
    return {
        "seconds": round(seconds, 1),
        "answers": len(polls),
        "per_second": round(len(polls) / seconds, 1),
        "statuses": {str(status): count for status, count in sorted(Counter(poll.status for poll in polls).items())},
        "right": round(sum(judged) / max(len(judged), 1), 4),
        "wrong": sum(not one for one, poll in zip(judged, polls, strict=True) if poll.told >= 0),
        "older_than_told": sum(older_than_told(poll, history) for poll in answered),
        "behind_s": _percentiles([history.behind(poll.told, poll.began) for poll in answered], 2),
        "told_age_s": _percentiles([max(poll.began - poll.as_of, 0) for poll in answered if poll.as_of], 1),
        "end_seen_s": {
            "first": round(seen[0], 2) if seen else None,
            "all": round(seen[-1], 2) if len(seen) == len(clients) else None,
            "unseen": len(clients) - len(seen),
        },
    }


def last_jobs(full: float) -> int:
    """Return how many jobs are left when as many change as are left before a kept count is too old.

    From then on the batch is counted more often, so that its end is seen. Their cost is reported by itself: the fewer
    jobs a run has, the larger is its share.
    """
    return ceil(full / UNITS_PER_SECOND * 2 * WRITERS / JOB_SECONDS) if full > SMALL_UNITS else 0


def consumed(before: Counter[str], after: Counter[str], seconds: float) -> dict[str, Any]:
    """Return units a second by who used them."""
    used = {name: units - before[name] for name, units in after.items()}
    refused = used.get(f"{PROGRESS} read refused", 0)

    def rate(name: str) -> float:
        return round(used.get(name, 0) / seconds, 2)

    return {
        "read_units_per_second": rate(READ),
        "token_read_units_per_second": rate(f"progress {TOKENS_TABLE} read units"),
        "write_units_per_second": rate(f"{PROGRESS} write units"),
        "revision_write_units_per_second": rate(f"revision {JOBS_TABLE} write units"),
        "worker_write_units_per_second": rate(f"writers {JOBS_TABLE} write units"),
        "reads_refused": round(refused / max(refused + used.get(f"{PROGRESS} read calls", 0), 1), 4),
    }


def reasons(folder: Path) -> dict[str, int]:
    """Return how many answers were a `503` for which reason, from the function's log lines."""
    lines = (line for log in folder.glob("*.log") for line in log.read_text(encoding="utf-8").splitlines())
    failed = (json.loads(line) for line in lines if '"message":"request"' in line and '"status":503' in line)
    return dict(Counter(told.get("dynamodb", {}).get("reason", told["outcome"]) for told in failed))


def _percentiles(values: Sequence[float], digits: int) -> dict[str, float]:
    if len(values) < 2:  # noqa: PLR2004  # the least for quantiles
        return {}
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], digits), "p99": round(cuts[98], digits), "max": round(max(values), digits)}


def text(row: dict[str, Any]) -> str:
    """Return the results of a run for the terminal."""
    answers = ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
    why = ", ".join(f"{reason}: {count:,}" for reason, count in row["reasons"].items()) or "none"
    behind, ms, seen = row["behind_s"], row["ms"], row["end_seen_s"]
    late = ", ".join(f"{name} {value} s" for name, value in behind.items())
    took = ", ".join(f"{name} {value} ms" for name, value in ms.items())
    reads, writes = row["read_units_per_second"], row["write_units_per_second"]
    return f"""{row["watchers"]} watchers of {row["jobs"]:,} jobs, {row["seconds"]:g} s until the last job
  a second: {reads:,} read units and {writes} write units of the function; a count takes {row["count_units"]:,}
  the last {row["end"]["jobs"]} jobs: {row["end"]["read_units"]:,} read units in {row["end"]["seconds"]} s
  reads refused {row["reads_refused"]:.1%}; write units a second: revision {row["revision_write_units_per_second"]}, \
workers {row["worker_write_units_per_second"]}
  answers {row["answers"]:,}, {row["per_second"]} a second ({answers}); right {row["right"]:.1%}, \
wrong counts {row["wrong"]}, older than told {row["older_than_told"]}, tracebacks {row["tracebacks"]}
  reasons of the 503s: {why}
  out of date: {late}; took: {took}
  end first seen after {seen["first"]} s, by all after {seen["all"]} s, not by {seen["unseen"]}"""


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw read units a second and the share of right answers by the number of watchers."""
    import matplotlib as mpl  # noqa: PLC0415  # slow

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter  # noqa: PLC0415

    figure, (spent, good) = plt.subplots(1, 2, figsize=(10.4, 4.2), dpi=150)
    for label, (name, colour) in SERIES.items():
        rows = sorted(
            (row for row in report.get(label, {}).get("runs", []) if (row["jobs"], row["interval"]) == CHARTED),
            key=lambda row: row["watchers"],
        )
        watchers = [row["watchers"] for row in rows]
        for axis, key in ((spent, "read_units_per_second"), (good, "right")):
            axis.plot(
                watchers, [row[key] for row in rows], label=name, color=colour, lw=2.2, marker="o", ms=4, zorder=3
            )
    spent.axhline(READS_PER_SECOND, color="#6b7280", lw=1.2, ls="--", label="limit of a partition")
    spent.set_title(f"Read units a second, {CHARTED[0]:,} jobs under work", fontsize=11)
    spent.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    spent.legend(frameon=False, fontsize=9, loc="center right")
    good.set_title("Share of answers that are right", fontsize=11)
    good.yaxis.set_major_formatter(PercentFormatter(1))
    for axis in (spent, good):
        axis.set_xlabel("watchers, each polling once a second")
        axis.set_xscale("log")
        axis.set_xticks([1, 2, 5, 10, 20, 50, 100], labels=["1", "2", "5", "10", "20", "50", "100"])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.grid(color="#e5e7eb", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 100])
    parser.add_argument("--jobs", type=int, nargs="+", default=[CHARTED[0]])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the writers work")
    parser.add_argument("--interval", type=float, default=CHARTED[1], help="seconds between polls; 0: Retry-After")
    parser.add_argument("--label", choices=SERIES, default="now", help="where to put the results in watchers.json")
    options = parser.parse_args()
    engine = os.environ.get("DYNAMODB_ENDPOINT")
    if engine is None:
        sys.exit("watchers: DYNAMODB_ENDPOINT is not set; run: make bench-watchers")
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with line(engine) as through:
        os.environ.update(environment(through.address) | {"AWS_ACCESS_KEY_ID": "progress"})
        client = faults.client(through.address)
        faults.make_tables(client)
        client.put_item(TableName=TOKENS_TABLE, Item=faults.token_item(TOKEN))
        # Imported once, before the environments are forked; it also makes the client, with these credentials.
        import functions.progress.app  # noqa: F401, PLC0415  # reads its settings from this process's environment

        for jobs in options.jobs:
            for watchers in options.watchers:
                row = run(options, through, jobs, watchers)
                print(text(row), flush=True)
                keep(report, options.label, row)
                RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, CHART)


def keep(report: dict[str, Any], label: str, row: dict[str, Any]) -> None:
    """Put the results of a run into the report, in place of those of the same setting."""

    def setting(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["jobs"], row["interval"], row["watchers"]

    runs = [one for one in report.get(label, {}).get("runs", []) if setting(one) != setting(row)]
    report[label] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "runs": sorted([*runs, row], key=setting),
    }


if __name__ == "__main__":
    main()
