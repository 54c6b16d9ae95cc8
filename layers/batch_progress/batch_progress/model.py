"""Batches and jobs, as immutable values.

Jobs are msgspec structs: a batch has up to hundreds of thousands of them, and a struct is created and encoded several
times faster than a dataclass (docs/decisions/0002-msgspec-beside-pydantic.md).
"""

from datetime import datetime
from typing import Annotated

import msgspec

from batch_progress.table import JobStatus


class Job(msgspec.Struct, frozen=True, gc=False):
    """One URL of a batch."""

    job_id: Annotated[str, msgspec.Meta(description="The job's id, unique within the batch.")]
    url: Annotated[
        str,
        msgspec.Meta(
            description='The address to scrape; `""` if it is missing or malformed. Untrusted: escape it where you '
            "show it."
        ),
    ]
    # A string, not a `JobStatus`: it is decoded and encoded without conversion, for each job of each answer.
    status: Annotated[
        str,
        msgspec.Meta(description="The job's status.", extra_json_schema={"enum": list(JobStatus)}),
    ]
    items_extracted: Annotated[
        int,
        msgspec.Meta(
            ge=0, description="Items extracted so far; 0 if not recorded.", extra_json_schema={"format": "int64"}
        ),
    ]


class DetailedJob(Job, frozen=True, gc=False):
    """A job with its times and its error."""

    started_at: Annotated[
        str | None,
        msgspec.Meta(
            description="With `include=details`: when a worker started the job, in RFC 3339 as the worker recorded it, "
            "with any offset. `null`: not recorded."
        ),
    ]
    finished_at: Annotated[
        str | None,
        msgspec.Meta(
            description="With `include=details`: when the job ended, in RFC 3339 as the worker recorded it, with any "
            "offset. `null`: not recorded."
        ),
    ]
    error_code: Annotated[
        str | None,
        msgspec.Meta(description="With `include=details`: the kind of failure, for programs. `null`: not recorded."),
    ]
    error_message: Annotated[
        str | None,
        msgspec.Meta(
            description="With `include=details`: the failure in words. `null`: not recorded. Untrusted: escape it "
            "where you show it."
        ),
    ]


class Page(msgspec.Struct, frozen=True):
    """A page of a batch's jobs, in the order of `job_id`.

    The lists are parallel. A value is `None` if it is not recorded.

    Attributes:
        jobs: The jobs.
        started: When each was started.
        finished: When each ended.
        seen: When the worker of each last showed a sign of life.
        error_codes: The kind of each failure.
        attempts: The number of the latest attempt of each, from 1; empty unless the page was read for the supervisor.
    """

    jobs: list[Job]
    started: list[datetime | None]
    finished: list[datetime | None]
    seen: list[datetime | None]
    error_codes: list[str | None]
    attempts: list[int | None] = []


class Notes(msgspec.Struct, frozen=True):
    """What the functions keep on a `BATCH` item, besides its revision. Answers do not depend on it.

    Attributes:
        counted: The last count of a large batch, as `KeptCount` encodes it; `None` if there is none.
        counting: Until when a request counts the batch, or until when none should, as `kept.py` writes it; or `None`.
    """

    counted: str | None = None
    counting: float | None = None


NO_NOTES = Notes()


class Batch(msgspec.Struct, frozen=True):
    """A `BATCH` item. Progress is not stored in it: it is computed from the jobs.

    Attributes:
        batch_id: Its id.
        owner_id: The owner, `None` if not recorded: then only direct calls that name no owner can see the batch.
        total_urls: The declared number of URLs, 0 if not declared.
        created_at: When it was created, `None` if not recorded.
        parallel_jobs: The declared number of workers, `None` if not declared.
        timeout_per_url: The declared time limit of a job in seconds, `None` if not declared.
        lost_after: A running job without a sign of life for this many seconds is lost; `None` if no job ever is.
        cancelled_at: When the batch was cancelled, `None` if it was not. Declared URLs without a job have then ended.
        expires_at: The batch counts as deleted from this time, in epoch seconds; `None` for never.
        revision: Increases with the changes of jobs, 0 before the first.
        notes: What the functions keep on the item.
    """

    batch_id: str
    owner_id: str | None
    total_urls: int = 0
    created_at: datetime | None = None
    parallel_jobs: int | None = None
    timeout_per_url: float | None = None
    lost_after: float | None = None
    cancelled_at: datetime | None = None
    expires_at: float | None = None
    revision: int = 0
    notes: Notes = NO_NOTES
