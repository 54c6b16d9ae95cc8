"""Checks of batches: every batch ends, and says so."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_progress.supervision import Check
from batch_progress.supervisor import MOST_LOST, Interrupted, Outcome, _LostJobs
from batch_progress.table import timestamp
from tests.integration.supervision import Away, Cloud
from tests.integration.world import World, unique

NOW = float(int(time.time()))


def at(seconds: float) -> str:
    """Return a time relative to the clock's start, as the recorder writes it."""
    return timestamp(datetime.fromtimestamp(NOW + seconds, UTC))


@pytest.fixture
def cloud(world: World) -> Cloud:
    return Cloud(world, NOW)


def batch(world: World, jobs: dict[str, dict[str, Any]], **values: Any) -> str:  # noqa: ANN401  # attributes
    defaults: dict[str, Any] = {"total_urls": len(jobs), "created_at": at(-60), "timeout_per_url": 30, "lost_after": 90}
    batch_id = world.put_batch(**defaults | values)
    world.put_jobs(batch_id, jobs)
    return batch_id


DONE: dict[str, Any] = {"status": "completed", "items_extracted": 5, "started_at": at(-40), "finished_at": at(-20)}
RUNNING: dict[str, Any] = {"status": "processing", "started_at": at(-10), "attempt": 1}
LOST: dict[str, Any] = {"status": "processing", "started_at": at(-91), "attempt": 1}


# Finished batches


def test_a_finished_batch_is_announced_once(world: World, cloud: Cloud) -> None:
    """The event has the counts of the rows, the end of the last job, and an id of its own."""
    batch_id = batch(world, {"a": DONE, "b": DONE | {"status": "failed", "error_code": "TIMEOUT"}, "c": DONE})
    assert cloud.changed(batch_id, 3)
    assert [Outcome.FINISHED] == [done.outcome for done in cloud.run(10)]
    (event,) = cloud.bus.events
    assert "Batch Finished" == event.detail_type
    assert {
        "id": f"{batch_id}/finished/3",
        "batch_id": batch_id,
        "owner_id": "demo",
        "total_urls": 3,
        "completed": 2,
        "failed": 1,
        "pending": 0,
        "total_items_extracted": 15,
        "at": at(-20)[:19] + "Z",
        "summary": {
            "statuses": {"pending": 0, "processing": 0, "completed": 2, "failed": 1, "cancelled": 0},
            "failures": [{"error_code": "TIMEOUT", "jobs": 1}],
            "as_of": at(2)[:19] + "Z",
        },
    } == event.detail
    # Its chain has ended.
    assert [] == cloud.queue.checks
    assert "check_due" not in cloud.item(batch_id)


