"""Changes of jobs, from the table's stream to the ETag: each is counted at least once."""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_progress import dynamodb
from batch_progress.chains import Supervised
from batch_progress.revision import Revisions
from functions.revision import app
from tests.integration.world import Answer, Context, World, attributes, batch_item, now, unique

_numbers = itertools.count(1)


def record(batch_id: str, sk: str = "JOB#a", *, name: str = "MODIFY") -> dict[str, Any]:
    """Return a record of a KEYS_ONLY stream."""
    return {
        "eventID": unique("event"),
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": {
            "ApproximateCreationDateTime": int(time.time()),
            "Keys": {"batch_id": {"S": batch_id}, "sk": {"S": sk}},
            "SequenceNumber": f"{next(_numbers):021}",
            "SizeBytes": 38,
            "StreamViewType": "KEYS_ONLY",
        },
        "eventSourceARN": "arn:aws:dynamodb:eu-central-1:123456789012:table/jobs/stream/2024-12-16T00:00:00.000",
    }


def number(one: dict[str, Any]) -> str:
    """Return a record's sequence number."""
    return str(one["dynamodb"]["SequenceNumber"])


def deliver(records: Sequence[object], timeout: float = 30) -> list[str]:
    """Deliver records to the function as Lambda does; return the sequence numbers reported as failed."""
    answer = json.loads(json.dumps(app.handler({"Records": list(records)}, Context(timeout))))
    assert ["batchItemFailures"] == list(answer)
    assert all(["itemIdentifier"] == list(failure) for failure in answer["batchItemFailures"])
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def item(world: World, batch_id: str) -> dict[str, Any] | None:
    """Return a batch's own item."""
    key = attributes({"batch_id": batch_id, "sk": "BATCH"})
    found: dict[str, Any] | None = world.dynamodb.get_item(TableName=world.jobs_table, Key=key).get("Item")
    return found


def revision(world: World, batch_id: str) -> int:
    found = item(world, batch_id)
    assert found
    return int(found.get("revision", {"N": "0"})["N"])


def again(world: World, batch_id: str, tag: str) -> Answer:
    return world.ask(batch_id, headers={"If-None-Match": tag})


@pytest.fixture(autouse=True)
def _settled(world: World) -> Iterator[None]:
    """The function caches its settings; clear them for this world."""
    app._revisions.cache_clear()
    assert world
    yield
    app._revisions.cache_clear()


class Broken(Revisions):
    """Revisions that fail for some batches."""

    def __init__(self, world: World, errors: dict[str, Exception]) -> None:
        super().__init__(dynamodb.client(), world.jobs_table)
        self.errors = errors

    def count(self, batch_id: str, jobs: int) -> Supervised | None:
        if error := self.errors.get(batch_id):
            raise error
        return super().count(batch_id, jobs)


def breaking(monkeypatch: pytest.MonkeyPatch, world: World, **errors: Exception) -> None:
    broken = Broken(world, errors)
    monkeypatch.setattr(app, "_revisions", lambda: broken)


# What is counted


def test_the_jobs_that_changed_are_counted(world: World) -> None:
    """Each job counts once in a delivery, however often it changed."""
    one, other = world.put_batch(), world.put_batch(revision=7)
    records = [record(one, f"JOB#{job % 15}") for job in range(20)]
    records[10:10] = [record(other)]
    assert [] == deliver(records)
    assert (15, 8) == (revision(world, one), revision(world, other))


@pytest.mark.parametrize("name", ["INSERT", "MODIFY", "REMOVE"])
def test_a_job_that_comes_or_goes_is_a_change_too(world: World, name: str) -> None:
    batch_id = world.put_batch()
    assert [] == deliver([record(batch_id, name=name)])
    assert 1 == revision(world, batch_id)


@pytest.mark.parametrize("sk", ["BATCH", "JOB", "job#a", "META#JOB#a", "JOC#a"])
def test_other_items_are_not_counted(world: World, sk: str) -> None:
    """Especially the batch item, which every count changes: the function would invoke itself in an endless loop."""
    batch_id = world.put_batch()
    assert [] == deliver([record(batch_id, sk)])
    assert 0 == revision(world, batch_id)


def test_the_rest_of_the_batch_stays_as_it_is(world: World) -> None:
    batch_id = world.put_batch(total_urls=3, parallel_jobs=2)
    before = item(world, batch_id)
    assert before
    deliver([record(batch_id)])
    after = item(world, batch_id)
    assert after
    assert {"check_number", "check_due"} == after.keys() - before.keys() - {"revision"}
    assert before | {"revision": {"N": "1"}} == {name: after[name] for name in (*before, "revision")}


