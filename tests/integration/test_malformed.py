"""Malformed items: none fails a batch, and a bad attribute affects no other."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.integration.world import Attribute, World, batch_item, event, moment, now, progress_path, unique

type Raw = dict[str, Any]

# A value of every DynamoDB type.
TEXT: Raw = {"S": "text"}
NUMBER: Raw = {"N": "5"}
BYTES: Raw = {"B": b"bytes"}
OTHER_KINDS: list[Raw] = [
    {"NULL": True},
    {"BOOL": True},
    {"BOOL": False},
    BYTES,
    {"L": []},
    {"L": [{"S": "completed"}, {"N": "5"}]},
    {"M": {}},
    {"M": {"S": {"S": "completed"}, "N": {"N": "5"}}},
    {"SS": ["completed", "failed"]},
    {"NS": ["1", "2"]},
    {"BS": [b"a"]},
]
NO_TEXT = [NUMBER, *OTHER_KINDS]
NO_TIME: list[Raw] = [{"S": "1734345002"}, {"S": "1734345002.5"}, {"S": "2024-12-16T10:30:02"}]
NO_NUMBER = [TEXT, {"S": "5"}, {"S": ""}, *OTHER_KINDS]
BAD_NUMBERS: list[Raw] = [
    {"N": "-1"},
    {"N": "-0.5"},
    {"N": "1.5"},
    {"N": "0.1"},
    {"N": "1E-130"},
    {"N": "-1E-130"},
    {"N": "-9.9999999999999999999999999999999999999E+125"},
    {"N": "0.00000000000000000000000000000000000001"},
]
HUGE_NUMBERS = [
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999999999",
    "1E+30",
    "1E+125",
    "9.9999999999999999999999999999999999999E+125",
]
BATCH_NUMBERS = ["total_urls", "parallel_jobs", "timeout_per_url", "revision", "expires_at"]
DEFAULTS = {"url": "", "status": "pending", "items_extracted": 0}


def read(world: World, name: str, values: list[Raw | None]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write a good job and jobs with one bad attribute each; return the data and the bad jobs."""
    batch_id = world.put_batch(total_urls=100)
    good: dict[str, Attribute] = {"url": "https://example.com/", "status": "completed", "items_extracted": 7}
    world.put_jobs(
        batch_id, {"good": good} | {f"value {number:02}": good | {name: value} for number, value in enumerate(values)}
    )
    data = world.get(batch_id).data
    assert data["completed"] + data["failed"] + data["pending"] == data["total_urls"] == 100
    assert {"job_id": "good", **good} == data["jobs"][0]
    return data, [job | {"job_id": "bad"} for job in data["jobs"][1:]]


def test_bad_url(world: World) -> None:
    values = [None, *NO_TEXT]
    data, jobs = read(world, "url", values)
    assert [{"job_id": "bad", "url": "", "status": "completed", "items_extracted": 7}] * len(values) == jobs
    assert 1 + len(values) == data["completed"]
    assert 7 * (1 + len(values)) == data["total_items_extracted"]


def test_bad_status(world: World) -> None:
    """A job with a bad status counts as pending."""
    values = [None, *NO_TEXT, *({"S": text} for text in ("", "done", "COMPLETED", "completed ", " failed", "None"))]
    data, jobs = read(world, "status", values)
    expected = {"job_id": "bad", "url": "https://example.com/", "status": "pending", "items_extracted": 7}
    assert [expected] * len(values) == jobs
    assert [1, 0] == [data["completed"], data["failed"]]
    assert 7 * (1 + len(values)) == data["total_items_extracted"]


def test_bad_number(world: World) -> None:
    """A string that looks like a number, a negative number and a fraction all count as 0."""
    values = [None, *NO_NUMBER, *BAD_NUMBERS]
    data, jobs = read(world, "items_extracted", values)
    expected = {"job_id": "bad", "url": "https://example.com/", "status": "completed", "items_extracted": 0}
    assert [expected] * len(values) == jobs
    assert 1 + len(values) == data["completed"]
    assert 7 == data["total_items_extracted"]


@pytest.mark.parametrize("number", HUGE_NUMBERS)
def test_huge_number(world: World, number: str) -> None:
    """The largest numbers that DynamoDB stores, and the sum of two, do not fail the batch."""
    batch_id = world.put_batch(total_urls=2)
    huge: Attribute = {"N": number}
    world.put_jobs(
        batch_id, {"a": {"items_extracted": huge}, "b": {"items_extracted": huge}, "c": {"items_extracted": 7}}
    )

    data = world.get(batch_id).data

    assert isinstance(data["total_items_extracted"], int)
    assert data["total_items_extracted"] == sum(job["items_extracted"] for job in data["jobs"])
    assert 7 == data["jobs"][2]["items_extracted"]


