"""The recorder: every transition, repeated calls, and crashes anywhere. tests/engines has concurrent writers."""

import contextlib
import inspect
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import botocore.session
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from pydantic import ValidationError

from batch_progress.errors import (
    BatchConflict,
    BatchNotFound,
    BatchProgressError,
    IllegalTransition,
    JobNotFound,
    ServiceUnavailable,
)
from batch_progress.recorder import BatchRecorder, RunningJob
from tests.integration.job_model import Job, Refused
from tests.integration.world import Attribute, World, attributes, now, unique

URLS = ["https://example.com/1", "http://example.com/2?a=b#c", "HTTPS://example.com/\N{SNOWMAN}"]
STATES = ("pending", "processing", "completed", "failed", "cancelled")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

type Call = Callable[[BatchRecorder, str, str], object]


@pytest.fixture(scope="module")
def recorder(world: World) -> BatchRecorder:
    return BatchRecorder(world.jobs_table, world.dynamodb)


def stored(world: World, batch_id: str, sort_key: str) -> dict[str, Any]:
    """Return an item's values as strings; empty if it does not exist."""
    key = attributes({"batch_id": batch_id, "sk": sort_key})
    item = world.dynamodb.get_item(TableName=world.jobs_table, Key=key, ConsistentRead=True).get("Item", {})
    return {name: next(iter(value.values())) for name, value in item.items()}


def job(world: World, batch_id: str, job_id: str) -> dict[str, Any]:
    return stored(world, batch_id, f"JOB#{job_id}")


# Making a batch


def test_create(world: World, recorder: BatchRecorder) -> None:
    """The batch has all of its jobs, all pending; ids are numbered in the order of the URLs."""
    batch_id, expiry = unique("batch"), int(time.time()) + 3600

    job_ids = recorder.create(batch_id, "demo", URLS, parallel_jobs=2, timeout_per_url=2.5, expires_at=expiry)

    assert ["job_000001", "job_000002", "job_000003"] == job_ids
    batch = stored(world, batch_id, "BATCH")
    assert ("demo", "3", "2", "2.5", str(expiry)) == tuple(
        batch[name] for name in ("owner_id", "total_urls", "parallel_jobs", "timeout_per_url", "expires_at")
    )
    assert TIME.fullmatch(batch["created_at"])
    assert {
        "batch_id": batch_id,
        "sk": "JOB#job_000002",
        "url": URLS[1],
        "status": "pending",
        "items_extracted": "0",
        "expires_at": str(expiry),
    } == job(world, batch_id, "job_000002")
    assert [URLS, [0, 3]] == [
        [told["url"] for told in world.get(batch_id).data["jobs"]],
        [world.get(batch_id).data[name] for name in ("completed", "pending")],
    ]


def test_create_with_nothing_declared(world: World, recorder: BatchRecorder) -> None:
    """The defaults are three workers, 30 seconds, three times that until a worker is lost, and no expiry."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", URLS)
    batch = stored(world, batch_id, "BATCH")
    assert ("3", "30", "90") == (batch["parallel_jobs"], batch["timeout_per_url"], batch["lost_after"])
    assert "expires_at" not in batch | job(world, batch_id, "job_000001")


@pytest.mark.parametrize(
    ("values", "lost_after"),
    [
        ({"timeout_per_url": 1}, "60"),
        ({"timeout_per_url": 20}, "60"),
        ({"timeout_per_url": 20.5}, "61.5"),
        ({"timeout_per_url": 600}, "1800"),
        ({"lost_after": 1}, "1"),
        ({"lost_after": 2.5, "timeout_per_url": 600}, "2.5"),
        ({"lost_after": Decimal(90)}, "90"),
    ],
    ids=str,
)
def test_when_a_worker_is_lost(world: World, recorder: BatchRecorder, values: dict[str, Any], lost_after: str) -> None:
    """By default after three times the timeout, and at least a minute."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", [], **values)
    assert lost_after == stored(world, batch_id, "BATCH")["lost_after"]


def test_a_rerun_may_declare_another_time_until_a_worker_is_lost(world: World, recorder: BatchRecorder) -> None:
    """The first value stays. Batches of earlier versions have none, and a rerun of them is not a conflict."""
    batch_id, earlier = unique("batch"), unique("batch")
    recorder.create(batch_id, "demo", URLS, lost_after=100)
    recorder.create(batch_id, "demo", URLS, lost_after=200)
    assert "100" == stored(world, batch_id, "BATCH")["lost_after"]
    # The digest that earlier versions made from these values.
    digest = "78a7b7ce410df4a5aec713ecefb9f57642077f8113b7664dd7400fc83e5561ee"
    world.put_batch(earlier, total_urls=3, parallel_jobs=3, timeout_per_url=30, made_from=digest)
    recorder.create(earlier, "demo", URLS)
    assert "lost_after" not in stored(world, earlier, "BATCH")


