"""Request session tokens (JWTs) from the local server's issuer."""

from typing import Annotated

import httpx
import msgspec

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import ISSUER_PATH
from batch_progress_cli.terminal import visible


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a token request.

    Attributes:
        owner: The `sub` of the token.
        seconds: The lifetime of the token.
    """

    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]


def ask_for_token(origin: str, wanted: TokenRequest) -> str:
    """Return a session token from the issuer of a local server.

    Raises:
        Failed: Nothing answers at `origin`, or it is another server, or it rejects the request.
    """
    try:
        # Ignore the user's proxy: it cannot reach loopback on this machine.
        answer = httpx.post(
            f"{origin}{ISSUER_PATH}/token", content=msgspec.json.encode(wanted), timeout=10, trust_env=False
        )
    except httpx.RequestError as error:
        raise Failed(f"nothing answers at {origin}; `make run` must run, or give its port with --local") from error
    if answer.status_code == httpx.codes.BAD_REQUEST:
        raise Failed(visible(answer.text.strip(), 200))
    try:
        return str(answer.raise_for_status().json()["access_token"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"the server at {origin} is not a local batch progress server") from error