@pytest.mark.parametrize("name", ["started_at", "finished_at", "error_code", "error_message"])
def test_bad_detail(world: World, name: str) -> None:
    """A malformed detail is null, like an absent one; the other details and the forecast do not change."""
    batch_id = world.put_batch(total_urls=100)
    good: dict[str, Attribute] = {
        "status": "failed",
        "started_at": now(-20),
        "finished_at": now(-10),
        "error_code": "TIMEOUT",
        "error_message": "too slow",
    }
    values = [*NO_TEXT, *NO_TIME] if name.endswith("_at") else NO_TEXT
    world.put_jobs(batch_id, {f"value {number:02}": good | {name: value} for number, value in enumerate(values)})

    data = world.get(batch_id, include="details,estimate").data

    expected = {key: None if key == name else good[key] for key in good}
    assert [expected] * len(values) == [{key: job[key] for key in good} for job in data["jobs"]]
    assert len(values) == data["failed"]


@pytest.mark.parametrize("value", [NUMBER, TEXT, {"S": ""}, {"NULL": True}, {"M": {}}, *NO_TIME])
def test_bad_end_of_a_finished_batch(world: World, value: Raw) -> None:
    batch_id = world.put_batch(created_at="2024-12-16T10:00:00.000Z")
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": value}})
    assert "2024-12-16T10:00:00Z" == world.get(batch_id).data["estimated_completion"]


def test_job_with_nothing_but_its_key(world: World) -> None:
    batch_id = world.put_batch()
    world.put_item({"batch_id": {"S": batch_id}, "sk": {"S": "JOB#bare"}})
    data = world.get(batch_id).data
    assert [{"job_id": "bare", **DEFAULTS}] == data["jobs"]
    assert [1, 0, 0, 1] == [data[name] for name in ("total_urls", "completed", "failed", "pending")]


def test_job_with_nothing_right(world: World) -> None:
    """All attributes are bad, and some are unknown."""
    batch_id = world.put_batch()
    names = ["url", "status", "items_extracted", "started_at", "finished_at", "error_code", "error_message", "foo"]
    world.put_job(batch_id, "bad", **{name: {"L": [{"M": {"S": {"NULL": True}}}]} for name in names})
    assert [{"job_id": "bad", **DEFAULTS}] == world.get(batch_id).data["jobs"]


def test_attributes_that_are_not_ours_are_passed_over(world: World) -> None:
    batch_id = world.put_batch(notes={"M": {"a": {"L": [{"B": b"x"}]}}})
    extra: dict[str, Attribute] = {"data": {"M": {"sk": {"S": "JOB#x"}}}, "job_id": "other", "S": "x", "Items": 3}
    world.put_job(batch_id, "a", **extra)
    assert [["job_id", "url", "status", "items_extracted"]] == [list(job) for job in world.get(batch_id).data["jobs"]]
    assert "a" == world.get(batch_id).data["jobs"][0]["job_id"]


@pytest.mark.parametrize(
    "sk",
    ["#", "A", "ATTEMPT#1", "BATCG", "BATCH#1", "BATCH ", "CONFIG", "JOA#", "JOB", "JOB$", "JOC", "job#1", "~", "é"],
)
def test_only_job_items_are_jobs(world: World, sk: str) -> None:
    """Other items of the partition are not counted or shown, whether they sort before or after the batch item."""
    batch_id = world.put_batch(total_urls=1)
    world.put_job(batch_id, "a", status="completed")
    stray = {"batch_id": {"S": batch_id}, "sk": {"S": sk}, "status": {"S": "failed"}, "items_extracted": {"N": "9"}}
    world.put_item(stray | {"owner_id": {"S": "stranger"}, "expires_at": {"N": "1"}})

    data = world.get(batch_id).data

    assert [1, 1, 0, 0, 0] == [
        data[name] for name in ("total_urls", "completed", "failed", "pending", "total_items_extracted")
    ]
    assert ["a"] == [job["job_id"] for job in data["jobs"]]
    assert ["a"] == [job["job_id"] for page in world.walk(batch_id, limit="1") for job in page["jobs"]]


def test_items_before_the_batchs_own_may_fill_a_page(world: World) -> None:
    """The batch is found, with its owner, however many items sort before it."""
    batch_id = world.put_batch(total_urls=1)
    padding = {"padding": {"S": "x" * 300_000}}
    world.put_items({"batch_id": {"S": batch_id}, "sk": {"S": f"A{number}"}} | padding for number in range(8))
    assert batch_id == world.get(batch_id).data["batch_id"]


