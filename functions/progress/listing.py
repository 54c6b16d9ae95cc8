"""The body of an answer: the jobs of a page, and the envelope around them."""

from collections.abc import Sequence
from typing import Final

import msgspec

from batch_progress.model import DetailedJob, Job, Page
from batch_progress.progress import CONFIDENCE, Estimate, Progress
from functions.progress import schema
from functions.progress.coding import Body, Written
from functions.progress.cursor import Cursor
from functions.progress.envelope import rfc3339
from functions.progress.query import Query

_encoder: Final = msgspec.json.Encoder()
# The largest number of strings in a job: its field names and their values.
_STRINGS: Final = {kind: 2 * len(kind.__struct_fields__) for kind in (Job, DetailedJob)}
# A page that may not fit is added in groups of about this many bytes, so that little room stays empty.
_GROUP_BYTES: Final = 65_536


class Listing:
    """The jobs of an answer: encoded as they arrive, and cut at the page's limit or Lambda's.

    Attributes:
        jobs: The number of jobs it holds.
        full: Whether there are more jobs than it holds.
    """

    def __init__(self, query: Query, body: Body) -> None:
        self._query = query
        self._body = body
        self._last: str | None = None
        self.jobs = 0
        self.full = False

    def add(self, page: Page) -> None:
        """Add the jobs of the next page that fit."""
        limit = self._query.limit
        if self.full or limit == 0:
            return
        jobs = page.jobs
        if self._query.status is not None:
            jobs = [job for job in jobs if job.status in self._query.status]
        beyond_limit = False
        if limit is not None and len(jobs) > limit - self.jobs:
            jobs = jobs[: limit - self.jobs]
            beyond_limit = True
        if jobs:
            self._add(jobs)
        self.full |= beyond_limit

    def _add(self, jobs: Sequence[Job]) -> None:
        part = _encoder.encode(jobs)[1:-1]
        if self._fits(part, jobs):
            return
        begin = end = size = 0
        parts = [_encoder.encode(job) for job in jobs]
        while end < len(jobs):
            size += len(parts[end])
            end += 1
            if size >= _GROUP_BYTES or end == len(jobs):
                if not self._fits(b",".join(parts[begin:end]), jobs[begin:end], exact=True):
                    self.full = True
                    return
                begin, size = end, 0

    def _fits(self, part: bytes, jobs: Sequence[Job], *, exact: bool = False) -> bool:
        if not self._body.add(b"," + part if self.jobs else part, len(jobs) * _STRINGS[type(jobs[0])], exact=exact):
            return False
        self._last = jobs[-1].job_id
        self.jobs += len(jobs)
        return True

    def written(self, progress: Progress) -> tuple[Written, str | None]:
        """Return the envelope with the jobs that fit, and the cursor of the next page."""
        cursor = None
        if self.full and self._last is not None:
            cursor = Cursor.behind(self._last, progress.counts, progress.estimate).encode(self._query.batch_id)
        before, jobs, after = self._envelope(progress, cursor).partition(_JOBS)
        return self._body.write(before + jobs, after), cursor

    def _envelope(self, progress: Progress, cursor: str | None) -> bytes:
        """Return the envelope without jobs."""
        query, counts, expected = self._query, progress.counts, progress.estimate
        data = schema.Progress(
            batch_id=query.batch_id,
            total_urls=counts.total_urls,
            completed=counts.completed,
            failed=counts.failed,
            pending=counts.pending,
            total_items_extracted=counts.total_items_extracted,
            estimated_completion=rfc3339(expected.completion),
            jobs=msgspec.Raw(b"[]"),
            estimate=_estimate(expected) if query.estimate else msgspec.UNSET,
            summary=_summary(progress) if query.summary else msgspec.UNSET,
            next_cursor=cursor if query.paged or cursor else msgspec.UNSET,
        )
        return _encoder.encode(schema.ProgressResponse(success=True, data=data))


# Where the jobs are inserted into the envelope.
_JOBS: Final = b'"jobs":['


def _estimate(expected: Estimate) -> schema.Estimate:
    return schema.Estimate(
        basis=expected.basis,
        earliest=rfc3339(expected.earliest),
        latest=rfc3339(expected.latest),
        confidence=CONFIDENCE,
    )


def _summary(progress: Progress) -> schema.Summary | msgspec.UnsetType:
    summary = progress.summary
    if summary is None:
        return msgspec.UNSET
    return schema.Summary(
        statuses=summary.statuses,
        failures=[schema.Reason(error_code=each.error_code, jobs=each.jobs) for each in summary.failures],
        as_of=rfc3339(int(progress.as_of)),
    )
