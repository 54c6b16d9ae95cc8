"""One randomized history of a batch: workers, a stream, pollers, and everything that may go wrong."""

import base64
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final

from batch_progress import table
from functions.revision import app as revision_app
from functions.supervisor import app as supervisor_app
from local_cloud.dynamodb import PAGE_BYTES, UNIT_BYTES, Item, normalized
from local_cloud.proxy_event import proxy_event
from tests.hostile.histories.cloud import (
    JOBS_TABLE,
    MOST_RECEIVES,
    SUPERVISOR_TIMEOUT,
    TOKENS_TABLE,
    VISIBILITY_SECONDS,
    Cloud,
    Context,
    Environment,
    Faults,
    Message,
    Task,
    environments,
    forget,
)
from tests.hostile.histories.engine import Change, Key, Served
from tests.hostile.histories.oracle import Oracle, Poll, Truth
from tests.hostile.histories.supervision import Supervision

BATCH_ID: Final = "b"
OWNER: Final = "alice"
STRANGER: Final = "mallory"
ENVIRONMENTS: Final = 4
STEPS: Final = 220
MOST_JOBS: Final = 60
# The number of changes after which workers stop.
MOST_CHANGES: Final = 1_000
# About the size of a job.
JOB_BYTES: Final = 130
# No call of a running invocation takes longer.
LONGEST_CALL_SECONDS: Final = 1.0
# Tags and earlier counts may be this old.
REST_SECONDS: Final = 60.001
FAR_SECONDS: Final = 120.0
# How long a batch without changes is watched.
DRAIN_SECONDS: Final = 5_400.0
# How long workers go on while their batch is supervised.
BUSY_SECONDS: Final = 1_000.0
_BATCH: Final = Key(BATCH_ID, "BATCH")
_PATH: Final = f"/api/v1/scrape/batch/{BATCH_ID}/progress"
_RETRIES: Final = 5

# Values that no reader accepts, by attribute of a job.
_MALFORMED: Final[dict[str, list[dict[str, Any] | None]]] = {
    "status": [{"S": "done"}, {"N": "5"}, {"S": ""}, {"NULL": True}, None],
    "items_extracted": [{"S": "7"}, {"N": "-4"}, {"N": "1.5"}, {"N": "1E+30"}, {"L": []}, None],
    "url": [{"N": "1"}, {"BOOL": True}, None],
    "started_at": [{"S": "yesterday"}, {"N": "1734345002"}, None],
    "finished_at": [{"S": "2024-12-16"}, {"N": "1"}, {"M": {}}, None],
    "error_code": [{"N": "404"}, {"S": "x" * 150}, None],
}
# Values that the service cannot use, by attribute of its own on `BATCH`.
_DAMAGED: Final[dict[str, list[dict[str, Any] | None]]] = {
    "counted": [{"S": "garbage"}, {"S": "[]"}, {"S": "{}"}, {"S": "null"}, {"N": "5"}, {"S": '{"revision":'}, None],
    "counted_at": [{"S": "soon"}, {"N": "99999999999"}, {"N": "-1"}, {"N": "1E+40"}, {"BOOL": True}, None],
    "counting": [{"S": "x"}, {"N": "0"}, {"N": "-5"}, {"NULL": True}, None],
}


@dataclass
class Client:
    """A client that polls again and again with the same query.

    Attributes:
        parameters: Its query.
        direct: Whether it is another function.
        gzip: Whether it accepts compressed answers.
        caller: Whose token it sends; `None` in a direct call that names no owner.
        held: Its last answer with a tag.
        walking: The last page of its walk, with the first one.
    """

    parameters: dict[str, Any]
    direct: bool
    gzip: bool
    caller: str | None = OWNER
    held: Poll | None = None
    walking: tuple[Poll, Poll] | None = None


@dataclass
class Delivery:
    """Records that the stream hands to the revision function.

    Attributes:
        records: In the order of delivery.
        tries: How often they have been delivered.
    """

    records: list[Change]
    tries: int = 0

    @property
    def jobs(self) -> int:
        """The number of distinct jobs of the batch."""
        keys = {record.key for record in self.records}
        return sum(key.partition == BATCH_ID and key.sort.startswith("JOB#") for key in keys)