def test_items_of_a_partition_without_a_batch(world: World) -> None:
    """A partition without a `BATCH` item gets a 404, even if it has an item `BATCH#`."""
    batch_id = unique("batch")
    world.put_jobs(batch_id, ["completed"])
    world.put_item({"batch_id": {"S": batch_id}, "sk": {"S": "BATCH#"}, "owner_id": {"S": "demo"}})
    assert (404, "BATCH_NOT_FOUND") == world.get(batch_id).outcome


@pytest.mark.parametrize("job_id", ["", "a#b", "JOB#a", " ", "é", "\U0001f600", '"', "\\", "\x01", "a\u2028b"])
def test_job_ids_of_every_form(world: World, job_id: str) -> None:
    """The job id is all of the sort key after the first `#`."""
    batch_id = world.put_batch()
    world.put_job(batch_id, job_id)
    assert [job_id] == [job["job_id"] for job in world.get(batch_id).data["jobs"]]


@pytest.mark.parametrize("name", BATCH_NUMBERS)
def test_bad_attribute_of_the_batch(world: World, name: str) -> None:
    """A bad attribute is ignored: the batch then has no declared total, or no expiry."""
    batch_id = unique("batch")
    world.put_jobs(batch_id, ["completed", "processing"])
    for value in NO_NUMBER if name == "expires_at" else NO_NUMBER + BAD_NUMBERS:
        world.put_item(batch_item(batch_id, **{name: value}))
        before = datetime.now(UTC)

        data = world.get(batch_id, include="estimate").data

        assert [2, 1, 0, 1] == [data[field] for field in ("total_urls", "completed", "failed", "pending")], value
        assert before <= moment(data["estimated_completion"])


@pytest.mark.parametrize("name", BATCH_NUMBERS)
def test_extreme_number_of_the_batch(world: World, name: str) -> None:
    """Zero, and more seconds than a calendar has: the counts are right and the forecast is still a time."""
    batch_id = unique("batch")
    world.put_jobs(batch_id, {"a": {"status": "processing", "started_at": now(-3)}, "b": {}})
    for number in HUGE_NUMBERS if name == "expires_at" else ["0", *HUGE_NUMBERS]:
        world.put_item(batch_item(batch_id, **{name: {"N": number}}))
        before = datetime.now(UTC)

        data = world.get(batch_id, include="estimate").data

        assert all(isinstance(data[field], int) for field in ("total_urls", "completed", "failed", "pending"))
        assert data["completed"] + data["failed"] + data["pending"] == data["total_urls"], number
        assert before <= moment(data["estimated_completion"]) <= moment(data["estimate"]["latest"]), number


def test_bad_creation_of_the_batch(world: World) -> None:
    batch_id = unique("batch")
    world.put_jobs(batch_id, ["completed", "pending"])
    for value in [*NO_TEXT, TEXT, {"S": ""}]:
        world.put_batch(batch_id, created_at=value)
        assert 2 == world.get(batch_id, include="estimate").data["total_urls"], value


def test_bad_owner_of_the_batch(world: World) -> None:
    """No token can read it. A direct call without `owner_id` can."""
    batch_id = unique("batch")
    for value in [*NO_TEXT, {"S": ""}]:
        world.put_item(batch_item(batch_id, owner_id=value))
        assert (404, "BATCH_NOT_FOUND") == world.get(batch_id).outcome, value
        assert world.invoke({"batch_id": batch_id})["success"] is True, value


def test_direct_invocation_survives_malformed_items(world: World) -> None:
    batch_id = world.put_batch()
    world.put_job(batch_id, "bad", url=None, status={"NULL": True}, items_extracted={"N": "1E+125"})
    assert world.invoke({"batch_id": batch_id})["success"] is True


def test_malformed_item_is_reported_by_its_key(world: World) -> None:
    """It is in a warning that is also a metric. No log line contains the token."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"bad_one": {"status": "done"}, "good_one": {}})

    run = world.elsewhere(event("GET", progress_path(batch_id), world.key()))

    assert 200 == run.http.status
    assert any("JOB#bad_one" in line for line in run.log.splitlines())
    assert "JOB#good_one" not in run.log
    (warning,) = (json.loads(line) for line in run.log.splitlines() if '"malformed items"' in line)
    assert 1 == warning["MalformedItems"]
    assert world.tokens["demo"] not in run.log
