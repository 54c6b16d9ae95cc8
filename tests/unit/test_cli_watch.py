"""`watch` without a network: its requests, its output and its exit status."""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest
from rich.console import Console

from batch_progress.client.connection import Bearer, Connection
from batch_progress.client.protocol import age, backoff
from batch_progress.client.results import Estimate, Progress, Reason, Statuses, Summary
from batch_progress_cli.api import Job, connected
from batch_progress_cli.failure import Failed, GaveUpStalled
from batch_progress_cli.follow import Patience, Rate, State, View, follow
from batch_progress_cli.views import Json, Lines, Screen, picture

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
PATIENCE = Patience()
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\u202e\n\x9b1m"


def progress(
    completed: int,
    failed: int = 0,
    total: int = 4,
    basis: str = "observed",
    *,
    processing: int = 0,
    reasons: Sequence[tuple[str | None, int]] | None = None,
    as_of: datetime = NOW,
) -> Progress:
    """Return a batch's progress."""
    estimate = Estimate(basis, NOW + timedelta(seconds=40), NOW + timedelta(seconds=130), 0.8)
    pending = total - completed - failed
    failures = [("TIMEOUT", failed)] if failed and reasons is None else reasons or ()
    statuses = Statuses(pending - processing, processing, completed, failed, 0)
    summary = Summary(statuses, [Reason(*reason) for reason in failures], as_of)
    return Progress("batch_a", total, completed, failed, pending, 9, NOW + timedelta(seconds=80), estimate, summary)


def job(number: int, **values: Any) -> Job:  # noqa: ANN401  # a job's texts
    """Return a job as `include=details` shows it."""
    return Job(f"job_{number}", **({"url": "https://example.com", "finished_at": str(number)} | values))


def payload(state: Progress) -> dict[str, Any]:
    """Return the API's response body."""
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


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make UTC the local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


type Answers = Callable[[httpx.Request], httpx.Response]


def watch(answers: Answers, view: View, patience: Patience = PATIENCE) -> int:
    """Follow a batch at an API whose responses come from a function; return the exit status."""
    http = httpx.Client(transport=httpx.MockTransport(answers))
    return follow(Connection("http://api.example.com/prod/", Bearer("demo-token"), http), "batch_a", view, patience)


def told(
    *answers: httpx.Response | Exception, patience: Patience = PATIENCE, jobs: Sequence[Job] = ()
) -> tuple[int, Notes, list[httpx.Request]]:
    """Watch through a series of responses; return the exit status, the view and the requests.

    Lists of jobs are answered with `jobs`, and are no part of the series.
    """
    notes, asked, left = Notes(), [], list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if "status" in request.url.params:
            return listing(jobs)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return watch(answer, notes, patience), notes, asked


def listing(jobs: Sequence[Job]) -> httpx.Response:
    return httpx.Response(200, json={"success": True, "data": {"jobs": msgspec.to_builtins(list(jobs))}})


def asked_for(requests: Sequence[httpx.Request]) -> list[str]:
    """Return what each request asked for: the status of a list of jobs, or what a poll includes."""
    return [request.url.params.get("status", request.url.params["include"]) for request in requests]


def ok(state: Progress, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=payload(state), headers=headers)


def error(status: int, code: str, fields: str = "", **headers: str) -> httpx.Response:
    body = {
        "success": False,
        "error": {"code": code, "message": "No.", "details": dict.fromkeys(fields.split(), "is not valid")},
    }
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
    ("header", "expected"), [("7", 7), ("0", 1), ("999", 60), ("-1", 5), ("soon", 5), ("", 5), ("1" * 30, 60)]
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
    assert all(0.5 * 2**n <= backoff(n, None) <= 2**n for n in range(5))
    assert 15 <= backoff(40, None) <= 30
    assert 1 < len({backoff(3, None) for _ in range(20)})


def test_it_gives_up_in_the_end() -> None:
    with pytest.raises(Failed, match=r"gave up after 0 seconds: no answer \(ConnectError: refused\)"):
        told(httpx.ConnectError("refused"), patience=Patience(silence=0.1))


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


def test_a_poll_asks_for_counts_alone() -> None:
    """Its cost must not depend on how many jobs the batch has."""
    _, _, asked = told(ok(progress(4)))
    assert [{"limit": "0", "include": "summary,estimate"}] == [dict(request.url.params) for request in asked]


