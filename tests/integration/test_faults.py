"""DynamoDB's faults at each read: compared with the stock client, and as the function answers them."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.retries import quota
from botocore.retries.standard import ExponentialBackoff
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import Timeout

from batch_progress import decode, dynamodb
from batch_progress.dynamodb import Client, RequestFailed, RequestRefused
from batch_progress.errors import ServiceUnavailable
from batch_progress.kept import KeptCounts
from batch_progress.model import Batch
from batch_progress.revision import Revisions
from batch_progress.store import BatchStore
from batch_progress.tokens import TokenStore
from functions.progress import app
from functions.progress.query import Query
from functions.progress.tag import Tag, digest
from tests.hostile.misbehaving import Reply
from tests.integration.faulty import PLACES, Faulty, fault, good, place, serving
from tests.integration.world import Answer, Context, event, progress_path

# Retryable faults and permanent errors. The stock client and ours report both in the same way.
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
# Damaged answers. The stock client accepts them, some at once and some after its retries; ours never does.
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
    """The server, and a client of each kind. Making a client is slow."""

    server: Faulty
    ours: Client
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
        config = Config(retries={"mode": "standard", "total_max_attempts": dynamodb.ATTEMPTS})
        # No test is affected by the retries of the tests before it.
        patch.setattr(quota.RetryQuota, "acquire", lambda *_: True)
        patch.setattr(dynamodb.RetryQuota, "take", lambda *_, **__: 0)
        stock = botocore.session.Session().create_client("dynamodb", config=config)
        made = Rig(server, dynamodb.client(), stock)
        _time_out_only_where_the_server_hangs(made, patch)
        yield made


def _time_out_only_where_the_server_hangs(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    """Let a read time out at once if the server will not answer it, and never because the machine is busy."""
    stock_seconds = 60.0

    def read_timeout(operation: str, body: bytes) -> float:
        reply = rig.server.next(place(operation, body))
        return 0.05 if reply.silent or reply.stall else 60.0

    def look(request: AWSPreparedRequest, **_: object) -> None:
        nonlocal stock_seconds
        target = request.headers["X-Amz-Target"]
        stock_seconds = read_timeout(
            (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2], request.body
        )

    attempt = Client._attempt

    def look_and_attempt(client: Client, operation: str, body: bytes, until: float) -> bytes:
        with pytest.MonkeyPatch.context() as during:
            during.setattr(dynamodb, "READ_TIMEOUT_SECONDS", read_timeout(operation, body))
            return attempt(client, operation, body, until)

    patch.setattr(Client, "_attempt", look_and_attempt)
    rig.stock.meta.events.register_first("before-send.dynamodb", look)
    patch.setattr(HTTPConnectionPool, "_get_timeout", lambda *_: Timeout(connect=60, read=stock_seconds))


@pytest.fixture
def faulty(rig: Rig) -> Faulty:
    """The server, without faults."""
    rig.server.forget()
    return rig.server


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 0.0)


@pytest.fixture
def function(rig: Rig, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    """The function in front of the server, with an empty token cache."""
    store, tokens = BatchStore(rig.ours, "JobsTable"), TokenStore(rig.ours, "TokensTable")
    monkeypatch.setattr(app, "_store", lambda: store)
    monkeypatch.setattr(app, "_tokens", lambda: tokens)
    monkeypatch.setattr(app, "_counts", lambda: KeptCounts(rig.ours, "JobsTable"))
    return faulty


def read(client: Any, place: str) -> object:  # noqa: ANN401  # either client
    return client.get_item(**GET) if place == "batch" else client.query(**QUERY)


def outcome(call: Callable[[], object]) -> str | None:
    """Return the error code with which a call fails, its HTTP status without one, or that there was no response."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except (RequestRefused, ServiceUnavailable) as error:
        failure = error if isinstance(error, RequestRefused) else error.__cause__
        assert isinstance(failure, RequestFailed)
        assert dynamodb.ATTEMPTS >= failure.attempts >= 1
        return "no response" if failure.status is None else failure.code or str(failure.status)
    except BotoCoreError:
        return "no response"
    return None


def etag() -> str:
    """Return the tag of an answer about the canned batch, which costs a read of its `BATCH` item."""
    batch = Batch(batch_id="batch", owner_id="demo", total_urls=2)
    return str(Tag(int(time.time()), 0, digest(batch, Query("batch"), gzip=False, finished=True)))


