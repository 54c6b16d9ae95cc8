"""Every event, by the real `sam local invoke`: what docs/containers.md tells a newcomer to try."""

import json
import re
from typing import Any

import boto3
import pytest

from local_cloud import seed
from tests.integration.test_events import OUTCOMES
from tests.integration.world import Answer
from tests.sam_local.conftest import ROOT, Invoke, command
from tests.sam_local.image import ARCHITECTURE

pytestmark = pytest.mark.timeout(300)  # the first one waits for images to be built

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
# API Gateway's id of the request, in every event: the emulator has no X-Ray, whose id would come first.
REQUEST = "0c1c44e1-1d54-42d8-ba45-cee2037fb46f"
# What each error's details say beside the code.
DETAILS = {"unknown_batch": ["batch_id"], "direct_bad_batch_id": ["batch_id"]}


def sam(event: str) -> str:
    """Return what `make invoke` runs for an event, for this machine."""
    command = f"sam local invoke ProgressFunction -e events/{event}.json"
    return f".venv-sam/bin/{command} --parameter-overrides Arch={ARCHITECTURE}"


def check_data(event: str, body: dict[str, Any]) -> None:
    """The example batch: README's numbers, and all jobs in order, or those of the page."""
    assert ["success", "data"] == list(body)
    assert body["success"] is True
    data = body["data"]
    wanted = JOBS[:3] if event == "page" else JOBS
    assert COUNTS == {name: data[name] for name in COUNTS}
    assert re.fullmatch(TIME, data["estimated_completion"])
    assert FIRST == data["jobs"][0]
    assert [f"job_{name}" for name in wanted] == [job["job_id"] for job in data["jobs"]]
    assert (event == "page") == bool(data.get("next_cursor"))


def check_error(event: str, body: dict[str, Any]) -> None:
    """The one envelope, with the event's code, to be found again by the request's id."""
    status, code = OUTCOMES[event]
    assert ["success", "error"] == list(body)
    assert body["success"] is False
    error = body["error"]
    assert ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"] == list(error)
    assert (code, status, "client_error") == (error["code"], error["status"], error["type"])
    assert DETAILS.get(event, []) == list(error["details"])
    assert re.fullmatch(TIME, error["timestamp"])
    if not event.startswith("direct"):
        assert REQUEST == error["trace_id"]
    assert "demo-" not in json.dumps(body)


@pytest.mark.parametrize("event", OUTCOMES)
def test_event_does_what_its_name_says(invoke: Invoke, event: str) -> None:
    """With the built layer in a container; a direct event without HTTP round its answer."""
    status, code = OUTCOMES[event]
    body = invoke(sam(event))
    if not event.startswith("direct"):
        answer = Answer.read(body)
        assert status == answer.status
        if event == "head":
            assert "" == answer.text
            assert answer.headers["ETag"]
            return
        body = answer.json
    if code is None:
        check_data(event, body)
    else:
        check_error(event, body)


def revision(held: str) -> int:
    """Return how often the example batch is known to have changed."""
    dynamodb = boto3.client(
        "dynamodb", "eu-central-1", endpoint_url=held, aws_access_key_id="none", aws_secret_access_key="none"
    )
    key = {"batch_id": {"S": seed.BATCH}, "sk": {"S": "BATCH"}}
    return int(dynamodb.get_item(TableName="JobsTable", Key=key)["Item"].get("revision", {"N": "0"})["N"])


def test_changes_of_jobs_raise_the_revision_of_their_batch_once(invoke: Invoke, held: str) -> None:
    """However many they are; those of a batch that is gone are none. As docs/containers.md says."""
    before = revision(held)
    assert {"batchItemFailures": []} == invoke(command("make invoke FUNCTION=RevisionFunction"))
    assert before + 1 == revision(held)


def test_the_documented_target_invokes(invoke: Invoke) -> None:
    """`make invoke`, for this machine's architecture."""
    answer = Answer.read(invoke(command("make invoke EVENT=")))
    assert 200 == answer.status
    check_data("key", answer.json)


def test_every_event_is_tried() -> None:
    """Those of both functions."""
    revisions = {path.stem for path in (ROOT / "events/revision").glob("*.json")}
    assert {"job_changes"} == revisions
    assert sorted(OUTCOMES) == sorted(path.stem for path in (ROOT / "events").glob("*.json"))
