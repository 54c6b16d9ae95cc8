"""Make sure that every batch ends, and announce it.

A check of a batch reads it whole, fails the jobs whose workers are lost, keeps the count, announces that the batch has
finished or stalls, and asks for the next check. Each step can be repeated: after a crash, the check is delivered again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from batch_progress import decode, table
from batch_progress.chains import Chains, Supervised, count_of, supervised
from batch_progress.dynamodb import Client, RequestRefused
from batch_progress.errors import BatchNotFound
from batch_progress.kept import KeptCount, KeptCounts
from batch_progress.messages import Bus, Queue
from batch_progress.model import Batch, Job, Page
from batch_progress.progress import Progress, Tally, ended_at, estimate, stalls_at
from batch_progress.store import BatchStore, ReadStats
from batch_progress.supervision import (
    Announcement,
    Check,
    Event,
    after_count,
    after_look,
    announcement,
    delay_seconds,
    event,
    has_expired,
    is_outdated,
    lost_at,
    must_count,
)
from batch_progress.table import WORKER_LOST, JobStatus, timestamp

# Lost jobs that one check fails; the next check, which follows at once, fails the rest.
MOST_LOST: Final = 500
# A check counts a batch at most this often, if other checks announce something while it counts.
_COUNTS: Final = 3
_encoder: Final = msgspec.json.Encoder()
_attributes: Final = msgspec.json.Decoder(dict[str, dict[str, Any]])


class Outcome(StrEnum):
    """What a check did."""

    GONE = "gone"  # the batch does not exist, or has expired: its chain ends
    DROPPED = "dropped"  # a later check of the batch exists
    LOOKED = "looked"  # nothing can have happened that only the jobs show
    COUNTED = "counted"
    FINISHED = "finished"  # counted, and the chain ends


class Done(msgspec.Struct):
    """What a check did and cost, for its log line.

    Attributes:
        outcome: What it did.
        lost: The number of jobs that it failed.
        announced: The id of the event that it put, `None` if it put none.
        jobs: The number of jobs and declared URLs of the batch, if it was counted.
        stats: What it read.
    """

    outcome: Outcome
    stats: ReadStats
    lost: int = 0
    announced: str | None = None
    jobs: int = 0


class Interrupted(Exception):
    """Another check of the same batch announces something at this moment; this one has to be repeated."""


class Supervisor:
    """Checks batches.

    Args:
        client: A client of DynamoDB.
        jobs_table: The table's name.
        queue: Where checks are sent.
        bus: Where events are put.
        clock: Returns epoch seconds.
    """

    def __init__(
        self, client: Client, jobs_table: str, queue: Queue, bus: Bus, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._table = jobs_table
        self._store = BatchStore(client, jobs_table)
        self._counts = KeptCounts(client, jobs_table)
        self._chains = Chains(client, jobs_table, queue)
        self._bus = bus
        self._clock = clock

    def check(self, check: Check) -> Done:
        """Do a check.

        Raises:
            ServiceUnavailable: A service gave no answer in time; repeat the check.
            Interrupted: Repeat the check.
        """
        done = Done(Outcome.GONE, ReadStats())
        found = self._look(check.batch_id, done.stats)
        now = self._clock()
        if found is None or has_expired(found.batch, now):
            return done
        if check.number < found.chain.number:
            done.outcome = Outcome.DROPPED
        elif found.count is not None and not must_count(check, found.batch, found.count, now):
            done.outcome = Outcome.LOOKED
            following = after_look(check, found.batch, now)
            after = self._chains.ask(following, delay_seconds(following, now), now)
            if after is not None and is_outdated(after.batch, found.count):
                self._ask_at_once(after, now)
        else:
            try:
                self._count_and_tell(check, found, done)
            except BatchNotFound:
                done.outcome = Outcome.GONE
        return done

    def _count_and_tell(self, check: Check, found: Supervised, done: Done) -> None:
        """Count and announce a batch. Repeat at once if another check has announced it: SQS would take minutes."""
        for _ in range(_COUNTS - 1):
            with suppress(Interrupted):
                self._count(check, found, done)
                return
            again = self._look(check.batch_id, done.stats)
            if again is None:
                raise BatchNotFound(check.batch_id)
            found = again
        self._count(check, found, done)

    def _look(self, batch_id: str, stats: ReadStats) -> Supervised | None:
        """Read a `BATCH` item."""
        answer = self._client.get_item(
            TableName=self._table,
            Key=table.batch_key(batch_id),
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
        )
        stats.read_units += answer.consumed.units
        return supervised(answer.raw, batch_id)

    def _ask_at_once(self, after: Supervised, now: float) -> None:
        self._chains.ask(Check(after.batch.batch_id, after.chain.number + 1), 0, now)

    def _count(self, check: Check, found: Supervised, done: Done) -> None:
        """Count a batch, fail its lost jobs, announce it, and ask for the next check."""
        stats = ReadStats()
        began = self._clock()
        batch, pages = self._store.read(check.batch_id, None, began, stats, supervised=True)
        tally, watch = Tally(batch), _LostJobs(self._client, self._table, batch, self._clock)
        for page in pages:
            tally.add(watch.judged(page))
        # The read is consistent, which costs twice as much as the reads that the kept count tells of.
        units = stats.read_units / 2
        done.outcome = Outcome.COUNTED
        done.lost += watch.lost
        done.stats.read_units += stats.read_units
        done.stats.pages = stats.pages
        done.stats.malformed = stats.malformed
        now = self._clock()
        counts, observed = tally.counts(), tally.observed()
        done.jobs = counts.total_urls
        summary = tally.summary()
        progress = Progress(began, counts, estimate(batch, counts, observed, now), summary)
        kept = KeptCount.of(batch, progress, units)
        self._counts.keep(check.batch_id, kept)

        moved = observed.last_moved or batch.created_at
        ended = ended_at(batch, observed)
        told = announcement(progress, batch.revision, found.announced, ended=ended, moved=moved)
        if told is not None:
            self._announce(told, found, event(told, batch, progress, summary))
            done.announced = told.id(batch.batch_id)
        if counts.finished:
            done.outcome = Outcome.FINISHED
            self._end(check, batch, now)
            return
        stall = stalls_at(batch, observed)
        next_stall = stall if stall is not None and stall >= now else None
        following = after_count(check, batch, units, watch.next_lost, next_stall, now)
        after = self._chains.ask(following, delay_seconds(following, now), now)
        if after is not None and is_outdated(after.batch, count_of(kept, after.batch)):
            # The last job may have ended while the batch was read.
            self._ask_at_once(after, now)

    def _announce(self, told: Announcement, found: Supervised, told_as: Event) -> None:
        """Put an event, and note that before and after: a crash between the two repeats the event, with the same id."""
        if found.announced.latest(told.kind) != told:
            found = self._noted(found, told)
        self._bus.put(told_as)
        self._noted(found, replace(told, put=True))

    def _noted(self, found: Supervised, told: Announcement) -> Supervised:
        """Note an announcement, unless another check has noted one since."""
        values = {":new": {"S": _encoder.encode(found.announced.noted(told)).decode()}}
        condition = "attribute_not_exists(#announced)"
        if found.announced_text is not None:
            condition = "#announced = :old"
            values[":old"] = {"S": found.announced_text}
        after = self._chains.note(found.batch.batch_id, "SET #announced = :new", condition, values)
        if after is None:
            raise Interrupted
        return after

    def _end(self, check: Check, batch: Batch, now: float) -> None:
        """End the chain of a batch that has finished and is announced."""
        after = self._chains.end(check)
        # If this was not noted, a later check exists.
        if after is not None and after.batch.revision != batch.revision:
            # Jobs have changed since, and the function that counts the changes knew of this check.
            self._ask_at_once(after, now)


class _LostJobs:
    """Fails the jobs whose workers are lost.

    Attributes:
        lost: The number of jobs that were failed.
        next_lost: When the next job is lost unless it shows a sign of life, in epoch seconds; `None` if none can be.
    """

    def __init__(self, client: Client, jobs_table: str, batch: Batch, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = jobs_table
        self._batch = batch
        self._clock = clock
        self._next = inf
        self.lost = 0

    @property
    def next_lost(self) -> float | None:
        return None if self._next == inf else self._next

    def judged(self, page: Page) -> Page:
        """Return a page with its lost jobs failed."""
        lost_after = self._batch.lost_after
        if lost_after is None:
            return page
        for index in self._suspects(page):
            job = page.jobs[index]
            moment = lost_at(job.status, page.started[index], page.seen[index], lost_after)
            ended = self._failed(job.job_id) if self.lost < MOST_LOST else None
            if ended is not None:
                self.lost += 1
                page.jobs[index] = Job(job.job_id, job.url, JobStatus.FAILED.value, job.items_extracted)
                page.finished[index] = ended
                page.error_codes[index] = WORKER_LOST
            elif moment is not None:
                self._next = min(self._next, moment)
        return page

    def _suspects(self, page: Page) -> Iterator[int]:
        """Yield the positions of the jobs that may be lost, and take the next moment from the others."""
        now, lost_after = self._clock(), self._batch.lost_after
        for index, job in enumerate(page.jobs):
            if job.status != JobStatus.PROCESSING:
                continue
            moment = lost_at(job.status, page.started[index], page.seen[index], lost_after)
            if moment is None:
                continue
            if moment < now:
                yield index
            else:
                self._next = min(self._next, moment)

    def _failed(self, job_id: str) -> datetime | None:
        """Fail a job if it is lost; return when, or `None` if it is not."""
        key = table.job_key(self._batch.batch_id, job_id)
        raw = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True).raw
        if not bytes(raw):
            return None
        item, _ = decode.item(raw, decode.Item)
        now = datetime.fromtimestamp(self._clock(), UTC)
        started, seen = (each.S if each else None for each in (item.started_at, item.seen_at))
        moment = lost_at(item.status.S if item.status else "", started, seen, self._batch.lost_after)
        if moment is None or moment >= now.timestamp():
            return None
        # The stored text, unchanged: other writers may format times differently.
        stored = _attributes.decode(raw)
        read = {name: stored[name] for name in ("status", "attempt", "started_at", "seen_at") if name in stored}
        same = [f"#{name} = :{name}_read" for name in read]
        same += [f"attribute_not_exists(#{name})" for name in ("attempt", "started_at", "seen_at") if name not in read]
        values = table.item(
            status=JobStatus.FAILED,
            finished_at=timestamp(now),
            error_code=WORKER_LOST,
            error_message=f"The worker showed no sign of life for {self._batch.lost_after:g} seconds.",
        )
        names = {*values, *read, "attempt", "started_at", "seen_at"}
        try:
            self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
                ConditionExpression=" AND ".join(same),
                ExpressionAttributeNames={f"#{name}": name for name in sorted(names)},
                ExpressionAttributeValues={f":{name}": value for name, value in values.items()}
                | {f":{name}_read": value for name, value in read.items()},
            )
        except RequestRefused as error:
            if error.code == "ConditionalCheckFailedException":
                return None
            raise
        return now
