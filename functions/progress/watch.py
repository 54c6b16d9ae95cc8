"""The page on which a person watches a batch: one file that holds no data and asks the API as any client does.

Read and hashed when it is first asked for; whoever asks for progress alone never imports this.
"""

import base64
import hashlib
import os
import re
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response

from batch_progress.errors import ConfigurationError, InvalidRequest
from batch_progress.table import ID_PATTERN, ID_RULE
from functions.progress.coding import Gzip, Identity
from functions.progress.envelope import MethodNotAllowed, RouteNotFound
from functions.progress.http import Request

_ROUTE: Final = re.compile(r"/watch/([^/]+)/?")
_BATCH_ID: Final = re.compile(ID_PATTERN)
_INLINE: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def page(request: Request) -> Response[str]:
    """Answer with the page; it is the same for every batch.

    Raises:
        RouteNotFound: It is not here, or left out of this deployment.
        MethodNotAllowed: It is read only.
        InvalidRequest: The address names what cannot be a batch.
    """
    match = _ROUTE.fullmatch(request.path)
    if match is None or not _served():
        raise RouteNotFound
    if request.method not in {"GET", "HEAD"}:
        raise MethodNotAllowed
    if not _BATCH_ID.fullmatch(unquote(match[1])):
        raise InvalidRequest(batch_id=ID_RULE)
    written = (Gzip() if request.accepts_gzip() else Identity()).write(_content())
    coding = {"Content-Encoding": "gzip"} if written.compressed else {}
    response = Response(HTTPStatus.OK, "text/html; charset=utf-8", written.text, headers={**_headers(), **coding})
    response.base64_encoded = written.compressed
    return response


def _served() -> bool:
    setting = os.environ.get("BATCH_PROGRESS_WATCH_PAGE", "true")
    if setting not in {"true", "false"}:
        raise ConfigurationError("BATCH_PROGRESS_WATCH_PAGE must be true or false")
    return setting == "true"


@cache
def _content() -> bytes:
    return Path(__file__).with_name("watch.html").read_bytes()


@cache
def _headers() -> dict[str, str]:
    allowed = {name: _source(text) for name, text in _INLINE.findall(_content())}
    policy = (
        "default-src 'none'",
        f"script-src {allowed[b'script']}",
        f"style-src {allowed[b'style']}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # A batch's URLs come from outside: nothing here may ever make markup or code of a text.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        # The same for everybody, and a new version is not worth more than this wait.
        "Cache-Control": "public, max-age=300",
        "Vary": "Accept-Encoding",
    }


def _source(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
