"""Read batches and their jobs from the jobs table."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from batch_progress import decode, table
from batch_progress.dynamodb import Client
from batch_progress.errors import BatchNotFound
from batch_progress.model import Batch, DetailedJob, Job, Notes, Page
from batch_progress.table import AFTER_JOBS, BATCH_KEY, DETAIL_ATTRIBUTES, JOB_PREFIX, JobStatus

# The first page of a batch is short. It shows to whom the batch belongs and whether a count is kept, and small batches
# are read with one request.
FIRST_PAGE_ITEMS: Final = 200
_PREFIX_LENGTH: Final = len(JOB_PREFIX)
_BATCH_ATTRIBUTES: Final = ("sk", *table.BATCH_ATTRIBUTES, "revision", "counted", "counting")
_JOB_ATTRIBUTES: Final = ("sk", *table.JOB_ATTRIBUTES)
_JOB_VALUES: Final = frozenset((*_JOB_ATTRIBUTES, *DETAIL_ATTRIBUTES))


def _projection(*attributes: str) -> dict[str, Any]:
    """Return the arguments that request only these attributes, by placeholders, since some are reserved words."""
    names = {f"#{attribute}": attribute for attribute in dict.fromkeys(attributes)}
    return {"ProjectionExpression": ",".join(names), "ExpressionAttributeNames": names}


_BATCH_ALONE: Final = _projection(*_BATCH_ATTRIBUTES)
_WHOLE_BATCH: Final = _projection(*_BATCH_ATTRIBUTES, *_JOB_ATTRIBUTES)
_WHOLE_BATCH_DETAILED: Final = _projection(*_BATCH_ATTRIBUTES, *_JOB_ATTRIBUTES, *DETAIL_ATTRIBUTES)
_SUPERVISED_BATCH: Final = _projection(*_BATCH_ATTRIBUTES, *_JOB_ATTRIBUTES, *table.ATTEMPT_ATTRIBUTES)
_JOBS_ALONE: Final = _projection(*_JOB_ATTRIBUTES)
_JOBS_ALONE_DETAILED: Final = _projection(*_JOB_ATTRIBUTES, *DETAIL_ATTRIBUTES)


class ReadStats:
    """What one request read, for its log line.

    Attributes:
        count: Whether the counts were `made` or `kept`; `None` if none were needed.
        unkept: Why a count could not be kept; `None` if none had to be, or it is.
        pages: The number of pages that queries returned.
        read_units: The read request units consumed, by queries and by reads of single items.
        malformed: The sort keys of items with malformed or missing attributes.
    """

    def __init__(self) -> None:
        self.count: str | None = None
        self.unkept: str | None = None
        self.pages = 0
        self.read_units = 0.0
        self.malformed: set[str] = set()


class BatchStore:
    """Reads the jobs table."""

    def __init__(self, client: Client, table: str) -> None:
        self._client = client
        self._table = table

    def batch(self, batch_id: str, owner_id: str | None, now: float, stats: ReadStats) -> Batch:
        """Read a `BATCH` item, with one small read.

        Args:
            batch_id: The batch's id.
            owner_id: The caller's owner id; `None` allows every owner's batch.
            now: Epoch seconds.
            stats: Counts what is read.

        Raises:
            BatchNotFound: The batch does not exist, has expired or belongs to another owner.
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        answer = self._client.get_item(
            TableName=self._table,
            Key=table.batch_key(batch_id),
            ReturnConsumedCapacity="TOTAL",
            **_BATCH_ALONE,
        )
        stats.read_units += answer.consumed.units
        if not bytes(answer.raw):
            raise BatchNotFound(batch_id)
        item, bad = decode.item(answer.raw, decode.Item)
        if bad:
            stats.malformed.add(BATCH_KEY)
        return _visible(item, batch_id, owner_id, now)

    def read(
        self,
        batch_id: str,
        owner_id: str | None,
        now: float,
        stats: ReadStats,
        *,
        detailed: bool = False,
        supervised: bool = False,
    ) -> tuple[Batch, Iterator[Page]]:
        """Read a whole batch: its `BATCH` item, and all its jobs as an iterator that reads page by page.

        The `BATCH` item comes first, on a short page, so that a request for another owner's batch costs only a few read
        units. Arguments and errors are those of `batch`; with `detailed`, jobs are `DetailedJob`s; with `supervised`,
        reads are consistent, and pages have the jobs' attempts.
        """
        answers = self._query(
            "#batch_id = :batch_id AND #sk BETWEEN :from AND :to",
            {":batch_id": batch_id, ":from": BATCH_KEY, ":to": AFTER_JOBS},
            _WHOLE_BATCH_DETAILED if detailed else _SUPERVISED_BATCH if supervised else _WHOLE_BATCH,
            stats,
            detailed=detailed,
            limits=(FIRST_PAGE_ITEMS, None),
            consistent=supervised,
        )
        # An empty page is not necessarily the last one.
        first = next(answer for answer in answers if answer.items or answer.last_key is None)
        if not first.items or first.items[0].sk.S != BATCH_KEY:
            raise BatchNotFound(batch_id)
        if BATCH_KEY in first.malformed:
            stats.malformed.add(BATCH_KEY)
        batch = _visible(first.items[0], batch_id, owner_id, now)
        return batch, (
            _page(answer, stats, detailed=detailed, supervised=supervised) for answer in chain((first,), answers)
        )

    def jobs_after(
        self,
        batch_id: str,
        job_id: str,
        stats: ReadStats,
        *,
        detailed: bool = False,
        limit: int | None = None,
    ) -> Iterator[Page]:
        """Return an iterator over the jobs after `job_id` that reads page by page.

        Args:
            batch_id: The batch's id. The caller must have checked its owner.
            job_id: The job to continue after. It does not have to exist.
            stats: Counts what is read.
            detailed: Whether jobs are `DetailedJob`s.
            limit: The largest number of jobs on one page.

        Raises:
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        answers = self._query(
            "#batch_id = :batch_id AND begins_with(#sk, :jobs)",
            {":batch_id": batch_id, ":jobs": JOB_PREFIX},
            _JOBS_ALONE_DETAILED if detailed else _JOBS_ALONE,
            stats,
            detailed=detailed,
            start=table.job_key(batch_id, job_id),
            limits=(limit, limit),
        )
        return (_page(answer, stats, detailed=detailed) for answer in answers)

    def _query(  # noqa: PLR0913  # the arguments of DynamoDB's `Query`
        self,
        condition: str,
        values: dict[str, str],
        projection: dict[str, Any],
        stats: ReadStats,
        *,
        detailed: bool,
        start: dict[str, Any] | None = None,
        limits: tuple[int | None, int | None],
        consistent: bool = False,
    ) -> Iterator[decode.QueryPage[Any]]:
        """Yield page after page. `limits` are the largest number of items on the first one and on each later one."""
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": {name: {"S": value} for name, value in values.items()},
            "ProjectionExpression": projection["ProjectionExpression"],
            "ExpressionAttributeNames": {**projection["ExpressionAttributeNames"], "#batch_id": "batch_id"},
            "ReturnConsumedCapacity": "TOTAL",
        }
        if consistent:
            arguments["ConsistentRead"] = True
        limit, later_limit = limits
        # A read that begins behind a job has no other items. The supervisor needs more of each job.
        jobs_only = start is not None and not consistent
        while True:
            if limit is not None:
                arguments["Limit"] = limit
            if start is not None:
                arguments["ExclusiveStartKey"] = start
            answer = self._client.query(detailed=detailed, jobs_only=jobs_only, **arguments)
            stats.pages += 1
            stats.read_units += answer.consumed.units
            yield answer
            # The first item is that of the batch; an empty page may come before it.
            jobs_only = (jobs_only or bool(answer.items)) and not consistent
            start = answer.last_key
            if start is None:
                return
            limit = later_limit
            arguments.pop("Limit", None)


def _visible(item: decode.Item, batch_id: str, owner_id: str | None, now: float) -> Batch:
    """Return the batch of a `BATCH` item if the caller may see it.

    Raises:
        BatchNotFound: It has expired or belongs to another owner.
    """
    batch = batch_of(item, batch_id)
    gone = batch.expires_at is not None and batch.expires_at <= now
    if gone or (owner_id is not None and batch.owner_id != owner_id):
        raise BatchNotFound(batch_id)
    return batch


def batch_of(item: decode.Item, batch_id: str) -> Batch:
    """Return the batch of a `BATCH` item."""
    return Batch(
        batch_id=batch_id,
        owner_id=item.owner_id.S if item.owner_id else None,
        total_urls=item.total_urls.N if item.total_urls else 0,
        created_at=item.created_at.S if item.created_at else None,
        parallel_jobs=(item.parallel_jobs.N or None) if item.parallel_jobs else None,
        timeout_per_url=(item.timeout_per_url.N or None) if item.timeout_per_url else None,
        lost_after=(item.lost_after.N or None) if item.lost_after else None,
        cancelled_at=item.cancelled_at.S if item.cancelled_at else None,
        expires_at=item.expires_at.N if item.expires_at else None,
        revision=item.revision.N if item.revision else 0,
        notes=Notes(
            item.counted.S if item.counted else None,
            item.counting.N if item.counting else None,
        ),
    )


def _page(answer: decode.QueryPage[Any], stats: ReadStats, *, detailed: bool, supervised: bool = False) -> Page:
    """Return the jobs of a page. A malformed attribute gets its default, and the item's key is added to `stats`."""
    # The jobs are contiguous, because items are in the order of the sort key.
    begin = bisect_left(answer.items, JOB_PREFIX, key=_sort_key)
    end = bisect_left(answer.items, AFTER_JOBS, begin, key=_sort_key)
    items = answer.items[begin:end]
    # There are few combinations of names, many times each.
    shown = {names for names in set(answer.malformed.values()) if names & _JOB_VALUES}
    stats.malformed.update(
        [key for key, names in answer.malformed.items() if names in shown and key.startswith(JOB_PREFIX)]
    )
    if detailed:
        return _detailed_page(items, stats)
    try:
        jobs = [
            Job(
                item.sk.S[_PREFIX_LENGTH:],
                item.url.S,
                item.status.S,
                item.items_extracted.N if item.items_extracted else 0,
            )
            for item in items
        ]
    except AttributeError:
        stats.malformed.update(_incomplete(items))
        jobs = [
            Job(
                item.sk.S[_PREFIX_LENGTH:],
                item.url.S if item.url else "",
                item.status.S if item.status else _PENDING,
                item.items_extracted.N if item.items_extracted else 0,
            )
            for item in items
        ]
    return Page(
        jobs,
        [item.started_at and item.started_at.S for item in items],
        [item.finished_at and item.finished_at.S for item in items],
        [item.seen_at and item.seen_at.S for item in items],
        [item.error_code and item.error_code.S for item in items],
        [item.attempt and item.attempt.N for item in items] if supervised else [],
    )