def ask(place: str, context: Context | None = None) -> Answer:
    """Send a request that makes the function read `place`."""
    headers = {"X-API-Key": "good-token"} | ({"If-None-Match": etag()} if place == "batch" else {})
    return Answer.read(app.handler(event("GET", progress_path("batch"), headers), context or Context(60)))


# Compared with the stock client


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", PASSING + OURS)
@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_fault_is_what_it_is_to_the_stock_client(rig: Rig, faulty: Faulty, place: str, name: str) -> None:
    """Both clients make the same number of attempts and report the same code, with any version of botocore."""
    faulty.forever[place] = fault(name, place)
    expected = outcome(lambda: read(rig.stock, place))
    attempts = faulty.calls[place]
    told = outcome(lambda: read(rig.ours, place))
    assert expected is not None
    assert (expected, attempts) == (told, faulty.calls[place] - attempts)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_damaged_answer_is_not_accepted(rig: Rig, faulty: Faulty, place: str, name: str, *, bounded: bool) -> None:
    """It is retried like any retryable fault, and never accepted."""
    faulty.forever[place] = fault(name, place)
    with dynamodb.deadline(time.monotonic() + 60) if bounded else nullcontext(), pytest.raises(ServiceUnavailable):
        read(rig.ours, place)
    assert dynamodb.ATTEMPTS == faulty.calls[place]


@pytest.mark.usefixtures("_at_once")
def test_a_body_that_stops_coming_is_asked_for_again(rig: Rig, faulty: Faulty) -> None:
    """A read timeout within the body is retried like one before it."""
    right = good("batch")
    stopping = replace(right, body=right.body[:9], promised=len(right.body), stall=60)
    faulty.once["batch"] = stopping
    with dynamodb.deadline(time.monotonic() + 60):
        assert bytes(rig.ours.get_item(**GET).raw)
    faulty.forever["batch"] = stopping
    with dynamodb.deadline(time.monotonic() + 60), pytest.raises(ServiceUnavailable):
        rig.ours.get_item(**GET)
    assert 2 + dynamodb.ATTEMPTS == faulty.calls["batch"]


@pytest.mark.usefixtures("_at_once")
def test_an_update_with_a_damaged_answer_fails(rig: Rig, faulty: Faulty) -> None:
    """An update whose response is damaged or throttled is retried, and then fails."""
    revisions = Revisions(rig.ours, "JobsTable")
    for reply in (Reply(body=b"{}", checksum=1), fault("ThrottlingException", "first page")):
        faulty.forever["first page"] = reply
        with pytest.raises(ServiceUnavailable):
            revisions.count("batch", 1)
    assert 2 * dynamodb.ATTEMPTS == faulty.calls["first page"]


