"""The workload: half-finished batches in DynamoDB's JSON, cut into pages as the service does."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from batch_progress import table
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item, JobStatus, timestamp

JOBS_TABLE: Final = "jobs"
TOKENS_TABLE: Final = "tokens"
TOKEN: Final = "demo-token"  # noqa: S105  # a demo token, as in events/
OWNER: Final = "demo"
# DynamoDB ends a page after 1 MB of items, counted before the projection.
PAGE_BYTES: Final = 1_048_576
# The projection of both handlers. The fake DynamoDB ignores the expression and always applies this one.
PROJECTED: Final = frozenset(
    {
        *("sk", "url", "status", "items_extracted", "started_at", "finished_at", "error_code"),
        *("owner_id", "total_urls", "created_at", "parallel_jobs", "timeout_per_url", "revision", "expires_at"),
    },
)
_RUNNING: Final = {10: 2, 50: 3, 1_000: 10, 10_000: 25, 50_000: 50}
TIMEOUT_SECONDS: Final = 30.0
_MEDIAN_SECONDS: Final = 6.0
_WORDS: Final = ("catalogue", "products", "outdoor", "kitchen", "archive", "clearance", "furniture", "lighting")


def batch_id(jobs: int) -> str:
    """Return the id of the batch with this number of jobs."""
    return f"batch_{jobs:06}"


def items(jobs: int, now: datetime) -> Iterator[Item]:
    """Yield the items of a half-finished batch: the `BATCH` item, then the jobs by sort key."""
    draw = random.Random(jobs)
    ident, workers = batch_id(jobs), _RUNNING.get(jobs, 3)
    ended = jobs // 2 + jobs // 50
    failed = set(draw.sample(range(ended), jobs // 50))
    took = list(islice(durations(draw), ended))
    expires = int(now.timestamp()) + 30 * 86_400
    yield table.item(
        batch_id=ident,
        sk=BATCH_KEY,
        owner_id=OWNER,
        total_urls=jobs,
        created_at=_time(now - timedelta(seconds=sum(took) / workers + 5)),
        parallel_jobs=workers,
        timeout_per_url=TIMEOUT_SECONDS,
        revision=ended * 2 + workers,
        expires_at=expires,
    )
    # Jobs end in the order of their ids, at even intervals.
    step = sum(took) / workers / max(ended, 1)
    for number in range(jobs):
        item = table.item(
            batch_id=ident,
            sk=f"{JOB_PREFIX}job_{number + 1:06}",
            url=_url(draw, number + 1),
            status=JobStatus.PENDING,
            expires_at=expires,
        )
        if number < ended:
            finished = now - timedelta(seconds=(ended - number) * step)
            item |= table.item(
                status=JobStatus.FAILED if number in failed else JobStatus.COMPLETED,
                items_extracted=0 if number in failed else draw.randint(1, 60),
                started_at=_time(finished - timedelta(seconds=took[number])),
                finished_at=_time(finished),
            )
            if number in failed:
                item |= table.item(error_code="TIMEOUT", error_message="The page did not answer within 30 seconds.")
        elif number < ended + workers:
            started = now - timedelta(seconds=draw.uniform(0.2, 8))
            item |= table.item(status=JobStatus.PROCESSING, started_at=_time(started))
        yield item


def durations(draw: random.Random) -> Iterator[float]:
    """Yield log-normal durations of jobs in seconds, cut off at the timeout."""
    while True:
        yield min(draw.lognormvariate(0, 0.6) * _MEDIAN_SECONDS, TIMEOUT_SECONDS)


def pages(jobs: int, now: datetime, first: int | None = None) -> dict[str | None, bytes]:
    """Return the answers to a `Query` for a whole batch, by the sort key of their `ExclusiveStartKey`.

    `first` is the `Limit` of the first page.
    """
    answers: dict[str | None, bytes] = {}
    start: str | None = None
    page: list[Item] = []
    size = 0
    for item in items(jobs, now):
        page.append({name: value for name, value in item.items() if name in PROJECTED})
        size += sum(len(name) + len(text) for name, value in item.items() for text in value.values())
        if size >= PAGE_BYTES or len(page) == (first if start is None else None):
            last = {"batch_id": item["batch_id"], "sk": item["sk"]}
            answers[start] = _answer(page, size, last)
            start, page, size = item["sk"]["S"], [], 0
    answers[start] = _answer(page, size, None)
    return answers


def _answer(page: list[Item], size: int, last: Item | None) -> bytes:
    answer: dict[str, Any] = {
        "ConsumedCapacity": {"CapacityUnits": max(-(-size // 4_096) / 2, 0.5), "TableName": JOBS_TABLE},
        "Count": len(page),
        "Items": page,
        "ScannedCount": len(page),
    }
    if last is not None:
        answer["LastEvaluatedKey"] = last
    return msgspec.json.encode(answer)


def _url(draw: random.Random, number: int) -> str:
    return f"https://shop.example.com/{draw.choice(_WORDS)}/{draw.choice(_WORDS)}/item-{number:06}.html"


def _time(moment: datetime) -> str:
    return timestamp(moment.astimezone(UTC))
