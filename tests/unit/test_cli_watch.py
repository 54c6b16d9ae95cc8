"""`watch` without a network: its requests, its output and its exit status."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from rich.console import Console

from batch_progress_cli.api import Api, Estimate, Failure, NoAnswer, Progress
from batch_progress_cli.failure import Failed
from batch_progress_cli.follow import Rate, State, _backoff, follow
from batch_progress_cli.views import Json, Lines, Screen, picture

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\u202e\n\x9b1m"


def progress(completed: int, failed: int = 0, total: int = 4, basis: str = "observed", **values: Any) -> Progress:  # noqa: ANN401  # a job's texts
    """Return a batch's progress."""
    jobs = [
        Failure(f"job_{number}", **({"url": "https://example.com"} | values), finished_at=str(number))
        for number in range(failed)
    ]
    estimate = Estimate(basis, NOW + timedelta(seconds=40), NOW + timedelta(seconds=130), 0.8)
    pending = total - completed - failed
    return Progress("batch_a", total, completed, failed, pending, 9, NOW + timedelta(seconds=80), estimate, jobs)


def payload(state: Progress) -> dict[str, Any]:
    """Return the API's response body."""
    import msgspec  # noqa: PLC0415

    return {"success": True, "data": msgspec.to_builtins(state)}


class Notes:
    """A view that records its calls and does not wait."""

    def __init__(self) -> None:
        self.shown: list[State] = []
        self.troubles: list[str | None] = []
        self.waits: list[float] = []

    def show(self, state: State) -> None:
        self.shown.append(state)

    def trouble(self, reason: str | None, wait: float) -> None:  # noqa: ARG002
        self.troubles.append(reason)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


type Answers = Callable[[httpx.Request], httpx.Response]


def api(answers: Answers) -> Api:
    """Return an API client whose responses come from a function."""
    made = Api("http://api.example.com/prod/", "batch_a", "demo-token")
    made._client = httpx.Client(headers=made._client.headers, transport=httpx.MockTransport(answers))
    return made


def told(*answers: httpx.Response | Exception, patience: float = 300) -> tuple[int, Notes, list[httpx.Request]]:
    """Watch through a series of responses; return the exit status, the view and the requests."""
    notes, asked, left = Notes(), [], list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return follow(api(answer), notes, patience), notes, asked


def ok(state: Progress, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=payload(state), headers=headers)


def error(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"success": False, "error": {"code": code, "message": "No.", "details": {}}}
    return httpx.Response(status, json=body, headers=headers)


def test_status_0_when_every_job_completed() -> None:
    assert 0 == told(ok(progress(3)), ok(progress(4)))[0]


def test_status_1_when_some_failed() -> None:
    assert 1 == told(ok(progress(3, 1)))[0]


def test_an_empty_batch_is_complete() -> None:
    assert 0 == told(ok(progress(0, total=0)))[0]


def test_it_asks_with_the_last_tag_and_the_token() -> None:
    """The URL keeps the stage's prefix, and the token is in the documented header."""
    _, notes, asked = told(ok(progress(1), ETag='W/"1"'), httpx.Response(304), ok(progress(4)))
    assert [None, 'W/"1"', 'W/"1"'] == [request.headers.get("If-None-Match") for request in asked]
    assert "/prod/api/v1/scrape/batch/batch_a/progress" == asked[0].url.path
    assert "Bearer demo-token" == asked[0].headers["Authorization"]
    assert [1, 1, 4] == [state.progress.completed for state in notes.shown]


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("0", 1), ("999", 60), ("-1", 5), ("soon", 5), ("", 5), ("1" * 30, 5)]
)
def test_it_waits_as_long_as_the_api_asks_for(header: str, expected: float) -> None:
    """At most a minute. An invalid `Retry-After` is ignored."""
    assert [expected] == told(ok(progress(1), **{"Retry-After": header}), ok(progress(4)))[1].waits


def test_faults_are_survived() -> None:
    """Faults of the network, of a gateway and of other servers. Each is shown, and so is its end."""
    status, notes, _ = told(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        error(503, "SERVICE_UNAVAILABLE"),
        httpx.Response(502, text="<html>"),
        httpx.Response(200, text="<html>log in</html>"),
        httpx.Response(200, json={"success": True, "data": {"batch_id": "batch_a"}}),
        ok(progress(4)),
    )
    assert 0 == status
    assert 7 == len(notes.troubles)
    assert notes.troubles[-1] is None


def test_a_throttled_client_waits_for_retry_after() -> None:
    assert 20 <= told(error(429, "RATE_LIMIT_EXCEEDED", **{"Retry-After": "20"}), ok(progress(4)))[1].waits[0]


