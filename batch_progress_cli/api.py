"""A client of the progress API: poll one batch with its ETag, list some jobs, and decide which failures are retryable.

A poll asks for counts only, so its cost does not depend on how many jobs the batch has. Listing jobs by status makes
the API read the whole batch.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from batch_progress.table import ID_PATTERN
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible

_SUMMARY: Final = "summary,estimate"
# For an API older than `include=summary`, which refuses it.
_NO_SUMMARY: Final = "estimate"
_MOST_JOBS: Final = 1_000
# A count is called old from here on: the API's times are in whole seconds, and an answer takes a moment.
_OLD_SECONDS: Final = 5.0
_TIMEOUT: Final = httpx.Timeout(20, connect=5)
_USUAL_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_TOKEN: Final = re.compile("[!-~]{1,8192}")

Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Job(msgspec.Struct, frozen=True):
    """A listed job. Its texts are untrusted: pass them through `visible` before printing."""

    job_id: str
    url: str
    started_at: str | None = None
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Estimate(msgspec.Struct, frozen=True):
    """The basis of the API's estimate, and its interval."""

    basis: str
    earliest: Moment
    latest: Moment
    confidence: float


class Statuses(msgspec.Struct, frozen=True):
    """How many jobs have each status."""

    pending: Natural
    processing: Natural
    completed: Natural
    failed: Natural
    cancelled: Natural


class Reason(msgspec.Struct, frozen=True):
    """How many jobs failed with a code; `None` for those without one. The code is untrusted text."""

    error_code: str | None
    jobs: Natural


class Summary(msgspec.Struct, frozen=True):
    """What `include=summary` adds: the jobs by status, the most frequent reasons of failures, the time of the count."""

    statuses: Statuses
    failures: list[Reason]
    as_of: Moment


class Progress(msgspec.Struct, frozen=True):
    """The `data` of an answer. `summary` is `None` if the API is too old to give one."""

    batch_id: str
    total_urls: Natural
    completed: Natural
    failed: Natural
    pending: Natural
    total_items_extracted: Natural
    estimated_completion: Moment
    estimate: Estimate
    summary: Summary | None = None

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return self.pending == 0

    @property
    def stalled(self) -> bool:
        """Whether jobs are left and nothing has moved for longer than a job may take."""
        return self.estimate.basis == "stalled"

    @property
    def processing(self) -> int:
        """How many jobs workers are processing; 0 without a summary."""
        return self.summary.statuses.processing if self.summary else 0

    @property
    def reasons(self) -> list[Reason]:
        """The most frequent reasons of failures; empty without a summary."""
        return self.summary.failures if self.summary else []


class _Envelope(msgspec.Struct, frozen=True):
    data: Progress


class _Listing(msgspec.Struct, frozen=True):
    jobs: list[Job]


class _ListingEnvelope(msgspec.Struct, frozen=True):
    data: _Listing


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    details: dict[str, object] = {}


class _ErrorEnvelope(msgspec.Struct, frozen=True):
    error: _Error


class NoAnswer(Exception):
    """A retryable failure: no answer, an error of the server, throttling, or a damaged body.

    Attributes:
        wait: The seconds of `Retry-After`, `None` without one.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        progress: The batch; `None` when it is unchanged.
        wait: Seconds until the next poll.
        now: The server's time.
    """

    progress: Progress | None
    wait: float
    now: datetime

    @property
    def age(self) -> float:
        """How many seconds old the count is; 0 if it is as good as new.

        The API may reuse the count of a large batch.
        """
        if self.progress is None or self.progress.summary is None:
            return 0.0
        age = (self.now - self.progress.summary.as_of).total_seconds()
        return age if age > _OLD_SECONDS else 0.0