def test_failed_jobs_are_listed_when_their_number_changes() -> None:
    """Not with every poll. All of one answer, for the views to choose from."""
    failures = [job(1)]
    _, notes, asked = told(
        ok(progress(1)),
        ok(progress(1, 1), ETag='W/"1"'),
        httpx.Response(304),
        ok(progress(2, 1)),
        ok(progress(3, 1)),
        jobs=failures,
    )
    assert ["summary,estimate", "summary,estimate", "failed", *["summary,estimate"] * 3] == asked_for(asked)
    assert {"limit": "1000", "include": "details", "status": "failed"} == dict(asked[2].url.params)
    assert [[], *[failures] * 4] == [state.failures for state in notes.shown]


def test_failed_jobs_of_a_large_batch_are_not_listed() -> None:
    """The API would read the whole batch for it. The summary has the reasons."""
    _, notes, asked = told(ok(progress(1_000, 1, 1_001)))
    assert ["summary,estimate"] == asked_for(asked)
    assert (None, [Reason("TIMEOUT", 1)]) == (notes.shown[0].failures, notes.shown[0].progress.reasons)


def test_a_list_that_does_not_come_after_the_end_is_tried_again() -> None:
    """No poll follows. After four more tries the end is shown without it."""
    for broken, failures in ((1, [job(1)]), (9, [])):
        lists = [error(503, "SERVICE_UNAVAILABLE")] * broken + [listing([job(1)])]
        notes = Notes()
        end = ok(progress(3, 1))
        status = watch(lambda request: lists.pop(0) if "status" in request.url.params else end, notes)  # noqa: B023  # called at once
        assert 1 == status
        assert [failures] == [state.failures for state in notes.shown]
        assert min(broken, 4) == len(notes.waits)


def test_a_list_that_did_not_come_is_asked_for_again() -> None:
    """At the next poll, changed or not; what is known is shown meanwhile."""
    lists = [error(503, "SERVICE_UNAVAILABLE"), listing([job(1)])]
    polls = [ok(progress(1, 1), ETag='W/"1"'), httpx.Response(304), ok(progress(3, 1))]
    notes = Notes()
    watch(lambda request: (lists if "status" in request.url.params else polls).pop(0), notes)
    assert [[], [job(1)], [job(1)]] == [state.failures for state in notes.shown]
    assert ([], []) == (lists, polls)


def test_an_api_without_summaries_is_watched_too() -> None:
    """It refuses the value of `include`; the command then polls without it, and knows fewer counts."""
    refused = error(422, "VALIDATION_ERROR", "include")
    old = [msgspec.structs.replace(progress(completed), summary=None) for completed in (3, 4)]
    status, notes, asked = told(refused, *map(ok, old))
    assert (0, ["summary,estimate", "estimate", "estimate"]) == (status, asked_for(asked))
    assert [(0, [])] * 2 == [(state.progress.processing, state.progress.reasons) for state in notes.shown]


def test_another_refusal_is_not_taken_for_that_of_an_old_api() -> None:
    with pytest.raises(Failed, match="422 VALIDATION_ERROR"):
        told(error(422, "VALIDATION_ERROR", "limit cursor"))


def test_a_stall_names_the_jobs_that_hang() -> None:
    """The three that have been processing for longest, wherever they are in the order of ids. Listed once a stall."""
    starts = {1: "2026-11-24T09:59:00Z", 2: None, 3: "2026-11-24T09:00:00Z", 4: "2026-11-24T09:58:00Z"}
    hanging = [job(number, started_at=start, finished_at=None) for number, start in starts.items()]
    stalled = progress(0, basis="stalled", processing=4)
    _, notes, asked = told(ok(stalled), ok(stalled), ok(progress(1, processing=3)), ok(progress(4)), jobs=hanging)
    assert ["summary,estimate", "processing", *["summary,estimate"] * 3] == asked_for(asked)
    assert [["job_3", "job_4", "job_1"]] * 2 + [[]] * 2 == [
        [one.job_id for one in state.hanging] for state in notes.shown
    ]


def test_a_stall_in_which_no_job_is_processing_lists_none() -> None:
    _, _, asked = told(ok(progress(3, basis="stalled")), ok(progress(4)))
    assert ["summary,estimate"] * 2 == asked_for(asked)


