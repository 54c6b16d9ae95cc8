"""Direct invocation: a plain object in, the same envelope out, and no guard that a typing error opens."""

import json
import re
from typing import Any

import pytest

from tests.integration.world import Answer, Context, World, event, now, progress_path, unique

ENVELOPE = ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"]


def error(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the error of a failure, which this must be, unwrapped."""
    assert ["success", "error"] == list(answer)
    assert answer["success"] is False
    assert ENVELOPE == list(answer["error"])
    return dict(answer["error"])


def code(answer: dict[str, Any]) -> str:
    return str(error(answer)["code"])


def data(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a success, which this must be, unwrapped."""
    assert ["success", "data"] == list(answer), answer
    assert answer["success"] is True
    return dict(answer["data"])


@pytest.fixture
def batch_id(world: World) -> str:
    """A batch that is finished, so that each read of it answers the same."""
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
    """The caller's permission to invoke is the credential; it sees the batches of all owners."""
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
    """Null, empty or no text: refused, for taking it as absent would open every tenant."""
    answer = error(world.invoke({"batch_id": batch_id, "owner_id": owner_id}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert ["owner_id"] == list(answer["details"])


@pytest.mark.parametrize("key", ["owner", "ownerId", "OWNER_ID", "owner_id ", "", "foo", "token", "batchId"])
def test_unknown_key(world: World, batch_id: str, key: str) -> None:
    """Unlike over HTTP it is refused: it might be a guard, misspelt."""
    answer = error(world.invoke({"batch_id": batch_id, key: "demo"}))
    assert "VALIDATION_ERROR" == answer["code"]
    assert [key] == list(answer["details"])


def test_a_key_that_is_no_unicode(world: World, batch_id: str) -> None:
    """JSON can hold half of a letter; an answer that is sent as UTF-8 can't name it."""
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
    """The details name the key and nothing deeper."""
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
def test_event_that_is_no_object(world: World, value: object) -> None:
    """Whatever JSON it is, the answer is the envelope."""
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
    """There is no gateway to give one."""
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    context = Context()
    answer = error(world.invoke({"batch_id": unique("missing")}, context))
    assert context.aws_request_id == answer["trace_id"]


def test_event_of_the_gateway_is_never_direct(world: World, batch_id: str) -> None:
    """A body or a key that asks like another Lambda is not one: the token is still asked for."""
    request = event("GET", progress_path(batch_id), query={"batch_id": batch_id, "owner_id": "demo"})
    smuggled = request | {"batch_id": batch_id, "body": json.dumps({"batch_id": batch_id})}
    for each in (request, smuggled):
        assert (401, "AUTHENTICATION_REQUIRED") == Answer.read(world.invoke(each)).outcome


@pytest.mark.parametrize("part", ["requestContext", "httpMethod"])
def test_half_an_event_of_the_gateway_is_direct(world: World, batch_id: str, part: str) -> None:
    """Both of its marks make it the gateway's; with one alone the event is direct and has an unknown key."""
    request = event("GET", progress_path(batch_id), world.key())
    answer = world.invoke({"batch_id": batch_id, part: request[part]})
    assert "statusCode" not in answer
    assert "VALIDATION_ERROR" == code(answer)
