"""docs/operations.md agrees with the template, the log lines and the measured costs."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.cost import OPERATIONS
from local_cloud.template import read
from tests.integration.test_revision import record
from tests.integration.world import World, event, progress_path, unique

TEXT = OPERATIONS.read_text(encoding="utf-8")
TEMPLATE = read()
# The blocks without a language are queries. The last log group that is named before a query is its own.
BLOCK = re.compile(r"`(/aws/[\w/-]+)`|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = {"/aws/lambda/batch-progress-": "", "/aws/apigateway/batch-progress": "access"}


def _queries() -> list[tuple[str, str]]:
    """Return each query with its log group: `progress`, `revision`, `supervisor` or `access`."""
    found, group = [], ""
    for named, language, block in BLOCK.findall(TEXT):
        if named:
            (group,) = (short or named.removeprefix(long) for long, short in SHORT.items() if named.startswith(long))
        elif not language:
            found.append((group, block))
    return found


QUERIES = _queries()
# Words of CloudWatch Logs Insights that are not fields, and those that begin a step of a query.
STEPS = {"fields", "filter", "stats", "sort", "limit"}
WORDS = STEPS | {"by", "as", "like", "in", "or", "and", "desc", "count", "sum", "max", "latest"}
# What Lambda writes when a function crashes: its runtime client's line, which tests/engines/test_runtime.py checks, and
# its report of an invocation that did not succeed.
CRASH = {"timestamp", "level", "errorMessage", "errorType", "requestId", "stackTrace"}
# The level's name in earlier versions of the client.
EARLIER = {"log_level"}
REPORT = {"time", "type", "record.requestId", "record.status"}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading."""
    table = re.search(r"(?:^\|.*\n)+", TEXT.partition(f"\n## {heading}\n")[2], re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


HANDLE = """
import importlib, json, sys
from tests.integration.world import Context
event = json.loads(sys.argv[2])
importlib.import_module(f"functions.{sys.argv[1]}.app").handler(event, Context(60))
"""


def _handled(function: str, record: object, **variables: str) -> str:
    """Let a process of its own handle a record, and return its log."""
    event = json.dumps({"Records": [record]})
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", HANDLE, function, event],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return done.stdout


def _check(batch_id: str) -> dict[str, str]:
    return {"messageId": "1", "body": json.dumps({"batch_id": batch_id, "number": 1})}


def _names(line: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the names that Logs Insights gives to the fields of a line."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _names(value, f"{above}{name}.")
        else:
            yield above + name


def _lines(log: str) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line for line in found if "level" in line]


NOTHING_LISTENS = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def logged(world: World) -> dict[str, list[dict[str, Any]]]:
    """The lines that the functions write, by function."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"good": {}})
    request = event("GET", progress_path(batch_id), world.key())
    progress = world.elsewhere(request).log
    progress += world.elsewhere(request, BATCH_PROGRESS_JOBS_TABLE="no").log
    world.put_jobs(batch_id, {"bad": {"status": "no such"}})
    progress += world.elsewhere(request).log
    progress += world.elsewhere({"batch_id": batch_id}, AWS_ENDPOINT_URL_DYNAMODB=NOTHING_LISTENS).log
    change = record(batch_id)
    revision = _handled("revision", change, AWS_ENDPOINT_URL_DYNAMODB=NOTHING_LISTENS)
    revision += _handled("revision", change, BATCH_PROGRESS_JOBS_TABLE="no-such-table")
    # The first one succeeds, because the batch does not exist. The others fail: no queue, no table, and no check.
    supervisor = _handled("supervisor", _check(unique("none")))
    supervisor += _handled("supervisor", _check(world.put_batch(total_urls=1)))
    supervisor += _handled("supervisor", _check(unique("none")), BATCH_PROGRESS_JOBS_TABLE="no-such-table")
    supervisor += _handled("supervisor", {"messageId": "1", "body": "{"})
    logs = {"progress": progress, "revision": revision, "supervisor": supervisor}
    return {name: _lines(log) for name, log in logs.items()}


@pytest.mark.parametrize(("group", "query"), QUERIES, ids=range(len(QUERIES)))
def test_a_query_asks_for_what_is_logged(logged: dict[str, list[dict[str, Any]]], group: str, query: str) -> None:
    """Its fields are in lines of its log group: if it asks for a message, in lines with that message."""
    steps = [step.split()[0] for step in query.split("\n| ")]
    assert set(steps) <= STEPS
    bare = re.sub(r'"[^"]*"|/[^/\n]*/', "", query)
    made = set(re.findall(r"\bas (\w+)", bare))
    named = set(re.findall(r"(?<![@.\w])[A-Za-z_][\w.]*", bare)) - WORDS - made
    assert named
    if group == "access":
        access = json.loads(TEMPLATE["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Format"])
        assert named <= access.keys()
        return
    messages = set(re.findall(r'message = "([^"]*)"', query))
    lines = [line for line in logged[group] if not messages or line["message"] in messages]
    assert messages <= {line["message"] for line in lines}
    fields = {name for line in lines for name in _names(line)}
    assert named <= (fields if messages else fields | CRASH | EARLIER | REPORT)
    # What is sorted by is a field or a result.
    assert set(re.findall(r"^\| sort @?(\w+)", bare, re.MULTILINE)) <= named | made | {"timestamp"}


def test_a_failure_has_one_traceback(logged: dict[str, list[dict[str, Any]]]) -> None:
    """Which the runbook's query shows."""
    failed = [line for line in logged["progress"] if line["level"] == "ERROR"]
    assert [1] == [json.dumps(line).count("Traceback (most recent call last)") for line in failed]


def test_the_data_of_an_owner_is_deleted_and_no_other(world: World) -> None:
    """By the runbook's program: batches of more jobs than one write takes, and tokens that name an issuer too."""
    (block,) = re.findall(r"^```sh\n([^`]*batch_writer.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    owner, other, issuer = unique("owner"), unique("owner"), "https://issuer.example.com"
    batch_ids = [world.put_batch(owner=name) for name in (owner, owner, other)]
    for batch_id in batch_ids:
        world.put_jobs(batch_id, ["pending"] * 30)
    tokens = [world.put_token(owner=owner), world.put_token(owner=other), world.put_token(owner=owner, issuer=issuer)]

    def delete(name: str) -> str:
        command = block.replace(".venv/bin/python", sys.executable)
        command = command.replace("JobsTable TokensTable alice", f"{world.jobs_table} {world.tokens_table} '{name}'")
        return subprocess.check_output(["/bin/sh", "-ec", command], text=True, timeout=240)  # noqa: S603  # the document's own

    def left() -> tuple[list[int], list[bool]]:
        """Return the number of items of each batch, and which tokens exist."""
        condition = {"KeyConditionExpression": "batch_id = :id", "Select": "COUNT", "TableName": world.jobs_table}
        queries = [
            world.dynamodb.query(ExpressionAttributeValues={":id": {"S": batch_id}}, **condition)
            for batch_id in batch_ids
        ]
        keys = [{"token_hash": {"S": hashlib.sha256(token.encode()).hexdigest()}} for token in tokens]
        found = [world.dynamodb.get_item(TableName=world.tokens_table, Key=key) for key in keys]
        return [one["Count"] for one in queries], ["Item" in one for one in found]

    assert ([31, 31, 31], [True, True, True]) == left()
    assert f"deleted 2 batches of {owner}\n" == delete(owner)
    assert ([0, 0, 31], [False, True, True]) == left()
    assert f"deleted 0 batches of {issuer}#{owner}\n" == delete(f"{issuer}#{owner}")
    assert ([0, 0, 31], [False, True, False]) == left()


def test_every_log_group_that_is_named_is_there() -> None:
    groups = [one["Properties"] for one in TEMPLATE["Resources"].values() if one["Type"] == "AWS::Logs::LogGroup"]
    names = {group["LogGroupName"]["Fn::Sub"].replace("${AWS::StackName}", "batch-progress") for group in groups}
    assert names == set(re.findall(r"`(/aws/[\w/-]+)`", TEXT))


def test_every_parameter_is_in_the_table() -> None:
    """The table has each parameter with its default."""
    told: dict[str, str] = {}
    for names, defaults, _ in rows("Deploy"):
        parameters = re.findall(r"`(\w+)`", names)
        told |= zip(parameters, defaults.split(", "), strict=True)
    assert {name: str(one["Default"]) or "none" for name, one in TEMPLATE["Parameters"].items()} == {
        name: default.strip("`") for name, default in told.items()
    }


def test_every_alarm_is_in_the_table() -> None:
    alarms = [one["Properties"] for one in TEMPLATE["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    names = {alarm["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-") for alarm in alarms}
    assert names == {name.strip("`") for name, *_ in rows("Alarms")}


def test_every_alarm_has_a_command_for_the_night() -> None:
    """Its section has a shell block, which tests/engines/test_deploy.py runs on the emulator."""
    sections = re.split(r"^### ", TEXT.partition("\n## Alarms\n")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    named = {section.splitlines()[0]: "```sh\n" in section for section in sections}
    assert {name.strip("`"): True for name, *_ in rows("Alarms")} == named


def numbers(page: str) -> tuple[Any, ...]:
    """Return an alarm's threshold, datapoints to alarm, evaluation periods and seconds of a period."""
    (alarm,) = (
        one["Properties"]
        for one in TEMPLATE["Resources"].values()
        if one["Type"] == "AWS::CloudWatch::Alarm" and one["Properties"]["AlarmName"]["Fn::Sub"].endswith(f"}}-{page}")
    )
    parts = [metric["MetricStat"] for metric in alarm.get("Metrics", []) if "MetricStat" in metric] or [alarm]
    return alarm["Threshold"], alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"], parts[0]["Period"]


@pytest.mark.parametrize(
    ("page", "says", "wanted"),
    [
        ("server-errors", "5xx, at least 5 a minute or half of them, in 2 of 3 minutes", (1, 2, 3, 60)),
        ("direct-errors", "over 1% of direct calls are answered `500` or `503`, at least 5 a minute", (1, 2, 3, 60)),
        ("new-version-answers", "at least 5 a minute or half of them, in 2 of 5 minutes", (1, 2, 5, 60)),
        ("function-throttles", "in 2 of 5 minutes", (1, 2, 5, 60)),
        ("table-throttles", "in 3 of 5 minutes", (1, 3, 5, 60)),
        ("latency", "in 3 of 5 minutes", ({"Ref": "LatencyAlarmMilliseconds"}, 3, 5, 60)),
        ("request-throttles", "over 5% of requests are 429, and at least 100, for 15 minutes", (5, 3, 3, 300)),
        ("new-version-errors", "once", (1, 1, 1, 60)),
        ("revision-lag", "for over a minute, for 5 minutes", (60_000, 5, 5, 60)),
        ("malformed-items", "one is read", (1, 1, 1, 300)),
        ("revision-failures", "a message is in the queue", (1, 1, 1, 300)),
        ("check-failures", "a message is in the queue", (1, 1, 1, 300)),
        ("checks-late", "over 100 checks wait for 15 minutes", (100, 3, 3, 300)),
    ],
)
def test_an_alarm_goes_off_when_the_table_says(page: str, says: str, wanted: tuple[Any, ...]) -> None:
    (told,) = (when for name, when, _ in rows("Alarms") if name == f"`{page}`")
    assert says in told
    assert wanted == numbers(page)
