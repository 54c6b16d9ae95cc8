"""Read every field with the Python client that OpenAPI Generator generates."""

import json
import sys
from datetime import datetime
from typing import Any

from openapi_client import ApiClient, ApiException, Configuration, ErrorResponse, Job, ProgressApi, ProgressResponse

OPERATIONS = {
    "getBatchProgress": ProgressApi.get_batch_progress_with_http_info,
    "getBatchProgressByShortPath": ProgressApi.get_batch_progress_by_short_path_with_http_info,
    "getBatchProgressHeaders": ProgressApi.get_batch_progress_headers_with_http_info,
    "getBatchProgressHeadersByShortPath": ProgressApi.get_batch_progress_headers_by_short_path_with_http_info,
}


def moment(value: datetime | None) -> str | None:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value else None


def progress(answer: ProgressResponse) -> dict[str, Any]:
    data = answer.data
    estimate, summary = data.estimate, data.summary
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
            "next_cursor": data.next_cursor,
        },
    }


def job(one: Job) -> dict[str, Any]:
    return {
        "job_id": one.job_id,
        "url": one.url,
        "status": one.status.value,
        "items_extracted": one.items_extracted,
        "started_at": one.started_at,
        "finished_at": one.finished_at,
        "error_code": one.error_code,
        "error_message": one.error_message,
    }


def failure(answer: ErrorResponse) -> dict[str, Any]:
    error = answer.error
    return {
        "success": answer.success,
        "error": {
            "code": error.code,
            "message": error.message,
            "system_message": error.system_message,
            "type": error.type,
            "status": error.status,
            "details": dict(error.details),
            "trace_id": error.trace_id,
            "timestamp": moment(error.timestamp),
        },
    }


def ask(address: str, request: dict[str, Any]) -> dict[str, Any]:
    configuration = Configuration(host=address)
    if request["scheme"] == "bearer":
        configuration.access_token = request["token"]
    else:
        configuration.api_key["apiKey"] = request["token"]
    with ApiClient(configuration) as client:
        try:
            response = OPERATIONS[request["operation"]](ProgressApi(client), **request["parameters"])
        except ApiException as error:
            body = failure(error.data) if error.data else None
            return {"status": error.status, "etag": error.headers.get("ETag"), "body": body}
    body = progress(response.data) if response.data else None
    return {"status": response.status_code, "etag": response.headers.get("ETag"), "body": body}


if __name__ == "__main__":
    print(json.dumps([ask(sys.argv[1], request) for request in json.load(sys.stdin)]))
