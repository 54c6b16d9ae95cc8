"""`sam local invoke` in containers, as docs/containers.md says. The integration tests send every event."""

import re
from typing import Any

import boto3

from local_cloud import seed
from tests.integration.world import Answer
from tests.sam_local.conftest import Invoke, command
from tests.sam_local.image import ARCHITECTURE

COUNTS = {
    "batch_id": seed.BATCH,
    "total_urls": 10,
    "completed": 7,
    "failed": 1,
    "pending": 2,
    "total_items_extracted": 245,
}
JOBS = ["abc123", "bcd234", "cde345", "def456", "efg567", "fgh678", "ghi789", "hij890", "ijk901", "jkl012"]
FIRST = {"job_id": "job_abc123", "url": "https://example.com/page1", "status": "completed", "items_extracted": 25}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
# The request id in the events. The emulator has no X-Ray; otherwise the answer would have the X-Ray trace id.
REQUEST = "0c1c44e1-1d54-42d8-ba45-cee2037fb46f"


def sam(event: str) -> str:
    """Return the command of `make invoke` for an event, for this machine."""
    command = f"sam local invoke ProgressFunction -e events/{event}.json"
    return f".venv-sam/bin/{command} --parameter-overrides Arch={ARCHITECTURE}"


def check_data(body: dict[str, Any]) -> None:
    """The example batch: README's numbers and all jobs in order."""
    assert ["success", "data"] == list(body)
    assert body["success"] is True
    data = body["data"]
    assert COUNTS == {name: data[name] for name in COUNTS}
    assert re.fullmatch(TIME, data["estimated_completion"])
    assert FIRST == data["jobs"][0]
    assert [f"job_{name}" for name in JOBS] == [job["job_id"] for job in data["jobs"]]
    assert data.get("next_cursor") is None


def test_a_direct_event_is_answered_without_http(invoke: Invoke) -> None:
    check_data(invoke(sam("direct")))


def test_an_error_is_the_envelope(invoke: Invoke) -> None:
    """Its trace id is the id of the request."""
    answer = Answer.read(invoke(sam("unknown_batch")))
    assert ["success", "error"] == list(answer.json)
    assert answer.json["success"] is False
    error = answer.error
    assert ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"] == list(error)
    assert (404, "BATCH_NOT_FOUND", "client_error") == (answer.status, error["code"], error["type"])
    assert (404, ["batch_id"], REQUEST) == (error["status"], list(error["details"]), error["trace_id"])
    assert re.fullmatch(TIME, error["timestamp"])
    assert "demo-" not in answer.text


def revision(held: str) -> int:
    """Return the revision of the example batch."""
    dynamodb = boto3.client(
        "dynamodb", "eu-central-1", endpoint_url=held, aws_access_key_id="none", aws_secret_access_key="none"
    )
    key = {"batch_id": {"S": seed.BATCH}, "sk": {"S": "BATCH"}}
    return int(dynamodb.get_item(TableName="JobsTable", Key=key)["Item"].get("revision", {"N": "0"})["N"])


def test_changes_of_jobs_raise_the_revision_of_their_batch_by_their_number(invoke: Invoke, held: str) -> None:
    """This runs the command of docs/containers.md. Changes of a deleted batch's jobs are ignored."""
    before = revision(held)
    assert {"batchItemFailures": []} == invoke(command("make invoke FUNCTION=RevisionFunction"))
    assert before + 2 == revision(held)


def test_the_documented_target_invokes(invoke: Invoke) -> None:
    """`make invoke`, for this machine's architecture."""
    answer = Answer.read(invoke(command("make invoke EVENT=")))
    assert 200 == answer.status
    check_data(answer.json)
