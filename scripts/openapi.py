"""Generate the OpenAPI document from the models that the code encodes and validates, and from the template."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from batch_progress import errors
from batch_progress.model import DetailedJob, Job
from batch_progress.table import ID_PATTERN
from functions.progress import envelope
from functions.progress.parameters import INCLUDES, MOST_JOBS, HttpParameters
from functions.progress.schema import ErrorAnswer, ProgressAnswer
from local_cloud.template import read

ROOT = Path(__file__).parent.parent
PATHS = ("/api/v1/scrape/batch/{batch_id}/progress", "/v1/scrape/batch/{batch_id}/progress")
_TRACE = "1-67891233-abcdef012345678912345678"
_MOMENT = 1_734_345_062  # 2024-12-16T10:31:02Z

_EXAMPLE = {
    "success": True,
    "data": {
        "batch_id": "batch_xyz789",
        "total_urls": 1,
        "completed": 1,
        "failed": 0,
        "pending": 0,
        "total_items_extracted": 25,
        "estimated_completion": "2024-12-16T10:35:00Z",
        "jobs": [
            {
                "job_id": "job_abc123",
                "url": "https://example.com/page1",
                "status": "completed",
                "items_extracted": 25,
            },
        ],
    },
}

# Every error of the function, with example values.
_ERRORS = (
    errors.AuthenticationRequired(),
    errors.TokenInvalid(),
    errors.TokenExpired(),
    errors.TokenMissingSubject(),
    errors.ApiKeyInvalid(),
    errors.ApiKeyExpired(),
    errors.ApiKeyDeactivated(),
    errors.BatchNotFound("batch_xyz789"),
    envelope.RouteNotFound(),
    envelope.MethodNotAllowed(),
    errors.InvalidRequest(limit=f"must be a whole number from 0 to {MOST_JOBS}"),
    errors.BatchProgressError(),
    errors.ServiceUnavailable(),
)

_HEADERS = {
    "ETag": ("Identifies this answer; send it as `If-None-Match`.", {"type": "string"}),
    "Cache-Control": ("Whether the answer may be stored.", {"type": "string"}),
    "Retry-After": (
        "Seconds, 1 to 60, to wait before the next request.",
        {"type": "integer", "minimum": 1, "maximum": 60},
    ),
    "Vary": ("The request headers that the answer depends on.", {"type": "string"}),
    "X-Request-Id": ("Identifies this request in the logs of the service.", {"type": "string"}),
    "Link": ("The next page, if there is one.", {"type": "string"}),
    "Content-Encoding": ("`gzip` if the body is compressed.", {"type": "string", "enum": ["gzip"]}),
    "WWW-Authenticate": (
        "How to authenticate (RFC 6750); API Gateway renames it to `x-amzn-Remapped-WWW-Authenticate`.",
        {"type": "string"},
    ),
    "Allow": ("The methods of this route.", {"type": "string"}),
}
_ON_ERRORS = {401: ("WWW-Authenticate",), 405: ("Allow",), 429: ("Retry-After",), 503: ("Retry-After",)}
_STATUS_TEXTS = {
    401: "No credentials, or no valid ones.",
    403: "Rejected by the gateway.",
    404: "The caller has no such batch, or the path does not exist.",
    405: "The route does not support this method.",
    413: "The request is too large.",
    415: "The request's media type is not supported.",
    422: "A parameter is not valid; `details` names it and the reason.",
    429: "Too many requests.",
    500: "An internal error of the service.",
    502: "The function failed.",
    503: "The service is temporarily unavailable.",
    504: "The function timed out.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the HTTP endpoint."""
    _, components = msgspec.json.schema_components(
        (ProgressAnswer, ErrorAnswer, Job, DetailedJob),
        ref_template="#/components/schemas/{name}",
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Batch progress",
            "version": project["version"],
            "description": "How far is my scrape batch, and when will it be done?",
        },
        "servers": [
            {"url": "http://127.0.0.1:3000", "description": "`make run`"},
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com/prod",
                "description": "A deployed stack: its output `ApiUrl`.",
                "variables": {"api": {"default": "api-id"}, "region": {"default": "eu-central-1"}},
            },
        ],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": {
            path: {
                "parameters": _parameters(),
                "get": _operation(f"progress{number}", "The progress of a batch, and when it will be done", body=True),
                "head": _operation(f"progressHead{number}", "The headers of the answer to GET", body=False),
            }
            for number, path in enumerate(PATHS, start=1)
        },
        "components": {
            "schemas": components,
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Takes precedence over `X-API-Key`."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _parameters() -> list[dict[str, Any]]:
    fields = HttpParameters.model_json_schema()["properties"]
    texts = {name: field["description"] for name, field in fields.items()}
    statuses = _ref("Job", "properties", "status", "enum")
    return [
        _parameter("batch_id", "path", texts, {"type": "string", "pattern": f"^{ID_PATTERN}$"}, example="batch_xyz789"),
        _parameter(
            "status", "query", texts, {"type": "array", "minItems": 1, "items": {"type": "string", "enum": statuses}}
        ),
        _parameter("limit", "query", texts, {"type": "integer", "minimum": 0, "maximum": MOST_JOBS}),
        _parameter("cursor", "query", texts, {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,4096}$"}),
        _parameter(
            "include",
            "query",
            texts,
            {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(INCLUDES)}},
        ),
        _parameter(
            "If-None-Match",
            "header",
            {"If-None-Match": "The `ETag` of an earlier answer; the answer is `304` while no change is known."},
            {"type": "string"},
        ),
    ]


def _ref(name: str, *path: str) -> list[str]:
    _, components = msgspec.json.schema_components((Job,), ref_template="#/components/schemas/{name}")
    found: Any = components[name]
    for step in path:
        found = found[step]
    return list(found)


def _parameter(
    name: str,
    place: str,
    texts: dict[str, str],
    schema: dict[str, Any],
    **more: str,
) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name, "in": place, "description": texts[name], "schema": schema, **more}
    if place == "path":
        parameter["required"] = True
    if schema["type"] == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter


