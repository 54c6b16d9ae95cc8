"""A client of the progress API: poll one batch with its ETag, and decide which failures are retryable."""

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

# The failed jobs of one full page; only the latest are shown.
_PARAMETERS: Final = {"status": "failed", "include": "details,estimate", "limit": "1000"}
_LAST: Final = 5
_TIMEOUT: Final = httpx.Timeout(20, connect=5)
_USUAL_WAIT: Final = 5.0
_LONGEST_WAIT: Final = 60.0
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_TOKEN: Final = re.compile("[!-~]{1,8192}")

Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Failure(msgspec.Struct, frozen=True):
    """A failed job. Its texts are untrusted: pass them through `visible` before printing."""

    job_id: str
    url: str
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Estimate(msgspec.Struct, frozen=True):
    """The basis of the API's estimate, and its interval."""

    basis: str
    earliest: Moment
    latest: Moment
    confidence: float


class Progress(msgspec.Struct, frozen=True):
    """The `data` of an answer."""

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
        """Whether every job has ended."""
        return self.pending == 0

    @property
    def last_failures(self) -> list[Failure]:
        """The jobs that failed last, latest first."""
        return sorted(self.jobs, key=lambda job: job.finished_at or "", reverse=True)[:_LAST]


class _Envelope(msgspec.Struct, frozen=True):
    data: Progress


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
        headers = {"If-None-Match": self._tag} if self._tag else {}
        try:
            response = self._client.get(self._address, params=_PARAMETERS, headers=headers)
        except httpx.InvalidURL as error:
            raise Failed(f"the address of the API is not valid: {visible(str(error), 200)}") from error
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
            raise NoAnswer("the server is not this API, or its answer was damaged") from error
        self._tag = response.headers.get("ETag", "")
        return Reply(progress, wait or _USUAL_WAIT, _clock(response))


def _refusal(response: httpx.Response, wait: float | None) -> NoAnswer | Failed:
    """Return the exception for an answer that is neither 200 nor 304."""
    status = response.status_code
    try:
        error = msgspec.json.decode(response.content, type=_ErrorEnvelope).error
        details = "; ".join(f"{name}: {value}" for name, value in error.details.items())
        reason = visible(f"{status} {error.code}: {error.message}{f' ({details})' if details else ''}", 400)
    except (msgspec.DecodeError, UnicodeDecodeError):
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
