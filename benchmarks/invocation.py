"""The inputs of a function: environment variables, and an event of API Gateway."""

from typing import Any, Final

from local_cloud.proxy_event import Pairs, proxy_event

# The headers of events/bearer.json.
_HEADERS: Final = {
    "Accept": "*/*",
    "Authorization": "Bearer demo-token",
    "Host": "abcdef1234.execute-api.eu-central-1.amazonaws.com",
    "User-Agent": "curl/8.7.1",
    "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Proto": "https",
}


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment of a configured function that uses DynamoDB at `endpoint`."""
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
        # Nothing listens there.
        "BATCH_PROGRESS_CHECKS_QUEUE_URL": "http://127.0.0.1:9/checks",
        "PYTHONHASHSEED": "0",
    }


def event(batch_id: str, headers: dict[str, str], query: Pairs = (), method: str = "GET") -> dict[str, Any]:
    """Return API Gateway's event of a request for one batch."""
    path = f"/api/v1/scrape/batch/{batch_id}/progress"
    return proxy_event(method, path, (_HEADERS | headers).items(), query, host=_HEADERS["Host"])
