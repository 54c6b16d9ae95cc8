"""Properties of any batch."""

import string
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.world import World, moment, now, unique

STATUSES = ["pending", "processing", "completed", "failed", "cancelled"]
ANY_BATCH = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

type Raw = dict[str, Any]

texts = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000).map(str),
    st.sampled_from(["1E+125", "1E-130", "-1E+125", "0", "1", "9.9999999999999999999999999999999999999E+125"]),
)
scalars = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda number: {"N": number}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.binary(max_size=4).map(lambda value: {"B": value}),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda several: {"L": several}),
        st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=4), inner, max_size=3).map(
            lambda several: {"M": several}
        ),
    ),
    max_leaves=4,
)
times = st.one_of(
    st.integers(-200_000, 200_000).map(lambda seconds: {"S": now(seconds)}),
    st.sampled_from([{"S": "0001-01-01T00:00:00.000Z"}, {"S": "9999-12-31T23:59:59.999Z"}]),
    values,
)
statuses = st.one_of(st.sampled_from(STATUSES).map(lambda status: {"S": status}), values)
items = st.fixed_dictionaries(
    {},
    optional={
        "url": st.one_of(st.just({"S": "https://example.com/"}), values),
        "status": statuses,
        "items_extracted": st.one_of(st.integers(0, 100).map(lambda number: {"N": str(number)}), values),
        "started_at": times,
        "finished_at": times,
        "error_code": values,
        "error_message": values,
        "expires_at": values,
        "owner_id": values,
    },
)
sort_keys = st.one_of(
    texts.map(lambda text: f"JOB#{text}"),
    st.integers(0, 9).map(lambda number: f"JOB#job_{number}"),
    texts.filter(lambda text: text not in {"", "BATCH"}),
)
partitions = st.dictionaries(sort_keys, items, max_size=8)
batches = st.fixed_dictionaries(
    {},
    optional={
        "total_urls": st.one_of(st.integers(0, 20).map(lambda number: {"N": str(number)}), values),
        "created_at": times,
        "parallel_jobs": values,
        "timeout_per_url": values,
        "revision": values,
    },
)


def put(world: World, batch: Raw, partition: dict[str, Raw], owner: str = "demo") -> str:
    """Write a batch with these items."""
    batch_id = unique("batch")
    own = {"batch_id": {"S": batch_id}, "sk": {"S": "BATCH"}, "owner_id": {"S": owner}} | batch
    world.put_items([own, *({"batch_id": {"S": batch_id}, "sk": {"S": sk}} | item for sk, item in partition.items())])
    return batch_id


@ANY_BATCH
@given(batch=batches, partition=partitions)
def test_counts_always_sum(world: World, batch: Raw, partition: dict[str, Raw]) -> None:
    """Three counts that sum to the total, none negative, and every job, in order."""
    batch_id = put(world, batch, partition)
    before = datetime.now(UTC)

    data = world.get(batch_id, include="details,estimate").data

    counts = [data[name] for name in ("completed", "failed", "pending")]
    assert data["total_urls"] == sum(counts)
    assert min(counts) >= 0
    job_ids = [sk.removeprefix("JOB#") for sk in sorted(partition, key=str.encode) if sk.startswith("JOB#")]
    assert job_ids == [job["job_id"] for job in data["jobs"]]
    assert data["total_urls"] >= len(job_ids)
    assert data["completed"] == sum(job["status"] == "completed" for job in data["jobs"])
    assert data["failed"] == sum(job["status"] in {"failed", "cancelled"} for job in data["jobs"])
    assert data["total_items_extracted"] == sum(job["items_extracted"] for job in data["jobs"])
    assert all(job["status"] in STATUSES and job["items_extracted"] >= 0 for job in data["jobs"])
    estimated = moment(data["estimated_completion"])
    if data["pending"]:
        assert before <= estimated
    else:
        assert "finished" == data["estimate"]["basis"]
    assert moment(data["estimate"]["earliest"]) <= estimated <= moment(data["estimate"]["latest"])


@ANY_BATCH
@given(
    partition=partitions,
    limit=st.integers(1, 5),
    status=st.lists(st.sampled_from(STATUSES), unique=True, max_size=3),
    include=st.sampled_from(["", "details", "details,estimate"]),
)
def test_pages_together_are_the_whole(
    world: World, partition: dict[str, Raw], limit: int, status: list[str], include: str
) -> None:
    """For any limit and filter: every job once, in order, and the same counts on all pages."""
    batch_id = put(world, {"total_urls": {"N": "5"}}, partition)
    query = ({"status": ",".join(status)} if status else {}) | ({"include": include} if include else {})
    whole = world.get(batch_id, **query).data

    pages = list(world.walk(batch_id, **query, limit=str(limit)))

    assert whole["jobs"] == [job for page in pages for job in page["jobs"]]
    assert all(len(page["jobs"]) <= limit for page in pages)
    heads = [{name: value for name, value in page.items() if name not in {"jobs", "next_cursor"}} for page in pages]
    assert [heads[0]] * len(pages) == heads


@ANY_BATCH
@given(batch=batches, partition=partitions)
def test_foreign_batch_is_as_good_as_missing(world: World, batch: Raw, partition: dict[str, Raw]) -> None:
    """The answer does not depend on the content of another owner's batch."""
    foreign = put(world, batch, partition, owner="stranger")
    told = []
    for batch_id in (foreign, unique("batch")):
        answer = world.get(batch_id)
        text = answer.text.replace(batch_id, "…").replace(answer.error["trace_id"], "…")
        headers = sorted((name, value) for name, value in answer.headers if name != "X-Request-Id")
        told.append((answer.status, text.replace(answer.error["timestamp"], "…"), headers))
    assert told[0] == told[1]


@ANY_BATCH
@given(event=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_event_that_is_not_an_object_is_answered(world: World, event: object) -> None:
    assert "VALIDATION_ERROR" == world.invoke(event)["error"]["code"]


@ANY_BATCH
@given(query=st.dictionaries(st.sampled_from(["limit", "status", "cursor", "include", "foo"]), texts, max_size=3))
def test_any_query_is_answered_or_refused(world: World, query: dict[str, str]) -> None:
    """Arbitrary text is a 422, never a 500."""
    assert world.ask(world.put_batch(), query).status in {200, 422}