def test_create_with_ids_of_its_own(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    assert ["z", "a"] == recorder.create(batch_id, "demo", URLS[:2], job_ids=("z", "a"))
    assert URLS[:2] == [job(world, batch_id, job_id)["url"] for job_id in ("z", "a")]


def test_an_expiry_may_be_a_time(world: World, recorder: BatchRecorder) -> None:
    batch_id, moment = unique("batch"), datetime(2999, 12, 31, tzinfo=UTC)
    recorder.create(batch_id, "demo", URLS, expires_at=moment)
    assert str(int(moment.timestamp())) == stored(world, batch_id, "BATCH")["expires_at"]


@pytest.mark.parametrize(
    "seconds", [32_503_680_000, 32_503_680_000.75, Decimal("32503680000.75"), np.int64(32_503_680_000)]
)
def test_an_expiry_may_be_any_number_of_seconds(world: World, recorder: BatchRecorder, seconds: Any) -> None:  # noqa: ANN401  # any number
    """`time.time() + 3600` has a fraction, which is dropped."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", URLS, expires_at=seconds)
    assert "32503680000" == stored(world, batch_id, "BATCH")["expires_at"]


def test_a_batch_of_nothing_is_finished(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    assert [] == recorder.create(batch_id, "demo", [])
    assert 0 == world.get(batch_id).data["pending"]


def test_create_again_resets_nothing(world: World, recorder: BatchRecorder) -> None:
    """Existing jobs, the creation time and the expiry stay unchanged."""
    batch_id, expiry = unique("batch"), int(time.time()) + 3600
    recorder.create(batch_id, "demo", URLS, expires_at=expiry)
    recorder.complete(batch_id, "job_000001", 5)
    recorder.start(batch_id, "job_000002")
    keys = ["BATCH", "JOB#job_000001", "JOB#job_000002", "JOB#job_000003"]
    before = [stored(world, batch_id, key) for key in keys]

    recorder.create(batch_id, "demo", URLS, expires_at=expiry + 60)

    assert before == [stored(world, batch_id, key) for key in keys]


@pytest.mark.parametrize(
    "other",
    [
        {"owner_id": "somebody"},
        {"urls": URLS[::-1]},
        {"urls": [*URLS, "https://example.com/4"]},
        {"urls": URLS[:2]},
        {"job_ids": ["a", "b", "c"]},
        {"parallel_jobs": 4},
        {"timeout_per_url": 31},
    ],
    ids=str,
)
def test_another_batch_of_the_same_id_is_a_conflict(
    world: World, recorder: BatchRecorder, other: dict[str, Any]
) -> None:
    """Another owner or other values are a conflict: nothing is written, and the owner is not revealed."""
    batch_id, owner = unique("batch"), unique("owner")
    values: dict[str, Any] = {"owner_id": owner, "urls": URLS}
    recorder.create(batch_id, **values)

    with pytest.raises(BatchConflict) as raised:
        recorder.create(batch_id, **values | other)

    assert owner not in f"{raised.value} {raised.value.details}"
    assert f"Batch {batch_id} has another owner or other URLs" in str(raised.value)
    assert {} == job(world, batch_id, "job_000004") | job(world, batch_id, "a")


def test_create_completes_what_another_writer_began(world: World, recorder: BatchRecorder) -> None:
    """For a batch of another writer only the owner is compared."""
    batch_id = world.put_batch(owner="demo", total_urls=3)
    world.put_job(batch_id, "job_000002", status="completed", items_extracted=7)
    recorder.create(batch_id, "demo", URLS)
    assert (3, 1, 7) == tuple(
        world.get(batch_id).data[name] for name in ("total_urls", "completed", "total_items_extracted")
    )


def test_jobs_that_an_expired_batch_left_are_not_taken_over(world: World, recorder: BatchRecorder) -> None:
    """DynamoDB deletes items one by one. A new batch with that id would show the old batch's jobs."""
    batch_id = unique("batch")
    world.put_job(batch_id, "job_000003", status="completed", expires_at=int(time.time()) - 1)
    with pytest.raises(BatchConflict):
        recorder.create(batch_id, "demo", URLS)
    assert {} == stored(world, batch_id, "BATCH")


@pytest.mark.parametrize("left", [{}, {"expires_at": int(time.time()) + 3600}], ids=["for ever", "for an hour"])
def test_jobs_that_have_not_expired_are_taken_over(world: World, recorder: BatchRecorder, left: dict[str, int]) -> None:
    """Another writer may put the jobs before the batch."""
    batch_id = unique("batch")
    world.put_job(batch_id, "job_000003", status="completed", **left)
    recorder.create(batch_id, "demo", URLS)
    assert (3, 1) == tuple(world.get(batch_id).data[name] for name in ("total_urls", "completed"))


class Watched:
    """A client that records its calls."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401  # botocore ships no types
        self._client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(**arguments: Any) -> object:  # noqa: ANN401  # botocore's
            self.calls.append((name, arguments))
            answer: object = getattr(self._client, name)(**arguments)
            return answer

        return call


def test_every_read_sees_what_was_just_written(world: World) -> None:
    """Otherwise a job of a new batch would be unknown, and a rerun would write all jobs again."""
    client, batch_id = Watched(world.dynamodb), unique("batch")
    recorder = BatchRecorder(world.jobs_table, client)
    recorder.create(batch_id, "demo", URLS)
    recorder.cancel_batch(batch_id)
    with pytest.raises(JobNotFound):
        recorder.start(batch_id, "no-such-job")
    reads = [arguments for name, arguments in client.calls if name in ("query", "get_item")]
    assert [True] * 4 == [arguments.get("ConsistentRead") for arguments in reads]


def test_a_look_whether_a_batch_is_cancelled_reads_one_item(world: World) -> None:
    """`create` looks after each 100 jobs. To read a page each time would cost more than the writes."""
    client, batch_id = Watched(world.dynamodb), unique("batch")
    BatchRecorder(world.jobs_table, client).create(batch_id, "demo", ["https://example.com"] * 101)
    looks = [arguments for name, arguments in client.calls if name == "query"][1:]
    assert [1, 1] == [arguments.get("Limit") for arguments in looks]
    assert ["put_item", "query"] == [name for name, _ in client.calls[-2:]]


def test_its_own_client_gives_up_within_a_minute(world: World) -> None:
    """Four attempts, each with 2 seconds to connect and 10 to read."""
    config = BatchRecorder(world.jobs_table)._client.meta.config
    assert (2, 10) == (config.connect_timeout, config.read_timeout)
    assert {"mode": "standard", "total_max_attempts": 4} == config.retries
    assert "batch-progress" == config.user_agent


def test_more_than_a_page_of_jobs(recorder: BatchRecorder) -> None:
    """A rerun and a cancellation read every page. A URL may have 2,048 characters, a page 1 MB."""
    batch_id = unique("batch")
    urls = [f"https://example.com/{number:0>2028}" for number in range(520)]
    recorder.create(batch_id, "demo", urls)
    assert 520 == len(recorder.create(batch_id, "demo", urls))
    assert 520 == recorder.cancel_batch(batch_id)
    assert 0 == recorder.cancel_batch(batch_id)


class Overtaken:
    """A client that lets another writer act once, before a certain one of its calls of an operation."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401  # botocore ships no types
        meanwhile: Callable[[], object],
        operation: str = "put_item",
        before: int = 1,
    ) -> None:
        self._client = client
        self._meanwhile = meanwhile
        self._operation = operation
        self._left = before
        self._one_at_a_time = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(**arguments: object) -> object:
            with self._one_at_a_time:
                if name == self._operation:
                    self._left -= 1
                    if self._left == 0:
                        self._meanwhile()
                answer: object = getattr(self._client, name)(**arguments)
                return answer

        return call


@pytest.mark.parametrize("owner", ["demo", "somebody"])
def test_another_writer_makes_the_batch_first(world: World, recorder: BatchRecorder, owner: str) -> None:
    """The other write comes between our read and write. An equal batch is completed, a different one is a conflict."""
    batch_id = unique("batch")
    client = Overtaken(world.dynamodb, lambda: recorder.create(batch_id, owner, URLS))
    overtaken = BatchRecorder(world.jobs_table, client)
    if owner == "demo":
        assert 3 == len(overtaken.create(batch_id, "demo", URLS))
    else:
        with pytest.raises(BatchConflict):
            overtaken.create(batch_id, "demo", URLS)
    assert owner == stored(world, batch_id, "BATCH")["owner_id"]


class Died(BaseException):
    """The process has died."""


class Dying:
    """A client whose process dies before its `calls`-th call, or after it but before the response."""

    def __init__(self, client: object, calls: int, *, answer_lost: bool, error: BaseException | None = None) -> None:
        self._client = client
        self._left = calls
        self._answer_lost = answer_lost
        self._error = error or Died()
        self._one_at_a_time = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(**arguments: object) -> object:
            with self._one_at_a_time:
                self._left -= 1
                if self._left > 0:
                    answer: object = getattr(self._client, name)(**arguments)
                    return answer
                if self._left == 0 and self._answer_lost:
                    getattr(self._client, name)(**arguments)
            raise self._error

        return call


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize("calls", [1, 2, 3, 7, 12])
def test_create_again_after_a_crash(world: World, recorder: BatchRecorder, calls: int, answer_lost: bool) -> None:  # noqa: FBT001
    """Wherever the first run died, a rerun makes the same batch and keeps what workers have recorded."""
    batch_id, urls = unique("batch"), [f"https://example.com/{number}" for number in range(10)]
    crashing = BatchRecorder(world.jobs_table, Dying(world.dynamodb, calls, answer_lost=answer_lost))
    with pytest.raises(Died):
        crashing.create(batch_id, "demo", urls)
    begun = [job_id for job_id in ("job_000001", "job_000002") if job(world, batch_id, job_id)]
    for job_id in begun:
        recorder.complete(batch_id, job_id, 3)

    job_ids = recorder.create(batch_id, "demo", urls)

    data = world.get(batch_id).data
    assert [f"job_{number:06}" for number in range(1, 11)] == job_ids == [told["job_id"] for told in data["jobs"]]
    assert urls == [told["url"] for told in data["jobs"]]
    assert (10, len(begun)) == (data["total_urls"], data["completed"])


# Cancelled batches


