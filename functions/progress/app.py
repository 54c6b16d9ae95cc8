"""The handler of the progress function.

It accepts API Gateway's proxy events and direct invocations by other Lambda functions. An event with both
`requestContext` and `httpMethod` is a proxy event; any other event is direct.
"""

import gc

# Imports create a hundred thousand objects that stay alive. Scanning them for garbage takes 5% of a cold start.
gc.disable()

import os
import re
import time
from contextlib import nullcontext, suppress
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from batch_progress import dynamodb
from batch_progress.errors import BatchNotFound, ConfigurationError
from batch_progress.kept import KeptCounts
from batch_progress.settings import settings
from batch_progress.store import BatchStore
from batch_progress.tokens import Caller, Credential, TokenStore, is_session_token
from functions.progress.answer import Answer, NotModified, full_answer, not_modified
from functions.progress.coding import Gzip, Identity, PlainObject
from functions.progress.counting import Asked, LargeBatches, Sources
from functions.progress.envelope import MethodNotAllowed, error_answer, error_headers
from functions.progress.http import Request, trace_id
from functions.progress.parse import direct_query, http_query
from functions.progress.request_log import RequestLog
from functions.progress.tag import Tag

if TYPE_CHECKING:
    from batch_progress.jwt import SessionTokens

_PATH: Final = "/v1/scrape/batch/<batch_id>/progress"
_METHODS: Final = ["GET", "HEAD"]
# The same route with any id. The router does not match every character, but an invalid id is a 422, not a 404.
_ROUTE: Final = re.compile(r"(?:/api)?/v1/scrape/batch/([^/]+)/progress/?")
# Time kept for writing the answer after the last DynamoDB request. A direct answer of 6 MB takes longest.
_ANSWER_SECONDS: Final = 1.0

app = APIGatewayRestResolver()
# Log the traceback of an exception once, not also as structured data.
logger = Logger(service="batch-progress", serialize_stacktrace=False)


@cache
def _client() -> dynamodb.Client:
    return dynamodb.client()


@cache
def _store() -> BatchStore:
    return BatchStore(_client(), settings().jobs_table)


@cache
def _counts() -> KeptCounts:
    return KeptCounts(_client(), settings().jobs_table)


@cache
def _large() -> LargeBatches:
    return LargeBatches()


def _sources() -> Sources:
    return Sources(_store(), _counts(), _large())


@cache
def _tokens() -> TokenStore:
    return TokenStore(_client(), settings().tokens_table)


@cache
def _sessions() -> "SessionTokens":
    from batch_progress.jwt import SessionTokens  # noqa: PLC0415  # cryptography, which a request by key does not need

    known = settings()
    return SessionTokens(known.token_issuer or "", known.audiences, known.token_owner_claim)


def _caller(credential: Credential, now: float) -> Caller:
    """Return what a credential allows; raises as `TokenStore.caller` and `SessionTokens.owner` do."""
    if is_session_token(credential) and settings().token_issuer:
        return Caller(_sessions().owner(credential.token, now))
    return _tokens().caller(credential, now)


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON; Lambda's context
    """Answer one event.

    Args:
        event: API Gateway's REST proxy event, or a direct one as `DirectEvent` describes.
        context: Lambda's context. `None`, for a call outside Lambda, means no deadline.

    Returns:
        A proxy response for a proxy event, the envelope itself for a direct one. Errors are returned as envelopes too.
    """
    with _deadline(context):
        if isinstance(event, dict) and "requestContext" in event and "httpMethod" in event:
            return _http(event, context)
        return _direct(event, context)


def _deadline(context: Any) -> Any:  # noqa: ANN401  # Lambda's context; a context manager
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    if remaining is None:
        return nullcontext()
    return dynamodb.deadline(time.monotonic() + remaining() / 1_000 - _ANSWER_SECONDS)


def _request_id(context: Any) -> str:  # noqa: ANN401  # Lambda's context
    return getattr(context, "aws_request_id", None) or "unknown"


