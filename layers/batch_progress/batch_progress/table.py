"""The format of the jobs table: keys, attributes with their types, statuses, limits, and the format of times.

Readers, writers, the local server, the benchmarks and the tests use these definitions. `template.yaml` declares the
table itself; docs/decisions/0006-the-tables-shape.md has the reasons.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, assert_never

# The sort key of a batch's own item.
BATCH_KEY: Final = "BATCH"
# The sort key of a job is this prefix and its id.
JOB_PREFIX: Final = "JOB#"
# Sorts after the keys of all jobs: `$` follows `#`.
AFTER_JOBS: Final = "JOB$"

type AttributeType = Literal["S", "N"]
type Item = dict[str, dict[str, str]]

KEY_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType({"batch_id": "S", "sk": "S"})
# Attributes of `BATCH` items that any writer may set.
BATCH_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType(
    {
        "owner_id": "S",
        "total_urls": "N",
        "created_at": "S",
        "parallel_jobs": "N",
        "timeout_per_url": "N",
        "lost_after": "N",
        "cancelled_at": "S",
        "expires_at": "N",
    }
)
# Attributes of `BATCH` items that only the functions write: how often the jobs have changed, the last count of a large
# batch, when that was made, and until when another count of it is being made.
OWN_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType(
    {"revision": "N", "counted": "S", "counted_at": "N", "counting": "N"}
)
# Attributes of `BATCH` items that only the supervisor and the function that asks it for checks need: the number of the
# batch's latest check, when that is due, and what has been announced.
SUPERVISOR_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType(
    {"check_number": "N", "check_due": "N", "announced": "S"}
)
# Attributes of `BATCH` items that only the recorder writes and reads.
RECORDER_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType({"made_from": "S"})
# Attributes of `JOB#` items that every answer needs.
JOB_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType(
    {
        "url": "S",
        "status": "S",
        "items_extracted": "N",
        "started_at": "S",
        "seen_at": "S",
        "finished_at": "S",
        "error_code": "S",
    }
)
# Attributes of `JOB#` items that only `include=details` needs.
DETAIL_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType({"error_message": "S"})
# Attributes of `JOB#` items that only the recorder and the supervisor need.
ATTEMPT_ATTRIBUTES: Final[Mapping[str, AttributeType]] = MappingProxyType({"attempt": "N"})

_TYPES: Final = {
    **KEY_ATTRIBUTES,
    **BATCH_ATTRIBUTES,
    **OWN_ATTRIBUTES,
    **SUPERVISOR_ATTRIBUTES,
    **RECORDER_ATTRIBUTES,
    **JOB_ATTRIBUTES,
    **DETAIL_ATTRIBUTES,
    **ATTEMPT_ATTRIBUTES,
}


class JobStatus(StrEnum):
    """The statuses of a job: `pending` → `processing` → one of the other three, at which it has ended."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def counted_as(self) -> Literal["completed", "failed", "pending"]:
        """The count of an answer that includes jobs of this status."""
        match self:
            case JobStatus.COMPLETED:
                return "completed"
            case JobStatus.FAILED | JobStatus.CANCELLED:
                return "failed"
            case JobStatus.PENDING | JobStatus.PROCESSING:
                return "pending"
            case _:
                assert_never(self)


# The statuses of jobs that have ended.
ENDED: Final = frozenset(status for status in JobStatus if status.counted_as != "pending")

# The error code of a job whose worker has shown no sign of life for `lost_after`.
WORKER_LOST: Final = "WORKER_LOST"

# Batch ids, and the job ids that the recorder accepts. Other writers may use any job id that fits a sort key.
ID_PATTERN: Final = "[A-Za-z0-9_-]{1,128}"
ID_RULE: Final = "must be 1 to 128 of A-Z, a-z, 0-9, '_' and '-'"
# DynamoDB's limit on a sort key, minus the prefix.
LONGEST_JOB_ID_BYTES: Final = 1_024 - len(JOB_PREFIX)
# The largest integer that most languages can represent exactly in 64 bits; larger numbers are malformed.
LARGEST_NUMBER: Final = 2**63 - 1
# 9999-12-31T23:59:59Z in epoch seconds, the last second that RFC 3339 can express. A larger number is probably in
# milliseconds.
LAST_SECOND: Final = 253_402_300_799

# The platform's defaults, used where a batch declares none.
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_WORKERS: Final = 3


def timestamp(moment: datetime) -> str:
    """Format a moment in UTC as the table stores it: RFC 3339 with milliseconds and `Z`."""
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def batch_key(batch_id: str) -> Item:
    """Return the key of a batch's own item."""
    return item(batch_id=batch_id, sk=BATCH_KEY)


def job_key(batch_id: str, job_id: str) -> Item:
    """Return the key of a job's item."""
    return item(batch_id=batch_id, sk=JOB_PREFIX + job_id)


def item(**values: str | float | None) -> Item:
    """Return attributes in DynamoDB's JSON, each with its type. `None` values are omitted.

    Raises:
        KeyError: The table has no attribute with this name.
    """
    return {name: {_TYPES[name]: _text(value)} for name, value in values.items() if value is not None}


def _text(value: str | float) -> str:
    return str(value) if isinstance(value, str) else repr(value).removesuffix(".0")
