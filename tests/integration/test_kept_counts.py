"""The count of a large batch is shared by its clients."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from batch_progress import decode, dynamodb, kept, store
from batch_progress.errors import ServiceUnavailable
from batch_progress.store import ReadStats
from batch_progress.table import batch_key
from functions.progress import app
from functions.progress.envelope import error_headers
from tests.integration.world import Answer, Context, World, now, request_lines

FIRST_PAGE = 20
JOBS = 40
PENDING = 25


@dataclass
class Clock:
    """The function's clock. It stands still: a busy machine may take longer than a count is kept."""

    now: float

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(time.time())
    monkeypatch.setattr(app, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _few_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of two pages is large: each page costs one unit, whatever the engine reports."""
    query = dynamodb.Client.query

    def priced(client: dynamodb.Client, **arguments: Any) -> decode.QueryPage[Any]:  # noqa: ANN401  # DynamoDB's arguments
        return replace(query(client, **arguments), consumed=decode.Consumed(1.0))

    monkeypatch.setattr(dynamodb.Client, "query", priced)
    monkeypatch.setattr(kept, "LARGE_UNITS", 1.1)
    monkeypatch.setattr(kept, "UNITS_PER_SECOND", 0.2)
    monkeypatch.setattr(store, "FIRST_PAGE_ITEMS", FIRST_PAGE)


@pytest.fixture
def batch_id(world: World) -> str:
    """A large batch that runs."""
    batch_id = world.put_batch(total_urls=JOBS, parallel_jobs=2)
    world.put_jobs(batch_id, ["completed"] * 10 + ["failed"] * 5 + ["processing"] * 2 + ["pending"] * (PENDING - 2))
    return batch_id


def item(world: World, batch_id: str) -> dict[str, Any]:
    found = world.dynamodb.get_item(TableName=world.jobs_table, Key=batch_key(batch_id))["Item"]
    return dict(found)


def change(world: World, batch_id: str, **values: str | int) -> None:
    """Set attributes of the batch item."""
    world.put_item(
        item(world, batch_id) | {n: {"S": v} if isinstance(v, str) else {"N": str(v)} for n, v in values.items()}
    )


def complete(world: World, batch_id: str, jobs: int, *, told: int | None = None) -> None:
    """Complete jobs; the stream delivers as many changes, or `told`."""
    world.put_jobs(
        batch_id, {f"job_{number:06}": {"status": "completed"} for number in range(JOBS - jobs + 1, JOBS + 1)}
    )
    revision = int(item(world, batch_id).get("revision", {"N": "0"})["N"])
    change(world, batch_id, revision=revision + (jobs if told is None else told))


def reads(world: World, ask: Callable[[], Answer], monkeypatch: pytest.MonkeyPatch) -> tuple[Answer, list[str]]:
    """Return an answer, and the operations that it took."""
    operations: list[str] = []
    attempt = dynamodb.Client._attempt

    def note(client: dynamodb.Client, operation: str, body: bytes, until: float) -> bytes:
        if world.jobs_table.encode() in body:
            operations.append(operation)
        return attempt(client, operation, body, until)

    with monkeypatch.context() as patch:
        patch.setattr(dynamodb.Client, "_attempt", note)
        return ask(), operations


def top(answer: Answer) -> tuple[int, int, int]:
    return answer.data["completed"], answer.data["failed"], answer.data["pending"]


def test_the_first_request_counts_and_the_next_ones_get_its_count(
    world: World, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `limit=0`, a kept count costs one small read. Counts, estimate and summary are those of the count."""
    query = {"limit": "0", "include": "summary,estimate"}
    first, operations = reads(world, lambda: world.get(batch_id, **query), monkeypatch)
    assert ["Query", "UpdateItem", "Query", "UpdateItem"] == operations
    complete(world, batch_id, 8)
    second, operations = reads(world, lambda: world.get(batch_id, **query), monkeypatch)
    assert ["GetItem"] == operations
    assert first.data == second.data
    assert first.headers["ETag"] == second.headers["ETag"]
    assert (10, 5, PENDING) == top(second)


def test_a_small_batch_is_counted_by_one_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept."""
    batch_id = world.put_batch(total_urls=3)
    world.put_jobs(batch_id, ["completed", "failed", "pending"])
    for _ in range(2):
        answer, operations = reads(world, lambda: world.get(batch_id, limit="0"), monkeypatch)
        assert ["Query"] == operations
        assert (1, 1, 1) == top(answer)
    assert "counted" not in item(world, batch_id)


@pytest.mark.parametrize("query", [{}, {"status": "failed"}, {"status": "failed", "limit": "0"}])
def test_all_jobs_and_filtered_jobs_are_counted_at_that_moment(
    world: World, batch_id: str, query: dict[str, str]
) -> None:
    """Such an answer keeps its count for others."""
    world.get(batch_id, limit="0")
    complete(world, batch_id, 8)
    assert (18, 5, PENDING - 8) == top(world.get(batch_id, **query))
    assert (18, 5, PENDING - 8) == top(world.get(batch_id, limit="0"))


@pytest.mark.parametrize("limit", [1, 9, FIRST_PAGE + 5])
def test_the_jobs_of_a_page_are_read_even_if_the_counts_are_kept(world: World, batch_id: str, limit: int) -> None:
    """The walk that follows has every job once, and agrees on the counts."""
    world.get(batch_id, limit="0")
    world.put_job(batch_id, "job_000001", status="cancelled")
    change(world, batch_id, revision=1)
    pages = list(world.walk(batch_id, limit=str(limit)))
    assert "cancelled" == pages[0]["jobs"][0]["status"]
    assert [min(limit, JOBS)] == [len(page["jobs"]) for page in pages[:1]]
    assert [f"job_{number:06}" for number in range(1, JOBS + 1)] == [
        job["job_id"] for page in pages for job in page["jobs"]
    ]
    assert {(10, 5)} == {(page["completed"], page["failed"]) for page in pages}


def test_the_end_shows_when_as_many_jobs_have_changed_as_were_pending(world: World, batch_id: str) -> None:
    world.get(batch_id, limit="0")
    complete(world, batch_id, PENDING, told=PENDING - 1)
    assert PENDING == world.get(batch_id, limit="0").data["pending"]
    change(world, batch_id, revision=PENDING)
    assert 0 == world.get(batch_id, limit="0").data["pending"]


def test_a_cancelled_batch_is_counted_again(world: World, batch_id: str) -> None:
    world.get(batch_id, limit="0")
    world.put_jobs(batch_id, {f"job_{number:06}": {"status": "cancelled"} for number in range(16, JOBS + 1)})
    change(world, batch_id, cancelled_at=now())
    assert 0 == world.get(batch_id, limit="0").data["pending"]


def test_a_client_with_the_tag_of_a_kept_count_has_it(world: World, batch_id: str, clock: Clock) -> None:
    """304 as long as the count is given, although the batch changes; then the new count, with a new tag."""
    world.get(batch_id, limit="0")
    complete(world, batch_id, 8)
    given = world.get(batch_id, limit="0")
    headers = {"If-None-Match": given.headers["ETag"]}
    assert 304 == world.ask(batch_id, {"limit": "0"}, headers=headers).status
    clock.now += 11
    answer = world.ask(batch_id, {"limit": "0"}, headers=headers)
    assert (18, 5, PENDING - 8) == top(answer)
    assert given.headers["ETag"] != answer.headers["ETag"]


def test_an_old_count_is_given_while_another_request_counts(world: World, batch_id: str, clock: Clock) -> None:
    """For ten seconds at most: the other one may have died."""
    world.get(batch_id, limit="0")
    complete(world, batch_id, 8)
    change(world, batch_id, counting=int(clock.now) + 11 + kept.LEASE_SECONDS - 1)
    clock.now += 11
    assert 10 == world.get(batch_id, limit="0").data["completed"]
    clock.now += kept.LEASE_SECONDS
    assert 18 == world.get(batch_id, limit="0").data["completed"]


def test_the_first_count_is_awaited(world: World, batch_id: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests for a batch without a count, one counts and the others get its count."""
    change(world, batch_id, counting=int(clock.now) + 5)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            world.get(batch_id)

    monkeypatch.setattr(time, "sleep", pause)
    answer, operations = reads(world, lambda: world.get(batch_id, limit="0"), monkeypatch)
    assert (10, 5, PENDING) == top(answer)
    assert 3 == len(pauses)
    assert 3 + 2 == operations.count("Query") + operations.count("GetItem") - 1


def test_waiting_for_a_count_ends_with_the_time(world: World, batch_id: str, clock: Clock) -> None:
    """503, and the client comes again."""
    change(world, batch_id, counting=int(clock.now) + 9)
    path_event = {"batch_id": batch_id, "limit": 0}
    assert "SERVICE_UNAVAILABLE" == world.invoke(path_event, Context(2.5))["error"]["code"]


@pytest.mark.parametrize("name", ["counted", "counted_at", "counting"])
@pytest.mark.parametrize("value", [{"S": "x"}, {"N": "99999999999"}, {"N": "-1"}, {"NULL": True}])
def test_a_damaged_count_is_replaced(world: World, batch_id: str, name: str, value: dict[str, Any]) -> None:
    """Whatever stands there: the answer is right, and its count is kept."""
    world.put_item(item(world, batch_id) | {name: value})
    assert 10 == world.get(batch_id, limit="0").data["completed"]
    complete(world, batch_id, 8)
    assert 10 == world.get(batch_id, limit="0").data["completed"]
    assert {"N"} == item(world, batch_id)["counted_at"].keys()


def test_a_count_that_cannot_be_kept_is_given(world: World, batch_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing permission, for example, is logged and costs reads, not answers."""

    def refuse(*_: object, **__: object) -> bool:
        raise dynamodb.RequestRefused(dynamodb.Reason.REFUSED, "AccessDeniedException")

    def fail(*_: object, **__: object) -> bool:
        raise ServiceUnavailable

    for keep in (refuse, fail):
        monkeypatch.setattr(kept.KeptCounts, "keep", keep)
        monkeypatch.setattr(kept.KeptCounts, "claim", refuse)
        assert 10 == world.get(batch_id, limit="0").data["completed"]


def test_a_deleted_batch_is_not_created_by_a_count(world: World, batch_id: str) -> None:
    count = kept.KeptCount.read(app._store().batch(batch_id, None, 0, ReadStats()))
    assert count is None
    world.get(batch_id, limit="0")
    count = kept.KeptCount.read(app._store().batch(batch_id, None, 0, ReadStats()))
    assert count
    world.delete_batch(batch_id)
    counts = kept.KeptCounts(dynamodb.client(), world.jobs_table)
    assert [False, False, False] == [
        counts.claim(batch_id, time.time()),
        counts.keep(batch_id, count),
        counts.give_up(batch_id, time.time()),
    ]
    assert 404 == world.get(batch_id, limit="0").status


def test_an_older_count_does_not_replace_a_newer_one(world: World, batch_id: str) -> None:
    world.get(batch_id, limit="0")
    newer = item(world, batch_id)["counted_at"]
    count = kept.KeptCount.read(app._store().batch(batch_id, None, 0, ReadStats()))
    assert count
    older = replace(count, progress=replace(count.progress, as_of=count.progress.as_of - 1))
    assert not kept.KeptCounts(dynamodb.client(), world.jobs_table).keep(batch_id, older)
    assert newer == item(world, batch_id)["counted_at"]


# Batches that cannot be counted in time


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline passes after the second page."""
    query = dynamodb.Client.query

    def slow(client: dynamodb.Client, **arguments: Any) -> object:  # noqa: ANN401  # DynamoDB's arguments
        if arguments.get("ExclusiveStartKey") and "Limit" not in arguments:
            raise ServiceUnavailable from dynamodb.RequestFailed(dynamodb.Reason.NO_TIME)
        return query(client, **arguments)

    monkeypatch.setattr(kept, "LARGE_UNITS", 0.9)
    monkeypatch.setattr(dynamodb.Client, "query", slow)


@pytest.mark.usefixtures("_slow")
@pytest.mark.parametrize("query", [{}, {"limit": "0"}])
def test_a_batch_too_large_is_not_read_again_for_a_minute(
    world: World,
    batch_id: str,
    query: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    later: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """503 with `Retry-After: 60` and an outcome of its own; by this process and by others."""
    capsys.readouterr()
    first = world.get(batch_id, **query)
    assert (503, "60") == (first.status, first.headers["Retry-After"])
    assert ["BATCH_TOO_LARGE"] == [line["outcome"] for line in request_lines(capsys.readouterr().out)]
    assert "too large" in first.error["message"]
    for forget in (False, True):
        if forget:
            app._large.cache_clear()
        again, operations = reads(world, lambda: world.get(batch_id, **query), monkeypatch)
        assert (503, "60") == (again.status, again.headers["Retry-After"])
        assert 1 == len(operations)
    monkeypatch.undo()
    monkeypatch.setattr(kept, "LARGE_UNITS", 0.9)
    later(100)
    app._large.cache_clear()
    assert 200 == world.get(batch_id, **query).status


def test_a_503_of_a_large_batch_asks_for_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Retry-After` is random, and its range grows with the batch."""

    def wait(units: float, chosen: Callable[[float, float], float]) -> int:
        monkeypatch.setattr("random.uniform", chosen)
        return int(error_headers(ServiceUnavailable(), units)["Retry-After"])

    ranges = [tuple(wait(units, end) for end in (min, max)) for units in (0, 1_000, 10_000)]
    assert [(1, 5), (5, 25), (30, 60)] == ranges
