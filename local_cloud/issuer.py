"""An issuer of session tokens that stands in for an identity provider.

It generates a key pair at start and never stores it. It gives a token to any client that asks: it listens on loopback,
and only the local server trusts its tokens.
"""

import time
from secrets import token_hex
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from batch_progress_cli.local_server import ISSUER_PATH
from batch_progress_cli.session_token import TokenRequest

AUDIENCE = "batch-progress-local"
ALGORITHM = "ES256"


class LocalIssuer:
    """Publishes its keys and issues tokens.

    Attributes:
        address: The `iss` of its tokens.
    """

    def __init__(self, origin: str) -> None:
        """Generate a key pair; `origin` is the address of the server."""
        self.address = origin + ISSUER_PATH
        self._key = generate_private_key(SECP256R1())
        self._kid = token_hex(8)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make the function trust this issuer."""
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
        match request.path.removeprefix(ISSUER_PATH):
            case "/.well-known/openid-configuration":
                return {"issuer": self.address, "jwks_uri": f"{self.address}/jwks.json"}
            case "/jwks.json":
                return {"keys": [self._public()]}
            case "/token" if request.method == "POST":
                try:
                    wanted = msgspec.json.decode(request.get_data(), type=TokenRequest)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise BadRequest(str(error)) from None
                return {"access_token": self.token(wanted.owner, wanted.seconds), "token_type": "Bearer"}
            case "/token":
                raise MethodNotAllowed(["POST"])
        raise NotFound

    def token(self, owner: str, seconds: int) -> str:
        """Return a session token of `owner` that is valid for `seconds`."""
        now = int(time.time())
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": owner, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._key, ALGORITHM, {"kid": self._kid})

    def _public(self) -> dict[str, Any]:
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return key | {"kid": self._kid, "alg": ALGORITHM, "use": "sig"}


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), mimetype="application/json")