def test_a_cancelled_batch_gets_no_jobs(world: World, recorder: BatchRecorder) -> None:
    """Its declared URLs count as ended. Nothing is written."""
    batch_id = world.put_batch(total_urls=3)
    assert 0 == recorder.cancel_batch(batch_id)
    batch = stored(world, batch_id, "BATCH")
    with pytest.raises(BatchConflict, match=f"{batch_id} was cancelled at {batch['cancelled_at']}"):
        recorder.create(batch_id, "demo", URLS)
    assert batch == stored(world, batch_id, "BATCH")
    assert {} == job(world, batch_id, "job_000001")
    data = world.get(batch_id).data
    assert (3, 3, 0) == (data["total_urls"], data["failed"], data["pending"])


@pytest.mark.parametrize("before", [1, 2, 11, 104, 131])
def test_a_batch_that_is_cancelled_while_it_is_made(world: World, recorder: BatchRecorder, before: int) -> None:
    """`create` stops, wherever it is, and no job is left that has not ended. The first call writes the batch itself."""
    batch_id, urls = unique("batch"), ["https://example.com"] * 130
    meanwhile = (lambda: recorder.cancel_batch(batch_id)) if before > 1 else (lambda: world.put_batch(batch_id))
    overtaken = BatchRecorder(world.jobs_table, Overtaken(world.dynamodb, meanwhile, before=before))
    if before == 1:
        assert 130 == len(overtaken.create(batch_id, "demo", urls))
        return
    with pytest.raises(BatchConflict):
        overtaken.create(batch_id, "demo", urls)
    data = world.get(batch_id).data
    assert (130, 130, 0) == (data["total_urls"], data["failed"], data["pending"])
    assert {"cancelled"} == {told["status"] for told in data["jobs"]}
    # It looks after each 100 jobs.
    assert -(-(before - 1) // 100) * 100 >= len(data["jobs"])


def test_a_killed_create_of_a_cancelled_batch(world: World, recorder: BatchRecorder) -> None:
    """Killed before it could cancel what it had just written: the next call does, and is refused."""
    batch_id = unique("batch")
    client = Overtaken(world.dynamodb, lambda: recorder.cancel_batch(batch_id), before=2)
    with pytest.raises(Died):
        BatchRecorder(world.jobs_table, Dying(client, 5, answer_lost=True)).create(batch_id, "demo", URLS)
    assert "pending" == job(world, batch_id, "job_000002")["status"]
    for _ in range(2):
        with pytest.raises(BatchConflict):
            recorder.create(batch_id, "demo", URLS)
        assert 0 == world.get(batch_id).data["pending"]


def test_cancelling_again_keeps_the_first_time(world: World, recorder: BatchRecorder) -> None:
    """A repeated call cancels what an interrupted one has left."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", URLS)
    dying = BatchRecorder(world.jobs_table, Dying(world.dynamodb, 3, answer_lost=False))
    with pytest.raises(Died):
        dying.cancel_batch(batch_id)
    cancelled_at = stored(world, batch_id, "BATCH")["cancelled_at"]
    assert TIME.fullmatch(cancelled_at)
    recorder.cancel_batch(batch_id)
    assert cancelled_at == stored(world, batch_id, "BATCH")["cancelled_at"]
    assert 0 == world.get(batch_id).data["pending"]


# Transitions

CALLS: dict[str, Call] = {
    "start": lambda recorder, *ids: recorder.start(*ids),
    "start, retry": lambda recorder, *ids: recorder.start(*ids, retry=True),
    "complete 3": lambda recorder, *ids: recorder.complete(*ids, 3),
    "complete 4": lambda recorder, *ids: recorder.complete(*ids, 4),
    "fail A": lambda recorder, *ids: recorder.fail(*ids, "A", "why", items_extracted=2),
    "fail B": lambda recorder, *ids: recorder.fail(*ids, "B", "why", items_extracted=2),
    "fail A, why not": lambda recorder, *ids: recorder.fail(*ids, "A", "why not", items_extracted=2),
    "fail A, no items": lambda recorder, *ids: recorder.fail(*ids, "A", "why"),
    "fail A by 1": lambda recorder, *ids: recorder.fail(*ids, "A", "why", items_extracted=2, attempt=1),
    "fail B by 1": lambda recorder, *ids: recorder.fail(*ids, "B", "why", items_extracted=2, attempt=1),
    "fail A by 2": lambda recorder, *ids: recorder.fail(*ids, "A", "why", items_extracted=2, attempt=2),
    "fail B by 2": lambda recorder, *ids: recorder.fail(*ids, "B", "why", items_extracted=2, attempt=2),
    "fail A by 3": lambda recorder, *ids: recorder.fail(*ids, "A", "why", items_extracted=2, attempt=3),
    "report by 1": lambda recorder, *ids: recorder.report(*ids, 1, attempt=1),
    "report by 2": lambda recorder, *ids: recorder.report(*ids, 1, attempt=2),
    "cancel": lambda recorder, *ids: recorder.cancel(*ids),
    "lost": lambda recorder, *ids: recorder.fail(*ids, "WORKER_LOST"),
}
PROCESSING, COMPLETED, FAILED, CANCELLED = STATES[1:]
SAME, ILLEGAL = "nothing happens", "illegal"
# The calls that make a job of each state, which the number of its latest attempt follows.
INTO: dict[str, list[str]] = {
    "pending 0": [],
    "processing 1": ["start"],
    "processing 2": ["start", "start"],
    "completed 0": ["complete 3"],
    "completed 2": ["start", "start", "complete 3"],
    "failed 0": ["fail A"],
    "failed 2": ["start", "start", "fail A"],
    "lost 2": ["start", "start", "lost"],
    "cancelled 0": ["cancel"],
    "cancelled 2": ["start", "start", "cancel"],
}


def processing(attempt: int, items: int = 0) -> str:
    return f"processing {attempt}: {items} items"


def failed(attempt: int, code: str = "A", why: str = "why", items: int = 2) -> str:
    return f"failed {attempt}: {items} items, {code}, {why}"


def by_number(*, of_1: str, of_2: str, of_3: str = ILLEGAL) -> dict[str, str]:
    """Return the outcomes of failures that name their attempt, where A and B have the same."""
    return {"fail A by 1": of_1, "fail B by 1": of_1, "fail A by 2": of_2, "fail B by 2": of_2, "fail A by 3": of_3}


def unnumbered(attempt: int) -> dict[str, str]:
    """Return the outcomes of failures that name no attempt, and end the job."""
    return {
        "fail A": failed(attempt),
        "fail B": failed(attempt, "B"),
        "fail A, why not": failed(attempt, why="why not"),
        "fail A, no items": failed(attempt, items=0),
    }


def ended(attempt: int) -> dict[str, str]:
    """Return the outcomes of the ends of a job that has not ended."""
    return unnumbered(attempt) | {
        "complete 3": f"completed {attempt}: 3 items",
        "complete 4": f"completed {attempt}: 4 items",
        "cancel": f"cancelled {attempt}: 0 items",
    }


def every(outcome: str, *beginnings: str) -> dict[str, str]:
    """Return one outcome for the calls whose names begin so."""
    return {call: outcome for call in CALLS if call.startswith(beginnings)}


UNNUMBERED = ("fail A", "fail B")
# What each call does in each state.
TRANSITIONS: dict[str, dict[str, str]] = {
    "pending 0": every(processing(1), "start") | every(ILLEGAL, "fail", "report") | ended(0),
    "processing 1": every(processing(2), "start")
    | ended(1)
    | {"fail A by 1": failed(1), "fail B by 1": failed(1, "B"), "fail A by 2": ILLEGAL, "fail B by 2": ILLEGAL}
    | {"fail A by 3": ILLEGAL, "report by 1": processing(1, 1), "report by 2": ILLEGAL},
    "processing 2": every(processing(3), "start")
    | ended(2)
    | {"fail A by 1": SAME, "fail B by 1": SAME, "fail A by 2": failed(2), "fail B by 2": failed(2, "B")}
    | {"fail A by 3": ILLEGAL, "report by 1": ILLEGAL, "report by 2": processing(2, 1)},
    "completed 0": every(ILLEGAL, "start", "report", "cancel")
    | every(SAME, "complete", "fail")
    | by_number(of_1=ILLEGAL, of_2=ILLEGAL),
    "completed 2": every(ILLEGAL, "start", "report", "cancel")
    | every(SAME, "complete", "fail")
    | by_number(of_1=SAME, of_2=SAME),
    "failed 0": every(ILLEGAL, "start", "report", "cancel", "fail")
    | {"start, retry": processing(1), "complete 3": "completed 0: 3 items", "complete 4": "completed 0: 4 items"}
    | {"fail A": SAME},
    "failed 2": every(ILLEGAL, "start", "report", "cancel", "fail")
    | {"start, retry": processing(3), "complete 3": "completed 2: 3 items", "complete 4": "completed 2: 4 items"}
    | {"fail A": SAME, "fail A by 1": SAME, "fail B by 1": SAME, "fail A by 2": SAME},
    "lost 2": every(processing(3), "start")
    | every(ILLEGAL, "report", "cancel", "fail")
    | {"complete 3": "completed 2: 3 items", "complete 4": "completed 2: 4 items"}
    | {"fail A by 1": SAME, "fail B by 1": SAME, "lost": SAME},
    "cancelled 0": every(ILLEGAL, *CALLS) | {"cancel": SAME},
    "cancelled 2": every(ILLEGAL, *CALLS) | {"cancel": SAME},
}


def transitions() -> Iterator[tuple[str, str, str]]:
    for state, outcomes in TRANSITIONS.items():
        for call in CALLS:
            if call != "lost" or call in outcomes:
                yield state, call, outcomes[call]


def described(row: dict[str, Any]) -> str:
    """Describe a job as the table of transitions does."""
    texts = [f"{row['status']} {row.get('attempt', 0)}: {row['items_extracted']} items"]
    return ", ".join(texts + [row[name] for name in ("error_code", "error_message") if name in row])


@pytest.fixture(scope="module")
def batch_of_one_each(recorder: BatchRecorder) -> Callable[[str], tuple[str, str]]:
    """Return a function that makes a job in a given state."""
    batch_id = unique("batch")
    job_ids = iter(recorder.create(batch_id, "demo", ["https://example.com"] * 200))

    def fresh(state: str) -> tuple[str, str]:
        ids = batch_id, next(job_ids)
        for call in INTO[state]:
            CALLS[call](recorder, *ids)
        return ids

    return fresh


@pytest.mark.parametrize(("state", "call", "outcome"), list(transitions()))
def test_every_transition(
    world: World,
    recorder: BatchRecorder,
    batch_of_one_each: Callable[[str], tuple[str, str]],
    state: str,
    call: str,
    outcome: str,
) -> None:
    """Each call from each state is a transition, a no-op, or a refusal that changes nothing."""
    ids = batch_of_one_each(state)
    before = job(world, *ids)
    if outcome == ILLEGAL:
        with pytest.raises(IllegalTransition) as raised:
            CALLS[call](recorder, *ids)
        wanted = {"start": PROCESSING, "report": PROCESSING, "complete": COMPLETED, "cancel": CANCELLED}
        assert (before["status"], wanted.get(re.match(r"\w+", call)[0], FAILED)) == (  # type: ignore[index]  # it has
            raised.value.current,
            raised.value.wanted,
        )
        assert all(name in str(raised.value) for name in (*ids, before["status"]))
        assert before == job(world, *ids)
        return
    answer = CALLS[call](recorder, *ids)
    after = job(world, *ids)
    if outcome == SAME:
        assert before == after
        return
    assert outcome == described(after)
    if call.startswith("start"):
        assert int(after["attempt"]) == answer
        return
    # Calls are idempotent.
    CALLS[call](recorder, *ids)
    assert described(after) == described(job(world, *ids))


@pytest.mark.parametrize(
    ("into", "call", "text"),
    [
        (["complete 3"], "start", "cannot change from completed to processing"),
        (["fail A"], "start", "cannot change from failed to processing; retry=True starts it again"),
        (["fail A"], "fail B", "is already failed, with other values"),
        ([], "fail A by 1", "is pending, and attempt 1 cannot change it: it has had no attempt"),
        (["start", "start"], "report by 1", "is processing, and attempt 1 cannot change it: attempt 2 is the latest"),
        (["start", "cancel"], "report by 1", "cannot change from cancelled to processing"),
    ],
)
def test_a_refusal_says_why(recorder: BatchRecorder, into: list[str], call: str, text: str) -> None:
    """It names the job, its batch, and what is in the way."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    for one in into:
        CALLS[one](recorder, batch_id, job_id)
    with pytest.raises(IllegalTransition) as raised:
        CALLS[call](recorder, batch_id, job_id)
    assert f"Job {job_id} of batch {batch_id} {text}" == str(raised.value)


def test_what_is_recorded(world: World, recorder: BatchRecorder) -> None:
    """Times are in the format of the tables. A restarted job loses its error."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    bare = job(world, batch_id, job_id)

    attempt = recorder.start(batch_id, job_id)
    started = job(world, batch_id, job_id)
    assert TIME.fullmatch(started["started_at"])
    assert bare | {"status": "processing", "started_at": started["started_at"], "attempt": "1"} == started

    recorder.report(batch_id, job_id, 1, attempt=attempt)
    reported = job(world, batch_id, job_id)
    assert TIME.fullmatch(reported["seen_at"])
    assert started | {"items_extracted": "1", "seen_at": reported["seen_at"]} == reported

    recorder.fail(batch_id, job_id, "TIMEOUT", "It took too long.", items_extracted=2)
    failed = job(world, batch_id, job_id)
    assert started["started_at"] <= reported["seen_at"] <= failed["finished_at"]
    assert (
        reported
        | {
            "status": "failed",
            "error_code": "TIMEOUT",
            "error_message": "It took too long.",
            "items_extracted": "2",
            "finished_at": failed["finished_at"],
        }
        == failed
    )

    recorder.start(batch_id, job_id, retry=True)
    again = job(world, batch_id, job_id)
    assert started | {"started_at": again["started_at"], "attempt": "2"} == again

    recorder.fail(batch_id, job_id, "TIMEOUT", "It took too long.")
    recorder.complete(batch_id, job_id, 2**53)
    completed = job(world, batch_id, job_id)
    assert (
        again
        | {
            "status": "completed",
            "items_extracted": str(2**53),
            "finished_at": completed["finished_at"],
        }
        == completed
    )


def test_a_job_taken_over_has_a_new_start(world: World, recorder: BatchRecorder) -> None:
    """Neither the forecast nor `stalled` takes the dead worker's time for the job's."""
    batch_id = world.put_batch()
    old: dict[str, Attribute] = {"started_at": now(-600), "seen_at": now(-300), "items_extracted": 7, "attempt": 4}
    world.put_job(batch_id, "job_000001", status="processing", **old)
    assert 5 == recorder.start(batch_id, "job_000001")
    taken_over = job(world, batch_id, "job_000001")
    assert ("5", "0") == (taken_over["attempt"], taken_over["items_extracted"])
    assert now(-60) < taken_over["started_at"]
    assert "seen_at" not in taken_over


def test_items_reported_while_a_job_runs_are_in_the_answer(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    recorder.report(batch_id, job_id, 12, attempt=recorder.start(batch_id, job_id))
    data = world.get(batch_id).data
    assert (12, 12) == (data["total_items_extracted"], data["jobs"][0]["items_extracted"])


def test_a_failure_without_a_message_leaves_none(world: World, recorder: BatchRecorder) -> None:
    """Another writer may have left one. A repeated call is a no-op then too."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_000001", status="processing", error_message="an old one")
    for _ in range(2):
        recorder.fail(batch_id, "job_000001", "A")
    assert "error_message" not in job(world, batch_id, "job_000001")