@pytest.mark.parametrize("place", ["batch", "first page"])
def test_a_quota_of_retries_that_is_used_up_lets_no_damage_through(
    rig: Rig, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """After a long outage a client stops retrying. A damaged answer is still not accepted."""
    monkeypatch.setattr(dynamodb.RetryQuota, "take", lambda *_, **__: None)
    faulty.forever[place] = fault("nothing there, bad checksum", place)
    with pytest.raises(ServiceUnavailable):
        read(rig.ours, place)
    assert 1 == faulty.calls[place]


@pytest.mark.usefixtures("faulty")
def test_a_page_has_no_details_unless_they_are_asked_for(rig: Rig) -> None:
    """Each call decides for itself."""
    asked = [{"detailed": True}, {}, {"detailed": False}]
    kinds = [type(rig.ours.query(**QUERY, **more).items[0]) for more in asked]
    assert [decode.DetailedItem, decode.Item, decode.Item] == kinds


# The function's answers


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("name", PASSING + DAMAGED)
@pytest.mark.parametrize("place", PLACES)
def test_a_passing_fault_is_answered_503(function: Faulty, place: str, name: str) -> None:
    """An incomplete read never becomes a 401, a 404 or partial counts."""
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
    """It is not retried, and its traceback is in the log."""
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
    """One fault is retried, and the retry's answer is used."""
    function.once[place] = fault(name, place)
    answer = ask(place)
    assert 2 == function.calls[place]
    if place == "batch":
        assert 304 == answer.status
    else:
        assert (2, 2, 0) == tuple(answer.data[field] for field in ("total_urls", "completed", "pending"))
        assert ["a", "b"] == [job["job_id"] for job in answer.data["jobs"]]


@pytest.mark.usefixtures("_at_once")
def test_a_direct_call_has_the_same_error(function: Faulty) -> None:
    function.forever["later page"] = fault("bad checksum", "later page")
    answer = app.handler({"batch_id": "batch"}, Context(60))
    assert (503, "SERVICE_UNAVAILABLE") == (answer["error"]["status"], answer["error"]["code"])


@pytest.mark.usefixtures("_at_once")
def test_a_token_is_not_forgotten_over_a_fault(function: Faulty) -> None:
    """A fault is not cached."""
    function.forever["token"] = fault("internal", "token")
    assert 503 == ask("first page").status
    function.forever.clear()
    assert 200 == ask("first page").status
    function.forever["token"] = fault("internal", "token")
    assert 200 == ask("first page").status


# Time


class Clock:
    """A clock that advances only when a retry waits, and by `step` each time it is read."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the deadline and of the pauses before retries."""
    clock = Clock()
    monkeypatch.setattr(dynamodb, "monotonic", clock)
    monkeypatch.setattr(app, "time", SimpleNamespace(monotonic=clock, time=time.time))
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def within(seconds: float, place: str, clock: Clock) -> Answer:
    """Ask with a timeout of `seconds`; check that the answer comes before it."""
    began = clock.now
    answer = ask(place, Context(seconds))
    assert clock.now - began < seconds
    return answer


@pytest.mark.parametrize("place", PLACES)
def test_without_time_nothing_is_begun(function: Faulty, clock: Clock, place: str) -> None:
    """The 503 is returned before the timeout."""
    answer = within(1, place, clock)
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert not function.calls


@pytest.mark.parametrize("headers", [{}, {"x-amz-retry-after": "5000"}])
def test_retries_end_with_the_time(
    function: Faulty, clock: Clock, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """No retry is made if its pause, from the back-off or from the response, would end after the deadline."""
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 0.0 if headers else 5.0)
    function.forever["first page"] = replace(fault("ThrottlingException", "first page"), headers=headers)
    answer = within(4, "first page", clock)
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert 1 == function.calls["first page"]


def test_no_retry_is_waited_for_when_time_is_up(
    function: Faulty, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow last attempt is not followed by a pause for one that could not begin."""
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 60.0)
    reply = function.reply

    def slow(place: str) -> Reply:
        clock.sleep(1)
        return reply(place)

    monkeypatch.setattr(function, "reply", slow)
    function.forever["token"] = Reply(500)
    answer = within(4, "token", clock)
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert 1 == function.calls["token"]
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


# Each byte arrives before the read timeout, but the last one would arrive after the deadline.
TRICKLES = {
    "head": Reply(head_pause=0.001, headers={"X-Padding": "x" * 20_000}),
    "body": Reply(body=b" " * 20_000, pause=0.001, piece=1),
}


@pytest.mark.parametrize("part", TRICKLES)
@pytest.mark.parametrize("place", PLACES)
def test_a_response_that_trickles_in_is_given_up_in_time(function: Faulty, clock: Clock, place: str, part: str) -> None:
    """Headers or body: the answer leaves before the function's timeout."""
    function.forever[place] = TRICKLES[part]
    clock.step = 0.1
    answer = within(10, place, clock)
    assert (503, "SERVICE_UNAVAILABLE") == answer.outcome
    assert 1 == function.calls[place]


@pytest.mark.parametrize("part", TRICKLES)
def test_a_response_that_trickles_in_ends_with_the_deadline(rig: Rig, faulty: Faulty, clock: Clock, part: str) -> None:
    """No read ends after the deadline."""
    faulty.forever["batch"] = TRICKLES[part]
    clock.step = 0.1
    at = clock() + 3
    with dynamodb.deadline(at), pytest.raises(ServiceUnavailable):
        read(rig.ours, "batch")
    assert at <= clock.now < at + 4 * clock.step


def test_a_slow_body_that_comes_in_time_is_an_answer(function: Faulty) -> None:
    function.forever["token"] = Reply(body=good("token").body, pause=0.002, piece=1)
    assert 200 == ask("token").status


def test_a_connection_is_used_again(function: Faulty) -> None:
    """A body that we read returns its connection to the pool; a broken connection is replaced."""
    assert 200 == ask("first page").status
    before = function.connections
    assert [200] * 5 == [ask("first page").status for _ in range(5)]
    assert before == function.connections
    function.once["first page"] = fault("ends within the body", "first page")
    assert 200 == ask("first page").status
    assert before + 1 == function.connections
