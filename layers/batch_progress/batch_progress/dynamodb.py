"""A small client of DynamoDB for the read path: `Query`, `GetItem` and `UpdateItem`.

DynamoDB's protocol is one signed `POST` and one JSON response. botocore, which does much more, took three quarters of
the time of a small answer and half of a cold start (docs/decisions/0004-dynamodb-client.md). Requests are retried as in
botocore's standard mode. This client is stricter in two ways: every read of a response ends at a deadline, and a
response that is truncated, is not JSON or does not match its checksum is retried and never used.
"""

import io
import random
import re
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from http.client import HTTPException, HTTPResponse
from math import inf
from ssl import SSLContext, SSLWantReadError, create_default_context
from threading import Lock
from time import monotonic
from typing import Any, Final

import msgspec
from isal.isal_zlib import crc32

from batch_progress import decode, endpoint
from batch_progress.errors import ConfigurationError, ServiceUnavailable
from batch_progress.sigv4 import authorization

# Timeouts of one attempt. The deadline limits all attempts together.
CONNECT_TIMEOUT_SECONDS: Final = 1.0
READ_TIMEOUT_SECONDS: Final = 2.0
ATTEMPTS: Final = 3

_OK: Final = range(200, 300)
_SERVER_ERRORS: Final = range(500, 600)
_encoder: Final = msgspec.json.Encoder()
_object: Final = msgspec.json.Decoder(dict[str, Any])
# Errors of decoding a body; the last one comes from a hundred thousand nested brackets.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# ---- Failures -----------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why a request failed, for the log."""

    THROTTLED = "throttled"
    SERVER_ERROR = "server error"
    DAMAGED = "damaged response"  # truncated, not JSON, or with a wrong checksum
    UNKNOWN = "unknown response"  # an error without DynamoDB's error code
    SILENT = "no response"  # nothing arrived in time
    UNREACHABLE = "no connection"  # none could be made, or it broke
    NO_TIME = "no time left"  # the deadline had passed before the first attempt
    NO_CREDENTIALS = "no credentials"  # temporary ones have expired and cannot be renewed
    REFUSED = "refused"  # a non-retryable error


class RequestFailed(Exception):
    """A request to DynamoDB failed.

    Attributes:
        reason: The kind of failure of the last attempt.
        code: DynamoDB's error code, or the name of the exception; `None` if there is neither.
        status: The HTTP status, `None` without a response.
        message: The text of DynamoDB's error or of the exception; may be empty.
        attempts: The number of attempts made.
        retry_after: The response's `x-amz-retry-after`, in milliseconds; `None` without one.
        stale: Whether a kept connection broke before a response began: the next attempt need not wait.
    """

    def __init__(self, reason: Reason, code: str | None = None, status: int | None = None, message: str = "") -> None:
        super().__init__(reason, code, status, message)
        self.reason = reason
        self.code = code
        self.status = status
        self.message = message
        self.attempts = 0
        self.retry_after: str | None = None
        self.stale = False

    def __str__(self) -> str:
        """Describe the failure in one line."""
        facts = (self.code, self.status and f"status {self.status}", f"{self.attempts} attempts", self.message)
        return f"DynamoDB: {self.reason} ({', '.join(str(fact) for fact in facts if fact)})"


class RequestRefused(RequestFailed):
    """DynamoDB refused a request and would refuse it again: the request or the deployment is wrong."""


# The retryable error codes of botocore's standard mode.
_THROTTLING: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_TRANSIENT: Final = frozenset({"RequestTimeout", "RequestTimeoutException"})
_INTERNAL: Final = "InternalServerError"
_TRANSIENT_STATUSES: Final = frozenset({500, 502, 503, 504})
_THROTTLING_STATUS: Final = 429
# For the recorder, whose botocore client raises errors with these codes.
RETRYABLE_CODES: Final = _THROTTLING | _TRANSIENT | {_INTERNAL}
_RETRYABLE: Final = frozenset({Reason.THROTTLED, Reason.DAMAGED, Reason.SILENT, Reason.UNREACHABLE})


def _retryable(failure: RequestFailed) -> bool:
    return failure.reason in _RETRYABLE or failure.status in _TRANSIENT_STATUSES or failure.code in _TRANSIENT


