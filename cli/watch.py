"""Watching a batch: ask, say what changed, wait as long as the API asks for, until nothing is left to come."""

import random
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Final, Protocol, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from cli.failure import NO, Failed
from cli.terminal import visible

# As many failures as one page has; the last of them are shown.
_PARAMETERS: Final = {"status": "failed", "include": "details,estimate", "limit": "1000"}
_LAST: Final = 5
_TIMEOUT: Final = httpx.Timeout(20, connect=5)
_USUAL_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
# What a failing service is given: from one second, doubled with each failure.
_LONGEST_BACKOFF: Final = 30.0
_RATE_WINDOW: Final = 120.0
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_BATCH_ID: Final = re.compile("[A-Za-z0-9_-]{1,128}")
_TOKEN: Final = re.compile("[!-~]{1,8192}")

Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Failure(msgspec.Struct, frozen=True):
    """A job that failed; texts as they came, not fit for a terminal."""

    job_id: str
    url: str
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Estimate(msgspec.Struct, frozen=True):
    """What the API's estimate is made from, and its interval."""

    basis: str
    earliest: Moment
    latest: Moment
    confidence: float


class Progress(msgspec.Struct, frozen=True):
    """How far a batch is, as the API says."""

    batch_id: str
    total_urls: Natural
    completed: Natural
    failed: Natural
    pending: Natural
    total_items_extracted: Natural
    estimated_completion: Moment
    estimate: Estimate
    jobs: list[Failure]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to come."""
        return self.pending == 0

    @property
    def last_failures(self) -> list[Failure]:
        """The last jobs that failed, the latest first."""
        return sorted(self.jobs, key=lambda job: job.finished_at or "", reverse=True)[:_LAST]


class _Envelope(msgspec.Struct, frozen=True):
    data: Progress


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    details: dict[str, object] = {}


class _ErrorEnvelope(msgspec.Struct, frozen=True):
    error: _Error


class NoAnswer(Exception):  # read as a sentence
    """There was no answer, or none that helps; another try may do better.

    Attributes:
        wait: For how many seconds the service asks to be left alone, `None` when it does not.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        """Keep the reason, for the terminal."""
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        progress: How far the batch is; `None` where nothing changed.
        wait: Seconds until another question is worth it.
        now: The service's clock.
    """

    progress: Progress | None
    wait: float
    now: datetime


class Api:
    """One batch at the API, asked again and again over one connection."""

    def __init__(self, url: str, batch_id: str, token: str) -> None:
        """Take the API's address, the batch and the token to ask with.

        Raises:
            Failed: One of them cannot be one.
        """
        if not token:
            raise Failed("no token; give --token or set FREDDY_API_KEY")
        if not _TOKEN.fullmatch(token):
            raise Failed("the token has characters that no token has")
        if not _BATCH_ID.fullmatch(batch_id):
            raise Failed(f"{visible(batch_id, 140)!r} is no batch id: 1 to 128 of A-Z, a-z, 0-9, '_' and '-'")
        try:
            address = urlsplit(url)
            host, _ = address.hostname, address.port
        except ValueError:
            host = None
        if not host or address.scheme not in {"http", "https"} or not url.isprintable():
            raise Failed(
                f"{visible(url, 140)!r} is no address of an API; give one that begins with http:// or https://"
            )
        self._address = f"{url.rstrip('/')}/api/v1/scrape/batch/{batch_id}/progress"
        # The user's proxy leads away from this machine.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}", "User-Agent": "batch-progress-watch"},
            timeout=_TIMEOUT,
            trust_env=host not in _LOOPBACK,
        )
        self._tag = ""

    def __enter__(self) -> Self:
        """Use it; its connections are closed in the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    def ask(self) -> Reply:
        """Ask how far the batch is.

        Raises:
            NoAnswer: Another try may do better.
            Failed: None will.
        """
        headers = {"If-None-Match": self._tag} if self._tag else {}
        try:
            response = self._client.get(self._address, params=_PARAMETERS, headers=headers)
        except httpx.InvalidURL as error:
            raise Failed(f"the API's address is none: {visible(str(error), 200)}") from error
        except httpx.RequestError as error:
            raise NoAnswer(f"no answer ({type(error).__name__}: {visible(str(error), 200)})") from error
        wait = _seconds(response.headers.get("Retry-After"))
        if response.status_code == HTTPStatus.NOT_MODIFIED and self._tag:
            return Reply(None, wait or _USUAL_WAIT, _clock(response))
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response, wait)
        try:
            progress = msgspec.json.decode(response.content, type=_Envelope).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswer("what answers is not this API, or its answer was damaged") from error
        self._tag = response.headers.get("ETag", "")
        return Reply(progress, wait or _USUAL_WAIT, _clock(response))


