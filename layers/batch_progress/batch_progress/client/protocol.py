"""What to send, what an answer means, and how long to wait: the rules of polling, without any I/O.

`follow` and `listing` are generators. They yield `Send` and get its outcome back: an `Answer`, or the error that the
connection made of its failure. They yield `Pause` when it is time to wait; everything else they yield is a result. The
two clients and `batch-progress watch` only do what they are asked, so that they poll alike.
"""

import math
import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import msgspec

from batch_progress.client import arguments
from batch_progress.client.errors import (
    AuthenticationError,
    InvalidRequest,
    NotFound,
    ProgressError,
    Stalled,
    Throttled,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from batch_progress.client.results import Job, Progress
from batch_progress.table import ID_PATTERN

_SUMMARY: Final = "summary,estimate"
# For an API older than `include=summary`, which refuses it.
_NO_SUMMARY: Final = "estimate"
_JOBS_PER_PAGE: Final = 1_000
# A count is called old from here on: the API's times are in whole seconds, and an answer takes a moment.
_OLD_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 20.0
# A request gets this long even if less is left of `timeout`.
_LEAST_REQUEST_SECONDS: Final = 1.0
# Without a usable `Retry-After`.
_USUAL_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
# Backoff starts at one second and doubles with each failure, up to this.
_LONGEST_BACKOFF: Final = 30.0
_SHOWN: Final = 140


class Send(msgspec.Struct, frozen=True):
    """A GET request.

    Attributes:
        path: The path below the address of the API.
        parameters: The query parameters.
        headers: The headers besides the token.
        timeout: Seconds until it has failed.
    """

    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    timeout: float


class Answer(msgspec.Struct, frozen=True):
    """A complete HTTP response. The names of `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Pause(msgspec.Struct, frozen=True):
    """Wait before the next request.

    Attributes:
        seconds: How long.
        trouble: Why the last request failed; `None` if it did not.
    """

    seconds: float
    trouble: Unavailable | None = None


class Polled(msgspec.Struct, frozen=True):
    """A batch after a poll.

    Attributes:
        progress: The batch.
        now: The server's time: the estimate is relative to it, and this machine's clock may be wrong.
        age: How many seconds old the count was when it came; 0 if it was as good as new. The API may reuse the count
            of a large batch.
        fresh: Whether `progress` came with this answer; if not, the API said that it is unchanged.
        changed: Whether anything but the time of the count differs from the state before.
    """

    progress: Progress
    now: datetime
    age: float
    fresh: bool
    changed: bool


type Outcome = Answer | ProgressError
# A generator that yields results besides its requests and pauses.
type Steps[ResultT] = Generator[Send | Pause | ResultT, Outcome | None]


class _Envelope(msgspec.Struct, frozen=True):
    data: Progress


class Page[JobT](msgspec.Struct, frozen=True):
    """A page of jobs."""

    jobs: list[JobT]
    next_cursor: str | None = None


class _PageEnvelope[JobT](msgspec.Struct, frozen=True):
    data: Page[JobT]


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    details: dict[str, object] = {}
    trace_id: str = ""


class _ErrorEnvelope(msgspec.Struct, frozen=True):
    error: _Error


class WireJob(msgspec.Struct, frozen=True):
    """A job as the API writes it."""

    job_id: str
    url: str
    status: str
    items_extracted: int
    started_at: str | None = None
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    def decoded(self) -> Job:
        """Return the job with its times as datetimes; a time that is not valid is `None`."""
        return Job(
            self.job_id,
            self.url,
            self.status,
            self.items_extracted,
            _moment(self.started_at),
            _moment(self.finished_at),
            self.error_code,
            self.error_message,
        )


def follow(batch_id: str, *, retry_for: float, timeout: float = math.inf, stall: float = math.inf) -> Steps[Polled]:
    """Poll a batch, at the pace of `Retry-After`, until every job has ended.

    Args:
        batch_id: The batch.
        retry_for: Seconds after which to give up on a request that gets no answer.
        timeout: Seconds in total after which to give up.
        stall: Seconds after which to give up on a batch that is stalled.

    Raises:
        InvalidRequest: The batch id is not one.
        ProgressError: When the generator runs: any of its subclasses.
    """
    patience = _Patience(batch_id, arguments.seconds("retry_for", retry_for), timeout)
    return _follow(_Poll(batch_path(batch_id)), patience, stall)


def _follow(poll: "_Poll", patience: "_Patience", stall: float) -> Steps[Polled]:
    stalled_since: float | None = None
    while True:
        state = yield from _retried(poll.send, poll.read, patience)
        if state is None:
            continue  # the API refuses summaries; the next poll does without
        answered, progress = patience.answered, state.progress
        patience.progress = progress
        yield state
        if progress.finished:
            return
        if not progress.stalled:
            stalled_since = None
        elif stalled_since is None:
            stalled_since = answered
        stalled = -math.inf if stalled_since is None else answered - stalled_since
        if stalled >= stall:
            raise Stalled(f"{_left(progress)}, and none has moved for longer than a job may take", progress, stalled)
        if patience.left <= 0:
            raise patience.over()
        yield Pause(min(poll.wait, patience.left, stall - stalled))


def listing[JobT](
    batch_id: str, statuses: str | Iterable[str], kind: type[JobT], *, retry_for: float
) -> Steps[Page[JobT]]:
    """List the jobs of a batch, page by page.

    Args:
        batch_id: The batch.
        statuses: List only jobs with these statuses; none of them lists all.
        kind: The fields of a job to decode.
        retry_for: Seconds after which to give up on a request that gets no answer.

    Raises:
        InvalidRequest: The batch id is not one.
        ProgressError: When the generator runs: any of its subclasses.
    """
    status = arguments.statuses(statuses)
    parameters = {"limit": str(_JOBS_PER_PAGE), "include": "details"} | ({"status": status} if status else {})
    return _listing(
        batch_path(batch_id), parameters, kind, _Patience(batch_id, arguments.seconds("retry_for", retry_for))
    )


def _listing[JobT](path: str, parameters: dict[str, str], kind: type[JobT], patience: "_Patience") -> Steps[Page[JobT]]:
    def send(seconds: float) -> Send:
        return Send(path, parameters, {}, seconds)

    def read(outcome: Outcome | None) -> Page[JobT]:
        return _decoded(_ok(outcome), _PageEnvelope[kind]).data  # type: ignore[valid-type]  # known at run time

    while True:
        page = yield from _retried(send, read, patience)
        yield page
        if page.next_cursor is None:
            return
        parameters = parameters | {"cursor": page.next_cursor}


def expired(outcome: Outcome) -> bool:
    """Tell whether the API refused the token because its time is over."""
    return (
        isinstance(outcome, Answer)
        and outcome.status == HTTPStatus.UNAUTHORIZED
        and _error(outcome).code == "TOKEN_EXPIRED"
    )


def backoff(failures: int, asked: float | None) -> float:
    """Return the seconds to wait after a failure: `Retry-After`, and an exponential backoff with jitter.

    Clients that were refused together then do not come back together.
    """
    longest = min(2.0**failures, _LONGEST_BACKOFF)
    return (asked or 0.0) + longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret


class _Patience:
    """How long to go on.

    Attributes:
        answered: When the last answer came.
        progress: The last state of the batch.
    """

    def __init__(self, batch_id: str, retry_for: float, timeout: float = math.inf) -> None:
        self._batch_id = batch_id
        self._retry_for = retry_for
        self._timeout = timeout
        self._began: float | None = None
        self._asked = 0.0
        self._failures = 0
        self.answered = 0.0
        self.progress: Progress | None = None

    def ask(self) -> None:
        """Note the time of a request that is not a retry."""
        self._asked, self._failures = time.monotonic(), 0
        if self._began is None:
            self._began = self._asked

    @property
    def left(self) -> float:
        """Seconds left of the total."""
        return self._timeout - (time.monotonic() - (self._began or 0.0))

    def wait(self, trouble: Unavailable) -> float:
        """Return the seconds to wait after a failure.

        Raises:
            Unavailable: That is too long.
        """
        silent, wait = time.monotonic() - self._asked, backoff(self._failures, trouble.retry_after)
        self._failures += 1
        if silent + wait > self._retry_for:
            raise type(trouble)(f"gave up after {silent:.0f} seconds: {trouble}", **vars(trouble)) from trouble
        return wait

    def over(self, trouble: Unavailable | None = None) -> TimedOut:
        """Return the error that the total is over."""
        known = _left(self.progress) if self.progress else f"{self._batch_id}: no answer"
        return TimedOut(f"{known} after {self._timeout:g} seconds{f': {trouble}' if trouble else ''}", self.progress)


def _retried[ResultT](
    send: Callable[[float], Send], read: Callable[[Outcome | None], ResultT], patience: _Patience
) -> Generator[Send | Pause, Outcome | None, ResultT]:
    """Send a request until its answer can be read."""
    patience.ask()
    while True:
        outcome = yield send(max(min(_REQUEST_SECONDS, patience.left), _LEAST_REQUEST_SECONDS))
        try:
            result = read(outcome)
        except Unavailable as trouble:
            wait, left = patience.wait(trouble), patience.left
            yield Pause(min(wait, max(left, 0.0)), trouble)
            if wait > left:
                raise patience.over(trouble) from trouble
        else:
            patience.answered = time.monotonic()
            return result


class _Poll:
    """The polls of a batch: its tag, and the last state.

    Attributes:
        wait: Seconds until the next poll.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._include = _SUMMARY
        self._tag = ""
        self._progress: Progress | None = None
        self._age = 0.0
        self.wait = _USUAL_WAIT

    def send(self, seconds: float) -> Send:
        """Return the next request. It asks for counts only: its cost does not depend on the number of jobs."""
        headers = {"If-None-Match": self._tag} if self._tag else {}
        return Send(self._path, {"limit": "0", "include": self._include}, headers, seconds)

    def read(self, outcome: Outcome | None) -> Polled | None:
        """Return the state after an answer; `None` if the API is too old for the request, and the next one differs."""
        answer = _answer(outcome)
        if answer.status == HTTPStatus.NOT_MODIFIED and self._tag and self._progress:
            self.wait = _seconds(answer) or _USUAL_WAIT
            return Polled(self._progress, _clock(answer), self._age, fresh=False, changed=False)
        if (
            answer.status == HTTPStatus.UNPROCESSABLE_ENTITY
            and self._include == _SUMMARY
            and "include" in _error(answer).details
        ):
            self._include, self._tag = _NO_SUMMARY, ""
            return None
        progress = _decoded(_ok(answer), _Envelope).data
        if progress.ended + progress.pending != progress.total_urls:
            raise _damaged()
        before, now = self._progress, _clock(answer)
        self._progress, self._age = progress, age(progress, now)
        tag = answer.headers.get("ETag", "")
        # A damaged one could not be sent.
        self._tag, self.wait = tag if tag.isascii() else "", _seconds(answer) or _USUAL_WAIT
        return Polled(progress, now, self._age, fresh=True, changed=_timeless(progress) != _timeless(before))


def batch_path(batch_id: str) -> str:
    """Return the path of a batch.

    Raises:
        InvalidRequest: The API would refuse the id.
    """
    if not isinstance(batch_id, str) or not re.fullmatch(ID_PATTERN, batch_id):
        reason = f"{shown(batch_id)} is not a batch id: 1 to 128 of A-Z, a-z, 0-9, '_' and '-'"
        raise InvalidRequest(reason, code="VALIDATION_ERROR", details={"batch_id": reason})
    return f"/api/v1/scrape/batch/{batch_id}/progress"


def shown(value: object) -> str:
    """Return an argument for a message."""
    return repr(f"{value[: _SHOWN - 1]}…" if isinstance(value, str) and len(value) > _SHOWN else value)


def _answer(outcome: Outcome | None) -> Answer:
    if isinstance(outcome, ProgressError):
        raise outcome
    if outcome is None:
        raise TypeError("a request has no outcome")
    return outcome


def _ok(outcome: Outcome | None) -> Answer:
    """Return an answer whose status is 200, or raise what the other one means."""
    answer = _answer(outcome)
    if answer.status != HTTPStatus.OK:
        raise _refusal(answer)
    return answer


def _refusal(answer: Answer) -> ProgressError:
    """Return the exception for an answer that is not a success."""
    status, error = answer.status, _error(answer)
    if error.code:
        details = "; ".join(f"{name}: {value}" for name, value in error.details.items())
        reason = f"{status} {error.code}: {error.message}{f' ({details})' if details else ''}"
    else:
        reason = f"the API, or a proxy in front of it, answered {status}"
    # A path that the API does not have: the address is wrong, not the batch.
    kind = _kind(status, known=error.code not in {"", "ROUTE_NOT_FOUND"})
    if kind is UnexpectedAnswer:
        reason = f"{reason.removesuffix('.')}; is the address of the API right?"
    return kind(
        reason,
        code=error.code,
        status=status,
        details=error.details,
        trace_id=error.trace_id,
        retry_after=_seconds(answer),
    )


def _kind(status: int, *, known: bool) -> type[ProgressError]:
    """Return the class for a status; `known` says that the error is the API's, and about the request."""
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Throttled
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            return Unavailable
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if known:
            return AuthenticationError
        case HTTPStatus.NOT_FOUND if known:
            return NotFound
        case _ if status >= HTTPStatus.BAD_REQUEST and known:
            return InvalidRequest
        case _:
            return UnexpectedAnswer


def _decoded[EnvelopeT: msgspec.Struct](answer: Answer, envelope: type[EnvelopeT]) -> EnvelopeT:
    try:
        return msgspec.json.decode(answer.body, type=envelope)
    except _UNREADABLE:
        pass
    # The exception would hold the body.
    raise _damaged()


# A body of nested brackets exceeds the recursion limit.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _damaged() -> Unavailable:
    return Unavailable("the server is not this API, or its answer was damaged")


def _error(answer: Answer) -> _Error:
    """Return the error of an answer; one without a code if it is not this API's."""
    try:
        return msgspec.json.decode(answer.body, type=_ErrorEnvelope).error
    except _UNREADABLE:
        return _Error("", "")


def _seconds(answer: Answer) -> float | None:
    """Return `Retry-After`, from 1 to 60; `None` if it is not a number."""
    header = answer.headers.get("Retry-After", "")
    return min(max(float(header), 1.0), _LONGEST_WAIT) if re.fullmatch("[0-9]+", header) else None


def _clock(answer: Answer) -> datetime:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return datetime.now(UTC)


def age(progress: Progress, now: datetime) -> float:
    """Return how many seconds old the count is; 0 if it is as good as new."""
    if progress.summary is None:
        return 0.0
    seconds = (now - progress.summary.as_of).total_seconds()
    return seconds if seconds > _OLD_SECONDS else 0.0


def _timeless(progress: Progress | None) -> object:
    """Return the state without the time of its count."""
    if progress is None or progress.summary is None:
        return progress
    summary = msgspec.structs.replace(progress.summary, as_of=datetime.min.replace(tzinfo=UTC))
    return msgspec.structs.replace(progress, summary=summary)


def _left(progress: Progress) -> str:
    return f"{progress.batch_id}: {progress.pending:,} of {progress.total_urls:,} pending"


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
