"""Load test: poll many batches for minutes while workers write, and check each answer: `make load`.

Everything on loopback is real: the handler in several processes behind the local gateway, the function behind the
stream, workers that record with `BatchRecorder`, and a local engine (`DYNAMODB_ENDPOINT`).

Clients and workers run in this process, so that each answer has bounds. It contains every write that had finished
before the request was sent, and no write that had not begun when the answer arrived. It never goes back behind an
earlier answer. A `304` is at most a minute late.
"""

import asyncio
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import batched
from pathlib import Path
from statistics import linear_regression, median, quantiles
from typing import Any, Final, NamedTuple

import httpx

from batch_progress import table
from batch_progress.errors import ServiceUnavailable
from batch_progress.recorder import BatchRecorder
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item, JobStatus, timestamp
from benchmarks.invocation import environment
from benchmarks.run import machine
from benchmarks.workload import JOBS_TABLE, OWNER, TOKEN, TOKENS_TABLE
from tests.hostile import faults
from tests.hostile.serving import ROOT, ready, serving

RESULTS: Final = Path(__file__).with_name("load.json")
JOBS: Final = 20
# The contract's minute, and a second for rounding.
LATE_SECONDS: Final = 60 + 1
QUERIES: Final = ("", "?limit=0", "?include=estimate", "?include=details")
SAMPLE_SECONDS: Final = 5
# Share of the time after which a process has allocated what it needs.
WARM_UP: Final = 0.2
# Allowed growth of a process's memory after the warm-up.
FLAT: Final = 1.05


def _setting(name: str, otherwise: float) -> float:
    return float(os.environ.get(name) or otherwise)


CLIENTS: Final = int(_setting("CLIENTS", 200))
SECONDS: Final = _setting("DURATION", 300)
BATCHES: Final = int(_setting("BATCHES", 1_000))
THINK_SECONDS: Final = _setting("THINK", 4)
WORKERS: Final = int(_setting("WORKERS", 4))
PAUSE_SECONDS: Final = _setting("PAUSE", 0.1)
PROCESSES: Final = int(_setting("PROCESSES", 2))


class Counts(NamedTuple):
    """The counts of a batch; each only grows."""

    completed: int = 0
    failed: int = 0
    items: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(*(one + more for one, more in zip(self, other, strict=True)))

    def within(self, least: "Counts", most: "Counts") -> bool:
        """Tell whether each count is within bounds."""
        return all(low <= one <= high for low, one, high in zip(least, self, most, strict=True))


NOTHING: Final = Counts()


@dataclass
class Truth:
    """The bounds of a batch's counts.

    Attributes:
        begun: The upper bound: writes that have begun.
        ended: The lower bound: writes that have finished.
        seen: The highest counts of any answer.
        times: When each end of a job was written, in order.
    """

    begun: Counts = NOTHING
    ended: Counts = NOTHING
    seen: Counts = NOTHING
    times: list[float] = field(default_factory=list)


def batch_id(number: int) -> str:
    """Return the id of a batch."""
    return f"batch_{number:06}"


def fill(engine: Any) -> None:  # noqa: ANN401  # botocore ships no types
    """Create the tables, a token, and batches whose jobs are all pending."""
    faults.make_tables(engine)
    engine.put_item(TableName=TOKENS_TABLE, Item=faults.token_item(TOKEN))
    created = timestamp(datetime.now(UTC))
    items: list[Item] = []
    for number in range(BATCHES):
        ident = batch_id(number)
        items.append(table.item(batch_id=ident, sk=BATCH_KEY, owner_id=OWNER, total_urls=JOBS, created_at=created))
        items += [
            table.item(
                batch_id=ident,
                sk=f"{JOB_PREFIX}job_{job:06}",
                url=f"https://example.com/{number}/{job}",
                status=JobStatus.PENDING,
            )
            for job in range(JOBS)
        ]
    for some in batched(items, 25, strict=False):
        engine.batch_write_item(RequestItems={JOBS_TABLE: [{"PutRequest": {"Item": item}} for item in some]})