def _failure(response: HTTPResponse, body: bytes) -> RequestFailed:
    """Return the failure that an error response reports."""
    try:
        error = _object.decode(body)
    except _UNDECODABLE:
        error = {}
    code = error.get("__type")
    # `com.amazonaws.dynamodb.v20120810#ThrottlingException`; some services append a colon and a URI.
    code = code.rpartition("#")[2].partition(":")[0] if isinstance(code, str) else None
    message = str(error.get("message") or error.get("Message") or "")
    status = response.status
    if code in _THROTTLING or status == _THROTTLING_STATUS:
        failure = RequestFailed(Reason.THROTTLED, code, status, message)
    elif status in _SERVER_ERRORS or code in _TRANSIENT or code == _INTERNAL:
        failure = RequestFailed(Reason.SERVER_ERROR, code, status, message)
    elif code:
        failure = RequestRefused(Reason.REFUSED, code, status, message)
    else:
        failure = RequestFailed(Reason.UNKNOWN, code, status, message)
    failure.retry_after = response.headers.get("x-amz-retry-after")
    return failure


# ---- The deadline -------------------------------------------------------------------------------------------

_deadline: ContextVar[float] = ContextVar("deadline", default=inf)


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Make every request in the block end by `at`, in seconds of `time.monotonic`."""
    token = _deadline.set(at)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline, infinity without one."""
    return _deadline.get() - monotonic()


# ---- Retries ------------------------------------------------------------------------------------------------

# botocore's values for DynamoDB, in seconds. The back-off doubles with each attempt.
_FIRST_BACKOFF: Final = 0.025
_FIRST_THROTTLING_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 20.0
# A response can prolong the back-off by at most this.
_LONGEST_EXTRA_WAIT: Final = 5.0
_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}\Z")


def backoff(attempt: int, *, throttled: bool) -> float:
    """Return the seconds to wait after attempt number `attempt`, from 1: exponential back-off with full jitter."""
    first = _FIRST_THROTTLING_BACKOFF if throttled else _FIRST_BACKOFF
    return random.random() * min(first * 2.0 ** (attempt - 1), _LONGEST_BACKOFF)  # noqa: S311  # jitter, not a secret


def _delay(least: float, retry_after: str | None) -> float:
    """Return the seconds to wait: `retry_after`, within botocore's limits, but at least `least`."""
    if retry_after is None or not _MILLISECONDS.match(retry_after):
        return least
    return max(least, min(int(retry_after) / 1_000, least + _LONGEST_EXTRA_WAIT))


class RetryQuota:
    """botocore's retry quota: each retry takes tokens, so that a process with many failures stops retrying."""

    CAPACITY: Final = 500
    _RETRY: Final = 14
    _THROTTLED_RETRY: Final = 5
    _SUCCESS: Final = 1

    def __init__(self) -> None:
        self._tokens = self.CAPACITY
        self._lock = Lock()

    def take(self, *, throttled: bool) -> int | None:
        """Take the tokens for a retry and return their number, or `None` if too few are left."""
        cost = self._THROTTLED_RETRY if throttled else self._RETRY
        with self._lock:
            if cost > self._tokens:
                return None
            self._tokens -= cost
        return cost

    def give_back(self, taken: int) -> None:
        """After a success, give back the tokens of its last retry, or one token if there was no retry."""
        if self._tokens < self.CAPACITY:
            with self._lock:
                self._tokens = min(self._tokens + (taken or self._SUCCESS), self.CAPACITY)


# ---- Connections --------------------------------------------------------------------------------------------


