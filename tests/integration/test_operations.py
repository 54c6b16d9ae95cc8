"""docs/operations.md agrees with the template, the log lines and the measured costs."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.cost import OPERATIONS
from local_cloud.template import read
from tests.integration.world import World, event, progress_path, unique

TEXT = OPERATIONS.read_text(encoding="utf-8")
TEMPLATE = read()
# The blocks without a language are queries.
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
QUERIES = [block for language, block in BLOCKS if not language]
# Words of CloudWatch Logs Insights that are not fields.
WORDS = {
    *("fields", "filter", "stats", "sort", "limit", "by", "as", "like", "or", "and", "desc"),
    *("count", "sum", "pct", "max", "bin", "latest"),
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading."""
    table = re.search(r"(?:^\|.*\n)+", TEXT.partition(f"\n## {heading}\n")[2], re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


CHECK = """
import sys
from functions.supervisor import app
from tests.integration.world import Context
app.handler({"Records": [{"messageId": "1", "body": sys.argv[1]}]}, Context(60))
"""


def _checked(batch_id: str) -> str:
    """Let a process of its own check a batch, and return its log."""
    body = json.dumps({"batch_id": batch_id, "number": 1})
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", CHECK, body], capture_output=True, text=True, check=True, timeout=240
    )
    return done.stdout


@pytest.fixture(scope="module")
def logged(world: World) -> tuple[str, str, set[str]]:
    """The log lines of a 200 and of a 500, and the names of all fields, including those of a 503 and of checks."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"good": {}})
    fine = world.elsewhere(event("GET", progress_path(batch_id), world.key())).log
    world.put_jobs(batch_id, {"bad": {"status": "no such"}})
    malformed = world.elsewhere(event("GET", progress_path(batch_id), world.key())).log
    failed = world.elsewhere(event("GET", progress_path(batch_id), world.key()), BATCH_PROGRESS_JOBS_TABLE="no").log
    nothing_listens = "http://127.0.0.1:9"
    unavailable = world.elsewhere({"batch_id": batch_id}, AWS_ENDPOINT_URL_DYNAMODB=nothing_listens).log
    # One succeeds, because the batch does not exist; the other one fails, because there is no queue.
    checks = _checked(unique("none")) + _checked(world.put_batch(total_urls=1))
    assert '"check"' in checks
    assert '"check failed"' in checks
    logs = fine + malformed + failed + unavailable + checks
    lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
    return fine, failed, {name for line in lines if "level" in line for name in line}


def test_every_query_asks_for_what_is_logged(logged: tuple[str, str, set[str]]) -> None:
    """Its fields are in a line of the function or of the access log."""
    _, failed, fields = logged
    assert '"exception_name"' in failed
    assert 1 == failed.count("Traceback (most recent call last)")
    access = json.loads(TEMPLATE["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Format"])
    assert len(QUERIES) >= 7
    for query in QUERIES:
        bare = re.sub(r'"[^"]*"|/(?:[^/])*/', "", query)
        named = set(re.findall(r"(?<![@.\w])[A-Za-z_]\w*", bare)) - WORDS
        made = set(re.findall(r"\bas (\w+)", bare))
        assert named
        assert named - made <= fields | access.keys(), query
        messages = set(re.findall(r'message = "([^"]*)"', query))
        assert messages <= {"request", "malformed items", "check", "check failed"}


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
