"""The proxy event that a REST API makes of an HTTP request.

Everything that plays API Gateway builds its events here: the local server, the tests, the benchmarks.
"""

import base64
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

type Event = dict[str, Any]
type Pairs = Iterable[tuple[str, str]]

STAGE = "prod"
RESOURCES = (
    "/api/v1/scrape/batch/{batch_id}/progress",
    "/v1/scrape/batch/{batch_id}/progress",
    "/",
    "/{proxy+}",
)
_PATTERNS = [
    (resource, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", resource.rstrip("/"))))
    for resource in RESOURCES
    if "+" not in resource
]


def proxy_event(  # noqa: PLR0913  # what a request consists of, given by name
    method: str,
    path: str,
    headers: Pairs = (),
    query: Pairs = (),
    *,
    body: bytes = b"",
    host: str = "api.example.com",
    source_ip: str | None = "192.0.2.1",
    protocol: str = "HTTP/1.1",
) -> Event:
    """Return the event of a request.

    Args:
        method: As it was sent.
        path: As it was sent, percent-encoded, without the stage.
        headers: As they were sent; a name may repeat.
        query: Decoded parameters; a name may repeat.
        body: As it was sent.
        host: The API's domain name.
        source_ip: The client's address.
        protocol: The version of HTTP.
    """
    resource, parameters = route(path)
    several_headers, several_values = grouped(headers), grouped(query)
    now = datetime.now(UTC)
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in several_headers.items()},
        "multiValueHeaders": several_headers,
        "queryStringParameters": {name: values[-1] for name, values in several_values.items()} or None,
        "multiValueQueryStringParameters": several_values or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "1234567890",
            "domainName": host,
            "extendedRequestId": None,
            "httpMethod": method,
            "identity": {
                "accountId": None,
                "apiKey": None,
                "caller": None,
                "cognitoAuthenticationProvider": None,
                "cognitoAuthenticationType": None,
                "cognitoIdentityPoolId": None,
                "sourceIp": source_ip,
                "user": None,
                "userAgent": next(
                    (values[-1] for name, values in several_headers.items() if name.lower() == "user-agent"), None
                ),
                "userArn": None,
            },
            "path": f"/{STAGE}{path}",
            "protocol": protocol,
            "requestId": str(uuid4()),
            "requestTime": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "resourceId": "123456",
            "resourcePath": resource,
            "stage": STAGE,
        },
        # The API treats every media type as binary, so that a compressed answer passes unchanged.
        "body": base64.b64encode(body).decode() if body else None,
        "isBase64Encoded": True,
    }


def route(path: str) -> tuple[str, dict[str, str]]:
    """Return the resource that a path belongs to and the parameters in it; trailing slashes do not count."""
    bare = path.rstrip("/")
    for resource, pattern in _PATTERNS:
        if match := pattern.fullmatch(bare):
            return resource, match.groupdict()
    return "/{proxy+}", {"proxy": bare.removeprefix("/")}


def grouped(pairs: Pairs) -> dict[str, list[str]]:
    """Return the values of each name, in order."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values
