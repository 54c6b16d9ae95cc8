"""Which answers the contract allows, judged by what DynamoDB served and when.

It shares no code with the functions: rows are read in DynamoDB's JSON, and every rule is written out here once more.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import floor, inf
from typing import Any, Final

from local_cloud.dynamodb import Item
from tests.hostile.histories.cloud import JOBS_TABLE, Call, Task
from tests.hostile.histories.engine import Served, Version

STATUSES: Final = ("pending", "processing", "completed", "failed", "cancelled")
# The answer about a batch that costs more than this may be an earlier count.
SMALL_UNITS: Final = 100
OLDEST_SECONDS: Final = 60
OLDEST_UNCHANGED_SECONDS: Final = 50
LEASE_SECONDS: Final = 10
# A request that takes longer may be answered with a 503.
GIVEN_UP_SECONDS: Final = 90
# A note of such a count is further ahead than any lease.
NOTE_SECONDS: Final = 1_000_000
PATIENCE_SECONDS: Final = 7
LARGEST: Final = 2**63 - 1
# The attributes of `BATCH` that each function may write.
ROLES: Final = {
    "poll": {"counted", "counted_at", "counting"},
    "revision": {"revision", "check_number", "check_due"},
    "check": {"counted", "counted_at", "counting", "check_number", "check_due", "announced"},
}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


# ---- Attributes, each with its default where it is malformed -------------------------------------------------


def whole(item: Mapping[str, Any], name: str) -> int:
    """Return a whole number of at least 0, 0 for anything else."""
    text = item.get(name, {}).get("N", "")
    return int(text) if re.fullmatch(r"\d{1,19}", text) and int(text) <= LARGEST else 0


def text(item: Mapping[str, Any], name: str) -> str | None:
    """Return a string, `None` for anything else."""
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) else None


def moment(item: Mapping[str, Any], name: str) -> float | None:
    """Return a timestamp in epoch seconds, `None` for anything else."""
    value = text(item, name)
    return datetime.fromisoformat(value).timestamp() if value and _TIME.fullmatch(value) else None


def others(batch: Item) -> tuple[object, ...]:
    """Return what others than the service say in a `BATCH` item. What is malformed is as good as absent."""
    return (
        text(batch, "owner_id"),
        *(whole(batch, name) for name in ("total_urls", "parallel_jobs")),
        *(moment(batch, name) for name in ("created_at", "cancelled_at")),
        *(batch.get(name, {}).get("N") for name in ("timeout_per_url", "lost_after", "expires_at")),
    )


# ---- Counts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What an answer must tell of these rows.

    Attributes:
        counts: `total_urls`, `completed`, `failed`, `pending`, `total_items_extracted`.
        summary: `statuses` and `failures`.
        end: Of a finished batch, its end; infinity if none is recorded.
    """

    counts: Mapping[str, int]
    summary: Mapping[str, Any]
    end: float

    @property
    def finished(self) -> bool:
        return self.counts["pending"] == 0

    @classmethod
    def of(cls, batch: Item, rows: Iterable[Item]) -> "Truth":
        """Count the jobs of a batch."""
        rows = list(rows)
        statuses = Counter(status if (status := text(row, "status")) in STATUSES else "pending" for row in rows)
        missing = max(whole(batch, "total_urls") - len(rows), 0)
        cancelled_at = moment(batch, "cancelled_at")
        statuses["pending" if cancelled_at is None else "cancelled"] += missing
        codes = Counter(
            code[:100] if (code := text(row, "error_code")) is not None else None
            for row in rows
            if text(row, "status") == "failed"
        )
        ranked = sorted(codes.items(), key=lambda entry: (-entry[1], entry[0] is None, entry[0] or ""))
        ends = [end for row in rows if (end := moment(row, "finished_at")) is not None]
        if cancelled_at is not None:
            ends.append(cancelled_at)
        created = moment(batch, "created_at")
        return cls(
            counts={
                "total_urls": statuses.total(),
                "completed": statuses["completed"],
                "failed": statuses["failed"] + statuses["cancelled"],
                "pending": statuses["pending"] + statuses["processing"],
                "total_items_extracted": sum(whole(row, "items_extracted") for row in rows),
            },
            summary={
                "statuses": {status: statuses[status] for status in STATUSES},
                "failures": [{"error_code": code, "jobs": jobs} for code, jobs in ranked[:10]],
            },
            end=max(ends, default=inf if created is None else created),
        )


