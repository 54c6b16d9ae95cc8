"""The keys of the issuer of session tokens: found by OpenID discovery, fetched once, kept.

Sources: OpenID Connect Discovery 1.0, sections 3 and 4; RFC 7517. The bounds are ours
(docs/decisions/0011-session-tokens.md).
"""

import logging
from math import inf
from threading import Lock
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import msgspec
import urllib3
from jwt import PyJWK, PyJWKSet

from batch_progress import dynamodb
from batch_progress.errors import ServiceUnavailable, TokenInvalid

# Once there are keys, the issuer is asked for newer ones at most so often, whatever tokens say, ...
REFRESH_SECONDS: Final = 60.0
# ... and after so long whatever they say, since it may have taken one back.
KEEP_SECONDS: Final = 3_600.0
# For both documents together; of each no more than so much is read.
FETCH_SECONDS: Final = 2.0
_LARGEST_DOCUMENT: Final = 2**18
_CHUNK_BYTES: Final = 2**16
_OK: Final = 200
_LONGEST_REASON: Final = 300

_logger = logging.getLogger(__name__)


class IssuerFailed(Exception):
    """The issuer did not hand out its keys; the message says why, for the log."""


class Discovery(msgspec.Struct, frozen=True):
    """What the issuer says of itself."""

    issuer: str
    jwks_uri: str


class IssuerKeys:
    """The keys of one issuer, in a process that answers for long."""

    def __init__(self, issuer: str) -> None:
        """Take the issuer as its tokens spell it; nothing is fetched yet."""
        self._issuer = issuer
        self._http = urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
        self._keys: list[PyJWK] | None = None
        self._fetched_at = self._refreshed_at = -inf
        self._lock = Lock()

    def find(self, kid: str | None, algorithm: str, now: float) -> PyJWK:
        """Return the key that a token names, or the only one for its algorithm where it names none.

        Args:
            kid: The token's key id, `None` without one. It is compared, never followed.
            algorithm: The token's.
            now: Epoch seconds.

        Raises:
            TokenInvalid: The issuer has no such key, or has several and the token names none.
            ServiceUnavailable: The issuer is away and no keys of it are known.
        """
        with self._lock:
            found = self._known(kid, algorithm)
            if self._due(found, now):
                self._ask(now)
                found = self._known(kid, algorithm)
            if self._keys is None:
                raise ServiceUnavailable
        if found is None:
            raise TokenInvalid
        return found

    def _known(self, kid: str | None, algorithm: str) -> PyJWK | None:
        fit = [key for key in self._keys or () if key.algorithm_name == algorithm and key.public_key_use != "enc"]
        if kid is None:
            return fit[0] if len(fit) == 1 else None
        return next((key for key in fit if key.key_id == kid), None)

    def _due(self, found: PyJWK | None, now: float) -> bool:
        """Tell whether to ask the issuer: for first keys always, for newer ones at most once in `REFRESH_SECONDS`."""
        if self._keys is None:
            return True
        wanted = found is None or not _within(KEEP_SECONDS, self._fetched_at, now)
        return wanted and not _within(REFRESH_SECONDS, self._refreshed_at, now)

    def _ask(self, now: float) -> None:
        """Fetch the keys; where that fails, those of before stay."""
        if self._keys is not None:
            self._refreshed_at = now
        try:
            self._keys = self._fetch()
            self._fetched_at = now
        except Exception as error:  # noqa: BLE001  # it is not ours, and may send anything
            state = "none are known" if self._keys is None else "those of before stay in use"
            reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            _logger.warning("The token issuer %s did not hand out its keys, %s: %s", self._issuer, state, reason)

    def _fetch(self) -> list[PyJWK]:
        until = monotonic() + min(FETCH_SECONDS, dynamodb.seconds_left())
        address = self._issuer.removesuffix("/") + "/.well-known/openid-configuration"
        found = msgspec.json.decode(self._get(address, until), type=Discovery)
        if found.issuer != self._issuer:
            raise IssuerFailed(f"it calls itself {found.issuer!r}")
        # What vouches for clients comes over TLS, but from an issuer on this machine.
        if urlsplit(found.jwks_uri).scheme not in {"https", urlsplit(self._issuer).scheme}:
            raise IssuerFailed("its keys are not behind TLS")
        return PyJWKSet.from_dict(msgspec.json.decode(self._get(found.jwks_uri, until), type=dict)).keys

    def _get(self, address: str, until: float) -> bytes:
        """Read a document within bounds of time and size, with no redirect followed and nothing unpacked."""
        left = until - monotonic()
        if left <= 0:
            raise IssuerFailed("no time is left to ask it")
        response = self._http.request(
            "GET",
            address,
            headers={"Accept": "application/json", "User-Agent": "batch-progress"},
            timeout=urllib3.Timeout(total=left),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        body = bytearray()
        try:
            if response.status != _OK:
                raise IssuerFailed(f"status {response.status}")
            while piece := response.read1(_CHUNK_BYTES, decode_content=False):
                body += piece
                if len(body) > _LARGEST_DOCUMENT:
                    raise IssuerFailed(f"a document of more than {_LARGEST_DOCUMENT} bytes")
                if monotonic() > until:
                    raise IssuerFailed(f"slower than {FETCH_SECONDS:g} seconds")
        finally:
            # A connection kept would be stale when the next is needed, in an hour.
            response.close()
        return bytes(body)


def _within(seconds: float, since: float, now: float) -> bool:
    # A clock that was set back does not make the past last.
    return 0 <= now - since < seconds
