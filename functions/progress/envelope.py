"""The envelope of errors, and the HTTP status of each error code."""

import random
from datetime import UTC, datetime
from typing import Final

from batch_progress.errors import (
    AuthenticationError,
    AuthenticationRequired,
    BatchProgressError,
    BatchTooLarge,
    ServiceUnavailable,
)
from functions.progress.schema import ApiError, ErrorResponse


class RouteNotFound(BatchProgressError):
    """The path does not exist."""

    code = "ROUTE_NOT_FOUND"
    message = "This path does not exist. The progress of a batch is at /api/v1/scrape/batch/{batch_id}/progress."
    system_message = "Route not found"


class MethodNotAllowed(BatchProgressError):
    """The path exists, but does not support the method."""

    code = "METHOD_NOT_ALLOWED"
    message = "This path supports only GET and HEAD."
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
# `Retry-After` of a 503: random, so that clients do not come back together, and longer for larger batches.
_RETRY_AFTER_SECONDS: Final = (1, 5)
_LONGEST_RETRY_AFTER_SECONDS: Final = 60
# Each time a count of the batch costs this many more read units, the interval grows by its own length.
_UNITS_PER_INTERVAL: Final = 250


def error_answer(error: BatchProgressError, trace_id: str, now: float) -> ErrorResponse:
    """Return the envelope of an error.

    Args:
        error: The error.
        trace_id: Identifies the request in traces and logs.
        now: Epoch seconds.
    """
    status = STATUS[error.code]
    body = ApiError(
        code=error.code,
        message=error.message,
        system_message=error.system_message,
        type="server_error" if status >= _FIRST_SERVER_ERROR else "client_error",
        status=status,
        details=dict(error.details),
        trace_id=trace_id,
        timestamp=rfc3339(int(now)),
    )
    return ErrorResponse(success=False, error=body)


def error_headers(error: BatchProgressError, units: float) -> dict[str, str]:
    """Return the headers of an error response, in addition to those of every response.

    Args:
        error: The error.
        units: The read units that a count of the requested batch costs, as far as they are known.
    """
    return {"Cache-Control": "no-store", **_headers(error, units)}


def _headers(error: BatchProgressError, units: float) -> dict[str, str]:
    match error:
        case AuthenticationRequired():
            # RFC 6750, section 3: no `error` attribute if the request had no credentials.
            return {"WWW-Authenticate": _REALM}
        case AuthenticationError():
            return {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        case MethodNotAllowed():
            return {"Allow": "GET, HEAD"}
        case BatchTooLarge():
            return {"Retry-After": str(_LONGEST_RETRY_AFTER_SECONDS)}
        case ServiceUnavailable():
            return {"Retry-After": str(_retry_after(units))}
    return {}


def _retry_after(units: float) -> int:
    """Return a random number of seconds, 1 to 60, after which a request that failed may succeed."""
    factor = 1 + units / _UNITS_PER_INTERVAL
    least, most = (min(factor * seconds, _LONGEST_RETRY_AFTER_SECONDS) for seconds in _RETRY_AFTER_SECONDS)
    return round(random.uniform(min(least, most / 2), most))  # noqa: S311  # jitter, not a secret


def rfc3339(epoch: int) -> str:
    """Format epoch seconds as `2024-12-16T10:31:02Z`."""
    return datetime.fromtimestamp(epoch, UTC).isoformat().removesuffix("+00:00") + "Z"
