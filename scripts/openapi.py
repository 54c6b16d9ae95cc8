"""Generate the OpenAPI document from the models that the code encodes and validates, and from the template.

The document keeps to what generators of clients understand; tests/clients generates four. It is OpenAPI 3.0, which all
of them know: OpenAPI Generator calls its support of 3.1 beta.
"""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from batch_progress import errors
from batch_progress.model import DetailedJob, Job
from batch_progress.progress import CONFIDENCE
from batch_progress.table import ID_PATTERN, JobStatus
from functions.progress import envelope
from functions.progress.parameters import INCLUDES, MOST_JOBS, HttpParameters
from functions.progress.schema import ErrorResponse, ProgressResponse
from local_cloud.template import read

ROOT = Path(__file__).parent.parent
# Path, and what the operation ids of its methods end with.
PATHS = (
    ("/api/v1/scrape/batch/{batch_id}/progress", ""),
    ("/v1/scrape/batch/{batch_id}/progress", "ByShortPath"),
)
_TRACE = "1-67891233-abcdef012345678912345678"
_REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
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

# The answer to `limit=1&include=details,estimate,summary`.
_FULL_EXAMPLE = {
    "success": True,
    "data": {
        "batch_id": "batch_xyz789",
        "total_urls": 10,
        "completed": 7,
        "failed": 1,
        "pending": 2,
        "total_items_extracted": 245,
        "estimated_completion": "2024-12-16T10:31:24Z",
        "jobs": [
            {
                "job_id": "job_abc123",
                "url": "https://example.com/page1",
                "status": "completed",
                "items_extracted": 25,
                "started_at": "2024-12-16T10:29:51Z",
                "finished_at": "2024-12-16T10:30:03Z",
                "error_code": None,
                "error_message": None,
            },
        ],
        "estimate": {
            "basis": "observed",
            "earliest": "2024-12-16T10:31:11Z",
            "latest": "2024-12-16T10:31:33Z",
            "confidence": CONFIDENCE,
        },
        "summary": {
            "statuses": {"pending": 1, "processing": 1, "completed": 7, "failed": 1, "cancelled": 0},
            "failures": [{"error_code": "TIMEOUT", "jobs": 1}],
            "as_of": "2024-12-16T10:31:02Z",
        },
        "next_cursor": "eyJ2Ijo0LCJhIjoiam9iX2FiYzEyMyJ9",
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
    "ETag": (
        "Identifies this answer. Send it as `If-None-Match` with the next request.",
        {"type": "string"},
    ),
    "Cache-Control": ("Whether the answer may be stored.", {"type": "string"}),
    "Retry-After": (
        "Seconds to wait before the next request. An answer about a finished batch has none.",
        {"type": "integer", "minimum": 1, "maximum": 60},
    ),
    "Vary": ("The request headers that the answer depends on.", {"type": "string"}),
    "X-Request-Id": ("Identifies this request in the logs of the service.", {"type": "string"}),
    "Link": (
        'The relative address of the next page, if there is one, with `rel="next"` (RFC 8288).',
        {"type": "string"},
    ),
    "Content-Encoding": ("`gzip` if the body is compressed.", {"type": "string", "enum": ["gzip"]}),
    "WWW-Authenticate": (
        "How to authenticate (RFC 6750). API Gateway renames it to `x-amzn-Remapped-WWW-Authenticate`.",
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
    415: "The request's media type is not supported.",
    422: "A parameter is not valid; `details` names it and the reason.",
    429: "Too many requests. Wait as long as `Retry-After` says.",
    500: "An internal error of the service.",
    502: "The function failed. Try again.",
    503: "The service is temporarily unavailable. Wait as long as `Retry-After` says.",
    504: "The function timed out. Try again.",
}


_DESCRIPTION = (
    "How far is my scrape batch, and when will it be done?\n\n"
    "To follow a batch, repeat the request with `limit=0` and with the last `ETag` as `If-None-Match`, after the "
    "seconds of `Retry-After`, until `pending` is 0. A `304` means that no change is known.\n\n"
    "Ignore fields that you do not know, and treat an unknown error code like its HTTP status."
)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of the HTTP endpoint."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.0.3",
        "info": {"title": "Batch progress", "version": project["version"], "description": _DESCRIPTION},
        "servers": [
            {"url": "http://127.0.0.1:3000", "description": "The local server that `make run` starts."},
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com/prod",
                "description": "A deployed stack: its output `ApiUrl`.",
                "variables": {
                    "api": {"default": "api-id", "description": "The id of the API."},
                    "region": {"default": "eu-central-1", "description": "The region of the stack."},
                },
            },
        ],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": "progress", "description": "The progress of a batch of scrape jobs."}],
        "paths": {
            path: {
                "parameters": _parameters(),
                "get": _operation(f"getBatchProgress{suffix}", _GET + _short(suffix), body=True),
                "head": _operation(f"getBatchProgressHeaders{suffix}", _HEAD + _short(suffix), body=False),
            }
            for path, suffix in PATHS
        },
        "components": {
            "schemas": _schemas(),
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token or a session token (JWT). Takes precedence over `X-API-Key`.",
                },
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API token."},
            },
        },
    }


