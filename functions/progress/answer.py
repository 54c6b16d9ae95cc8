"""Make an answer: read the batch, count its jobs, forecast its end, write the body."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from batch_progress.model import Batch, DetailedJob, Job, Page
from batch_progress.progress import CONFIDENCE, Estimate, Progress, Tally, estimate, poll_after, poll_again
from batch_progress.store import BatchStore, ReadStats
from functions.progress.coding import Body, Identity, Written
from functions.progress.cursor import Cursor
from functions.progress.envelope import rfc3339
from functions.progress.query import Query
from functions.progress.schema import EstimateView, FailuresView, ProgressAnswer, ProgressView, SummaryView
from functions.progress.tag import Tag, digest, tags, trusted

_encoder: Final = msgspec.json.Encoder()
# The largest number of strings in a job: its field names and their values.
_STRINGS: Final = {kind: 2 * len(kind.__struct_fields__) for kind in (Job, DetailedJob)}
# A page that may not fit is added in groups of about this many bytes, so that little room stays empty.
_GROUP_BYTES: Final = 65_536


class Answer(msgspec.Struct, frozen=True):
    """A successful answer, before it becomes a response.

    Attributes:
        body: The encoded envelope.
        batch: The `BATCH` item, which is read before any job.
        progress: The progress of the whole batch.
        poll_after: Seconds until the next poll is worthwhile, `None` if the batch is finished.
        next_cursor: The cursor of the next page, `None` if there is none.
        jobs: The number of jobs in the body.
    """

    body: Written
    batch: Batch
    progress: Progress
    poll_after: int | None
    next_cursor: str | None
    jobs: int


def full_answer(
    store: BatchStore,
    query: Query,
    owner_id: str | None,
    clock: Callable[[], float],
    stats: ReadStats,
    body: Body,
) -> Answer:
    """Make the answer to a request.

    Args:
        store: The jobs table.
        query: The request's parameters.
        owner_id: The caller's owner id; `None` allows every owner's batch.
        clock: Returns epoch seconds. Reading a large batch takes seconds, and an estimate must not be in the past.
        stats: Counts what is read.
        body: An empty body in the encoding of the answer.

    Raises:
        BatchNotFound: The batch does not exist, has expired or belongs to another owner.
        ServiceUnavailable: DynamoDB returned no complete response in time.
    """
    listing = Listing(query, body)
    if query.cursor is None:
        began = clock()
        batch, pages = store.read(query.batch_id, owner_id, began, stats, detailed=query.details)
        tally = Tally(batch)
        for page in pages:
            tally.add(page)
            listing.add(page)
        counts = tally.counts()
        now = clock()
        progress = Progress(began, counts, estimate(batch, counts, tally.observed(), now), tally.summary())
    else:
        batch = store.batch(query.batch_id, owner_id, clock(), stats)
        for page in _later_pages(store, query, query.cursor, stats):
            listing.add(page)
            if listing.full:
                break
        now = clock()
        progress = Progress(now, query.cursor.counts, query.cursor.estimate, None)
    written, next_cursor = listing.written(progress)
    return Answer(
        body=written,
        batch=batch,
        progress=progress,
        poll_after=poll_after(progress.estimate, now),
        next_cursor=next_cursor,
        jobs=listing.jobs,
    )


def _later_pages(store: BatchStore, query: Query, cursor: Cursor, stats: ReadStats) -> Iterable[Page]:
    if query.limit == 0:
        return ()
    # One more job than requested shows whether there is a next page. A filter may need any number of jobs.
    limit = None if query.limit is None or query.status is not None else query.limit + 1
    return store.jobs_after(query.batch_id, cursor.after, stats, detailed=query.details, limit=limit)


class NotModified(msgspec.Struct, frozen=True):
    """Nothing is known to have changed since the client's answer.

    Attributes:
        tag: The tag to send back.
        poll_after: Seconds until the next poll is worthwhile, `None` if the batch is finished.
    """

    tag: Tag
    poll_after: int | None


def not_modified(
    store: BatchStore,
    query: Query,
    owner_id: str | None,
    if_none_match: str,
    *,
    clock: Callable[[], float],
    stats: ReadStats,
    gzip: bool,
) -> NotModified | None:
    """Check with one small read whether a client's answer is still current; return `None` if a full answer is needed.

    `*` takes a full read: only the jobs show whether the batch is finished, and so whether another poll is worthwhile.
    Arguments and errors are those of `full_answer`; `if_none_match` is the header's value.
    """
    if if_none_match.strip() == "*":
        answer = full_answer(store, replace(query, limit=0), owner_id, clock, stats, Identity())
        # `*` matches any answer that the client may have, so the tag must never match again.
        return NotModified(Tag(0, 0, digest(answer.batch, query, gzip=gzip, finished=False)), answer.poll_after)
    now = clock()
    candidates = [tag for tag in tags(if_none_match) if trusted(tag, now)]
    if not candidates:
        return None
    batch = store.batch(query.batch_id, owner_id, now, stats)
    running = digest(batch, query, gzip=gzip, finished=False)
    finished = digest(batch, query, gzip=gzip, finished=True)
    for tag in candidates:
        if tag.digest == finished:
            return NotModified(tag, None)
        if tag.digest == running:
            return NotModified(tag, poll_again(tag.eta - now if tag.eta else None))
    return None


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
        view = ProgressView(
            batch_id=query.batch_id,
            total_urls=counts.total_urls,
            completed=counts.completed,
            failed=counts.failed,
            pending=counts.pending,
            total_items_extracted=counts.total_items_extracted,
            estimated_completion=rfc3339(expected.completion),
            jobs=msgspec.Raw(b"[]"),
            estimate=_estimate_view(expected) if query.estimate else msgspec.UNSET,
            summary=_summary_view(progress) if query.summary else msgspec.UNSET,
            next_cursor=cursor if query.paged or cursor else msgspec.UNSET,
        )
        return _encoder.encode(ProgressAnswer(success=True, data=view))


# Where the jobs are inserted into the envelope.
_JOBS: Final = b'"jobs":['


def _estimate_view(expected: Estimate) -> EstimateView:
    return EstimateView(
        basis=expected.basis,
        earliest=rfc3339(expected.earliest),
        latest=rfc3339(expected.latest),
        confidence=CONFIDENCE,
    )


def _summary_view(progress: Progress) -> SummaryView | msgspec.UnsetType:
    summary = progress.summary
    if summary is None:
        return msgspec.UNSET
    return SummaryView(
        statuses=summary.statuses,
        failures=[FailuresView(error_code=each.error_code, jobs=each.jobs) for each in summary.failures],
        as_of=rfc3339(int(progress.as_of)),
    )