# Rows of other writers


def test_a_running_job_without_a_number(world: World, recorder: BatchRecorder) -> None:
    """Other writers and earlier versions record no attempt: any worker can end the job, and a start is attempt 1."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["processing"] * 4)
    recorder.complete(batch_id, "job_000001", 1)
    recorder.fail(batch_id, "job_000002", "A")
    with pytest.raises(IllegalTransition):
        recorder.report(batch_id, "job_000003", 1, attempt=1)
    assert 1 == recorder.start(batch_id, "job_000003")
    recorder.report(batch_id, "job_000003", 1, attempt=1)
    with pytest.raises(IllegalTransition):
        recorder.fail(batch_id, "job_000004", "A", attempt=1)
    assert ["completed", "failed", "processing", "processing"] == [
        told["status"] for told in world.get(batch_id).data["jobs"]
    ]


@pytest.mark.parametrize("status", ["processing", "paused", None, {"N": "7"}])
@pytest.mark.parametrize("attempt", [{"S": "3"}, -1, 2**63 - 1, {"BOOL": True}, {"M": {}}], ids=str)
def test_a_malformed_attempt_is_counted_from_1(
    world: World, recorder: BatchRecorder, attempt: Attribute, status: Attribute
) -> None:
    """It must not keep a job from being started. An unknown status counts as pending."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_000001", status=status, attempt=attempt)
    assert [1, 2] == [recorder.start(batch_id, "job_000001") for _ in range(2)]


