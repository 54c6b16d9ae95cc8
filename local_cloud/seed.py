"""The example data of the local server: a half-finished batch, and tokens of its owner."""

import hashlib
from datetime import datetime, timedelta

from batch_progress import table
from batch_progress.table import BATCH_KEY, JOB_PREFIX, Item, JobStatus, timestamp

BATCH = "batch_xyz789"
# The same batch, owned by the session tokens of `OWNER`.
SESSION_BATCH = "batch_session"
# The batch of live_batch.py.
LIVE_BATCH = "batch_live"
OWNER = "demo"
TOKEN = "demo-token"  # noqa: S105  # a demo token
EXPIRED_TOKEN = "demo-expired-token"  # noqa: S105  # the same

# The age of the batch.
_AGE = timedelta(seconds=72)
_TIMEOUT = 30
# Id, status, items; start and end in seconds after the creation of the batch.
_JOBS: tuple[tuple[str, JobStatus, int, int | None, int | None], ...] = (
    ("job_abc123", JobStatus.COMPLETED, 25, 1, 13),
    ("job_bcd234", JobStatus.COMPLETED, 36, 1, 17),
    ("job_cde345", JobStatus.COMPLETED, 40, 13, 25),
    ("job_def456", JobStatus.COMPLETED, 28, 17, 28),
    ("job_efg567", JobStatus.COMPLETED, 44, 25, 41),
    ("job_fgh678", JobStatus.COMPLETED, 33, 28, 46),
    ("job_ghi789", JobStatus.FAILED, 0, 41, 71),
    ("job_hij890", JobStatus.COMPLETED, 39, 46, 60),
    ("job_ijk901", JobStatus.PROCESSING, 0, 60, None),
    ("job_jkl012", JobStatus.PENDING, 0, None, None),
)


def batch_items(now: datetime, batch_id: str = BATCH, owner: str = OWNER) -> list[Item]:
    """Return the items of the example batch: 10 URLs, 7 completed, 1 failed, 2 pending, 245 items."""
    began = now - _AGE
    batch = table.item(
        batch_id=batch_id,
        sk=BATCH_KEY,
        owner_id=owner,
        total_urls=len(_JOBS),
        created_at=timestamp(began),
        parallel_jobs=2,
        timeout_per_url=_TIMEOUT,
    )
    return [batch, *(_job(batch_id, number, began) for number in range(len(_JOBS)))]


def token_items(now: datetime) -> list[Item]:
    """Return the items of two tokens: a valid one and an expired one."""
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
    failed = status is JobStatus.FAILED
    return table.item(
        batch_id=batch_id,
        sk=JOB_PREFIX + job_id,
        url=f"https://example.com/page{number + 1}",
        status=status,
        items_extracted=items,
        started_at=None if start is None else timestamp(began + timedelta(seconds=start)),
        finished_at=None if end is None else timestamp(began + timedelta(seconds=end)),
        error_code="TIMEOUT" if failed else None,
        error_message=f"The page did not answer within {_TIMEOUT} seconds." if failed else None,
    )
