"""Session tokens: JWTs of the issuer that the deployment trusts (docs/tokens.md).

Imported only when the first one arrives: importing cryptography would make every cold start half as long again.
"""

from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from batch_progress.errors import TokenExpired, TokenInvalid, TokenMissingSubject
from batch_progress.jwks import IssuerKeys
from batch_progress.tokens import SESSION_TOKEN, session_owner

# Asymmetric algorithms only: with a symmetric one allowed, a token could be signed with the public key as the secret.
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
LEEWAY_SECONDS: Final = 60
# The accepted values of `typ`; it may also be absent (RFC 9068, section 2.1; RFC 7519, section 5.1).
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_LONGEST_OWNER: Final = 1_024

_CHECKS: Final[jwt.types.Options] = {
    "require": ["exp", "iss"],
    # `aud` is checked below, since `client_id` may replace it. `iat` and `jti` are not used. `sub` is checked below
    # if it is the owner claim.
    "verify_aud": False,
    "verify_iat": False,
    "verify_jti": False,
    "verify_sub": False,
    "enforce_minimum_key_length": True,
}


class SessionTokens:
    """Verifies session tokens.

    Args:
        issuer: The issuer, spelled as in the `iss` of its tokens.
        audiences: A token must be for one of these.
        owner_claim: The name of the claim that has the owner.
    """

    def __init__(self, issuer: str, audiences: frozenset[str], owner_claim: str) -> None:
        self._issuer = issuer
        self._audiences = audiences
        self._owner_claim = owner_claim
        self._keys = IssuerKeys(issuer)

    def owner(self, token: str, now: float) -> str:
        """Verify a token and return its `owner_id`, as `session_owner` makes it.

        Args:
            token: A bearer token that `is_session_token` accepts.
            now: Epoch seconds, for the cache of keys. The token's own times are compared with the system clock.

        Raises:
            TokenExpired: Its `exp` passed more than `LEEWAY_SECONDS` ago.
            TokenMissingSubject: It is valid, but its owner claim is missing, empty, too long or not a string.
            TokenInvalid: Anything else is wrong with it.
            ServiceUnavailable: The issuer's keys cannot be fetched and none are cached.

        Sources: RFC 7519; RFC 8725 for the required checks.
        """
        if not SESSION_TOKEN.match(token):
            raise TokenInvalid
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS or not _resource_type(header.get("typ", "JWT")):
                raise TokenInvalid
            key = self._keys.find(header.get("kid"), header["alg"], now)
            claims = jwt.decode(
                token, key, algorithms=ALGORITHMS, issuer=self._issuer, leeway=LEEWAY_SECONDS, options=_CHECKS
            )
        except ExpiredSignatureError as error:
            raise TokenExpired from error
        except PyJWTError as error:
            raise TokenInvalid from error
        if not self._audiences & _audiences(claims):
            raise TokenInvalid
        owner = claims.get(self._owner_claim)
        if not isinstance(owner, str) or not 0 < len(owner) <= _LONGEST_OWNER:
            raise TokenMissingSubject
        return session_owner(self._issuer, owner)


def _resource_type(typ: object) -> bool:
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in _TYPES


def _audiences(claims: dict[str, Any]) -> set[str]:
    """Return the audiences of a token: `aud`, or `client_id` without one, as in Amazon Cognito's access tokens."""
    found = claims.get("aud", claims.get("client_id"))
    values = found if isinstance(found, list) else [found]
    return {value for value in values if isinstance(value, str)}
