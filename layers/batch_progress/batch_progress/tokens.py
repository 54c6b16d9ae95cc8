"""Opaque tokens, looked up by their hash.

A token is never stored or logged: the table has only its SHA-256 (docs/decisions/0005-tokens-hashed.md).
"""

import hashlib
import re
from collections import OrderedDict
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from batch_progress import decode
from batch_progress.dynamodb import Client
from batch_progress.errors import (
    ApiKeyDeactivated,
    ApiKeyExpired,
    ApiKeyInvalid,
    CredentialRefused,
    TokenExpired,
    TokenInvalid,
)
from batch_progress.table import LAST_SECOND

# `b64token` of RFC 6750, section 2.1; the limits of length are ours.
_TOKEN: Final = re.compile(r"(?=.{8,512}\Z)[A-Za-z0-9._~+/-]+=*\Z")
# A JWT in compact form (RFC 7515, section 7.1). API Gateway limits all headers together to 10,240 bytes.
SESSION_TOKEN: Final = re.compile(r"(?=.{5,8192}\Z)[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
# The form of `session_owner`'s result: an issuer has no fragment (OpenID Connect Discovery 1.0, section 3).
SESSION_OWNER: Final = re.compile(r"https?://[^#]*#")
# A revoked token is refused by all environments within this time.
CACHE_SECONDS: Final = 30.0
_CACHE_ENTRIES: Final = 1_024


class Scheme(Enum):
    """How a request carries its token: `Authorization: Bearer` or `X-API-Key`."""

    BEARER = "bearer"
    API_KEY = "api key"


class Refusals(NamedTuple):
    """The errors for a token that is not valid."""

    invalid: type[CredentialRefused]
    expired: type[CredentialRefused]
    revoked: type[CredentialRefused]


_REFUSALS: Final = {
    Scheme.BEARER: Refusals(TokenInvalid, TokenExpired, TokenInvalid),
    Scheme.API_KEY: Refusals(ApiKeyInvalid, ApiKeyExpired, ApiKeyDeactivated),
}


class Credential(msgspec.Struct, frozen=True):
    """A token, and how the request carried it."""

    scheme: Scheme
    token: str

    def __repr__(self) -> str:
        """Leave out the token."""
        return f"Credential(scheme={self.scheme!r})"


class Caller(msgspec.Struct, frozen=True):
    """What a token allows.

    Attributes:
        owner_id: The owner whose batches it opens.
        batch_id: The only batch that it opens; `None` for all of the owner's.
    """

    owner_id: str
    batch_id: str | None = None

    def may_see(self, batch_id: str) -> bool:
        """Whether the token is for this batch, or for all of its owner's."""
        return self.batch_id in {None, batch_id}


class TokenItem(msgspec.Struct, frozen=True):
    """An item of the tokens table."""

    owner_id: decode.Text | None = None
    issuer: decode.Text | None = None
    batch_id: decode.Text | None = None
    expires_at: decode.Seconds | None = None
    revoked_at: dict[str, Any] | None = None


class _Known(msgspec.Struct, frozen=True):
    """A cached item of the tokens table. Times are in epoch seconds."""

    caller: Caller
    expires_at: float | None
    revoked: bool
    read_at: float


def is_session_token(credential: Credential) -> bool:
    """Whether a credential has the form of a session token: a bearer token of three parts."""
    return credential.scheme is Scheme.BEARER and credential.token.count(".") == 2  # noqa: PLR2004  # three parts


def session_owner(issuer: str, subject: str) -> str:
    """Return the `owner_id` for a session token's owner claim.

    An opaque token has such an owner only if its item names the issuer: `TokenStore` refuses it otherwise.
    """
    return f"{issuer}#{subject}"


class TokenStore:
    """Reads the tokens table. Known tokens are cached for `CACHE_SECONDS`, unknown ones are not cached."""

    def __init__(self, client: Client, table: str) -> None:
        self._client = client
        self._table = table
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def caller(self, credential: Credential, now: float) -> Caller:
        """Return what a token allows.

        Args:
            credential: The token.
            now: Epoch seconds.

        Raises:
            CredentialRefused: It is malformed, unknown, revoked or expired.
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        refusals = _REFUSALS[credential.scheme]
        if not _TOKEN.match(credential.token):
            raise refusals.invalid
        token_hash = hashlib.sha256(credential.token.encode()).hexdigest()
        known = self._known.get(token_hash)
        if known is None or not 0 <= now - known.read_at < CACHE_SECONDS:
            known = self._read(token_hash, now)
            self._remember(token_hash, known)
        if known is None:
            raise refusals.invalid
        if known.revoked:
            raise refusals.revoked
        if known.expires_at is not None and known.expires_at <= now:
            raise refusals.expired
        return known.caller

    def _read(self, token_hash: str, now: float) -> _Known | None:
        answer = self._client.get_item(
            TableName=self._table,
            Key={"token_hash": {"S": token_hash}},
            # A token that is not cached works as soon as it is issued, and fails as soon as it is revoked.
            ConsistentRead=True,
        )
        if not bytes(answer.raw):
            return None
        item, bad = decode.item(answer.raw, TokenItem)
        if bad or item.owner_id is None or not item.owner_id.S or (item.batch_id and not item.batch_id.S):
            # A partly malformed item is not trusted at all.
            return None
        if item.expires_at and item.expires_at.N > LAST_SECOND:
            # Milliseconds: such a token would never expire.
            return None
        owner_id = item.owner_id.S
        if item.issuer:
            # This API key was issued on purpose for an owner of session tokens.
            owner_id = session_owner(item.issuer.S, owner_id)
        elif SESSION_OWNER.match(owner_id):
            return None
        return _Known(
            caller=Caller(owner_id, item.batch_id.S if item.batch_id else None),
            expires_at=item.expires_at.N if item.expires_at else None,
            revoked=item.revoked_at is not None,
            read_at=now,
        )

    def _remember(self, token_hash: str, known: _Known | None) -> None:
        self._known.pop(token_hash, None)
        if known is not None:
            self._known[token_hash] = known
            if len(self._known) > _CACHE_ENTRIES:
                self._known.popitem(last=False)
