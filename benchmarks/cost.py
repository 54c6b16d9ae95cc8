"""What the stack costs: the model of the tables in docs/operations.md, which `benchmarks.cost_tables` writes.

A bill is a list of quantities, each with its price from `prices.toml`. Quantities come from `results.json` (CPU time,
bytes sent), `watchers.json`, `supervision.json`, the template, and the assumptions below.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from math import ceil, exp
from typing import Any, Final

from batch_progress.table import Item
from benchmarks.report import RESULTS, ROOT
from benchmarks.workload import items
from local_cloud.template import read

OPERATIONS: Final = ROOT / "docs" / "operations.md"
WATCHERS: Final = ROOT / "benchmarks" / "watchers.json"
SUPERVISION: Final = ROOT / "benchmarks" / "supervision.json"
REGIONS: Final = ("us-east-1", "eu-central-1")
MILLION: Final = 1_000_000
TIMES: Final = "\N{MULTIPLICATION SIGN}"
# A month of 730 hours.
MONTH: Final = 730 * 3_600

# One read unit is a strongly consistent read of this size; an eventually consistent read costs half a unit.
UNIT_BYTES: Final = 4_096
PAGE_BYTES: Final = 1_048_576
# DynamoDB adds this to the size of each stored item.
ITEM_OVERHEAD: Final = 100
# The memory at which Lambda gives a full vCPU.
WHOLE_PROCESSOR_MB: Final = 1_769
# Assumed: time of a DynamoDB call, network included, beyond our own CPU time.
CALL_MS: Final = 5.0
# Assumed: billed time of the stream function for a delivery, and of the supervisor for a check of a small batch.
DELIVERY_MS: Final = 20
# Bytes logged, measured by tests/integration/test_cost.py: the function's line of a request, by outcome; those of a
# delivery of the stream and of a check; a line of the access log.
LOGGED: Final = {"answer": 268, "unchanged": 252, "refused": 233, "delivery": 0, "check": 309, "access": 415}
# Assumed: Lambda's own lines for the start and the report of an invocation.
PLATFORM_BYTES: Final = 600
HEADER_BYTES: Final = 500
ERROR_BYTES: Final = 900
# The body of an answer with `limit` that gives a kept count.
KEPT_BYTES: Final = 1_500
# A known token is looked up again after this time, by each environment, with a consistent read.
TOKEN_SECONDS: Final = 30
# Assumed: the number of execution environments that serve a small user's polls.
ENVIRONMENTS: Final = 2
# Lambda polls a queue without traffic: five receives in 20 seconds.
RECEIVES: Final = MONTH // 20 * 5
# A message is sent, received and deleted.
MESSAGE_REQUESTS: Final = 3
# DynamoDB asks KMS for a table's key at most once in five minutes for each principal that uses the table.
KEY_REQUESTS: Final = MONTH // 300
# X-Ray records the first request of each second, and this share of the others.
SAMPLED: Final = 0.05
# Metrics that the functions write themselves: malformed items.
EMBEDDED_METRICS: Final = 1
# CloudWatch's free tier, which does not expire: dashboards of an account with at most this many metrics each.
FREE_DASHBOARD_METRICS: Final = 50


@dataclass(frozen=True)
class Price:
    """A list price: dollars for `count` units, by region."""

    part: str
    what: str
    count: int
    dollars: dict[str, float]
    source: str
    date: str
    unconfirmed: tuple[str, ...]

    def of_one(self, region: str = REGIONS[0]) -> float:
        """Return the price of one unit."""
        return self.dollars[region] / self.count


def _prices() -> dict[str, Price]:
    found = {}
    for name, row in tomllib.loads((ROOT / "benchmarks" / "prices.toml").read_text(encoding="utf-8")).items():
        dollars = {region: float(row[region]) for region in REGIONS}
        unconfirmed = tuple(row.get("unconfirmed", ()))
        found[name] = Price(row["part"], row["what"], row["count"], dollars, row["source"], row["date"], unconfirmed)
    return found


PRICES: Final = _prices()
PARTS: Final = tuple(dict.fromkeys(price.part for price in PRICES.values()))


@dataclass(frozen=True)
class Use:
    """A quantity of something that has a price, and how it was computed."""

    price: str
    quantity: float
    how: str

    def dollars(self, region: str = REGIONS[0]) -> float:
        """Return what it costs."""
        return self.quantity * PRICES[self.price].of_one(region)


@dataclass(frozen=True)
class Bill:
    """What something uses."""

    name: str
    uses: tuple[Use, ...]

    def dollars(self, region: str = REGIONS[0]) -> float:
        """Return the total."""
        return sum(use.dollars(region) for use in self.uses)

    def parts(self, region: str = REGIONS[0]) -> dict[str, float]:
        """Return the cost by part of AWS's bill."""
        return {part: sum(use.dollars(region) for use in self.uses if PRICES[use.price].part == part) for part in PARTS}


