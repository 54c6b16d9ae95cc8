"""Who is asking: session tokens, the JWTs of an issuer that the deployment trusts (docs/tokens.md).

Imported only when one arrives: cryptography would make every cold start half as long again.
"""

from typing import Any, Final

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from batch_progress.errors import TokenExpired, TokenInvalid, TokenMissingSubject
from batch_progress.jwks import IssuerKeys
from batch_progress.tokens import SESSION_TOKEN, session_owner

# Public keys only: with a symmetric algorithm among them, whoever knows the public key could sign.
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
LEEWAY_SECONDS: Final = 60
# Types of JWTs that are for a resource (RFC 9068, section 2.1; RFC 7519, section 5.1); absent is good, too.
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_LONGEST_OWNER: Final = 1_024

_CHECKS: Final[jwt.types.Options] = {
    "require": ["exp", "iss"],
    # Whom it is for is checked below; when it was issued, its own id and a subject that is not asked for don't matter.
    "verify_aud": False,
    "verify_iat": False,
    "verify_jti": False,
    "verify_sub": False,
    "enforce_minimum_key_length": True,
}


class SessionTokens:
    """Session tokens of one issuer, for one deployment."""

    def __init__(self, issuer: str, audiences: frozenset[str], owner_claim: str) -> None:
        """Take the issuer as its tokens spell it, whom they must be meant for, and the claim that names an owner."""
        self._issuer = issuer
        self._audiences = audiences
        self._owner_claim = owner_claim
        self._keys = IssuerKeys(issuer)

    def owner(self, token: str, now: float) -> str:
        """Return whose session it is, as `session_owner` names them.

        Args:
            token: A bearer that `is_session_token`.
            now: Epoch seconds, for the keys; a token's own times are held against the clock.

        Raises:
            TokenExpired: Its `exp` has passed, more than `LEEWAY_SECONDS` ago.
            TokenMissingSubject: It is good and lacks the owner's claim, or has none there that could name one.
            TokenInvalid: Anything else is wrong with it.
            ServiceUnavailable: The issuer is away and none of its keys are known.

        Source: RFC 7519; RFC 8725 for what to insist on.
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
    """Return whom a token is for; access tokens of Amazon Cognito say it in `client_id` alone."""
    found = claims.get("aud", claims.get("client_id"))
    values = found if isinstance(found, list) else [found]
    return {value for value in values if isinstance(value, str)}