@dataclass
class Walk:
    """Pages that one task read one after the other, from the first job to the last one that it looked at.

    Attributes:
        batch: The version of the `BATCH` item on them.
        rows: The versions of the jobs on them.
        began: When the task went on after its last call before the first page.
        ended: When the task went on after the last page.
        units: What they cost, with eventually consistent reads.
        complete: Whether they include the last job.
        up_to: The last sort key that they cover.
    """

    batch: Version | None
    rows: list[Version]
    began: float
    ended: float
    units: float
    offset: float
    complete: bool = False
    up_to: str | None = None
    _truth: Truth | None = field(default=None, repr=False)

    def add(self, call: Call) -> None:
        served = call.served
        for version in served.versions:
            key = (version.item or {})["sk"]["S"]
            if key == "BATCH":
                self.batch = version
            elif key.startswith("JOB#"):
                self.rows.append(version)
        self.ended = call.resumed
        self.units += served.units / (2 if served.consistent else 1)
        self.up_to = served.to_key
        self.complete = served.to_key is None or served.to_key >= "JOB$"

    def replace(self, version: Version) -> None:
        """Replace a job with a later version of it."""
        key = (version.item or {})["sk"]
        self.rows = [version if (row.item or {})["sk"] == key else row for row in self.rows]

    @property
    def truth(self) -> Truth:
        if self._truth is None:
            batch = (self.batch.item if self.batch else None) or {}
            self._truth = Truth.of(batch, (row.item or {} for row in self.rows))
        return self._truth


def walks(task: Task) -> list[Walk]:
    """Return the walks over all jobs that a task began, complete or not.

    If the task itself has changed a job since, they contain the changed job.
    """
    found: list[Walk] = []
    for call in task.calls:
        served = call.served
        if call.lost or served.table != JOBS_TABLE:
            continue
        if served.operation == "UpdateItem" and found:
            found[-1].replace(served.versions[0])
        if served.operation != "Query":
            continue
        if found and "ExclusiveStartKey" in served.arguments and found[-1].up_to == served.from_key:
            found[-1].add(call)
        elif served.from_key <= "JOB#":
            found.append(Walk(None, [], call.asked, served.at, 0.0, task.offset))
            found[-1].add(call)
        elif found:
            # Another read, which no walk goes on after.
            found[-1].up_to = None
    return found


def batches(task: Task, batch_id: str) -> Iterator[tuple[Call, Version | None]]:
    """Yield each read of a task that covers the `BATCH` item, with the version that it found."""
    for call in task.calls:
        served = call.served
        if call.lost or served.table != JOBS_TABLE:
            continue
        found = next((version for version in served.versions if (version.item or {})["sk"] == {"S": "BATCH"}), None)
        if served.operation == "GetItem" and served.arguments["Key"] == {
            "batch_id": {"S": batch_id},
            "sk": {"S": "BATCH"},
        }:
            yield call, found
        if served.operation == "Query" and "ExclusiveStartKey" not in served.arguments and served.from_key <= "BATCH":
            yield call, found


# ---- Answers ------------------------------------------------------------------------------------------------


@dataclass
class Poll:
    """A request and its answer.

    Attributes:
        task: The invocation.
        parameters: The query.
        owner: The caller, `None` for a direct call that names none.
        direct: Whether it was a direct call.
        held: The earlier answer whose tag was sent; the tag is `*` where it is the poll itself.
        status: The HTTP status.
        data: Of a 200.
        headers: In lower case.
        counted: The walks that the answer may have been counted from.
    """

    task: Task
    parameters: Mapping[str, Any]
    owner: str | None
    direct: bool
    held: "Poll | None" = None
    any_tag: bool = False
    status: int = 0
    code: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    counted: list[Walk] = field(default_factory=list)
    first: "Poll | None" = None

    @property
    def tag(self) -> str | None:
        return self.headers.get("etag")

    @property
    def limit(self) -> int | None:
        limit = self.parameters.get("limit")
        return None if limit is None else int(limit)

    @property
    def may_reuse(self) -> bool:
        """Whether the contract allows an earlier count: with a limit, and all jobs in the listing."""
        return self.limit is not None and "status" not in self.parameters

    @property
    def includes(self) -> str:
        return ",".join(self.parameters.get("include", ()))


@dataclass
class Claim:
    """A lease that a request has obtained, or a foreign writer has set; it is over when the count is kept."""

    task: Task | None
    at: float
    over: float = inf


