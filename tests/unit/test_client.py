"""The Python client without a network: what it sends, what it returns and raises, how long it waits."""

import asyncio
import inspect
import json
import pickle
import random
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from batch_progress import client
from batch_progress.client import (
    AsyncProgressClient,
    AuthenticationError,
    Estimate,
    InvalidRequest,
    Job,
    NotFound,
    Progress,
    ProgressClient,
    ProgressError,
    Reason,
    Stalled,
    Statuses,
    Summary,
    Throttled,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    errors,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
URL = "http://api.example.com/prod/"
TOKEN = "a-secret-token"
PROXY = "the API, or a proxy in front of it,"
NO_TOKEN = "the token has characters that are not allowed in a token; give it without 'Bearer' and line breaks"
RIGHT = "; is the address of the API right?"

type Answers = Callable[[httpx.Request], httpx.Response]


class Clock:
    """Virtual time: pauses take none.

    Attributes:
        now: The time.
        pauses: How long each pause was.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.pauses: list[float] = []
        monkeypatch.setattr("batch_progress.client.protocol.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("batch_progress.client.clients.time", SimpleNamespace(sleep=self._sleep))
        monkeypatch.setattr("batch_progress.client.clients.asyncio", SimpleNamespace(sleep=self._sleep_async))

    def _sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.pauses.append(seconds)
        self.now += seconds

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Sync:
    """Calls `ProgressClient`."""

    def __init__(self, answers: Answers, token: Any = TOKEN) -> None:  # noqa: ANN401  # that of the client
        self._client = ProgressClient(URL, token, http=httpx.Client(transport=httpx.MockTransport(answers)))

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # those of the client
        """Call a method; return its result, or the list of what it yields."""
        result = getattr(self._client, name)(*arguments, **options)
        return list(result) if isinstance(result, Iterator) else result


class Async:
    """Calls `AsyncProgressClient`."""

    def __init__(self, answers: Answers, token: Any = TOKEN) -> None:  # noqa: ANN401  # that of the client
        self._http = httpx.AsyncClient(transport=httpx.MockTransport(answers))
        self._token = token

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # those of the client
        """Call a method; return its result, or the list of what it yields."""

        async def called() -> object:
            async with AsyncProgressClient(URL, self._token, http=self._http) as used:
                result = getattr(used, name)(*arguments, **options)
                return [one async for one in result] if isinstance(result, AsyncIterator) else await result

        return asyncio.run(called())


type Kind = type[Sync | Async]


@pytest.fixture(params=[Sync, Async], ids=["threads", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


class Series:
    """An API that answers with a series, and notes the requests. A callable is called for its answer."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._left = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        given = self._left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given


def data(completed: int, failed: int = 0, total: int = 4, basis: str = "observed", **more: object) -> dict[str, Any]:
    """Return a batch as the API writes it."""
    pending = total - completed - failed
    times = {name: f"2026-11-24T10:0{minute}:00Z" for minute, name in enumerate(("earliest", "latest"), 1)}
    return {
        "batch_id": "batch_a",
        "total_urls": total,
        "completed": completed,
        "failed": failed,
        "pending": pending,
        "total_items_extracted": 9,
        "estimated_completion": "2026-11-24T10:01:30Z",
        "jobs": [],
        "estimate": {"basis": basis, **times, "confidence": 0.8},
        "summary": {
            "statuses": {"pending": 0, "processing": pending, "completed": completed, "failed": failed, "cancelled": 0},
            "failures": [{"error_code": None, "jobs": failed}] if failed else [],
            "as_of": "2026-11-24T10:00:00Z",
        },
        "next_cursor": None,
    } | more


def ok(given: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": given}, headers=headers)


def error(
    status: int, code: str, details: Mapping[str, str] = MappingProxyType({}), retry_after: str = ""
) -> httpx.Response:
    body = {"code": code, "message": "No.", "details": dict(details), "trace_id": "1-abc"}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return httpx.Response(status, json={"success": False, "error": body}, headers=headers)


# Results


def test_get_returns_the_state_typed(kind: Kind) -> None:
    """It asks for counts only, once."""
    series = Series(ok(data(1, 1)))
    progress = kind(series).call("get", "batch_a")
    assert isinstance(progress, Progress)
    assert (4, 1, 1, 2, 9) == (
        progress.total_urls,
        progress.completed,
        progress.failed,
        progress.pending,
        progress.total_items_extracted,
    )
    assert NOW + timedelta(seconds=90) == progress.estimated_completion
    assert (NOW + timedelta(minutes=1), NOW + timedelta(minutes=2), 0.8) == (
        progress.estimate.earliest,
        progress.estimate.latest,
        progress.estimate.confidence,
    )
    assert progress.summary
    assert (NOW, [(None, 1)]) == (
        progress.summary.as_of,
        [(reason.error_code, reason.jobs) for reason in progress.reasons],
    )
    assert (2, False, False, 2) == (progress.ended, progress.finished, progress.stalled, progress.processing)
    (request,) = series.asked
    assert "/prod/api/v1/scrape/batch/batch_a/progress" == request.url.path
    assert {"limit": "0", "include": "summary,estimate"} == dict(request.url.params)
    assert f"Bearer {TOKEN}" == request.headers["Authorization"]


def test_wait_returns_the_end_and_calls_back_on_each_change(kind: Kind, clock: Clock) -> None:
    """At the pace of the API, with its tag. An unchanged batch is not reported, nor a new time of the count only."""
    recounted = data(1) | {"summary": data(1)["summary"] | {"as_of": "2026-11-24T10:01:00Z"}}
    series = Series(
        ok(data(1), **{"Retry-After": "2", "ETag": 'W/"1"'}),
        httpx.Response(304, headers={"Retry-After": "3"}),
        ok(recounted, **{"Retry-After": "4", "ETag": 'W/"2"'}),
        ok(data(3, 1)),
    )
    seen: list[Progress] = []
    last = kind(series).call("wait", "batch_a", on_change=seen.append)
    assert [1, 4] == [progress.ended for progress in seen]
    assert last is seen[-1]
    assert [2, 3, 4] == clock.pauses
    assert [None, 'W/"1"', 'W/"1"', 'W/"2"'] == [request.headers.get("If-None-Match") for request in series.asked]


def test_on_change_may_be_a_coroutine_function() -> None:
    seen = []

    async def on_change(progress: Progress) -> None:
        seen.append(progress.ended)

    Async(Series(ok(data(1)), ok(data(4)))).call("wait", "batch_a", on_change=on_change)
    assert [1, 4] == seen


def test_watch_yields_each_change_until_the_end(kind: Kind) -> None:
    series = Series(ok(data(1), ETag='W/"1"'), httpx.Response(304), ok(data(2)), ok(data(2)), ok(data(4)))
    assert [1, 2, 4] == [progress.completed for progress in kind(series).call("watch", "batch_a")]


def test_a_batch_that_is_finished_already(kind: Kind, clock: Clock) -> None:
    assert 4 == kind(Series(ok(data(4)))).call("wait", "batch_a").completed
    assert [] == clock.pauses


def job(number: int, **more: object) -> dict[str, Any]:
    return {"job_id": f"job_{number}", "url": "https://example.com", "status": "failed", "items_extracted": 0} | more


def test_jobs_come_from_all_pages(kind: Kind) -> None:
    """With their times; one that is not valid is as good as none."""
    times = {"started_at": "2026-11-24T10:00:00.250Z", "finished_at": "soon", "error_code": "TIMEOUT"}
    no_zone = job(2, started_at="2026-11-24T10:00:00")
    series = Series(ok(data(0, jobs=[job(1, **times)], next_cursor="x y")), ok(data(0, jobs=[no_zone])))
    jobs = kind(series).call("jobs", "batch_a", ["failed", "cancelled"])
    assert [
        Job("job_1", "https://example.com", "failed", 0, NOW + timedelta(seconds=0.25), None, "TIMEOUT"),
        Job("job_2", "https://example.com", "failed", 0),
    ] == jobs
    asked = {"limit": "1000", "include": "details", "status": "failed,cancelled"}
    assert [asked, asked | {"cursor": "x y"}] == [dict(request.url.params) for request in series.asked]


def test_a_page_is_requested_when_it_is_needed() -> None:
    """Each page costs reads. Without a status, all jobs are listed."""
    series = Series(ok(data(0, jobs=[job(1), job(2)], next_cursor="next")), ok(data(0, jobs=[job(3)])))
    jobs = ProgressClient(URL, TOKEN, http=httpx.Client(transport=httpx.MockTransport(series))).jobs("batch_a")
    assert [1, 1, 2] == [len(series.asked) for _ in jobs]
    assert {"limit": "1000", "include": "details"} == dict(series.asked[0].url.params)


def test_a_page_that_does_not_come_is_asked_for_again(kind: Kind) -> None:
    """That page, and not those before it."""
    first, second = (data(0, jobs=[job(number)], next_cursor=cursor) for number, cursor in ((1, "c"), (2, None)))
    series = Series(ok(first), httpx.ReadError("reset"), ok(second))
    assert ["job_1", "job_2"] == [one.job_id for one in kind(series).call("jobs", "batch_a")]
    assert [None, "c", "c"] == [request.url.params.get("cursor") for request in series.asked]


def test_an_old_api_is_asked_without_a_summary(kind: Kind) -> None:
    """It refuses the value of `include`."""
    old = data(4)
    del old["summary"]
    series = Series(error(422, "VALIDATION_ERROR", {"include": "is not known"}), ok(old))
    progress = kind(series).call("wait", "batch_a")
    assert (None, 0, []) == (progress.summary, progress.processing, progress.reasons)
    assert ["summary,estimate", "estimate"] == [request.url.params["include"] for request in series.asked]


def test_an_api_that_becomes_old_is_asked_without_the_tag(kind: Kind) -> None:
    """A deployment is rolled back while a client waits: its tag is of another request."""
    series = Series(ok(data(1), ETag='W/"1"'), error(422, "VALIDATION_ERROR", {"include": "is not known"}), ok(data(4)))
    kind(series).call("wait", "batch_a")
    assert [None, 'W/"1"', None] == [request.headers.get("If-None-Match") for request in series.asked]


# Errors


def test_an_unchanged_batch_without_a_tag_is_not_believed(kind: Kind) -> None:
    """The last answer had none, so nothing was asked that a `304` could answer."""
    with pytest.raises(UnexpectedAnswer, match="answered 304"):
        kind(Series(ok(data(1)), httpx.Response(304))).call("wait", "batch_a")


@pytest.mark.parametrize(
    ("answered", "expected", "said"),
    [
        (lambda: error(401, "TOKEN_EXPIRED"), AuthenticationError, "401 TOKEN_EXPIRED: No."),
        (lambda: error(403, "ACCESS_DENIED"), AuthenticationError, "403 ACCESS_DENIED: No."),
        (
            lambda: error(404, "BATCH_NOT_FOUND", {"batch_id": "batch_a"}),
            NotFound,
            "404 BATCH_NOT_FOUND: No. (batch_id: batch_a)",
        ),
        (lambda: error(405, "METHOD_NOT_ALLOWED"), InvalidRequest, "405 METHOD_NOT_ALLOWED: No."),
        (
            lambda: error(422, "VALIDATION_ERROR", {"limit": "bad"}),
            InvalidRequest,
            "422 VALIDATION_ERROR: No. (limit: bad)",
        ),
        (lambda: error(404, "A_NEW_CODE"), NotFound, "404 A_NEW_CODE: No."),
        (lambda: error(404, "ROUTE_NOT_FOUND"), UnexpectedAnswer, f"404 ROUTE_NOT_FOUND: No{RIGHT}"),
        (
            lambda: httpx.Response(403, text="<html>"),
            UnexpectedAnswer,
            f"{PROXY} answered 403{RIGHT}",
        ),
        (lambda: httpx.Response(304), UnexpectedAnswer, f"{PROXY} answered 304{RIGHT}"),
        (
            lambda: httpx.Response(302, headers={"Location": "http://elsewhere"}),
            UnexpectedAnswer,
            f"{PROXY} answered 302{RIGHT}",
        ),
    ],
)
@pytest.mark.parametrize("name", ["get", "jobs", "watch", "wait"])
def test_what_another_try_does_not_help_is_raised_at_once(
    kind: Kind,
    name: str,
    answered: Callable[[], httpx.Response],
    expected: type[ProgressError],
    said: str,
    clock: Clock,
) -> None:
    """By the API's code, or by the status if the code is not known. The token follows no redirect."""
    answer = answered()
    series = Series(answer)
    with pytest.raises(ProgressError) as caught:
        kind(series).call(name, "batch_a")
    assert (expected, said) == (type(caught.value), str(caught.value))
    assert answer.status_code == caught.value.status
    if "error" in answer.text:
        body = answer.json()["error"]
        assert (body["code"], body["details"], "1-abc") == (
            caught.value.code,
            caught.value.details,
            caught.value.trace_id,
        )
    assert ([], 1) == (clock.pauses, len(series.asked))


FAULTS: list[tuple[Callable[[], httpx.Response | Exception], type[Unavailable], str]] = [
    (
        lambda: httpx.ConnectError("refused"),
        Unavailable,
        "no answer (ConnectError: refused) from http://api.example.com",
    ),
    (lambda: httpx.ReadTimeout(""), Unavailable, "no answer (ReadTimeout: the time is over)"),
    (lambda: httpx.RemoteProtocolError("cut"), Unavailable, "no answer (RemoteProtocolError: cut)"),
    (lambda: error(503, "SERVICE_UNAVAILABLE"), Unavailable, "503 SERVICE_UNAVAILABLE: No."),
    (lambda: error(500, "INTERNAL_ERROR"), Unavailable, "500 INTERNAL_ERROR: No."),
    (lambda: error(429, "RATE_LIMIT_EXCEEDED"), Throttled, "429 RATE_LIMIT_EXCEEDED: No."),
    (lambda: httpx.Response(408), Unavailable, "answered 408"),
    (lambda: httpx.Response(502, text="<html>"), Unavailable, "answered 502"),
    (lambda: httpx.Response(200, text="<html>log in</html>"), Unavailable, "its answer was damaged"),
    (lambda: httpx.Response(200, content=ok(data(1)).content[:-40]), Unavailable, "its answer was damaged"),
    (lambda: httpx.Response(200, content=b'"\xff'), Unavailable, "its answer was damaged"),
    (lambda: httpx.Response(200, content=b"[" * 100_000), Unavailable, "its answer was damaged"),
    (lambda: httpx.Response(500, content=b'{"a":' * 100_000), Unavailable, "answered 500"),
    (lambda: httpx.DecodingError("incorrect header check"), Unavailable, "no answer (DecodingError: "),
]


@pytest.mark.parametrize(("fault", "expected", "said"), FAULTS)
@pytest.mark.parametrize(("name", "result"), [("get", 4), ("jobs", []), ("watch", [4]), ("wait", 4)])
def test_what_another_try_may_help_is_tried_again(  # a fixture and a table's columns
    kind: Kind,
    name: str,
    result: object,
    fault: Callable[[], httpx.Response | Exception],
    expected: type[Unavailable],
    said: str,
) -> None:
    """And raised if no other try is wanted."""
    answer = kind(Series(fault(), fault(), ok(data(4)))).call(name, "batch_a")
    assert result == ([one.completed for one in answer] if isinstance(answer, list) else answer.completed)
    with pytest.raises(Unavailable) as caught:
        kind(Series(fault())).call(name, "batch_a", retry_for=0)
    assert expected is type(caught.value)
    assert said in str(caught.value)


def test_counts_that_do_not_sum_are_damaged(kind: Kind) -> None:
    """A digit can change on the way, and the answer is still JSON."""
    series = Series(ok(data(1) | {"completed": 7}), ok(data(4)))
    assert [4] == [progress.completed for progress in kind(series).call("watch", "batch_a")]


def test_pauses_grow_and_differ_and_keep_to_retry_after(kind: Kind, clock: Clock) -> None:
    """Up to half a minute: clients do not all come back at once after an outage."""
    faults = [error(503, "SERVICE_UNAVAILABLE", retry_after=asked) for asked in ("", "", "20")]
    kind(Series(*faults, *[httpx.ReadError("")] * 6, ok(data(4)))).call("wait", "batch_a")
    for pause, (least, most) in zip(
        clock.pauses, [(0.5, 1), (1, 2), (22, 24), (4, 8), (8, 16), *[(15, 30)] * 4], strict=True
    ):
        assert least <= pause <= most
    assert len(set(clock.pauses)) == len(clock.pauses)


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("0", 1), ("61", 60), ("9" * 400, 60), ("-1", 5), ("1.5", 5), ("\u0663", 5), ("Fri, 27 Nov 2026 10:00:00 GMT", 5)],
)
def test_an_odd_retry_after_keeps_the_pace_within_bounds(kind: Kind, asked: str, pause: float, clock: Clock) -> None:
    """From one second to a minute; five seconds if it is not a whole number."""
    first = ok(data(1))
    first.headers = httpx.Headers([*first.headers.raw, (b"Retry-After", asked.encode())])
    kind(Series(first, ok(data(4)))).call("wait", "batch_a")
    assert [pause] == clock.pauses