def test_a_deleted_batch_is_not_created_again(world: World) -> None:
    """Its jobs expire later and come through the stream. A new batch item would never expire."""
    gone = unique("gone")
    assert [] == deliver([record(gone, name="REMOVE")])
    assert item(world, gone) is None


def test_a_batch_without_an_owner_is_not_counted(world: World) -> None:
    batch_id = unique("batch")
    world.put_item(attributes({"batch_id": batch_id, "sk": "BATCH", "total_urls": 1}))
    assert [] == deliver([record(batch_id)])
    assert 0 == revision(world, batch_id)


def test_nothing_to_do() -> None:
    assert [] == deliver([])


# What is reported


def test_a_failure_is_the_last_record_of_its_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda retries from the lowest number reported, so every failed batch is retried."""
    bad, worse, good = (unique(name) for name in ("bad", "worse", "good"))
    world.put_batch(good)
    breaking(monkeypatch, world, **{bad: RuntimeError("x"), worse: RuntimeError("y")})
    records = [record(batch_id) for batch_id in (bad, worse, bad, good, worse)]
    failed = deliver(records)
    assert {number(records[2]), number(records[4])} == set(failed)
    assert 1 == revision(world, good)
    left = [one for one in records if number(one) >= min(failed)]
    assert {bad, worse} <= {one["dynamodb"]["Keys"]["batch_id"]["S"] for one in left}


def test_what_failed_is_counted_when_it_comes_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id, other = world.put_batch(), world.put_batch()
    records = [record(batch_id), record(other)]
    with monkeypatch.context() as patch:
        breaking(patch, world, **{batch_id: RuntimeError("x")})
        assert [number(records[0])] == deliver(records)
    assert [] == deliver(records)
    assert (1, 2) == (revision(world, batch_id), revision(world, other))


def test_a_batch_that_cannot_be_counted_does_not_block_the_others(world: World) -> None:
    """A retry cannot repair a `revision` of the wrong type."""
    odd, fine = world.put_batch(revision={"S": "seven"}), world.put_batch()
    assert [] == deliver([record(odd), record(fine)])
    assert 1 == revision(world, fine)


def test_a_fault_of_ours_is_kept_as_evidence(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """If a table or a permission is missing, the records are reported as failed, and end up in the queue."""
    batch_id = world.put_batch()
    missing = Revisions(dynamodb.client(), "NoSuchTable")
    monkeypatch.setattr(app, "_revisions", lambda: missing)
    one = record(batch_id)
    assert [number(one)] == deliver([one])
    with pytest.raises(dynamodb.RequestRefused):
        missing.count(batch_id, 1)


def test_time_that_runs_out_is_reported(world: World) -> None:
    """It is reported before the timeout, which would fail every record."""
    batch_id = world.put_batch()
    one = record(batch_id)
    assert [number(one)] == deliver([one], timeout=0.5)
    assert 0 == revision(world, batch_id)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "record",
        [],
        {},
        {"dynamodb": None},
        {"dynamodb": {}},
        {"dynamodb": {"Keys": {}, "SequenceNumber": "1"}},
        {"dynamodb": {"Keys": {"batch_id": {"N": "1"}, "sk": {"S": "JOB#a"}}, "SequenceNumber": "1"}},
        {"dynamodb": {"Keys": {"batch_id": {"S": 1}, "sk": {"S": "JOB#a"}}, "SequenceNumber": "1"}},
        {"dynamodb": {"Keys": {"batch_id": {"S": "batch"}, "sk": {"S": "JOB#a"}}}},
    ],
)
def test_a_malformed_record_is_passed_over(world: World, odd: object, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and skipped. The other records are counted."""
    first, last = world.put_batch(), world.put_batch()
    assert [] == deliver([record(first), odd, record(last)])
    assert (1, 1) == (revision(world, first), revision(world, last))
    assert ["malformed record"] == caplog.messages


# What a client sees


