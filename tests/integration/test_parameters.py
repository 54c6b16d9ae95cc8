"""Query parameters: which values are refused, and what is ignored."""

import pytest

from tests.integration.world import World, unique

BAD_LIMITS = [
    "",
    "many",
    "-1",
    "+5",
    " 5",
    "5 ",
    "5.0",
    "1e2",
    "0x10",
    "1_0",
    "٣",
    "\uff15",
    "00005",
    "01000 ",
    "1001",
    "9999",
    "10000",
    "5,6",
    "5\n",
    "null",
]
BAD_STATUSES = [
    "",
    "done",
    "COMPLETED",
    "Completed",
    "completed,",
    ",completed",
    "completed,,failed",
    ",",
    "completed, failed",
    " completed",
    "completed ",
    "completed\n",
    "completed;failed",
    "completed|failed",
    "completed,done",
    "null",
]
BAD_INCLUDES = [
    "",
    "all",
    "Details",
    "details,",
    ",details",
    "details, estimate",
    " details",
    "details ",
    "details,,estimate",
    "details;estimate",
    "details,all",
]


@pytest.fixture
def batch_id(world: World) -> str:
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["completed", "failed", "pending"])
    return batch_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", value) for value in BAD_LIMITS),
        *(("status", value) for value in BAD_STATUSES),
        *(("include", value) for value in BAD_INCLUDES),
        ("cursor", ""),
    ],
)
def test_bad_value(world: World, batch_id: str, name: str, value: str) -> None:
    """The details name the parameter and the reason."""
    answer = world.ask(batch_id, {name: value})
    assert (422, "VALIDATION_ERROR") == answer.outcome
    details = answer.error["details"]
    assert [name] == list(details)
    assert isinstance(details[name], str)
    assert details[name]


@pytest.mark.parametrize(
    "bad",
    [
        "9" * 129,
        "a.b",
        "a~b",
        "a:b",
        "a@b",
        "a b",
        "a%20b",
        "a+b",
        "a,b",
        "a*b",
        "$",
        ".",
        "..",
        "é",
        "٣",
        "a=b",
        "a;b",
    ],
)
def test_bad_batch_id(world: World, bad: str) -> None:
    """A bad parameter, not an unknown path."""
    answer = world.get(bad)
    assert (422, "VALIDATION_ERROR") == answer.outcome
    assert ["batch_id"] == list(answer.error["details"])


@pytest.mark.parametrize("bad", ['a"b', "a\\b", "a^b", "a`b", "a{b}", "a\nb", "a\n", "\U0001f600", "a\u2028b", "a#b"])
def test_batch_id_that_few_routers_match(world: World, bad: str) -> None:
    assert (422, "VALIDATION_ERROR") == world.get(bad).outcome


def test_every_bad_parameter_is_named(world: World) -> None:
    answer = world.ask("bad.id", {"limit": "many", "status": "done", "include": "all"})
    assert (422, "VALIDATION_ERROR") == answer.outcome
    assert {"batch_id", "limit", "status", "include"} == set(answer.error["details"])


def test_bad_cursor_is_named_beside_the_others(world: World, batch_id: str) -> None:
    answer = world.ask(batch_id, {"limit": "many", "cursor": "!"})
    assert {"limit", "cursor"} == set(answer.error["details"])


@pytest.mark.parametrize("query", [{"foo": "bar"}, {"foo": ""}, {"": "x"}, {"_": "1734345062"}, {"limit[]": "many"}])
def test_unknown_parameter_is_ignored(world: World, batch_id: str, query: dict[str, str]) -> None:
    answer = world.ask(batch_id, query)
    assert 3 == len(answer.data["jobs"])
    assert "next_cursor" not in answer.data


def test_of_a_repeated_parameter_the_last_counts(world: World, batch_id: str) -> None:
    """Earlier values are ignored."""
    first = world.ask(batch_id, [("limit", "many"), ("limit", "3"), ("limit", "1")]).data
    assert 1 == len(first["jobs"])
    assert (422, "VALIDATION_ERROR") == world.ask(batch_id, [("limit", "1"), ("limit", "many")]).outcome

    filtered = world.ask(batch_id, [("status", "completed"), ("status", "failed")]).data
    assert ["failed"] == [job["status"] for job in filtered["jobs"]]

    extended = world.ask(batch_id, [("include", "estimate"), ("include", "details")]).data
    assert "estimate" not in extended
    assert "error_code" in extended["jobs"][0]

    rest = world.ask(batch_id, [("cursor", "!"), ("cursor", first["next_cursor"])]).data
    assert 2 == len(rest["jobs"])


def test_bad_parameter_of_a_missing_batch(world: World) -> None:
    assert (422, "VALIDATION_ERROR") == world.get(unique("missing"), limit="1001").outcome


@pytest.mark.parametrize("limit", ["0", "00", "0000"])
def test_limit_zero_in_every_spelling(world: World, batch_id: str, limit: str) -> None:
    assert [] == world.get(batch_id, limit=limit).data["jobs"]
