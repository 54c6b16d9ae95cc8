"""An issuer of session tokens for this machine, as an identity provider is one for a deployment.

Its key pair is made when it starts and gone when it ends. It hands a token to whoever asks: it listens on loopback, and
what it signs opens the local server alone.
"""

import time
from secrets import token_hex
from typing import Annotated, Any

import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from cli.failure import Failed
from cli.terminal import visible

PATH = "/issuer"
AUDIENCE = "batch-progress-local"
ALGORITHM = "ES256"


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What the token route is asked for.

    Attributes:
        owner: Whose session, the token's `sub`.
        seconds: How long it is good.
    """

    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]


class LocalIssuer:
    """Hands out its keys, and tokens.

    Attributes:
        address: What its tokens call it.
    """

    def __init__(self, origin: str) -> None:
        """Make a key pair; `origin` is where the server answers."""
        self.address = origin + PATH
        self._key = generate_private_key(SECP256R1())
        self._kid = token_hex(8)

    def environment(self) -> dict[str, str]:
        """Return the variables by which the function trusts it."""
        return {
            "BATCH_PROGRESS_TOKEN_ISSUER": self.address,
            "BATCH_PROGRESS_TOKEN_AUDIENCE": AUDIENCE,
            "BATCH_PROGRESS_TOKEN_OWNER_CLAIM": "sub",
        }

    def respond(self, request: Request) -> Response:
        """Answer a request for the discovery document, the keys or a token."""
        try:
            return _json(self._answer(request))
        except HTTPException as error:
            return Response(f"{error.description}\n", error.code, mimetype="text/plain")

    def _answer(self, request: Request) -> dict[str, Any]:
        match request.path.removeprefix(PATH):
            case "/.well-known/openid-configuration":
                return {"issuer": self.address, "jwks_uri": f"{self.address}/jwks.json"}
            case "/jwks.json":
                return {"keys": [self._public()]}
            case "/token" if request.method == "POST":
                try:
                    wanted = msgspec.json.decode(request.get_data(), type=Wanted)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise BadRequest(str(error)) from None
                return {"access_token": self.token(wanted.owner, wanted.seconds), "token_type": "Bearer"}
            case "/token":
                raise MethodNotAllowed(["POST"])
        raise NotFound

    def token(self, owner: str, seconds: int) -> str:
        """Return a session token of `owner`, good for so long."""
        now = int(time.time())
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": owner, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._key, ALGORITHM, {"kid": self._kid})

    def _public(self) -> dict[str, Any]:
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return key | {"kid": self._kid, "alg": ALGORITHM, "use": "sig"}


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), mimetype="application/json")


def ask_for_token(origin: str, wanted: Wanted) -> str:
    """Return a session token from the issuer of a local server.

    Raises:
        Failed: Nothing answers there, or something else does, or it refuses.
    """
    try:
        # The user's proxy leads away from this machine.
        answer = httpx.post(f"{origin}{PATH}/token", content=msgspec.json.encode(wanted), timeout=10, trust_env=False)
    except httpx.RequestError as error:
        raise Failed(f"nothing answers at {origin}; `make run` must run, or give its port with --local") from error
    if answer.status_code == httpx.codes.BAD_REQUEST:
        raise Failed(visible(answer.text.strip(), 200))
    try:
        return str(answer.raise_for_status().json()["access_token"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"what answers at {origin} is no local server of ours") from error
