"""What a batch and its jobs are, as values.

Jobs are msgspec structs rather than dataclasses: a batch has up to hundreds of thousands of them, and a struct
is made and encoded several times faster (docs/decisions/0002-msgspec-beside-pydantic.md).
"""

from datetime import datetime
from typing import Annotated

import msgspec

from batch_progress.table import JobStatus


class Job(msgspec.Struct, frozen=True, gc=False):
    """One URL of a batch, as a client sees it.

    Attributes:
        job_id: Unique within the batch; jobs are in its order.
        url: The address to scrape, `""` when it is not recorded properly. Text from outside, to be escaped.
        status: One of the values of `JobStatus`.
        items_extracted: Records found so far, 0 when nothing is recorded.
    """

    job_id: str
    url: str
    # A plain text, not the enumeration: it is decoded and encoded as it is, for each job of each answer.
    status: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(JobStatus)})]
    items_extracted: Annotated[int, msgspec.Meta(ge=0)]


class DetailedJob(Job, frozen=True, gc=False):
    """A job with its times and its failure; `None` where nothing is recorded.

    Attributes:
        started_at: When a worker took it, RFC 3339.
        finished_at: When it ended, RFC 3339.
        error_code: The kind of its failure, for programs.
        error_message: Its failure in words, from outside.
    """

    started_at: str | None
    finished_at: str | None
    error_code: str | None
    error_message: str | None


class Page(msgspec.Struct, frozen=True):
    """Some jobs of a batch in the order of `job_id`, with when each started and ended.

    The three lists run in parallel. A time is `None` where it is not recorded.
    """

    jobs: list[Job]
    started: list[datetime | None]
    finished: list[datetime | None]


class Batch(msgspec.Struct, frozen=True):
    """What a batch declares of itself; its progress is made from its jobs, never kept here.

    Attributes:
        batch_id: Its id.
        owner_id: Whose it is; `None` belongs to nobody.
        total_urls: How many URLs it declares, 0 when unknown.
        created_at: When it was made, `None` when not recorded.
        parallel_jobs: Workers declared, `None` when not.
        timeout_per_url: Declared limit on one job in seconds, `None` when not.
        revision: Grows with each recorded change of a job, 0 before the first.
        expires_at: Epoch seconds after which it is gone, `None` for never.
    """

    batch_id: str
    owner_id: str | None
    total_urls: int = 0
    created_at: datetime | None = None
    parallel_jobs: int | None = None
    timeout_per_url: float | None = None
    revision: int = 0
    expires_at: float | None = None
