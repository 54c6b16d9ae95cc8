"""Make an answer: count the batch or find that nothing has changed, list jobs, write the body."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from batch_progress.model import Batch, Page
from batch_progress.progress import Progress, poll_after, poll_again
from batch_progress.store import BatchStore, ReadStats
from functions.progress.coding import Body, Identity, Written
from functions.progress.counting import (
    Asked,
    Counted,
    Counting,
    Sources,
    kept_count,
    next_poll_of_kept,
    of_count,
)
from functions.progress.cursor import Cursor
from functions.progress.listing import Listing
from functions.progress.query import Query
from functions.progress.tag import Tag, digest, tags, trusted


class Answer(msgspec.Struct, frozen=True):
    """A successful answer, before it becomes a response.

    Attributes:
        body: The encoded envelope.
        batch: The `BATCH` item, with the revision of the counts.
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
    sources: Sources,
    asked: Asked,
    body: Body,
    batch: Batch | None = None,
) -> Answer:
    """Make the answer to a request.

    Args:
        sources: The jobs table, and what is known of large batches.
        asked: The request.
        body: An empty body in the encoding of the answer.
        batch: The `BATCH` item, if it has just been read.

    Raises:
        BatchNotFound: The batch does not exist, has expired or belongs to another owner.
        ServiceUnavailable: DynamoDB returned no complete response in time, or the batch is too large to be counted.
    """
    listing = Listing(asked.query, body)
    if asked.query.cursor is None:
        counted = Counting(sources, asked, listing).counted(batch)
    else:
        counted = _later_page(sources.store, asked, asked.query.cursor, listing)
    written, next_cursor = listing.written(counted.progress)
    return Answer(
        body=written,
        batch=counted.batch,
        progress=counted.progress,
        poll_after=counted.poll_after,
        next_cursor=next_cursor,
        jobs=listing.jobs,
    )


def _later_page(store: BatchStore, asked: Asked, cursor: Cursor, listing: Listing) -> Counted:
    """List the jobs of a later page; its counts and its estimate are those of the first page."""
    query = asked.query
    batch = store.batch(query.batch_id, asked.owner_id, asked.clock(), asked.stats)
    for page in _later_jobs(store, query, cursor, asked.stats):
        listing.add(page)
        if listing.full:
            break
    now = asked.clock()
    return Counted(batch, Progress(now, cursor.counts, cursor.estimate, None), poll_after(cursor.estimate, now))


def _later_jobs(store: BatchStore, query: Query, cursor: Cursor, stats: ReadStats) -> Iterable[Page]:
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


def not_modified(sources: Sources, asked: Asked, if_none_match: str, *, gzip: bool) -> NotModified | Batch | None:
    """Check with one small read whether a client's answer is still current.

    If a full answer is needed, return the `BATCH` item, or `None` if it was not read. `*` takes a count: only the jobs
    show whether the batch is finished, and so whether another poll is worthwhile. Arguments and errors are those of
    `full_answer`; `if_none_match` is the header's value.
    """
    query = asked.query
    if if_none_match.strip() == "*":
        answer = full_answer(sources, replace(asked, query=replace(query, limit=0, status=None)), Identity())
        # `*` matches any answer that the client may have, so the tag must never match again.
        return NotModified(Tag(0, 0, digest(answer.batch, query, gzip=gzip, finished=False)), answer.poll_after)
    now = asked.clock()
    candidates = [tag for tag in tags(if_none_match) if trusted(tag, now)]
    if not candidates:
        return None
    batch = sources.store.batch(query.batch_id, asked.owner_id, now, asked.stats)
    if found := kept_count(query, batch, now):
        # The client may have this very count, whose revision is an earlier one.
        tag = Tag.of(of_count(batch, found), query, found.given(now), gzip=gzip)
        if tag in candidates:
            return NotModified(tag, next_poll_of_kept(found, now))
    running = digest(batch, query, gzip=gzip, finished=False)
    finished = digest(batch, query, gzip=gzip, finished=True)
    for tag in candidates:
        if tag.digest == finished:
            return NotModified(tag, None)
        if tag.digest == running:
            return NotModified(tag, poll_again(tag.eta - now if tag.eta else None))
    return batch