@dataclass
class Setting:
    """What may happen in a history. Each history has only some of it."""

    faults: Faults = field(default_factory=Faults)
    repeated: float = 0.0
    reordered: float = 0.0
    lost: float = 0.0
    malformed: float = 0.0
    deleted: float = 0.0
    edited: float = 0.0
    damaged: float = 0.0
    burst: float = 0.1
    late: bool = False
    expires: bool = False
    skewed: bool = False
    stepping: bool = False
    supervised: bool = False
    between: float = 0.0
    slow_stream: float = 0.2
    speed: float = 1.0


class History:
    """A history, which `run` plays from its seed.

    Attributes:
        oracle: The judge.
        totals: What happened, for the report.
    """

    # What else may happen to the `BATCH` item.
    EDITS: ClassVar[tuple[str, ...]] = ("change", "change", "change", "delete", "restore", "revision")
    # How often each of the actions of `_step` is chosen.
    WEIGHTS: ClassVar[tuple[int, ...]] = (35, 25, 15, 5, 7, 13)

    def __init__(self, seed: str) -> None:
        self.cloud = Cloud(seed, 1_790_000_000.0)
        self.random = self.cloud.random
        self.oracle = Oracle(BATCH_ID)
        self.supervision = Supervision(self.oracle, self.cloud)
        self.totals: Counter[str] = Counter()
        self.jobs = self.cloud.engine.tables[JOBS_TABLE]
        self.setting = self._setting()
        self._shards: list[list[Change]] = [[], []]
        self._seen_changes = 0
        self._delivered: list[Delivery] = []
        self._deliveries: dict[int, tuple[Task, Delivery]] = {}
        self._checks: dict[int, tuple[Task, list[Message]]] = {}
        self._polls: list[tuple[Task, Poll, Client]] = []
        self._next_job = 0
        self._at_rest = False
        self._draining = False
        self._told_at = self.cloud.now
        self._edited_at = 0.0
        self._environments: list[Environment] = []
        self._batch_item: Item = {}
        self._number = 0
        self.cloud.watch = self._watch

    # What this history is like

    def _rare(self, most: float) -> float:
        return self.random.choice([0.0, 0.0, self.random.uniform(0, most)])

    def _setting(self) -> Setting:
        rare = self._rare
        faults = Faults(rare(0.03), rare(0.05), rare(0.02), rare(0.02), rare(0.05), rare(0.3))
        engine = self.cloud.engine
        engine.lag = self.random.choice([0.0, 0.0, self.random.uniform(0, 1)])
        self.oracle.lag = engine.lag
        engine.early_end = rare(0.5)
        self.cloud.latency = self.random.choice([0.002, 0.01, 0.01, 0.03, 0.03, 0.1])
        # Slow pages are large ones, so that a count always ends in time.
        engine.page_bytes = PAGE_BYTES if self.cloud.latency > 0.01 else PAGE_BYTES // self.random.choice([1, 2, 4, 8])
        return Setting(
            faults=faults,
            repeated=rare(0.3),
            reordered=rare(0.5),
            lost=rare(0.3),
            malformed=rare(0.2),
            deleted=rare(0.1),
            edited=rare(0.6),
            damaged=rare(0.3),
            burst=self.random.choice([0.02, 0.1, 0.4]),
            late=self.random.random() < 0.1,
            expires=self.random.random() < 0.05,
            skewed=self.random.random() < 0.2,
            stepping=self.random.random() < 0.05,
            supervised=self.random.random() < 0.5,
            between=self.random.choice([0.0, 0.02, 0.2]),
            slow_stream=self.random.choice([0.05, 0.3, 0.9]),
            speed=self.random.choice([0.3, 1.0, 3.0]),
        )

    def _client(self) -> Client:
        chance = self.random.random()
        parameters: dict[str, Any] = {}
        if chance < 0.45:
            parameters["limit"] = 0
        elif chance < 0.75:
            parameters["limit"] = self.random.choice([1, 3, 10, 100])
        if not 0.15 < chance < 0.85:
            parameters["status"] = self.random.choice([["failed"], ["pending", "processing"], ["completed"]])
            if chance < 0.11:
                del parameters["status"]
        include = [extra for extra in ("details", "estimate", "summary") if self.random.random() < 0.6]
        if include:
            parameters["include"] = include
        direct = self.random.random() < 0.35
        caller = self.random.choice([OWNER] * 12 + [STRANGER] + ([None] * 6 if direct else []))
        return Client(parameters, direct, gzip=self.random.random() < 0.3, caller=caller)

    def _sizes(self) -> tuple[int, float]:
        """Return the number of jobs, and the read units of a count."""
        units = self.random.choice([self.random.uniform(60, 99), *(self.random.uniform(105, 1_800) for _ in range(3))])
        return self.random.randint(8, 48), units

    def _create(self) -> None:
        count, units = self._sizes()
        batch: dict[str, Any] = {
            "batch_id": {"S": BATCH_ID},
            "sk": {"S": "BATCH"},
            "owner_id": {"S": OWNER},
            "created_at": {"S": self._time()},
            "parallel_jobs": {"N": str(self.random.randint(1, 8))},
            "timeout_per_url": {"N": str(self.random.choice([5, 30, 300]))},
        }
        if self.random.random() < 0.6:
            self.supervision.lost_after = self.random.choice([20, 60, 600])
            batch["lost_after"] = {"N": str(self.supervision.lost_after)}
        total = self.random.choice([count, count, count + self.random.randint(1, 5), max(count - 3, 1), None])
        if total is not None:
            batch["total_urls"] = {"N": str(total)}
        if self.setting.expires:
            batch["expires_at"] = {"N": str(int(self.cloud.now + self.random.randint(20, 200)))}
        self._batch_item = batch
        if not self.setting.late:
            self.jobs.write(_BATCH, normalized(batch))
        weight = units * 2 * UNIT_BYTES / (JOB_BYTES * count)
        self.jobs.weight = lambda key: weight if key.sort.startswith("JOB#") else 1.0
        for _ in range(count):
            self._add_job()
        for owner in (OWNER, STRANGER):
            token_hash = hashlib.sha256(_token(owner).encode()).hexdigest()
            self.cloud.engine.tables[TOKENS_TABLE].write(
                Key(token_hash, ""), {"token_hash": {"S": token_hash}, "owner_id": {"S": owner}}
            )

    # The run

    def run(self) -> None:
        """Play the history to its end, and judge every answer."""
        first_page = self.random.choice([3, 5, 10, 30])
        with environments(self.cloud, ENVIRONMENTS, first_page) as self._environments:
            self._create()
            self._set_clocks()
            clients = [self._client() for _ in range(8)]
            self.cloud.faults = self.setting.faults
            late_at = self.random.randint(5, STEPS // 2)
            for step in range(STEPS):
                self._step(clients)
                if self.setting.late and step == late_at:
                    self.jobs.write(_BATCH, normalized(self._batch_item))
                if self.setting.stepping and self.random.random() < 0.03:
                    self._step_a_clock()
            self._settle()
            self._rest(clients)
        self.totals.update(self.oracle.answers)
        self.totals["reused"] = self.oracle.reused
        self.oracle.wrong += [f"traceback: {text}" for text in self.cloud.tracebacks if self._is_unexpected(text)]

    def _is_unexpected(self, text: str) -> bool:
        # A revision that is no number is logged, and so it should be.
        return "NotCountable" not in text and "not countable" not in text

    def _set_clocks(self) -> None:
        if self.setting.skewed:
            for environment in self._environments:
                environment.offset = self.random.uniform(-2, 2)
            self.oracle.skew = 4.0

    def _step_a_clock(self) -> None:
        environment = self.random.choice(self._environments)
        environment.offset = self.random.choice([0.0, 3_600.0, -3_600.0, 30.0, -30.0])
        self.oracle.skew = 8_000.0

    def _step(self, clients: list[Client]) -> None:
        """Do one random thing."""
        runnable = [task for task in self.cloud.tasks if task.wakes <= self.cloud.now] or [*self.cloud.tasks]
        if runnable and self.random.random() < 0.75:
            for _ in range(self.random.choice([1, 1, 4, 30])):
                task = self.random.choice(runnable)
                if not task.running:
                    break
                self.cloud.step(task)
            self._collect()
            return
        actions: list[Callable[[], None]] = [
            partial(self._poll_one, clients),
            self._work_some,
            self._deliver_some,
            self._check_some,
            self._meddle,
            self._wait,
        ]
        self.random.choices(actions, self.WEIGHTS)[0]()

    def _poll_one(self, clients: list[Client]) -> None:
        self._poll(self.random.choice(clients))

    def _work_some(self) -> None:
        self._work(self.random.randint(3, 30) if self.random.random() < self.setting.burst else 1)

    def _deliver_some(self) -> None:
        if self.random.random() > self.setting.slow_stream:
            self._deliver()

    def _check_some(self) -> None:
        if self.setting.supervised:
            self._check()

    def _wait(self) -> None:
        pause = self.random.choice([0.1, 0.5, 0.5, 2.0, 2.0, 9.0, 25.0, 61.0]) * self.random.random()
        pause *= self.setting.speed
        if pause > LONGEST_CALL_SECONDS:
            self._finish_tasks()
        self.cloud.now += pause

    def _settle(self) -> None:
        """Let everything come to its end: no more writes, all deliveries made, no failures, right clocks."""
        if not self._at_rest and self.random.random() < 0.5:
            self._end_all()
        self._finish_tasks()
        self._at_rest = True
        self.cloud.faults = Faults()
        for environment in self._environments:
            environment.offset = 0.0
        self._deliver_all()
        self.cloud.engine.lag = 0.0

    def _deliver_all(self) -> None:
        """Deliver everything that the stream has."""
        self._receive()
        while any(self._shards):
            self._deliver()
            self._finish_tasks()

    def _finish_tasks(self) -> None:
        while self.cloud.tasks:
            self.cloud.step(self.random.choice(self.cloud.tasks))
            self._collect()

    def _rest(self, clients: list[Client]) -> None:
        """After a minute without changes, each poll tells exactly what the rows say."""
        # A wrong clock may have noted until later that the batch is too large.
        self.cloud.now += REST_SECONDS + (FAR_SECONDS if self.setting.stepping else self.oracle.skew)
        plain: list[dict[str, Any]] = [
            {"limit": 0},
            {},
            {"limit": 2},
            {"status": ["failed"]},
            {"limit": 0, "include": ["estimate", "summary"]},
        ]
        fresh = [Client(parameters, direct, gzip=False) for parameters in plain for direct in (False, True)]
        mine = [client for client in clients if client.caller == OWNER]
        self.random.shuffle(fresh)
        for client in [*mine, *fresh, *mine]:
            self._poll(client, at_rest=True)
            self._finish_tasks()
            self.cloud.now += self.random.choice([0.0, 0.3, 4.0])

    # Workers

    def _time(self) -> str:
        return table.timestamp(datetime.fromtimestamp(self.cloud.now, UTC))

    def _rows(self) -> list[tuple[Key, Item]]:
        rows = self.jobs.partitions.get(BATCH_ID, {})
        return [(Key(BATCH_ID, sk), dict(version.item or {})) for sk, version in rows.items() if sk != "BATCH"]

    def _add_job(self) -> None:
        self._next_job += 1
        sort_key = f"JOB#j{self._next_job:04}"
        item: Item = {
            "batch_id": {"S": BATCH_ID},
            "sk": {"S": sort_key},
            "url": {"S": f"https://example.com/{self._next_job}"},
            "status": {"S": "pending"},
            "items_extracted": {"N": "0"},
        }
        self.jobs.write(Key(BATCH_ID, sort_key), item)

    def _work(self, times: int) -> None:
        """Change some jobs, as workers do."""
        for _ in range(times):
            rows = self._rows()
            if not rows:
                return
            open_rows = [row for row in rows if row[1].get("status", {}).get("S") in ("pending", "processing")]
            if self.random.random() < self.setting.malformed:
                self._deform(*self.random.choice(rows))
            elif self.random.random() < self.setting.deleted:
                self.jobs.write(self.random.choice(rows)[0], None)
            elif open_rows and self.random.random() < 0.9:
                self._advance(*self.random.choice(open_rows))
            elif self.random.random() < 0.3:
                self._retry(*self.random.choice(rows))
            elif self.random.random() < 0.03 and len(rows) < MOST_JOBS:
                self._add_job()

    def _advance(self, key: Key, item: Item) -> None:
        if item["status"] == {"S": "pending"} and self.random.random() < 0.6:
            self._begin(item)
        elif item["status"] == {"S": "processing"} and self.random.random() < 0.3:
            # A sign of life.
            item |= {"seen_at": {"S": self._time()}, "items_extracted": {"N": str(self.random.randint(0, 9))}}
        else:
            self._end(item)
        self.jobs.write(key, normalized(item))

    def _begin(self, item: Item) -> None:
        attempt = int(item.get("attempt", {}).get("N", 0)) + 1
        item |= {"status": {"S": "processing"}, "started_at": {"S": self._time()}, "attempt": {"N": str(attempt)}}

    def _end(self, item: Item) -> None:
        status = self.random.choice(["completed", "completed", "completed", "failed", "cancelled"])
        item |= {
            "status": {"S": status},
            "finished_at": {"S": self._time()},
            "items_extracted": {"N": str(self.random.randint(0, 30))},
        }
        if status == "failed":
            item["error_code"] = {"S": f"E{self.random.randint(1, 14)}"}

    def _end_all(self) -> None:
        """Let the workers end every job."""
        for key, item in self._rows():
            if item.get("status", {}).get("S") not in ("completed", "failed", "cancelled"):
                self._end(item)
                self.jobs.write(key, normalized(item))

    def _retry(self, key: Key, item: Item) -> None:
        for name in ("finished_at", "error_code", "error_message"):
            item.pop(name, None)
        if self.random.random() < 0.3:
            # The worker that was given up completes it after all.
            item |= {"status": {"S": "completed"}, "finished_at": {"S": self._time()}}
        else:
            self._begin(item)
        self.jobs.write(key, item)

    def _deform(self, key: Key, item: Item) -> None:
        name = self.random.choice(list(_MALFORMED))
        value = self.random.choice(_MALFORMED[name])
        item.pop(name, None)
        if value is not None:
            item[name] = value
        self.jobs.write(key, normalized(item))

    def _between(self, served: Served) -> None:
        """Change something right after a function has read it."""
        if self._at_rest or self.random.random() >= self.setting.between:
            return
        key = served.arguments.get("Key", {}).get("sk", {}).get("S", "")
        row = self.jobs.now(Key(BATCH_ID, key)) if key.startswith("JOB#") else None
        if (
            row is not None
            and row.item is not None
            and row.item.get("status", {}).get("S") in ("pending", "processing")
        ):
            self._advance(Key(BATCH_ID, key), dict(row.item))
        elif self.random.random() < 0.1:
            self._meddle()
        else:
            self._work_some()

    # Others who write to the BATCH item

    def _meddle(self) -> None:
        if self.random.random() < self.setting.damaged:
            self._damage()
        if self.random.random() < self.setting.edited:
            self._edit()

    def _batch(self) -> Item | None:
        version = self.jobs.now(_BATCH)
        return None if version is None else dict(version.item or {})

    def _damage(self) -> None:
        """Spoil one of the service's own attributes."""
        item = self._batch()
        if item is None:
            return
        name = self.random.choice(list(_DAMAGED))
        value = self.random.choice(_DAMAGED[name])
        item.pop(name, None)
        if value is not None:
            item[name] = value
        self.jobs.write(_BATCH, normalized(item))
        self.totals["damaged"] += 1

    def _edit(self) -> None:
        """Change, delete or restore the `BATCH` item."""
        item = self._batch()
        if item is None:
            if not self.setting.late:
                self.oracle.reset(self.jobs.write(_BATCH, normalized(self._batch_item)))
            return
        self.totals["edited"] += 1
        self._edited_at = self.cloud.now
        match self.random.choice(self.EDITS):
            case "change":
                self._change(item)
                self.jobs.write(_BATCH, normalized(item))
            case "delete":
                self.oracle.removed(self.jobs.write(_BATCH, None))
                self.supervision.born = self.cloud.now
            case "restore":
                # It was read a while ago and is now written back whole.
                older = [change.after for change in self.jobs.changes if change.key == _BATCH and change.after.item]
                self.oracle.reset(self.jobs.write(_BATCH, dict(self.random.choice(older[-5:]).item or {})))
            case "revision":
                item["revision"] = self.random.choice([{"N": "0"}, {"N": "7"}, {"S": "x"}])
                self.oracle.reset(self.jobs.write(_BATCH, item))

    def _change(self, item: Item) -> None:
        match self.random.choice(["total", "total", "workers", "cancelled", "cancelled", "owner"]):
            case "total":
                item["total_urls"] = self.random.choice([{"N": str(self.random.randint(1, 60))}, {"S": "ten"}])
            case "workers":
                item["parallel_jobs"] = {"N": str(self.random.randint(1, 20))}
            case "cancelled":
                item["cancelled_at"] = {"S": self._time()}
            case "owner":
                if self.random.random() < 0.3:
                    item["owner_id"] = {"S": STRANGER}

    # The stream

    def _receive(self) -> None:
        """Take up what was written since."""
        for change in self.jobs.changes[self._seen_changes :]:
            # The event source's filter: jobs, and new `BATCH` items.
            if change.key.sort.startswith("JOB#") or (change.key == _BATCH and change.before is None):
                self._shards[zlib.crc32(change.key.sort.encode()) % 2].append(change)
        self._seen_changes = len(self.jobs.changes)

    def _deliver(self) -> None:
        """Deliver some records, or the wrong ones."""
        self._receive()
        if self._delivered and self.random.random() < self.setting.repeated:
            again = self.random.choice(self._delivered)
            self._invoke(Delivery(list(again.records)))
            self.totals["repeated"] += 1
            return
        shards = [shard for shard in self._shards if shard]
        if not shards:
            return
        shard = self.random.choice(shards)
        if self.random.random() < self.setting.reordered:
            self.random.shuffle(shard)
            self.totals["reordered"] += 1
        count = self.random.choice([1, 3, 10, 100])
        records, shard[:] = shard[:count], shard[count:]
        if self.random.random() < self.setting.lost:
            self.totals["lost"] += len(records)
            return
        self._invoke(Delivery(records))

    def _invoke(self, delivery: Delivery) -> None:
        delivery.tries += 1
        event = {"Records": [_record(change) for change in delivery.records]}
        context = Context(self.cloud)
        self._number += 1
        task = self.cloud.start(f"revision {self._number}", partial(revision_app.handler, event, context))
        self._deliveries[id(task)] = task, delivery

    def _delivered_or_not(self, task: Task, delivery: Delivery) -> None:
        """Deliver again what was not dealt with."""
        if task.error is not None:
            self.oracle.fault("crash", f"{task.name}: {task.error!r}")
        if task.died:
            forget(revision_app)
            failed: list[Change] = delivery.records
        else:
            failures = {failure["itemIdentifier"] for failure in (task.result or {}).get("batchItemFailures", [])}
            numbers = [str(change.after.number) for change in delivery.records]
            first = min((numbers.index(number) for number in failures), default=len(numbers))
            failed = delivery.records[first:]
        self._delivered.append(delivery)
        self._told_at = self.cloud.now
        if failed and delivery.tries <= _RETRIES:
            self._invoke(Delivery(failed, delivery.tries))
        elif failed:
            self.totals["given up"] += len(failed)

    # The supervisor

    def _check(self) -> None:
        """Hand messages of the queue to the supervisor."""
        visible = [message for message in self.cloud.queue if message.visible <= self.cloud.now]
        self.random.shuffle(visible)
        received = visible[: self.random.choice([1, 1, 5])]
        if not received:
            return
        for message in received:
            message.receives += 1
            # A message can be delivered twice at once.
            if self.random.random() >= self.setting.repeated:
                message.visible = self.cloud.now + VISIBILITY_SECONDS
        event = {"Records": [{"messageId": str(message.number), "body": message.body} for message in received]}
        context = Context(self.cloud, SUPERVISOR_TIMEOUT)
        self._number += 1
        task = self.cloud.start(f"check {self._number}", partial(supervisor_app.handler, event, context))
        self._checks[id(task)] = task, received

    def _checked(self, task: Task, received: list[Message]) -> None:
        """Delete the messages that were dealt with; give up those that come again and again."""
        if task.died:
            forget(supervisor_app)
        failures = {failure["itemIdentifier"] for failure in (task.result or {}).get("batchItemFailures", [])}
        if task.error is not None:
            self.oracle.fault("crash", f"{task.name}: {task.error!r}")
        for message in received:
            done = task.result is not None and str(message.number) not in failures
            gone = message.receives >= MOST_RECEIVES
            if message in self.cloud.queue and (done or gone):
                self.cloud.queue.remove(message)
                self.totals["dead letters"] += not done
        self.oracle.heard(task)
        self.supervision.checked(task)

    # Pollers

    def _poll(self, client: Client, *, at_rest: bool = False) -> None:
        free = [environment for environment in self._environments if not environment.busy]
        if not free:
            return
        environment = self.random.choice(free)
        self._number += 1
        parameters, tag = dict(client.parameters), None
        first = last = None
        if client.walking is not None and not at_rest and self.random.random() < 0.5:
            first, last = client.walking
            parameters["cursor"] = last.data["next_cursor"]
        elif not client.direct and client.held is not None and self.random.random() < 0.85:
            tag = client.held.tag
        elif not client.direct and not at_rest and self.random.random() < 0.05:
            tag = "*"
        event = self._event(client, parameters, tag)
        name = f"poll {self._number} ({'direct' if client.direct else 'http'})"
        held = client.held if tag not in (None, "*") else None
        task = environment.invoke(event, name)
        poll = Poll(task, parameters, client.caller, client.direct, held, tag == "*", first=first)
        if at_rest:
            self.cloud.run(task)
            self._answered(poll, client)
            self._judge_rest(poll)
        else:
            self._polls.append((task, poll, client))

    def _event(self, client: Client, parameters: dict[str, Any], tag: str | None) -> dict[str, Any]:
        if client.direct:
            owner = {} if client.caller is None else {"owner_id": client.caller}
            return {"batch_id": BATCH_ID, **parameters, **owner}
        query = [
            (name, ",".join(value) if isinstance(value, list) else str(value)) for name, value in parameters.items()
        ]
        headers = [("X-API-Key", _token(client.caller or OWNER))]
        if tag is not None:
            headers.append(("If-None-Match", tag))
        if client.gzip:
            headers.append(("Accept-Encoding", "gzip"))
        return proxy_event("GET", _PATH, headers, query)

    def _collect(self) -> None:
        """Judge the answers that have come, and look after the deliveries that have ended."""
        for entry in [entry for entry in self._polls if not entry[0].running]:
            self._polls.remove(entry)
            self._answered(entry[1], entry[2])
        for identity, (task, received) in list(self._checks.items()):
            if not task.running:
                del self._checks[identity]
                self._checked(task, received)
        for identity, (task, delivery) in list(self._deliveries.items()):
            if not task.running:
                del self._deliveries[identity]
                self._delivered_or_not(task, delivery)

    def _answered(self, poll: Poll, client: Client) -> None:
        task = poll.task
        if task.result is not None:
            _read(poll, task.result)
        self.oracle.check(poll)
        if poll.status == 200:
            if poll.tag is not None and "cursor" not in poll.parameters:
                client.held = poll
            client.walking = (poll.first or poll, poll) if poll.data.get("next_cursor") else None

    def _judge_rest(self, poll: Poll) -> None:
        version = self.jobs.now(_BATCH)
        item = (version.item or {}) if version else {}
        expiry = float(item.get("expires_at", {}).get("N", "inf"))
        if poll.task.began < expiry <= self.cloud.now:
            return  # it expired just then
        if version is None or expiry <= self.cloud.now or item.get("owner_id") != {"S": OWNER}:
            if poll.status != 404:
                self.oracle.fault("rest", f"{poll.task.name}: {poll.status} for a batch that is gone")
            return
        self.oracle.at_rest(poll, Truth.of(item, (row for key, row in self._rows() if key.sort.startswith("JOB#"))))

    def _watch(self, task: Task, served: Served) -> None:
        if served.table != JOBS_TABLE:
            return
        if served.operation in ("Query", "GetItem"):
            self._between(served)
            return
        if served.arguments["Key"]["sk"]["S"] != "BATCH":
            self.supervision.failed(task, served)
            return
        delivery = self._deliveries.get(id(task))
        self.oracle.wrote(task, served, delivery[1].jobs if delivery else None)


def _record(change: Change) -> dict[str, Any]:
    """Return the stream's record of a change."""
    kind = "INSERT" if change.before is None else "REMOVE" if change.after.item is None else "MODIFY"
    return {
        "eventID": str(change.after.number),
        "eventName": kind,
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"batch_id": {"S": change.key.partition}, "sk": {"S": change.key.sort}},
            "SequenceNumber": str(change.after.number),
            "StreamViewType": "KEYS_ONLY",
        },
    }