@pytest.mark.parametrize("date", ["", "soon", "Fri, 99999999999999999999 Nov 2026 00:00:00 GMT"])
def test_a_damaged_header_is_no_error(kind: Kind, date: str) -> None:
    """A tag that cannot be sent back is not sent."""
    first = ok(data(1), Date=date)
    first.headers = httpx.Headers([*first.headers.raw, (b"ETag", b'W/"\xc3\xa9"')])
    series = Series(first, ok(data(4)))
    assert 4 == kind(series).call("wait", "batch_a").completed
    assert [None, None] == [request.headers.get("If-None-Match") for request in series.asked]


def test_it_gives_up_without_an_answer(kind: Kind, clock: Clock) -> None:
    """Within the time that it may take. The error is that of the last try."""
    series = Series(*[httpx.ConnectError("refused")] * 20, error(429, "RATE_LIMIT_EXCEEDED", retry_after="60"))
    with pytest.raises(Unavailable, match=r"gave up after \d+ seconds: no answer \(ConnectError: refused\)"):
        kind(series).call("wait", "batch_a")
    assert 200 < sum(clock.pauses) <= 300
    with pytest.raises(Throttled) as caught:
        kind(lambda _: error(429, "RATE_LIMIT_EXCEEDED", retry_after="60")).call("get", "batch_a")
    assert ("RATE_LIMIT_EXCEEDED", 429, 60) == (caught.value.code, caught.value.status, caught.value.retry_after)


