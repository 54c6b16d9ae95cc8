"""The recorder: every transition, repeated calls, and crashes anywhere. tests/engines has concurrent writers."""

import contextlib
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
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
from batch_progress.recorder import BatchRecorder
from tests.integration.world import World, attributes, unique

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
    """The defaults are three workers and 30 seconds, and no expiry."""
    batch_id = unique("batch")
    recorder.create(batch_id, "demo", URLS)
    batch = stored(world, batch_id, "BATCH")
    assert ("3", "30") == (batch["parallel_jobs"], batch["timeout_per_url"])
    assert "expires_at" not in batch | job(world, batch_id, "job_000001")


def test_create_with_ids_of_its_own(world: World, recorder: BatchRecorder) -> None:
    batch_id = unique("batch")
    assert ["z", "a"] == recorder.create(batch_id, "demo", URLS[:2], job_ids=("z", "a"))
    assert URLS[:2] == [job(world, batch_id, job_id)["url"] for job_id in ("z", "a")]


def test_an_expiry_may_be_a_time(world: World, recorder: BatchRecorder) -> None:
    batch_id, moment = unique("batch"), datetime(2999, 12, 31, tzinfo=UTC)
    recorder.create(batch_id, "demo", URLS, expires_at=moment)
    assert str(int(moment.timestamp())) == stored(world, batch_id, "BATCH")["expires_at"]


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
    assert [True] * 3 == [arguments.get("ConsistentRead") for arguments in reads]


def test_its_own_client_gives_up_within_a_minute(world: World) -> None:
    """Four attempts, each with 2 seconds to connect and 10 to read."""
    config = BatchRecorder(world.jobs_table)._client.meta.config
    assert (2, 10) == (config.connect_timeout, config.read_timeout)
    assert {"mode": "standard", "total_max_attempts": 4} == config.retries


def test_more_than_a_page_of_jobs(recorder: BatchRecorder) -> None:
    """A rerun and a cancellation read every page. A URL may have 2,048 characters, a page 1 MB."""
    batch_id = unique("batch")
    urls = [f"https://example.com/{number:0>2028}" for number in range(520)]
    recorder.create(batch_id, "demo", urls)
    assert 520 == len(recorder.create(batch_id, "demo", urls))
    assert 520 == recorder.cancel_batch(batch_id)
    assert 0 == recorder.cancel_batch(batch_id)


class Overtaken:
    """A client that lets another writer act before its first write."""

    def __init__(self, client: Any, meanwhile: Callable[[], object]) -> None:  # noqa: ANN401  # botocore ships no types
        self._meanwhile: list[Callable[[], object]] = [meanwhile]
        self.query = client.query
        self._client = client

    def put_item(self, **arguments: object) -> object:
        while self._meanwhile:
            self._meanwhile.pop()()
        return self._client.put_item(**arguments)


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
    "cancel": lambda recorder, *ids: recorder.cancel(*ids),
}
PROCESSING, COMPLETED, FAILED, CANCELLED = STATES[1:]
SAME, ILLEGAL = "nothing happens", "illegal"
# The state after each call from each state, in the order of CALLS.
TRANSITIONS = {
    "pending": [PROCESSING] * 2 + [COMPLETED] * 2 + [FAILED] * 4 + [CANCELLED],
    "processing": [SAME] * 2 + [COMPLETED] * 2 + [FAILED] * 4 + [CANCELLED],
    "completed": [ILLEGAL] * 2 + [SAME, ILLEGAL] + [ILLEGAL] * 4 + [ILLEGAL],
    "failed": [ILLEGAL, PROCESSING] + [ILLEGAL] * 2 + [SAME, ILLEGAL, ILLEGAL, ILLEGAL] + [ILLEGAL],
    "cancelled": [ILLEGAL] * 2 + [ILLEGAL] * 2 + [ILLEGAL] * 4 + [SAME],
}
INTO: dict[str, list[str]] = {
    "pending": [],
    "processing": ["start"],
    "completed": ["start", "complete 3"],
    "failed": ["start", "fail A"],
    "cancelled": ["cancel"],
}
WANTED = dict(zip(CALLS, ["processing"] * 2 + ["completed"] * 2 + ["failed"] * 4 + ["cancelled"], strict=True))