def _token(owner: str) -> str:
    return f"token-of-{owner}"


def _read(poll: Poll, result: dict[str, Any]) -> None:
    """Read an answer as its caller does."""
    if poll.direct:
        envelope = result
        poll.status = 200 if envelope["success"] else envelope["error"]["status"]
    else:
        poll.status = result["statusCode"]
        multiple = result.get("multiValueHeaders") or {}
        poll.headers = {name.lower(): values[-1] for name, values in multiple.items()}
        body = result.get("body") or ""
        raw = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
        if poll.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        envelope = json.loads(raw) if raw else {}
    if poll.status == 200:
        poll.data = envelope["data"]
    elif "error" in envelope:
        poll.code = envelope["error"]["code"]


class Supervised(History):
    """A history of a batch that the supervisor watches to its end; no record of the stream is lost."""

    EDITS = ("change", "change", "change", "delete")
    WEIGHTS = (8, 25, 20, 20, 4, 23)

    def _setting(self) -> Setting:
        setting = super()._setting()
        setting.supervised = True
        setting.lost = setting.damaged = 0.0
        setting.stepping = False
        setting.edited = self._rare(0.3)
        setting.malformed = self._rare(0.05)
        # Five failures of a message in a row are an alarm, not a history.
        setting.faults.refused = self._rare(0.5)
        setting.faults.death = self._rare(0.05)
        setting.between = self.random.choice([0.0, 0.1, 0.4])
        if self.random.random() < 0.3:
            # Without failures, events come promptly.
            setting.faults, setting.repeated, setting.edited = Faults(), 0.0, 0.0
        setting.speed = self.random.choice([0.3, 2.0, 10.0])
        self.cloud.latency = min(self.cloud.latency, 0.03)
        return setting

    def _sizes(self) -> tuple[int, float]:
        return self.random.randint(2, 30), self.random.choice([5.0, 20.0, 90.0, 150.0, 600.0])

    def _settle(self) -> None:
        """Let the workers end, or die, while messages and failures go on; then let time pass."""
        self._last_works()
        self._draining = True
        began = self.cloud.now
        self._drain(BUSY_SECONDS)
        self._at_rest = True
        self._drain(DRAIN_SECONDS)
        if self.setting.faults == Faults() and not self.setting.repeated and not self.totals["edited"]:
            self.supervision.prompt(max(began, self._told_at))
        super()._settle()
        # Whatever has been written in the meantime was written by the supervisor.
        self._drain(DRAIN_SECONDS)

    def _last_works(self) -> None:
        """Let workers end the remaining jobs, start them and die, or do nothing."""
        match self.random.choice(["end", "begin", "leave"]):
            case "end":
                self._end_all()
            case "begin":
                for key, item in self._rows():
                    if item.get("status") == {"S": "pending"}:
                        self._begin(item)
                        self.jobs.write(key, item)

    def _between(self, served: Served) -> None:
        changes = len(self.jobs.changes)
        super()._between(served)
        # The last change of all may come in the middle of a check.
        if len(self.jobs.changes) > changes and self._draining:
            self._at_rest |= self.random.random() < 0.2 or len(self.jobs.changes) > MOST_CHANGES

    def _work_some(self) -> None:
        """Let the batch finish, and go on, again and again."""
        chance = self.random.random()
        rows = self._rows()
        if chance < 0.1:
            self._end_all()
        elif chance < 0.3 and rows:
            self._retry(*self.random.choice(rows))
        else:
            super()._work_some()

    def _wait(self) -> None:
        due = [message.visible for message in self.cloud.queue]
        if due and self.random.random() < 0.5:
            self._finish_tasks()
            self.cloud.now = max(self.cloud.now, min(due))
        else:
            super()._wait()

    def _drain(self, seconds: float) -> None:
        """Let time pass, from one message to the next."""
        until = self.cloud.now + seconds
        while self.cloud.now < until:
            self._deliver()
            if self.random.random() < 0.7:
                self._check()
            for _ in range(self.random.choice([1, 3, 10, 100])):
                if self.cloud.tasks:
                    self.cloud.step(self.random.choice(self.cloud.tasks))
                    self._collect()
            self._receive()
            due = [message.visible for message in self.cloud.queue]
            if self.cloud.tasks or any(self._shards) or (due and min(due) <= self.cloud.now):
                continue
            if not due:
                return
            self.cloud.now = min(due)
        self._finish_tasks()

    def _rest(self, clients: list[Client]) -> None:
        self.supervision.ids()
        self.totals["events"] += len(self.cloud.bus)
        self.totals["jobs lost"] += self.supervision.lost
        # A change of the `BATCH` item is not noticed until a job changes.
        if self.totals["dead letters"] or self.totals["given up"] or self._edited_at >= self._told_at:
            self.totals["exempt"] += 1
            return
        item = self._batch() or {}
        gone = float(item.get("expires_at", {}).get("N", "inf")) <= self.cloud.now or "owner_id" not in item
        if not gone:
            self.supervision.at_rest(item, [row for _, row in self._rows()], self.cloud.now)
        self.supervision.chain(over=gone or not self.supervision.unfinished)
        super()._rest(clients[:2])


def played(seed: str) -> History:
    """Play the history of a seed."""
    history = Supervised(seed) if seed.startswith("supervised") else History(seed)
    history.run()
    return history