# ---- The stack ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """Settings of the stack that decide its bill.

    Attributes:
        logged: The bytes of the lines of the functions and of the access log.
        traced: Whether X-Ray records traces.
        platform_bytes: The bytes of Lambda's own log lines for an invocation.
        metrics: The number of custom metrics without direct calls, if each is sent in every hour.
        route_metrics: The number of API Gateway's metrics by route.
        alarm_metrics: The number of metrics that alarms read.
        dashboard_metrics: The number of metrics on the dashboard.
    """

    logged: Mapping[str, int]
    traced: bool
    platform_bytes: int
    metrics: int
    route_metrics: int
    alarm_metrics: int
    dashboard_metrics: int

    @property
    def dashboards(self) -> int:
        """The number of dashboards to pay for: an account's first three are free if they have few metrics."""
        return int(self.dashboard_metrics > FREE_DASHBOARD_METRICS)


# Before X-Ray, metrics by route and Lambda's own lines became optional, and filters made metrics from the log lines.
# Polls use two routes, with five metrics each.
BEFORE: Final = Stack(
    logged={"answer": 890, "unchanged": 835, "refused": 815, "delivery": 410, "check": 800, "access": 415},
    traced=True,
    platform_bytes=PLATFORM_BYTES,
    metrics=23,
    route_metrics=10,
    alarm_metrics=17,
    dashboard_metrics=53,
)


def stack(template: dict[str, Any]) -> Stack:
    """Return the settings of a template with its defaults and with alarms, without direct calls."""
    resources = [(one["Type"], one["Properties"]) for one in template["Resources"].values()]
    alarms = [each for kind, each in resources if kind == "AWS::CloudWatch::Alarm"]
    filters = [each for kind, each in resources if kind == "AWS::Logs::MetricFilter"]
    functions = [each for kind, each in resources if kind == "AWS::Serverless::Function"]
    (api,) = (each for kind, each in resources if kind == "AWS::Serverless::Api")
    (dashboard,) = (each for kind, each in resources if kind == "AWS::CloudWatch::Dashboard")
    return Stack(
        logged=LOGGED,
        traced=template["Parameters"]["Tracing"]["Default"] == "true"
        or any(each["Tracing"] == "Active" for each in functions),
        platform_bytes=0
        if all(each["LoggingConfig"].get("SystemLogLevel") == "WARN" for each in functions)
        else PLATFORM_BYTES,
        metrics=EMBEDDED_METRICS
        + sum(not each["MetricTransformations"][0]["MetricName"].startswith("Direct") for each in filters),
        route_metrics=BEFORE.route_metrics if any(each.get("MetricsEnabled") for each in api["MethodSettings"]) else 0,
        alarm_metrics=sum(
            sum("MetricStat" in metric for metric in each["Metrics"]) if "Metrics" in each else 1 for each in alarms
        ),
        dashboard_metrics=len(set(dashboard_metrics(dashboard["DashboardBody"]["Fn::Sub"][0]))),
    )


def dashboard_metrics(body: str) -> Iterator[tuple[str, ...]]:
    """Yield each metric of a dashboard: its namespace, name and dimensions."""
    for widget in json.loads(body)["widgets"]:
        above: tuple[str, ...] = ()
        for line in widget["properties"].get("metrics", []):
            names = tuple(part for part in line if isinstance(part, str))
            if names:
                # CloudWatch's shorthand: "." repeats the value above, "..." the whole line.
                above = (
                    above
                    if names == ("...",)
                    else tuple(above[i] if each == "." else each for i, each in enumerate(names))
                )
                yield above


