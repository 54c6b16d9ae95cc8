"""The two clients: the same calls, for threads and for asyncio."""

import asyncio
import contextlib
import inspect
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Final, Self

import httpx

from batch_progress.client import arguments
from batch_progress.client.connection import AsyncConnection, Bearer, Connection
from batch_progress.client.errors import InvalidRequest
from batch_progress.client.protocol import Pause, Steps, WireJob, follow, listing
from batch_progress.client.results import Job, Progress

# Seconds after which a call gives up on a request that gets no answer.
RETRY_FOR: Final = 30.0
# The same while waiting for a batch: a service is back from a deployment by then.
RETRY_FOR_WHILE_WAITING: Final = 300.0


class ProgressClient:
    """Asks the progress API. May be used by several threads.

    Args:
        url: The address of the API, such as `https://….execute-api.eu-central-1.amazonaws.com/prod`.
        token: An API token, or a session token; or a function that returns one. It is called for the first request,
            and once more when the API says that the token has expired. What it raises, the call raises.
        http: A client of your own, for a proxy or a certificate authority. It is not closed.

    Raises:
        InvalidRequest: `url` is not an address.
        AuthenticationError: `token` is empty, or is not a token.
    """

    def __init__(self, url: str, token: str | Callable[[], str], *, http: httpx.Client | None = None) -> None:
        bearer = Bearer(token)
        del token  # a traceback may show local variables
        self._connection = Connection(url, bearer, arguments.http_client(http, httpx.Client))

    def get(self, batch_id: str, *, retry_for: float = RETRY_FOR) -> Progress:
        """Return the state of a batch.

        Args:
            batch_id: The batch.
            retry_for: Seconds after which to give up on a request that gets no answer.

        Raises:
            ProgressError: One of its subclasses.
        """
        with contextlib.closing(self._results(follow(batch_id, retry_for=retry_for))) as states:
            return next(states).progress

    def jobs(self, batch_id: str, status: str | Iterable[str] = (), *, retry_for: float = RETRY_FOR) -> Iterator[Job]:
        """Yield the jobs of a batch in the order of their ids; a page is requested when its first job is needed.

        Args:
            batch_id: The batch.
            status: Only jobs with this status, or with one of these.
            retry_for: Seconds after which to give up on a request that gets no answer.

        Raises:
            ProgressError: One of its subclasses.
        """
        pages = self._results(listing(batch_id, status, WireJob, retry_for=retry_for))
        return (job.decoded() for page in pages for job in page.jobs)

    def watch(self, batch_id: str, *, retry_for: float = RETRY_FOR_WHILE_WAITING) -> Iterator[Progress]:
        """Yield the state of a batch, then each change, until every job has ended.

        Args:
            batch_id: The batch.
            retry_for: Seconds after which to give up on a request that gets no answer.

        Raises:
            ProgressError: One of its subclasses.
        """
        states = self._results(follow(batch_id, retry_for=retry_for))
        return (state.progress for state in states if state.changed)

    def wait(
        self,
        batch_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[Progress], object] | None = None,
        give_up_when_stalled: bool | float = False,
        retry_for: float = RETRY_FOR_WHILE_WAITING,
    ) -> Progress:
        """Wait until every job has ended, and return the final state. Failed jobs are no error.

        Args:
            batch_id: The batch.
            timeout: Seconds after which to give up; `None` for never.
            on_change: Called with the first state and with each change.
            give_up_when_stalled: Give up when the batch has stalled, at once or after this many seconds.
            retry_for: Seconds after which to give up on a request that gets no answer.

        Raises:
            TimedOut: `timeout` is over.
            Stalled: The batch has stalled for as long as `give_up_when_stalled` says.
            ProgressError: One of its other subclasses.
        """
        steps = follow(batch_id, retry_for=retry_for, timeout=_timeout(timeout), stall=_stall(give_up_when_stalled))
        with contextlib.closing(self._results(steps)) as states:
            for state in states:
                progress = state.progress
                if on_change and state.changed:
                    called = on_change(progress)
                    if inspect.iscoroutine(called):
                        called.close()
                        raise InvalidRequest("on_change is a coroutine function; only AsyncProgressClient awaits it")
        return progress

    def _results[ResultT](self, steps: Steps[ResultT]) -> Generator[ResultT]:
        """Yield the results of the protocol, and pause when it says so."""
        with contextlib.closing(self._connection.run(steps)) as run:
            for step in run:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    yield step

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()


class AsyncProgressClient:
    """Asks the progress API from asyncio; the calls of `ProgressClient`, and their arguments and errors.

    Args:
        url: The address of the API.
        token: An API token, or a session token; or a function that returns one, or a coroutine function.
        http: A client of your own, for a proxy or a certificate authority. It is not closed.

    Raises:
        InvalidRequest: `url` is not an address.
        AuthenticationError: `token` is empty, or is not a token.
    """

    def __init__(
        self, url: str, token: str | Callable[[], str | Awaitable[str]], *, http: httpx.AsyncClient | None = None
    ) -> None:
        bearer = Bearer(token)
        del token  # a traceback may show local variables
        self._connection = AsyncConnection(url, bearer, arguments.http_client(http, httpx.AsyncClient))

    async def get(self, batch_id: str, *, retry_for: float = RETRY_FOR) -> Progress:
        """Return the state of a batch."""
        async with contextlib.aclosing(self._results(follow(batch_id, retry_for=retry_for))) as states:
            return (await anext(states)).progress

    def jobs(
        self, batch_id: str, status: str | Iterable[str] = (), *, retry_for: float = RETRY_FOR
    ) -> AsyncIterator[Job]:
        """Yield the jobs of a batch in the order of their ids; a page is requested when its first job is needed."""
        pages = self._results(listing(batch_id, status, WireJob, retry_for=retry_for))
        return (job.decoded() async for page in pages for job in page.jobs)

    def watch(self, batch_id: str, *, retry_for: float = RETRY_FOR_WHILE_WAITING) -> AsyncIterator[Progress]:
        """Yield the state of a batch, then each change, until every job has ended."""
        states = self._results(follow(batch_id, retry_for=retry_for))
        return (state.progress async for state in states if state.changed)

    async def wait(
        self,
        batch_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # it ends with an error of ours that has the last state
        on_change: Callable[[Progress], Awaitable[object] | object] | None = None,
        give_up_when_stalled: bool | float = False,
        retry_for: float = RETRY_FOR_WHILE_WAITING,
    ) -> Progress:
        """Wait until every job has ended, and return the final state. `on_change` may be a coroutine function."""
        steps = follow(batch_id, retry_for=retry_for, timeout=_timeout(timeout), stall=_stall(give_up_when_stalled))
        async with contextlib.aclosing(self._results(steps)) as states:
            async for state in states:
                progress = state.progress
                if on_change and state.changed:
                    called = on_change(progress)
                    if inspect.isawaitable(called):
                        await called
        return progress

    async def _results[ResultT](self, steps: Steps[ResultT]) -> AsyncGenerator[ResultT]:
        """Yield the results of the protocol, and pause when it says so."""
        async with contextlib.aclosing(self._connection.run(steps)) as run:
            async for step in run:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    yield step

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()


def _timeout(seconds: float | None) -> float:
    return math.inf if seconds is None else arguments.seconds("timeout", seconds)


def _stall(give_up: bool | float) -> float:  # noqa: FBT001  # the argument of `wait`
    if isinstance(give_up, bool):
        return 0.0 if give_up else math.inf
    return arguments.seconds("give_up_when_stalled", give_up)
