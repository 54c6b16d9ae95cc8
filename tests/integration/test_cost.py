"""What the functions log is what the cost tables in docs/operations.md are computed with."""

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks.cost import LOGGED
from local_cloud.template import read
from tests.integration.world import World, event, progress_path, unique

MARK = "next event"
# Handles events one after another, as a warm environment does. Lambda's names have the lengths of real ones.
EVENTS = f"""
import importlib, json, sys
from tests.integration.world import Context
from functions.revision import app as revision
revision._queue = lambda: None
for function, event in json.load(sys.stdin):
    print({MARK!r})
    importlib.import_module(function).handler(event, Context(60))
"""
REAL = {
    "AWS_LAMBDA_FUNCTION_NAME": "batch-progress-ProgressFunction-1a2b3c4d5e6f",
    "_X_AMZN_TRACE_ID": "Root=1-67a1b2c3-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0",
}
# Realistic values of the access log's variables.
REAL_VALUES = {
    "$context.requestId": "6f0f9a4c-2b0f-4f0e-9f5e-3d1f6a7b8c9d",
    "$context.extendedRequestId": "ABCdEFGhIJKlMNO=",
    "$context.xrayTraceId": "1-67a1b2c3-0123456789abcdef01234567",
    "$context.requestTimeEpoch": "1764115200123",
    "$context.identity.sourceIp": "203.0.113.211",
    "$context.httpMethod": "GET",
    "$context.resourcePath": "/api/v1/scrape/batch/{batch_id}/progress",
    "$context.status": "200",
    "$context.error.responseType": "-",
    "$context.responseLength": "1592",
    "$context.responseLatency": "21",
    "$context.integration.latency": "17",
    "$context.integration.status": "200",
    "$context.integration.requestId": "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
}


def stream_record(batch_id: str) -> dict[str, object]:
    keys = {"batch_id": {"S": batch_id}, "sk": {"S": "JOB#a"}}
    return {"eventName": "MODIFY", "dynamodb": {"Keys": keys, "SequenceNumber": "1"}}


def written(events: list[tuple[str, object]]) -> list[int]:
    """Return the bytes that a process logs for each of these events."""
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", EVENTS],
        input=json.dumps(events),
        env=os.environ | REAL,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return [len(part.lstrip("\n").encode()) for part in done.stdout.split(MARK)[1:]]


@pytest.fixture(scope="module")
def measured(world: World) -> dict[str, int]:
    """The bytes that each of the model's events logs, in an environment that is warm."""
    batch_id = world.put_batch(total_urls=1, created_at="2024-12-16T10:30:00.123Z")
    world.put_jobs(batch_id, {"good": {}})
    path, key = progress_path(batch_id), world.key()
    tag = world.get(batch_id).headers["ETag"]
    progress, revision, supervisor = (f"functions.{name}.app" for name in ("progress", "revision", "supervisor"))
    check = {"messageId": "1", "body": json.dumps({"batch_id": unique("none"), "number": 1})}
    answer = event("GET", path, key)
    found = written(
        [
            (progress, answer),
            (progress, answer),
            (progress, event("GET", path, [*key, ("If-None-Match", tag)])),
            (progress, event("GET", path, [("X-API-Key", "made-up-token")])),
            (revision, {"Records": [stream_record(unique("none"))]}),
            (supervisor, {"Records": [check]}),
        ]
    )
    return dict(zip(("cold", "answer", "unchanged", "refused", "delivery", "check"), found, strict=True))


@pytest.mark.parametrize("what", ["answer", "unchanged", "refused", "delivery", "check"])
def test_the_functions_log_as_much_as_the_model_says(measured: dict[str, int], what: str) -> None:
    """Within 5%: names and ids have other lengths elsewhere."""
    assert LOGGED[what] == pytest.approx(measured[what], rel=0.05)


def test_the_access_log_is_as_long_as_the_model_says() -> None:
    line = read()["Resources"]["Api"]["Properties"]["AccessLogSetting"]["Format"]
    variables = set(re.findall(r"\$context[\w.]*\w", line))
    assert variables <= REAL_VALUES.keys()
    for name in sorted(variables, key=len, reverse=True):
        line = line.replace(name, REAL_VALUES[name])
    assert json.loads(line)["status"] == "200"
    assert LOGGED["access"] == pytest.approx(len(line.encode()), rel=0.05)
