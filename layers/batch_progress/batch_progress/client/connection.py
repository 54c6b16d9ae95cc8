"""HTTP over httpx: send what the protocol asks for. Failures are returned; the token appears in none of them."""

import asyncio
import contextlib
import inspect
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from batch_progress.client.errors import AuthenticationError, InvalidRequest, ProgressError, Unavailable
from batch_progress.client.protocol import Answer, Outcome, Pause, Send, Steps, expired, shown

_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_TOKEN: Final = re.compile("[!-~]{1,8192}")
_CONNECT_SECONDS: Final = 5.0
_USER_AGENT: Final = "batch-progress-client"


# The time of `time.monotonic` at which the request that this thread sends has failed.
_deadline: Final[ContextVar[float | None]] = ContextVar("deadline", default=None)


class Bearer(httpx.Auth):
    """A token. It is set when a request is sent, so that no request, client or local variable shows it before.

    Args:
        token: The token, or a function that returns one.

    Attributes:
        ask: That function; `None` if there is none.
        number: How many tokens it has returned.
    """

    def __init__(self, token: str | Callable[[], Any]) -> None:
        self.ask = token if callable(token) else None
        self.number = 0
        self._token = None if callable(token) else token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Set the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def check(self) -> None:
        """Check the token that was given.

        Raises:
            AuthenticationError: It is empty, or has characters that no token has.
        """
        if self.ask is None and (problem := _problem(self._token)):
            raise problem

    def take(self, token: str) -> None:
        """Use a token that the function returned.

        Raises:
            AuthenticationError: It is empty, or has characters that no token has.
        """
        if problem := _problem(token):
            del token  # a traceback may show local variables
            raise problem
        self._token = token
        self.number += 1


def _problem(token: object) -> AuthenticationError | None:
    if token is None or token == "":
        return AuthenticationError("no token", code="AUTHENTICATION_REQUIRED")
    if not isinstance(token, str):
        return AuthenticationError(f"the token must be a text, not {type(token).__name__}", code="TOKEN_INVALID")
    if "://" in token:
        return AuthenticationError("the token is an address; give the address of the API first", code="TOKEN_INVALID")
    if not _TOKEN.fullmatch(token):
        said = "the token has characters that are not allowed in a token; give it without 'Bearer' and line breaks"
        return AuthenticationError(said, code="TOKEN_INVALID")
    return None


