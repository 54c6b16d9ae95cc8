"""Count a batch for an answer, or give the count that is kept.

A small batch is counted by every request. The count of a large one is kept on its `BATCH` item. Requests that list at
most `limit` jobs share it, so that many clients of a large batch cost about as much as one; of requests that come at
once, one counts and the others wait for it (docs/decisions/0013-kept-counts.md).
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from math import ceil, inf
from typing import Final

import msgspec
from msgspec.structs import replace

from batch_progress import dynamodb, kept
from batch_progress.dynamodb import Reason, RequestFailed, RequestRefused
from batch_progress.errors import BatchTooLarge, CountUnderWay, ServiceUnavailable
from batch_progress.kept import KeptCount, KeptCounts, Use, use
from batch_progress.model import Batch, Page
from batch_progress.progress import Basis, Estimate, Progress, Tally, estimate, poll_after
from batch_progress.store import BatchStore, ReadStats
from functions.progress.listing import Listing
from functions.progress.query import Query

# A process remembers this many large batches.
_MOST_BATCHES: Final = 1_000
# Waiting for another request's count: the first pause, the longest one, and the time kept for the answer.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 0.8
_LEAST_SECONDS_LEFT: Final = 1.0
# After its deadline, a request may take this long to note that a batch is too large.
_NOTE_SECONDS: Final = 0.5
# A request that ends so close to its deadline ended because of it.
_AT_DEADLINE_SECONDS: Final = 0.1
# A client that shares counts polls at least this many times before the earliest end of the batch.
_POLLS_TO_THE_END: Final = 4
# No revision of a batch is negative.
_NO_REVISION: Final = -1


class LargeBatches:
    """What this process knows of large batches: the cost of their counts, and which cannot be counted in time."""

    def __init__(self) -> None:
        self._units: dict[str, float] = {}
        self._too_large: dict[str, float] = {}

    def units(self, batch_id: str | None) -> float:
        """Return the read units of the last count of a batch, 0 if none is known."""
        return self._units.get(batch_id or "", 0)

    def note(self, batch_id: str, units: float) -> None:
        """Remember what a count cost."""
        if units > kept.LARGE_UNITS:
            _remember(self._units, batch_id, units)
        else:
            self._units.pop(batch_id, None)

    def is_too_large(self, batch_id: str, now: float) -> bool:
        """Whether a count of a batch did not end in time within the last minute."""
        return now < self._too_large.get(batch_id, 0)

    def note_too_large(self, batch_id: str, now: float) -> None:
        """Remember for a minute that a batch cannot be counted in time."""
        _remember(self._too_large, batch_id, now + kept.GIVEN_UP_SECONDS)


def _remember(values: dict[str, float], batch_id: str, value: float) -> None:
    values.pop(batch_id, None)
    values[batch_id] = value
    if len(values) > _MOST_BATCHES:
        # The one that has been remembered for longest. Another thread may have removed it.
        values.pop(next(iter(values)), None)


class Sources(msgspec.Struct, frozen=True):
    """What answers are made from.

    Attributes:
        store: Reads the jobs table.
        counts: Writes the kept counts.
        large: What this process knows of large batches.
    """

    store: BatchStore
    counts: KeptCounts
    large: LargeBatches


class Asked(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        query: Its parameters.
        owner_id: The caller's owner id; `None` allows every owner's batch.
        clock: Returns epoch seconds. Reading a large batch takes seconds, and an estimate must not be in the past.
        stats: Counts what is read.
    """

    query: Query
    owner_id: str | None
    clock: Callable[[], float]
    stats: ReadStats


class Counted(msgspec.Struct, frozen=True):
    """A batch with its progress.

    Attributes:
        batch: The `BATCH` item. Its revision is that of the count: the answer's tag must not hold for changes that the
            count does not include.
        progress: The progress.
        poll_after: Seconds until the next poll is worthwhile, `None` if the batch is finished.
    """

    batch: Batch
    progress: Progress
    poll_after: int | None