def test_a_change_shows_in_the_next_poll(world: World) -> None:
    """304 until the stream has delivered the change, then 200 with another tag."""
    batch_id = world.put_batch(total_urls=100, parallel_jobs=2, timeout_per_url=30)
    world.put_jobs(batch_id, ["completed", "pending"])
    before = world.get(batch_id)
    assert 304 == again(world, batch_id, before.headers["ETag"]).status

    world.put_job(batch_id, "job_000002", status="completed")
    deliver([record(batch_id, "JOB#job_000002")])

    answer = again(world, batch_id, before.headers["ETag"])
    assert 2 == answer.data["completed"]
    assert before.headers["ETag"] != answer.headers["ETag"]
    assert 304 == again(world, batch_id, answer.headers["ETag"]).status


def test_a_batch_never_counted_is_at_revision_0(world: World) -> None:
    """A missing revision equals a written 0: the tag stays valid. The first count makes it invalid."""
    batch_id, created = unique("batch"), now(-60)
    world.put_item(batch_item(batch_id, created_at=created))
    world.put_jobs(batch_id, ["completed"])
    tag = world.get(batch_id).headers["ETag"]
    world.put_item(batch_item(batch_id, created_at=created, revision=0))
    assert 304 == again(world, batch_id, tag).status
    deliver([record(batch_id)])
    assert 200 == again(world, batch_id, tag).status


@pytest.mark.parametrize("age", [0, 30, 59])
def test_a_dead_stream_makes_a_poll_a_minute_late(world: World, monkeypatch: pytest.MonkeyPatch, age: int) -> None:
    """An uncounted change is in every answer without a tag or with a tag older than a minute."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["completed", "failed"])
    tag = world.get(batch_id).headers["ETag"]
    made = int(tag.split('"')[1].split(".")[0])
    world.put_job(batch_id, "job_000002", status="completed")
    monkeypatch.setattr(time, "time", lambda: made + age + 0.5)
    assert 304 == again(world, batch_id, tag).status
    assert 2 == world.get(batch_id).data["completed"]
    for late in (60.5, 61, 3600):
        monkeypatch.setattr(time, "time", lambda at=made + late: at)
        assert 2 == again(world, batch_id, tag).data["completed"]


def test_polling_without_end_never_keeps_a_stale_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 304 does not renew its tag: a client that polls every second gets a full answer once a minute."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["completed", "failed"])
    tag = world.get(batch_id).headers["ETag"]
    made = int(tag.split('"')[1].split(".")[0])
    world.put_job(batch_id, "job_000002", status="completed")
    seen = []
    for second in range(70):
        monkeypatch.setattr(time, "time", lambda at=made + second: at)
        answer = again(world, batch_id, tag)
        tag = answer.headers["ETag"]
        seen.append(answer.status)
    assert [304] * 61 + [200] + [304] * 8 == seen


def test_a_tag_with_a_passed_forecast_gets_a_full_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = world.put_batch(total_urls=2, parallel_jobs=1, timeout_per_url=10, created_at=now(-1))
    world.put_jobs(batch_id, {"a": {"status": "processing", "started_at": now(-1)}})
    first = world.get(batch_id)
    made, eta = (int(part) for part in first.headers["ETag"].split('"')[1].split(".")[:2])
    assert made < eta < made + 60
    monkeypatch.setattr(time, "time", lambda: eta - 0.5)
    assert 304 == again(world, batch_id, first.headers["ETag"]).status
    monkeypatch.setattr(time, "time", lambda: float(eta))
    answer = again(world, batch_id, first.headers["ETag"])
    assert 200 == answer.status
    assert answer.headers["ETag"] != first.headers["ETag"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_stream_does_each_change_ends_every_tag_before_it(world: World, data: st.DataObject) -> None:
    """Deliveries in any order, partial or repeated: after each, no earlier tag holds."""
    batches = [world.put_batch() for _ in range(2)]
    for batch_id in batches:
        world.put_jobs(batch_id, ["completed", "failed"])
    records = [record(batch_id, f"JOB#{job}") for batch_id in batches for job in range(3)]
    stream = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records), max_size=6))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=4)))
    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        tags = {batch_id: world.get(batch_id).headers["ETag"] for batch_id in batches}
        revisions = {batch_id: revision(world, batch_id) for batch_id in batches}
        assert [] == deliver(stream[start:end])
        keys = [one["dynamodb"]["Keys"] for one in stream[start:end]]
        for batch_id in batches:
            changed = {each["sk"]["S"] for each in keys if each["batch_id"]["S"] == batch_id}
            assert revisions[batch_id] + len(changed) == revision(world, batch_id)
            assert (200 if changed else 304) == again(world, batch_id, tags[batch_id]).status
