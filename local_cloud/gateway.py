"""HTTP ⇄ the proxy event of an API Gateway REST API, for engines that have no gateway in front.

Where `sam local start-api` departs from the service, this follows the service:

- `path` and `pathParameters` stay percent-encoded as they were sent (query parameters are decoded),
- a header that was sent twice keeps both values, and headers keep their spelling,
- `requestContext.path` begins with the stage, `identity.userAgent` is the client's.

Left out: the service's limits on sizes, its authorizers, and its renaming of `WWW-Authenticate`.
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

# Where a server puts the headers as they were sent, since WSGI joins those sent twice.
SENT_HEADERS = "batch_progress.sent_headers"
# What a Lambda may answer with, in bytes of JSON.
LARGEST_ANSWER = 6 * 1024 * 1024


class _Answer(BaseModel):
    """What the service takes for a proxy response; anything else is its 502."""

    model_config = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel)

    status_code: int = Field(200, ge=100, le=599)
    headers: dict[str, str | int | float | bool] | None = None
    multi_value_headers: dict[str, list[str | int | float | bool]] | None = None
    body: str | None = None
    is_base64_encoded: bool = Field(default=False, alias="isBase64Encoded")

    def header_pairs(self) -> list[tuple[str, str]]:
        """Return all headers; of one that is in both maps, the values of the multi-value map."""
        several = self.multi_value_headers or {}
        names = {name.lower() for name in several}
        pairs = [(name, str(value)) for name, values in several.items() for value in values]
        return pairs + [(name, str(v)) for name, v in (self.headers or {}).items() if name.lower() not in names]

    def content(self) -> bytes:
        """Return the body's bytes."""
        body = self.body or ""
        return base64.b64decode(body, validate=True) if self.is_base64_encoded else body.encode()


def respond(request: Request, handler: Callable[[Event], object]) -> Response:
    """Answer a request as the service does with the handler behind it, its 502 included."""
    event = to_event(request)
    try:
        return to_response(handler(event), request.method)
    except Exception:
        # A crash of any kind is one to the client; the developer sees which.
        logger.exception("The function crashed, or answered what no gateway takes")
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
        ValueError: the answer is none that the service would pass on.
        TypeError: it cannot be JSON, as what leaves a Lambda must be.
    """
    sent = json.dumps(answer)
    if len(sent) > LARGEST_ANSWER:
        raise ValueError(f"an answer of {len(sent):,} bytes; a Lambda sends {LARGEST_ANSWER:,} at most")
    try:
        valid = _Answer.model_validate_json(sent)
    except ValidationError as error:
        # Its own text would put the answer's content into the log.
        raise ValueError(f"no proxy response: {[(e['loc'], e['type']) for e in error.errors()]}") from None
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
    # A HEAD without a known length has none; werkzeug would call it 0.
    response.automatically_set_content_length = False
    return response


def bad_gateway(request_id: str, method: str = "GET") -> Response:
    """Return the gateway's own answer to a function that crashed."""
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
    """Return the path as it was sent, percent-encoding and all."""
    target = str(request.environ.get("REQUEST_URI") or request.root_path + request.path)
    # A proxy's client sends the whole address.
    path = re.sub(r"^https?://[^/?]*", "", target, flags=re.IGNORECASE)
    return path.partition("?")[0] or "/"


def _one_spelling(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield headers, each under the first spelling of its name, without those that the gateway sets itself."""
    spelling: dict[str, str] = {}
    for name, value in headers:
        if name.lower() not in {"x-forwarded-proto", "x-forwarded-port"}:
            yield spelling.setdefault(name.lower(), name), value
