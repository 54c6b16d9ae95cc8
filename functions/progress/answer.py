"""Making an answer: read the batch, add it up, forecast its end, write the body."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from batch_progress.model import Batch, DetailedJob, Job, Page
from batch_progress.progress import CONFIDENCE, Counts, Estimate, Tally, estimate, poll_after, poll_again
from batch_progress.store import BatchStore, ReadLog
from functions.progress.coding import ROOM, Coding, Written
from functions.progress.cursor import Cursor
from functions.progress.envelope import rfc3339
from functions.progress.query import Query
from functions.progress.schema import EstimateView, ProgressAnswer, ProgressView
from functions.progress.tag import Tag, digest, tags, trusted

_encoder: Final = msgspec.json.Encoder()
# Names of fields and, at most, as many values.
_STRINGS: Final = {kind: 2 * len(kind.__struct_fields__) for kind in (Job, DetailedJob)}
# The envelope without its jobs; the longest cursor is most of it.
_ROUND_JOBS: Final = 8_192
# A next try at fitting is a little smaller than in proportion, so that a second one is rare.
_CLOSER: Final = 0.98


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer, before it is put on a wire.

    Attributes:
        body: The envelope, as it goes on the wire.
        batch: The batch as it was read, before any of its jobs.
        counts: How far it is.
        estimate: When it will be done.
        poll_after: Seconds until a poll is worth it, `None` when the batch is finished.
        next_cursor: Where the next page goes on, `None` when there is none.
        jobs: How many jobs are in the body.
    """

    body: Written
    batch: Batch
    counts: Counts
    estimate: Estimate
    poll_after: int | None
    next_cursor: str | None
    jobs: int


def answer(
    store: BatchStore,
    query: Query,
    owner_id: str | None,
    now: float,
    log: ReadLog,
    coding: Coding,
) -> Answer:
    """Answer `query`.

    Args:
        store: Where batches are.
        query: What is asked.
        owner_id: Who asks; `None` is trusted with every batch.
        now: Epoch seconds.
        log: Takes down what was read.
        coding: How the body is put on the wire.

    Raises:
        BatchNotFound: The caller has no such batch.
        ServiceUnavailable: DynamoDB gave no whole answer in time.
    """
    listing = Listing(query, coding)
    if query.cursor is None:
        batch, pages = store.read(query.batch_id, owner_id, now, log, detailed=query.details)
        tally = Tally(batch)
        for page in pages:
            tally.add(page)
            listing.add(page)
        counts = tally.counts()
        expected = estimate(batch, counts, tally.observed(), now)
    else:
        batch = store.batch(query.batch_id, owner_id, now, log)
        counts, expected = query.cursor.counts, query.cursor.estimate
        for page in _later_pages(store, query, query.cursor, log):
            listing.add(page)
            if listing.full:
                break
    body, next_cursor = listing.written(counts, expected)
    return Answer(
        body=body,
        batch=batch,
        counts=counts,
        estimate=expected,
        poll_after=poll_after(counts, expected, now),
        next_cursor=next_cursor,
        jobs=listing.jobs,
    )