class _Peer:
    """The API's address and the token.

    Raises:
        InvalidRequest: The address is not one.
        AuthenticationError: The token is not one.
    """

    def __init__(self, url: str, bearer: Bearer) -> None:
        bearer.check()
        self.bearer = bearer
        self.url = _checked(url)
        # A proxy cannot reach loopback on this machine.
        self.trust_env = urlsplit(url).hostname not in _LOOPBACK

    def request(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """Return the request, without the token.

        Raises:
            httpx.InvalidURL: The address is not one.
        """
        return http.build_request(
            "GET",
            f"{self.url}{send.path}",
            params=send.parameters,
            headers={"User-Agent": _USER_AGENT} | send.headers,
            timeout=httpx.Timeout(send.timeout, connect=min(_CONNECT_SECONDS, send.timeout)),
            extensions={"trace": _limit_reads} if isinstance(http, httpx.Client) else None,
        )


class Connection:
    """The API over `httpx.Client`. One that is given is not closed."""

    def __init__(self, url: str, bearer: Bearer, http: httpx.Client | None = None) -> None:
        self._peer = _Peer(url, bearer)
        self._own = http is None
        self._http = http or _made(httpx.Client, self._peer)
        self._renewal = threading.Lock()

    def send(self, send: Send) -> Outcome:
        """Send a request and return its outcome. A token that has expired is renewed once."""
        bearer = self._peer.bearer
        if bearer.ask and not bearer.number:
            self._renew(bearer, 0)
        number = bearer.number
        outcome = self._send(send)
        if bearer.ask and expired(outcome):
            self._renew(bearer, number)
            outcome = self._send(send)
        return outcome

    def _renew(self, bearer: Bearer, number: int) -> None:
        """Ask for another token than the one with this number, unless another thread already has."""
        with self._renewal:
            if bearer.ask and bearer.number == number:
                bearer.take(bearer.ask())

    def _send(self, send: Send) -> Outcome:
        deadline = _deadline.set(time.monotonic() + send.timeout)
        try:
            request = self._peer.request(self._http, send)
            # A redirect could carry the token to another host.
            response = self._http.send(request, stream=True, auth=self._peer.bearer, follow_redirects=False)
            with contextlib.closing(response):
                body = response.read()
        except _FAILURES as error:
            return _failed(error)
        except BaseException as error:  # noqa: BLE001  # it is raised again
            raise _without_frames(error) from None
        finally:
            _deadline.reset(deadline)
        return Answer(response.status_code, response.headers, body)

    def run[ResultT](self, steps: Steps[ResultT]) -> Generator[Pause | ResultT]:
        """Send what the protocol asks for, and yield everything else that it yields."""
        outcome = None
        with contextlib.closing(steps):
            while (step := _next(steps, outcome)) is not None:
                outcome = None
                if isinstance(step, Send):
                    outcome = self.send(step)
                else:
                    yield step

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()


class AsyncConnection:
    """The API over `httpx.AsyncClient`. One that is given is not closed."""

    def __init__(self, url: str, bearer: Bearer, http: httpx.AsyncClient | None = None) -> None:
        self._peer = _Peer(url, bearer)
        self._own = http is None
        self._http = http or _made(httpx.AsyncClient, self._peer)
        self._renewal = asyncio.Lock()

    async def send(self, send: Send) -> Outcome:
        """Send a request and return its outcome. A token that has expired is renewed once."""
        bearer = self._peer.bearer
        if bearer.ask and not bearer.number:
            await self._renew(bearer, 0)
        number = bearer.number
        outcome = await self._send(send)
        if bearer.ask and expired(outcome):
            await self._renew(bearer, number)
            outcome = await self._send(send)
        return outcome

    async def _renew(self, bearer: Bearer, number: int) -> None:
        """Ask for another token than the one with this number, unless another task already has."""
        async with self._renewal:
            if bearer.ask and bearer.number == number:
                bearer.take(await _given(bearer.ask()))

    async def _send(self, send: Send) -> Outcome:
        try:
            request = self._peer.request(self._http, send)
            async with asyncio.timeout(send.timeout):
                response = await self._http.send(request, stream=True, auth=self._peer.bearer, follow_redirects=False)
                async with contextlib.aclosing(response):
                    body = await response.aread()
        except _FAILURES as error:
            return _failed(error)
        except BaseException as error:  # noqa: BLE001  # it is raised again
            raise _without_frames(error) from None
        return Answer(response.status_code, response.headers, body)

    async def run[ResultT](self, steps: Steps[ResultT]) -> AsyncGenerator[Pause | ResultT]:
        """Send what the protocol asks for, and yield everything else that it yields."""
        outcome = None
        with contextlib.closing(steps):
            while (step := _next(steps, outcome)) is not None:
                outcome = None
                if isinstance(step, Send):
                    outcome = await self.send(step)
                else:
                    yield step

    async def close(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()


def _made[HttpT: (httpx.Client, httpx.AsyncClient)](kind: type[HttpT], peer: _Peer) -> HttpT:
    """Return a client of httpx, with the proxies and certificates of the environment.

    Raises:
        InvalidRequest: They cannot be used.
    """
    try:
        return kind(trust_env=peer.trust_env)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        text = str(error)
    raise InvalidRequest(f"a proxy or the certificates that the environment names cannot be used: {text}")


def _next[ResultT](steps: Steps[ResultT], outcome: Outcome | None) -> Send | Pause | ResultT | None:
    """Return what the protocol yields next; `None` at its end."""
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


_FAILURES: Final = (httpx.RequestError, httpx.InvalidURL, UnicodeError, TimeoutError)


def _failed(error: Exception) -> ProgressError:
    """Return the client's error for one of httpx, without a reference to it: that one holds the request."""
    text = str(error) or "the time is over"
    try:
        url = error.request.url if isinstance(error, httpx.RequestError) else None
    except RuntimeError:  # it has none
        url = None
    asked = f" from {url.scheme}://{url.netloc.decode()}" if url else ""
    if isinstance(error, httpx.InvalidURL | UnicodeError):
        return InvalidRequest(f"the address of the API is not valid: {text}")
    return Unavailable(f"no answer ({type(error).__name__}: {text}){asked}")


def _without_frames(error: BaseException) -> BaseException:
    """Return an interrupt, or an error of a given transport, without the frames of httpx: they hold the headers."""
    error.__context__ = None
    return error.with_traceback(None)


def _limit_reads(event: str, info: Mapping[str, Any]) -> None:
    """Let every read of a new connection end at the deadline: httpx limits the time of each read only.

    httpx calls this with all that happens to a connection (its extension `trace`).
    """
    if not event.endswith((".connect_tcp.complete", ".start_tls.complete")):
        return
    stream = info["return_value"]
    read = stream.read

    def limited(size: int, timeout: float | None = None) -> bytes:
        if (deadline := _deadline.get()) is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            timeout = left if timeout is None else min(timeout, left)
        received: bytes = read(size, timeout)
        return received

    stream.read = limited


async def _given(token: object) -> Any:  # noqa: ANN401  # what a function of the caller returns
    return await token if inspect.isawaitable(token) else token


def _checked(url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        InvalidRequest: It is not the address of an API.
    """
    try:
        address = urlsplit(url if isinstance(url, str) else "")
        host, _ = address.hostname, address.port
    except ValueError:
        host = None
    if not host or address.scheme not in {"http", "https"} or not url.isprintable():
        raise InvalidRequest(
            f"{shown(url)} is not the address of an API; give one that begins with http:// or https://"
        )
    if address.username is not None or address.query or address.fragment:
        raise InvalidRequest("the address of the API has a user name, a query or a fragment; give it without")
    return url.rstrip("/")
