"""The function behind the endpoint: route, ask, answer.

`handler` takes API Gateway's proxy events and direct invocations by other Lambdas; an event with both
`requestContext` and `httpMethod` is the former, any other the latter.
"""

import gc

# Imports make a hundred thousand objects that stay and no garbage: looking for some is a twentieth of a cold start.
gc.disable()

import re
import time
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from batch_progress import wire
from batch_progress.settings import settings
from batch_progress.store import BatchStore
from batch_progress.tokens import Credential, TokenStore, is_session_token
from functions.progress.answer import Answer, Unchanged, answer, unchanged
from functions.progress.coding import Gzip, Identity, PlainObject
from functions.progress.envelope import MethodNotAllowed, error_answer, error_headers
from functions.progress.http import Request, trace_id
from functions.progress.query import from_direct, from_http
from functions.progress.record import Record
from functions.progress.tag import Tag

if TYPE_CHECKING:
    from batch_progress.jwt import SessionTokens

_PATH: Final = "/v1/scrape/batch/<batch_id>/progress"
_METHODS: Final = ["GET", "HEAD"]
# The same route for ids that the router's pattern does not take: they are answered, with what is wrong with them.
_ROUTE: Final = re.compile(r"(?:/api)?/v1/scrape/batch/([^/]+)/progress/?")
# What is left of the function's time for the last attempt at DynamoDB and for the answer.
_RESERVE_SECONDS: Final = wire.LAST_ATTEMPT_SECONDS + 0.5

# The function's timeout in template.yaml, where no context says what is left of it.
_TIMEOUT_SECONDS: Final = 10

app = APIGatewayRestResolver()
logger = Logger(service="batch-progress")
metrics = Metrics(namespace="BatchProgress", service="progress")


@cache
def _client() -> Any:  # noqa: ANN401  # botocore ships no types
    return wire.dynamodb()


@cache
def _store() -> BatchStore:
    return BatchStore(_client(), settings().jobs_table)


@cache
def _tokens() -> TokenStore:
    return TokenStore(_client(), settings().tokens_table)


@cache
def _sessions() -> "SessionTokens":
    from batch_progress.jwt import SessionTokens  # noqa: PLC0415  # cryptography: of no use to who asks by a key

    known = settings()
    return SessionTokens(known.token_issuer or "", known.audiences, known.token_owner_claim)


def _owner(credential: Credential, now: float) -> str:
    """Return whose credential it is; raises as `TokenStore.owner` and `SessionTokens.owner` do."""
    if is_session_token(credential) and settings().token_issuer:
        return _sessions().owner(credential.token, now)
    return _tokens().owner(credential, now)


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401  # whatever comes; Lambda's context
    """Answer one event.

    Args:
        event: API Gateway's REST proxy event, or a direct one as `DirectEvent` describes.
        context: Lambda's context; may be `None` where the handler is called by hand.

    Returns:
        A proxy response for the former, the envelope itself for the latter; an error is an envelope too.
    """
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    seconds = remaining() / 1_000 if remaining else _TIMEOUT_SECONDS
    with wire.deadline(time.monotonic() + seconds - _RESERVE_SECONDS):
        if isinstance(event, dict) and "requestContext" in event and "httpMethod" in event:
            return _http(event, context)
        return _direct(event, context)


def _request_id(context: Any) -> str:  # noqa: ANN401  # Lambda's context
    return getattr(context, "aws_request_id", None) or "unknown"


def _http(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # Lambda's context
    request = Request(event)
    record = Record("http", request.request_id or _request_id(context), time.time())
    app.append_context(request=request, record=record)  # type: ignore[no-untyped-call]  # the router's
    response = app.resolve(request.proxy_event(), context)
    if request.method == "HEAD":
        response["body"], response["isBase64Encoded"] = "", False
    response["multiValueHeaders"]["X-Request-Id"] = [record.request_id]
    record.write(logger, metrics, response["statusCode"])
    return response


@app.route(_PATH, method=_METHODS)
@app.route("/api" + _PATH, method=_METHODS)
def batch_progress(batch_id: str) -> Response[str]:
    """Answer how far a batch is."""
    request: Request = app.context["request"]
    record: Record = app.context["record"]
    owner_id = _owner(request.credential(), record.now)
    # API Gateway hands on the path as it was sent; a letter and its percent-encoding are the same (RFC 3986, 6.2.2.2).
    query = from_http(unquote(batch_id), request.parameters)
    record.batch_id = query.batch_id
    gzip = request.accepts_gzip()
    if if_none_match := request.header("if-none-match"):
        same = unchanged(_store(), query, owner_id, if_none_match, now=record.now, log=record.reads, gzip=gzip)
        if same:
            return _not_modified(same)
    found = answer(_store(), query, owner_id, record.now, record.reads, Gzip() if gzip else Identity())
    record.jobs = found.jobs
    return _ok(found, request, Tag.of(found.batch, query, found.estimate, made=record.now, gzip=gzip))


@app.not_found
def elsewhere(_: NotFoundError) -> Response[str]:
    """Tell a wrong method and an odd batch id from a wrong path, and the page from either.

    Raises:
        MethodNotAllowed: The path is the route's.
        RouteNotFound: It is not, nor the page's.
    """
    request: Request = app.context["request"]
    match = _ROUTE.fullmatch(request.path)
    if match is None:
        from functions.progress import watch  # noqa: PLC0415  # of no use to who asks for progress

        return watch.page(request)
    if request.method not in _METHODS:
        raise MethodNotAllowed
    return batch_progress(match[1])


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]  # the router's
def failed(error: Exception) -> Response[str]:
    """Answer an error with its envelope."""
    record: Record = app.context["record"]
    told = record.failure(error, logger)
    envelope = error_answer(told, trace_id(record.request_id), record.now)
    body = msgspec.json.encode(envelope).decode()
    return Response(envelope.error.status, content_types.APPLICATION_JSON, body, headers={**error_headers(told)})


_PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key, Accept-Encoding"}


def _ok(found: Answer, request: Request, tag: Tag) -> Response[str]:
    headers: dict[str, str | list[str]] = {**_PRIVATE, "ETag": str(tag), **_retry_after(found.poll_after)}
    if found.next_cursor:
        headers["Link"] = request.next_link(found.next_cursor)
    if found.body.compressed:
        headers["Content-Encoding"] = "gzip"
    response = Response(HTTPStatus.OK, content_types.APPLICATION_JSON, found.body.text, headers=headers)
    response.base64_encoded = found.body.compressed
    return response


def _not_modified(same: Unchanged) -> Response[str]:
    headers: dict[str, str | list[str]] = {**_PRIVATE, "ETag": str(same.tag), **_retry_after(same.poll_after)}
    return Response(HTTPStatus.NOT_MODIFIED, body="", headers=headers)


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _direct(event: object, context: Any) -> dict[str, Any]:  # noqa: ANN401  # Lambda's context
    record = Record("direct", _request_id(context), time.time())
    try:
        query, owner_id = from_direct(event)
        record.batch_id = query.batch_id
        found = answer(_store(), query, owner_id, record.now, record.reads, PlainObject())
        record.jobs = found.jobs
        envelope: dict[str, Any] = msgspec.json.decode(found.body.text)
        status: int = HTTPStatus.OK
    except Exception as error:  # noqa: BLE001  # the caller is owed an envelope whatever fails
        told = error_answer(record.failure(error, logger), trace_id(record.request_id), record.now)
        envelope, status = msgspec.to_builtins(told), told.error.status
    record.write(logger, metrics, status)
    return envelope


# Nor will any of that be garbage later.
gc.freeze()
gc.enable()
