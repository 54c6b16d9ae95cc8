"""Pages: their content, the cursor to the next one, and that together they are complete."""

from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.integration.world import Answer, World, now, unique

COUNTS = ["total_urls", "completed", "failed", "pending", "total_items_extracted", "estimated_completion"]


def ids(data: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in data["jobs"]]


def put_five(world: World) -> str:
    batch_id = world.put_batch(total_urls=6)
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "items_extracted": 4, "started_at": now(-40), "finished_at": now(-30)},
            "b": {"status": "failed", "started_at": now(-30), "finished_at": now(-20)},
            "c": {},
            "d": {"status": "completed", "items_extracted": 5, "started_at": now(-20), "finished_at": now(-10)},
            "e": {"status": "processing", "started_at": now(-5)},
        },
    )
    return batch_id


def link_query(answer: Answer) -> list[tuple[str, str]]:
    """Return the query of the only link, which is relative and leads to the next page."""
    assert 1 == len(answer.headers.getlist("Link"))
    link = answer.headers["Link"]
    assert link.startswith("<?")
    assert link.endswith('>; rel="next"')
    return parse_qsl(link.removeprefix("<?").removesuffix('>; rel="next"'), strict_parsing=True)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("1", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ("2", [["a", "b"], ["c", "d"], ["e"]]),
        ("4", [["a", "b", "c", "d"], ["e"]]),
        ("5", [["a", "b", "c", "d", "e"]]),
        ("6", [["a", "b", "c", "d", "e"]]),
        ("0005", [["a", "b", "c", "d", "e"]]),
        ("1000", [["a", "b", "c", "d", "e"]]),
    ],
)
def test_pages(world: World, limit: str, expected: list[list[str]]) -> None:
    """At most `limit` jobs per page, in order. The page with the last job has no cursor."""
    batch_id = put_five(world)
    assert expected == [ids(data) for data in world.walk(batch_id, limit=limit)]


def test_pages_hold_the_jobs_as_the_whole_does(world: World) -> None:
    batch_id = put_five(world)
    whole = world.get(batch_id, include="details").data["jobs"]
    pages = world.walk(batch_id, include="details", limit="2")
    assert whole == [job for data in pages for job in data["jobs"]]


def test_next_cursor_is_there_with_limit_or_cursor_only(world: World) -> None:
    batch_id = put_five(world)
    assert "next_cursor" not in world.get(batch_id).data
    assert "next_cursor" not in world.get(batch_id, status="completed", include="details").data

    first = world.get(batch_id, limit="2").data
    assert isinstance(first["next_cursor"], str)

    rest = world.get(batch_id, cursor=first["next_cursor"]).data
    assert ["c", "d", "e"] == ids(rest)
    assert rest["next_cursor"] is None


def test_limit_adds_one_field_and_no_other(world: World) -> None:
    batch_id = put_five(world)
    added = set(world.get(batch_id, limit="2").data) - set(world.get(batch_id).data)
    assert {"next_cursor"} == added


def test_limit_zero_asks_for_the_counts_alone(world: World) -> None:
    """No jobs and no next page, but the counts of the whole batch."""
    batch_id = put_five(world)

    answer = world.get(batch_id, limit="0")

    assert [] == answer.data["jobs"]
    assert answer.data["next_cursor"] is None
    assert "Link" not in answer.headers
    assert [6, 2, 1, 3, 9] == [answer.data[name] for name in COUNTS[:5]]


def test_limit_on_a_batch_without_jobs(world: World) -> None:
    answer = world.get(world.put_batch(total_urls=3), limit="2")
    assert [] == answer.data["jobs"]
    assert answer.data["next_cursor"] is None
    assert "Link" not in answer.headers


def test_links_lead_through_the_whole(world: World) -> None:
    """Each link has the cursor of the body."""
    batch_id = put_five(world)
    answer, seen = world.get(batch_id, limit="2"), []
    while answer.data["next_cursor"] is not None:
        seen += ids(answer.data)
        query = link_query(answer)
        assert [answer.data["next_cursor"]] == [value for name, value in query if name == "cursor"]
        answer = world.ask(batch_id, query)
    assert ["a", "b", "c", "d", "e"] == seen + ids(answer.data)
    assert "Link" not in answer.headers


def test_link_keeps_the_other_parameters(world: World) -> None:
    batch_id = put_five(world)
    given = {"limit": "1", "status": "completed,failed", "include": "details,estimate"}

    query = link_query(world.get(batch_id, **given))
    assert given == {name: value for name, value in query if name != "cursor"}

    second = link_query(world.ask(batch_id, query))
    assert given == {name: value for name, value in second if name != "cursor"}
    assert 1 == len([name for name, _ in second if name == "cursor"])


def test_later_pages_carry_the_counts_of_the_first(world: World) -> None:
    """Jobs that change during a walk do not change its counts and forecast."""
    batch_id = put_five(world)
    first = world.get(batch_id, limit="2").data

    world.put_jobs(batch_id, {job_id: {"status": "completed", "items_extracted": 100} for job_id in "abcdefg"})
    second = world.get(batch_id, limit="2", cursor=first["next_cursor"]).data
    world.put_job(batch_id, "e", status="failed")
    third = world.get(batch_id, limit="9", cursor=second["next_cursor"]).data

    for later in (second, third):
        assert [first[name] for name in COUNTS] == [later[name] for name in COUNTS]
    assert 7 == world.get(batch_id, limit="0").data["total_urls"]