class Counting:
    """Counts one batch for one request, and lists its first jobs."""

    def __init__(self, sources: Sources, asked: Asked, listing: Listing) -> None:
        self._store = sources.store
        self._counts = sources.counts
        self._large = sources.large
        self._query = asked.query
        self._owner_id = asked.owner_id
        self._clock = asked.clock
        self._stats = asked.stats
        self._listing = listing
        self._pages: Iterator[Page] = iter(())
        self._first_page: Page | None = None
        self._units_before = 0.0

    def counted(self, batch: Batch | None = None) -> Counted:
        """Return the batch's progress; its jobs are in the listing.

        Args:
            batch: The `BATCH` item, if it has just been read.

        Raises:
            BatchNotFound: The batch does not exist, has expired or belongs to another owner.
            ServiceUnavailable: DynamoDB returned no complete response in time, or the batch is too large.
        """
        if not shares(self._query):
            return self._count(self._begin())
        if batch is None and self._large.units(self._query.batch_id):
            # Half a unit: probably a count is kept.
            batch = self._read_item()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            counted = self._shared(batch or self._begin())
            if counted:
                return counted
            # Another request is counting, and there is nothing to give: wait for its count.
            if dynamodb.seconds_left() < _LEAST_SECONDS_LEFT + pause:
                raise CountUnderWay
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # jitter, not a secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._first_page = None
            batch = self._read_item()

    def _read_item(self) -> Batch:
        return self._store.batch(self._query.batch_id, self._owner_id, self._clock(), self._stats)

    def _begin(self) -> Batch:
        """Begin to read the whole batch; return its item."""
        self._units_before = self._stats.read_units
        self._began = self._clock()
        batch, self._pages = self._store.read(
            self._query.batch_id, self._owner_id, self._began, self._stats, detailed=self._query.details
        )
        self._first_page = next(self._pages, None)
        return batch

    def _shared(self, batch: Batch) -> Counted | None:
        """Give the kept count or make a new one; return `None` if another request is making the first one."""
        now = self._clock()
        found = KeptCount.read(batch)
        decision = use(found, batch, now)
        if found and decision is Use.GIVE:
            return self._given(batch, found, now)
        if found and decision is Use.RENEW:
            return self._count(batch, claimed=True) if self._claim(batch) else self._given(batch, found, now)
        if self._first_page is None and not self._large.units(batch.batch_id):
            # The first page shows how large the batch is.
            batch = self._begin()
        if not self._is_large(batch):
            return self._count(batch)
        return self._count(batch, claimed=True) if self._claim(batch) else None

    def _is_large(self, batch: Batch) -> bool:
        """Whether counting the batch probably costs more than `LARGE_UNITS`."""
        units = self._large.units(batch.batch_id)
        if not units and self._first_page is not None and self._first_page.jobs:
            jobs = len(self._first_page.jobs)
            units = (self._stats.read_units - self._units_before) / jobs * max(batch.total_urls, jobs)
            self._large.note(batch.batch_id, units)
        return units > kept.LARGE_UNITS

    def _claim(self, batch: Batch) -> bool:
        """Return whether this request may count the batch now; without permission to claim, every request may.

        Raises:
            BatchTooLarge: A count of the batch did not end in time.
        """
        now = self._clock()
        self._check_size(batch, now)
        if kept.is_leased(batch, now):
            return False
        try:
            return self._counts.claim(batch.batch_id, now)
        except RequestRefused as error:
            self._stats.unkept = str(error)
            return True

    def _given(self, batch: Batch, found: KeptCount, now: float) -> Counted:
        """Give a kept count, and list the first jobs."""
        self._stats.count = "kept"
        self._large.note(batch.batch_id, found.units)
        self._list_first()
        return Counted(of_count(batch, found), found.given(now), next_poll_of_kept(found, now))

    def _list_first(self) -> None:
        """List the first jobs, up to the limit."""
        limit = self._query.limit or 0
        if not limit:
            return
        last = ""
        if self._first_page and self._first_page.jobs:
            self._listing.add(self._first_page)
            last = self._first_page.jobs[-1].job_id
        if not self._listing.full:
            rest = self._store.jobs_after(
                self._query.batch_id,
                last,
                self._stats,
                detailed=self._query.details,
                # One more shows whether there is a next page.
                limit=limit + 1 - self._listing.jobs,
            )
            for page in rest:
                self._listing.add(page)
                if self._listing.full:
                    break

    def _check_size(self, batch: Batch, now: float) -> None:
        if self._large.is_too_large(batch.batch_id, now) or kept.gave_up(batch, now):
            raise BatchTooLarge

    def _count(self, batch: Batch, *, claimed: bool = False) -> Counted:
        """Count the batch, and keep the count if it is large."""
        self._stats.count = "made"
        self._check_size(batch, self._clock())
        if self._first_page is None:
            batch = self._begin()
        tally = Tally(batch)
        try:
            for page in self._all_pages():
                tally.add(page)
                self._listing.add(page)
        except ServiceUnavailable as error:
            if self._took_too_long(error):
                self._give_up(batch.batch_id)
                raise BatchTooLarge from error.__cause__
            raise
        counts = tally.counts()
        now = self._clock()
        units = self._stats.read_units - self._units_before
        keep = claimed or units > kept.LARGE_UNITS
        summary = tally.summary() if keep or self._query.summary else None
        progress = Progress(self._began, counts, estimate(batch, counts, tally.observed(), now), summary)
        self._large.note(batch.batch_id, units)
        if keep:
            self._keep(batch.batch_id, KeptCount.of(batch, progress, units))
        seconds = units / kept.UNITS_PER_SECOND if units > kept.LARGE_UNITS else 0
        return Counted(batch, progress, _next_poll(progress.estimate, now, seconds, shared=shares(self._query)))

    def _all_pages(self) -> Iterable[Page]:
        if self._first_page is not None:
            yield self._first_page
        yield from self._pages

    def _keep(self, batch_id: str, count: KeptCount) -> None:
        # The answer is right even if its count cannot be kept.
        try:
            self._counts.keep(batch_id, count)
        except (ServiceUnavailable, RequestRefused) as error:
            self._stats.unkept = str(error.__cause__ or error)

    def _took_too_long(self, error: ServiceUnavailable) -> bool:
        """Whether a read failed because the deadline had passed after much had been read."""
        cause = error.__cause__
        if not isinstance(cause, RequestFailed) or self._stats.read_units - self._units_before <= kept.LARGE_UNITS:
            return False
        if cause.reason is Reason.NO_TIME:
            return True
        at_deadline = dynamodb.seconds_left() < _AT_DEADLINE_SECONDS
        return at_deadline and cause.reason in (Reason.SILENT, Reason.UNREACHABLE)

    def _give_up(self, batch_id: str) -> None:
        now = self._clock()
        self._large.note(batch_id, self._stats.read_units)
        self._large.note_too_large(batch_id, now)
        # Other environments should not try either. This one does not depend on it.
        with dynamodb.deadline(time.monotonic() + _NOTE_SECONDS), suppress(ServiceUnavailable, RequestRefused):
            self._counts.give_up(batch_id, now)


