"""Alarms and dashboard use metrics that exist, and the alarms go off on the function's own log lines."""

import json
import re
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from benchmarks.cost import OPERATIONS
from local_cloud.template import read
from tests.integration.cloudwatch import (
    Metric,
    Metrics,
    compared,
    embedded,
    filters,
    goes_off,
    measured,
    metric_of,
    taken,
    text,
)
from tests.integration.world import World, event, progress_path, request_lines

TEMPLATE = read()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
NAMESPACE = "BatchProgress/${AWS::StackName}"
# The metrics of AWS's services that the template uses, by namespace and dimensions.
SERVICES = {
    ("AWS/ApiGateway", frozenset({"ApiName", "Stage"})): {"Count", "4XXError", "5XXError", "Latency"},
    ("AWS/Lambda", frozenset({"FunctionName"})): {
        *("Errors", "Throttles", "ConcurrentExecutions", "IteratorAge", "Invocations", "Duration"),
    },
    ("AWS/Lambda", frozenset({"FunctionName", "Resource", "ExecutedVersion"})): {"Errors", "Invocations"},
    ("AWS/DynamoDB", frozenset({"TableName"})): {
        "ReadThrottleEvents",
        "WriteThrottleEvents",
        "ConsumedReadCapacityUnits",
        "ConsumedWriteCapacityUnits",
    },
    ("AWS/SQS", frozenset({"QueueName"})): {
        "ApproximateNumberOfMessagesVisible",
        "ApproximateNumberOfMessagesDelayed",
    },
}
# The permitted values of a dimension. The API's is its name: its resource would be a circular dependency.
VALUES = {
    "ApiName": {"${AWS::StackName}"},
    "Stage": {"prod"},
    "FunctionName": {"${ProgressFunction}", "${RevisionFunction}", "${SupervisorFunction}"},
    "Resource": {"${ProgressFunction}:live"},
    "ExecutedVersion": {"${ProgressFunction.Version.Version}"},
    "TableName": {"${JobsTable}", "${TokensTable}"},
    "QueueName": {"${RevisionFailures.QueueName}", "${ChecksQueue.QueueName}", "${ChecksFailures.QueueName}"},
}


def of_alarms() -> Iterable[Metric]:
    for resource in RESOURCES.values():
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            properties = resource["Properties"]
            parts = [one["MetricStat"]["Metric"] for one in properties.get("Metrics", []) if "MetricStat" in one]
            yield from map(metric_of, parts or [properties])


def of_dashboard() -> Iterable[Metric]:
    body = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"][0])
    for widget in body["widgets"]:
        above: list[str] = []
        for line in widget["properties"].get("metrics", []):
            names = [part for part in line if isinstance(part, str)]
            if names:
                # CloudWatch's shorthand: "." repeats the value above, "..." the whole line.
                names = (
                    above if names == ["..."] else [above[i] if name == "." else name for i, name in enumerate(names)]
                )
                yield Metric(names[0], names[1], frozenset(zip(names[2::2], names[3::2], strict=True)))
                above = names


HEARD = sorted({*of_alarms(), *of_dashboard()}, key=str)
OURS = {metric.name for metric in HEARD if metric.namespace == NAMESPACE}
THEIRS = [metric for metric in HEARD if metric.namespace != NAMESPACE]
FILTERS = [one for group in ("ApiLogs", "ProgressLogs") for one in filters(group)]


@pytest.mark.parametrize("metric", THEIRS, ids=lambda metric: f"{metric.namespace} {metric.name}")
def test_a_metric_of_aws_is_one(metric: Metric) -> None:
    """It has its namespace, its dimensions and a resource of this stack."""
    assert metric.name in SERVICES[metric.namespace, frozenset(name for name, _ in metric.dimensions)]
    assert all(value in VALUES[name] for name, value in metric.dimensions)


def test_the_api_has_the_name_that_its_metrics_are_heard_by() -> None:
    api = RESOURCES["Api"]["Properties"]
    assert (VALUES["ApiName"], VALUES["Stage"]) == ({text(api["Name"])}, {api["StageName"]})


def test_each_metric_of_ours_is_made_and_heard() -> None:
    """Each costs money: one that no alarm and no widget reads is not made."""
    made = [one["MetricTransformations"][0] for one in FILTERS]
    assert all(NAMESPACE == text(one["MetricNamespace"]) for one in made)
    names = [one["MetricName"] for one in made]
    assert OURS == {*names, "MalformedItems"}
    assert len(names) == len(set(names)) == len([one for one in RESOURCES.values() if "MetricFilter" in one["Type"]])
    # A metric without data costs nothing; a default value would be data in every minute.
    assert all("DefaultValue" not in one for one in made)
    # The version is the only dimension: each value is a metric of its own.
    assert {"Version"} == {dimension["Key"] for one in made for dimension in one.get("Dimensions", [])}


