"""The validated parameters of a request, as a value."""

import msgspec

from batch_progress.table import JobStatus
from functions.progress.cursor import Cursor


class Query(msgspec.Struct, frozen=True):
    """The validated parameters of a request.

    Attributes:
        batch_id: The batch's id.
        status: List only jobs with these statuses; `None` for all.
        limit: List at most this many jobs; `None` for all.
        cursor: The end of the previous page; `None` for the first page.
        details: Whether to add the times and the error to each job.
        estimate: Whether to add the estimate's basis and interval.
        summary: Whether to add the jobs by status and the reasons of failures.
    """

    batch_id: str
    status: frozenset[JobStatus] | None = None
    limit: int | None = None
    cursor: Cursor | None = None
    details: bool = False
    estimate: bool = False
    summary: bool = False

    @property
    def paged(self) -> bool:
        """Whether the caller reads page by page: the answer then always has a `next_cursor`."""
        return self.limit is not None or self.cursor is not None