def _http(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # Lambda's context
    request = Request(event)
    log = RequestLog("http", request.request_id or _request_id(context), time.time())
    app.append_context(request=request, log=log)  # type: ignore[no-untyped-call]  # Powertools'
    response = app.resolve(request.proxy_event(), context)
    if request.method == "HEAD":
        response["body"], response["isBase64Encoded"] = "", False
    response["multiValueHeaders"]["X-Request-Id"] = [log.request_id]
    log.write(logger, response["statusCode"])
    return response


@app.route(_PATH, method=_METHODS)
@app.route("/api" + _PATH, method=_METHODS)
def batch_progress(batch_id: str) -> Response[str]:
    """Answer with the progress of a batch."""
    request: Request = app.context["request"]
    log: RequestLog = app.context["log"]
    caller = _caller(request.credential(), log.now)
    # API Gateway does not decode the path. A percent-encoded letter is equivalent to the letter (RFC 3986, 6.2.2.2).
    query = http_query(unquote(batch_id), request.parameters)
    log.batch_id = query.batch_id
    if not caller.may_see(query.batch_id):
        raise BatchNotFound(query.batch_id)
    gzip = request.accepts_gzip()
    asked = Asked(query, caller.owner_id, time.time, log.reads)
    batch = None
    if if_none_match := request.header("if-none-match"):
        found = not_modified(_sources(), asked, if_none_match, gzip=gzip)
        if isinstance(found, NotModified):
            return _not_modified(found)
        batch = found
    answer = full_answer(_sources(), asked, Gzip() if gzip else Identity(), batch)
    log.jobs = answer.jobs
    return _ok(answer, request, Tag.of(answer.batch, query, answer.progress, gzip=gzip))


@app.not_found
def no_route(_: NotFoundError) -> Response[str]:
    """Answer what the router does not match: the page, an invalid batch id, another method or another path.

    Raises:
        MethodNotAllowed: The path is correct, but the method is not.
        RouteNotFound: The path is neither the route's nor the page's.
    """
    request: Request = app.context["request"]
    match = _ROUTE.fullmatch(request.path)
    if match is None:
        from functions.progress import page  # noqa: PLC0415  # only requests for the page need it

        response, app.context["log"].outcome = page.serve(request)
        return response
    if request.method not in _METHODS:
        raise MethodNotAllowed
    return batch_progress(match[1])


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]  # Powertools'
def failed(error: Exception) -> Response[str]:
    """Answer an error with its envelope."""
    log: RequestLog = app.context["log"]
    visible = log.failure(error, logger)
    envelope = error_answer(visible, trace_id(log.request_id), time.time())
    body = msgspec.json.encode(envelope).decode()
    units = max(_large().units(log.batch_id), log.reads.read_units) if log.batch_id else 0
    headers = {**error_headers(visible, units)}
    return Response(envelope.error.status, content_types.APPLICATION_JSON, body, headers=headers)


_PRIVATE: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key, Accept-Encoding"}


def _ok(answer: Answer, request: Request, tag: Tag) -> Response[str]:
    headers: dict[str, str | list[str]] = {**_PRIVATE, "ETag": str(tag), **_retry_after(answer.poll_after)}
    if answer.next_cursor:
        headers["Link"] = request.next_link(answer.next_cursor)
    if answer.body.compressed:
        headers["Content-Encoding"] = "gzip"
    response = Response(HTTPStatus.OK, content_types.APPLICATION_JSON, answer.body.text, headers=headers)
    response.base64_encoded = answer.body.compressed
    return response


def _not_modified(same: NotModified) -> Response[str]:
    headers: dict[str, str | list[str]] = {**_PRIVATE, "ETag": str(same.tag), **_retry_after(same.poll_after)}
    return Response(HTTPStatus.NOT_MODIFIED, body="", headers=headers)


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


def _direct(event: object, context: Any) -> dict[str, Any]:  # noqa: ANN401  # Lambda's context
    log = RequestLog("direct", _request_id(context), time.time())
    try:
        query, owner_id = direct_query(event)
        log.batch_id = query.batch_id
        answer = full_answer(_sources(), Asked(query, owner_id, time.time, log.reads), PlainObject())
        log.jobs = answer.jobs
        envelope: dict[str, Any] = msgspec.json.decode(answer.body.text)
        status: int = HTTPStatus.OK
    except Exception as error:  # noqa: BLE001  # the caller gets an envelope whatever fails
        failure = error_answer(log.failure(error, logger), trace_id(log.request_id), time.time())
        envelope, status = msgspec.to_builtins(failure), failure.error.status
    log.write(logger, status)
    return envelope


if "AWS_LAMBDA_INITIALIZATION_TYPE" in os.environ:
    # Lambda's init phase has more CPU than an invocation: load the certificate authorities here. A wrong configuration
    # is answered with an envelope by each request, which an import that fails could not do.
    with suppress(ConfigurationError):
        _sources()
        _tokens()

# Everything imported so far stays alive: the garbage collector does not have to scan it again.
gc.freeze()
gc.enable()