def test_the_time_without_an_answer_counts_from_the_request(kind: Kind, clock: Clock) -> None:
    """And not from the last answer: the pause between two polls may be longer. So each request is tried again."""
    outage: list[httpx.Response | Exception] = [httpx.ConnectError("refused")] * 3
    series = Series(ok(data(1), **{"Retry-After": "60"}), *outage, ok(data(4)))
    assert 4 == kind(series).call("wait", "batch_a", retry_for=20).completed
    assert 60 == clock.pauses[0]


def test_each_request_has_the_whole_time(kind: Kind, clock: Clock) -> None:
    """A service that goes away and comes back is no error, as often as it does."""
    outage: list[httpx.Response | Exception] = [httpx.ConnectError("refused")] * 5
    series = Series(*[one for ended in range(4) for one in (*outage, ok(data(ended)))], *outage, ok(data(4)))
    assert 4 == kind(series).call("wait", "batch_a", retry_for=40).completed
    assert sum(clock.pauses) > 80


def test_it_gives_up_when_the_time_is_over(kind: Kind, clock: Clock) -> None:
    """After a last look at its end. The error has the last state."""
    series = Series(*[ok(data(ended, total=2_000), **{"Retry-After": "30"}) for ended in range(4)])
    with pytest.raises(TimedOut, match="batch_a: 1,997 of 2,000 pending after 70 seconds") as caught:
        kind(series).call("wait", "batch_a", timeout=70)
    assert [30, 30, 10] == clock.pauses
    assert caught.value.progress
    assert 3 == caught.value.progress.completed