class Seconds:
    """A monotonic clock that the waits of a view advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def view(self) -> Notes:
        notes = Notes()

        def wait(seconds: float) -> None:
            notes.waits.append(seconds)
            self.now += seconds

        notes.wait = wait  # type: ignore[method-assign]
        return notes


def test_it_gives_up_on_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a last poll when the time is over, and words that name the jobs that hang."""
    notes = Seconds(monkeypatch).view()
    hanging = job(7, started_at="2026-11-24T09:45:55Z")

    date = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT", "Retry-After": "30"}
    polls = [ok(progress(1, basis="stalled", processing=2), **date) for _ in range(4)]

    def answer(request: httpx.Request) -> httpx.Response:
        return listing([hanging]) if "status" in request.url.params else polls.pop(0)

    with pytest.raises(GaveUpStalled) as caught:
        watch(answer, notes, Patience(stall=70))
    assert [30, 30, 10] == notes.waits
    assert (
        "gave up: stalled for 1m 10s, 3 of 4 pending; hanging: job_7 for 14m 05s https://example.com, and 1 more"
        == str(caught.value)
    )
    assert 3 == caught.value.status


def test_a_stall_that_ended_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to give up counts from the beginning of the present stall."""
    notes = Seconds(monkeypatch).view()
    stalled, moving = progress(1, basis="stalled"), progress(2)
    polls = [ok(one, **{"Retry-After": "30"}) for one in (stalled, moving, stalled, stalled, progress(4))]
    assert 0 == watch(lambda _: polls.pop(0), notes, Patience(stall=50))
    assert [30, 30, 30, 20] == notes.waits


def test_unless_told_it_does_not_give_up_on_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may come back: a stall is no error."""
    notes = Seconds(monkeypatch).view()
    polls = [ok(progress(1, basis="stalled"), **{"Retry-After": "60"}) for _ in range(1_000)] + [ok(progress(4))]
    assert 0 == watch(lambda _: polls.pop(0), notes)


def test_an_old_count_does_not_spoil_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is that between the moments of the counts, not between the answers that contain them."""
    notes = Seconds(monkeypatch).view()
    counts = ((20, 0, 100), (40, 0, 200), (60, 10, 250))
    polls = [
        ok(
            progress(ended, total=2_000, as_of=NOW + timedelta(seconds=at - age)),
            Date=format_datetime(NOW + timedelta(seconds=at), usegmt=True),
            ETag='W/"1"',
            **{"Retry-After": "20"},
        )
        for at, age, ended in counts
    ]
    polls += [httpx.Response(304), ok(progress(2_000, total=2_000))]
    watch(lambda _: polls.pop(0), notes)
    assert [None, 300, 300, 300] == [state.per_minute for state in notes.shown[:-1]]


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


def state(
    *arguments: Any,  # noqa: ANN401  # those of progress
    failures: Sequence[Job] | None = (),
    hanging: Sequence[Job] = (),
    **values: Any,  # noqa: ANN401
) -> State:
    listed = None if failures is None else list(failures)
    return State(progress(*arguments, **values), NOW, 30.0, failures=listed, hanging=tuple(hanging))


def test_lines_come_only_on_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    failures = [job(0, error_code="TIMEOUT", error_message="Slow.")]
    for shown in (state(1), state(1), state(1, 1, failures=failures), state(3, 1, failures=failures)):
        lines.show(shown)
    assert [
        "25%: 1 of 4 completed, 0 failed, 3 pending",
        "failed: job_0 TIMEOUT: Slow.  https://example.com",
        "50%: 1 of 4 completed, 1 failed, 2 pending",
        "reasons of failures: 1 TIMEOUT",
        "100%: 3 of 4 completed, 1 failed, 0 pending",
    ] == [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()]


def test_of_a_large_batch_lines_tell_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """Its failed jobs are not listed. Codes are untrusted, and those beyond the most frequent are counted."""
    Lines().show(state(10, 20, 2_000, failures=None, reasons=[("TIMEOUT", 12), (HOSTILE[-3:], 4), (None, 3)]))
    first, second = capsys.readouterr().out.splitlines()
    assert "reasons of failures: 12 TIMEOUT, 4 ?1m, 3 no code, 1 with other codes" == first
    assert second.startswith("1%: 10 of 2,000 completed, 20 failed, 1,970 pending")


def test_a_line_tells_how_many_are_processing(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().show(state(1, processing=2))
    assert capsys.readouterr().out.startswith("25%: 1 of 4 completed, 0 failed, 3 pending (2 processing); ")


def test_an_old_count_is_said_to_be_old(capsys: pytest.CaptureFixture[str]) -> None:
    """A count of a few seconds ago is as good as new: the API's times are whole seconds."""
    for seconds in (5, 6):
        counted = progress(1, as_of=NOW - timedelta(seconds=seconds))
        Lines().show(State(counted, NOW, age=age(counted, NOW)))
    new, old = capsys.readouterr().out.splitlines()
    assert new.endswith("(likely 40s to 2m 10s)")
    assert old.endswith("(likely 40s to 2m 10s); counted 6s ago")