class Workers:
    """Workers that start and end the jobs of their own batches, with a pause between jobs.

    Attributes:
        jobs: Number of jobs ended.
        repeated: Number of calls that were repeated after a `ServiceUnavailable`.
    """

    def __init__(self, truths: list[Truth]) -> None:
        self._truths = truths
        self.jobs = 0
        self.repeated = 0
        self.stop = threading.Event()

    def work(self, worker: int) -> None:
        """Process jobs until `stop` is set."""
        chance = random.Random(worker)
        recorder = BatchRecorder(JOBS_TABLE)
        todo = [(number, job) for number in range(worker, BATCHES, WORKERS) for job in range(JOBS)]
        chance.shuffle(todo)
        for number, job in todo:
            if self.stop.wait(chance.uniform(0, 2 * PAUSE_SECONDS)):
                return
            ids = batch_id(number), f"job_{job:06}"
            truth = self._truths[number]
            self._surely(recorder.start, *ids)
            items = chance.randrange(50)
            kind = chance.random()
            change = Counts(1, 0, items) if kind < 0.85 else Counts(0, 1, 0)  # 85% are completed
            truth.begun = truth.begun.plus(change)
            if change.completed:
                self._surely(recorder.complete, *ids, items)
            elif kind < 0.95:  # 10% fail, 5% are cancelled
                self._surely(recorder.fail, *ids, "TIMEOUT", "The page did not answer.")
            else:
                self._surely(recorder.cancel, *ids)
            truth.times.append(time.monotonic())
            truth.ended = truth.ended.plus(change)
            self.jobs += 1

    def _surely(self, call: Any, *arguments: Any) -> None:  # noqa: ANN401  # a method of the recorder
        while True:
            try:
                call(*arguments)
            except ServiceUnavailable:
                # As a queue would redeliver the message. The write may have happened: calls are idempotent.
                self.repeated += 1
            else:
                return


@dataclass(frozen=True)
class Held:
    """A client's last answer for a batch.

    Attributes:
        tag: Its ETag.
        counts: Its counts.
        at: When it arrived.
    """

    tag: str
    counts: Counts
    at: float