def test_it_gives_up_in_time_without_an_answer(kind: Kind, clock: Clock) -> None:
    """It does not come back before `Retry-After`, and says why there was no answer."""
    series = Series(error(503, "SERVICE_UNAVAILABLE", retry_after="30"))
    with pytest.raises(TimedOut, match="batch_a: no answer after 10 seconds: 503 SERVICE_UNAVAILABLE") as caught:
        kind(series).call("wait", "batch_a", timeout=10)
    assert ([10], None) == (clock.pauses, caught.value.progress)


def test_a_time_that_is_over_already_allows_one_look(kind: Kind, clock: Clock) -> None:
    assert 4 == kind(Series(ok(data(4)))).call("wait", "batch_a", timeout=0).completed
    with pytest.raises(TimedOut):
        kind(Series(ok(data(1)))).call("wait", "batch_a", timeout=0)
    assert 0 == sum(clock.pauses)


def test_no_request_lasts_longer_than_the_time_that_is_left(kind: Kind) -> None:
    """But at least a second."""
    series = Series(ok(data(1), **{"Retry-After": "7"}), ok(data(2)), ok(data(2)))
    with pytest.raises(TimedOut):
        kind(series).call("wait", "batch_a", timeout=10)
    assert [10, 3, 1] == [request.extensions["timeout"]["read"] for request in series.asked]
    series = Series(ok(data(4)))
    kind(series).call("wait", "batch_a")
    assert {"read": 20, "connect": 5} == {
        name: series.asked[0].extensions["timeout"][name] for name in ("read", "connect")
    }


