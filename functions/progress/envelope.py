"""Errors as clients see them: one envelope, and the one table that knows of HTTP's statuses."""

from datetime import UTC, datetime
from typing import Final

from batch_progress.errors import (
    AuthenticationError,
    AuthenticationRequired,
    BatchProgressError,
    ServiceUnavailable,
)
from functions.progress.schema import ErrorAnswer, ErrorView


class RouteNotFound(BatchProgressError):
    """There is nothing at this path."""

    code = "ROUTE_NOT_FOUND"
    message = "There is nothing at this path."
    system_message = "Route not found"


class MethodNotAllowed(BatchProgressError):
    """The route is there, and does not take this method."""

    code = "METHOD_NOT_ALLOWED"
    message = "This route takes GET and HEAD."
    system_message = "Method not allowed"


STATUS: Final = {
    "AUTHENTICATION_REQUIRED": 401,
    "TOKEN_INVALID": 401,
    "TOKEN_EXPIRED": 401,
    "TOKEN_MISSING_SUBJECT": 401,
    "INVALID_API_KEY": 401,
    "API_KEY_EXPIRED": 401,
    "API_KEY_DEACTIVATED": 401,
    "BATCH_NOT_FOUND": 404,
    "ROUTE_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "VALIDATION_ERROR": 422,
    "INTERNAL_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503,
}
_FIRST_SERVER_ERROR: Final = 500
_REALM: Final = 'Bearer realm="batch-progress"'
_RETRY_AFTER_SECONDS: Final = 2


def error_answer(error: BatchProgressError, trace_id: str, now: float) -> ErrorAnswer:
    """Tell a caller of `error`.

    Args:
        error: What went wrong.
        trace_id: Finds the request in our traces and logs.
        now: Epoch seconds.
    """
    status = STATUS[error.code]
    view = ErrorView(
        code=error.code,
        message=error.message,
        system_message=error.system_message,
        type="server_error" if status >= _FIRST_SERVER_ERROR else "client_error",
        status=status,
        details=dict(error.details),
        trace_id=trace_id,
        timestamp=rfc3339(int(now)),
    )
    return ErrorAnswer(success=False, error=view)


def error_headers(error: BatchProgressError) -> dict[str, str]:
    """Return the headers that go with an error, beside those of every answer."""
    return {"Cache-Control": "no-store", **_headers(error)}


def _headers(error: BatchProgressError) -> dict[str, str]:
    match error:
        case AuthenticationRequired():
            # RFC 6750, section 3: a request without credentials is told no error code.
            return {"WWW-Authenticate": _REALM}
        case AuthenticationError():
            return {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        case MethodNotAllowed():
            return {"Allow": "GET, HEAD"}
        case ServiceUnavailable():
            return {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    return {}


def rfc3339(epoch: int) -> str:
    """Write epoch seconds as `2024-12-16T10:31:02Z`."""
    return datetime.fromtimestamp(epoch, UTC).isoformat().removesuffix("+00:00") + "Z"
