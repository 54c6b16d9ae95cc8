"""What DynamoDB can do wrong, at each of our reads: as the stock client takes it, and as the contract answers it."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.retries.quota import RetryQuota
from botocore.retries.standard import ExponentialBackoff

from batch_progress import decode, dynamodb
from batch_progress.errors import ServiceUnavailable
from batch_progress.revision import Revisions
from batch_progress.store import BatchStore
from batch_progress.tokens import TokenStore
from functions.progress import app
from tests.hostile.misbehaving import Reply
from tests.integration.faulty import PLACES, Faulty, fault, good, serving
from tests.integration.world import Answer, Context, event, progress_path

READ_TIMEOUT = 0.5
# Those that pass, and those that would come again; each is told alike by the stock client and by ours.
PASSING = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "internal",
    "unavailable",
    "gateway",
    "hangs up",
    "slow",
    "error, cut",
    "error, empty",
]
OURS = [
    "ResourceNotFoundException",
    "ValidationException",
    "ExpiredTokenException",
    "AccessDeniedException",
    "UnrecognizedClientException",
]
# Those that the stock client takes for an answer, at last or at once; ours never does.
DAMAGED = [
    "bad checksum",
    "nothing there, bad checksum",
    "cut, with checksum",
    "cut",
    "empty",
    "no object",
    "another object",
    "no text",
    "ends within the body",
    "stalls within the body",
    "error, bad checksum",
]
QUERY: dict[str, Any] = {
    "TableName": "JobsTable",
    "KeyConditionExpression": "batch_id = :batch_id",
    "ExpressionAttributeValues": {":batch_id": {"S": "batch"}},
}
GET: dict[str, Any] = {"TableName": "JobsTable", "Key": {"batch_id": {"S": "batch"}, "sk": {"S": "BATCH"}}}


@dataclass(frozen=True)
class Rig:
    """The server, and a client of each kind that asks it; a client takes long to make."""

    server: Faulty
    ours: Any
    stock: Any


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "fake",
            "AWS_SECRET_ACCESS_KEY": "fake",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_DYNAMODB": server.address,
        }.items():
            patch.setenv(name, value)
        patch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", READ_TIMEOUT)
        # What everybody has, with our timeouts.
        config = Config(
            connect_timeout=dynamodb.CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": dynamodb.ATTEMPTS},
        )
        # A client that has failed much tries less often; here each test is the first.
        patch.setattr(RetryQuota, "acquire", lambda *_: True)
        yield Rig(server, dynamodb.client(), botocore.session.Session().create_client("dynamodb", config=config))


@pytest.fixture
def faulty(rig: Rig) -> Faulty:
    """The server, doing nothing wrong yet."""
    rig.server.forget()
    return rig.server


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for nothing."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


@pytest.fixture
def function(rig: Rig, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """The function in front of the server, knowing no token yet."""
    store, tokens = BatchStore(rig.ours, "JobsTable"), TokenStore(rig.ours, "TokensTable")
    monkeypatch.setattr(app, "_store", lambda: store)
    monkeypatch.setattr(app, "_tokens", lambda: tokens)
    return faulty


def read(client: Any, place: str) -> object:  # noqa: ANN401  # botocore ships no types
    """Read by our own means."""
    return dynamodb.get_item(client, **GET) if place == "batch" else dynamodb.query(client, **QUERY)


def outcome(call: Callable[[], object]) -> tuple[str, str] | None:
    """Return what a call raises, in botocore's terms, `None` when it raises nothing."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is compared
        cause = error.__cause__ if isinstance(error, ServiceUnavailable) and error.__cause__ else error
        return type(cause).__name__, cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
    return None


def ask(place: str, context: Context | None = None) -> Answer:
    """Ask so that `place` is read."""
    headers = {"X-API-Key": "good-token"} | ({"If-None-Match": "*"} if place == "batch" else {})
    return Answer.read(app.handler(event("GET", progress_path("batch"), headers), context or Context()))