@pytest.mark.parametrize(("after", "pauses"), [(True, []), (0, []), (70, [30, 30, 10])])
def test_it_gives_up_on_a_stall(kind: Kind, after: float, pauses: list[float], clock: Clock) -> None:
    """At once, or after a number of seconds; a stall that ended does not count."""
    stalled, moving = (ok(data(1, basis=basis), **{"Retry-After": "30"}) for basis in ("stalled", "observed"))
    series = Series(moving, *[stalled] * 4)
    with pytest.raises(Stalled) as caught:
        kind(series).call("wait", "batch_a", give_up_when_stalled=after)
    assert [30, *pauses] == clock.pauses
    assert caught.value.progress
    assert (3, sum(pauses)) == (caught.value.progress.pending, caught.value.seconds)
    assert "batch_a: 3 of 4 pending, and none has moved for longer than a job may take" == str(caught.value)


def test_a_stall_is_no_error_unless_asked_for(kind: Kind, clock: Clock) -> None:
    """Workers may come back."""
    stalled = ok(data(1, basis="stalled"), **{"Retry-After": "60"})
    assert 4 == kind(Series(*[stalled] * 100, ok(data(4)))).call("wait", "batch_a").completed
    assert 6_000 == sum(clock.pauses)


# Arguments


@pytest.mark.parametrize("value", ["5m", "300", timedelta(minutes=5), True, float("nan"), Decimal(5)], ids=repr)
@pytest.mark.parametrize(
    ("name", "option"), [("wait", "timeout"), ("wait", "retry_for"), ("get", "retry_for"), ("jobs", "retry_for")]
)
def test_seconds_are_a_number(kind: Kind, name: str, option: str, value: object) -> None:
    """Before anything is sent."""
    series = Series()
    with pytest.raises(InvalidRequest) as caught:
        kind(series).call(name, "batch_a", **{option: value})
    assert f"{option} must be a number of seconds, not {value!r}" == str(caught.value)
    assert [] == series.asked


def test_seconds_of_a_stall_are_a_number(kind: Kind) -> None:
    with pytest.raises(InvalidRequest, match="give_up_when_stalled must be a number of seconds, not '5m'"):
        kind(Series()).call("wait", "batch_a", give_up_when_stalled="5m")


@pytest.mark.parametrize("status", [None, 5, [None], ["failed", 5]])
def test_a_status_is_text(kind: Kind, status: object) -> None:
    with pytest.raises(InvalidRequest, match="status must be a status, or several in a list, not "):
        kind(Series()).call("jobs", "batch_a", status=status)


@pytest.mark.parametrize("batch_id", [None, 5, b"batch_a"])
@pytest.mark.parametrize("name", ["get", "jobs", "watch", "wait"])
def test_a_batch_id_is_text(kind: Kind, name: str, batch_id: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kind(Series()).call(name, batch_id)
    assert str(caught.value).startswith(f"{batch_id!r} is not a batch id: 1 to 128 of")


@pytest.mark.parametrize("url", [None, 5, b"https://api.example.com"])
@pytest.mark.parametrize("client", [ProgressClient, AsyncProgressClient])
def test_an_address_is_text(client: Any, url: object) -> None:  # noqa: ANN401  # both clients
    """`os.environ.get` of a variable that is not set gives `None`."""
    with pytest.raises(InvalidRequest) as caught:
        client(url, TOKEN)
    assert str(caught.value).startswith(f"{url!r} is not the address of an API; ")


@pytest.mark.parametrize(
    ("client", "http", "said"),
    [
        (ProgressClient, httpx.AsyncClient, "http must be an httpx.Client, not <httpx.AsyncClient"),
        (AsyncProgressClient, httpx.Client, "http must be an httpx.AsyncClient, not <httpx.Client"),
        (ProgressClient, lambda: httpx.Client, "http must be an httpx.Client, not <class"),
    ],
)
def test_a_client_of_ones_own_is_of_the_same_kind(client: Any, http: Callable[[], object], said: str) -> None:  # noqa: ANN401  # both
    with pytest.raises(InvalidRequest) as caught:
        client(URL, TOKEN, http=http())
    assert str(caught.value).startswith(said)


def test_a_coroutine_function_is_not_forgotten() -> None:
    """`ProgressClient` cannot await it: it would never run."""
    states: list[Progress] = []

    async def note(now: Progress) -> None:
        states.append(now)

    with pytest.raises(InvalidRequest, match="on_change is a coroutine function; only AsyncProgressClient awaits it"):
        Sync(Series(ok(data(1)), ok(data(4)))).call("wait", "batch_a", on_change=note)
    Async(Series(ok(data(1)), ok(data(4)))).call("wait", "batch_a", on_change=note)
    assert [1, 4] == [state.completed for state in states]


@pytest.mark.parametrize("batch_id", ["", "a/b", "../batch_a", "batch a", "batch_a?x=1", "é", "a" * 129, "batch_a\n"])
@pytest.mark.parametrize("name", ["get", "jobs", "watch", "wait"])
def test_a_bad_batch_id_is_not_sent(kind: Kind, name: str, batch_id: str) -> None:
    series = Series()
    with pytest.raises(InvalidRequest, match="is not a batch id: 1 to 128 of A-Z, a-z, 0-9, '_' and '-'") as caught:
        kind(series).call(name, batch_id)
    assert ("VALIDATION_ERROR", ["batch_id"], []) == (caught.value.code, list(caught.value.details), series.asked)


@pytest.mark.parametrize("name", ["jobs", "watch"])
def test_a_bad_batch_id_is_refused_before_the_first_result_is_asked_for(name: str) -> None:
    with pytest.raises(InvalidRequest):
        getattr(ProgressClient(URL, TOKEN), name)("a/b")


@pytest.mark.parametrize("made", [ProgressClient, AsyncProgressClient])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "'' is not the address of an API; give one that begins with http:// or https://"),
        ("api.example.com", "is not the address"),
        ("ftp://api.example.com", "is not the address"),
        ("http://", "is not the address"),
        ("http://a:b", "is not the address"),
        ("http://a\n", "is not the address"),
        ("https://user:password@api.example.com", "has a user name, a query or a fragment"),
        ("https://api.example.com/?a=b", "has a user name, a query or a fragment"),
        ("https://api.example.com/#a", "has a user name, a query or a fragment"),
    ],
)
def test_a_bad_address_is_refused(made: type[ProgressClient], url: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        made(url, TOKEN)
    assert said in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example.com"])
def test_a_host_that_cannot_be_looked_up_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest, match="the address of the API is not valid"):
        ProgressClient(f"http://{host}", TOKEN).get("batch_a")