class _BoundedReader(io.RawIOBase):
    """Reads from a socket. Each read ends at the deadline, or earlier if nothing arrives."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._socket = sock
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        self._socket.settimeout(_at_most(READ_TIMEOUT_SECONDS, self._until))
        return self._socket.recv_into(buffer)


class _Connection:
    """A connection to the endpoint, or through its proxy."""

    def __init__(self, to: endpoint.Endpoint, tls: SSLContext | None, until: float) -> None:
        """Connect.

        Raises:
            OSError: The connection failed or took too long.
        """
        at = to.proxy or to
        self._until = until
        self.kept = False
        self._socket = _connected(at.host, at.port, min(until, monotonic() + CONNECT_TIMEOUT_SECONDS))
        try:
            if tls:
                if to.proxy:
                    self._open_tunnel(to, to.proxy)
                self._socket.settimeout(_at_most(CONNECT_TIMEOUT_SECONDS, until))
                self._socket = tls.wrap_socket(self._socket, server_hostname=to.host)
        except BaseException:
            self.close()
            raise

    def _open_tunnel(self, to: endpoint.Endpoint, proxy: endpoint.Proxy) -> None:
        host = f"[{to.host}]" if ":" in to.host else to.host
        headers = {"Host": f"{host}:{to.port}", **proxy.headers}
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        self._socket.settimeout(_at_most(READ_TIMEOUT_SECONDS, self._until))
        self._socket.sendall(f"CONNECT {host}:{to.port} HTTP/1.1\r\n{head}\r\n".encode())
        response = HTTPResponse(self, method="CONNECT")  # type: ignore[arg-type]  # it only calls makefile
        response.begin()
        response.close()
        if response.status not in _OK:
            raise ConnectionError(f"the proxy refuses a tunnel: {response.status} {response.reason}")

    def ask(self, request: bytes, until: float) -> tuple[HTTPResponse, bytes]:
        """Send a request and return the response with its body.

        Raises:
            OSError: The connection broke, or the response took too long.
            HTTPException: The response is not HTTP.
        """
        self._until = until
        self._socket.settimeout(_at_most(READ_TIMEOUT_SECONDS, until))
        self._socket.sendall(request)
        response = HTTPResponse(self, method="POST")  # type: ignore[arg-type]  # it only calls makefile
        response.begin()
        self.kept = False
        body = response.read()
        self.kept = not response.will_close and response.status >= _OK.start
        return response, body

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the file that `HTTPResponse` reads from."""
        return io.BufferedReader(_BoundedReader(self._socket, self._until))

    def is_open(self) -> bool:
        """Whether it can carry another request: the server has not closed it or sent unexpected data."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        self._socket.close()


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Connect to one of a host's addresses. Looking the host up has no time limit.

    Raises:
        OSError: None accepts a connection in time.
    """
    failure: OSError | None = None
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            # The addresses that are left share the time that is left.
            sock.settimeout(_at_most((until - monotonic()) / (len(addresses) - number), until))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


def _at_most(seconds: float, until: float) -> float:
    """Return a timeout of `seconds`, or less to end by `until`.

    Raises:
        TimeoutError: `until` has passed.
    """
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return min(seconds, left)


def _close_all(connections: list[_Connection]) -> None:
    # Another thread may take the last one meanwhile.
    with suppress(IndexError):
        while True:
            connections.pop().close()


# ---- The client ---------------------------------------------------------------------------------------------