# A plain string: hashing a member of an enum is slower.
_PENDING: Final = JobStatus.PENDING.value


def _sort_key(item: decode.Item) -> str:
    return item.sk.S


def _incomplete(items: Sequence[decode.Item]) -> list[str]:
    """Return the sort keys of jobs without a URL or a status."""
    return [item.sk.S for item in items if item.url is None or item.status is None]


def _detailed_page(items: list[decode.DetailedItem], stats: ReadStats) -> Page:
    started = decode.moments([item.started_at.S if item.started_at else None for item in items])
    finished = decode.moments([item.finished_at.S if item.finished_at else None for item in items])
    stats.malformed.update(_incomplete(items))
    error_codes = [item.error_code.S if item.error_code else None for item in items]
    jobs: list[Job] = []
    for item, started_at, finished_at, error_code in zip(items, started, finished, error_codes, strict=True):
        if (item.started_at and not started_at) or (item.finished_at and not finished_at):
            stats.malformed.add(item.sk.S)
        jobs.append(
            DetailedJob(
                item.sk.S[_PREFIX_LENGTH:],
                item.url.S if item.url else "",
                item.status.S if item.status else _PENDING,
                item.items_extracted.N if item.items_extracted else 0,
                item.started_at.S if item.started_at and started_at else None,
                item.finished_at.S if item.finished_at and finished_at else None,
                error_code,
                item.error_message.S if item.error_message else None,
            ),
        )
    return Page(jobs, started, finished, [item.seen_at.S if item.seen_at else None for item in items], error_codes)
