"""What the client returns: immutable values with times as aware datetimes."""

from datetime import datetime
from typing import Annotated

import msgspec

Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Job(msgspec.Struct, frozen=True):
    """A job. Its texts come from the site that was scraped: escape them.

    Attributes:
        job_id: Unique within the batch.
        url: The address to scrape; `""` if it is not recorded.
        status: `pending`, `processing`, `completed`, `failed` or `cancelled`.
        items_extracted: Items found so far.
        started_at: When a worker started it; `None` if that is not recorded.
        finished_at: When it ended; `None` if that is not recorded.
        error_code: The kind of failure, for programs.
        error_message: The failure in words.
    """

    job_id: str
    url: str
    status: str
    items_extracted: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error_code: str | None = None
    error_message: str | None = None


class Estimate(msgspec.Struct, frozen=True):
    """The basis of the estimate, and its interval.

    Attributes:
        basis: `declared`, `observed`, `stalled` or `finished`.
        earliest: The start of the interval.
        latest: The end of the interval.
        confidence: The probability that the batch ends within the interval.
    """

    basis: str
    earliest: Moment
    latest: Moment
    confidence: float


class Statuses(msgspec.Struct, frozen=True):
    """How many jobs have each status. They sum to `total_urls`."""

    pending: Natural
    processing: Natural
    completed: Natural
    failed: Natural
    cancelled: Natural


class Reason(msgspec.Struct, frozen=True):
    """How many jobs failed with a code; `None` for those without one. The code is untrusted text."""

    error_code: str | None
    jobs: Natural


class Summary(msgspec.Struct, frozen=True):
    """The jobs by status, the ten most frequent reasons of failures, and the moment of the count."""

    statuses: Statuses
    failures: list[Reason]
    as_of: Moment


class Progress(msgspec.Struct, frozen=True):
    """The state of a batch. `completed`, `failed` and `pending` sum to `total_urls`.

    Attributes:
        batch_id: The batch.
        total_urls: The declared number of URLs, or the number of jobs if that is larger.
        completed: Jobs that succeeded.
        failed: Jobs that failed or were cancelled.
        pending: Jobs that have not ended.
        total_items_extracted: The items of all jobs.
        estimated_completion: When the batch is expected to end; of a finished batch, when it ended.
        estimate: The interval around that.
        summary: `None` if the API is too old to give one.
    """

    batch_id: str
    total_urls: Natural
    completed: Natural
    failed: Natural
    pending: Natural
    total_items_extracted: Natural
    estimated_completion: Moment
    estimate: Estimate
    summary: Summary | None = None

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        return self.completed + self.failed

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return self.pending == 0

    @property
    def stalled(self) -> bool:
        """Whether jobs are left and nothing has moved for longer than a job may take."""
        return self.estimate.basis == "stalled"

    @property
    def processing(self) -> int:
        """How many jobs workers are processing; 0 without a summary."""
        return self.summary.statuses.processing if self.summary else 0

    @property
    def reasons(self) -> list[Reason]:
        """The most frequent reasons of failures; empty without a summary."""
        return self.summary.failures if self.summary else []