@pytest.mark.parametrize("made", [ProgressClient, AsyncProgressClient])
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "no token"),
        (None, "no token"),
        (b"secret", "the token must be a text, not bytes"),
        ("secret token", NO_TOKEN),
        ("Bearer secret", NO_TOKEN),
        ("secret\n", NO_TOKEN),
        ("sécret", NO_TOKEN),
        (URL, "the token is an address; give the address of the API first"),
    ],
)
def test_a_bad_token_is_refused(made: type[ProgressClient], token: str, said: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        made(URL, token)
    assert said == str(caught.value)


def test_a_token_in_the_place_of_the_address_is_not_shown() -> None:
    with pytest.raises(AuthenticationError) as caught:
        ProgressClient(TOKEN, URL)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


# Tokens that expire


def expiring(kind: Kind, *tokens: object) -> Callable[[], object]:
    """Return a function that returns these tokens, one after the other: for asyncio, a coroutine function."""
    left = list(tokens)

    async def token() -> object:
        await asyncio.sleep(0)
        return left.pop(0)

    return token if kind is Async else lambda: left.pop(0)


def bearers(series: Series) -> list[str]:
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in series.asked]


def test_a_token_that_has_expired_is_renewed(kind: Kind, clock: Clock) -> None:
    """Waiting goes on as if nothing had happened: with the tag, without a pause or a report."""
    seen: list[int] = []
    series = Series(
        ok(data(1), ETag='W/"1"'),
        error(401, "TOKEN_EXPIRED"),
        httpx.Response(304),
        error(401, "TOKEN_EXPIRED"),
        ok(data(4)),
    )
    waiting = kind(series, expiring(kind, "first", "second", "third"))
    waiting.call("wait", "batch_a", on_change=lambda progress: seen.append(progress.ended))
    assert ["first", "first", "second", "second", "third"] == bearers(series)
    assert [None, *['W/"1"'] * 4] == [request.headers.get("If-None-Match") for request in series.asked]
    assert ([1, 4], [5, 5]) == (seen, clock.pauses)


def test_a_plain_function_serves_asyncio_too() -> None:
    series = Series(error(401, "TOKEN_EXPIRED"), ok(data(4)))
    Async(series, expiring(Sync, "first", "second")).call("get", "batch_a")
    assert ["first", "second"] == bearers(series)


def test_a_token_is_renewed_once_for_a_request(kind: Kind) -> None:
    """One that has expired when it comes is the caller's to mend."""
    series = Series(error(401, "TOKEN_EXPIRED"), error(401, "TOKEN_EXPIRED"))
    with pytest.raises(AuthenticationError, match="401 TOKEN_EXPIRED"):
        kind(series, expiring(kind, "first", "second", "third")).call("get", "batch_a")
    assert ["first", "second"] == bearers(series)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: error(401, "TOKEN_INVALID"),
        lambda: error(403, "TOKEN_EXPIRED"),
        lambda: httpx.Response(401, text="TOKEN_EXPIRED"),
    ],
)
def test_a_token_that_is_refused_for_another_reason_is_not_renewed(
    kind: Kind, refused: Callable[[], httpx.Response]
) -> None:
    series = Series(refused())
    with pytest.raises(ProgressError):
        kind(series, expiring(kind, "first", "second")).call("get", "batch_a")
    assert ["first"] == bearers(series)


def test_a_given_token_is_not_renewed(kind: Kind) -> None:
    series = Series(error(401, "TOKEN_EXPIRED"))
    with pytest.raises(AuthenticationError, match="401 TOKEN_EXPIRED"):
        kind(series).call("get", "batch_a")
    assert 1 == len(series.asked)