def sampled(per_second: float) -> float:
    """Return the share of requests that X-Ray records, if they arrive at random: the first of each second, then 5%."""
    first = (1 - exp(-per_second)) / per_second
    return first + SAMPLED * (1 - first)


# ---- A poll ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poll:
    """The resources of one request.

    Attributes:
        read_units: Of the jobs table and the tokens table.
        logged: Which of `LOGGED` the function writes; `None` if API Gateway refuses the request.
        sent_bytes: With headers.
    """

    name: str
    read_units: float
    billed_ms: int
    sent_bytes: int
    logged: str | None = "answer"

    def log_bytes(self, of: Stack) -> int:
        """Return the bytes of the function's log, of Lambda's own lines and of the access log."""
        return of.logged["access"] + (of.logged[self.logged] + of.platform_bytes if self.logged else 0)

    def uses(self, of: Stack, times: float = MILLION) -> Iterator[Use]:
        """Yield what such requests use, if they are spread evenly over a month."""
        if self.logged:
            yield Use("api_request", times, f"{times:,.0f} polls")
            yield Use("lambda_request", times, f"{times:,.0f} polls")
            yield gb_seconds(times, self.billed_ms, memory("ProgressFunction"))
        if self.read_units:
            yield Use("read_unit", times * self.read_units, f"{times:,.0f} {TIMES} {self.read_units:,.2f}")
        logged = self.log_bytes(of)
        yield Use("log_byte", times * logged, f"{times:,.0f} {TIMES} {logged:,} bytes")
        if of.traced and self.logged:
            share = sampled(times / MONTH)
            yield Use("trace", times * share, f"{share:.0%} of {times:,.0f}")
        yield Use("transfer_byte", times * self.sent_bytes, f"{times:,.0f} {TIMES} {self.sent_bytes:,} bytes")


def gb_seconds(times: float, milliseconds: float, megabytes: int) -> Use:
    """Return the billed memory and time of invocations."""
    quantity = times * milliseconds / 1_000 * megabytes / 1_024
    return Use(
        "lambda_gb_second", quantity, f"{times:,.0f} {TIMES} {milliseconds:,.0f} ms {TIMES} {megabytes / 1_024:g} GB"
    )


@cache
def memory(function: str) -> int:
    """Return a function's memory in MB, by default."""
    template = read()
    size = template["Resources"][function]["Properties"]["MemorySize"]
    return int(template["Parameters"]["MemorySize"]["Default"] if isinstance(size, dict) else size)


def size(item: Item) -> int:
    """Return the size of an item as DynamoDB counts it: names and strings in UTF-8, one byte per two digits."""
    total = 0
    for name, value in item.items():
        ((kind, text),) = value.items()
        total += len(name.encode()) + (ceil(len(text) / 2) + 1 if kind == "N" else len(text.encode()))
    return total


def units(sizes: Iterator[int]) -> float:
    """Return the read units of one query over items of these sizes; each page is rounded up to 4 KB."""
    total, page = 0.0, 0
    for one in sizes:
        page += one
        if page >= PAGE_BYTES:
            total, page = total + ceil(page / UNIT_BYTES) / 2, 0
    return total + ceil(page / UNIT_BYTES) / 2


def billed(cpu_ms: float, calls: int) -> int:
    """Return the billed milliseconds: CPU time at this memory's share of a vCPU, and waiting for DynamoDB."""
    return ceil(cpu_ms * WHOLE_PROCESSOR_MB / memory("ProgressFunction") + calls * CALL_MS)


