"""The error envelope, and the order in which a request is checked."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.world import Answer, World, event, moment, now, progress_path, unique

type Deploy = Callable[..., None]

ENVELOPE = ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"]
X_RAY_ROOT = "1-67891233-abcdef012345678912345678"
OTHER_METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


def failures(world: World) -> dict[str, Answer]:
    """Return one answer of each kind of failure."""
    return {
        "401": world.request("GET", progress_path(world.put_batch())),
        "404 batch": world.get(unique("missing")),
        "404 route": world.request("GET", "/nowhere", world.key()),
        "405": world.request("POST", progress_path(world.put_batch()), world.key()),
        "422": world.get(world.put_batch(), limit="many"),
    }


@pytest.mark.parametrize("kind", ["401", "404 batch", "404 route", "405", "422"])
def test_envelope(world: World, kind: str) -> None:
    """Exactly these fields in this order with these types. The timestamp is current."""
    before = datetime.now(UTC) - timedelta(seconds=1)

    answer = failures(world)[kind]

    error = answer.error
    assert ENVELOPE == list(error)
    assert re.fullmatch("[A-Z]+(_[A-Z]+)*", error["code"])
    assert all(isinstance(error[name], str) and error[name] for name in ("message", "system_message", "trace_id"))
    assert "client_error" == error["type"]
    assert int(kind[:3]) == error["status"] == answer.status
    assert isinstance(error["details"], dict)
    assert before <= moment(error["timestamp"]) <= datetime.now(UTC)


@pytest.mark.parametrize("kind", ["401", "404 batch", "404 route", "405", "422"])
def test_headers_of_an_error(world: World, kind: str) -> None:
    """Errors are not cached and have no ETag."""
    answer = failures(world)[kind]
    assert "no-store" == answer.headers["Cache-Control"]
    assert "application/json" == answer.headers["Content-Type"]
    assert "ETag" not in answer.headers


def test_batch_not_found(world: World) -> None:
    batch_id = unique("missing")

    answer = world.get(batch_id)

    assert (404, "BATCH_NOT_FOUND") == answer.outcome
    assert {"batch_id": batch_id} == answer.error["details"]
    assert "No batch with this id belongs to you." == answer.error["message"]
    assert "Batch not found" == answer.error["system_message"]


def without_ids_and_times(answer: Answer, batch_id: str) -> tuple[int, str, list[tuple[str, str]]]:
    """Return an answer without what differs between any two answers."""
    text = answer.text.replace(batch_id, "…").replace(answer.error["trace_id"], "…")
    return (
        answer.status,
        text.replace(answer.error["timestamp"], "…"),
        sorted((name, value) for name, value in answer.headers if name.lower() != "x-request-id"),
    )


def test_missing_foreign_and_expired_batches_look_the_same(world: World) -> None:
    """The answers differ in ids and times only, so they do not reveal whether another owner's batch exists."""
    foreign = world.put_batch(owner=unique("owner"))
    expired = world.put_batch(expires_at=int(time.time()) - 1)
    orphaned = unique("batch")
    for batch_id in (foreign, expired, orphaned):
        world.put_jobs(batch_id, ["completed"])

    answers = {without_ids_and_times(world.get(batch_id), batch_id)[:2] for batch_id in (foreign, expired, orphaned)}

    missing = unique("missing")
    answer = world.get(missing)
    assert {without_ids_and_times(answer, missing)[:2]} == answers
    headers = without_ids_and_times(answer, missing)[2]
    assert headers == without_ids_and_times(world.get(foreign), foreign)[2]


def test_batch_without_an_owner_is_readable_by_no_token(world: World) -> None:
    batch_id = unique("batch")
    world.put_item({"batch_id": {"S": batch_id}, "sk": {"S": "BATCH"}, "total_urls": {"N": "1"}})
    assert (404, "BATCH_NOT_FOUND") == world.get(batch_id).outcome


def test_another_owner_is_never_named(world: World) -> None:
    owner = unique("owner")
    batch_id = world.put_batch(owner=owner)
    world.put_job(batch_id, "job_of_a_stranger")

    answer = world.get(batch_id)

    assert owner not in answer.text + str(answer.headers)
    assert "job_of_a_stranger" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/api/v1/scrape/batch",
        "/api/v1/scrape/batch/some_batch",
        "/api/v1/scrape/batch/some_batch/progress/more",
        "/api/v1/scrape/batch/some_batch/progres",
        "/api/v2/scrape/batch/some_batch/progress",
        "/api/api/v1/scrape/batch/some_batch/progress",
        "/API/V1/SCRAPE/BATCH/some_batch/PROGRESS",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_unknown_route(world: World, path: str, method: str) -> None:
    """An unknown path is a 404 with any method and without a token."""
    answer = world.request(method, path)
    assert 404 == answer.status
    if method != "HEAD":
        assert (404, "ROUTE_NOT_FOUND") == answer.outcome
        # A caller who forgot `/progress` sees what the path is.
        assert progress_path("{batch_id}") in answer.error["message"]


@pytest.mark.parametrize("method", OTHER_METHODS)
@pytest.mark.parametrize("path", ["/api/v1/scrape/batch/b/progress", "/v1/scrape/batch/b/progress"])
def test_other_methods(world: World, method: str, path: str) -> None:
    """The method is checked before the token, and `Allow` lists the permitted ones."""
    for headers in ([], world.key()):
        answer = world.request(method, path, headers)
        assert (405, "METHOD_NOT_ALLOWED") == answer.outcome
        assert "GET, HEAD" == answer.headers["Allow"]