@pytest.mark.parametrize(
    ("token", "said"),
    [("", "no token"), (None, "no token"), (7, "not int"), (f"{TOKEN} x", "characters that are not allowed")],
)
def test_what_is_returned_must_be_a_token(kind: Kind, token: str, said: str) -> None:
    """It is not sent, not shown, and does not replace the one before."""
    series = Series(error(401, "TOKEN_EXPIRED"), ok(data(4)))
    used = kind(series, expiring(kind, "first", token))
    with pytest.raises(AuthenticationError, match=said) as caught:
        used.call("get", "batch_a")
    error_ = caught.value
    assert error_.__traceback__
    assert TOKEN not in told(error_.with_traceback(error_.__traceback__.tb_next))
    if kind is Sync:  # the other one makes a client for each call
        used.call("get", "batch_a")
    assert {"first"} == set(bearers(series))


def test_an_error_of_the_function_stays_what_it_is(kind: Kind) -> None:
    """With its traceback: it is the caller's code. The client is usable after it."""

    def token() -> str:
        if not failed:
            failed.append(True)
            raise LookupError("no issuer")
        return "first"

    failed: list[bool] = []
    series = Series(ok(data(4)))
    used = kind(series, token)
    with pytest.raises(LookupError, match="no issuer") as caught:
        used.call("get", "batch_a")
    assert "token" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    used.call("get", "batch_a")
    assert ["first"] == bearers(series)


def test_waiting_threads_renew_a_token_once() -> None:
    """Their requests fail at the same time."""
    both = threading.Barrier(4)
    asked: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] == "Bearer token-1":
            both.wait(60)
            return error(401, "TOKEN_EXPIRED")
        return ok(data(4))

    def token() -> str:
        time.sleep(0.05)
        asked.append(f"token-{len(asked) + 1}")
        return asked[-1]

    used = ProgressClient(URL, token, http=httpx.Client(transport=httpx.MockTransport(answers)))
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(used.get, [f"batch_{number}" for number in range(4)]))
    assert ([4] * 4, ["token-1", "token-2"]) == ([one.completed for one in ended], asked)