_GET = "The progress of a batch, and when it will be done"
_HEAD = "The headers of the answer to GET"


def _short(suffix: str) -> str:
    return ", at the path without `/api`" if suffix else ""


def _schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        (ProgressResponse, ErrorResponse, Job, DetailedJob),
        ref_template="#/components/schemas/{name}",
    )
    # One schema for both kinds of jobs: of two alternatives, generated clients pick the one without the details.
    detailed = components.pop("DetailedJob")["properties"]
    detailed["status"] = {"description": detailed["status"]["description"], "$ref": "#/components/schemas/JobStatus"}
    components["Job"]["properties"] = detailed
    components["JobStatus"]["enum"] = list(JobStatus)  # in their own order
    schemas: dict[str, Any] = _in_openapi_3_0(components)
    return schemas


def _in_openapi_3_0(schema: Any) -> Any:  # noqa: ANN401  # any part of a schema of JSON Schema 2020-12
    """Rewrite what OpenAPI 3.0 expresses in another way, or what generators of clients do not understand."""
    if isinstance(schema, list):
        return [_in_openapi_3_0(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    match schema:
        case {"anyOf": [dict(some), {"type": "null"}], **rest}:
            schema = {**some, **rest, "nullable": True}
        case {"$ref": reference, **rest} if rest:
            schema = {**rest, "allOf": [{"$ref": reference}]}
        case {"enum": [bool()], **rest}:  # generators have no type for an enumeration of booleans
            schema = {**rest, "type": "boolean"}
        case {"enum": _}:
            schema = {**schema, "type": "string"}
        case {"properties": _, "additionalProperties": _, **rest}:  # a class has fields or is a mapping, not both
            schema = {**rest, "properties": schema["properties"]}
    if "examples" in schema:
        [example] = schema["examples"]
        schema = {key: part for key, part in schema.items() if key != "examples"} | {"example": example}
    return {key: _in_openapi_3_0(part) for key, part in schema.items()}


def _parameters() -> list[dict[str, Any]]:
    fields = HttpParameters.model_json_schema()["properties"]
    texts = {name: field["description"] for name, field in fields.items()}
    return [
        _parameter("batch_id", "path", texts, {"type": "string", "pattern": f"^{ID_PATTERN}$"}, "batch_xyz789"),
        _parameter("status", "query", texts, _some_of(JobStatus), "failed,cancelled"),
        _parameter("limit", "query", texts, {"type": "integer", "minimum": 0, "maximum": MOST_JOBS}, 0),
        _parameter("cursor", "query", texts, {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,4096}$"}),
        _parameter("include", "query", texts, _some_of(INCLUDES), "details,estimate,summary"),
        _parameter(
            "If-None-Match",
            "header",
            {"If-None-Match": "The `ETag` of an earlier answer; the answer is `304` while no change is known."},
            {"type": "string"},
        ),
    ]


def _some_of(names: Iterable[str]) -> dict[str, Any]:
    """Return the schema of names separated by commas.

    Not an array: some generated clients repeat the parameter for each value of an array, whatever the document says,
    and of a repeated parameter only the last value counts.
    """
    one = f"({'|'.join(names)})"
    return {"type": "string", "pattern": f"^{one}(,{one})*$"}


def _parameter(
    name: str,
    place: str,
    texts: dict[str, str],
    schema: dict[str, Any],
    example: str | int | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "description": texts[name],
        "schema": schema,
        **({} if example is None else {"example": example}),
        **({"required": True} if place == "path" else {}),
    }


def _operation(operation_id: str, summary: str, *, body: bool) -> dict[str, Any]:
    known = ("ETag", "Cache-Control", "Retry-After", "Vary", "X-Request-Id")
    responses: dict[str, Any] = {
        "200": {
            "description": "The progress of the batch.",
            "headers": _headers((*known, "Link", "Content-Encoding")),
            "content": _content("ProgressResponse", {"published": _EXAMPLE, "with_everything": _FULL_EXAMPLE}),
        },
        "304": {
            "description": "No change is known since the answer with this `ETag`.",
            "headers": _headers(known),
        },
    }
    # AWS does not let us customize this one, so it is not the envelope.
    responses["413"] = {
        "description": "The headers exceed 10,240 bytes, or the body 10 MB. The body is API Gateway's own."
    }
    for status, examples in sorted(_error_examples().items()):
        responses[str(status)] = {
            "description": _STATUS_TEXTS[status],
            "headers": _headers(("Cache-Control", "X-Request-Id", *_ON_ERRORS.get(status, ()))),
            "content": _content("ErrorResponse", examples),
        }
    responses = dict(sorted(responses.items()))
    if not body:
        for response in responses.values():
            response.pop("content", None)
    return {"operationId": operation_id, "summary": summary, "tags": ["progress"], "responses": responses}


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
        text = response["ResponseTemplates"]["application/json"].replace("$context.requestId", _REQUEST_ID)
        told = json.loads(text)
        examples.setdefault(told["error"]["status"], {}).setdefault(told["error"]["code"], told)
    return examples
