"""The process of one contender: it executes commands and reports their CPU time.

Commands are lines of JSON on stdin. The handler's log goes to /dev/null, so that writing it is measured too.
"""

import gc
import http.client
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.invocation import event
from local_cloud.lambda_context import LambdaContext

type Event = dict[str, Any]
type Invoke = Callable[[Event], dict[str, Any]]
# A deadline that no answer reaches.
_SECONDS: Final = 120
# The unit of `ru_maxrss` in bytes.
_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1_024


def _handler(module: str) -> Invoke:
    handler = import_module(module).handler
    return lambda event: handler(event, LambdaContext(_SECONDS))


def _limit() -> Invoke:
    limit = import_module("benchmarks.limit")
    return lambda event: limit.answer(event["pathParameters"]["batch_id"], event["pages"])


def _pages(batch_id: str) -> list[bytes]:
    """Read the raw pages of a batch, outside the measured time."""
    connection = http.client.HTTPConnection(urlsplit(os.environ["AWS_ENDPOINT_URL_DYNAMODB"]).netloc)
    asked: dict[str, Any] = {"TableName": "jobs", "ExpressionAttributeValues": {":id": {"S": batch_id}}}
    pages = []
    while True:
        connection.request("POST", "/", json.dumps(asked), {"X-Amz-Target": "DynamoDB_20120810.Query"})
        pages.append(connection.getresponse().read())
        last = json.loads(pages[-1]).get("LastEvaluatedKey")
        if last is None:
            connection.close()
            return pages
        asked["ExclusiveStartKey"] = last


def _measure(invoke: Invoke, command: dict[str, Any], *, limit: bool) -> dict[str, Any]:
    """Answer `repeat` times; return the CPU seconds of one answer, including the runtime's encoding of it."""
    made = [
        event(command["batch_id"], command.get("headers", {}), command.get("query", {}).items())
        for _ in range(command.get("repeat", 1))
    ]
    if limit:
        pages = _pages(command["batch_id"])
        for each in made:
            each["pages"] = pages
    text = ""
    answer: dict[str, Any] = {}
    gc.collect()
    began = time.process_time()
    for each in made:
        answer = invoke(each)
        text = json.dumps(answer)
    seconds = (time.process_time() - began) / len(made)
    told = {"seconds": seconds, "status": answer["statusCode"], "bytes": len(text)}
    if command.get("show"):
        told["headers"] = answer.get("multiValueHeaders", {})
        told["body"] = answer["body"]
    return told


def _forecast(command: dict[str, Any]) -> dict[str, Any]:
    """Return the CPU seconds of one forecast for the given numbers of finished, running and pending jobs."""
    time_left = import_module("batch_progress.forecast").time_left
    workload = import_module("benchmarks.workload")
    finished, running, pending = command["jobs"]
    draw = workload.durations(random.Random(finished))
    durations, ages = list(islice(draw, finished)), list(islice(draw, running))
    gc.collect()
    began = time.process_time()
    for _ in range(command["repeat"]):
        time_left(durations, ages, pending, workers=running, timeout=30.0)
    return {"seconds": (time.process_time() - began) / command["repeat"]}


def main() -> None:
    """Execute commands until stdin ends: `contender.py this | straightforward | limit`."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    name = sys.argv[1]
    modules = {"this": "functions.progress.app", "straightforward": "benchmarks.straightforward"}
    invoke = _handler(modules[name]) if name in modules else _limit()
    for line in sys.stdin:
        command = json.loads(line)
        told = _forecast(command) if "jobs" in command else _measure(invoke, command, limit=name == "limit")
        told["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