class Oracle:
    """Judges what the functions do in one history.

    Attributes:
        batch_id: The batch of the history.
        wrong: What was wrong, in words.
        reused: The number of answers from an earlier count.
        answers: How many answers there were, by status.
        skew: The most that two clocks differ, in seconds.
        lag: The most that a read is behind, in seconds.
    """

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.wrong: list[str] = []
        self.reused = 0
        self.answers: Counter[str] = Counter()
        self.skew = 0.0
        self.lag = 0.0
        self._walks: list[tuple[Task, Walk]] = []
        self._claims: list[Claim] = []
        # When a request last gave up a count that took too long.
        self._gave_up = -inf
        # The walks of the counts that were kept, by the text that was kept.
        self._kept: dict[str, Walk] = {}
        # How many jobs are known to have changed, by version of the `BATCH` item.
        self._changes: dict[int, int] = {}
        self._removed: list[float] = []
        # Versions in which a foreign writer set the revision.
        self._resets: list[int] = []

    def fault(self, kind: str, words: str) -> None:
        self.wrong.append(f"{kind}: {words}")

    # Writes

    def wrote(self, task: Task, served: Served, jobs: int | None) -> None:
        """Judge a write of one of the functions.

        Args:
            task: The invocation.
            served: The write.
            jobs: For the revision function, the number of distinct jobs of the batch in its records.
        """
        before = served.before.item if served.before else None
        after = served.versions[0].item or {}
        if before is None or "owner_id" not in before:
            self.fault("ghost", f"{task.name} wrote a BATCH item without an owner")
            before = before or {}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if changed - ROLES[task.name.partition(" ")[0]]:
            self.fault("role", f"{task.name} changed {sorted(changed)}")
        if jobs is not None and "revision" in served.arguments.get("ExpressionAttributeNames", {}).values():
            self._changes[served.versions[0].number] = jobs
            added = int(after["revision"]["N"]) - int(before.get("revision", {}).get("N", 0))
            if added != jobs:
                self.fault("distinct", f"{added} added to the revision for {jobs} distinct jobs")
        if "counting" in changed and "counting" in after:
            self._claimed(task, served, before, after)
        if "counted" in changed and "counted" in after:
            self._stored(task, served, after)
        if "counted_at" in changed:
            self._newer(task, before, after)

    def _claimed(self, task: Task, served: Served, before: Item, after: Item) -> None:
        if float(after["counting"]["N"]) - served.at > NOTE_SECONDS:
            self._gave_up = served.at
        else:
            self._in_force(task, served, before)
        self._claims.append(Claim(task, served.at))

    def _stored(self, task: Task, served: Served, after: Item) -> None:
        self._kept[after["counted"]["S"]] = walk = [walk for walk in walks(task) if walk.complete][-1]
        self._walks.append((task, walk))
        for claim in self._claims:
            if claim.task is task:
                claim.over = served.at

    def _in_force(self, task: Task, served: Served, before: Item) -> None:
        """A lease is not taken from a request that holds it."""
        until = float(before.get("counting", {}).get("N", 0))
        if self.skew + 0.01 < until - served.at <= LEASE_SECONDS and not task.faults:
            self.fault("lease", f"{task.name} took a lease that another request holds for {until - served.at:.1f} s")

    def _newer(self, task: Task, before: Item, after: Item) -> None:
        """A count never replaces a newer one, unless that is from a future that cannot be."""
        old, new = before.get("counted_at", {}).get("N"), float(after["counted_at"]["N"])
        if old is not None and new < float(old) <= new + OLDEST_SECONDS - self.skew:
            self.fault("older", f"{task.name} replaced the count of {old} with that of {new}")

    def reset(self, version: Version) -> None:
        """Note that a foreign writer set the revision, and maybe a lease."""
        self._resets.append(version.number)
        if float((version.item or {}).get("counting", {}).get("N", 0)) > version.at:
            self._claims.append(Claim(None, version.at))

    def removed(self, version: Version) -> None:
        """Note that the `BATCH` item was deleted."""
        self._removed.append(version.at)

    def _known(self, count: Version, served: Version) -> int:
        """Return how many jobs are known to have changed between two versions of `BATCH`."""
        first, last = sorted((count.number, served.number))
        if any(first < number <= last for number in self._resets):
            return revision(served) - revision(count)
        changes = sum(jobs for number, jobs in self._changes.items() if first < number <= last)
        return changes if first == count.number else -changes

    # Reads

    def heard(self, task: Task) -> None:
        """Record what another function has read: answers may have its counts."""
        self._walks += [(task, walk) for walk in walks(task) if walk.complete]

    def check(self, poll: Poll) -> None:
        """Judge an answer."""
        task = poll.task
        # A task that died after its count may have stored it.
        self._walks += [(task, walk) for walk in walks(task) if walk.complete]
        if task.died:
            return
        if task.error is not None:
            self.fault("crash", f"{task.name}: {task.error!r}")
            return
        self.answers[str(poll.status)] += 1
        seen = list(batches(task, self.batch_id))
        match poll.status:
            case 503:
                self._unavailable(task)
            case 404:
                if seen and self._visible(poll, *seen[-1]) is True:
                    self.fault("missing", f"{task.name}: 404 for a batch that was there")
            case 200 | 304:
                if not seen or self._visible(poll, *seen[-1]) is False:
                    self.fault("visible", f"{task.name}: {poll.status} for a batch that the caller may not see")
                else:
                    self._success(poll, seen)
            case _:
                self.fault("status", f"{task.name}: {poll.status} {poll.code}")

    def _unavailable(self, task: Task) -> None:
        # A request that waits for another one's count may give up, and its environment remembers a count that did.
        slow = task.ended - task.began >= PATIENCE_SECONDS
        if slow:
            self._gave_up = task.ended
        # To a clock that is so far off, a lease looks like the note of a count that took too long.
        slow |= self.skew > LEASE_SECONDS or task.began <= self._gave_up + GIVEN_UP_SECONDS + self.skew
        if not slow and not task.faults:
            self.fault("unavailable", f"{task.name}: 503 without a failure")

    def _success(self, poll: Poll, seen: list[tuple[Call, Version | None]]) -> None:
        if poll.status == 304:
            self._unchanged(poll, seen)
        elif "cursor" in poll.parameters:
            self._later_page(poll)
        else:
            self._answer(poll, seen)

    def _visible(self, poll: Poll, call: Call, version: Version | None) -> bool | None:
        """Whether the caller may see the batch; `None` if it expires just then."""
        if version is None or version.item is None:
            return False
        if poll.owner is not None and text(version.item, "owner_id") != poll.owner:
            return False
        expiry = version.item.get("expires_at", {}).get("N")
        if expiry is None:
            return True
        early, late = poll.task.began + poll.task.offset, call.resumed + poll.task.offset
        if float(expiry) > late:
            return True
        return False if float(expiry) <= early else None

    def _answer(self, poll: Poll, seen: list[tuple[Call, Version | None]]) -> None:
        task, data = poll.task, poll.data
        mine = [walk for walk in walks(task) if walk.complete]
        fresh = [walk for walk in mine if self._told(poll, walk)]
        told = {name: data[name] for name in mine[0].truth.counts} if mine else {}
        if fresh:
            poll.counted = fresh
        elif not poll.may_reuse:
            expected = [walk.truth for walk in mine]
            self.fault("full", f"{task.name} {dict(poll.parameters)}: told {told or data}, rows say {expected}")
        else:
            poll.counted = self._earlier(poll, seen, mine)
        if poll.may_reuse:
            self._thrift(poll, seen, mine)
        self._listing(poll)
        self._header(poll)

    def _thrift(self, poll: Poll, seen: list[tuple[Call, Version | None]], mine: list[Walk]) -> None:
        """Of requests that share counts, only one counts a large batch at a time."""
        task = poll.task
        if poll.limit or task.faults or any(claim.task is task for claim in self._claims):
            return
        counted = text(seen[0][1].item or {}, "counted") if seen[0][1] else None
        kept = self._kept.get(counted or "")
        age = seen[0][0].served.at - kept.began if kept else inf
        if kept is None or kept.units <= SMALL_UNITS or age + self.skew > OLDEST_SECONDS - 1:
            return
        for walk in mine:
            if walk.units > 2 * SMALL_UNITS:
                self.fault("thrift", f"{task.name} {dict(poll.parameters)}: counted without the lease")

    def _told(self, poll: Poll, walk: Walk) -> bool:
        """Whether an answer tells what the rows of a walk say."""
        data, truth = poll.data, walk.truth
        if any(data[name] != count for name, count in truth.counts.items()):
            return False
        if truth.finished and truth.end != inf and epoch(data["estimated_completion"]) != floor(truth.end):
            return False
        if "estimate" in data and (data["estimate"]["basis"] == "finished") != truth.finished:
            return False
        if "summary" not in data:
            return True
        summary = dict(data["summary"])
        as_of = epoch(summary.pop("as_of"))
        made = floor(walk.began + walk.offset), floor(walk.ended + walk.offset)
        return summary == dict(truth.summary) and made[0] <= as_of <= made[1]

    def _earlier(self, poll: Poll, seen: list[tuple[Call, Version | None]], mine: list[Walk]) -> list[Walk]:
        """Judge an answer that was not counted by this request; return the walks that it may be from."""
        candidates = [walk for task, walk in self._walks if task is not poll.task and self._told(poll, walk)]
        if not candidates:
            told = {name: poll.data[name] for name in ("total_urls", "completed", "failed", "pending")}
            self.fault(
                "invented",
                f"{poll.task.name} {dict(poll.parameters)}: told {told} {poll.data.get('summary')}, which no walk saw; "
                f"its own: {[walk.truth for walk in mine]}",
            )
            return []
        reasons = {why: walk for walk in candidates if (why := self._too_old(poll, walk, seen))}
        allowed = [walk for walk in candidates if walk not in reasons.values()]
        if not allowed:
            self.fault("stale", f"{poll.task.name} {dict(poll.parameters)}: {'; '.join(reasons)}")
        self.reused += 1
        return allowed

    def _too_old(self, poll: Poll, walk: Walk, seen: list[tuple[Call, Version | None]]) -> str | None:
        """Return why the answer must not be from this count, `None` if it may be."""
        whys = [self._barred(poll, walk, call, version) for call, version in seen if version is not None]
        return None if None in whys else whys[-1]

    def _barred(self, poll: Poll, walk: Walk, call: Call, version: Version) -> str | None:
        made = walk.ended
        if "summary" in poll.data:
            made = min(made, epoch(poll.data["summary"]["as_of"]) + 1 - walk.offset)
        # The clock is read before the item, at the earliest after the call before.
        age = call.asked - made - self.skew
        item, counted = version.item or {}, (walk.batch.item if walk.batch else None) or {}
        if walk.units <= SMALL_UNITS:
            return f"the count took only {walk.units} units"
        if age >= OLDEST_SECONDS:
            return f"it is {age:.1f} s old"
        if self._being_counted(poll, call):
            return None
        if walk.batch is None or others(item) != others(counted):
            return "the BATCH item is another"
        return self._changed_since(walk, walk.batch, version, age)

    def _changed_since(self, walk: Walk, counted: Version, version: Version, age: float) -> str | None:
        known = self._known(counted, version)
        pending = walk.truth.counts["pending"]
        if known < 0:
            return f"its revision is {-known} ahead"
        if age < walk.units / 100 and known < pending:
            return None
        if known == 0 and age < OLDEST_UNCHANGED_SECONDS:
            return None
        return f"it is {age:.1f} s old of {walk.units / 100:.1f}, {known} changes, {pending} pending"

    def _being_counted(self, poll: Poll, call: Call) -> bool:
        """Whether another request holds, or may hold, the lease.

        A request whose own claim was carried out, but seemed to fail, cannot know that it holds it.
        """
        since = call.served.at - LEASE_SECONDS - self.skew
        if any(call.served.at - self.lag <= at <= poll.task.ended for at in self._removed):
            return True  # no request can get the lease of a batch that is gone
        return any(
            since <= claim.at <= poll.task.ended
            and call.asked - self.lag <= claim.over
            and (claim.task is not poll.task or poll.task.faults)
            for claim in self._claims
        )

    def _unchanged(self, poll: Poll, seen: list[tuple[Call, Version | None]]) -> None:
        """Judge a 304."""
        if poll.any_tag:
            return
        held = poll.held
        if held is None:
            self.fault("304", f"{poll.task.name}: nothing was held")
            return
        if not held.counted:
            return  # it was wrong itself
        # Another request's count of the same second may be the same answer.
        same = [walk for _, walk in self._walks if self._told(held, walk)]
        whys = []
        for call, version in seen:
            if version is None:
                continue
            for walk in (*held.counted, *same):
                why = self._not_the_same(walk, call, version)
                # A count that the client has already may be given once more.
                if why and poll.may_reuse and self._barred(held, walk, call, version) is None:
                    why = None
                whys.append(why)
        if whys and None not in whys:
            self.fault("304", f"{poll.task.name} {dict(poll.parameters)}: {whys[-1]}")
        if ("retry-after" in poll.headers) == (held.data["pending"] == 0):
            self.fault("304", f"{poll.task.name}: Retry-After {poll.headers.get('retry-after')}")

    def _not_the_same(self, walk: Walk, call: Call, version: Version) -> str | None:
        age = call.asked - walk.ended - self.skew
        if age > OLDEST_SECONDS + 1:
            return f"the answer's count is {age:.1f} s old"
        if walk.batch is None:
            return None
        if others(version.item or {}) != others(walk.batch.item or {}):
            return "the BATCH item is another"
        known = self._known(walk.batch, version)
        return f"{known} jobs are known to have changed since" if known else None

    def _later_page(self, poll: Poll) -> None:
        """A later page has the counts of the first one, and only its own jobs."""
        first = poll.first
        if first is None:
            return
        names = ("total_urls", "completed", "failed", "pending", "total_items_extracted", "estimated_completion")
        if any(poll.data[name] != first.data[name] for name in names):
            self.fault("walk", f"{poll.task.name}: the pages of a walk disagree")
        if "summary" in poll.data:
            self.fault("walk", f"{poll.task.name}: a later page has a summary")

    def _listing(self, poll: Poll) -> None:
        """The jobs listed are those that this request read."""
        data, limit = poll.data, poll.limit
        if limit == 0:
            if data["jobs"] or data["next_cursor"] is not None:
                self.fault("listing", f"{poll.task.name}: jobs with limit=0")
            return
        wanted = poll.parameters.get("status")
        listings = []
        for walk in walks(poll.task):
            rows = [_listed(row.item or {}, detailed="details" in poll.includes) for row in walk.rows]
            shown = [row for row in rows if wanted is None or row["status"] in wanted]
            enough = walk.complete or (limit is not None and len(shown) > limit)
            listings.append((shown if limit is None else shown[:limit], len(shown) > len(data["jobs"]), enough))
        more = data.get("next_cursor") is not None
        if not any(rows == data["jobs"] and later == more and enough for rows, later, enough in listings):
            self.fault("listing", f"{poll.task.name} {dict(poll.parameters)}: {len(data['jobs'])} jobs, more: {more}")

    def _header(self, poll: Poll) -> None:
        data, finished = poll.data, poll.data["pending"] == 0
        if not finished and epoch(data["estimated_completion"]) < floor(poll.task.began + poll.task.offset - self.skew):
            self.fault("past", f"{poll.task.name}: an unfinished batch ends in the past")
        if poll.direct:
            return
        retry_after = poll.headers.get("retry-after")
        if finished != (retry_after is None) or (retry_after and not 1 <= int(retry_after) <= 60):
            self.fault("header", f"{poll.task.name}: Retry-After {retry_after}, pending {data['pending']}")

    # At rest

    def at_rest(self, poll: Poll, truth: Truth) -> None:
        """Judge an answer after everything has settled: it tells exactly what the rows say."""
        answer = poll.held if poll.status == 304 and poll.held is not None else poll
        if poll.status not in (200, 304):
            self.fault("rest", f"{poll.task.name}: {poll.status} {poll.code}")
            return
        told = {name: answer.data[name] for name in truth.counts}
        if told != dict(truth.counts):
            self.fault(
                "rest", f"{poll.task.name} {dict(poll.parameters)} {poll.status}: told {told}, rows {truth.counts}"
            )
        elif truth.finished and truth.end != inf and epoch(answer.data["estimated_completion"]) != floor(truth.end):
            self.fault("rest", f"{poll.task.name}: ended at {answer.data['estimated_completion']}")
        summary = dict(answer.data.get("summary", {}))
        summary.pop("as_of", None)
        if summary and summary != dict(truth.summary):
            self.fault("rest", f"{poll.task.name}: summary {summary}, rows {truth.summary}")


def revision(version: Version) -> int:
    """Return the revision in a version of `BATCH`."""
    return whole(version.item or {}, "revision")


def _listed(row: Item, *, detailed: bool) -> dict[str, Any]:
    status = text(row, "status")
    job: dict[str, Any] = {
        "job_id": row["sk"]["S"].removeprefix("JOB#"),
        "url": text(row, "url") or "",
        "status": status if status in STATUSES else "pending",
        "items_extracted": whole(row, "items_extracted"),
    }
    if detailed:
        for name in ("started_at", "finished_at"):
            job[name] = None if moment(row, name) is None else text(row, name)
        for name in ("error_code", "error_message"):
            job[name] = text(row, name)
    return job


def epoch(written: str) -> int:
    """Return a time of an answer in epoch seconds."""
    return int(datetime.fromisoformat(written).timestamp())
