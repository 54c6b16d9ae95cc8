"""Direct invocation: a plain object in, the same envelope out, and no mistyped key that widens access."""

import json
import re
from typing import Any

import pytest

from tests.integration.world import Answer, Context, World, event, now, progress_path, unique

ENVELOPE = ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"]


def error(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the error of an answer that must be a failure."""
    assert ["success", "error"] == list(answer)
    assert answer["success"] is False
    assert ENVELOPE == list(answer["error"])
    return dict(answer["error"])


def code(answer: dict[str, Any]) -> str:
    return str(error(answer)["code"])


def data(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the data of an answer that must be a success."""
    assert ["success", "data"] == list(answer), answer
    assert answer["success"] is True
    return dict(answer["data"])


@pytest.fixture
def batch_id(world: World) -> str:
    """A finished batch: every read has the same answer."""
    batch_id = world.put_batch()
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "items_extracted": 3, "finished_at": now(-9)},
            "b": {"status": "failed", "error_code": "TIMEOUT"},
            "c": {"status": "cancelled"},
        },
    )
    return batch_id


def test_the_same_envelope_as_over_http(world: World, batch_id: str) -> None:
    assert world.get(batch_id).json == world.invoke({"batch_id": batch_id})
    assert list(world.get(batch_id).data) == list(data(world.invoke({"batch_id": batch_id})))


def test_no_token_is_asked_for(world: World) -> None:
    """The permission to invoke is the credential. It allows the batches of all owners."""
    batch_id = world.put_batch(owner=unique("owner"))
    assert batch_id == data(world.invoke({"batch_id": batch_id}))["batch_id"]


def test_query_parameters_are_keys(world: World, batch_id: str) -> None:
    assert [] == data(world.invoke({"batch_id": batch_id, "limit": 0}))["jobs"]
    filtered = data(world.invoke({"batch_id": batch_id, "status": ["failed", "cancelled"]}))
    assert ["b", "c"] == [job["job_id"] for job in filtered["jobs"]]
    extended = data(world.invoke({"batch_id": batch_id, "include": ["estimate", "details"]}))
    assert "finished" == extended["estimate"]["basis"]
    assert "TIMEOUT" == extended["jobs"][1]["error_code"]


def test_pages(world: World, batch_id: str) -> None:
    page = data(world.invoke({"batch_id": batch_id, "limit": 2}))
    assert ["a", "b"] == [job["job_id"] for job in page["jobs"]]

    last = data(world.invoke({"batch_id": batch_id, "limit": 2, "cursor": page["next_cursor"]}))
    assert ["c"] == [job["job_id"] for job in last["jobs"]]
    assert last["next_cursor"] is None


def test_cursor_is_the_same_as_over_http(world: World, batch_id: str) -> None:
    cursor = world.get(batch_id, limit="2").data["next_cursor"]
    assert ["c"] == [job["job_id"] for job in data(world.invoke({"batch_id": batch_id, "cursor": cursor}))["jobs"]]


def test_owner_id_narrows(world: World) -> None:
    owner = unique("owner")
    batch_id = world.put_batch(owner=owner)
    assert batch_id == data(world.invoke({"batch_id": batch_id, "owner_id": owner}))["batch_id"]
    assert "BATCH_NOT_FOUND" == code(world.invoke({"batch_id": batch_id, "owner_id": unique("owner")}))


def test_foreign_and_missing_look_the_same(world: World, batch_id: str) -> None:
    answers = []
    for asked in (batch_id, unique("missing")):
        answer = error(world.invoke({"batch_id": asked, "owner_id": unique("owner")}))
        assert {"batch_id": asked} == answer["details"]
        answers.append({**answer, "details": None, "trace_id": None, "timestamp": None})
    assert answers[0] == answers[1]