def _refusal(response: httpx.Response, wait: float | None) -> NoAnswer | Failed:
    """Return what an answer without success means."""
    status = response.status_code
    try:
        error = msgspec.json.decode(response.content, type=_ErrorEnvelope).error
        details = "; ".join(f"{name}: {value}" for name, value in error.details.items())
        reason = visible(f"{status} {error.code}: {error.message}{f' ({details})' if details else ''}", 400)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reason = f"the API, or what stands before it, answers {status}"
    passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
    return NoAnswer(reason, wait) if passing else Failed(reason)


def _seconds(header: str | None) -> float | None:
    if header is None or not re.fullmatch("[0-9]{1,9}", header):
        return None
    return min(max(float(header), 1.0), _LONGEST_WAIT)


def _clock(response: httpx.Response) -> datetime:
    """Return the service's time, which the estimate is by; a client's own clock may be wrong."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


@dataclass
class Rate:
    """How many jobs end in a minute, as seen of late."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, at: float, ended: int) -> None:
        """Note how many had ended at a moment of `time.monotonic`."""
        if self._seen and ended < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at, ended))
        while at - self._seen[0][0] > _RATE_WINDOW:
            self._seen.popleft()

    @property
    def per_minute(self) -> float | None:
        """The rate, `None` until there is enough to tell."""
        if not self._seen:
            return None
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - begin) * 60 if end - begin >= 1 else None


@dataclass(frozen=True)
class State:
    """What is known of a batch.

    Attributes:
        progress: What the API said last.
        now: The service's clock when it said so, or that nothing had changed.
        per_minute: How many jobs end in a minute, `None` when that is not known yet.
    """

    progress: Progress
    now: datetime
    per_minute: float | None = None


class View(Protocol):
    """Where the state is shown."""

    def show(self, state: State) -> None:
        """Show what is known now."""

    def trouble(self, reason: str | None, wait: float) -> None:
        """Tell of a question without an answer, or with `None` that there are answers again."""

    def wait(self, seconds: float) -> None:
        """Wait until the next question."""


def watch(api: Api, view: View, patience: float) -> int:
    """Watch a batch to its end; return the exit status: 0 when every job completed, 1 when some did not.

    Args:
        api: The batch to ask for.
        view: Where to show it.
        patience: How many seconds without an answer are too many.

    Raises:
        Failed: The API refuses, or is away for too long.
    """
    progress, rate = None, Rate()
    answered, failures = time.monotonic(), 0
    while True:
        try:
            reply = api.ask()
        except NoAnswer as reason:
            silent = time.monotonic() - answered
            wait = _backoff(failures, reason.wait)
            if silent + wait > patience:
                raise Failed(f"gave up after {silent:.0f} seconds: {reason}") from reason
            failures += 1
            view.trouble(str(reason), wait)
            view.wait(wait)
            continue
        if failures:
            view.trouble(None, 0)
        answered, failures = time.monotonic(), 0
        progress = reply.progress or progress
        if progress is None:
            raise RuntimeError("a first answer that says nothing changed")
        rate.add(answered, progress.completed + progress.failed)
        view.show(State(progress, reply.now, rate.per_minute))
        if progress.finished:
            return NO if progress.failed else 0
        view.wait(reply.wait)


def _backoff(failures: int, asked: float | None) -> float:
    """Return how long to wait after so many failures before: longer each time, and no two clients alike."""
    longest = min(2.0**failures, _LONGEST_BACKOFF)
    return max(longest * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311  # spreads clients, guards nothing


@contextmanager
def terminable() -> Iterator[None]:
    """Let a request to terminate leave the terminal as it was."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