def _operation(operation_id: str, summary: str, *, body: bool) -> dict[str, Any]:
    known = ("ETag", "Cache-Control", "Retry-After", "Vary", "X-Request-Id")
    responses: dict[str, Any] = {
        "200": {
            "description": "The progress of the batch.",
            "headers": _headers((*known, "Link", "Content-Encoding")),
            "content": _content("ProgressAnswer", {"published": _EXAMPLE}),
        },
        "304": {
            "description": "No change is known since the answer with this `ETag`.",
            "headers": _headers(known),
        },
    }
    for status, examples in sorted(_error_examples().items()):
        responses[str(status)] = {
            "description": _STATUS_TEXTS[status],
            "headers": _headers(("Cache-Control", "X-Request-Id", *_ON_ERRORS.get(status, ()))),
            "content": _content("ErrorAnswer", examples),
        }
    if not body:
        for response in responses.values():
            response.pop("content", None)
    return {"operationId": operation_id, "summary": summary, "responses": responses}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _content(schema: str, examples: dict[str, Any]) -> dict[str, Any]:
    return {
        "application/json": {
            "schema": {"$ref": f"#/components/schemas/{schema}"},
            "examples": {name: {"value": value} for name, value in examples.items()},
        },
    }


def _error_examples() -> dict[int, dict[str, Any]]:
    """Return an example of each error by status and code: the function's, then the gateway's own."""
    examples: dict[int, dict[str, Any]] = {}
    for error in _ERRORS:
        told = envelope.error_answer(error, _TRACE, _MOMENT)
        examples.setdefault(told.error.status, {})[error.code] = msgspec.to_builtins(told)
    for response in read()["Resources"]["Api"]["Properties"]["GatewayResponses"].values():
        text = response["ResponseTemplates"]["application/json"].replace("$context.xrayTraceId", _TRACE)
        told = json.loads(text)
        examples.setdefault(told["error"]["status"], {}).setdefault(told["error"]["code"], told)
    return examples
