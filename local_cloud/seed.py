"""The example that the local API starts with: one batch at work, and its owner's tokens."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from batch_progress_cli.timestamp import timestamp

BATCH = "batch_xyz789"
# The same once more, of the owner whom the local issuer of session tokens calls so.
SESSION_BATCH = "batch_session"
# The one that simulated workers work off again and again (live_batch.py).
LIVE_BATCH = "batch_live"
OWNER = "demo"
TOKEN = "demo-token"  # noqa: S105  # openly a demo's
EXPIRED_TOKEN = "demo-expired-token"  # noqa: S105  # the same

# Two workers have been at it for this long.
_AGE = timedelta(seconds=72)
_TIMEOUT = 30
# id, status, items; start and end in seconds after the batch began.
_JOBS: tuple[tuple[str, str, int, int | None, int | None], ...] = (
    ("job_abc123", "completed", 25, 1, 13),
    ("job_bcd234", "completed", 36, 1, 17),
    ("job_cde345", "completed", 40, 13, 25),
    ("job_def456", "completed", 28, 17, 28),
    ("job_efg567", "completed", 44, 25, 41),
    ("job_fgh678", "completed", 33, 28, 46),
    ("job_ghi789", "failed", 0, 41, 71),
    ("job_hij890", "completed", 39, 46, 60),
    ("job_ijk901", "processing", 0, 60, None),
    ("job_jkl012", "pending", 0, None, None),
)

type Item = dict[str, dict[str, str]]


def seed(client: Any, jobs_table: str, tokens_table: str, now: datetime) -> None:  # noqa: ANN401  # boto has no types
    """Write the example into empty tables, as it would stand at `now`."""
    writes = {jobs_table: batch_items(now), tokens_table: token_items(now)}
    client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": item}} for item in items] for table, items in writes.items()}
    )


def seed_session(client: Any, jobs_table: str, owner: str, now: datetime) -> None:  # noqa: ANN401  # boto has no types
    """Write the example once more, for who comes with a session token."""
    items = batch_items(now, SESSION_BATCH, owner)
    client.batch_write_item(RequestItems={jobs_table: [{"PutRequest": {"Item": item}} for item in items]})


def batch_items(now: datetime, batch_id: str = BATCH, owner: str = OWNER) -> list[Item]:
    """Return the items of the example batch: 10 URLs, 7 completed, 1 failed, 2 pending, 245 items."""
    began = now - _AGE
    batch: Item = {
        "batch_id": {"S": batch_id},
        "sk": {"S": "BATCH"},
        "owner_id": {"S": owner},
        "total_urls": {"N": str(len(_JOBS))},
        "created_at": {"S": timestamp(began)},
        "parallel_jobs": {"N": "2"},
        "timeout_per_url": {"N": str(_TIMEOUT)},
    }
    return [batch, *(_job(batch_id, number, began) for number in range(len(_JOBS)))]


def token_items(now: datetime) -> list[Item]:
    """Return the items of the demo's tokens: one good, one expired."""
    created = timestamp(now - timedelta(days=1))

    def item(token: str, label: str) -> Item:
        return {
            "token_hash": {"S": hashlib.sha256(token.encode()).hexdigest()},
            "owner_id": {"S": OWNER},
            "label": {"S": label},
            "created_at": {"S": created},
        }

    expired = int((now - timedelta(hours=1)).timestamp())
    return [item(TOKEN, "demo"), item(EXPIRED_TOKEN, "demo, expired") | {"expires_at": {"N": str(expired)}}]


def _job(batch_id: str, number: int, began: datetime) -> Item:
    job_id, status, items, start, end = _JOBS[number]
    item: Item = {
        "batch_id": {"S": batch_id},
        "sk": {"S": f"JOB#{job_id}"},
        "url": {"S": f"https://example.com/page{number + 1}"},
        "status": {"S": status},
        "items_extracted": {"N": str(items)},
    }
    if start is not None:
        item["started_at"] = {"S": timestamp(began + timedelta(seconds=start))}
    if end is not None:
        item["finished_at"] = {"S": timestamp(began + timedelta(seconds=end))}
    if status == "failed":
        item["error_code"] = {"S": "TIMEOUT"}
        item["error_message"] = {"S": f"The page did not answer within {_TIMEOUT} seconds."}
    return item