def shares(query: Query) -> bool:
    """Whether the request may get a kept count: it has a limit, does not filter, and is for the first page."""
    return query.limit is not None and query.status is None and query.cursor is None


def of_count(batch: Batch, count: KeptCount) -> Batch:
    """Return a batch with the revision of its kept count, for the tag of an answer with that count.

    A count of a `BATCH` item that has changed since gets a revision that no batch has: its tag never matches.
    """
    same = count.batch == kept.fingerprint(batch)
    return replace(batch, revision=count.revision if same else _NO_REVISION)


def kept_count(query: Query, batch: Batch, now: float) -> KeptCount | None:
    """Return the kept count of a batch if a request may get it without asking further."""
    found = KeptCount.read(batch) if shares(query) else None
    return found if use(found, batch, now) is Use.GIVE else None


def next_poll_of_kept(found: KeptCount, now: float) -> int | None:
    """Return the seconds until a poll after a kept count is worthwhile, `None` if the batch is finished."""
    return _next_poll(found.given(now).estimate, now, found.seconds_to_share(now), shared=True)


def _next_poll(expected: Estimate, now: float, count_seconds: float, *, shared: bool) -> int | None:
    """Return the seconds until the next poll is worthwhile, `None` if the batch is finished.

    Args:
        expected: When the batch is expected to end.
        now: Epoch seconds.
        count_seconds: Seconds until the batch may be counted again.
        shared: Whether the request shares counts: an earlier poll then costs little, and it may show the end of the
            batch, which can come at any time from `earliest` on.
    """
    seconds = poll_after(expected, now)
    if seconds is None:
        return None
    ends_early = shared and expected.basis is not Basis.STALLED
    left = (expected.earliest - now) / _POLLS_TO_THE_END if ends_early else inf
    return min(max(seconds, ceil(min(count_seconds, left))), 60)
