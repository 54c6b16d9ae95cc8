"""The public keys of the issuer of session tokens: found by OpenID discovery, fetched and cached.

Sources: OpenID Connect Discovery 1.0, sections 3 and 4; RFC 7517. The limits are ours
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

# The shortest time between two refreshes of cached keys, however many tokens name unknown keys.
REFRESH_SECONDS: Final = 60.0
# Cached keys older than this are refreshed: the issuer may have withdrawn one.
KEEP_SECONDS: Final = 3_600.0
# After a fetch that failed, tokens that need keys are answered at once for this long: each fetch can take all of
# `FETCH_SECONDS`, and tokens can be made up.
PAUSE_SECONDS: Final = 2.0
# The time limit for both documents together.
FETCH_SECONDS: Final = 2.0
# The size limit of each document, in bytes.
_LARGEST_DOCUMENT: Final = 2**18
_CHUNK_BYTES: Final = 2**16
_OK: Final = 200
_LONGEST_REASON: Final = 300

_logger = logging.getLogger(__name__)


class IssuerFailed(Exception):
    """The issuer's keys could not be fetched. The message says why, for the log."""


class Discovery(msgspec.Struct, frozen=True):
    """The fields of the discovery document that are used."""

    issuer: str
    jwks_uri: str


class IssuerKeys:
    """The keys of one issuer, fetched at the first use. Threads may share it."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._http = urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
        self._keys: list[PyJWK] | None = None
        self._fetched_at = self._refreshed_at = -inf
        # Of `monotonic`: a request that waited for the lock began before the failure.
        self._failed_at = -inf
        self._lock = Lock()

    def find(self, kid: str | None, algorithm: str, now: float) -> PyJWK:
        """Return the key for a token: the one with its key id, or without an id the only one for its algorithm.

        Args:
            kid: The token's key id, `None` without one.
            algorithm: The token's algorithm.
            now: Epoch seconds.

        Raises:
            TokenInvalid: The issuer does not have the key, or the token has no key id and several keys fit.
            ServiceUnavailable: The keys cannot be fetched and none are cached.
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
        """Whether to fetch: while there are no keys, unless that has just failed; then once in `REFRESH_SECONDS`."""
        if self._keys is None:
            return monotonic() - self._failed_at >= PAUSE_SECONDS
        wanted = found is None or not _within(KEEP_SECONDS, self._fetched_at, now)
        return wanted and not _within(REFRESH_SECONDS, self._refreshed_at, now)

    def _ask(self, now: float) -> None:
        """Fetch the keys. If that fails, keep the cached ones and log why."""
        if self._keys is not None:
            self._refreshed_at = now
        try:
            self._keys = self._fetch()
            self._fetched_at = now
        except Exception as error:  # noqa: BLE001  # a third party, which may send anything
            self._failed_at = monotonic()
            state = "and none are cached" if self._keys is None else "the cached ones stay in use"
            reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            _logger.warning("The keys of the token issuer %s could not be fetched, %s: %s", self._issuer, state, reason)

    def _fetch(self) -> list[PyJWK]:
        until = monotonic() + min(FETCH_SECONDS, dynamodb.seconds_left())
        address = self._issuer.removesuffix("/") + "/.well-known/openid-configuration"
        found = msgspec.json.decode(self._get(address, until), type=Discovery)
        if found.issuer != self._issuer:
            raise IssuerFailed(f"its discovery document is for another issuer, {found.issuer!r}")
        # The issuer is https, or http on loopback: see `settings.Issuer`.
        if urlsplit(found.jwks_uri).scheme not in {"https", urlsplit(self._issuer).scheme}:
            raise IssuerFailed("its jwks_uri is not an https URL")
        return PyJWKSet.from_dict(msgspec.json.decode(self._get(found.jwks_uri, until), type=dict)).keys

    def _get(self, address: str, until: float) -> bytes:
        """Read a document within the limits of time and size, without following redirects or decompressing."""
        left = until - monotonic()
        if left <= 0:
            raise IssuerFailed("no time is left for the request")
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
                    raise IssuerFailed(f"the document is larger than {_LARGEST_DOCUMENT} bytes")
                if monotonic() > until:
                    raise IssuerFailed("the response took too long")
        finally:
            # A kept connection would be stale at the next refresh, an hour later.
            response.close()
        return bytes(body)


def _within(seconds: float, since: float, now: float) -> bool:
    # The lower bound: a clock that was set back must not keep entries longer.
    return 0 <= now - since < seconds