def test_a_line_has_rate_and_end_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().show(state(1))
    line = capsys.readouterr().out
    assert "; 9 items; 30 jobs a minute; ends in 1m 20s at " in line
    assert line.endswith(" (likely 40s to 2m 10s)\n")


def test_a_stalled_batch_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    """With the jobs that hang, if any does."""
    hanging = [job(7, started_at="2026-11-24T09:45:55.000Z"), job(8, started_at="bad", url=HOSTILE)]
    for shown in (state(1, basis="stalled"), state(1, basis="stalled", processing=3, hanging=hanging)):
        Lines().show(shown)
    stalled = "stalled: no job has moved for longer than the timeout of a job; "
    hostile = "?]0;owned??[2J[bold red]x[/]???1m"
    assert [
        f"{stalled}no job is processing",
        f"{stalled}hanging: job_7 for 14m 05s https://example.com, job_8 {hostile}, and 1 more",
    ] == [line[line.index("stalled: ") :] for line in capsys.readouterr().out.splitlines()]


def test_json_is_an_object_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    view = Json()
    for shown in (state(1), state(1), state(3, 1, failures=[job(0, error_message=HOSTILE)])):
        view.show(shown)
    out = capsys.readouterr().out
    records = [json.loads(line) for line in out.splitlines()]
    assert [(1, False), (3, True)] == [(record["completed"], record["final"]) for record in records]
    assert HOSTILE == records[1]["failures"][0]["error_message"]
    assert [{"error_code": "TIMEOUT", "jobs": 1}] == records[1]["summary"]["failures"]
    assert out.isascii()
    assert "\x1b" not in out


def test_no_text_of_a_job_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither escape sequences nor Rich markup have an effect, on a terminal or in a line."""
    failures = [job(0, url=HOSTILE, error_code=HOSTILE, error_message=HOSTILE)]
    shown = state(2, 1, failures=failures, reasons=[(HOSTILE, 1)])
    Lines().show(shown)
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    console.print(picture(shown, NOW))
    for out in (capsys.readouterr().out, console.file.getvalue()):  # type: ignore[attr-defined]  # a StringIO
        text = out.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[31m", "")
        assert "[bold red]x[/]" in text
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def drawn(*arguments: Any, width: int = 80) -> list[str]:  # noqa: ANN401  # those of picture
    """Return the lines of a picture, without the space at their ends."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(picture(*arguments))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]  # a StringIO


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "ends in 1m 20s at 10:01:20 (likely 40s to 2m 10s)"),
        (39, "ends in 41s at 10:01:20 (likely 1s to 1m 31s)"),
        (40, "ends in 40s at 10:01:20 (likely within 1m 30s)"),
        (79, "ends in 1s at 10:01:20 (likely within 51s)"),
        (80, "was expected to end at 10:01:20 (likely within 50s)"),
        (130, "was expected to end at 10:01:20"),
    ],
)
def test_a_countdown_has_an_end(utc: None, seconds: float, said: str) -> None:  # noqa: ARG001  # a fixture
    """No time that has passed is said to come."""
    assert said == drawn(state(1), after(seconds))[1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (30, "expected to end at 10:01:20 (likely 10:00:40 to 10:02:10)"),
        (79, "expected to end at 10:01:20 (likely 10:00:40 to 10:02:10)"),
        (80, "was expected to end at 10:01:20"),
        (86_400, "was expected to end at 2026-11-24 10:01:20"),
    ],
)
def test_offline_it_says_what_was_known(utc: None, seconds: float, said: str) -> None:  # noqa: ARG001  # a fixture
    """It counts nothing down, and says how old the last answer is."""
    _, trouble, outlook, *_ = drawn(state(1), after(seconds), "no answer (ConnectError)", 12)
    assert said == outlook
    assert trouble.startswith("last answer ")
    assert trouble.endswith(" ago; next try in 12s; no answer (ConnectError)")