@pytest.mark.parametrize("owner_id", [None, "", 5, 0, True, False, [], ["demo"], {}, {"S": "demo"}, 1.5])
def test_owner_id_that_guards_nothing(world: World, batch_id: str, owner_id: object) -> None:
    """A null, empty or non-string value is refused: ignoring it would allow every tenant's batches."""
    answer = error(world.invoke({"batch_id": batch_id, "owner_id": owner_id}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert ["owner_id"] == list(answer["details"])


@pytest.mark.parametrize("key", ["owner", "ownerId", "OWNER_ID", "owner_id ", "", "foo", "token", "batchId"])
def test_unknown_key(world: World, batch_id: str, key: str) -> None:
    """Refused, unlike over HTTP: it could be a mistyped `owner_id`."""
    answer = error(world.invoke({"batch_id": batch_id, key: "demo"}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert [key] == list(answer["details"])


def test_a_key_with_a_lone_surrogate(world: World, batch_id: str) -> None:
    """JSON can contain a lone surrogate, which UTF-8 cannot encode."""
    for odd in ({"\ud800": 1}, {"batch_id": batch_id, "limit\udfff": 1}):
        answer = world.invoke(odd)
        assert "VALIDATION_ERROR" == error(answer)["code"]
        json.dumps(answer, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_id", None),
        ("batch_id", ""),
        ("batch_id", 5),
        ("batch_id", "bad.id"),
        ("batch_id", "x" * 129),
        ("batch_id", "x\n"),
        ("batch_id", ["x"]),
        ("batch_id", {}),
        ("limit", -1),
        ("limit", 1001),
        ("limit", 1.5),
        ("limit", "many"),
        ("limit", True),
        ("limit", []),
        ("limit", 10**30),
        ("status", ["done"]),
        ("status", ["failed", "done"]),
        ("status", [1]),
        ("status", [None]),
        ("status", 1),
        ("status", {"failed": True}),
        ("include", ["all"]),
        ("include", [[]]),
        ("include", 1),
        ("cursor", ""),
        ("cursor", "!"),
        ("cursor", 1),
        ("cursor", ["x"]),
    ],
)
def test_bad_value(world: World, batch_id: str, name: str, value: object) -> None:
    """The details name the top-level key only."""
    answer = error(world.invoke({"batch_id": batch_id} | {name: value}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert 422 == answer["status"]
    assert [name] == list(answer["details"])
    assert all(isinstance(reason, str) and reason for reason in answer["details"].values())


def test_batch_id_is_needed(world: World) -> None:
    answer = error(world.invoke({}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert ["batch_id"] == list(answer["details"])


@pytest.mark.parametrize("value", [[], ["batch"], "x", "", 3, 0, 1.5, None, True, False])
def test_event_that_is_not_an_object(world: World, value: object) -> None:
    """The answer to any JSON is the envelope."""
    answer = error(world.invoke(value))
    assert "VALIDATION_ERROR" == answer["code"]
    assert isinstance(answer["details"], dict)


def test_missing_batch(world: World) -> None:
    batch_id = unique("missing")
    answer = error(world.invoke({"batch_id": batch_id}))
    assert "BATCH_NOT_FOUND" == answer["code"]
    assert {"batch_id": batch_id} == answer["details"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["timestamp"])


def test_expired_batch(world: World) -> None:
    batch_id = world.put_batch(expires_at=1_734_345_062)
    assert "BATCH_NOT_FOUND" == code(world.invoke({"batch_id": batch_id}))


def test_trace_id_is_lambdas_request_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direct call has no id from API Gateway."""
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    context = Context()
    answer = error(world.invoke({"batch_id": unique("missing")}, context))
    assert context.aws_request_id == answer["trace_id"]


def test_event_of_the_gateway_is_never_direct(world: World, batch_id: str) -> None:
    """A proxy event that also looks like a direct call still needs a token."""
    request = event("GET", progress_path(batch_id), query={"batch_id": batch_id, "owner_id": "demo"})
    smuggled = request | {"batch_id": batch_id, "body": json.dumps({"batch_id": batch_id})}
    for each in (request, smuggled):
        assert (401, "AUTHENTICATION_REQUIRED") == Answer.read(world.invoke(each)).outcome


@pytest.mark.parametrize("part", ["requestContext", "httpMethod"])
def test_half_an_event_of_the_gateway_is_direct(world: World, batch_id: str, part: str) -> None:
    """With only one of `requestContext` and `httpMethod` the event is direct, and that key is unknown."""
    request = event("GET", progress_path(batch_id), world.key())
    answer = world.invoke({"batch_id": batch_id, part: request[part]})
    assert "statusCode" not in answer
    assert "VALIDATION_ERROR" == code(answer)