class Client:
    """A client of DynamoDB, which connects at the first request. Threads may share it."""

    def __init__(self, to: endpoint.Endpoint) -> None:
        """Load the certificate authorities.

        Raises:
            ConfigurationError: The endpoint's file of authorities cannot be read, or has none.
        """
        self._endpoint = to
        self._tls = _tls_context(to.ca_bundle) if to.secure else None
        self._quota = RetryQuota()
        self._idle: list[_Connection] = []
        weakref.finalize(self, _close_all, self._idle)

    def query(
        self,
        *,
        detailed: bool = False,
        jobs_only: bool = False,
        **arguments: Any,  # noqa: ANN401  # DynamoDB's
    ) -> decode.QueryPage[Any]:
        """Read one page.

        Args:
            detailed: Whether to decode items as `DetailedItem`.
            jobs_only: Whether to decode items as `JobItem`.
            arguments: The arguments of DynamoDB's `Query`.

        Raises:
            ServiceUnavailable: No complete response came in time, after the retries. Its cause is a `RequestFailed`.
            RequestRefused: DynamoDB refused the request.
        """
        return self._call("Query", arguments, _detailed_page if detailed else _jobs_page if jobs_only else _page)

    def get_item(self, **arguments: Any) -> decode.GetResult:  # noqa: ANN401  # DynamoDB's arguments
        """Read one item; raises as `query` does."""
        return self._call("GetItem", arguments, decode.get_result)

    def update_item(self, **arguments: Any) -> decode.UpdateResult:  # noqa: ANN401  # DynamoDB's arguments
        """Change one item; raises as `query` does. A retry may apply the change twice."""
        return self._call("UpdateItem", arguments, decode.update_result)

    def close(self) -> None:
        """Close the idle connections. The next request opens a new one."""
        _close_all(self._idle)

    def _call[ResultT](self, operation: str, arguments: dict[str, Any], decoded: Callable[[bytes], ResultT]) -> ResultT:
        body = _encoder.encode(arguments)
        until = _deadline.get()
        if monotonic() >= until:
            raise ServiceUnavailable from RequestFailed(Reason.NO_TIME)
        attempt, taken = 0, 0
        while True:
            attempt += 1
            try:
                result = decoded(self._attempt(operation, body, until))
            except RequestFailed as error:
                failure = error
            except _UNDECODABLE as error:
                failure = RequestFailed(Reason.DAMAGED, type(error).__name__, message=str(error))
            else:
                self._quota.give_back(taken)
                return result
            failure.attempts = attempt
            if isinstance(failure, RequestRefused):
                raise failure
            tokens = self._wait(failure, until)
            if tokens is None:
                raise ServiceUnavailable from failure
            taken = tokens

    def _wait(self, failure: RequestFailed, until: float) -> int | None:
        """Wait until the next attempt is due; return the tokens that it took, or `None` if there is none."""
        if failure.attempts >= ATTEMPTS or not _retryable(failure):
            return None
        if failure.stale:
            # The other idle connections are as old.
            self.close()
            return 0
        throttled = failure.reason is Reason.THROTTLED
        delay = _delay(backoff(failure.attempts, throttled=throttled), failure.retry_after)
        if monotonic() + delay >= until:
            return None
        taken = self._quota.take(throttled=throttled)
        if taken is not None:
            time.sleep(delay)
        return taken

    def _attempt(self, operation: str, body: bytes, until: float) -> bytes:
        """Send a request once and return the body of the successful response.

        Raises:
            RequestFailed: There is no successful response.
        """
        try:
            request = self._signed(operation, body)
        except endpoint.CredentialsUnavailable as error:
            raise RequestFailed(Reason.NO_CREDENTIALS, type(error.__cause__).__name__, message=str(error)) from error
        connection = None
        try:
            connection = self._idle_connection() or _Connection(self._endpoint, self._tls, until)
            response, content = connection.ask(request, until)
        except TimeoutError as error:
            reason = Reason.UNREACHABLE if connection is None else Reason.SILENT
            failure = RequestFailed(reason, type(error).__name__, message=str(error))
        except OSError as error:
            failure = RequestFailed(Reason.UNREACHABLE, type(error).__name__, message=str(error))
            failure.stale = connection is not None and connection.kept
        except (HTTPException, ValueError, OverflowError, MemoryError) as error:
            # The last three come from lengths that cannot be true.
            failure = RequestFailed(Reason.DAMAGED, type(error).__name__, message=str(error))
        else:
            if connection.kept:
                self._idle.append(connection)
            else:
                connection.close()
            if not _is_intact(response, content):
                raise RequestFailed(Reason.DAMAGED, "checksum", response.status)
            if response.status not in _OK:
                raise _failure(response, content)
            return content
        if connection is not None:
            connection.close()
        raise failure

    def _idle_connection(self) -> _Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                # Another thread took the last connection.
                return None
            if connection.is_open():
                return connection
            connection.close()
        return None

    def _signed(self, operation: str, body: bytes) -> bytes:
        """Return the signed request, head and body."""
        to, credentials = self._endpoint, self._endpoint.credentials()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"content-type": "application/x-amz-json-1.0", "host": to.host_header, "x-amz-date": now}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        headers["x-amz-target"] = f"DynamoDB_20120810.{operation}"
        headers |= {
            "authorization": authorization(credentials, endpoint.SERVICE, to.region, now, headers, body),
            "content-length": str(len(body)),
            "user-agent": "batch-progress",
            # Responses are not decompressed here.
            "accept-encoding": "identity",
        }
        target = "/"
        if to.proxy and not to.secure:
            target = f"http://{to.host_header}/"
            headers |= to.proxy.headers
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body


_page: Final = partial(decode.query_page, detailed=False)
_jobs_page: Final = partial(decode.query_page, detailed=False, jobs_only=True)
_detailed_page: Final = partial(decode.query_page, detailed=True)


def _tls_context(ca_bundle: str | None) -> SSLContext:
    try:
        return create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise ConfigurationError(f"The certificate authorities in {ca_bundle!r} cannot be read: {error}") from error


def _is_intact(response: HTTPResponse, body: bytes) -> bool:
    """Whether a body matches its checksum.

    Some engines send no checksum. The body must then be UTF-8, because msgspec does not check strings that it skips.
    """
    expected = response.headers.get("x-amz-crc32")
    if expected is not None:
        return expected == str(crc32(body))
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def client() -> Client:
    """Make a client for this process's endpoint and credentials.

    Raises:
        ConfigurationError: There is no region, no credentials, or an invalid endpoint URL.
    """
    return Client(endpoint.find())
