"""A batch much larger than one answer."""

import collections
import json
from collections.abc import Iterator

import pytest

from batch_progress import dynamodb
from functions.progress import app
from tests.integration.world import (
    SIX_MEGABYTES,
    Answer,
    Context,
    World,
    attributes,
    event,
    progress_path,
    request_lines,
)

JOBS = 100_000
STATUSES = ("completed", "completed", "failed", "cancelled", "pending", "processing", "completed")
# For a batch this large the engine needs seconds for a page of 1 MB; the service needs milliseconds.
PAGE_TIMEOUT = 60
TIMEOUT = 300


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """Longer timeouts for the slow engine."""
    factories = (app._store, app._counts, app._large, app._tokens, app._client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", PAGE_TIMEOUT)
        for factory in factories:
            factory.cache_clear()
        yield
    for factory in factories:
        factory.cache_clear()


@pytest.fixture(scope="module")
def batch_id(world: World) -> str:
    """A batch of 100,000 jobs."""
    batch_id = world.put_batch(total_urls=JOBS)
    world.put_items(
        attributes(
            {
                "batch_id": batch_id,
                "sk": f"JOB#job_{number:06}",
                "url": f"https://example.com/catalogue/{number}",
                "status": STATUSES[number % len(STATUSES)],
                "items_extracted": number % 10,
            }
        )
        for number in range(JOBS)
    )
    return batch_id


def ask(world: World, batch_id: str, headers: list[tuple[str, str]], **query: str) -> Answer:
    request = event("GET", progress_path(batch_id), [*world.key(), *headers], query)
    payload = app.handler(request, Context(TIMEOUT))
    assert SIX_MEGABYTES > len(json.dumps(payload).encode())
    return Answer.read(payload)


@pytest.mark.parametrize("headers", [[], [("Accept-Encoding", "gzip")]], ids=["plain", "gzip"])
def test_a_hundred_thousand_jobs(world: World, batch_id: str, headers: list[tuple[str, str]]) -> None:
    """The counts are those of all jobs. The answer has as many jobs as fit, and a cursor for the others."""
    data = ask(world, batch_id, headers).data

    statuses = collections.Counter(STATUSES[number % len(STATUSES)] for number in range(JOBS))
    ended = statuses["failed"] + statuses["cancelled"]
    assert (JOBS, statuses["completed"], ended, 450_000) == tuple(
        data[name] for name in ("total_urls", "completed", "failed", "total_items_extracted")
    )
    assert JOBS == data["completed"] + data["failed"] + data["pending"]
    job_ids = [job["job_id"] for job in data["jobs"]]
    while data.get("next_cursor"):
        data = ask(world, batch_id, headers, cursor=data["next_cursor"]).data
        job_ids += [job["job_id"] for job in data["jobs"]]
    assert [f"job_{number:06}" for number in range(JOBS)] == job_ids


def test_a_stranger_reads_one_short_page(world: World, batch_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """404 for a few read units, like a batch that does not exist: the batch's size neither shows nor costs anything."""
    capsys.readouterr()
    for asked in (batch_id, "batch_missing"):
        assert 404 == world.get(asked, owner="stranger").status
    foreign, missing = request_lines(capsys.readouterr().out)
    assert (1, 1) == (foreign["pages"], missing["pages"])
    assert missing["read_units"] <= 0.5
    assert foreign["read_units"] <= 10


def test_a_large_batch_is_counted_once_for_many_polls(
    world: World, batch_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first poll with a limit counts and keeps; the following ones cost half a unit."""
    capsys.readouterr()
    first, *later = (ask(world, batch_id, [], limit="0", include="summary").data for _ in range(3))
    assert [first, first] == later
    _, *units = (line["read_units"] for line in request_lines(capsys.readouterr().out))
    assert [0.5, 0.5] == units
    assert JOBS == sum(first["summary"]["statuses"].values())
