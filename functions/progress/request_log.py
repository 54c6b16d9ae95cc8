"""The log line of a request.

CloudWatch Logs makes the metrics from these lines: template.yaml has a metric filter for each. The warning about
malformed items is a metric by itself.
"""

import heapq
import itertools
import os
import time
from typing import Final

import msgspec
from aws_lambda_powertools import Logger

from batch_progress.dynamodb import RequestFailed
from batch_progress.errors import (
    BatchProgressError,
    BatchTooLarge,
    ConfigurationError,
    CountUnderWay,
    ServiceUnavailable,
)
from batch_progress.store import ReadStats

# A log line lists at most this many keys of malformed items; its metric counts all of them.
_MOST_KEYS = 20
_MALFORMED: Final = "MalformedItems"
# CloudWatch's embedded metric format: the line with the keys is the metric too, wherever it is logged.
_MALFORMED_METRIC: Final = {
    "Namespace": os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "BatchProgress"),
    "Dimensions": [[]],
    "Metrics": [{"Name": _MALFORMED, "Unit": "Count"}],
}
_VERSION: Final = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "local")
_encoder: Final = msgspec.json.Encoder()
# Counts the requests of this process: the first one is the cold start.
_requests: Final = itertools.count()


class RequestLog:
    """Collects what is logged about one request.

    Attributes:
        kind: `http` or `direct`.
        request_id: API Gateway's id, or Lambda's for a direct call.
        now: When the request arrived, in epoch seconds.
        reads: What was read from the jobs table.
        batch_id: The requested batch, `None` until its id is known to be valid.
        jobs: The number of jobs that the answer lists.
        outcome: `ok`, or what went wrong: the code of the error in the answer, or a more precise name.
        failed_request: For a `503` caused by DynamoDB, the failure of its last attempt; otherwise `None`.
    """

    def __init__(self, kind: str, request_id: str, now: float) -> None:
        self.kind = kind
        self.request_id = request_id
        self.now = now
        self.reads = ReadStats()
        self.batch_id: str | None = None
        self.jobs = 0
        self.outcome = "ok"
        self.failed_request: dict[str, object] | None = None
        self._began = time.perf_counter()

    def failure(self, error: Exception, logger: Logger) -> BatchProgressError:
        """Return the error that the caller sees. Internal and configuration errors are logged with a traceback."""
        visible = error if isinstance(error, BatchProgressError) else BatchProgressError()
        self.outcome = visible.code
        if isinstance(visible, BatchTooLarge | CountUnderWay):
            self.outcome = visible.system_message.upper().replace(" ", "_")
        cause = error.__cause__
        if isinstance(error, ServiceUnavailable) and isinstance(cause, RequestFailed):
            self.failed_request = {
                "reason": cause.reason,
                "error": cause.code,
                "http_status": cause.status,
                "attempts": cause.attempts,
            }
        if not isinstance(error, BatchProgressError) or isinstance(error, ConfigurationError):
            logger.error(
                str(error) or "Unexpected failure",
                exc_info=(type(error), error, error.__traceback__),
                extra={"request_id": self.request_id},
            )
        return visible

    def write(self, logger: Logger, status: int) -> None:
        """Write the request's log line, and a warning for what was wrong with its batch."""
        if malformed := self.reads.malformed:
            logger.warning(
                "malformed items",
                extra={
                    "batch_id": self.batch_id,
                    "keys": heapq.nsmallest(_MOST_KEYS, malformed),
                    _MALFORMED: len(malformed),
                    "_aws": {"Timestamp": int(self.now * 1_000), "CloudWatchMetrics": [_MALFORMED_METRIC]},
                },
            )
        line = {
            "level": "INFO",
            "message": "request",
            "request_id": self.request_id,
            "version": _VERSION,
            # 1 for the first request of a process.
            "cold_start": 0 if next(_requests) else 1,
            "kind": self.kind,
            "status": status,
            "outcome": self.outcome,
            "batch_id": self.batch_id,
            "jobs": self.jobs,
            "pages": self.reads.pages,
            "count": self.reads.count,
            "read_units": self.reads.read_units,
            "milliseconds": round((time.perf_counter() - self._began) * 1_000, 2),
            "dynamodb": self.failed_request,
        }
        # By msgspec, because every request writes it: Powertools' logger takes twenty times as long.
        print(_encoder.encode({name: value for name, value in line.items() if value is not None}).decode(), flush=True)  # noqa: T201  # to CloudWatch Logs
        if unkept := self.reads.unkept:
            logger.warning("count not kept", extra={"batch_id": self.batch_id, "reason": unkept})