def test_the_jobs_that_hang_have_a_line_each() -> None:
    """Offline they hang for as long as they did at the last answer: they may have ended."""
    long = job(7, started_at="2026-11-24T09:45:55.000Z", url="https://example.com/" + "a" * 80)
    stalled = state(1, basis="stalled", processing=2, hanging=[long])
    for arguments, minutes in ((("no answer", 12), "14m"), ((), "24m")):
        lines = drawn(stalled, after(600), *arguments)
        assert [
            "stalled: no job has moved for longer than the timeout of a job",
            "hanging",
            f"  job_7 for {minutes} 05s https://example.com/{'a' * 39}…",
            "  and 1 more",
        ] == lines[-8:-4]
    assert "; no job is processing" in " ".join(drawn(state(1, basis="stalled"), NOW))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 4), ["0% of 4 URLs", "0%", "0%", "100%"]),
        ((1, 1, 3), ["66% of 3 URLs", "33%", "33%", "33%"]),
        ((9_999, 0, 10_000), ["99% of 10,000 URLs", "99%", "0%", "<1%"]),
        ((0, 4, 4), ["100% of 4 URLs", "0%", "100%", "0%"]),
        ((0, 0, 0), ["no URLs", "0%", "0%", "0%"]),
    ],
)
def test_100_percent_is_all(counts: tuple[int, int, int], expected: list[str]) -> None:
    lines = drawn(state(*counts), NOW)
    assert expected == [lines[0].partition("  ")[0], *(line.split()[-1] for line in lines[2:5])]


def test_a_narrow_terminal_shows_the_end_first(utc: None) -> None:  # noqa: ARG001  # a fixture
    """Nothing of it is cut off. Texts from outside are."""
    failures = [job(0, error_code="TIMEOUT", error_message="The page did not answer within 8 seconds.")]
    lines = drawn(state(25, 2, 40, processing=4, failures=failures), NOW, width=40)
    assert [
        "67% of 40 URLs  batch_a",
        "ends in 1m 20s at 10:01:20 (likely 40s",
        "to 2m 10s)",
        "completed ━━━━━━━━━━━━━━          25 62%",
        "failed    ━                        2  5%",
        "pending   ━━━━━━━                 13 32%",
        "30 jobs a minute; 4 processing; 9 items",
        "reasons of failures: 2 TIMEOUT",
        "last failures",
        "  job_0 TIMEOUT: The page did not answe…",
    ] == lines
    trouble = drawn(state(1), after(125), "no answer (ConnectError: [Errno 111] Connection refused)", 12, width=40)[1]
    assert trouble.startswith("last answer 2m 05s ago; next try in 12s")


def test_a_poll_without_an_answer_is_shown_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a countdown would stand still, or go on, until the time-out."""
    clock = Seconds(monkeypatch)
    screen = Screen(Console(file=io.StringIO()))
    monkeypatch.setattr("time.sleep", lambda _: None)
    screen.show(state(1))
    screen.wait(5)
    for seconds, expected in ((6.9, False), (0.2, True)):
        clock.now += seconds
        console = Console(file=io.StringIO(), width=80)
        console.print(screen._picture())
        assert expected == ("last answer 7s ago; waiting for an answer" in console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO


def test_a_screen_tells_of_trouble_and_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    Seconds(monkeypatch)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        screen.trouble("no answer", 1)
        screen.show(state(1))
        screen.trouble(None, 0)
        screen.wait(0.1)
    out = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "next try in 1s; no answer" in out
    assert "no answer" not in out.rpartition("batch_a")[2]
    assert out.count("\x1b[?25h") == out.count("\x1b[?25l") == 1


def test_a_fault_keeps_what_the_service_asks_for() -> None:
    """And some jitter: clients that were refused together then do not come back together."""
    _, notes, _ = told(error(503, "SERVICE_UNAVAILABLE", **{"Retry-After": "9"}), ok(progress(4)))
    assert 9.5 <= notes.waits[0] <= 10


@pytest.mark.parametrize(
    ("url", "batch_id", "token", "said"),
    [
        ("http://api.example.com", "batch_a", "", "no token; give --token or set FREDDY_API_KEY"),
        ("http://api.example.com", "batch_a", "a b", "the token has characters that are not allowed in a token"),
        ("http://api.example.com", "a\x1b[2J", "token", r"'a\x1b[2J' is not a batch id: 1 to 128 of"),
        ("nonsense", "batch_a", "token", "'nonsense' is not the address of an API; give one that begins with"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_drawn(url: str, batch_id: str, token: str, said: str) -> None:
    with pytest.raises(Failed) as caught, connected(url, batch_id, token):
        pytest.fail("connected")
    assert str(caught.value).startswith(said)
    assert str(caught.value).isprintable()
