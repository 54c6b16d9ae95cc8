"""Fault injection: damage DynamoDB's answers in every way and at several rates, and check each answer: `make faults`.

The functions run unchanged, with their own timeouts and retries. The proxy of bad_line.py is between them and a real
engine (`DYNAMODB_ENDPOINT`); it caches reads, since a local engine is slower than the service.

An answer is right if it is the same as without faults, or a clean `503` in time after which a call without faults is
right. The revision function must have counted each batch that it does not report as failed.
"""

import base64
import gzip
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import botocore.session

from batch_progress import table
from batch_progress.settings import settings
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item
from benchmarks.invocation import environment, event
from benchmarks.run import machine
from benchmarks.workload import JOBS_TABLE, OWNER, TOKEN, TOKENS_TABLE
from local_cloud.lambda_context import LambdaContext
from local_cloud.stream import failed_from
from local_cloud.template import stream_mapping, tables, timeout_seconds
from tests.hostile.bad_line import Line, Mode, bad_line
from tests.integration.supervision import Unheard

RESULTS: Final = Path(__file__).with_name("faults.json")
SEED: Final = 7
MODES: Final[dict[str, tuple[Mode, ...]]] = {**{mode.value: (mode,) for mode in Mode}, "mixed": tuple(Mode)}
# Share of damaged answers -> rounds of all requests.
RATES: Final = {0.01: 24, 0.05: 10, 0.2: 5, 0.5: 3, 1.0: 1}
# Number of processes at once. They wait most of the time.
PROCESSES: Final = 8
PROGRESS_SECONDS: Final = timeout_seconds("ProgressFunction")
REVISION_SECONDS: Final = timeout_seconds("RevisionFunction")
# Without faults, even a busy machine answers within this time.
SETTLES_WITHIN_SECONDS: Final = 120
REVISED: Final = 4
# The number of times that Lambda delivers a batch before it gives up.
DELIVERIES: Final = 1 + stream_mapping().retries

ENDED: Final = ("completed", "completed", "failed", "cancelled", "completed")
GOING: Final = (*ENDED, "pending", "processing", "pending", "completed", "completed", "completed", "failed")
LONG: Final = 90
# Long URLs make three pages of few items, which a local engine reads fast.
LONG_URL: Final = 30_000
EXPIRED: Final = "expired-token"


# Data


def items() -> Iterator[Item]:
    """Yield the items of four batches: in progress, finished, of several pages, of another owner."""
    yield from _batch("batch_going", OWNER, GOING, 20)
    yield from _batch("batch_ended", OWNER, ENDED, 20)
    yield from _batch("batch_long", OWNER, [GOING[number % len(GOING)] for number in range(LONG)], LONG_URL)
    yield from _batch("batch_stranger", "stranger", ENDED, 20)


def token_item(token: str) -> Item:
    """Return the item of a token of `OWNER`."""
    return {"token_hash": {"S": hashlib.sha256(token.encode()).hexdigest()}, "owner_id": {"S": OWNER}}


def _batch(batch_id: str, owner: str, statuses: tuple[str, ...] | list[str], url_letters: int) -> Iterator[Item]:
    yield table.item(
        batch_id=batch_id,
        sk=BATCH_KEY,
        owner_id=owner,
        total_urls=len(statuses),
        created_at="2024-12-16T10:00:00.000Z",
        revision=1,
    )
    for number, status in enumerate(statuses):
        timed = status in ("completed", "failed")
        yield table.item(
            batch_id=batch_id,
            sk=f"{JOB_PREFIX}job_{number:06}",
            url=f"https://example.com/{'x' * url_letters}{number}",
            status=status,
            items_extracted=number * 3,
            started_at=f"2024-12-16T10:00:{number % 60:02}.000Z" if timed else None,
            finished_at=f"2024-12-16T10:01:{number % 60:02}.000Z" if timed else None,
        )


def make_tables(client: Any) -> None:  # noqa: ANN401  # botocore ships no types
    """Create the template's tables under the names in the functions' environment."""
    names = {"JobsTable": JOBS_TABLE, "TokensTable": TOKENS_TABLE}
    for declared in tables():
        client.create_table(**declared | {"TableName": names[declared["TableName"]]})