def _later_pages(store: BatchStore, query: Query, cursor: Cursor, log: ReadLog) -> Iterable[Page]:
    if query.limit == 0:
        return ()
    # One job more than asked for tells whether there is a next page; a filter needs as many as it takes.
    limit = None if query.limit is None or query.status is not None else query.limit + 1
    return store.jobs_after(query.batch_id, cursor.after, log, detailed=query.details, limit=limit)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing is known to have changed since the answer with this tag.

    Attributes:
        tag: The tag that holds.
        poll_after: Seconds until a poll is worth it, `None` when the batch is finished.
    """

    tag: Tag
    poll_after: int | None


def unchanged(
    store: BatchStore,
    query: Query,
    owner_id: str | None,
    if_none_match: str,
    *,
    now: float,
    log: ReadLog,
    gzip: bool,
) -> Unchanged | None:
    """Tell whether a client's answer still holds, with one small read; `None` where a full answer is due.

    Arguments and errors are those of `answer`; `if_none_match` is the header's value.
    """
    everything = if_none_match.strip() == "*"
    candidates = [tag for tag in tags(if_none_match) if trusted(tag, now)]
    if not candidates and not everything:
        return None
    batch = store.batch(query.batch_id, owner_id, now, log)
    running = digest(batch, query, gzip=gzip, finished=False)
    finished = digest(batch, query, gzip=gzip, finished=True)
    for tag in candidates:
        if tag.digest == finished:
            return Unchanged(tag, None)
        if tag.digest == running:
            return Unchanged(tag, poll_again(tag.eta - now if tag.eta else None))
    # Whoever sends `*` holds some answer, from whenever: the tag it gets is one that never holds again.
    return Unchanged(Tag(0, 0, running), poll_again(None)) if everything else None


class Listing:
    """The jobs of an answer, encoded as they come and cut where the page or Lambda's limit ends.

    Attributes:
        jobs: How many it holds.
        full: Whether there are more jobs than it takes.
    """

    def __init__(self, query: Query, coding: Coding) -> None:
        """Hold nothing yet."""
        self._query = query
        self._coding = coding
        self._chunks: list[bytes] = []
        self._room = ROOM - _ROUND_JOBS
        self._last: str | None = None
        self.jobs = 0
        self.full = False

    def add(self, page: Page) -> None:
        """Take what fits of the next page's jobs."""
        if self.full or self._query.limit == 0:
            return
        jobs = page.jobs
        if self._query.status is not None:
            jobs = [job for job in jobs if job.status in self._query.status]
        if self._query.limit is not None and len(jobs) > self._query.limit - self.jobs:
            jobs = jobs[: self._query.limit - self.jobs]
            self.full = True
        while jobs:
            chunk = _encoder.encode(jobs)[1:-1]
            needed = self._coding.room_for(chunk, len(jobs) * _STRINGS[type(jobs[0])])
            if needed <= self._room:
                self._take(jobs, chunk, needed)
                return
            jobs = jobs[: int(len(jobs) * self._room / needed * _CLOSER)]
            self.full = True

    def _take(self, jobs: list[Job], chunk: bytes, needed: int) -> None:
        self._chunks.append(chunk)
        self._room -= needed
        self._last = jobs[-1].job_id
        self.jobs += len(jobs)

    def written(self, counts: Counts, expected: Estimate) -> tuple[Written, str | None]:
        """Return the envelope with as many of the jobs as fit, and the cursor of the next page."""
        while True:
            cursor = None
            if self.full and self._last is not None:
                cursor = Cursor.behind(self._last, counts, expected).encode(self._query.batch_id)
            written = self._coding.write(self._envelope(counts, expected, cursor))
            if not written.compressed or len(written.text) <= ROOM:
                return written, cursor
            self._keep(int(self.jobs * ROOM / len(written.text) * _CLOSER))

    def _keep(self, most: int) -> None:
        """Drop all but the first `most` jobs: compressed, they take more than was hoped for."""
        kind: type[list[Job] | list[DetailedJob]] = list[DetailedJob] if self._query.details else list[Job]
        jobs = msgspec.json.decode(b"[" + b",".join(self._chunks) + b"]", type=kind)[:most]
        self._chunks = [_encoder.encode(jobs)[1:-1]]
        self._last = jobs[-1].job_id
        self.jobs = len(jobs)
        self.full = True

    def _envelope(self, counts: Counts, expected: Estimate, cursor: str | None) -> bytes:
        query = self._query
        view = ProgressView(
            batch_id=query.batch_id,
            total_urls=counts.total_urls,
            completed=counts.completed,
            failed=counts.failed,
            pending=counts.pending,
            total_items_extracted=counts.total_items_extracted,
            estimated_completion=rfc3339(expected.completion),
            jobs=msgspec.Raw(b"[" + b",".join(self._chunks) + b"]"),
            estimate=_estimate_view(expected) if query.estimate else msgspec.UNSET,
            next_cursor=cursor if query.paged or cursor else msgspec.UNSET,
        )
        return _encoder.encode(ProgressAnswer(success=True, data=view))


def _estimate_view(expected: Estimate) -> EstimateView:
    return EstimateView(
        basis=expected.basis,
        earliest=rfc3339(expected.earliest),
        latest=rfc3339(expected.latest),
        confidence=CONFIDENCE,
    )
