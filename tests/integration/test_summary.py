"""`include=summary`: the jobs by status and the reasons of failures; and batches that are cancelled."""

import time

from tests.integration.world import World, moment, now, progress_path


def put(world: World) -> str:
    """Write a batch of twelve URLs, ten of them with jobs; return its id."""
    batch_id = world.put_batch(total_urls=12)
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "failed", "error_code": "TIMEOUT", "finished_at": now(-9)},
            "b": {"status": "failed", "error_code": "TIMEOUT"},
            "c": {"status": "failed"},
            "d": {"status": "failed", "error_code": {"N": "404"}},
            "e": {"status": "failed", "error_code": "BLOCKED"},
            "f": {"status": "completed", "error_code": "TIMEOUT"},
            "g": {"status": "cancelled"},
            "h": {"status": "processing"},
            "i": {},
            "j": {"status": "unknown"},
        },
    )
    return batch_id


def test_the_summary_has_statuses_and_reasons(world: World) -> None:
    """The statuses sum to the total; a malformed error code counts as none. It comes after the estimate."""
    batch_id = put(world)
    before = int(time.time())
    data = world.get(batch_id, include="summary,details,estimate", limit="1").data
    assert ["jobs", "estimate", "summary", "next_cursor"] == list(data)[-4:]
    summary = data["summary"]
    assert ["statuses", "failures", "as_of"] == list(summary)
    expected = {"pending": 4, "processing": 1, "completed": 1, "failed": 5, "cancelled": 1}
    assert list(expected.items()) == list(summary["statuses"].items())
    assert [
        {"error_code": "TIMEOUT", "jobs": 2},
        {"error_code": None, "jobs": 2},
        {"error_code": "BLOCKED", "jobs": 1},
    ] == summary["failures"]
    assert before <= moment(summary["as_of"]).timestamp() <= time.time()


def test_a_later_page_has_no_summary(world: World) -> None:
    batch_id = put(world)
    first, *later = world.walk(batch_id, include="summary", limit="4")
    assert "summary" in first
    assert [False, False] == ["summary" in data for data in later]


def test_a_direct_call_gets_the_same_summary(world: World) -> None:
    batch_id = put(world)
    told = world.get(batch_id, include="summary", limit="0").data["summary"]
    direct = world.invoke({"batch_id": batch_id, "include": ["summary"], "limit": 0})["data"]["summary"]
    assert told | {"as_of": None} == direct | {"as_of": None}


def test_a_poll_for_the_summary_has_its_own_tag(world: World) -> None:
    """It must not be answered with the tag of an answer without one."""
    batch_id = put(world)
    tag = world.get(batch_id, limit="0").headers["ETag"]
    answer = world.request(
        "GET",
        progress_path(batch_id),
        [*world.key(), ("If-None-Match", tag)],
        {"limit": "0", "include": "summary"},
    )
    assert 200 == answer.status


def test_urls_without_a_job_end_with_a_cancelled_batch(world: World) -> None:
    """They count as failed; a job that still runs does not."""
    batch_id = world.put_batch(total_urls=5, cancelled_at=now(-5))
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-50)}, "b": {"status": "processing"}})
    data = world.get(batch_id, include="summary").data
    assert (5, 1, 3, 1) == (data["total_urls"], data["completed"], data["failed"], data["pending"])
    expected = {"pending": 0, "processing": 1, "completed": 1, "failed": 0, "cancelled": 3}
    assert expected == data["summary"]["statuses"]
    assert [] == data["summary"]["failures"]


def test_a_cancelled_batch_is_finished_when_its_jobs_have_ended(world: World) -> None:
    """It ended when its last job did or when it was cancelled, whichever is later."""
    cancelled = now(-5)
    batch_id = world.put_batch(total_urls=5, cancelled_at=cancelled)
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-50)}})
    answer = world.get(batch_id, include="estimate")
    assert 0 == answer.data["pending"]
    assert "finished" == answer.data["estimate"]["basis"]
    assert cancelled[:19] + "Z" == answer.data["estimated_completion"]
    assert "Retry-After" not in answer.headers