@cache
def results() -> dict[str, Any]:
    """Return what `make bench` measured."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


@cache
def polls() -> tuple[Poll, ...]:
    """Return a poll without a change, then a full poll for each size of batch."""
    unchanged = results()["unchanged"]
    found = [Poll("unchanged (304), any size", 0.5, billed(unchanged["large_ms"], 1), HEADER_BYTES, "unchanged")]
    for jobs, row in results()["warm"].items():
        read_units = units(size(item) for item in items(int(jobs), datetime.now(UTC)))
        sent = row["gzip_bytes"] + HEADER_BYTES
        found.append(Poll(f"{int(jobs):,} jobs", read_units, billed(row["gzip_ms"], row["queries"]), sent))
    return tuple(found)


def full(jobs: int) -> Poll:
    """Return a full poll of a batch of this size."""
    return next(poll for poll in polls() if poll.name == f"{jobs:,} jobs")


@cache
def watched(jobs: int, watchers: int) -> Poll:
    """Return the average poll with a `limit` of clients that share a kept count, from `watchers.json`."""
    runs = json.loads(WATCHERS.read_text(encoding="utf-8"))["now"]["runs"]
    (run,) = (one for one in runs if (one["jobs"], one["watchers"], one["interval"]) == (jobs, watchers, 1))
    read_units = run["read_units_per_second"] / run["per_second"]
    counts = read_units / run["count_units"]
    milliseconds = ceil(billed(results()["kept"]["ms"], 1) + counts * full(jobs).billed_ms)
    who = "1 watcher" if watchers == 1 else f"{watchers} watchers"
    return Poll(f"{jobs:,} jobs, `limit`, {who}", round(read_units, 2), milliseconds, KEPT_BYTES + HEADER_BYTES)


def hostile() -> tuple[Poll, ...]:
    """Return requests of strangers. Assumed: as much CPU time as an unchanged poll."""
    cpu = results()["unchanged"]["large_ms"]
    sent = ERROR_BYTES + HEADER_BYTES
    return (
        Poll("no token (401)", 0, billed(cpu, 0), sent, "refused"),
        Poll("malformed token (401)", 0, billed(cpu, 0), sent, "refused"),
        Poll("made-up token (401)", 1, billed(cpu, 1), sent, "refused"),
        Poll("a valid token, another owner's batch (404)", 1, billed(cpu, 1), sent, "refused"),
        Poll("over the throttle (429)", 0, 0, sent, None),
    )


# ---- Bills ----------------------------------------------------------------------------------------------------------


def million(poll: Poll, of: Stack) -> Bill:
    """Return the bill of a million requests."""
    return Bill(poll.name, tuple(poll.uses(of)))


def idle(of: Stack) -> Bill:
    """Return the bill of a month without polls and batches. A custom metric costs only in hours with data."""
    return Bill("idle, with alarms", tuple(_fixed(of)))


def _fixed(of: Stack) -> Iterator[Use]:
    yield Use("alarm", of.alarm_metrics, f"{of.alarm_metrics}")
    yield Use("dashboard", of.dashboards, f"{of.dashboards}; it has {of.dashboard_metrics} metrics")
    yield Use("message", RECEIVES, "Lambda's receives, five in 20 seconds")
    yield Use("key_request", KEY_REQUESTS, "the stream's reader, one in 5 minutes")


def stream(of: Stack, deliveries: float = MONTH) -> Bill:
    """Return the bill of the stream function, by default if it runs in every second of a month."""
    return Bill("stream function, every second", tuple(_stream(of, deliveries)))


def _stream(of: Stack, deliveries: float) -> Iterator[Use]:
    yield Use("lambda_request", deliveries, f"{deliveries:,.0f} deliveries, one a second")
    yield gb_seconds(deliveries, DELIVERY_MS, memory("RevisionFunction"))
    yield Use("write_unit", deliveries, f"{deliveries:,.0f} updates of the batch")
    logged = of.logged["delivery"] + of.platform_bytes
    yield Use("log_byte", deliveries * logged, f"{deliveries:,.0f} {TIMES} {logged:,} bytes")
    if of.traced:
        yield Use("trace", deliveries, f"{deliveries:,.0f}: each is the first of its second")


@cache
def supervised() -> dict[int, dict[str, Any]]:
    """Return what supervising a batch used, by the number of its jobs, from `supervision.json`."""
    batches = json.loads(SUPERVISION.read_text(encoding="utf-8"))["batches"]
    return {int(jobs): row for jobs, row in batches.items()}


def supervision(row: dict[str, Any], of: Stack, batches: float = 1) -> Bill:
    """Return the bill of supervising batches, each of which used what the row says."""
    return Bill("supervision", tuple(_supervision(row, of, batches)))


def _supervision(row: dict[str, Any], of: Stack, batches: float) -> Iterator[Use]:
    checks, each = batches * row["invocations"], f"{batches:,.0f} batches {TIMES}"
    yield Use("read_unit", batches * row["read_units"], f"{each} {row['read_units']:,.0f}")
    yield Use("write_unit", batches * row["write_units"], f"{each} {row['write_units']:,}")
    messages = f"{each} {row['messages']:,} {TIMES} {MESSAGE_REQUESTS}"
    yield Use("message", batches * row["messages"] * MESSAGE_REQUESTS, messages)
    yield Use("event", batches * row["events"], f"{each} {row['events']}")
    yield Use("lambda_request", checks, f"{each} {row['invocations']:,} checks")
    yield gb_seconds(batches, row["milliseconds"], memory("SupervisorFunction"))
    logged = of.logged["check"] + of.platform_bytes
    yield Use("log_byte", checks * logged, f"{checks:,.0f} checks {TIMES} {logged:,} bytes")
    if of.traced:
        yield Use("trace", checks, f"{checks:,.0f} checks, each the first of its second")


def workers(row: dict[str, Any], batches: float = 1) -> Bill:
    """Return the bill of the workers' own writes."""
    how = f"{batches:,.0f} batches {TIMES} {row['worker_write_units']:,}"
    return Bill("the workers' own writes", (Use("write_unit", batches * row["worker_write_units"], how),))