def test_waiting_tasks_renew_a_token_once() -> None:
    asked: list[str] = []

    async def answers(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return error(401, "TOKEN_EXPIRED") if request.headers["Authorization"] == "Bearer token-1" else ok(data(4))

    async def token() -> str:
        await asyncio.sleep(0)
        asked.append(f"token-{len(asked) + 1}")
        return asked[-1]

    async def called() -> list[Progress]:
        used = AsyncProgressClient(URL, token, http=httpx.AsyncClient(transport=httpx.MockTransport(answers)))
        return await asyncio.gather(*[used.get(f"batch_{number}") for number in range(4)])

    assert [4] * 4 == [one.completed for one in asyncio.run(called())]
    assert ["token-1", "token-2"] == asked


def test_a_given_client_stays_open_and_an_own_one_is_closed() -> None:
    """The API may be behind a proxy, or have a certificate of an authority of one's own."""
    given = httpx.Client(transport=httpx.MockTransport(Series(ok(data(4)))), follow_redirects=True)
    with ProgressClient(URL, TOKEN, http=given) as used:
        used.get("batch_a")
    assert not given.is_closed
    with ProgressClient(URL, TOKEN) as own:
        http = own._connection._http
    assert http.is_closed


class Interrupted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport whose frame holds the token, as those of real ones do, when an exception comes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = request.headers.raw
        try:
            return httpx.Response(200, content=str(headers[0][0], "no codec"))
        except LookupError:
            raise self._error  # noqa: B904  # its context holds the frame, too

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


def told(error: BaseException) -> str:
    """Return all that a tool can show of an exception: its chain, with the local variables of each frame."""
    shown: list[str] = []
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shown += traceback.TracebackException.from_exception(one, capture_locals=True, compact=False).format()
        shown.append(repr(vars(one)))
        left += [one.__cause__, one.__context__]
    return "".join(shown)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), asyncio.CancelledError(), RuntimeError("a bug"), httpx.ReadError("reset")],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_shows_the_token(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Error trackers send local variables too. Neither does a log line show it."""
    caplog.set_level(0)
    expected = Unavailable if isinstance(error, httpx.ReadError) else type(error)
    transport = Interrupted(error)
    with pytest.raises(expected) as caught:
        ProgressClient(URL, TOKEN, http=httpx.Client(transport=transport)).get("batch_a", retry_for=0)
    assert "_retried" in told(caught.value) or "send" in told(caught.value)
    assert TOKEN not in told(caught.value)

    async def called() -> None:
        await AsyncProgressClient(URL, TOKEN, http=httpx.AsyncClient(transport=transport)).get("batch_a", retry_for=0)

    with pytest.raises(expected) as caught:
        asyncio.run(called())
    assert TOKEN not in told(caught.value) + caplog.text


@pytest.mark.parametrize("made", [ProgressClient, AsyncProgressClient])
@pytest.mark.parametrize(("url", "token"), [("no-address", TOKEN), (URL, f"{TOKEN} ")])
def test_an_error_of_an_argument_does_not_show_the_token(made: type[ProgressClient], url: str, token: str) -> None:
    with pytest.raises(ProgressError) as caught:
        made(url, token)
    error = caught.value
    # The first frame is this one.
    assert error.__traceback__
    assert TOKEN not in told(error.with_traceback(error.__traceback__.tb_next))


def test_no_client_shows_the_token() -> None:
    used = ProgressClient(URL, TOKEN)
    assert TOKEN not in repr(used) + repr(vars(used)) + repr(vars(used._connection))


@pytest.mark.parametrize("made", [ProgressClient, AsyncProgressClient])
def test_no_proxy_is_asked_for_this_machine(made: type[ProgressClient]) -> None:
    """A proxy of the environment cannot reach it."""
    hosts = ("127.0.0.1:3000", "localhost", "[::1]:3000", "api.example.com")
    used = [made(f"http://{host}", TOKEN)._connection._http.trust_env for host in hosts]
    assert [False, False, False, True] == used


@pytest.mark.parametrize("made", [ProgressClient, AsyncProgressClient])
@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "ftp://127.0.0.1:1"), ("ALL_PROXY", "http://127.0.0.1:x"), ("SSL_CERT_FILE", "/does/not/exist")],
)
def test_an_environment_that_cannot_be_used_is_one_error(
    made: type[ProgressClient], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the environment is at fault; for this machine's own addresses it does not matter."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match="a proxy or the certificates that the environment names cannot be used: "):
        made("https://api.example.com", TOKEN)
    made("https://localhost", TOKEN)


def test_both_clients_have_the_same_calls() -> None:
    for name in ("get", "jobs", "watch", "wait"):
        threads, asynchronous = (
            inspect.signature(getattr(made, name)).parameters for made in (ProgressClient, AsyncProgressClient)
        )
        assert [(one.name, one.kind, one.default) for one in threads.values()] == [
            (one.name, one.kind, one.default) for one in asynchronous.values()
        ]


# The tree


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    """Each class is public, and can be pickled with what it carries: process pools do that."""
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.lstrip().startswith("*")]
    drawn = [(line.index("*") // 2, line.split()[1]) for line in lines]

    def tree(kind: type[ProgressError], depth: int = 0) -> Iterator[tuple[int, str]]:
        yield depth, kind.__name__
        for child in kind.__subclasses__():
            yield from tree(child, depth + 1)

    assert list(tree(ProgressError)) == drawn
    assert {name for _, name in drawn} <= set(client.__all__)
    for name in {name for _, name in drawn}:
        made = getattr(client, name)("No.")
        assert ("", None, {}, "", None) == (made.code, made.status, made.details, made.trace_id, made.retry_after)
        assert (None, 0.0) == (getattr(made, "progress", None), getattr(made, "seconds", 0.0))
        made.code = "A"
        again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own
        assert (type(made), str(made), vars(made)) == (type(again), str(again), vars(again))


# A bad line


class Simulated:
    """An API in virtual time whose batch takes ten minutes; a share of its answers is broken, late or cut."""

    def __init__(self, clock: Clock, share: float, seed: int) -> None:
        self._clock = clock
        self._began = clock.now
        self._share = share
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        ended = min(int((self._clock.now - self._began) / 6), 100)
        tag = f'W/"{ended}"'
        headers = {"ETag": tag} | ({"Retry-After": "5"} if ended < 100 else {})
        if request.headers.get("If-None-Match") == tag:
            answer = httpx.Response(304, headers=headers)
        else:
            answer = ok(data(ended - ended // 10, ended // 10, total=100), **headers)
        if self._chance.random() >= self._share:
            return answer
        return self._chance.choice((self._broken, self._late, self._cut))(answer)

    def _broken(self, _: httpx.Response) -> httpx.Response:
        damage = self._chance.choice((httpx.ReadError("reset"), error(503, "SERVICE_UNAVAILABLE"), httpx.Response(502)))
        if isinstance(damage, Exception):
            raise damage
        return damage

    def _late(self, answer: httpx.Response) -> httpx.Response:
        self._clock.now += self._chance.choice((3, 20))
        if self._chance.random() < 1 / 2:
            raise httpx.ReadTimeout("timed out")
        return answer

    def _cut(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code == 304 or self._chance.random() < 1 / 2:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        content = answer.content[: self._chance.randrange(len(answer.content))]
        headers = {name: answer.headers[name] for name in ("ETag", "Retry-After") if name in answer.headers}
        return httpx.Response(200, content=content, headers=headers)


def test_over_a_bad_line_the_end_is_the_same_at_less_than_twice_the_requests(kind: Kind, clock: Clock) -> None:
    """With 30% of the answers broken, late or cut, whichever they are."""
    good = Simulated(clock, 0, 0)
    end = kind(good).call("wait", "batch_a")
    assert (90, 10, 0) == (end.completed, end.failed, end.pending)
    requests = []
    for seed in range(30):
        bad = Simulated(clock, 0.3, seed)
        assert end == kind(bad).call("wait", "batch_a")
        requests.append(bad.requests)
    assert max(requests) <= 2 * good.requests, (good.requests, requests)


def test_an_unknown_field_changes_nothing(kind: Kind) -> None:
    """The API may add fields."""
    more = data(4) | {"new": {"a": 1}}
    more["estimate"] |= {"new": 1}
    assert msgspec.json.decode(json.dumps(data(4)), type=Progress) == kind(Series(ok(more))).call("get", "batch_a")


@pytest.mark.parametrize("kind", [Progress, Estimate, Summary, Statuses, Reason, Job])
def test_each_result_has_the_name_and_the_fields_of_its_schema(kind: type[msgspec.Struct]) -> None:
    """`jobs` lists the jobs, page by page. Generated clients name their types like the schemas."""
    schemas = json.loads((ROOT / "docs/openapi.json").read_text())["components"]["schemas"]
    schemas["Statuses"] = schemas["Summary"]["properties"]["statuses"]
    expected = {*schemas[kind.__name__]["properties"]} - ({"jobs", "next_cursor"} if kind is Progress else set())
    assert expected == {*kind.__struct_fields__}
