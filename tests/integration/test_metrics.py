"""Alarms and dashboard use metrics that exist, by name, namespace and dimensions."""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from functions.progress.envelope import STATUS
from functions.revision import app as revision
from functions.supervisor import app as supervisor
from local_cloud.template import read
from tests.integration.supervision import Cloud
from tests.integration.world import Context, World, event, progress_path

TEMPLATE = read()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
# Statuses of direct calls: they need no token, path or method, so 401 and 405 cannot occur.
DIRECT = {200, 404, 422, 500, 503}
# The metrics of AWS's services that the template uses, by namespace and dimensions.
SERVICES = {
    ("AWS/ApiGateway", frozenset({"ApiName", "Stage"})): {"Count", "4XXError", "5XXError", "Latency"},
    ("AWS/Lambda", frozenset({"FunctionName"})): {"Errors", "Throttles", "ConcurrentExecutions", "IteratorAge"},
    ("AWS/Lambda", frozenset({"FunctionName", "Resource", "ExecutedVersion"})): {"Errors"},
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


@dataclass(frozen=True)
class Metric:
    """A metric's identity where it is emitted or used."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]


def text(value: str | dict[str, Any]) -> str:
    """Return a value of the template in the notation of `Fn::Sub`."""
    match value:
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [*names]}:
            return f"${{{'.'.join(names)}}}"
        case {"Fn::Sub": str(pattern)}:
            return pattern
    return str(value)


def of_alarms() -> Iterable[Metric]:
    for resource in RESOURCES.values():
        if resource["Type"] != "AWS::CloudWatch::Alarm":
            continue
        properties = resource["Properties"]
        parts = [metric["MetricStat"]["Metric"] for metric in properties.get("Metrics", []) if "MetricStat" in metric]
        for part in parts or [properties]:
            dimensions = {(one["Name"], text(one["Value"])) for one in part.get("Dimensions", [])}
            yield Metric(text(part["Namespace"]), part["MetricName"], frozenset(dimensions))


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
OURS = [metric for metric in HEARD if metric.namespace == "BatchProgress"]
FILTERED = [metric for metric in HEARD if metric.namespace.startswith("BatchProgress/")]
THEIRS = [metric for metric in HEARD if not metric.namespace.startswith("BatchProgress")]


def said(log: str) -> dict[Metric, Any]:
    """Return the metrics and their values in a log, as CloudWatch extracts them (EMF)."""
    found: dict[Metric, Any] = {}
    for line in log.splitlines():
        if '"CloudWatchMetrics"' not in line:
            continue
        blob = json.loads(line)
        for group in blob["_aws"]["CloudWatchMetrics"]:
            for names in group["Dimensions"]:
                dimensions = frozenset((name, blob[name]) for name in names)
                found |= {
                    Metric(group["Namespace"], one["Name"], dimensions): blob[one["Name"]] for one in group["Metrics"]
                }
    return found


def by_name(log: str) -> dict[str, Any]:
    """Return the values of one request's metrics by name."""
    return {metric.name: value for metric, value in said(log).items()}


@pytest.fixture
def everything(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> set[Metric]:
    """All metrics that the functions emit, for HTTP and direct requests, for successes and failures."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"a": {"status": "completed"}, "bad": {"status": "no such"}})
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "${ProgressFunction}")
    capsys.readouterr()
    world.get(batch_id)
    world.invoke({"batch_id": batch_id})
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "${RevisionFunction}")
    for name in ("_revisions", "_chains"):
        monkeypatch.setattr(revision, name, lambda: None)
    revision.handler({"Records": []}, Context())
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "${SupervisorFunction}")
    cloud = Cloud(world, time.time())
    monkeypatch.setattr(supervisor, "_supervisor", lambda: cloud.supervisor)
    body = json.dumps({"batch_id": batch_id, "number": 1})
    assert {"batchItemFailures": []} == supervisor.handler({"Records": [{"messageId": "1", "body": body}]}, Context())
    return set(said(capsys.readouterr().out))


def test_every_metric_of_ours_that_is_heard_is_said(everything: set[Metric]) -> None:
    """With exactly these dimensions: another set of dimensions is another metric."""
    heard = {metric for metric in OURS if not metric.name.startswith("Status")}
    assert heard
    assert set() == heard - everything


@pytest.mark.parametrize(("kind", "statuses"), [("http", {200, 304, *STATUS.values()}), ("direct", DIRECT)])
def test_every_outcome_is_shown(everything: set[Metric], kind: str, statuses: set[int]) -> None:
    """The dashboard has every status that the function answers with."""
    (example,) = (one for one in everything if one.name == "Status200" and ("kind", kind) in one.dimensions)
    assert {Metric("BatchProgress", f"Status{status}", example.dimensions) for status in statuses} == {
        metric for metric in OURS if metric.name.startswith("Status") and ("kind", kind) in metric.dimensions
    }


@pytest.mark.parametrize("metric", THEIRS, ids=lambda metric: f"{metric.namespace} {metric.name}")
def test_a_metric_of_aws_is_one(metric: Metric) -> None:
    """It has its namespace, its dimensions and a resource of this stack."""
    assert metric.name in SERVICES[metric.namespace, frozenset(name for name, _ in metric.dimensions)]
    assert all(value in VALUES[name] for name, value in metric.dimensions)


def test_the_api_has_the_name_that_its_metrics_are_heard_by() -> None:
    api = RESOURCES["Api"]["Properties"]
    assert (VALUES["ApiName"], VALUES["Stage"]) == ({text(api["Name"])}, {api["StageName"]})


def test_throttled_requests_are_taken_from_the_access_log() -> None:
    """The filter uses a field of the access log, and the alarm uses the filter's metric."""
    found = RESOURCES["ApiThrottles"]["Properties"]
    (made,) = found["MetricTransformations"]
    assert {Metric(text(made["MetricNamespace"]), made["MetricName"], frozenset())} == set(FILTERED)
    field = re.fullmatch(r'\{ \$\.(\w+) = "THROTTLED" \}', found["FilterPattern"])
    assert field
    assert (
        f'"{field[1]}": "$context.error.responseType"' in RESOURCES["Api"]["Properties"]["AccessLogSetting"]["Format"]
    )
    assert "THROTTLED" in RESOURCES["Api"]["Properties"]["GatewayResponses"]
    assert {"Ref": "ApiLogs"} == found["LogGroupName"]


def test_the_first_request_of_a_process_is_a_cold_start(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """1 for the first request and 0 for later ones: the sum is the number of cold starts, the average their share."""
    batch_id = world.put_batch()
    assert 1 == by_name(world.elsewhere(event("GET", progress_path(batch_id), world.key())).log)["ColdStart"][0]
    world.get(batch_id)
    capsys.readouterr()
    world.get(batch_id)
    assert 0 == by_name(capsys.readouterr().out)["ColdStart"][0]


def test_jobs_are_counted_for_full_answers_only(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise the average would include answers without jobs: 304s, errors, the page."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["pending"] * 3)
    capsys.readouterr()
    answer = world.get(batch_id)
    assert 3 == by_name(capsys.readouterr().out)["Jobs"][0]
    unchanged = world.ask(batch_id, headers={"If-None-Match": answer.headers["ETag"]})
    assert 304 == unchanged.status
    assert 404 == world.get("no_such_batch").status
    assert 200 == world.request("GET", f"/watch/{batch_id}").status
    log = capsys.readouterr().out
    assert 3 == log.count('"CloudWatchMetrics"')
    assert "Jobs" not in by_name(log)
