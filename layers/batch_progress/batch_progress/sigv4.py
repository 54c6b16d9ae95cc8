"""AWS Signature Version 4 for a `POST` to `/` without a query string, which is every request to DynamoDB.

Source: "Create a signed AWS API request", AWS Identity and Access Management User Guide. The tests compare each header
with that of botocore's signer.
"""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from hmac import digest
from typing import Final, NamedTuple

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Credentials(NamedTuple):
    """AWS credentials. `token` is the session token of temporary ones, otherwise `None`."""

    access_key: str
    secret_key: str
    token: str | None


def authorization(
    credentials: Credentials, service: str, region: str, time: str, headers: Mapping[str, str], body: bytes
) -> str:
    """Return the `Authorization` header of a request.

    Args:
        credentials: The credentials to sign with.
        service: The service's name in the credential scope, such as `dynamodb`.
        region: The region's name.
        time: The request's `X-Amz-Date`, such as `20241216T103100Z`.
        headers: The headers to sign, including `host` and `x-amz-date`, with lower-case names in sorted order.
        body: The request's body.
    """
    signed = ";".join(headers)
    lines = "".join([f"{name}:{' '.join(value.split())}\n" for name, value in headers.items()])
    request = f"POST\n/\n\n{lines}\n{signed}\n{sha256(body).hexdigest()}"
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = f"{_ALGORITHM}\n{time}\n{scope}\n{sha256(request.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_key, time[:8], region, service)
    signature = digest(key, text.encode(), "sha256").hex()
    return f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"


@lru_cache(maxsize=2)
def _signing_key(secret_key: str, day: str, region: str, service: str) -> bytes:
    """Derive the signing key, which is the same for all requests of a day."""
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = digest(key, part.encode(), "sha256")
    return key