class Api:
    """One batch at the API, polled over one connection."""

    def __init__(self, url: str, batch_id: str, token: str) -> None:
        """Check the arguments; nothing is sent yet.

        Raises:
            Failed: The token, the batch id or the address is not valid.
        """
        if not token:
            raise Failed("no token; give --token or set FREDDY_API_KEY")
        if not _TOKEN.fullmatch(token):
            raise Failed("the token has characters that are not allowed in a token")
        if not re.fullmatch(ID_PATTERN, batch_id):
            raise Failed(f"{visible(batch_id, 140)!r} is not a batch id: 1 to 128 of A-Z, a-z, 0-9, '_' and '-'")
        try:
            address = urlsplit(url)
            host, _ = address.hostname, address.port
        except ValueError:
            host = None
        if not host or address.scheme not in {"http", "https"} or not url.isprintable():
            raise Failed(
                f"{visible(url, 140)!r} is not the address of an API; give one that begins with http:// or https://"
            )
        self._address = f"{url.rstrip('/')}/api/v1/scrape/batch/{batch_id}/progress"
        # A proxy cannot reach loopback on this machine.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}", "User-Agent": "batch-progress-watch"},
            timeout=_TIMEOUT,
            trust_env=host not in _LOOPBACK,
        )
        self._tag = ""
        self._include = _SUMMARY

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self) -> Reply:
        """Poll the batch.

        Raises:
            NoAnswer: The failure is retryable.
            Failed: It is not.
        """
        response = self._get({"limit": "0", "include": self._include}, self._tag)
        wait = _seconds(response.headers.get("Retry-After"))
        if response.status_code == HTTPStatus.NOT_MODIFIED and self._tag:
            return Reply(None, wait or _USUAL_WAIT, _clock(response))
        if response.status_code != HTTPStatus.OK:
            if self._include == _SUMMARY and "include" in _error(response).details:
                self._include, self._tag = _NO_SUMMARY, ""
                return self.ask()
            raise _refusal(response, wait)
        progress = _decoded(response, _Envelope).data
        self._tag = response.headers.get("ETag", "")
        return Reply(progress, wait or _USUAL_WAIT, _clock(response))

    def jobs(self, status: str) -> list[Job]:
        """Return the first 1,000 jobs with a status.

        Raises:
            NoAnswer: The failure is retryable.
            Failed: It is not.
        """
        response = self._get({"limit": str(_MOST_JOBS), "include": "details", "status": status})
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response, _seconds(response.headers.get("Retry-After")))
        return _decoded(response, _ListingEnvelope).data.jobs

    def _get(self, parameters: dict[str, str], tag: str = "") -> httpx.Response:
        headers = {"If-None-Match": tag} if tag else {}
        try:
            return self._client.get(self._address, params=parameters, headers=headers)
        except httpx.InvalidURL as error:
            raise Failed(f"the address of the API is not valid: {visible(str(error), 200)}") from error
        except httpx.RequestError as error:
            raise NoAnswer(f"no answer ({type(error).__name__}: {visible(str(error), 200)})") from error


def _decoded[EnvelopeT: msgspec.Struct](response: httpx.Response, envelope: type[EnvelopeT]) -> EnvelopeT:
    try:
        return msgspec.json.decode(response.content, type=envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoAnswer("the server is not this API, or its answer was damaged") from error


def _error(response: httpx.Response) -> _Error:
    """Return the error of an answer; one without a code if it is not this API's."""
    try:
        return msgspec.json.decode(response.content, type=_ErrorEnvelope).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Error("", "")


def _refusal(response: httpx.Response, wait: float | None) -> NoAnswer | Failed:
    """Return the exception for an answer that is neither 200 nor 304."""
    status, error = response.status_code, _error(response)
    if error.code:
        details = "; ".join(f"{name}: {value}" for name, value in error.details.items())
        reason = visible(f"{status} {error.code}: {error.message}{f' ({details})' if details else ''}", 400)
    else:
        reason = f"the API, or a proxy in front of it, answered {status}"
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
    """Return the server's time: the estimate is relative to it, and this machine's clock may be wrong."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)