class Clients:
    """Clients that poll their own batches, half of them with ETags.

    Attributes:
        statuses: Number of answers by status.
        seconds: Duration of each request.
        late: Delay of each `304` that was late.
        wrong: Descriptions of wrong answers.
    """

    def __init__(self, truths: list[Truth], address: str) -> None:
        self._truths = truths
        self._address = address
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.late: list[float] = []
        self.wrong: list[str] = []

    async def poll(self, until: float) -> None:
        """Poll with all clients until a time."""
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=self._address, timeout=30, limits=limits) as http:
            await asyncio.gather(*(self._client(http, number, until) for number in range(CLIENTS)))

    async def _client(self, http: httpx.AsyncClient, client: int, until: float) -> None:
        chance = random.Random(client)
        own = range(client, BATCHES, CLIENTS)
        query = QUERIES[client // 2 % len(QUERIES)]
        held: dict[int, Held] = {}
        await asyncio.sleep(chance.uniform(0, THINK_SECONDS))
        while time.monotonic() < until:
            number = chance.choice(own)
            known = held.get(number) if client % 2 else None
            answer = await self._ask(http, number, query, known)
            if answer:
                held[number] = answer
            await asyncio.sleep(chance.uniform(0, 2 * THINK_SECONDS))

    async def _ask(self, http: httpx.AsyncClient, number: int, query: str, held: Held | None) -> Held | None:
        truth = self._truths[number]
        headers = {"X-API-Key": TOKEN} | ({"If-None-Match": held.tag} if held else {})
        least = Counts(*map(max, truth.ended, truth.seen))
        began = time.monotonic()
        try:
            response = await http.get(f"/api/v1/scrape/batch/{batch_id(number)}/progress{query}", headers=headers)
        except httpx.HTTPError as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
            return None
        most, now = truth.begun, time.monotonic()
        self.statuses[response.status_code] += 1
        self.seconds.append(now - began)
        if response.status_code == 304 and held:  # HTTP's Not Modified
            self._unchanged(truth, held, began)
            return None
        if response.status_code != 200:  # HTTP's OK
            self.wrong.append(f"{response.status_code}: {response.text[:200]}")
            return None
        data = response.json()["data"]
        counts = Counts(data["completed"], data["failed"], data["total_items_extracted"])
        if not counts.within(least, most):
            self.wrong.append(f"{batch_id(number)}: {counts}; at least {least}, at most {most}")
        if data["total_urls"] != JOBS or counts.completed + counts.failed + data["pending"] != JOBS:
            self.wrong.append(f"{batch_id(number)}: the counts do not add up: {data}"[:300])
        listed = Counter(job["status"] for job in data["jobs"])
        if data["jobs"] and (listed["completed"], listed.total()) != (counts.completed, JOBS):
            self.wrong.append(f"{batch_id(number)}: the listed jobs do not match the counts: {listed}")
        truth.seen = Counts(*map(max, truth.seen, counts))
        return Held(response.headers["ETag"], counts, now)

    def _unchanged(self, truth: Truth, held: Held, began: float) -> None:
        if began - held.at > LATE_SECONDS:
            self.wrong.append(f"304 for an ETag that is {began - held.at:.1f} s old")
        ends = held.counts.completed + held.counts.failed
        # The first end that is missing in the client's answer. The 304 is late if it was written before this request.
        if len(truth.times) > ends and truth.times[ends] < began:
            late = began - truth.times[ends]
            self.late.append(late)
            if late > LATE_SECONDS:
                self.wrong.append(f"304, {late:.1f} s late")


class Memory:
    """Resident memory of processes over time, in MB."""

    def __init__(self, pids: list[int]) -> None:
        self.samples: dict[int, list[tuple[float, float]]] = {pid: [] for pid in pids}

    async def watch(self, until: float) -> None:
        """Sample each process's memory until `until`, a time of the monotonic clock."""
        while time.monotonic() < until:
            for pid, samples in self.samples.items():
                samples.append((time.monotonic(), _resident_mb(pid)))
            await asyncio.sleep(SAMPLE_SECONDS)

    def told(self) -> list[dict[str, float]]:
        """Return the memory of each process after the warm-up and at the end, and the slope."""
        rows = []
        for samples in self.samples.values():
            warm = samples[int(len(samples) * WARM_UP) :]
            some = max(len(warm) // 5, 1)
            times, sizes = zip(*warm, strict=True)
            rows.append(
                {
                    "first_mb": round(samples[0][1], 1),
                    "start_mb": round(median(sizes[:some]), 1),
                    "end_mb": round(median(sizes[-some:]), 1),
                    "mb_per_minute": round(linear_regression(times, sizes).slope * 60, 3),
                }
            )
        return rows


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


async def campaign(address: str, pids: list[int], truths: list[Truth]) -> tuple[Clients, Workers, Memory]:
    """Poll and write for `DURATION` seconds."""
    clients, workers, memory = Clients(truths, address), Workers(truths), Memory(pids)
    with ThreadPoolExecutor(WORKERS) as pool:
        at_work = [pool.submit(workers.work, worker) for worker in range(WORKERS)]
        try:
            until = time.monotonic() + SECONDS
            await asyncio.gather(clients.poll(until), memory.watch(until))
        finally:
            workers.stop.set()
    for worker in at_work:
        worker.result()
    return clients, workers, memory


def logged(folder: Path) -> dict[str, Any]:
    """Return totals of the functions' log lines: outcomes, read units, errors."""
    written = "".join(log.read_text(encoding="utf-8", errors="replace") for log in folder.glob("*.log"))
    outcomes: Counter[str] = Counter()
    units = 0.0
    handler: list[float] = []
    for line in written.splitlines():
        if '"message":"request"' in line:
            told = json.loads(line)
            outcomes[told["outcome"]] += 1
            units += told["read_units"]
            handler.append(told["milliseconds"])
    return {
        "outcomes": dict(outcomes),
        "read_units": units,
        "read_units_per_request": round(units / max(outcomes.total(), 1), 3),
        "handler_p50_ms": round(median(handler), 1),
        "tracebacks": len(re.findall(r'"level":"ERROR"|Traceback', written)),
    }


def text(results: dict[str, Any]) -> str:
    """Return the results for the terminal."""
    machine, setting, ms = results["machine"], results["setting"], results["ms"]
    answers = ", ".join(f"{status}: {count:,}" for status, count in results["statuses"].items())
    log, late = results["log"], results["late_304"]
    asked = f"{setting['clients']} clients, {setting['batches']:,} batches of {setting['jobs']} jobs"
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {setting['seconds']:g} s",
        f"{asked}, {setting['processes']} processes, {setting['think_seconds']:g} s between polls",
        f"requests {results['requests']:,}, {results['per_second']} a second; {answers}",
        f"p50 {ms['p50']} ms, p95 {ms['p95']} ms, p99 {ms['p99']} ms; in the handler p50 {log['handler_p50_ms']} ms",
        f"304: {results['share_304']:.1%}; late {late['count']:,}, by at most {late['max_s']} s",
        f"read units {log['read_units']:,.0f}, {log['read_units_per_request']} a request",
        f"jobs ended {results['jobs_ended']:,}; repeated calls {results['calls_repeated']}",
    ]
    lines += [
        f"memory {row['start_mb']} MB after warm-up, {row['end_mb']} MB at the end, {row['mb_per_minute']:+} MB/min"
        for row in results["memory"]
    ]
    wrong = f"wrong {results['wrong']}, 5xx {results['server_errors']}, tracebacks {log['tracebacks']}"
    return "\n".join([*lines, wrong])


def main() -> None:
    """Run the load test, write and print the results; exit with 1 if anything is wrong."""
    endpoint = os.environ.get("DYNAMODB_ENDPOINT")
    if endpoint is None:
        sys.exit("load: DYNAMODB_ENDPOINT is not set; run: make load")
    os.environ.update(environment(endpoint))
    print("filling the tables ...", file=sys.stderr, flush=True)
    fill(faults.client(endpoint))
    truths = [Truth() for _ in range(BATCHES)]
    with tempfile.TemporaryDirectory() as folder:
        stream_log = Path(folder, "stream.log")
        with (
            stream_log.open("wb") as output,
            serving(PROCESSES, {}, Path(folder)) as (address, pids),
            subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.stream"], cwd=ROOT, stdout=output, stderr=output
            ) as stream,
        ):
            ready(address)
            print(f"polling for {SECONDS:g} s ...", file=sys.stderr, flush=True)
            try:
                clients, workers, memory = asyncio.run(campaign(address, pids, truths))
                alive = stream.poll() is None
            finally:
                stream.terminate()
        if not alive:
            sys.exit(f"load: the stream process ended: {stream_log.read_text(encoding='utf-8')[-500:]}")
        told = logged(Path(folder))
    cuts = [round(cut * 1_000, 1) for cut in quantiles(clients.seconds, n=100)]
    requests = clients.statuses.total()
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "botocore": version("botocore"), "httpx": version("httpx")},
        "engine": "DynamoDB Local",
        "setting": {
            "clients": CLIENTS,
            "batches": BATCHES,
            "jobs": JOBS,
            "seconds": SECONDS,
            "think_seconds": THINK_SECONDS,
            "workers": WORKERS,
            "processes": PROCESSES,
        },
        "requests": requests,
        "per_second": round(requests / SECONDS, 1),
        "statuses": {str(status): count for status, count in sorted(clients.statuses.items())},
        "share_304": round(clients.statuses[304] / requests, 4),
        "late_304": {"count": len(clients.late), "max_s": round(max(clients.late, default=0), 1)},
        "ms": {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": round(max(clients.seconds) * 1_000, 1)},
        "jobs_ended": workers.jobs,
        "calls_repeated": workers.repeated,
        "log": told,
        "memory": memory.told(),
        "wrong": len(clients.wrong),
        "server_errors": sum(count for status, count in clients.statuses.items() if status >= 500),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(text(results))
    grown = [row for row in memory.told() if row["end_mb"] > row["start_mb"] * FLAT]
    if clients.wrong or grown or told["tracebacks"]:
        what = f"load: {len(clients.wrong)} answers are wrong, {len(grown)} processes grew"
        sys.exit("\n".join(["", *clients.wrong[:20], what]))
    print("\nload: no answer is wrong, nothing grew")


if __name__ == "__main__":
    main()
