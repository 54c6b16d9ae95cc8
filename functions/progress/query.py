"""A question about one batch, as a value."""

import msgspec

from batch_progress.table import JobStatus
from functions.progress.cursor import Cursor


class Query(msgspec.Struct, frozen=True):
    """A question about one batch.

    Attributes:
        batch_id: The batch.
        status: List only jobs of these statuses; `None` for all.
        limit: List at most this many jobs; `None` for all.
        cursor: The end of the page before; `None` for the first page.
        details: Whether jobs come with their times and failures.
        estimate: Whether the estimate's basis and interval come.
    """

    batch_id: str
    status: frozenset[JobStatus] | None = None
    limit: int | None = None
    cursor: Cursor | None = None
    details: bool = False
    estimate: bool = False

    @property
    def paged(self) -> bool:
        """Whether the caller reads page by page, so that the answer has a `next_cursor`."""
        return self.limit is not None or self.cursor is not None
