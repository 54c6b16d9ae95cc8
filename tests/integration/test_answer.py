"""The body of a 200: its fields, their order and their values."""

from datetime import UTC, datetime

import pytest

from tests.integration.world import World, now

FIELDS = [
    "batch_id",
    "total_urls",
    "completed",
    "failed",
    "pending",
    "total_items_extracted",
    "estimated_completion",
    "jobs",
]
DETAILS = ["started_at", "finished_at", "error_code", "error_message"]


def put_published_example(world: World) -> str:
    """Put ten URLs: seven completed with 245 items, one failed, two pending."""
    batch_id = world.put_batch(total_urls=10)
    statuses = ["completed"] * 7 + ["failed", "processing", "pending"]
    world.put_jobs(
        batch_id,
        {
            f"job_{number:02}": {"status": status, "items_extracted": 35 if status == "completed" else 0}
            for number, status in enumerate(statuses)
        },
    )
    return batch_id


def test_published_example(world: World) -> None:
    """Exactly the published fields in the published order, with the example's counts."""
    batch_id = put_published_example(world)

    data = world.get(batch_id).data

    assert FIELDS == list(data)
    assert [batch_id, 10, 7, 1, 2, 245] == list(data.values())[:6]
    assert isinstance(data["estimated_completion"], str)
    assert 10 == len(data["jobs"])


def test_job_has_exactly_the_published_fields(world: World) -> None:
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_1", status="completed", url="https://example.com/page1", items_extracted=25)

    jobs = world.get(batch_id).data["jobs"]

    expected = {"job_id": "job_1", "url": "https://example.com/page1", "status": "completed", "items_extracted": 25}
    assert [list(expected.items())] == [list(job.items()) for job in jobs]


def test_body_says_success_first(world: World) -> None:
    answer = world.get(world.put_batch())
    assert ["success", "data"] == list(answer.json)
    assert answer.json["success"] is True


def test_both_paths_are_one_route(world: World) -> None:
    """The documented path and the official SDK's path have the same answer, with and without a trailing slash."""
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_1", status="completed", finished_at=now(-5))
    paths = [f"{prefix}/v1/scrape/batch/{batch_id}/progress{end}" for prefix in ("/api", "") for end in ("", "/")]

    answers = [world.request("GET", path, world.key()) for path in paths]

    assert [200] * 4 == [answer.status for answer in answers]
    assert 1 == len({answer.text for answer in answers})


def test_jobs_are_in_the_order_of_their_ids(world: World) -> None:
    """Bytewise, as DynamoDB sorts: `job_10` before `job_2`, upper case before lower case."""
    batch_id = world.put_batch()
    job_ids = ["b", "a", "B", "job_10", "job_2", "job_1", "é", "~", "0", "Z-1"]
    world.put_jobs(batch_id, {job_id: {} for job_id in job_ids})

    jobs = world.get(batch_id).data["jobs"]

    assert sorted(job_ids, key=str.encode) == [job["job_id"] for job in jobs]


def test_url_comes_back_as_it_was_written(world: World) -> None:
    batch_id = world.put_batch()
    url = 'https://example.com/ü?q="a\\b"&x=<é>\u2028\U0001f600'
    world.put_job(batch_id, "job_1", url=url)
    assert url == world.get(batch_id).data["jobs"][0]["url"]


def test_batch_of_more_than_one_page_is_read_whole(world: World) -> None:
    """A DynamoDB page ends at 1 MB; the answer counts all pages."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {f"job_{number:02}": {"error_message": "x" * 200_000} for number in range(14)})

    data = world.get(batch_id).data

    assert 14 == data["total_urls"]
    assert [f"job_{number:02}" for number in range(14)] == [job["job_id"] for job in data["jobs"]]


def test_a_change_shows_at_once_without_a_tag(world: World) -> None:
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_1")
    assert 0 == world.get(batch_id).data["completed"]

    world.put_job(batch_id, "job_1", status="completed")

    assert 1 == world.get(batch_id).data["completed"]


def test_include_details(world: World) -> None:
    """Each job has its times and its error after the usual fields; absent ones are null."""
    batch_id = world.put_batch()
    started, finished = now(-20), now(-10)
    world.put_jobs(
        batch_id,
        {
            "job_1": {
                "status": "failed",
                "started_at": started,
                "finished_at": finished,
                "error_code": "TIMEOUT",
                "error_message": "took too long",
            },
            "job_2": {"status": "processing", "started_at": started},
            "job_3": {},
        },
    )

    data = world.get(batch_id, include="details").data

    assert FIELDS == list(data)
    assert [["job_id", "url", "status", "items_extracted", *DETAILS]] * 3 == [list(job) for job in data["jobs"]]
    assert [
        [started, finished, "TIMEOUT", "took too long"],
        [started, None, None, None],
        [None, None, None, None],
    ] == [[job[name] for name in DETAILS] for job in data["jobs"]]


@pytest.mark.parametrize("include", ["details,estimate", "estimate,details"])
def test_include_takes_several(world: World, include: str) -> None:
    batch_id = world.put_batch()
    world.put_job(batch_id, "job_1")

    data = world.get(batch_id, include=include).data

    assert {*FIELDS, "estimate"} == set(data)
    assert set(DETAILS) <= set(data["jobs"][0])


def test_include_changes_nothing_else(world: World) -> None:
    """`include` adds fields, and removes or changes none."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"job_1": {"status": "completed", "finished_at": now(-5), "items_extracted": 3}})

    plain = world.get(batch_id).data
    extended = world.get(batch_id, include="details,estimate").data

    job = plain["jobs"][0]
    assert job == {name: extended["jobs"][0][name] for name in job}
    del extended["estimate"]
    assert plain | {"jobs": None} == extended | {"jobs": None}


def test_finished_batch_answers_the_same_bytes_again(world: World) -> None:
    batch_id = world.put_batch(created_at=now(-3600))
    world.put_jobs(
        batch_id, {"job_1": {"status": "completed", "finished_at": now(-1800)}, "job_2": {"status": "failed"}}
    )
    assert world.get(batch_id).text == world.get(batch_id).text


def test_expiry_of_a_batch_that_lies_ahead_changes_nothing(world: World) -> None:
    batch_id = world.put_batch(expires_at=int(datetime.now(UTC).timestamp()) + 3600)
    assert batch_id == world.get(batch_id).data["batch_id"]


@pytest.mark.parametrize("batch_id", ["x", "-", "_", "A-Z_a-z-0-9", "9" * 128])
def test_batch_ids_of_every_form(world: World, batch_id: str) -> None:
    world.put_batch(batch_id)
    assert batch_id == world.get(batch_id).data["batch_id"]