def test_a_change_that_ends_nothing_tells_nothing(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": DONE, "b": DONE})
    cloud.changed(batch_id)
    cloud.run(10)
    world.put_job(batch_id, "a", **DONE, error_message="a note")
    assert cloud.changed(batch_id)
    assert [Outcome.FINISHED] == [done.outcome for done in cloud.run(10)]
    assert 1 == len(cloud.bus.events)


def test_other_counts_are_announced_again_under_another_id(world: World, cloud: Cloud) -> None:
    """Even if the stream has not counted the change yet, so that the revision is the same."""
    batch_id = batch(world, {"a": DONE, "b": DONE | {"status": "failed"}})
    cloud.asked(batch_id)
    world.put_job(batch_id, "b", **DONE)
    cloud.asked(batch_id)
    cloud.asked(batch_id)
    assert [f"{batch_id}/finished/{number}" for number in (0, 1)] == [one for _, one in cloud.bus.told]
    assert [1, 2] == [event.detail["completed"] for event in cloud.bus.events]


def test_a_batch_without_any_time_is_announced_once(world: World, cloud: Cloud) -> None:
    """Its end is the time of each count, which alone is no news."""
    batch_id = batch(world, {"a": {"status": "completed"}}, created_at=None)
    cloud.asked(batch_id)
    cloud.clock.now += 60
    cloud.asked(batch_id)
    assert 1 == len(cloud.bus.events)


def test_a_cancelled_batch_finishes_without_jobs(world: World, cloud: Cloud) -> None:
    """Its declared URLs count as ended. `at` is the later of the cancellation and the end of the last job."""
    batch_id = batch(world, {"a": DONE}, total_urls=5)
    cloud.changed(batch_id)
    cloud.run(5)
    assert [] == cloud.bus.events
    world.put_item(cloud.item(batch_id) | {"cancelled_at": {"S": at(1)}})
    # One change of four pending jobs.
    assert cloud.changed(batch_id)
    cloud.run(5)
    ((kind, _),) = cloud.bus.told
    detail = cloud.bus.events[0].detail
    assert ("Batch Finished", 4, at(1)[:19] + "Z") == (kind, detail["failed"], detail["at"])


# Stalled batches


def test_a_stall_is_announced_once_for_each_time(world: World, cloud: Cloud) -> None:
    """`at` is the last movement; the next event comes only after another one."""
    batch_id = batch(world, {"a": DONE, "b": {}}, lost_after=None)
    cloud.changed(batch_id)
    cloud.run(3_600)
    (event,) = cloud.bus.events
    assert ("Batch Stalled", at(-20)[:19] + "Z", 1) == (event.detail_type, event.detail["at"], event.detail["pending"])

    world.put_job(batch_id, "b", status="processing", started_at=at(3_600))
    cloud.changed(batch_id)
    cloud.run(3_600)
    first, second = cloud.bus.told
    assert "Batch Stalled" == second[0]
    assert first[1] != second[1]


def test_a_batch_that_moves_after_a_stall_is_checked_at_once(world: World, cloud: Cloud) -> None:
    """Otherwise its next check could be a quarter of an hour away, and the next stall announced that late."""
    batch_id = batch(world, {"a": DONE, "b": {}, "c": {}}, lost_after=None)
    cloud.changed(batch_id)
    cloud.run(60)
    assert ["Batch Stalled"] == [kind for kind, _ in cloud.bus.told]
    world.put_job(batch_id, "b", **RUNNING)
    assert cloud.changed(batch_id)
    assert cloud.clock() == min(cloud.queue.sent)[0]


def test_a_stall_is_announced_within_a_minute_or_so(world: World, cloud: Cloud) -> None:
    """The last job moved 20 s ago, and may take 30 s."""
    batch_id = batch(world, {"a": DONE, "b": {}})
    cloud.changed(batch_id)
    cloud.run(9)
    assert [] == cloud.bus.events
    cloud.run(60)
    assert 1 == len(cloud.bus.events)


def test_a_check_at_the_moment_before_a_stall_asks_for_the_next_one_at_once(world: World, cloud: Cloud) -> None:
    """Later by a quarter of an hour, the stall would be announced that late."""
    batch_id = batch(world, {"a": DONE, "b": {}}, lost_after=None)
    cloud.clock.now += 10  # the last job ended 30 s ago, and may take 30 s
    cloud.asked(batch_id)
    assert [] == cloud.bus.events
    cloud.run(70)
    assert ["Batch Stalled"] == [kind for kind, _ in cloud.bus.told]


def test_a_batch_that_moves_does_not_stall(world: World, cloud: Cloud) -> None:
    """A job starts every 20 s, and a check comes in between: none of them tells a stall."""
    batch_id = batch(world, {f"{n:03}": {} for n in range(50)}, created_at=at(0))
    cloud.changed(batch_id)
    for number in range(50):
        world.put_job(
            batch_id, f"{number:03}", status="completed", started_at=at(20 * number), finished_at=at(20 * number + 10)
        )
        cloud.changed(batch_id)
        cloud.run(20)
    assert ["Batch Finished"] == [kind for kind, _ in cloud.bus.told]


# Kept counts


def test_a_kept_count_says_what_eventually_consistent_reads_cost(world: World, cloud: Cloud) -> None:
    """A consistent read costs twice as much."""
    batch_id = batch(world, {"a": RUNNING, "b": {}})
    dropped = cloud.supervisor.check(Check(batch_id, -1))
    counted = cloud.asked(batch_id)
    assert (Outcome.DROPPED, Outcome.COUNTED) == (dropped.outcome, counted.outcome)
    kept = json.loads(cloud.item(batch_id)["counted"]["S"])
    assert (counted.stats.read_units - dropped.stats.read_units) / 2 == kept["units"]


# Lost jobs


def test_a_lost_job_is_failed_and_the_batch_finishes(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": DONE, "b": LOST | {"items_extracted": 7}})
    cloud.changed(batch_id)
    (done, *_) = cloud.run(10)
    assert (Outcome.FINISHED, 1) == (done.outcome, done.lost)
    job = cloud.item(batch_id, "JOB#b")
    assert {
        "batch_id": {"S": batch_id},
        "sk": {"S": "JOB#b"},
        "url": {"S": "https://example.com/b"},
        "status": {"S": "failed"},
        "items_extracted": {"N": "7"},
        "attempt": {"N": "1"},
        "started_at": {"S": at(-91)},
        "finished_at": {"S": at(2)},
        "error_code": {"S": "WORKER_LOST"},
        "error_message": {"S": "The worker showed no sign of life for 90 seconds."},
    } == job
    (event,) = cloud.bus.events
    assert (1, 1, 0) == tuple(event.detail[name] for name in ("completed", "failed", "pending"))
    assert [{"error_code": "WORKER_LOST", "jobs": 1}] == event.detail["summary"]["failures"]


@pytest.mark.parametrize(
    "job",
    [
        pytest.param({"status": "processing", "started_at": at(-91), "seen_at": at(-5)}, id="seen"),
        pytest.param({"status": "processing", "started_at": at(-5), "seen_at": at(-91)}, id="started again"),
        pytest.param({"status": "processing"}, id="without a time"),
        pytest.param({"status": "processing", "started_at": "yesterday"}, id="with a malformed time"),
        pytest.param({"status": "pending", "started_at": at(-500)}, id="pending"),
        pytest.param({"status": "completed", "started_at": at(-500)}, id="completed"),
        pytest.param({"status": "processing", "started_at": at(500)}, id="from the future"),
    ],
)
def test_other_jobs_are_not_lost(world: World, cloud: Cloud, job: dict[str, Any]) -> None:
    batch_id = batch(world, {"a": job, "b": {}})
    before = cloud.item(batch_id, "JOB#a")
    assert 0 == cloud.asked(batch_id).lost
    assert before == cloud.item(batch_id, "JOB#a")


def test_a_job_without_a_time_hides_no_lost_one(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": {"status": "processing"}, "b": LOST, "c": {}})
    assert 1 == cloud.asked(batch_id).lost


def test_a_job_that_shows_life_is_not_read_again(world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read of the batch shows it; only a job that may be lost is read by itself."""
    batch_id = batch(world, {"a": LOST | {"seen_at": at(-5)}, "b": LOST})
    read: list[str] = []
    get = type(cloud.client).get_item

    def noted(client: Any, **arguments: Any) -> Any:  # noqa: ANN401  # DynamoDB's
        read.append(arguments["Key"]["sk"]["S"])
        return get(client, **arguments)

    monkeypatch.setattr(type(cloud.client), "get_item", noted)
    assert 1 == cloud.asked(batch_id).lost
    assert ["BATCH", "JOB#b"] == read


def test_no_job_is_lost_where_none_can_be(world: World, cloud: Cloud) -> None:
    """Of a batch that declares no `lost_after`, only the stall is announced."""
    batch_id = batch(world, {"a": LOST | {"started_at": at(-5_000)}}, lost_after=None)
    cloud.changed(batch_id)
    cloud.run(7_200)
    assert "processing" == cloud.item(batch_id, "JOB#a")["status"]["S"]
    assert ["Batch Stalled"] == [kind for kind, _ in cloud.bus.told]


def test_a_job_is_lost_when_its_time_is_over(world: World, cloud: Cloud) -> None:
    """Not before, and within a few seconds: the check is asked for that time."""
    batch_id = batch(world, {"a": RUNNING, "b": DONE})
    cloud.changed(batch_id)
    cloud.run(79)
    assert "processing" == cloud.item(batch_id, "JOB#a")["status"]["S"]
    cloud.run(10)
    assert "failed" == cloud.item(batch_id, "JOB#a")["status"]["S"]
    assert ["Batch Stalled", "Batch Finished"] == [kind for kind, _ in cloud.bus.told]


MOVES = {
    "completed": {"status": "completed", "finished_at": at(0)},
    "completed by the same attempt": LOST | {"status": "completed", "finished_at": at(0)},
    "without a status": LOST | {"status": None},
    "just seen": LOST | {"seen_at": at(0)},
    "seen exactly as long ago as is allowed": LOST | {"seen_at": at(-90)},
    "taken over": {"status": "processing", "started_at": at(0), "attempt": 2},
    "taken over in the same second": {"status": "processing", "started_at": at(-91), "attempt": 2},
    "a sign of life": {"status": "processing", "started_at": at(-91), "attempt": 1, "seen_at": at(-91)},
}


# By its times, the job is lost even so; only a comparison with what was read shows that it has moved.
LATE = {"taken over in the same second", "a sign of life"}


@pytest.mark.parametrize("job", [LOST, LOST | {"seen_at": at(-95)}], ids=["never seen", "seen long ago"])
@pytest.mark.parametrize(
    ("operation", "move"),
    [(one, move) for one in ("get_item", "update_item") for move in MOVES if one != "get_item" or move not in LATE],
)
def test_a_living_worker_is_never_overruled(  # two fixtures, and what happens when
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, move: str, job: dict[str, Any]
) -> None:
    """The job moves after the batch was read: before the job itself is read again, or before it is written."""
    batch_id = batch(world, {"a": job, "b": {}})
    perform = getattr(type(cloud.client), operation)

    def late(client: Any, **arguments: Any) -> Any:  # noqa: ANN401  # DynamoDB's
        if arguments["Key"]["sk"]["S"] == "JOB#a":
            world.put_job(batch_id, "a", **MOVES[move])
        return perform(client, **arguments)

    monkeypatch.setattr(type(cloud.client), operation, late)
    assert 0 == cloud.asked(batch_id).lost
    assert MOVES[move]["status"] == cloud.item(batch_id, "JOB#a").get("status", {}).get("S")


def test_a_lost_job_whose_worker_was_seen_before_is_failed(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": LOST | {"seen_at": at(-95), "started_at": at(-100)}, "b": {}})
    assert 1 == cloud.asked(batch_id).lost


def test_every_read_of_the_supervisor_is_consistent(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it decides must not rest on what a job was before its last change."""
    batch_id = batch(world, {"a": LOST, "b": {}})
    read: list[tuple[str, Any]] = []
    for operation in ("get_item", "query"):
        perform = getattr(type(cloud.client), operation)

        def noted(client: Any, perform: Any = perform, **arguments: Any) -> Any:  # noqa: ANN401  # DynamoDB's
            read.append((perform.__name__, arguments.get("ConsistentRead")))
            return perform(client, **arguments)

        monkeypatch.setattr(type(cloud.client), operation, noted)
    assert 1 == cloud.asked(batch_id).lost
    assert {("get_item", True), ("query", True)} == set(read)


def test_times_of_other_writers_are_compared_as_they_are_stored(world: World, cloud: Cloud) -> None:
    odd = {"status": "processing", "started_at": "2024-12-16t11:35:00.5+01:00", "attempt": {"S": "first"}}
    batch_id = batch(world, {"a": odd, "b": {}})
    assert 1 == cloud.asked(batch_id).lost


def test_very_many_lost_jobs_are_failed_by_several_checks(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_LOST >= 100
    monkeypatch.setattr("batch_progress.supervisor.MOST_LOST", 3)
    batch_id = batch(world, dict.fromkeys("abcdefgh", LOST))
    cloud.changed(batch_id)
    assert [3, 3, 2] == [done.lost for done in cloud.run(30)]
    assert ["Batch Finished"] == [kind for kind, _ in cloud.bus.told]


# The chain


def test_a_new_batch_gets_a_chain(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": {}})
    assert cloud.changed(batch_id, 0)
    assert [Check(batch_id, 1)] == cloud.queue.checks
    # A moment later, when a small batch exists.
    assert cloud.clock() + 2 == cloud.queue.sent[0][0]
    # It is on its way.
    assert not cloud.changed(batch_id)
    cloud.run(3)
    (check,) = cloud.queue.checks
    assert 2 == check.number


def test_a_check_that_a_later_one_replaces_is_dropped(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": RUNNING})
    cloud.changed(batch_id)
    cloud.run(3)
    assert Outcome.DROPPED == cloud.supervisor.check(Check(batch_id, 1)).outcome
    # The latest one may be repeated: it may have crashed before it asked for the next one.
    assert Outcome.COUNTED == cloud.supervisor.check(Check(batch_id, 2)).outcome


def test_as_many_changes_as_were_pending_ask_for_a_check(world: World, cloud: Cloud) -> None:
    """The batch cannot have finished before. A check that is on its way is not asked for again."""
    batch_id = batch(world, {"a": {}, "b": {}, "c": {}}, created_at=at(0))
    cloud.changed(batch_id)
    cloud.run(4)
    assert [False, False, True, False] == [cloud.changed(batch_id) for _ in range(4)]


def test_a_change_during_a_check_is_not_missed(world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last job ends after the check has read it, and the stream tells so before the check is over."""
    batch_id = batch(world, {"a": RUNNING})
    cloud.changed(batch_id)
    judged = _LostJobs.judged

    def late(jobs: _LostJobs, page: Any) -> Any:  # noqa: ANN401  # a page
        if not cloud.bus.events and page.jobs:
            world.put_job(batch_id, "a", **DONE)
            assert not cloud.changed(batch_id)
            monkeypatch.undo()
        return judged(jobs, page)

    monkeypatch.setattr(_LostJobs, "judged", late)
    # The first check comes after two seconds. It asks for the next one as usual, and for one at once.
    cloud.run(2)
    assert ["Batch Finished"] == [kind for kind, _ in cloud.bus.told]
    assert "3" == cloud.item(batch_id)["check_number"]["N"]


def test_a_retry_during_the_end_keeps_the_chain(world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is started again while the end of the batch is announced; its worker dies."""
    batch_id = batch(world, {"a": DONE | {"status": "failed"}})
    cloud.changed(batch_id)
    put = cloud.bus.put

    def late(event: Any) -> None:  # noqa: ANN401  # an event
        put(event)
        monkeypatch.undo()
        world.put_job(batch_id, "a", **RUNNING)
        cloud.changed(batch_id)

    monkeypatch.setattr(cloud.bus, "put", late)
    cloud.run(300)
    assert "WORKER_LOST" == cloud.item(batch_id, "JOB#a")["error_code"]["S"]
    assert ["Batch Finished", "Batch Stalled", "Batch Finished"] == [kind for kind, _ in cloud.bus.told]


def test_a_lost_chain_is_taken_up_at_the_next_change(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": RUNNING, "b": {}, "c": {}})
    cloud.changed(batch_id)
    cloud.queue.sent.clear()
    cloud.clock.now += 290
    assert not cloud.changed(batch_id)
    cloud.clock.now += 20
    assert cloud.changed(batch_id)


@pytest.mark.parametrize("values", [{"expires_at": int(NOW) - 1}, {"owner_id": None}])
def test_a_batch_that_is_gone_has_no_chain(world: World, cloud: Cloud, values: dict[str, Any]) -> None:
    batch_id = batch(world, {"a": LOST}, **values)
    before = cloud.item(batch_id)
    assert not cloud.changed(batch_id)
    assert Outcome.GONE == cloud.supervisor.check(Check(batch_id, 1)).outcome
    assert before == {name: value for name, value in cloud.item(batch_id).items() if name != "revision"}
    assert "processing" == cloud.item(batch_id, "JOB#a")["status"]["S"]
    assert ([], []) == (cloud.queue.checks, cloud.bus.events)


def test_a_deleted_batch_is_not_created_again(cloud: Cloud) -> None:
    gone = unique("gone")
    assert not cloud.changed(gone)
    assert Outcome.GONE == cloud.supervisor.check(Check(gone, 1)).outcome
    assert {} == cloud.item(gone)


def test_a_large_batch_that_runs_is_mostly_looked_at(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look reads one item. Only some of them count: when as many jobs have changed as were pending."""
    monkeypatch.setattr("batch_progress.supervision.SECONDS_PER_UNIT", 1e6)
    jobs = 60
    batch_id = batch(world, {f"{n:03}": {} for n in range(jobs)}, created_at=at(0))
    cloud.changed(batch_id, jobs)
    outcomes: list[Outcome] = []
    for number in range(jobs):
        world.put_job(batch_id, f"{number:03}", **RUNNING | {"started_at": at(20 * number)})
        cloud.changed(batch_id)
        outcomes += [done.outcome for done in cloud.run(10)]
        world.put_job(batch_id, f"{number:03}", **DONE | {"finished_at": at(20 * number + 10)})
        cloud.changed(batch_id)
        outcomes += [done.outcome for done in cloud.run(10)]
    assert ["Batch Finished"] == [kind for kind, _ in cloud.bus.told]
    assert 12 <= outcomes.count(Outcome.LOOKED) <= 25
    assert outcomes.count(Outcome.COUNTED) <= 12


# Failures


def test_an_event_that_fails_is_put_by_the_repeated_check(world: World, cloud: Cloud) -> None:
    """Its id is the same, even if the revision has changed in between."""
    batch_id = batch(world, {"a": DONE})
    cloud.changed(batch_id)
    (check,) = cloud.queue.checks
    cloud.bus.failures = 1
    with pytest.raises(Away):
        cloud.supervisor.check(check)
    cloud.changed(batch_id)
    cloud.supervisor.check(check)
    assert [("Batch Finished", f"{batch_id}/finished/1")] == cloud.bus.told


def test_a_crash_after_an_event_repeats_it(world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = batch(world, {"a": DONE})
    cloud.changed(batch_id)
    (check,) = cloud.queue.checks
    put = cloud.bus.put

    def crash(event: Any) -> None:  # noqa: ANN401  # an event
        put(event)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(cloud.bus, "put", crash)
        with pytest.raises(MemoryError):
            cloud.supervisor.check(check)
    cloud.changed(batch_id)
    cloud.supervisor.check(check)
    assert [("Batch Finished", f"{batch_id}/finished/1")] * 2 == cloud.bus.told


def test_two_checks_at_once_announce_one_id(world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins before the first one has noted anything, and counts again at once."""
    batch_id = batch(world, {"a": DONE})
    cloud.changed(batch_id)
    (check,) = cloud.queue.checks
    put = cloud.bus.put

    def meanwhile(event: Any) -> None:  # noqa: ANN401  # an event
        monkeypatch.undo()
        cloud.changed(batch_id)
        cloud.supervisor.check(check)
        put(event)

    monkeypatch.setattr(cloud.bus, "put", meanwhile)
    cloud.supervisor.check(check)
    assert {f"{batch_id}/finished/1"} == {one for _, one in cloud.bus.told}


def test_a_check_that_is_always_interrupted_is_repeated(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts three times, and then leaves the check to the queue."""
    batch_id = batch(world, {"a": DONE})
    cloud.changed(batch_id)
    (check,) = cloud.queue.checks
    counts: list[Check] = []

    def interrupted(check: Check, *_: object) -> None:
        counts.append(check)
        raise Interrupted

    monkeypatch.setattr(cloud.supervisor, "_count", interrupted)
    with pytest.raises(Interrupted):
        cloud.supervisor.check(check)
    assert [check] * 3 == counts


def test_a_check_that_cannot_be_sent_fails(world: World, cloud: Cloud) -> None:
    """It is not noted, so a repeated check sends it."""
    batch_id = batch(world, {"a": RUNNING})
    cloud.queue.away = True
    with pytest.raises(Away):
        cloud.changed(batch_id)
    cloud.queue.away = False
    assert cloud.changed(batch_id)


def test_notes_that_cannot_be_read_count_as_none(world: World, cloud: Cloud) -> None:
    batch_id = batch(world, {"a": DONE}, check_number={"S": "x"}, check_due={"S": "y"}, announced="[[[", counted="{")
    assert cloud.changed(batch_id)
    cloud.run(5)
    assert ["Batch Finished"] == [kind for kind, _ in cloud.bus.told]
    assert cloud.item(batch_id)["check_number"]["N"].isdigit()
