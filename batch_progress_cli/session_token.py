"""Session tokens (JWTs) of the local server's issuer: the client's side."""

from typing import Annotated

import httpx
import msgspec

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import ISSUER_PATH
from batch_progress_cli.terminal import visible


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What the token route is asked for.

    Attributes:
        owner: Whose session, the token's `sub`.
        seconds: How long it is good.
    """

    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]


def ask_for_token(origin: str, wanted: Wanted) -> str:
    """Return a session token from the issuer of a local server.

    Raises:
        Failed: Nothing answers there, or something else does, or it refuses.
    """
    try:
        # The user's proxy leads away from this machine.
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
        raise Failed(f"what answers at {origin} is no local server of ours") from error