def fill(client: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401  # botocore ships no types
    """Fill the tables; return the expected counts of each batch."""
    jobs_table, tokens_table = settings().jobs_table, settings().tokens_table
    for token, more in ((TOKEN, {}), (EXPIRED, {"expires_at": {"N": "1734343200"}})):
        client.put_item(TableName=tokens_table, Item=token_item(token) | more)
    counts: dict[str, Counter[str]] = {}
    for item in items():
        client.put_item(TableName=jobs_table, Item=item)
        count = counts.setdefault(item["batch_id"]["S"], Counter())
        if item["sk"]["S"] != BATCH_KEY:
            count["total"] += 1
            count[item["status"]["S"]] += 1
            count["items"] += int(item["items_extracted"]["N"])
    return {
        batch_id: (count["total"], count["completed"], count["failed"] + count["cancelled"], count["items"])
        for batch_id, count in counts.items()
    }


# Requests


@dataclass(frozen=True)
class Ask:
    """A request.

    Attributes:
        name: Its name in reports.
        batch_id: The batch.
        query: Query parameters.
        headers: Additional headers; they may replace the token.
        method: The HTTP method, or `DIRECT` for a direct invocation.
        tag: An ETag of an earlier answer, which is sent with a current time.
    """

    name: str
    batch_id: str = "batch_going"
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    tag: str | None = None

    def event(self) -> dict[str, Any]:
        """Return the event."""
        if self.method == "DIRECT":
            return {"batch_id": self.batch_id, **self.query}
        headers = {"Authorization": f"Bearer {TOKEN}", **self.headers}
        if self.tag is not None:
            eta_and_digest = self.tag.partition(".")[2]
            headers["If-None-Match"] = f'W/"{int(time.time())}.{eta_and_digest}'
        return event(self.batch_id, headers, self.query.items(), self.method)


ASKS: Final = (
    Ask("going on"),
    Ask("ended", "batch_ended"),
    Ask("several pages", "batch_long"),
    Ask("several pages, gzip", "batch_long", headers={"Accept-Encoding": "gzip"}),
    Ask("details", query={"include": "details,estimate"}),
    Ask("counts", "batch_long", {"limit": "0"}),
    Ask("any tag", headers={"If-None-Match": "*"}),
    Ask("old tag", headers={"If-None-Match": 'W/"1.0.0123456789abcdef01234567"'}),
    Ask("head", "batch_ended", method="HEAD"),
    Ask("direct", "batch_long", method="DIRECT"),
    Ask("no batch", "batch_none"),
    Ask("a stranger's batch", "batch_stranger"),
    Ask("a stranger's batch, with a tag", "batch_stranger", headers={"If-None-Match": "*"}),
    Ask("unknown token", headers={"Authorization": "Bearer unknown-token"}),
    Ask("expired token", headers={"Authorization": f"Bearer {EXPIRED}"}),
)
WALKS: Final = (
    Ask("walk", "batch_ended", {"limit": "2"}),
    Ask("walk, several pages", "batch_long", {"limit": "40"}),
    Ask("walk, one status", "batch_long", {"limit": "20", "status": "failed"}),
)


@dataclass(frozen=True)
class Told:
    """The parts of an answer that are the same each time.

    Attributes:
        status: The HTTP status.
        code: The error code, or an empty string.
        body: The body without request ids and times.
        headers: The headers; they are not compared.
    """

    status: int
    code: str
    body: Any
    headers: dict[str, str] = field(compare=False)

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Self:
        """Read a proxy response or a direct answer."""
        if "statusCode" not in answer:
            return cls(answer.get("error", {}).get("status", 200), *_said(answer), {})
        headers = {name: values[0] for name, values in answer["multiValueHeaders"].items()}
        text = answer["body"] or ""
        if answer["isBase64Encoded"]:
            text = gzip.decompress(base64.b64decode(text)).decode()
        code, body = _said(json.loads(text)) if text else ("", None)
        return cls(answer["statusCode"], code, body, headers)

    @property
    def unavailable(self) -> bool:
        """Whether this is a clean `503`, the only failure that is allowed."""
        if self.status != 503 or (self.body is not None and self.code != "SERVICE_UNAVAILABLE"):  # HTTP's
            return False
        if not self.headers:
            return True
        return (
            1 <= int(self.headers.get("Retry-After", "0")) <= 60  # the contract's seconds
            and self.headers["Cache-Control"] == "no-store"
            and "WWW-Authenticate" not in self.headers
        )


def _said(envelope: dict[str, Any]) -> tuple[str, Any]:
    if not envelope["success"]:
        error = dict(envelope["error"])
        del error["trace_id"], error["timestamp"]
        return error["code"], error
    data = dict(envelope["data"])
    if data["pending"]:
        # The forecast changes with time.
        for own in ("estimated_completion", "estimate", "next_cursor"):
            data.pop(own, None)
    return "", data


# Results


@dataclass
class Row:
    """The results of one kind of damage at one rate.

    Attributes:
        mode: The kind of damage.
        rate: The share of damaged answers.
        spoilt: Number of damaged DynamoDB answers.
        right: Number of right answers.
        unavailable: Number of clean `503`; for the revision function, of deliveries with failed items.
        wrong: Descriptions of all other answers.
        recovered: Number of `503` after which a call without faults was right.
        milliseconds: Duration of each answer.
    """

    mode: str
    rate: float
    spoilt: int = 0
    right: int = 0
    unavailable: int = 0
    wrong: list[str] = field(default_factory=list)
    recovered: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """Return the row of the results."""
        return {
            "mode": self.mode,
            "rate": self.rate,
            "answers": self.right + self.unavailable + len(self.wrong),
            "spoilt": self.spoilt,
            "right": self.right,
            "unavailable": self.unavailable,
            "recovered": self.recovered,
            "wrong": len(self.wrong),
            "p50_ms": round(median(self.milliseconds), 1),
            "max_ms": round(max(self.milliseconds), 1),
        }


class Progress:
    """The progress function, connected through a line."""

    def __init__(self, line: Line, counts: dict[str, tuple[int, ...]]) -> None:
        """Send every request without faults, and check the answers against the stored data.

        Raises:
            SystemExit: An answer is wrong without faults.
        """
        from functions.progress import app  # noqa: PLC0415  # reads the address of the line

        self._app = app
        self._line = line
        # As in a new execution environment: cached clients have connections to an earlier line.
        for factory in (app._store, app._counts, app._large, app._tokens, app._client):
            factory.cache_clear()
        self._right = [(ask, self._settled(ask)) for ask in _asks(self)]
        for ask, told in self._right:
            if told.unavailable:
                sys.exit(f"faults: {ask.name} on a good line: {told.status} {told.code}")
            stored = counts.get(ask.batch_id)
            if told.status == 200 and told.body and stored != _counts(told.body):  # HTTP's OK
                sys.exit(f"faults: {ask.name} without faults: {_counts(told.body)}; stored: {stored}")

    def _ask(self, ask: Ask) -> Told:
        return Told.read(self._app.handler(ask.event(), LambdaContext(PROGRESS_SECONDS)))

    def _settled(self, ask: Ask) -> Told:
        """Ask on the good line until the answer is no 503: a busy machine may time out here too."""
        until = time.monotonic() + SETTLES_WITHIN_SECONDS
        while (told := self._ask(ask)).unavailable and time.monotonic() < until:
            pass
        return told

    def first(self, ask: Ask) -> tuple[Told, str | None]:
        """Send a request; return the answer and its cursor."""
        answer = self._app.handler(ask.event(), LambdaContext(PROGRESS_SECONDS))
        return Told.read(answer), json.loads(answer["body"])["data"].get("next_cursor")

    def disturbed(self, row: Row, times: int) -> None:
        """Send every request `times` times with faults."""
        for turn in range(times):
            for number, (ask, right) in enumerate(self._right):
                if (turn + number) % 2:
                    # A cached token needs no read: clear the cache for half of the requests.
                    self._app._tokens.cache_clear()
                self._judge(row, ask, right)

    def _judge(self, row: Row, ask: Ask, right: Told) -> None:
        self._line.rate = row.rate
        began = time.monotonic()
        told = self._ask(ask)
        seconds = time.monotonic() - began
        row.milliseconds.append(seconds * 1_000)
        self._line.rate = 0
        if seconds >= PROGRESS_SECONDS:
            row.wrong.append(f"{ask.name}: {seconds:.1f} s")
        elif told == right:
            row.right += 1
        elif told.unavailable:
            row.unavailable += 1
            again = self._settled(ask)
            if again == right:
                row.recovered += 1
            else:
                row.wrong.append(f"{ask.name}, then without faults: {again.status} {again.code}")
        else:
            row.wrong.append(f"{ask.name}: {told.status} {told.code} {str(told.body)[:200]}")


def _counts(data: dict[str, Any]) -> tuple[int, ...]:
    return tuple(data[name] for name in ("total_urls", "completed", "failed", "total_items_extracted"))


def _asks(progress: Progress) -> Iterator[Ask]:
    """Yield all requests, including each page of each walk."""
    yield from ASKS
    tag = progress.first(Ask("", "batch_ended"))[0].headers["ETag"]
    yield Ask("tag that holds", "batch_ended", tag=tag)
    for walk in WALKS:
        yield walk
        _, cursor = progress.first(walk)
        while cursor:
            page = Ask(walk.name, walk.batch_id, {**walk.query, "cursor": cursor})
            yield page
            _, cursor = progress.first(page)


class Revision:
    """The revision function, connected through a line."""

    def __init__(self, line: Line, engine: Any) -> None:  # noqa: ANN401  # botocore ships no types
        """Take the line, and a client of the engine itself."""
        from functions.revision import app  # noqa: PLC0415  # reads the address of the line

        self._app = app
        self._line = line
        self._engine = engine
        self._table = settings().jobs_table
        app._revisions.cache_clear()  # as a new environment has none
        app._client.cache_clear()
        app._chains.cache_clear()
        # This engine has no queue.
        app._queue = Unheard  # type: ignore[assignment]

    def disturbed(self, row: Row, times: int) -> None:
        """Run `times` rounds: create batches, and deliver their changes with faults until all are counted."""
        for turn in range(times):
            batches = [f"batch_{row.mode}_{row.rate:g}_{turn}_{number}" for number in range(REVISED)]
            for batch_id in batches:
                item = table.item(batch_id=batch_id, sk=BATCH_KEY, owner_id=OWNER)
                self._engine.put_item(TableName=self._table, Item=item)
            self._deliver(row, batches)

    def _deliver(self, row: Row, batches: list[str]) -> None:
        records: list[dict[str, Any]] = [
            {"dynamodb": {"Keys": table.job_key(batch_id, "a"), "SequenceNumber": str(number)}}
            for number, batch_id in enumerate(batches)
        ]
        for delivery in range(DELIVERIES):
            # Redeliver as Lambda does; the last delivery is without faults.
            self._line.rate = row.rate if delivery < DELIVERIES - 1 else 0
            began = time.monotonic()
            answer = self._app.handler({"Records": records}, LambdaContext(REVISION_SECONDS))
            failed = {int(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]}
            seconds = time.monotonic() - began
            row.milliseconds.append(seconds * 1_000)
            row.unavailable += bool(failed)
            row.right += not failed
            if seconds >= REVISION_SECONDS:
                row.wrong.append(f"revision: {seconds:.1f} s")
            for number in range(len(batches)):
                if number not in failed and not self._revision(batches[number]):
                    row.wrong.append(f"revision: {batches[number]} is neither counted nor reported as failed")
            if not failed:
                row.recovered += delivery
                return
            records = failed_from(records, answer)
        row.wrong.append("revision: it reports failures without faults")

    def _revision(self, batch_id: str) -> int:
        key = table.batch_key(batch_id)
        item = self._engine.get_item(TableName=self._table, Key=key, ConsistentRead=True)["Item"]
        return int(item.get("revision", {"N": "0"})["N"])


@dataclass(frozen=True)
class Cell:
    """A task of one process: a function, a kind of damage and a rate."""

    function: str
    mode: str
    rate: float
    seed: int
    counts: dict[str, tuple[int, ...]]


def client(endpoint: str) -> Any:  # noqa: ANN401  # botocore ships no types
    """Return a plain botocore client of an engine."""
    return botocore.session.Session().create_client("dynamodb", endpoint_url=endpoint)


def disturb(cell: Cell) -> tuple[Row, str]:
    """Run one cell; return its results and the name of its function."""
    engine = os.environ["DYNAMODB_ENDPOINT"]
    row = Row(cell.mode, cell.rate)
    line = Line(engine, cell.seed, remembers=cell.function == "progress", modes=MODES[cell.mode])
    with bad_line(line), redirect_stdout(_nowhere):
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = line.address
        if cell.function == "progress":
            Progress(line, cell.counts).disturbed(row, RATES[cell.rate])
        else:
            Revision(line, client(engine)).disturbed(row, RATES[cell.rate] * 3)
        row.spoilt = line.spoilt.total()
    return row, cell.function


def prepare(endpoint: str) -> None:
    """Set up the environment of a function in this process, and discard its log."""
    os.environ.update(environment(endpoint))
    global _nowhere  # noqa: PLW0603  # once per process
    _nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open until the process ends
    with redirect_stdout(_nowhere):
        # Loggers keep the stdout of their import.
        from functions.progress import app as _progress  # noqa: F401, PLC0415
        from functions.revision import app as _revision  # noqa: F401, PLC0415


_nowhere: Any = None


def text(results: dict[str, Any]) -> str:
    """Return the results for the terminal."""
    machine = results["machine"]
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {results['seconds']} s, seed {results['seed']}"
    ]
    for function in ("progress", "revision"):
        failed = "503" if function == "progress" else "back"
        heads = ("rate", "answers", "spoilt", "right", failed, "recovered", "wrong", "p50 ms", "max ms")
        lines += ["", f"{function:<10}" + "".join(f"{head:>10}" for head in heads)]
        lines += [
            f"{row['mode']:<10}{row['rate']:>10.0%}{row['answers']:>10}{row['spoilt']:>10}{row['right']:>10}"
            f"{row['unavailable']:>10}{row['recovered']:>10}{row['wrong']:>10}{row['p50_ms']:>10,.0f}{row['max_ms']:>10,.0f}"
            for row in results[function]
        ]
    return "\n".join(lines)