# Beside the stock client


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", PASSING + OURS)
@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_fault_is_what_it_is_to_the_stock_client(rig: Rig, faulty: Faulty, place: str, name: str) -> None:
    """As many attempts, the same exception, the same code: an upgrade of botocore can't change it unseen."""
    faulty.forever[place] = fault(name, place)
    expected = outcome(lambda: rig.stock.get_item(**GET) if place == "batch" else rig.stock.query(**QUERY))
    attempts = faulty.calls[place]
    told = outcome(lambda: read(rig.ours, place))
    assert expected is not None
    assert (expected, attempts) == (told, faulty.calls[place] - attempts)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_damaged_answer_is_no_answer(rig: Rig, faulty: Faulty, place: str, name: str, *, bounded: bool) -> None:
    """It is tried again as often as any, and never taken for good."""
    faulty.forever[place] = fault(name, place)
    with dynamodb.deadline(time.monotonic() + 60) if bounded else nullcontext(), pytest.raises(ServiceUnavailable):
        read(rig.ours, place)
    assert dynamodb.ATTEMPTS == faulty.calls[place]


@pytest.mark.usefixtures("_at_once")
def test_a_body_that_stops_coming_is_asked_for_again(rig: Rig, faulty: Faulty) -> None:
    """A piece that is waited for in vain is a fault that passes, like an answer that does not begin."""
    right = good("batch")
    stopping = replace(right, body=right.body[:9], promised=len(right.body), stall=2 * READ_TIMEOUT)
    faulty.once["batch"] = stopping
    with dynamodb.deadline(time.monotonic() + 60):
        assert bytes(dynamodb.get_item(rig.ours, **GET).raw)
    faulty.forever["batch"] = stopping
    with dynamodb.deadline(time.monotonic() + 60), pytest.raises(ServiceUnavailable):
        dynamodb.get_item(rig.ours, **GET)
    assert 2 + dynamodb.ATTEMPTS == faulty.calls["batch"]


@pytest.mark.parametrize("name", ["good", "no object"])
@pytest.mark.usefixtures("_at_once")
def test_an_answer_has_what_botocore_adds_to_every_one(rig: Rig, faulty: Faulty, name: str) -> None:
    """Its status, its headers, and how often it was asked for, also where it is damaged to the last."""
    faulty.forever["batch"] = good("batch") if name == "good" else fault(name, "batch")
    metadata = rig.ours.get_item(**GET)["ResponseMetadata"]
    expected = (200, 0 if name == "good" else dynamodb.ATTEMPTS - 1)
    assert expected == (metadata["HTTPStatusCode"], metadata["RetryAttempts"])
    assert "content-length" in metadata["HTTPHeaders"]


@pytest.mark.usefixtures("_at_once")
def test_an_update_whose_answer_is_damaged_is_none(rig: Rig, faulty: Faulty) -> None:
    """Nor is one that is refused in passing."""
    revisions = Revisions(rig.ours, "JobsTable")
    for reply in (Reply(body=b"{}", checksum=1), fault("ThrottlingException", "first page")):
        faulty.forever["first page"] = reply
        with pytest.raises(ServiceUnavailable):
            revisions.count("batch")
    assert 2 * dynamodb.ATTEMPTS == faulty.calls["first page"]


@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_quota_of_retries_that_is_used_up_lets_no_damage_through(
    rig: Rig, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """After a long outage botocore does not try again; what it then has is still no answer."""
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: False)
    faulty.forever[place] = fault("nothing there, bad checksum", place)
    with pytest.raises(ServiceUnavailable):
        read(rig.ours, place)
    assert 1 == faulty.calls[place]


@pytest.mark.usefixtures("faulty")
def test_a_page_has_no_details_unless_they_are_asked_for(rig: Rig) -> None:
    """Each call by itself: what the one before asked for does not linger."""
    asked = [{"detailed": True}, {}, {"detailed": False}]
    kinds = [type(dynamodb.query(rig.ours, **QUERY, **more).items[0]) for more in asked]
    assert [decode.DetailedItem, decode.Item, decode.Item] == kinds