def transitions() -> Iterator[tuple[str, str, str]]:
    for state, outcomes in TRANSITIONS.items():
        for call, outcome in zip(CALLS, outcomes, strict=True):
            yield state, call, outcome


@pytest.fixture(scope="module")
def batch_of_one_each(recorder: BatchRecorder) -> Callable[[str], tuple[str, str]]:
    """Return a function that makes a job in a given state."""
    batch_id = unique("batch")
    job_ids = iter(recorder.create(batch_id, "demo", ["https://example.com"] * 100))

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
        assert (state, WANTED[call]) == (raised.value.current, raised.value.wanted)
        assert state in str(raised.value)
        assert WANTED[call] in str(raised.value)
        assert before == job(world, *ids)
        return
    CALLS[call](recorder, *ids)
    after = job(world, *ids)
    if outcome == SAME:
        assert before == after
        return
    assert outcome == after["status"]
    # Calls are idempotent.
    CALLS[call](recorder, *ids)
    assert after == job(world, *ids)


def test_what_is_recorded(world: World, recorder: BatchRecorder) -> None:
    """Times are in the format of the tables. A restarted job loses its error."""
    batch_id = unique("batch")
    (job_id,) = recorder.create(batch_id, "demo", URLS[:1])
    bare = job(world, batch_id, job_id)

    recorder.start(batch_id, job_id)
    started = job(world, batch_id, job_id)
    assert TIME.fullmatch(started["started_at"])
    assert bare | {"status": "processing", "started_at": started["started_at"]} == started

    recorder.fail(batch_id, job_id, "TIMEOUT", "It took too long.", items_extracted=2)
    failed = job(world, batch_id, job_id)
    assert started["started_at"] <= failed["finished_at"]
    assert (
        started
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
    assert started | {"started_at": again["started_at"]} == again

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
    """The recorder and the readers treat a missing status alike."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "bare", status=None)
    recorder.start(batch_id, "bare")
    assert "processing" == job(world, batch_id, "bare")["status"]


def test_a_job_without_a_count_has_found_nothing(world: World, recorder: BatchRecorder) -> None:
    """A job that another writer ended without a count: the same end with 0 items is a no-op."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "bare", status="completed")
    recorder.complete(batch_id, "bare", 0)
    with pytest.raises(IllegalTransition):
        recorder.complete(batch_id, "bare", 1)


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
    updated = {arguments["Key"]["sk"]["S"] for name, arguments in client.calls if name == "update_item"}
    assert {"JOB#job_000001", "JOB#job_000002", "JOB#stateless"} == updated


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
        assert (batch_id, job_id, 0) == (running.batch_id, running.job_id, running.items_extracted)
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
    "for ever": {"timeout_per_url": float("inf")},
    "a text for a time": {"timeout_per_url": "30"},
    "an expiry in milliseconds": {"expires_at": 1_734_345_000_000},
    "an expiry of no time zone": {"expires_at": datetime(2999, 1, 1)},  # noqa: DTZ001  # the bad argument
    "an expiry in words": {"expires_at": "tomorrow"},
    "an expiry from now": {"expires_at": timedelta(days=1)},
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
    ("cancel", ("batch", None), {}),
    ("cancel_batch", ("",), {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), BAD_CALLS)
def test_bad_arguments_are_refused_before_anything_is_written(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        getattr(BatchRecorder("table", Untouched()), name)(*arguments, **options)


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
    with pytest.raises(ServiceUnavailable):
        recorder.create(unique("batch"), "demo", URLS)
    with pytest.raises(ServiceUnavailable):
        recorder.complete("batch", "job", 1)
    with pytest.raises(ServiceUnavailable):
        recorder.cancel_batch("batch")


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
    [IllegalTransition("b", "j", "completed", "failed"), JobNotFound("b", "j"), BatchConflict("b"), BatchNotFound("b")],
)
def test_an_error_crosses_from_one_process_to_another(error: BatchProgressError) -> None:
    """A process pool pickles exceptions. One that cannot be unpickled would break the pool."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (type(error), str(error), error.details) == (type(copy), str(copy), copy.details)


# A model of the table


class Model(RuleBasedStateMachine):
    """Makes any calls in any order. The table always agrees with the model."""

    jobs = st.integers(1, 3).map(lambda number: f"job_{number:06}")
    counts = st.integers(0, 2)
    codes = st.sampled_from(["A", "B"])

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.recorder = BatchRecorder(world.jobs_table, world.dynamodb)
        self.batch_id = unique("batch")
        self.states: dict[str, tuple[str, int, str | None]] = {}

    @rule()
    def create(self) -> None:
        for job_id in self.recorder.create(self.batch_id, "demo", URLS):
            self.states.setdefault(job_id, ("pending", 0, None))

    @rule(job_id=jobs, retry=st.booleans())
    def start(self, job_id: str, retry: bool) -> None:  # noqa: FBT001
        sources = {"pending", "failed"} if retry else {"pending"}
        current = self.states.get(job_id, (None,))[0]
        state = self.states[job_id] if current == "processing" else ("processing", 0, None)
        self.move(job_id, sources, state, lambda: self.recorder.start(self.batch_id, job_id, retry=retry))

    @rule(job_id=jobs, count=counts)
    def complete(self, job_id: str, count: int) -> None:
        state = ("completed", count, None)
        self.move(
            job_id, {"pending", "processing"}, state, lambda: self.recorder.complete(self.batch_id, job_id, count)
        )

    @rule(job_id=jobs, count=counts, code=codes)
    def fail(self, job_id: str, count: int, code: str) -> None:
        call = lambda: self.recorder.fail(self.batch_id, job_id, code, items_extracted=count)  # noqa: E731
        self.move(job_id, {"pending", "processing"}, ("failed", count, code), call)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        call = lambda: self.recorder.cancel(self.batch_id, job_id)  # noqa: E731
        self.move(job_id, {"pending", "processing"}, ("cancelled", 0, None), call)

    @rule()
    def cancel_batch(self) -> None:
        alive = [job_id for job_id, state in self.states.items() if state[0] in {"pending", "processing"}]
        if not self.states:
            with pytest.raises(BatchNotFound):
                self.recorder.cancel_batch(self.batch_id)
            return
        assert len(alive) == self.recorder.cancel_batch(self.batch_id)
        self.states |= dict.fromkeys(alive, ("cancelled", 0, None))

    def move(
        self, job_id: str, sources: set[str], state: tuple[str, int, str | None], call: Callable[[], None]
    ) -> None:
        if job_id not in self.states:
            with pytest.raises(BatchNotFound):
                call()
        elif self.states[job_id][0] in sources or self.states[job_id] == state:
            call()
            self.states[job_id] = state
        else:
            with pytest.raises(IllegalTransition):
                call()

    @invariant()
    def agrees(self) -> None:
        if self.states:
            data = self.world.get(self.batch_id, include="details").data
            assert self.states == {
                told["job_id"]: (told["status"], told["items_extracted"], told["error_code"]) for told in data["jobs"]
            }
            ended = [told["finished_at"] is not None for told in data["jobs"]]
            assert [state[0] not in {"pending", "processing"} for state in self.states.values()] == ended


def test_any_calls_in_any_order(world: World) -> None:
    run_state_machine_as_test(
        lambda: Model(world),  # type: ignore[arg-type]  # any way to construct one
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=True,
        ),
    )