def test_a_malformed_attempt_of_an_ended_job(world: World, recorder: BatchRecorder) -> None:
    """It makes no difference to whether the job may start."""
    batch_id, malformed = world.put_batch(), {"attempt": {"S": "x"}}
    world.put_jobs(batch_id, {status: {"status": status} | malformed for status in STATES[2:]})
    world.put_job(batch_id, "lost", status="failed", error_code="WORKER_LOST", **malformed)
    for status in STATES[2:]:
        with pytest.raises(IllegalTransition):
            recorder.start(batch_id, status)
    assert [1, 1] == [recorder.start(batch_id, "failed", retry=True), recorder.start(batch_id, "lost")]


def test_two_workers_find_a_malformed_attempt(world: World, recorder: BatchRecorder) -> None:
    """The second one's number follows the first one's."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_000001", status="processing", attempt={"S": "x"})
    numbers = []
    client = Overtaken(
        world.dynamodb, lambda: numbers.append(recorder.start(batch_id, "job_000001")), "update_item", before=2
    )
    numbers.append(BatchRecorder(world.jobs_table, client).start(batch_id, "job_000001"))
    assert [1, 2] == numbers


def test_errors_are_cut(world: World, recorder: BatchRecorder) -> None:
    """Errors are cut to 1,024 characters. Repeating the call with the same long text is a no-op."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    for _ in range(2):
        recorder.fail(batch_id, job_id, "C" * 2_000, "\N{SNOWMAN}" * 2_000 + "\udc80")
    failed = job(world, batch_id, job_id)
    assert ("C" * 1_024, "\N{SNOWMAN}" * 1_024) == (failed["error_code"], failed["error_message"])


