"""A Lambda response has at most 6 MB: a longer answer ends early, with a cursor."""

import json
import random
import string

import pytest

from tests.integration.world import SIX_MEGABYTES, World, now


def size(payload: object) -> int:
    """Return the bytes of the runtime's payload."""
    return len(json.dumps(payload, ensure_ascii=False).encode())


def put_urls(world: World, urls: list[str]) -> str:
    """Write a finished batch with long URLs."""
    batch_id = world.put_batch()
    for number, url in enumerate(urls):
        world.put_job(batch_id, f"job_{number:02}", url=url, status="completed", items_extracted=1, finished_at=now(-9))
    return batch_id


@pytest.fixture(scope="module")
def repetitive(world: World) -> str:
    """6.5 MB that compress very well."""
    return put_urls(world, ["x" * 300_000] * 22)


@pytest.fixture(scope="module")
def dense(world: World) -> str:
    """7 MB that are no smaller once compressed and base64-encoded."""
    source = random.Random(0)  # noqa: S311  # no secret
    return put_urls(
        world, ["".join(source.choices(string.ascii_letters + string.digits, k=300_000)) for _ in range(24)]
    )


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_answer_that_would_be_too_large_ends_early(world: World, dense: str, accepted: str) -> None:
    """The counts are those of the whole batch. Following the cursors returns every job exactly once."""
    query: dict[str, str] = {}
    seen: list[str] = []
    for _ in range(24):
        answer = world.ask(dense, query, headers={"Accept-Encoding": accepted})
        assert size(answer.payload) <= SIX_MEGABYTES
        assert [24, 24, 0, 0, 24] == list(answer.data.values())[1:6]
        seen += [job["job_id"] for job in answer.data["jobs"]]
        if answer.data.get("next_cursor") is None:
            break
        assert answer.headers["Link"].endswith('>; rel="next"')
        query = {"cursor": answer.data["next_cursor"]}
    assert [f"job_{number:02}" for number in range(24)] == seen
    assert query


def test_what_compresses_is_not_cut(world: World, repetitive: str) -> None:
    answer = world.ask(repetitive, headers={"Accept-Encoding": "gzip"})
    assert 22 == len(answer.data["jobs"])
    assert "next_cursor" not in answer.data
    assert "Link" not in answer.headers


def test_who_asks_for_counts_alone_is_not_cut(world: World, repetitive: str) -> None:
    answer = world.get(repetitive, limit="0")
    assert answer.data["next_cursor"] is None
    assert "Link" not in answer.headers


def test_limit_may_be_cut_short(world: World, repetitive: str) -> None:
    """A page that was cut has fewer jobs than `limit` and a cursor like any other."""
    answer = world.get(repetitive, limit="1000")
    assert size(answer.payload) <= SIX_MEGABYTES
    assert 0 < len(answer.data["jobs"]) < 22
    rest = world.get(repetitive, limit="1000", cursor=answer.data["next_cursor"]).data
    assert 22 == len(answer.data["jobs"]) + len(rest["jobs"])
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("character", ['"', "\x01", "\U0001f600"])
def test_characters_that_grow_on_the_way(world: World, character: str) -> None:
    """A quote takes one byte in the table, two in the body and four in the payload. The payload is limited."""
    length = 240_000 // len(character.encode())
    batch_id = put_urls(world, [character * length] * 12)
    answer = world.get(batch_id)
    assert size(answer.payload) <= SIX_MEGABYTES
    assert answer.data["jobs"]
    assert character * length == answer.data["jobs"][0]["url"]
    assert 12 == answer.data["total_urls"]


def test_direct_answer_is_cut_too(world: World, repetitive: str) -> None:
    """It is not compressed and continues with the cursor."""
    first = world.invoke({"batch_id": repetitive})
    assert size(first) <= SIX_MEGABYTES
    second = world.invoke({"batch_id": repetitive, "cursor": first["data"]["next_cursor"]})
    assert 22 == len(first["data"]["jobs"]) + len(second["data"]["jobs"])
    assert 22 == first["data"]["total_urls"] == second["data"]["total_urls"]
