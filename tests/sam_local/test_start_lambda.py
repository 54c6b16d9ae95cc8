"""The functions by `sam local start-lambda`, invoked with boto3 as another Lambda does."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tests.sam_local.conftest import ROOT, at_work, command, listens
from tests.sam_local.test_invoke import COUNTS, check_data

PORT = 3081


@pytest.fixture(scope="module")
def functions(environment: dict[str, str]) -> Iterator[Any]:
    """A client of Lambda, started as docs/containers.md says."""
    with at_work(command(".venv-sam/bin/sam local start-lambda"), environment, lambda _: listens(PORT)):
        yield boto3.client(
            "lambda",
            "eu-central-1",
            endpoint_url=f"http://127.0.0.1:{PORT}",
            aws_access_key_id="none",
            aws_secret_access_key="none",
        )


def ask(functions: Any, event: dict[str, Any], function: str = "ProgressFunction") -> Any:  # noqa: ANN401  # boto has no types
    """Invoke a function and return its answer; it must not crash."""
    answer = functions.invoke(FunctionName=function, Payload=json.dumps(event))
    assert (200, None) == (answer["StatusCode"], answer.get("FunctionError"))
    return json.load(answer["Payload"])


def test_a_direct_call_is_answered_without_http_round_it(functions: Any) -> None:  # noqa: ANN401  # boto has no types
    check_data(ask(functions, {"batch_id": "batch_xyz789"}))


def test_the_example_of_the_readme(functions: Any) -> None:  # noqa: ANN401  # the same
    """Counts and the estimate's details, without jobs."""
    data = ask(functions, {"batch_id": "batch_xyz789", "limit": 0, "include": ["estimate"]})["data"]
    assert COUNTS == {name: data[name] for name in COUNTS}
    assert ([], None, 0.8) == (data["jobs"], data["next_cursor"], data["estimate"]["confidence"])


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        ({"batch_id": "batch_none"}, 404, "BATCH_NOT_FOUND"),
        ({"batch_id": "batch_xyz789", "owner_id": "someone"}, 404, "BATCH_NOT_FOUND"),
        ({"batch_id": "batch_xyz789", "owner": "demo"}, 422, "VALIDATION_ERROR"),
        ({}, 422, "VALIDATION_ERROR"),
    ],
)
def test_a_direct_error_is_an_answer(functions: Any, event: dict[str, Any], status: int, code: str) -> None:  # noqa: ANN401  # the same
    """The function does not crash."""
    error = ask(functions, event)["error"]
    assert (status, code) == (error["status"], error["code"])


def test_the_function_behind_the_stream_answers(functions: Any) -> None:  # noqa: ANN401  # the same
    """It reports no failed records."""
    event = json.loads((ROOT / "events/revision/job_changes.json").read_text())
    assert {"batchItemFailures": []} == ask(functions, event, "RevisionFunction")
