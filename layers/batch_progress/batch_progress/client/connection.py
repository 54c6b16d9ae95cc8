"""HTTP over httpx: send what the protocol asks for. Failures are returned; the token appears in none of them."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx

from batch_progress.client.errors import AuthenticationError, InvalidRequest, ProgressError, Unavailable
from batch_progress.client.protocol import Answer, Outcome, Pause, Send, Steps, shown

_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_TOKEN: Final = re.compile("[!-~]{1,8192}")
_CONNECT_SECONDS: Final = 5.0
_USER_AGENT: Final = "batch-progress-client"


class Bearer(httpx.Auth):
    """A token. It is set when a request is sent, so that no request, client or local variable shows it before."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Set the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    def check(self) -> None:
        """Check the token.

        Raises:
            AuthenticationError: It is empty, or has characters that no token has.
        """
        if not self._token:
            raise AuthenticationError("no token", code="AUTHENTICATION_REQUIRED")
        if not _TOKEN.fullmatch(self._token):
            raise AuthenticationError("the token has characters that are not allowed in a token", code="TOKEN_INVALID")


class _Peer:
    """The API's address and the token.

    Raises:
        InvalidRequest: The address is not one.
        AuthenticationError: The token is not one.
    """

    def __init__(self, url: str, bearer: Bearer) -> None:
        bearer.check()
        self.auth = bearer
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
        )


class Connection:
    """The API over `httpx.Client`. One that is given is not closed."""

    def __init__(self, url: str, bearer: Bearer, http: httpx.Client | None = None) -> None:
        self._peer = _Peer(url, bearer)
        self._own = http is None
        self._http = http or httpx.Client(trust_env=self._peer.trust_env)

    def send(self, send: Send) -> Outcome:
        """Send a request and return its outcome."""
        until = time.monotonic() + send.timeout
        try:
            request = self._peer.request(self._http, send)
            # A redirect could carry the token to another host.
            response = self._http.send(request, stream=True, auth=self._peer.auth, follow_redirects=False)
            with contextlib.closing(response):
                body = b"".join(_before(until, response.iter_bytes()))
        except _FAILURES as error:
            return _failed(error)
        except BaseException as error:  # noqa: BLE001  # it is raised again
            raise _without_frames(error) from None
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
        self._http = http or httpx.AsyncClient(trust_env=self._peer.trust_env)

    async def send(self, send: Send) -> Outcome:
        """Send a request and return its outcome."""
        try:
            request = self._peer.request(self._http, send)
            async with asyncio.timeout(send.timeout):
                response = await self._http.send(request, stream=True, auth=self._peer.auth, follow_redirects=False)
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


def _before(until: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a body; httpx limits only the time between two of them.

    Raises:
        TimeoutError: The time is over.
    """
    for chunk in chunks:
        if time.monotonic() > until:
            raise TimeoutError
        yield chunk


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