def test_later_pages_carry_the_counts_whatever_else_is_asked(world: World) -> None:
    """A later page with another filter or limit belongs to the same walk."""
    batch_id = put_five(world)
    first = world.get(batch_id, limit="1").data
    later = world.get(batch_id, status="completed", include="details", cursor=first["next_cursor"]).data
    assert [first[name] for name in COUNTS] == [later[name] for name in COUNTS]
    assert ["d"] == ids(later)


@pytest.mark.parametrize("limit", ["1", "2", "3"])
@pytest.mark.parametrize("status", ["completed", "failed,processing", "cancelled", "pending"])
def test_pages_of_a_filter(world: World, status: str, limit: str) -> None:
    """Only matching jobs, at most `limit` per page, and together all of them."""
    batch_id = put_five(world)
    whole = world.get(batch_id, status=status).data

    pages = list(world.walk(batch_id, status=status, limit=limit))

    assert ids(whole) == [job_id for data in pages for job_id in ids(data)]
    assert all(len(data["jobs"]) <= int(limit) for data in pages)
    assert {(6, 2, 1, 3, 9)} == {tuple(data[name] for name in COUNTS[:5]) for data in pages}


def test_include_on_a_later_page(world: World) -> None:
    batch_id = put_five(world)
    cursor = world.get(batch_id, limit="1").data["next_cursor"]
    data = world.get(batch_id, limit="1", include="details", cursor=cursor).data
    assert "started_at" in data["jobs"][0]


def test_cursor_does_not_let_a_stranger_in(world: World) -> None:
    """A cursor does not replace a token, and another owner's batch stays a 404."""
    batch_id = put_five(world)
    cursor = world.get(batch_id, limit="1").data["next_cursor"]
    assert (404, "BATCH_NOT_FOUND") == world.get(batch_id, unique("owner"), cursor=cursor).outcome


def test_cursor_of_a_deleted_batch(world: World) -> None:
    batch_id = put_five(world)
    cursor = world.get(batch_id, limit="1").data["next_cursor"]
    world.delete_batch(batch_id)
    assert (404, "BATCH_NOT_FOUND") == world.get(batch_id, cursor=cursor).outcome


def test_cursor_of_another_batch(world: World) -> None:
    """Refused without reading the other batch."""
    cursor = world.get(put_five(world), limit="1").data["next_cursor"]
    for batch_id in (put_five(world), unique("missing")):
        answer = world.get(batch_id, cursor=cursor)
        assert (422, "VALIDATION_ERROR") == answer.outcome
        assert ["cursor"] == list(answer.error["details"])


def test_tampered_cursor(world: World) -> None:
    """A changed, added or removed character anywhere is refused."""
    batch_id = put_five(world)
    cursor = world.get(batch_id, limit="1").data["next_cursor"]
    spots = range(0, len(cursor), max(1, len(cursor) // 20))
    tampered = [cursor[:spot] + ("A" if cursor[spot] != "A" else "B") + cursor[spot + 1 :] for spot in spots]
    tampered += [cursor[:-1], cursor[1:], cursor + "A", "A" + cursor, cursor + cursor, cursor.swapcase(), cursor[::-1]]

    outcomes = {text: world.get(batch_id, cursor=text).outcome for text in tampered}

    assert dict.fromkeys(tampered, (422, "VALIDATION_ERROR")) == outcomes


@pytest.mark.parametrize(
    "cursor",
    ["a", "!!!!", "AAAA", "e30", "bnVsbA", "W10", "eyJiYXRjaF9pZCI6Im90aGVyIn0", "٣٣٣٣", "\x00", " ", "a" * 5000, "=="],
)
def test_cursor_that_never_was_one(world: World, cursor: str) -> None:
    answer = world.get(put_five(world), cursor=cursor)
    assert (422, "VALIDATION_ERROR") == answer.outcome
    assert ["cursor"] == list(answer.error["details"])


def test_job_ids_that_are_hard_to_carry(world: World) -> None:
    """A cursor can contain any sort key."""
    batch_id = world.put_batch()
    job_ids = sorted(["", " ", "#", 'a"b', "a\\b", "a&b=c", "é", "\u2028", "\U0001f600", "x" * 1000], key=str.encode)
    world.put_jobs(batch_id, {job_id: {} for job_id in job_ids})
    assert job_ids == [job_id for data in world.walk(batch_id, limit="1") for job_id in ids(data)]


def test_walk_over_pages_of_the_database(world: World) -> None:
    """A page of an answer may begin and end anywhere in DynamoDB's pages."""
    batch_id = world.put_batch()
    job_ids = [f"job_{number:02}" for number in range(14)]
    world.put_jobs(batch_id, {job_id: {"error_message": "x" * 200_000} for job_id in job_ids})
    pages = list(world.walk(batch_id, limit="6"))
    assert [6, 6, 2] == [len(data["jobs"]) for data in pages]
    assert job_ids == [job_id for data in pages for job_id in ids(data)]