def test_order_of_checks(world: World) -> None:
    """Route, method, token, parameters, batch: the answer reports the first fault in this order."""
    bad = {"limit": "many"}
    missing = progress_path(unique("missing"))
    outcomes = [
        world.request("POST", "/nowhere", [], bad).outcome,
        world.request("POST", progress_path("bad.id"), [], bad).outcome,
        world.request("GET", progress_path("bad.id"), [], bad).outcome,
        world.request("GET", missing, world.key(), bad).outcome,
        world.request("GET", missing, world.key()).outcome,
    ]
    assert [
        (404, "ROUTE_NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (401, "AUTHENTICATION_REQUIRED"),
        (422, "VALIDATION_ERROR"),
        (404, "BATCH_NOT_FOUND"),
    ] == outcomes


def test_bad_parameters_hide_whether_a_batch_is_there(world: World) -> None:
    foreign = world.put_batch(owner=unique("owner"))
    assert (422, "VALIDATION_ERROR") == world.get(foreign, status="nonsense").outcome


def test_trace_id_is_the_x_ray_root(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = f"Root={X_RAY_ROOT};Parent=53995c3f42cd8ad8;Sampled=1"
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)

    answer = world.ask(unique("missing"), headers={"X-Amzn-Trace-Id": trace})

    assert X_RAY_ROOT == answer.error["trace_id"]


def test_trace_id_without_x_ray_is_the_request_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """API Gateway's request id, which is also in the header."""
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)

    answer = world.get(unique("missing"))

    assert answer.headers["X-Request-Id"] == answer.error["trace_id"]


def test_head_of_a_failure_has_its_status_and_no_body(world: World) -> None:
    answers = [
        world.request("HEAD", progress_path(unique("missing")), world.key()),
        world.request("HEAD", progress_path(unique("missing"))),
        world.request("HEAD", progress_path("bad.id"), world.key()),
        world.request("HEAD", "/nowhere"),
    ]
    assert [(404, ""), (401, ""), (422, ""), (404, "")] == [(answer.status, answer.text) for answer in answers]
    assert "WWW-Authenticate" in answers[1].headers


def test_event_without_any_header(world: World) -> None:
    """A test invocation from the console has null instead of headers."""
    request = event("GET", progress_path("some_batch")) | {"headers": None, "multiValueHeaders": None}
    assert (401, "AUTHENTICATION_REQUIRED") == Answer.read(world.invoke(request)).outcome


def test_no_error_repeats_the_token(world: World) -> None:
    token = unique("secret")
    answers = [
        world.request("GET", progress_path("x"), {"Authorization": f"Bearer {token}"}),
        world.request("GET", progress_path("x"), {"X-API-Key": token}),
        world.request("GET", progress_path("x"), {"Authorization": f"Basic {token}"}),
        world.request("GET", "/nowhere", {"X-API-Key": token}),
        world.request("POST", progress_path("x"), {"X-API-Key": token}),
    ]
    assert not [answer for answer in answers if token in answer.text + str(answer.headers)]


# The deployment


def test_missing_table_is_a_fault_of_ours(world: World, deploy: Deploy, caplog: pytest.LogCaptureFixture) -> None:
    """A 500 in the envelope, without the table's name or a traceback. The log has the traceback."""
    deploy(BATCH_PROGRESS_JOBS_TABLE="NoSuchTable")

    answer = world.get("some_batch")

    assert "Traceback" in caplog.text
    assert (500, "INTERNAL_ERROR") == answer.outcome
    assert "server_error" == answer.error["type"]
    assert ENVELOPE == list(answer.error)
    assert "no-store" == answer.headers["Cache-Control"]
    assert not re.search("NoSuchTable|Traceback|ResourceNotFound", answer.text)


def test_missing_setting_is_a_fault_of_ours(world: World, deploy: Deploy, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the variable; the answer does not."""
    deploy(BATCH_PROGRESS_TOKENS_TABLE=None)

    answer = world.get("some_batch")

    assert (500, "INTERNAL_ERROR") == answer.outcome
    assert "BATCH_PROGRESS" not in answer.text
    assert "BATCH_PROGRESS_TOKENS_TABLE" in caplog.text


def test_dynamodb_away_is_service_unavailable(world: World, deploy: Deploy) -> None:
    """A read that did not happen is never a 401 or a 404."""
    batch_id = world.put_batch()
    deploy(AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:9")

    answer = world.get(batch_id)

    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert "server_error" == answer.error["type"]
    assert int(answer.headers["Retry-After"]) > 0
    assert "no-store" == answer.headers["Cache-Control"]


def test_direct_invocation_meets_faults_in_the_same_envelope(world: World, deploy: Deploy) -> None:
    deploy(BATCH_PROGRESS_JOBS_TABLE="NoSuchTable")
    answer = world.invoke({"batch_id": "some_batch"})
    assert ["success", "error"] == list(answer)
    assert "INTERNAL_ERROR" == answer["error"]["code"]


def test_batch_expiring_now_is_found_until_then(world: World) -> None:
    """The expiry is checked on every read; DynamoDB deletes the item some time after it."""
    batch_id = world.put_batch(expires_at=int(time.time()) + 3600, created_at=now(-7200))
    assert 200 == world.get(batch_id).status

    world.put_batch(batch_id, expires_at=int(time.time()) - 1)

    assert (404, "BATCH_NOT_FOUND") == world.get(batch_id).outcome