def test_the_pauses_grow_and_differ() -> None:
    """So clients do not all return at once after an outage."""
    assert all(0.5 * 2**n <= _backoff(n, None) <= 2**n for n in range(5))
    assert 15 <= _backoff(40, None) <= 30
    assert 1 < len({_backoff(3, None) for _ in range(20)})


def test_it_gives_up_in_the_end() -> None:
    with pytest.raises(Failed, match=r"gave up after 0 seconds: no answer \(ConnectError: refused\)"):
        told(httpx.ConnectError("refused"), patience=0.1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(401, "TOKEN_INVALID"), "401 TOKEN_INVALID: No."),
        (error(404, "BATCH_NOT_FOUND"), "404 BATCH_NOT_FOUND: No."),
        (error(422, "VALIDATION_ERROR"), "422 VALIDATION_ERROR: No."),
        (httpx.Response(403, text="<html>"), "the API, or a proxy in front of it, answered 403"),
        (httpx.Response(302, headers={"Location": "http://elsewhere"}), "answered 302"),
        (httpx.Response(304), "answered 304"),
    ],
)
def test_what_no_repetition_helps_ends_it(answer: httpx.Response, said: str) -> None:
    """Also a redirect: the token must not reach another host."""
    with pytest.raises(Failed, match=said):
        told(answer)


def test_the_service_clock_counts() -> None:
    """A client with a wrong clock still shows the right time left."""
    _, notes, _ = told(ok(progress(4), Date="Tue, 24 Nov 2026 10:00:00 GMT"))
    assert NOW == notes.shown[0].now


def test_a_rate_is_of_late_and_needs_a_second() -> None:
    rate = Rate()
    seen = []
    for at, ended in ((0.0, 10), (0.5, 11), (30.0, 40), (200.0, 40), (210.0, 0)):
        rate.add(at, ended)
        seen.append(rate.per_minute)
    assert [None, None, 60.0, None, None] == seen


def state(*arguments: Any, **values: Any) -> State:  # noqa: ANN401  # those of progress
    return State(progress(*arguments, **values), NOW, 30.0)


def test_lines_come_only_on_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for shown in (state(1), state(1), state(1, 1, error_code="TIMEOUT", error_message="Slow."), state(3, 1)):
        lines.show(shown)
    assert [
        "1 of 4 completed, 0 failed, 3 pending",
        "failed: job_0 TIMEOUT: Slow.  https://example.com",
        "1 of 4 completed, 1 failed, 2 pending",
        "3 of 4 completed, 1 failed, 0 pending",
    ] == [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()]


def test_a_line_has_rate_and_end_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().show(state(1))
    line = capsys.readouterr().out
    assert "; 9 items; 30 jobs a minute; ends in 1m 20s at " in line
    assert line.endswith(" (80%: 40s to 2m 10s)\n")


def test_a_stalled_batch_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().show(state(1, basis="stalled"))
    assert "stalled: no job has moved for longer than the timeout of a job\n" in capsys.readouterr().out


def test_json_is_an_object_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    view = Json()
    for shown in (state(1), state(1), state(3, 1, error_code="X", error_message=HOSTILE)):
        view.show(shown)
    out = capsys.readouterr().out
    records = [json.loads(line) for line in out.splitlines()]
    assert [(1, False), (3, True)] == [(record["completed"], record["final"]) for record in records]
    assert HOSTILE == records[1]["failures"][0]["error_message"]
    assert out.isascii()
    assert "\x1b" not in out


def test_no_text_of_a_job_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither escape sequences nor Rich markup have an effect, on a terminal or in a line."""
    shown = state(2, 1, url=HOSTILE, error_code=HOSTILE, error_message=HOSTILE)
    Lines().show(shown)
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    console.print(picture(shown, NOW))
    for out in (capsys.readouterr().out, console.file.getvalue()):  # type: ignore[attr-defined]  # a StringIO
        text = out.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[31m", "")
        assert "[bold red]x[/]" in text
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_screen_tells_of_trouble_and_of_its_end() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        screen.trouble("no answer", 1)
        screen.show(state(1))
        screen.trouble(None, 0)
        screen.wait(0.1)
    out = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "no answer; next try in 1s" in out
    assert "no answer" not in out.rpartition("batch_a")[2]
    assert out.count("\x1b[?25h") == out.count("\x1b[?25l") == 1


def test_a_fault_keeps_what_the_service_asks_for() -> None:
    with pytest.raises(NoAnswer) as caught:
        api(lambda _: error(503, "SERVICE_UNAVAILABLE", **{"Retry-After": "9"})).ask()
    assert 9 == caught.value.wait
