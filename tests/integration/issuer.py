"""An OpenID issuer on loopback, working or failing as a test asks."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key

AUDIENCE: Final = "batch-progress-tests"
DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"
_PIECE: Final = b" " * 2**16

type PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True)
class SigningKey:
    """A key pair with the key id of its public half."""

    kid: str
    algorithm: str
    private: PrivateKey
    published: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, algorithm: str, kid: str = "", *, bits: int = 2048, **published: object) -> "SigningKey":
        """Make a key pair. `published` has further members of its JWK; `None` leaves a member out."""
        kid = kid or f"{algorithm}-{time.monotonic_ns()}"
        private: PrivateKey
        if algorithm == "RS256":
            private = rsa_key(65537, bits)
        elif algorithm == "ES256":
            private = ec_key(SECP256R1())
        else:
            private = Ed25519PrivateKey.generate()
        return cls(kid, algorithm, private, published)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as a JWK."""
        algorithm: Any = jwt.get_algorithm_by_name(self.algorithm)
        key = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        jwk = key | {"kid": self.kid, "alg": self.algorithm, "use": "sig"} | self.published
        return {name: value for name, value in jwk.items() if value is not None}


class Issuer:
    """Publishes keys and signs tokens.

    Attributes:
        address: The `iss` of its tokens.
        keys: The keys that it publishes and signs with.
        extra_keys: JWKs that it publishes before those.
        asked: The paths of its requests, in order.
        status: The HTTP status of its responses.
        body: The body of every response; `None` for the right one.
        huge: Whether 50 MB of spaces precede the body.
        hangs: Whether it waits for `let_go` before it responds.
        headers: Further headers of its responses.
        discovery: Its OpenID configuration.
    """

    def __init__(self, address: str) -> None:
        """Make an issuer with one key per algorithm."""
        self.address = address
        self.keys = [_made(algorithm) for algorithm in ("RS256", "ES256", "EdDSA")]
        self.extra_keys: list[object] = []
        self.asked: list[str] = []
        self.status = 200
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.huge = False
        self.hangs = False
        self.discovery: dict[str, object] = {"issuer": address, "jwks_uri": f"{address}{KEYS}"}
        self._let_go = threading.Event()

    def let_go(self) -> None:
        """End every hanging response."""
        self._let_go.set()

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a deployment that trusts it."""
        return {
            "BATCH_PROGRESS_TOKEN_ISSUER": self.address,
            "BATCH_PROGRESS_TOKEN_AUDIENCE": AUDIENCE,
            "BATCH_PROGRESS_TOKEN_OWNER_CLAIM": "sub",
        }

    def claims(self, **changed: object) -> dict[str, Any]:
        """Return a valid token's claims with changes; `None` leaves a claim out."""
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": "demo", "exp": int(time.time()) + 600} | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changed: object) -> str:
        """Sign a token, by default with a published key; `None` leaves a header parameter out."""
        key = key or self.keys[0]
        names = {"kid": key.kid} | (header or {})
        return signed(key, json.dumps(self.claims(**changed)).encode(), names)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append(handler.path)
        if self.hangs:
            self._let_go.wait(60)
        body = self.body
        if body is None:
            found = (
                self.discovery
                if handler.path == DISCOVERY
                else {"keys": [*self.extra_keys, *(key.jwk for key in self.keys)]}
            )
            body = json.dumps(found).encode()
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        blanks = 800 if self.huge else 0
        if "Content-Length" not in self.headers:
            handler.send_header("Content-Length", str(blanks * len(_PIECE) + len(body)))
        handler.end_headers()
        for _ in range(blanks):
            handler.wfile.write(_PIECE)
        handler.wfile.write(body)


_KEYS: dict[str, SigningKey] = {}


def _made(algorithm: str) -> SigningKey:
    # Making a key is slow, so tests share these.
    return _KEYS.setdefault(algorithm, SigningKey.make(algorithm))


def signed(key: SigningKey, payload: bytes, header: dict[str, Any]) -> str:
    """Sign any payload; `None` leaves a header parameter out."""
    names = {name: value for name, value in header.items() if value is not None or name == "typ"}
    return jwt.api_jws.encode(payload, key.private, key.algorithm, names)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Make a token by hand, with any header, claims and signature."""
    return ".".join(encoded(part) for part in (json.dumps(header).encode(), json.dumps(claims).encode(), signature))


def encoded(part: bytes) -> str:
    """Encode a part of a token."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has closed the connection
                issuer.answer(self)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.let_go()
        server.shutdown()
        thread.join()
        server.server_close()
