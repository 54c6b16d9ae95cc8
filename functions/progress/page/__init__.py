"""The page that shows a batch in a browser: a static file whose script calls the API like any other client.

`make page` builds it from `page/` in the repository. `app.py` imports this package only when the page is requested.
"""

import base64
import gzip
import re
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response

from batch_progress.errors import InvalidRequest
from batch_progress.settings import page_is_served
from batch_progress.table import ID_PATTERN, ID_RULE
from functions.progress.envelope import STATUS, MethodNotAllowed, RouteNotFound
from functions.progress.http import Request
from functions.progress.page.hashes import SCRIPT, STYLE

_ROUTE: Final = re.compile(r"/watch/([^/]+)/?")
_BELOW: Final = re.compile(r"/watch(/.*)?", re.DOTALL)
_METHODS: Final = frozenset({"GET", "HEAD"})
_BATCH_ID: Final = re.compile(ID_PATTERN)
_POLICY: Final = (
    "default-src 'none'",
    f"script-src {SCRIPT}",
    f"style-src {STYLE}",
    # The page draws its icon.
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # URLs and error messages are untrusted: the page must never turn a string into markup or code.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The page contains no user data, so shared caches may store it. A new version is visible within five minutes.
    "Cache-Control": "public, max-age=300",
    "Vary": "Accept-Encoding",
}


def serve(request: Request) -> tuple[Response[str], str]:
    """Answer with the page, which is the same for every batch.

    A browser gets it for an invalid address too, with the status of the error: the page says what is wrong.

    Returns:
        The response, and `ok` or the code of the error.

    Raises:
        RouteNotFound: The path is not the page's, or this deployment does not serve the page.
        MethodNotAllowed: The method is neither GET nor HEAD.
        InvalidRequest: The batch id in the path is not valid.
        ConfigurationError: `BATCH_PROGRESS_WATCH_PAGE` is not valid.
    """
    if not _BELOW.fullmatch(request.path) or not page_is_served():
        raise RouteNotFound
    try:
        _check(request)
    except (RouteNotFound, InvalidRequest) as error:
        if request.method not in _METHODS or not request.accepts_html():
            raise
        headers = {"Cache-Control": "no-store", "Vary": "Accept, Accept-Encoding"}
        return _page(request, STATUS[error.code], headers), error.code
    return _page(request, HTTPStatus.OK, {}), "ok"


def _check(request: Request) -> None:
    match = _ROUTE.fullmatch(request.path)
    if match is None:
        raise RouteNotFound
    if request.method not in _METHODS:
        raise MethodNotAllowed
    if not _BATCH_ID.fullmatch(unquote(match[1])):
        raise InvalidRequest(batch_id=ID_RULE)


def _page(request: Request, status: int, headers: dict[str, str]) -> Response[str]:
    compressed = request.accepts_gzip()
    body = _compressed() if compressed else _content().decode()
    coding = {"Content-Encoding": "gzip"} if compressed else {}
    response = Response(status, "text/html; charset=utf-8", body, headers={**_HEADERS, **headers, **coding})
    response.base64_encoded = compressed
    return response


@cache
def _compressed() -> str:
    """Return the page in base64, compressed once and as small as it gets."""
    return base64.b64encode(gzip.compress(_content(), mtime=0)).decode()


@cache
def _content() -> bytes:
    return Path(__file__).with_name("built.html").read_bytes()
