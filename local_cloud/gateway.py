"""API Gateway as a REST API with proxy integration: HTTP requests to events, handlers' answers to HTTP responses.

Where `sam local start-api` differs from the service, this module follows the service:

- `path` and `pathParameters` stay percent-encoded (query parameters are decoded),
- a header that was sent twice keeps both values, and headers keep their spelling,
- `requestContext.path` begins with the stage, and `identity.userAgent` is the client's.

Not implemented: limits on request sizes, authorizers, and the renaming of `WWW-Authenticate`.
"""

import base64
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from werkzeug import Request, Response

from local_cloud.proxy_event import Event, proxy_event

logger = logging.getLogger(__name__)

# The WSGI key of the headers as they were sent: WSGI itself joins repeated headers.
SENT_HEADERS = "batch_progress.sent_headers"
# Lambda's limit on a response payload, in bytes.
LARGEST_ANSWER = 6 * 1024 * 1024


class _Answer(BaseModel):
    """A proxy response that the service accepts; it answers 502 to any other."""

    model_config = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel)

    status_code: int = Field(200, ge=100, le=599)
    headers: dict[str, str | int | float | bool] | None = None
    multi_value_headers: dict[str, list[str | int | float | bool]] | None = None
    body: str | None = None
    is_base64_encoded: bool = Field(default=False, alias="isBase64Encoded")

    def header_pairs(self) -> list[tuple[str, str]]:
        """Return all headers; `multiValueHeaders` wins where a name is in both maps."""
        several = self.multi_value_headers or {}
        names = {name.lower() for name in several}
        pairs = [(name, str(value)) for name, values in several.items() for value in values]
        return pairs + [(name, str(v)) for name, v in (self.headers or {}).items() if name.lower() not in names]

    def content(self) -> bytes:
        """Return the decoded body."""
        body = self.body or ""
        return base64.b64decode(body, validate=True) if self.is_base64_encoded else body.encode()


def respond(request: Request, handler: Callable[[Event], object]) -> Response:
    """Answer a request as the service does; an exception or an invalid answer of the handler is its 502."""
    event = to_event(request)
    try:
        return to_response(handler(event), request.method)
    except Exception:
        # The client sees a 502 for every failure; the log says which one.
        logger.exception("The function failed, or its answer is not a valid proxy response")
        return bad_gateway(event["requestContext"]["requestId"], request.method)


def to_event(request: Request) -> Event:
    """Return the proxy event of a request."""
    headers = _one_spelling(request.environ.get(SENT_HEADERS) or request.headers.items())
    return proxy_event(
        request.method,
        _sent_path(request),
        [
            *headers,
            ("X-Forwarded-Proto", request.scheme),
            ("X-Forwarded-Port", str(request.environ["SERVER_PORT"])),
        ],
        [(name, value) for name, values in request.args.lists() for value in values],
        body=request.get_data(),
        host=request.host,
        source_ip=request.remote_addr,
        protocol=request.environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
    )


def to_response(answer: object, method: str) -> Response:
    """Return the HTTP response to a handler's answer.

    Raises:
        ValueError: The service would reject the answer.
        TypeError: The answer cannot be encoded as JSON.
    """
    sent = json.dumps(answer)
    if len(sent) > LARGEST_ANSWER:
        raise ValueError(f"an answer of {len(sent):,} bytes; a Lambda sends {LARGEST_ANSWER:,} at most")
    try:
        valid = _Answer.model_validate_json(sent)
    except ValidationError as error:
        # Pydantic's own message would put the content of the answer into the log.
        raise ValueError(f"not a proxy response: {[(e['loc'], e['type']) for e in error.errors()]}") from None
    content = valid.content()
    response = Response(content if method != "HEAD" else b"", valid.status_code)
    response.headers.clear()
    for name, value in valid.header_pairs():
        response.headers.add(name, value)
    response.headers.setdefault("Content-Type", "application/json")
    if method != "HEAD":
        response.content_length = len(content)
    elif content:
        response.headers.setdefault("Content-Length", str(len(content)))
    # Without a known length, werkzeug would set 0 on HEAD.
    response.automatically_set_content_length = False
    return response


def bad_gateway(request_id: str, method: str = "GET") -> Response:
    """Return the gateway's answer to a failed function."""
    error = {
        "code": "BAD_GATEWAY",
        "message": "The service did not answer properly. Try again.",
        "system_message": "Bad gateway",
        "type": "server_error",
        "status": 502,
        "details": {},
        "trace_id": request_id,
        "timestamp": None,
    }
    headers = {"Cache-Control": "no-store", "X-Request-Id": request_id}
    body = json.dumps({"success": False, "error": error})
    return to_response({"statusCode": 502, "headers": headers, "body": body}, method)


def _sent_path(request: Request) -> str:
    """Return the path with its percent-encoding unchanged."""
    target = str(request.environ.get("REQUEST_URI") or request.root_path + request.path)
    # A client of a proxy sends an absolute URL.
    path = re.sub(r"^https?://[^/?]*", "", target, flags=re.IGNORECASE)
    return path.partition("?")[0] or "/"


def _one_spelling(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield headers, each under the first spelling of its name, without those that the gateway sets itself."""
    spelling: dict[str, str] = {}
    for name, value in headers:
        if name.lower() not in {"x-forwarded-proto", "x-forwarded-port"}:
            yield spelling.setdefault(name.lower(), name), value