def test_a_text_that_is_no_unicode_is_recorded_all_the_same(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    recorder.fail(batch_id, job_id, "OSError", "no such file: \udcff.html")
    assert "no such file: ?.html" == job(world, batch_id, job_id)["error_message"]


def test_a_job_without_a_status_is_pending(world: World, recorder: BatchRecorder) -> None:
    """The recorder and the readers treat a missing status in the same way."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "bare", status=None)
    recorder.start(batch_id, "bare")
    assert "processing" == job(world, batch_id, "bare")["status"]


def test_a_job_without_a_count_has_found_nothing(world: World, recorder: BatchRecorder) -> None:
    """A job that another writer failed without a count: the same failure with 0 items is a no-op."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "bare", status="failed", error_code="A")
    recorder.fail(batch_id, "bare", "A")
    with pytest.raises(IllegalTransition):
        recorder.fail(batch_id, "bare", "A", items_extracted=1)


@pytest.mark.parametrize("call", CALLS)
def test_unknown_batch_and_job(world: World, recorder: BatchRecorder, call: str) -> None:
    """A call that names an unknown batch or job creates neither."""
    missing, batch_id = unique("missing"), world.put_batch()
    with pytest.raises(BatchNotFound) as not_found:
        CALLS[call](recorder, missing, "job_000001")
    assert {"batch_id": missing} == not_found.value.details
    assert f"Batch not found (batch_id: {missing})" == str(not_found.value)
    with pytest.raises(JobNotFound) as raised:
        CALLS[call](recorder, batch_id, "nobody")
    assert {"batch_id": batch_id, "job_id": "nobody"} == raised.value.details
    assert f"Job not found (batch_id: {batch_id}, job_id: nobody)" == str(raised.value)
    assert {} == job(world, missing, "job_000001") | job(world, batch_id, "nobody")


def test_cancel_batch(world: World, recorder: BatchRecorder) -> None:
    """Ended jobs stay, the others are cancelled and counted. Other items are not jobs."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, STATES)
    world.put_item(attributes({"batch_id": batch_id, "sk": "BATCH_NOTES"}))
    assert 2 == recorder.cancel_batch(batch_id)
    assert 0 == recorder.cancel_batch(batch_id)
    assert ["cancelled", "cancelled", "completed", "failed", "cancelled"] == [
        told["status"] for told in world.get(batch_id).data["jobs"]
    ]
    assert TIME.fullmatch(job(world, batch_id, "job_000001")["finished_at"])


def test_cancel_batch_writes_nothing_for_what_has_ended(world: World) -> None:
    """It reads first. A job without a status counts as pending."""
    client, batch_id = Watched(world.dynamodb), world.put_batch(total_urls=6)
    world.put_jobs(batch_id, STATES)
    world.put_job(batch_id, "stateless", status=None)
    assert 3 == BatchRecorder(world.jobs_table, client).cancel_batch(batch_id)
    updated = [arguments["Key"]["sk"]["S"] for name, arguments in client.calls if name == "update_item"]
    assert "BATCH" == updated[0]
    assert ["JOB#job_000001", "JOB#job_000002", "JOB#stateless"] == sorted(updated[1:])


def test_cancel_batch_that_is_not_there(world: World, recorder: BatchRecorder) -> None:
    orphaned = unique("batch")
    world.put_job(orphaned, "job_000001")
    for batch_id in (unique("missing"), orphaned):
        with pytest.raises(BatchNotFound) as raised:
            recorder.cancel_batch(batch_id)
        assert {"batch_id": batch_id} == raised.value.details


# The context manager


def test_a_block_that_ends(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with recorder.job(batch_id, job_id) as running:
        assert (batch_id, job_id, 1, 0) == (running.batch_id, running.job_id, running.attempt, running.items_extracted)
        assert "processing" == job(world, batch_id, job_id)["status"]
        running.items_extracted += 2
        running.items_extracted += 3
    ended = job(world, batch_id, job_id)
    assert ("completed", "5") == (ended["status"], ended["items_extracted"])


def test_a_block_that_raises(world: World, recorder: BatchRecorder) -> None:
    """The job fails with the exception's class and text and its items so far, and the exception propagates."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(ZeroDivisionError), recorder.job(batch_id, job_id) as running:  # noqa: PT012  # the block
        running.items_extracted = 4
        1 / 0  # noqa: B018  # raises
    ended = job(world, batch_id, job_id)
    assert ("failed", "ZeroDivisionError", "division by zero", "4") == tuple(
        ended[name] for name in ("status", "error_code", "error_message", "items_extracted")
    )
    with pytest.raises(IllegalTransition), recorder.job(batch_id, job_id):
        pytest.fail("a job that has failed is not begun")
    with recorder.job(batch_id, job_id, retry=True):
        pass
    assert "completed" == job(world, batch_id, job_id)["status"]


def test_a_block_that_reports(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with recorder.job(batch_id, job_id) as running:
        running.items_extracted = 2
        running.report()
        reported = job(world, batch_id, job_id)
        assert ("processing", "2") == (reported["status"], reported["items_extracted"])
        assert TIME.fullmatch(reported["seen_at"])
        running.items_extracted = 3
    assert "3" == job(world, batch_id, job_id)["items_extracted"]


@pytest.mark.parametrize("end", ["complete 3", "fail A by 2", None])
def test_a_block_whose_job_was_taken_over(world: World, recorder: BatchRecorder, end: str | None) -> None:
    """Its late failure is nothing, whatever the other attempt has done, and needs no note."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(ZeroDivisionError) as raised, recorder.job(batch_id, job_id):  # noqa: PT012  # the block
        recorder.start(batch_id, job_id)
        if end:
            CALLS[end](recorder, batch_id, job_id)
        before = job(world, batch_id, job_id)
        1 / 0  # noqa: B018  # raises
    assert before == job(world, batch_id, job_id)
    assert not hasattr(raised.value, "__notes__")


def test_a_block_whose_job_was_taken_over_may_succeed(world: World, recorder: BatchRecorder) -> None:
    """Success wins: over a running attempt, and over its failure. The first success stands."""
    batch_id = unique("batch")
    for job_id, end in zip(recorder.create(batch_id, "demo", URLS), (None, "fail A by 2", "complete 3"), strict=True):
        with recorder.job(batch_id, job_id) as running:
            running.items_extracted = 9
            recorder.start(batch_id, job_id)
            if end:
                CALLS[end](recorder, batch_id, job_id)
    assert [("completed", 9)] * 2 + [("completed", 3)] == [
        (told["status"], told["items_extracted"]) for told in world.get(batch_id).data["jobs"]
    ]


@pytest.mark.parametrize("call", ["start", "complete 3", "cancel", "lost"])
def test_a_report_tells_a_worker_to_stop(recorder: BatchRecorder, call: str) -> None:
    """Taken over, done by another worker, cancelled, or lost."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(IllegalTransition), recorder.job(batch_id, job_id) as running:  # noqa: PT012  # the block
        CALLS[call](recorder, batch_id, job_id)
        running.report()
        pytest.fail("it goes on")


def test_a_block_that_is_interrupted(world: World, recorder: BatchRecorder) -> None:
    """Ctrl-C leaves the job `processing`; the next worker continues it."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(KeyboardInterrupt), recorder.job(batch_id, job_id):
        raise KeyboardInterrupt
    assert "processing" == job(world, batch_id, job_id)["status"]


def test_a_failure_that_cannot_be_recorded(world: World, recorder: BatchRecorder) -> None:
    """The block's own exception propagates, with a note."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(ZeroDivisionError) as raised, recorder.job(batch_id, job_id):  # noqa: PT012  # the block
        recorder.cancel(batch_id, job_id)
        1 / 0  # noqa: B018  # raises
    name = f"{job_id} of batch {batch_id}"
    note = f"The failure of job {name} was not recorded: Job {name} cannot change from cancelled to failed"
    assert [note] == raised.value.__notes__
    assert "cancelled" == job(world, batch_id, job_id)["status"]


def test_a_job_that_is_cancelled_at_work(recorder: BatchRecorder) -> None:
    """The worker gets `IllegalTransition` at the end of the block."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    with pytest.raises(IllegalTransition, match="from cancelled to completed"), recorder.job(batch_id, job_id):
        recorder.cancel_batch(batch_id)


# Counts


@pytest.mark.parametrize(
    "count",
    [25, 25.0, Decimal(25), Decimal("25.00"), Decimal("2.5E+1"), Fraction(25)]
    + [kind(25) for kind in (np.int64, np.uint8, np.float32, np.float64)],
    ids=repr,
)
def test_a_whole_number_of_any_type_is_a_count(world: World, recorder: BatchRecorder, count: Any) -> None:  # noqa: ANN401
    """It is recorded as an integer."""
    batch_id = unique("batch")
    job_ids = recorder.create(batch_id, "demo", URLS, parallel_jobs=count, timeout_per_url=count)
    recorder.complete(batch_id, job_ids[0], count)
    recorder.fail(batch_id, job_ids[1], "A", items_extracted=count)
    with recorder.job(batch_id, job_ids[2]) as running:
        running.items_extracted = count
        assert (int, 25) == (type(running.items_extracted), running.items_extracted)
        recorder.report(batch_id, job_ids[2], count, attempt=count / count)
    assert ["25"] * 3 == [job(world, batch_id, job_id)["items_extracted"] for job_id in job_ids]
    batch = stored(world, batch_id, "BATCH")
    assert ("25", "25", "75") == tuple(batch[name] for name in ("parallel_jobs", "timeout_per_url", "lost_after"))


NO_COUNTS = [True, False, np.bool_(1), -1, -1.0, 25.5, Decimal("25.5"), Fraction(51, 2), 2**63, 2.0**63, 1e300]
NO_COUNTS += [float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), np.float32("nan")]
NO_COUNTS += [25 + 0j, "25", b"25", None, [25], np.array([25])]


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_what_is_no_count_is_refused(value: Any) -> None:  # noqa: ANN401  # anything
    """Before anything is written; in a block, where it is set and not after the work."""
    recorder = BatchRecorder("table", Untouched())
    with pytest.raises(ValidationError):
        recorder.complete("batch", "job", value)
    with pytest.raises(ValidationError):
        recorder.report("batch", "job", 1, attempt=value)
    running = RunningJob(recorder, "batch_a", "job_b", 1)
    running.items_extracted = 3
    with pytest.raises(ValidationError, match="items_extracted of job job_b of batch batch_a"):
        running.items_extracted = value
    assert 3 == running.items_extracted


# Bad arguments

LONG_URL = "https://example.com/".ljust(2_049, "x")
BAD_BATCHES: dict[str, dict[str, Any]] = {
    "no batch id": {"batch_id": ""},
    "a batch id with a blank": {"batch_id": "a b"},
    "a batch id with a line end": {"batch_id": "batch\n"},
    "a long batch id": {"batch_id": "b" * 129},
    "a number for a batch id": {"batch_id": 5},
    "no owner": {"owner_id": ""},
    "nobody": {"owner_id": None},
    "no URLs": {"urls": None},
    "one URL": {"urls": URLS[0]},
    "a set of URLs": {"urls": set(URLS)},
    "another scheme": {"urls": ["javascript:alert(1)"]},
    "no scheme": {"urls": ["example.com"]},
    "no host": {"urls": ["https:///"]},
    "a bad port": {"urls": ["https://example.com:99999/"]},
    "a blank in a URL": {"urls": ["https://example.com/a b"]},
    "a line end in a URL": {"urls": ["https://example.com/\n"]},
    "no Unicode": {"urls": ["https://example.com/\ud800"]},
    "a long URL": {"urls": [LONG_URL]},
    "bytes": {"urls": [b"https://example.com"]},
    "the last of many": {"urls": [*URLS, "ftp://example.com"]},
    "too few ids": {"job_ids": ["a", "b"]},
    "an id twice": {"job_ids": ["a", "b", "a"]},
    "a bad job id": {"job_ids": ["a", "b", "c#d"]},
    "a set of ids": {"job_ids": {"a", "b", "c"}},
    "no workers": {"parallel_jobs": 0},
    "half a worker": {"parallel_jobs": 1.5},
    "yes workers": {"parallel_jobs": True},
    "no time": {"timeout_per_url": 0},
    "no number": {"timeout_per_url": float("nan")},
    "infinite timeout": {"timeout_per_url": float("inf")},
    "a text for a time": {"timeout_per_url": "30"},
    "yes seconds": {"timeout_per_url": True},
    "not a number": {"timeout_per_url": Decimal("sNaN")},
    "lost at once": {"lost_after": 0},
    "infinite lost_after": {"lost_after": float("inf")},
    "lost in words": {"lost_after": "90"},
    "an expiry in milliseconds": {"expires_at": 1_734_345_000_000},
    "an expiry of no time zone": {"expires_at": datetime(2999, 1, 1)},  # noqa: DTZ001  # the bad argument
    "an expiry in words": {"expires_at": "tomorrow"},
    "an expiry from now": {"expires_at": timedelta(days=1)},
    "an expiry of yes": {"expires_at": True},
    "an expiry that is no number": {"expires_at": float("nan")},
    "an expiry never": {"expires_at": float("inf")},
    "an expiry of no decimal": {"expires_at": Decimal("sNaN")},
    "an expiry before 1970": {"expires_at": -1},
}


class Untouched:
    """A client that must not be used."""

    def __getattr__(self, name: str) -> object:
        pytest.fail(f"{name} was called")


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_batch_is_refused_before_anything_is_written(case: str) -> None:
    values = {"batch_id": "batch", "owner_id": "demo", "urls": URLS} | BAD_BATCHES[case]
    with pytest.raises(ValidationError):
        BatchRecorder("table", Untouched()).create(**values)


BAD_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("start", ("a b", "job"), {}),
    ("start", ("batch", ""), {}),
    ("start", ("batch", "j" * 129), {}),
    ("start", ("batch", "job"), {"retry": "yes"}),
    ("complete", ("batch", "job", -1), {}),
    ("complete", ("batch", "job", 1.5), {}),
    ("complete", ("batch", "job", "1"), {}),
    ("complete", ("batch", "job", True), {}),
    ("complete", ("batch", "job", 2**63), {}),
    ("complete", ("batch", "job"), {}),
    ("fail", ("batch", "job", ""), {}),
    ("fail", ("batch", "job", None), {}),
    ("fail", ("batch", "job", "CODE", None), {}),
    ("fail", ("batch", "job", "CODE"), {"items_extracted": -1}),
    ("fail", ("batch", "job", "CODE"), {"attempt": 0}),
    ("fail", ("batch", "job", "CODE"), {"attempt": "1"}),
    ("report", ("batch", "job", 1), {}),
    ("report", ("batch", "job", 1), {"attempt": 0}),
    ("report", ("batch", "job", -1), {"attempt": 1}),
    ("cancel", ("batch", None), {}),
    ("cancel_batch", ("",), {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), BAD_CALLS)
def test_bad_arguments_are_refused_before_anything_is_written(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        getattr(BatchRecorder("table", Untouched()), name)(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "text"),
    [
        ("start", ("batch_a", "a b"), {}, "BatchRecorder.start of batch batch_a\njob_id\n  must be 1 to 128 of"),
        ("start", (5, "job_b"), {}, "BatchRecorder.start of job job_b\nbatch_id\n  Input should be a valid string"),
        ("start", ("batch_a",), {}, "BatchRecorder.start of batch batch_a\njob_id\n  Missing required argument"),
        ("start", ("batch_a", "job_b", True), {}, "batch_a\nretry\n  Unexpected positional argument"),
        ("start", ("batch_a", "job_b"), {"again": True}, "batch_a\nagain\n  Unexpected keyword argument"),
        (
            "report",
            ("batch_a", "job_b", [1], 1),
            {},
            "BatchRecorder.report of job job_b of batch batch_a\nitems_extracted",
        ),
        ("complete", ("batch_a", "job_b", "5"), {}, "batch_a\nitems_extracted\n  Input should be a valid integer"),
        ("fail", ("batch_a", "job_b", 503), {}, "batch_a\nerror_code\n  Input should be a valid string"),
        ("fail", ("batch_a", "job_b", "CODE", None), {}, "batch_a\nerror_message\n"),
        (
            "create",
            ("batch_a", "demo", ["example.com"]),
            {},
            "BatchRecorder.create of batch batch_a\nurls.0\n  must begin with",
        ),
        ("create", ("batch_a", "demo", ["https:///"]), {}, "batch_a\nurls.0\n  is not a URL: "),
        ("create", ("b a", "demo", URLS), {}, "BatchRecorder.create\nbatch_id\n  must be 1 to 128 of"),
        (
            "create",
            ("batch_a", "demo", URLS),
            {"expires_at": "soon"},
            "expires_at\n  must be epoch seconds, or a datetime",
        ),
        (
            "create",
            ("batch_a", "demo", URLS),
            {"expires_at": 1_734_345_000_000},
            "expires_at\n  must be in epoch seconds, not",
        ),
        ("create", ("batch_a", "demo", URLS), {"job_ids": ["a"]}, "batch_a\n  'job_ids' must have exactly one id"),
    ],
)
def test_a_refusal_names_the_call_the_job_and_the_argument(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], text: str
) -> None:
    """Whether it was given by position or by name. The text has no link to pydantic's pages and no `self`."""
    with pytest.raises(ValidationError) as caught:
        getattr(BatchRecorder("table", Untouched()), name)(*arguments, **options)
    assert text in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert "BatchRecorder object" not in str(caught.value)


def test_help_shows_plain_types() -> None:
    """Not the rules of pydantic that validate them."""
    shown = "(self, batch_id: str, job_id: str, items_extracted: int, *, attempt: int) -> None"
    assert shown == str(inspect.signature(BatchRecorder.report))
    assert "(self, batch_id: str, job_id: str) -> None" == str(inspect.signature(BatchRecorder.cancel))


@pytest.mark.parametrize("name", [None, "", 5])
def test_a_recorder_needs_the_name_of_a_table(name: Any) -> None:  # noqa: ANN401  # anything
    """`os.environ.get` of a variable that is not set gives `None`; DynamoDB would say that some resource is missing."""
    with pytest.raises(ValidationError, match=r"for BatchRecorder\ntable_name\n"):
        BatchRecorder(name, Untouched())


def test_a_table_that_does_not_exist_is_named(world: World) -> None:
    """DynamoDB's own text does not name it."""
    with pytest.raises(ClientError) as caught:
        BatchRecorder("jobs-tabel", world.dynamodb).start("batch", "job")
    assert ["There is no table 'jobs-tabel'."] == caught.value.__notes__


def test_the_longest_of_everything_is_taken(world: World, recorder: BatchRecorder) -> None:
    batch_id, job_id = unique("b").ljust(128, "-"), "_" * 128
    assert [job_id] == recorder.create(batch_id, "o" * 256, [LONG_URL[:-1]], job_ids=[job_id])
    recorder.complete(batch_id, job_id, 2**63 - 1)
    assert LONG_URL[:-1] == job(world, batch_id, job_id)["url"]


# Faults


def test_dynamodb_away(world: World) -> None:
    """Every call raises `ServiceUnavailable` after the retries."""
    config = Config(connect_timeout=1, retries={"mode": "standard", "total_max_attempts": 2})
    away = botocore.session.Session().create_client("dynamodb", endpoint_url="http://127.0.0.1:9", config=config)
    recorder = BatchRecorder(world.jobs_table, away)
    with pytest.raises(ServiceUnavailable) as raised:
        recorder.create("batch_a", "demo", URLS)
    assert "Service unavailable (batch_id: batch_a)" == str(raised.value)
    with pytest.raises(ServiceUnavailable) as raised:
        recorder.complete("batch_a", "job_b", 1)
    assert "Service unavailable (batch_id: batch_a, job_id: job_b)" == str(raised.value)
    with pytest.raises(ServiceUnavailable) as raised:
        recorder.cancel_batch("batch_a")
    assert "Service unavailable (batch_id: batch_a)" == str(raised.value)


def told(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutItem")


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_fault_half_way_is_healed_by_a_repeat(world: World, answer_lost: bool) -> None:  # noqa: FBT001
    """The faults are a lost response to a write, and a write that did not happen."""
    batch_id = unique("batch")

    def failing(calls: int) -> BatchRecorder:
        throttled = told("ProvisionedThroughputExceededException")
        return BatchRecorder(world.jobs_table, Dying(world.dynamodb, calls, answer_lost=answer_lost, error=throttled))

    recorder = BatchRecorder(world.jobs_table, world.dynamodb)
    calls: list[Callable[[BatchRecorder], object]] = [
        lambda recorder: recorder.create(batch_id, "demo", URLS),
        lambda recorder: recorder.start(batch_id, "job_000001"),
        lambda recorder: recorder.complete(batch_id, "job_000001", 3),
        lambda recorder: recorder.cancel_batch(batch_id),
    ]
    for call in calls:
        with pytest.raises(ServiceUnavailable):
            call(failing(1))
        for fault in (2, 3, 4):
            with contextlib.suppress(ServiceUnavailable):
                call(failing(fault))
        call(recorder)
    assert (1, 2, 3) == tuple(
        world.get(batch_id).data[name] for name in ("completed", "failed", "total_items_extracted")
    )


def test_what_will_not_pass_is_not_hidden(world: World) -> None:
    """A missing table or permission is a deployment error: botocore's exception propagates."""
    with pytest.raises(ClientError):
        BatchRecorder("no-such-table", world.dynamodb).start("batch", "job")


def test_an_own_client_is_made_where_none_is_given(world: World) -> None:
    batch_id = unique("batch")
    BatchRecorder(world.jobs_table).create(batch_id, "demo", URLS)
    assert 3 == world.get(batch_id).data["total_urls"]


@pytest.mark.parametrize(
    "error",
    [
        IllegalTransition("b", "j", "completed", "failed"),
        IllegalTransition("b", "j", "processing", "failed", attempt=1, latest=2),
        JobNotFound("b", "j"),
        BatchConflict("b", cancelled_at="2026-01-01T00:00:00Z"),
        BatchNotFound("b"),
        ServiceUnavailable(batch_id="b", job_id="j"),
    ],
)
def test_an_error_crosses_from_one_process_to_another(error: BatchProgressError) -> None:
    """A process pool pickles exceptions. One that cannot be unpickled would break the pool."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (type(error), str(error), error.details) == (type(copy), str(copy), copy.details)


# A model of the table


class Model(RuleBasedStateMachine):
    """Makes any calls in any order. The table and the answers always agree with the model."""

    jobs = st.integers(1, 3).map(lambda number: f"job_{number:06}")
    counts = st.integers(0, 2)
    codes = st.sampled_from(["A", "B", "WORKER_LOST"])
    attempts = st.integers(1, 3)

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.recorder = BatchRecorder(world.jobs_table, world.dynamodb)
        self.batch_id = unique("batch")
        self.jobs_now: dict[str, Job] = {}
        self.cancelled = False

    @rule()
    def create(self) -> None:
        if self.cancelled:
            with pytest.raises(BatchConflict):
                self.recorder.create(self.batch_id, "demo", URLS)
            return
        for job_id in self.recorder.create(self.batch_id, "demo", URLS):
            self.jobs_now.setdefault(job_id, Job())

    @rule(job_id=jobs, retry=st.booleans())
    def start(self, job_id: str, retry: bool) -> None:  # noqa: FBT001
        call = lambda: self.recorder.start(self.batch_id, job_id, retry=retry)  # noqa: E731
        if self.moves(job_id, lambda job: job.start(0, retry=retry), call):
            assert self.jobs_now[job_id].attempt == self.number

    @rule(job_id=jobs, count=counts, attempt=attempts)
    def report(self, job_id: str, count: int, attempt: int) -> None:
        call = lambda: self.recorder.report(self.batch_id, job_id, count, attempt=attempt)  # noqa: E731
        self.moves(job_id, lambda job: job.report(0, count, attempt), call)

    @rule(job_id=jobs, count=counts)
    def complete(self, job_id: str, count: int) -> None:
        call = lambda: self.recorder.complete(self.batch_id, job_id, count)  # noqa: E731
        self.moves(job_id, lambda job: job.complete(0, count), call)

    @rule(job_id=jobs, count=counts, code=codes, attempt=st.none() | attempts)
    def fail(self, job_id: str, count: int, code: str, attempt: int | None) -> None:
        call = lambda: self.recorder.fail(  # noqa: E731
            self.batch_id, job_id, code, "why", items_extracted=count, attempt=attempt
        )
        self.moves(job_id, lambda job: job.fail(0, (code, "why"), count, attempt), call)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        self.moves(job_id, lambda job: job.cancel(0), lambda: self.recorder.cancel(self.batch_id, job_id))

    # Rarely: nothing else happens to a cancelled batch.
    @rule(dice=st.integers(1, 4))
    def cancel_batch(self, dice: int) -> None:
        if not self.jobs_now:
            with pytest.raises(BatchNotFound):
                self.recorder.cancel_batch(self.batch_id)
        elif dice == 1:
            alive = [job_id for job_id, job in self.jobs_now.items() if job.status in {"pending", "processing"}]
            assert len(alive) == self.recorder.cancel_batch(self.batch_id)
            self.jobs_now |= {job_id: self.jobs_now[job_id].cancel(0) for job_id in alive}
            self.cancelled = True

    def moves(self, job_id: str, change: Callable[[Job], Job], call: Callable[[], object]) -> bool:
        """Make a call and the model's change; return whether it was neither refused nor about a missing job."""
        if job_id not in self.jobs_now:
            with pytest.raises(BatchNotFound):
                call()
            return False
        try:
            after = change(self.jobs_now[job_id])
        except Refused:
            with pytest.raises(IllegalTransition):
                call()
            return False
        self.number = call()
        self.jobs_now[job_id] = after
        return True

    @invariant()
    def agrees(self) -> None:
        if self.jobs_now:
            data = self.world.get(self.batch_id, include="details").data
            assert {
                job_id: (job.status, job.items, job.failure and job.failure[0]) for job_id, job in self.jobs_now.items()
            } == {
                told["job_id"]: (told["status"], told["items_extracted"], told["error_code"]) for told in data["jobs"]
            }
            ended = [told["finished_at"] is not None for told in data["jobs"]]
            assert [job.status not in {"pending", "processing"} for job in self.jobs_now.values()] == ended


def test_any_calls_in_any_order(world: World) -> None:
    run_state_machine_as_test(
        lambda: Model(world),  # type: ignore[arg-type]  # any way to construct one
        settings=settings(
            max_examples=6,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=True,
        ),
    )