# What a caller is told


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", PASSING + DAMAGED)
@pytest.mark.parametrize("place", PLACES)
def test_a_passing_fault_is_answered_503(function: Faulty, place: str, name: str) -> None:
    """Never a 401 or a 404 or counts of a part from a read that did not come whole."""
    function.forever[place] = fault(name, place)
    answer = ask(place)
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "no-store" == answer.headers["Cache-Control"]
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_of_ours_is_answered_500(
    function: Faulty, place: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and with its traceback in the log."""
    function.forever[place] = fault(name, place)
    answer = ask(place)
    assert (500, "INTERNAL_ERROR") == answer.outcome
    assert name not in answer.text
    assert 1 == function.calls[place]
    (line,) = [entry for entry in caplog.records if entry.levelname == "ERROR"]
    assert name in line.getMessage()


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", [*PASSING[:-2], *DAMAGED])
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_that_passes_is_not_seen(function: Faulty, place: str, name: str) -> None:
    """Once wrong and then right is right."""
    function.once[place] = fault(name, place)
    answer = ask(place)
    assert 2 == function.calls[place]
    if place == "batch":
        assert 304 == answer.status
    else:
        assert (2, 2, 0) == tuple(answer.data[field] for field in ("total_urls", "completed", "pending"))
        assert ["a", "b"] == [job["job_id"] for job in answer.data["jobs"]]


@pytest.mark.usefixtures("_at_once")
def test_a_direct_call_is_told_the_same(function: Faulty) -> None:
    function.forever["later page"] = fault("bad checksum", "later page")
    answer = app.handler({"batch_id": "batch"}, Context())
    assert (503, "SERVICE_UNAVAILABLE") == (answer["error"]["status"], answer["error"]["code"])


@pytest.mark.usefixtures("_at_once")
def test_a_token_is_not_forgotten_over_a_fault(function: Faulty) -> None:
    """Nor is a fault remembered for it."""
    function.forever["token"] = fault("internal", "token")
    assert 503 == ask("first page").status
    function.forever.clear()
    assert 200 == ask("first page").status
    function.forever["token"] = fault("internal", "token")
    assert 200 == ask("first page").status


# Time


def within(seconds: float, place: str, context: Context) -> Answer:
    """Ask, and be answered before the function's time is up."""
    began = time.monotonic()
    answer = ask(place, context)
    assert time.monotonic() - began < seconds
    return answer


@pytest.mark.parametrize("place", PLACES)
def test_without_time_nothing_is_begun(function: Faulty, place: str) -> None:
    """A clean 503 while there is time to say it."""
    answer = within(0.5, place, Context(1))
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert not function.calls


@pytest.mark.parametrize("headers", [{}, {"x-amz-retry-after": "5000"}])
def test_retries_end_with_the_time(function: Faulty, headers: dict[str, str]) -> None:
    """However long botocore, or the header that it listens to, would wait for the next."""
    function.forever["first page"] = replace(fault("ThrottlingException", "first page"), headers=headers)
    answer = within(4, "first page", Context(4))
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome


def test_no_retry_is_waited_for_when_time_is_up(
    function: Faulty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A last attempt that takes its time is not followed by a pause for one that could not begin."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 60)
    function.forever["token"] = Reply(500, silent=0.15)
    answer = within(3.6, "token", Context(3.6))
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


@pytest.mark.parametrize("place", PLACES)
def test_a_body_that_trickles_in_is_not_waited_for(
    function: Faulty, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each byte comes in time and the last one would not."""
    monkeypatch.setattr(dynamodb, "LAST_ATTEMPT_SECONDS", 0.5)
    function.forever[place] = Reply(body=good(place).body, pause=0.1, piece=1)
    answer = within(3, place, Context(3.8))
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert 1 == function.calls[place]


def test_a_body_that_trickles_in_ends_with_the_last_attempt(
    rig: Rig, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No piece is begun so late that waiting for it could go beyond."""
    monkeypatch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(dynamodb, "LAST_ATTEMPT_SECONDS", 2.5)
    faulty.forever["batch"] = Reply(body=good("batch").body, pause=0.1, piece=1)
    at = time.monotonic() + 0.3
    with dynamodb.deadline(at), pytest.raises(ServiceUnavailable):
        read(rig.ours, "batch")
    assert at < time.monotonic() < at + dynamodb.LAST_ATTEMPT_SECONDS


def test_a_slow_body_that_comes_in_time_is_an_answer(function: Faulty) -> None:
    function.forever["token"] = Reply(body=good("token").body, pause=0.002, piece=1)
    assert 200 == ask("token").status


def test_a_connection_is_used_again(function: Faulty) -> None:
    """Reading the body ourselves gives it back; one that breaks is not used again."""
    assert 200 == ask("first page").status
    before = function.connections
    assert [200] * 5 == [ask("first page").status for _ in range(5)]
    assert before == function.connections
    function.once["first page"] = fault("ends within the body", "first page")
    assert 200 == ask("first page").status
    assert before + 1 == function.connections