# A small user's month: batches of this size, one after another, and a million polls, each of which finds a change.
SMALL_JOBS: Final = 50
KEPT_DAYS: Final = 30


def small(of: Stack) -> Bill:
    """Return the bill of a small user's month.

    A million polls with one token, each of which finds a change; batches of 50 jobs, one after another; the stream
    function runs in every second, as if more batches were at work; every custom metric has data in every hour.
    """
    row = supervised()[SMALL_JOBS]
    batches = MONTH / row["seconds"]
    stored = batches * (SMALL_JOBS + 1) * (_average(SMALL_JOBS) + ITEM_OVERHEAD) * KEPT_DAYS * 86_400 / MONTH
    lookups = ENVIRONMENTS * MONTH / TOKEN_SECONDS
    uses = [
        *full(SMALL_JOBS).uses(of),
        Use("read_unit", lookups, f"the token, {ENVIRONMENTS} environments, every {TOKEN_SECONDS} s"),
        *_stream(of, MONTH),
        *_supervision(row, of, batches),
        *_fixed(of),
        Use("key_request", 4 * KEY_REQUESTS, "four more users of the tables, one in 5 minutes each"),
        Use("metric", of.metrics, f"{of.metrics} of the logs"),
        Use("stored_gb", stored / 1e9, f"jobs of {KEPT_DAYS} days"),
        Use("recovery_gb", stored / 1e9, f"jobs of {KEPT_DAYS} days"),
    ]
    if of.route_metrics:
        uses.append(Use("metric", of.route_metrics, f"{of.route_metrics} of API Gateway, by route"))
    logged = sum(use.quantity for use in uses if use.price == "log_byte")
    uses.append(Use("stored_log_gb", logged / 1e9, f"the logs of {KEPT_DAYS} days, uncompressed"))
    return Bill("a small user's month", tuple(uses))


def _average(jobs: int) -> float:
    """Return the average size of an item of the workload."""
    sizes = [size(item) for item in items(jobs, datetime.now(UTC))]
    return sum(sizes) / len(sizes)


def dollars_an_hour(row: dict[str, Any]) -> float:
    """Return what the progress function's reads and writes of the jobs table cost in an hour."""
    reads = row["read_units_per_second"] * PRICES["read_unit"].of_one()
    writes = row["write_units_per_second"] * PRICES["write_unit"].of_one()
    return 3_600 * float(reads + writes)
