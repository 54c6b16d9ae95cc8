"""An issuer of session tokens on loopback, as an identity provider is on the internet, and as one is on a bad day."""

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
    """A key pair, by the id under which its public half is published."""

    kid: str
    algorithm: str
    private: PrivateKey
    published: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, algorithm: str, kid: str = "", *, bits: int = 2048, **published: object) -> "SigningKey":
        """Make a key pair; `published` is what its JWK says beside the key, `None` leaving a member out."""
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
    """Publishes its keys as its fields say, and signs whatever it is told.

    Attributes:
        address: What its tokens call it.
        keys: Those that it publishes, and can sign with.
        extra_keys: What it publishes before them.
        asked: The paths that it was asked for, in order.
        status: Of its answers.
        body: Its answer to every request, `None` for the right one.
        huge: Whether 50 MB of blanks come first.
        hangs: Whether it answers only once it is let go.
        headers: More of its answers'.
        discovery: Its document about itself.
    """

    def __init__(self, address: str) -> None:
        """Have one key for each algorithm."""
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
        """End every hanging answer."""
        self._let_go.set()

    def environment(self) -> dict[str, str]:
        """Return the settings of a deployment that trusts it."""
        return {
            "BATCH_PROGRESS_TOKEN_ISSUER": self.address,
            "BATCH_PROGRESS_TOKEN_AUDIENCE": AUDIENCE,
            "BATCH_PROGRESS_TOKEN_OWNER_CLAIM": "sub",
        }

    def claims(self, **changed: object) -> dict[str, Any]:
        """Return a good token's claims with `changed` in their place; `None` leaves a claim out."""
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": "demo", "exp": int(time.time()) + 600} | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changed: object) -> str:
        """Sign a token by a key that is published unless another is given; `None` leaves a header out."""
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
    # A key takes a second to make, and these are never the ones that a test is about.
    return _KEYS.setdefault(algorithm, SigningKey.make(algorithm))


def signed(key: SigningKey, payload: bytes, header: dict[str, Any]) -> str:
    """Sign any payload; `None` leaves a header out."""
    names = {name: value for name, value in header.items() if value is not None or name == "typ"}
    return jwt.api_jws.encode(payload, key.private, key.algorithm, names)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Write a token by hand: no library signs as some do."""
    return ".".join(encoded(part) for part in (json.dumps(header).encode(), json.dumps(claims).encode(), signature))


def encoded(part: bytes) -> str:
    """Return a part of a token as it is sent."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the reader has had enough
                issuer.answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing."""

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
