"""Read every field with the client that openapi-python-client generates."""

import json
import sys
from datetime import datetime
from typing import Any

from batch_progress_client import AuthenticatedClient
from batch_progress_client.api.progress import (
    get_batch_progress,
    get_batch_progress_by_short_path,
    get_batch_progress_headers,
    get_batch_progress_headers_by_short_path,
)
from batch_progress_client.models import ErrorResponse, Job, ProgressResponse
from batch_progress_client.types import Unset

OPERATIONS = {
    "getBatchProgress": get_batch_progress,
    "getBatchProgressByShortPath": get_batch_progress_by_short_path,
    "getBatchProgressHeaders": get_batch_progress_headers,
    "getBatchProgressHeadersByShortPath": get_batch_progress_headers_by_short_path,
}


def moment(value: datetime | None) -> str | None:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value else None


def known[ValueT](value: ValueT | Unset) -> ValueT | None:
    return None if isinstance(value, Unset) else value


def progress(answer: ProgressResponse) -> dict[str, Any]:
    data = answer.data
    estimate, summary = known(data.estimate), known(data.summary)
    return {
        "success": answer.success,
        "data": {
            "batch_id": data.batch_id,
            "total_urls": data.total_urls,
            "completed": data.completed,
            "failed": data.failed,
            "pending": data.pending,
            "total_items_extracted": data.total_items_extracted,
            "estimated_completion": moment(data.estimated_completion),
            "jobs": [job(one) for one in data.jobs],
            "estimate": estimate
            and {
                "basis": estimate.basis.value,
                "earliest": moment(estimate.earliest),
                "latest": moment(estimate.latest),
                "confidence": estimate.confidence,
            },
            "summary": summary
            and {
                "statuses": {
                    "pending": summary.statuses.pending,
                    "processing": summary.statuses.processing,
                    "completed": summary.statuses.completed,
                    "failed": summary.statuses.failed,
                    "cancelled": summary.statuses.cancelled,
                },
                "failures": [{"error_code": one.error_code, "jobs": one.jobs} for one in summary.failures],
                "as_of": moment(summary.as_of),
            },
            "next_cursor": known(data.next_cursor),
        },
    }


def job(one: Job) -> dict[str, Any]:
    return {
        "job_id": one.job_id,
        "url": one.url,
        "status": one.status.value,
        "items_extracted": one.items_extracted,
        "started_at": known(one.started_at),
        "finished_at": known(one.finished_at),
        "error_code": known(one.error_code),
        "error_message": known(one.error_message),
    }


def failure(answer: ErrorResponse) -> dict[str, Any]:
    error = answer.error
    return {
        "success": answer.success,
        "error": {
            "code": error.code,
            "message": error.message,
            "system_message": error.system_message,
            "type": error.type_.value,
            "status": error.status,
            "details": {name: error.details[name] for name in error.details.additional_keys},
            "trace_id": error.trace_id,
            "timestamp": moment(error.timestamp),
        },
    }


def ask(address: str, request: dict[str, Any]) -> dict[str, Any]:
    bearer = request["scheme"] == "bearer"
    client = AuthenticatedClient(
        base_url=address,
        token=request["token"],
        prefix="Bearer" if bearer else "",
        auth_header_name="Authorization" if bearer else "X-API-Key",
    )
    response = OPERATIONS[request["operation"]].sync_detailed(client=client, **request["parameters"])
    body: dict[str, Any] | None
    match response.parsed:
        case ProgressResponse():
            body = progress(response.parsed)
        case ErrorResponse():
            body = failure(response.parsed)
        case _:
            body = None
    return {"status": response.status_code.value, "etag": response.headers.get("ETag"), "body": body}


if __name__ == "__main__":
    print(json.dumps([ask(sys.argv[1], request) for request in json.load(sys.stdin)]))