def test_a_field_that_a_filter_takes_is_in_its_pattern() -> None:
    """Otherwise CloudWatch Logs does not take it from the line (docs/decisions/0016-aws.md)."""
    assert {"version", "milliseconds"} == {field for one in FILTERS for field in taken(one)}
    assert all(taken(one) <= compared(one) for one in FILTERS)


def test_the_number_of_metrics_is_in_the_runbook() -> None:
    alarms = [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    of_alarms = sum(len([part for part in one.get("Metrics", []) if "MetricStat" in part]) or 1 for one in alarms)
    words = OPERATIONS.read_text(encoding="utf-8")
    assert f"{len(OURS)} metrics of the stack's own" in words
    assert f"the alarms' {of_alarms} metrics" in words


def test_throttled_requests_are_taken_from_the_access_log() -> None:
    """The filter uses a field of the access log, and the alarm uses the filter's metric."""
    (found,) = filters("ApiLogs")
    field = re.fullmatch(r'\{ \$\.(\w+) = "THROTTLED" \}', found["FilterPattern"])
    assert field
    assert (
        f'"{field[1]}": "$context.error.responseType"' in RESOURCES["Api"]["Properties"]["AccessLogSetting"]["Format"]
    )
    assert "THROTTLED" in RESOURCES["Api"]["Properties"]["GatewayResponses"]


# The log lines of one request each

VERSION = "42"
type Line = dict[str, Any]


@pytest.fixture(scope="module")
def lines(world: World) -> dict[tuple[str, int], Line]:
    """The line that the function writes about a request, by kind and status."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"good": {}})
    requests: dict[str, dict[str, Any]] = {
        "http": event("GET", progress_path(batch_id), world.key()),
        "direct": {"batch_id": batch_id},
    }
    broken = {
        200: {},
        500: {"BATCH_PROGRESS_JOBS_TABLE": "no"},
        503: {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"},
    }
    found = {}
    for kind, sent in requests.items():
        for status, environment in broken.items():
            log = world.elsewhere(sent, AWS_LAMBDA_FUNCTION_VERSION=VERSION, **environment).log
            (line,) = request_lines(log)
            assert (kind, status, 1) == (line["kind"], line["status"], line["cold_start"])
            found[kind, status] = line
    return found


def test_the_warning_about_malformed_items_is_a_metric(world: World) -> None:
    """In the namespace of the others. The line of the request is none: each metric costs money."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"bad": {"status": "no such"}, "worse": {"status": 5}, "good": {}})
    variables = RESOURCES["ProgressFunction"]["Properties"]["Environment"]["Variables"]
    assert NAMESPACE == text(variables["POWERTOOLS_METRICS_NAMESPACE"])
    log = world.elsewhere({"batch_id": batch_id}, POWERTOOLS_METRICS_NAMESPACE=NAMESPACE).log
    written = [json.loads(one) for one in log.splitlines() if one.startswith("{")]
    assert [(Metric(NAMESPACE, "MalformedItems"), 2)] == [one for line in written for one in embedded(line)]
    (moment,) = {line["_aws"]["Timestamp"] for line in written if "_aws" in line}
    assert abs(moment / 1_000 - time.time()) < 60


def test_each_filter_reads_what_the_function_writes(lines: dict[tuple[str, int], Line]) -> None:
    """And counts it right."""
    counted: dict[str, list[float]] = {}
    for found in filters("ProgressLogs"):
        assert compared(found) | taken(found) <= {name for line in lines.values() for name in line}
        for line in lines.values():
            if one := measured(found, line):
                counted.setdefault(one[0].name, []).append(one[1])
    direct = [line["milliseconds"] for (kind, _), line in lines.items() if kind == "direct"]
    assert {
        "FailedAnswers": [1, 1, 1, 1],
        "DirectFailedAnswers": [1, 1],
        "DirectLatency": direct,
    } == counted


def test_each_query_of_the_dashboard_asks_for_what_is_logged(lines: dict[tuple[str, int], Line]) -> None:
    """tests/integration/test_supervisor_app.py checks the line of a check."""
    body = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"][0])
    queries = [one["properties"]["query"] for one in body["widgets"] if one["type"] == "log"]
    assert queries
    of_check = {"read_units", "lost_jobs", "event", "message"}
    for query in queries:
        group, *steps = query.split(" | ")
        assert group in {"SOURCE '${ProgressLogs}'", "SOURCE '${SupervisorLogs}'"}
        names = set(re.findall(r"(?<!')\b[a-z_]+\b(?![('])", " ".join(steps)))
        written = of_check if "Supervisor" in group else {name for line in lines.values() for name in line}
        words = {"filter", "stats", "as", "by", "and", "sort", "desc", "requests", "units", "checks", "lost", "events"}
        assert names - words <= written, query


# Alarms, minute by minute

API = frozenset({("ApiName", "${AWS::StackName}"), ("Stage", "prod")})
NEW = frozenset({("FunctionName", "fn"), ("Resource", "fn:live"), ("ExecutedVersion", VERSION)})
MEANING = {
    "${ProgressFunction}": "fn",
    "${ProgressFunction}:live": "fn:live",
    "${ProgressFunction.Version.Version}": VERSION,
}
CANARY_MINUTES = 5
LINES = {"ServerErrorsAlarm": "http", "DirectErrorsAlarm": "direct", "NewVersionAnswersAlarm": "http"}


def happened(
    lines: dict[tuple[str, int], Line], kind: str, minutes: list[list[int]], version: str = VERSION
) -> Metrics:
    """Return the metrics of requests that were answered with these statuses in these minutes."""
    metrics = Metrics()
    for minute, statuses in enumerate(minutes):
        for status in statuses:
            metrics.logged(minute, "ProgressLogs", lines[kind, status] | {"version": version})
            if version == VERSION:
                metrics.add(minute, Metric("AWS/Lambda", "Invocations", NEW), 1)
            if kind == "http":
                metrics.add(minute, Metric("AWS/ApiGateway", "Count", API), 1)
                metrics.add(minute, Metric("AWS/ApiGateway", "5XXError", API), float(status >= 500))
    return metrics


@pytest.mark.parametrize("alarm", LINES)
@pytest.mark.parametrize("status", [500, 503])
def test_one_request_a_minute_that_always_fails_is_heard(
    lines: dict[tuple[str, int], Line], alarm: str, status: int
) -> None:
    """Within the canary's five minutes, which include up to two until CloudWatch has evaluated a minute."""
    metrics = happened(lines, LINES[alarm], [[status]] * CANARY_MINUTES)
    assert 2 == goes_off(alarm, metrics, CANARY_MINUTES, MEANING)


def test_a_version_that_only_direct_callers_use_is_rolled_back(lines: dict[tuple[str, int], Line]) -> None:
    metrics = happened(lines, "direct", [[500]] * CANARY_MINUTES)
    assert 2 == goes_off("NewVersionAnswersAlarm", metrics, CANARY_MINUTES, MEANING)


@pytest.mark.parametrize("alarm", LINES)
@pytest.mark.parametrize(
    "minutes",
    [
        [[200]] * 60,
        [[503 if minute % 5 == 0 else 200] for minute in range(60)],  # one request a minute, and DynamoDB throttles
        [[503, *[200] * 99]] * 60,
        [[503, 503, 503, 503, *[200] * 20]] * 60,
        [[]] * 60,
        [[503] * 200, *[[200] * 200] * 59],  # DynamoDB is away for less than a minute
    ],
    ids=["all well", "one fails in five minutes", "1 of 100", "4 of 24", "no traffic", "a bad minute"],
)
def test_traffic_with_a_few_failures_rings_no_alarm(
    lines: dict[tuple[str, int], Line], alarm: str, minutes: list[list[int]]
) -> None:
    metrics = happened(lines, LINES[alarm], minutes)
    assert goes_off(alarm, metrics, len(minutes), MEANING) is None


@pytest.mark.parametrize("alarm", LINES)
def test_more_than_one_percent_of_much_traffic_is_heard(lines: dict[tuple[str, int], Line], alarm: str) -> None:
    metrics = happened(lines, LINES[alarm], [[*[500] * 5, *[200] * 490]] * CANARY_MINUTES)
    assert 2 == goes_off(alarm, metrics, CANARY_MINUTES, MEANING)


def test_a_canary_is_not_rolled_back_for_the_old_version(lines: dict[tuple[str, int], Line]) -> None:
    """Nine of ten requests fail there, and the new version may be the fix."""
    metrics = happened(lines, "http", [[500] * 9] * CANARY_MINUTES, version="41")
    for minute in range(CANARY_MINUTES):
        metrics.logged(minute, "ProgressLogs", lines["http", 200])
        metrics.add(minute, Metric("AWS/Lambda", "Invocations", NEW), 1)
    off = partial(goes_off, metrics=metrics, minutes=CANARY_MINUTES, values=MEANING)
    assert (None, 2) == (off("NewVersionAnswersAlarm"), off("ServerErrorsAlarm"))


def test_the_first_request_of_a_process_is_a_cold_start(
    world: World, lines: dict[tuple[str, int], Line], capsys: pytest.CaptureFixture[str]
) -> None:
    """1 for the first request and 0 for later ones: the sum is the number of cold starts."""
    batch_id = world.put_batch()
    world.get(batch_id)
    capsys.readouterr()
    world.get(batch_id)
    assert 0 == json.loads(capsys.readouterr().out)["cold_start"]
    assert 1 == lines["http", 200]["cold_start"]