def main() -> None:
    """Run every cell, write and print the results; exit with 1 if any answer is wrong."""
    endpoint = os.environ.get("DYNAMODB_ENDPOINT")
    if endpoint is None:
        sys.exit("faults: DYNAMODB_ENDPOINT is not set; run: make faults")
    began = time.monotonic()
    os.environ.update(environment(endpoint))
    engine = client(endpoint)
    make_tables(engine)
    counts = fill(engine)
    cells = [
        Cell(function, mode, rate, SEED + number, counts)
        for function in ("progress", "revision")
        for number, (mode, rate) in enumerate((mode, rate) for mode in MODES for rate in sorted(RATES, reverse=True))
    ]
    rows: dict[str, list[Row]] = {"progress": [], "revision": []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn, prepare, (endpoint,)) as pool:
        for row, function in pool.map(disturb, cells):
            print(f"{function}, {row.mode}, {row.rate:.0%}", file=sys.stderr, flush=True)
            rows[function].append(row)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "botocore": version("botocore")},
        "engine": "DynamoDB Local",
        "seed": SEED,
        **{
            function: [row.told() for row in sorted(each, key=lambda row: (list(MODES).index(row.mode), row.rate))]
            for function, each in rows.items()
        },
    }
    wrong = [f"{row.mode}, {row.rate:.0%}: {each}" for every in rows.values() for row in every for each in row.wrong]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(text(results))
    if wrong:
        sys.exit("\n".join(["", *wrong[:20], f"faults: {len(wrong)} answers are wrong"]))
    print("\nfaults: no answer is wrong")


if __name__ == "__main__":
    main()
