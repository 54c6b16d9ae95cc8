"""The events in events/ have the outcome that their names say."""

import json
from pathlib import Path
from typing import Any

import pytest

from functions.revision.app import handler
from tests.integration.world import Answer, Context, World

EVENTS = Path(__file__).parents[2] / "events"
BATCH = "batch_xyz789"
OUTCOMES = {
    "bearer": (200, None),
    "both": (200, None),
    "direct": (200, None),
    "direct_bad_batch_id": (422, "VALIDATION_ERROR"),
    "expired": (401, "TOKEN_EXPIRED"),
    "head": (200, None),
    "key": (200, None),
    "method_not_allowed": (405, "METHOD_NOT_ALLOWED"),
    "none": (401, "AUTHENTICATION_REQUIRED"),
    "page": (200, None),
    "short_path": (200, None),
    "unknown_batch": (404, "BATCH_NOT_FOUND"),
    "unknown_route": (404, "ROUTE_NOT_FOUND"),
}


@pytest.fixture(scope="module")
def seeded(world: World) -> World:
    """The example batch and tokens of `make run`."""
    world.put_token("demo-token", "demo")
    world.put_token("demo-expired-token", "demo", expires_at=1_700_000_000)
    world.put_batch(BATCH, owner="demo", total_urls=10)
    world.put_jobs(BATCH, ["completed"] * 7 + ["failed", "processing", "pending"])
    return world


def test_every_event_has_an_expected_outcome() -> None:
    assert sorted(OUTCOMES) == sorted(path.stem for path in EVENTS.glob("*.json"))


@pytest.mark.parametrize("name", OUTCOMES)
def test_event_does_what_its_name_says(seeded: World, name: str) -> None:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    payload = seeded.invoke(event)
    status, code = OUTCOMES[name]
    if "httpMethod" not in event:
        assert (code is None, code) == (payload["success"], payload.get("error", {}).get("code"))
        return
    answer = Answer.read(payload)
    assert status == answer.status
    if name == "head":
        assert "" == answer.text
    else:
        assert (code is None, code) == (answer.json["success"], answer.json.get("error", {}).get("code"))


def test_the_changes_of_jobs_raise_the_revision_of_their_batch_by_their_number(seeded: World) -> None:
    """Changes of a deleted batch's jobs are ignored."""
    event = json.loads((EVENTS / "revision/job_changes.json").read_text())
    key = {"batch_id": {"S": BATCH}, "sk": {"S": "BATCH"}}

    def revision() -> int:
        item = seeded.dynamodb.get_item(TableName=seeded.jobs_table, Key=key)["Item"]
        return int(item.get("revision", {"N": "0"})["N"])

    before = revision()
    assert {"batchItemFailures": []} == handler(event, Context())
    assert before + 2 == revision()
