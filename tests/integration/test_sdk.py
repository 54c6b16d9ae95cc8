"""The vendor's official SDK, pointed at the local API."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aitronos import Aitronos, AsyncAitronos
from aitronos.core.api_error import ApiError
from aitronos.errors import UnprocessableEntityError
from typer.testing import CliRunner

from batch_progress_cli.main import app
from tests.integration.server import LocalApi

type Ask = Callable[..., dict[str, Any]]


def ask(
    local_api: LocalApi, batch_id: str = "batch_xyz789", *, api_key: str = "demo-token", token: str | None = None
) -> dict[str, Any]:
    """Ask with the plain client."""
    client = Aitronos(base_url=local_api.address, api_key=api_key, token=token)
    with client._client_wrapper.httpx_client.httpx_client:
        return dict(client.web_scraping.get_batch_progress(batch_id))


def ask_async(
    local_api: LocalApi, batch_id: str = "batch_xyz789", *, api_key: str = "demo-token", token: str | None = None
) -> dict[str, Any]:
    """Ask with the asynchronous client."""

    async def answer() -> dict[str, Any]:
        client = AsyncAitronos(base_url=local_api.address, api_key=api_key, token=token)
        async with client._client_wrapper.httpx_client.httpx_client:
            return dict(await client.web_scraping.get_batch_progress(batch_id))

    return asyncio.run(answer())


def session_token(local_api: LocalApi) -> str:
    """Return a JWT of the local issuer."""
    arguments = ["token", "jwt", "--owner", "demo", "--local", local_api.address.rpartition(":")[2]]
    done = CliRunner().invoke(app, arguments)
    assert 0 == done.exit_code
    return done.stdout.strip()


both = pytest.mark.parametrize("ask", [ask, ask_async])


@both
@pytest.mark.parametrize("credentials", [{}, {"token": "demo-token"}])
def test_it_gets_the_batch(local_api: LocalApi, ask: Ask, credentials: dict[str, str]) -> None:
    """With an API key alone, and with a session token beside it."""
    answer = ask(local_api, **credentials)
    assert answer["success"] is True
    assert ("batch_xyz789", 10, 7, 1, 2, 245) == tuple(
        answer["data"][name]
        for name in ("batch_id", "total_urls", "completed", "failed", "pending", "total_items_extracted")
    )


@both
@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ({"api_key": "no-such-token"}, "INVALID_API_KEY"),
        ({"api_key": "demo-expired-token"}, "API_KEY_EXPIRED"),
        ({"token": "no-such-token"}, "TOKEN_INVALID"),
        ({"token": "demo-expired-token"}, "TOKEN_EXPIRED"),
    ],
)
def test_a_refusal_carries_the_envelope(local_api: LocalApi, ask: Ask, credentials: dict[str, str], code: str) -> None:
    """A 401 is the SDK's general error, also for a bad session token beside a good key."""
    with pytest.raises(ApiError) as raised:
        ask(local_api, **credentials)
    assert ApiError is raised.type
    assert (401, False, code) == (
        raised.value.status_code,
        raised.value.body["success"],
        raised.value.body["error"]["code"],
    )


@both
def test_a_session_token_beside_the_key(local_api: LocalApi, ask: Ask) -> None:
    """The SDK sends both. The JWT alone decides whose batches are visible."""
    token = session_token(local_api)
    assert 10 == ask(local_api, "batch_session", token=token)["data"]["total_urls"]
    for credentials, batch_id in (({"token": token}, "batch_xyz789"), ({}, "batch_session")):
        with pytest.raises(ApiError) as raised:
            ask(local_api, batch_id, **credentials)
        assert (404, "BATCH_NOT_FOUND") == (raised.value.status_code, raised.value.body["error"]["code"])


@both
def test_a_bad_session_token_is_not_rescued_by_the_key(local_api: LocalApi, ask: Ask) -> None:
    with pytest.raises(ApiError) as raised:
        ask(local_api, token=session_token(local_api)[:-4] + "AAAA")
    assert (401, "TOKEN_INVALID") == (raised.value.status_code, raised.value.body["error"]["code"])


@both
def test_an_unknown_batch_is_the_general_error(local_api: LocalApi, ask: Ask) -> None:
    with pytest.raises(ApiError) as raised:
        ask(local_api, "batch_none")
    assert ApiError is raised.type
    assert (404, "BATCH_NOT_FOUND") == (raised.value.status_code, raised.value.body["error"]["code"])


@both
def test_a_bad_batch_id_is_the_error_for_unprocessable_requests(local_api: LocalApi, ask: Ask) -> None:
    with pytest.raises(UnprocessableEntityError) as raised:
        ask(local_api, "batch!")
    assert (422, "VALIDATION_ERROR", ["batch_id"]) == (
        raised.value.status_code,
        raised.value.body["error"]["code"],
        list(raised.value.body["error"]["details"]),
    )
