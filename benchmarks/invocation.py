"""What Lambda hands to a function: its environment, its context, and API Gateway's event."""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

EVENT: Final = Path(__file__).resolve().parent.parent / "events" / "bearer.json"
_SECONDS: Final = 120


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables of a function that is configured, with DynamoDB at `endpoint`."""
    return {
        "AWS_ACCESS_KEY_ID": "canned",
        "AWS_SECRET_ACCESS_KEY": "canned",
        "AWS_SESSION_TOKEN": "canned",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "AWS_LAMBDA_FUNCTION_NAME": "progress",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "_X_AMZN_TRACE_ID": "Root=1-67891233-abcdef012345678912345678;Sampled=0",
        "BATCH_PROGRESS_JOBS_TABLE": "jobs",
        "BATCH_PROGRESS_TOKENS_TABLE": "tokens",
        "PYTHONHASHSEED": "0",
    }


def context() -> Any:  # noqa: ANN401  # Lambda's context has no type of its own
    """Return the context of one invocation."""
    ends = time.monotonic() + _SECONDS
    return SimpleNamespace(
        function_name="progress",
        function_version="1",
        memory_limit_in_mb=1024,
        tenant_id=None,
        invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:progress:live",
        aws_request_id="1b2c3d4e-0000-4000-8000-000000000000",
        get_remaining_time_in_millis=lambda: int((ends - time.monotonic()) * 1_000),
    )


def event(batch_id: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return API Gateway's event for a GET of one batch."""
    made: dict[str, Any] = json.loads(EVENT.read_bytes())
    made["path"] = f"/api/v1/scrape/batch/{batch_id}/progress"
    made["pathParameters"] = {"batch_id": batch_id}
    made["requestContext"]["path"] = "/prod" + made["path"]
    made["headers"] |= headers
    made["multiValueHeaders"] |= {name: [value] for name, value in headers.items()}
    return made


def main() -> None:
    """Answer once, as a cold function does: `invocation.py MODULE BATCH_ID`."""
    handler = import_module(sys.argv[1]).handler
    answer = json.dumps(handler(event(sys.argv[2], {}), context()))
    if json.loads(answer)["statusCode"] != 200:  # noqa: PLR2004  # HTTP's OK
        sys.exit(answer)
    # Lambda freezes the process here; taking it down is no part of a cold start.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
