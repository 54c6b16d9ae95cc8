"""HTTP requests, as API Gateway passes them to the function."""

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from batch_progress.errors import ApiKeyInvalid, AuthenticationRequired, AuthorizationMalformed
from batch_progress.tokens import Credential, Scheme

# The query parameters; others are ignored.
PARAMETERS: Final = frozenset({"status", "limit", "cursor", "include"})
# RFC 9110, section 11.4: a scheme, spaces, a token.
_BEARER: Final = re.compile(r"bearer +([^ ]+)\Z", re.IGNORECASE)
_TRACE_ROOT: Final = re.compile(r"Root=(1-[0-9a-f]{8}-[0-9a-f]{24})")


class Request:
    """A request, from an API Gateway REST proxy event. Values of an unexpected type count as absent.

    Attributes:
        method: In upper case.
        path: Without the stage, and without the base path of a custom domain.
        parameters: The parameters of the query string; if one is repeated, its last value.
        request_id: API Gateway's id of the request.
    """

    def __init__(self, event: Mapping[str, Any]) -> None:
        self.method = _text(event.get("httpMethod")).upper()
        self.path = _path(event)
        self.parameters = {
            name: values[-1]
            for name, values in _multiple(event, "queryStringParameters", "multiValueQueryStringParameters").items()
        }
        self._headers: dict[str, list[str]] = {}
        for name, values in _multiple(event, "headers", "multiValueHeaders").items():
            self._headers.setdefault(name.lower(), []).extend(values)
        context = event.get("requestContext")
        request_id = _text(context.get("requestId")) if isinstance(context, dict) else ""
        # A lone surrogate could not be logged.
        self.request_id = request_id if request_id.isascii() else ""

    def header(self, name: str) -> str | None:
        """Return a header's value, `None` without one. Repeated headers are joined (RFC 9110, section 5.3)."""
        values = self._headers.get(name)
        return None if values is None else ", ".join(values)

    def credential(self) -> Credential:
        """Return the token of the request. If both headers are present, `Authorization` decides.

        Raises:
            AuthenticationRequired: Both headers are missing.
            CredentialRefused: The header is malformed, or is repeated with different values.
        """
        if authorization := self._headers.get("authorization"):
            match = _BEARER.match(authorization[0].strip(" \t"))
            if match is None or _differ(authorization):
                raise AuthorizationMalformed
            return Credential(Scheme.BEARER, match[1])
        if key := self._headers.get("x-api-key"):
            if _differ(key):
                raise ApiKeyInvalid
            return Credential(Scheme.API_KEY, key[0].strip(" \t"))
        raise AuthenticationRequired

    def accepts_gzip(self) -> bool:
        """Whether the client accepts a gzip body (RFC 9110, section 12.5.3)."""
        weights = {}
        for part in (self.header("accept-encoding") or "").lower().split(","):
            coding, _, parameter = part.partition(";")
            weights[coding.strip()] = not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameter)
        return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))

    def accepts_html(self) -> bool:
        """Whether the client names HTML as a format that it accepts: a browser that opens an address does."""
        return bool(
            re.search(r"\btext/html\b(?!\s*;\s*q\s*=\s*0(\.0*)?\s*(,|$))", (self.header("accept") or "").lower())
        )

    def next_link(self, cursor: str) -> str:
        """Return the relative `Link` to the next page, with the request's other known parameters.

        They are valid. Duplicates in a list are dropped, because API Gateway allows 10,240 bytes of headers.
        """
        others = {
            name: ",".join(dict.fromkeys(value.split(",")))
            for name, value in self.parameters.items()
            if name in PARAMETERS and name != "cursor"
        }
        return f'<?{urlencode({"cursor": cursor, **others})}>; rel="next"'

    def proxy_event(self) -> dict[str, Any]:
        """Return the event that the router needs: a method and a path."""
        return {
            "httpMethod": self.method,
            "path": self.path,
            "headers": {},
            "multiValueHeaders": {},
            "requestContext": {"requestId": self.request_id},
        }


def trace_id(request_id: str) -> str:
    """Return the id of the current X-Ray trace, or `request_id` if there is none.

    Lambda sets the variable for requests that X-Ray does not record too.
    """
    header = os.environ.get("_X_AMZN_TRACE_ID", "")
    root = _TRACE_ROOT.search(header)
    return root[1] if root and "Sampled=0" not in header else request_id


def _path(event: Mapping[str, Any]) -> str:
    """Return the path without the base path of a custom domain.

    API Gateway leaves the base path in `path`. The matched resource shows how much of `path` follows it.
    """
    path, resource, parameters = _text(event.get("path")), _text(event.get("resource")), event.get("pathParameters")
    if resource == "/{proxy+}":
        below = _text(parameters.get("proxy")) if isinstance(parameters, dict) else ""
        return f"/{below}" if below and path.rstrip("/").endswith("/" + below.rstrip("/")) else path
    segments = resource.count("/")
    return "/" + "/".join(path.strip("/").split("/")[-segments:]) if segments > 1 else path


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _multiple(event: Mapping[str, Any], single: str, multiple: str) -> dict[str, list[str]]:
    """Return all values by name, from the event's two forms: one value per name, and lists of values."""
    found: dict[str, list[str]] = {}
    several, one = event.get(multiple), event.get(single)
    if isinstance(several, dict):
        for name, values in several.items():
            if isinstance(values, list):
                found[str(name)] = [_text(value) for value in values]
    if isinstance(one, dict):
        for name, value in one.items():
            if not found.get(str(name)):
                found[str(name)] = [_text(value)]
    return {name: values for name, values in found.items() if values}


def _differ(values: list[str]) -> bool:
    return len({value.strip(" \t") for value in values}) > 1
