"""The baseline: the same endpoint as a good developer would write it in an afternoon.

boto3's resource and its paging, a pydantic model for each job, Powertools' resolver with validation. Nothing is slow on
purpose: it reads the same attributes and pages, and caches tokens for the same time. It is independent of the project's
code on purpose, and runs alone in its folder.
"""

import hashlib
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, UnauthorizedError
from aws_lambda_powertools.metrics import MetricUnit
from boto3.dynamodb.conditions import Key
from pydantic import BaseModel, Field

TOKEN_CACHE_SECONDS = 30
ATTRIBUTES = (
    *("sk", "url", "status", "items_extracted", "started_at", "finished_at"),
    *("owner_id", "total_urls", "created_at", "parallel_jobs", "timeout_per_url", "revision", "expires_at"),
)

logger = Logger(service="straightforward")
metrics = Metrics(namespace="Straightforward", service="progress")
app = APIGatewayRestResolver(enable_validation=True)
dynamodb = boto3.resource("dynamodb")
jobs_table = dynamodb.Table(os.environ["BATCH_PROGRESS_JOBS_TABLE"])
tokens_table = dynamodb.Table(os.environ["BATCH_PROGRESS_TOKENS_TABLE"])
tokens: dict[str, tuple[float, dict[str, Any]]] = {}


class JobItem(BaseModel):
    """A job item."""

    sk: str
    url: str
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    items_extracted: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Job(BaseModel):
    """A job in the answer."""

    job_id: str
    url: str
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    items_extracted: int = Field(ge=0)


class Progress(BaseModel):
    """The progress of a batch."""

    batch_id: str
    total_urls: int
    completed: int
    failed: int
    pending: int
    total_items_extracted: int
    estimated_completion: str
    jobs: list[Job]


class ProgressResponse(BaseModel):
    """The envelope."""

    success: bool = True
    data: Progress


def authenticate() -> str:
    """Return the owner of the request's token."""
    scheme, _, token = (app.current_event.headers.get("Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("Authentication required")
    token_hash = hashlib.sha256(token.encode()).hexdigest()
    read_at, item = tokens.get(token_hash, (0.0, {}))
    if time.time() - read_at > TOKEN_CACHE_SECONDS:
        item = tokens_table.get_item(Key={"token_hash": token_hash}).get("Item", {})
        tokens[token_hash] = (time.time(), item)
    if not item or "revoked_at" in item or item.get("expires_at", Decimal("Infinity")) <= time.time():
        raise UnauthorizedError("Invalid token")
    return str(item["owner_id"])


def read(batch_id: str) -> list[dict[str, Any]]:
    """Return all items of a batch."""
    arguments: dict[str, Any] = {
        "KeyConditionExpression": Key("batch_id").eq(batch_id),
        "ProjectionExpression": ",".join(f"#{name}" for name in ATTRIBUTES),
        "ExpressionAttributeNames": {f"#{name}": name for name in ATTRIBUTES},
    }
    answer = jobs_table.query(**arguments)
    found: list[dict[str, Any]] = answer["Items"]
    while "LastEvaluatedKey" in answer:
        answer = jobs_table.query(**arguments, ExclusiveStartKey=answer["LastEvaluatedKey"])
        found.extend(answer["Items"])
    return found


def estimated_completion(batch: dict[str, Any], jobs: list[JobItem], pending: int) -> datetime:
    """Estimate the end: mean duration of ended jobs, times pending jobs, divided by the workers."""
    if pending == 0:
        return max((job.finished_at for job in jobs if job.finished_at), default=datetime.now(UTC))
    durations = [
        (job.finished_at - job.started_at).total_seconds() for job in jobs if job.started_at and job.finished_at
    ]
    mean = sum(durations) / len(durations) if durations else float(batch.get("timeout_per_url", 30)) / 2
    return datetime.now(UTC) + timedelta(seconds=mean * pending / int(batch.get("parallel_jobs", 1)))


@app.get("/api/v1/scrape/batch/<batch_id>/progress")
def batch_progress(batch_id: str) -> ProgressResponse:
    """Answer a request for the progress of a batch."""
    owner_id = authenticate()
    items = read(batch_id)
    batch = next((item for item in items if item["sk"] == "BATCH"), None)
    if batch is None or batch["owner_id"] != owner_id:
        raise NotFoundError("Batch not found")
    jobs = [JobItem.model_validate(item) for item in items if item["sk"].startswith("JOB#")]
    statuses = Counter(job.status for job in jobs)
    total = max(int(batch["total_urls"]), len(jobs))
    completed, failed = statuses["completed"], statuses["failed"] + statuses["cancelled"]
    pending = total - completed - failed
    metrics.add_metric(name="Jobs", unit=MetricUnit.Count, value=len(jobs))
    logger.info("request", extra={"batch_id": batch_id, "jobs": len(jobs)})
    return ProgressResponse(
        data=Progress(
            batch_id=batch_id,
            total_urls=total,
            completed=completed,
            failed=failed,
            pending=pending,
            total_items_extracted=sum(job.items_extracted for job in jobs),
            estimated_completion=estimated_completion(batch, jobs, pending).strftime("%Y-%m-%dT%H:%M:%SZ"),
            jobs=[
                Job(
                    job_id=job.sk.removeprefix("JOB#"),
                    url=job.url,
                    status=job.status,
                    items_extracted=job.items_extracted,
                )
                for job in jobs
            ],
        ),
    )


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # Lambda's context
    """Answer one event."""
    return app.resolve(event, context)
