"""Conditional requests: the content of an ETag, how long it holds, and when to poll again."""

import re
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from functions.progress import app
from tests.integration.world import Answer, Attribute, World, batch_item, moment, now, progress_path, unique

TAG = re.compile(r'W/"(?P<made>\d+)\.(?P<eta>\d+)\.(?P<digest>[^".]+)"')


def parts(answer: Answer) -> tuple[int, int, str]:
    """Return the time of the tag's read, its forecast and its digest."""
    found = TAG.fullmatch(answer.headers["ETag"])
    assert found, answer.headers["ETag"]
    return int(found["made"]), int(found["eta"]), found["digest"]


def tag(made: int, eta: int, digest: str) -> str:
    return f'W/"{made}.{eta}.{digest}"'


def again(world: World, batch_id: str, tags: str, **query: str) -> Answer:
    return world.ask(batch_id, query, headers={"If-None-Match": tags})


@pytest.fixture
def running(world: World) -> str:
    """A batch that is far from its end."""
    batch_id = world.put_batch(total_urls=100, parallel_jobs=2, timeout_per_url=30)
    world.put_jobs(
        batch_id,
        {
            "a": {"status": "completed", "started_at": now(-30), "finished_at": now(-10)},
            "b": {"status": "processing", "started_at": now(-5)},
            "c": {},
        },
    )
    return batch_id


@pytest.fixture
def finished(world: World) -> str:
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-3600)}, "b": {"status": "failed"}})
    return batch_id


@pytest.fixture
def stalled(world: World) -> str:
    batch_id = world.put_batch(parallel_jobs=2, timeout_per_url=30, created_at=now(-90_000))
    world.put_jobs(batch_id, {"a": {"status": "processing", "started_at": now(-86_400)}, "b": {}})
    return batch_id


def test_tag_of_a_running_batch(world: World, running: str) -> None:
    """It contains the second of the read and that of the body's forecast."""
    before = int(time.time())
    answer = world.get(running)
    made, eta, _ = parts(answer)
    assert before <= made <= time.time()
    assert int(moment(answer.data["estimated_completion"]).timestamp()) == eta


def test_tag_without_a_forecast(world: World, finished: str, stalled: str) -> None:
    """A finished or stalled batch's tag contains no forecast."""
    assert [0, 0] == [parts(world.get(batch_id))[1] for batch_id in (finished, stalled)]


def test_same_tag_is_not_modified(world: World, running: str, finished: str, stalled: str) -> None:
    for batch_id in (running, finished, stalled):
        first = world.get(batch_id)
        answer = again(world, batch_id, first.headers["ETag"])
        assert (304, "") == (answer.status, answer.text)
        assert first.headers["ETag"] == answer.headers["ETag"]


def test_headers_of_not_modified(world: World, running: str, finished: str) -> None:
    for batch_id, wait in ((running, {"retry-after"}), (finished, set())):
        answer = again(world, batch_id, world.get(batch_id).headers["ETag"])
        assert {"etag", "cache-control", "vary", "x-request-id"} | wait == answer.names
        assert "private, no-cache" == answer.headers["Cache-Control"]
        assert "Authorization, X-API-Key, Accept-Encoding" == answer.headers["Vary"]


def test_head_is_not_modified_either(world: World, running: str) -> None:
    """GET and HEAD share their tags."""
    headers = [*world.key(), ("If-None-Match", world.get(running).headers["ETag"])]
    answer = world.request("HEAD", progress_path(running), headers)
    assert (304, "") == (answer.status, answer.text)


@pytest.mark.parametrize("form", ['"x", {}', '{}, "x"', 'W/"x",{},"y"', '"x" , {} , W/"y"', 'W/"1.0.x", {}'])
def test_any_tag_of_a_list(world: World, finished: str, form: str) -> None:
    assert 304 == again(world, finished, form.format(world.get(finished).headers["ETag"])).status


def test_comparison_is_weak(world: World, finished: str) -> None:
    """A tag without its `W/` prefix is the same tag."""
    assert 304 == again(world, finished, world.get(finished).headers["ETag"].removeprefix("W/")).status


def test_star(world: World, running: str, finished: str) -> None:
    """`If-None-Match: *` matches any existing batch."""
    for batch_id, wait in ((running, {"retry-after"}), (finished, set())):
        answer = again(world, batch_id, "*")
        assert (304, "") == (answer.status, answer.text)
        assert TAG.fullmatch(answer.headers["ETag"])
        assert {"etag", "cache-control", "vary", "x-request-id"} | wait == answer.names
        assert 200 == again(world, batch_id, answer.headers["ETag"]).status
    assert (404, "BATCH_NOT_FOUND") == again(world, unique("missing"), "*").outcome
    assert (404, "BATCH_NOT_FOUND") == again(world, world.put_batch(owner=unique("owner")), "*").outcome


@pytest.mark.parametrize("tags", ["", '"x"', "x", 'W/"', '""', 'W/"0.0."', 'W/"٣.٣.x"', f'W/"{"9" * 400}.0.x"', ",,"])
def test_tag_that_is_not_ours(world: World, finished: str, tags: str) -> None:
    assert 200 == again(world, finished, tags).status


def test_tag_holds_for_a_minute(world: World, finished: str) -> None:
    """An older tag gets the full answer and a new tag, even if nothing has changed."""
    _, eta, digest = parts(world.get(finished))
    second = int(time.time())
    assert 304 == again(world, finished, tag(second - 50, eta, digest)).status
    old = again(world, finished, tag(second - 61, eta, digest))
    assert 200 == old.status
    assert parts(old)[0] >= second


def test_tag_holds_until_its_forecast(world: World, running: str) -> None:
    """A client must not keep a forecast that has passed."""
    made, _, digest = parts(world.get(running))
    second = int(time.time())
    assert 304 == again(world, running, tag(made, second + 30, digest)).status
    assert 200 == again(world, running, tag(made, second - 1, digest)).status


def test_tag_with_another_digest(world: World, running: str) -> None:
    made, eta, digest = parts(world.get(running))
    other = ("A" if digest[0] != "A" else "B") + digest[1:]
    assert 200 == again(world, running, tag(made, eta, other)).status


def test_tag_holds_for_its_query_only(world: World, running: str) -> None:
    queries: list[dict[str, str]] = [
        {},
        {"limit": "1"},
        {"limit": "0"},
        {"status": "completed"},
        {"include": "details"},
        {"limit": "2", "cursor": world.get(running, limit="1").data["next_cursor"]},
    ]
    tags = [world.get(running, **query).headers["ETag"] for query in queries]
    statuses = [[again(world, running, each, **query).status for query in queries] for each in tags]
    assert [[304 if asked == made else 200 for asked in queries] for made in queries] == statuses


def test_tag_holds_for_its_batch_only(world: World, finished: str) -> None:
    other = world.put_batch()
    world.put_jobs(other, {"a": {"status": "completed", "finished_at": now(-3600)}, "b": {"status": "failed"}})
    assert 200 == again(world, other, world.get(finished).headers["ETag"]).status


def test_tag_does_not_replace_a_token(world: World, finished: str) -> None:
    """The token is checked first, and another owner's batch is a 404 in spite of its tag."""
    tags = {"If-None-Match": world.get(finished).headers["ETag"]}
    path = progress_path(finished)
    assert (401, "AUTHENTICATION_REQUIRED") == world.request("GET", path, tags).outcome
    assert (401, "INVALID_API_KEY") == world.request("GET", path, tags | {"X-API-Key": unique("unknown")}).outcome
    assert (404, "BATCH_NOT_FOUND") == world.ask(finished, headers=tags, owner=unique("owner")).outcome
    for star in ({"If-None-Match": "*"}, tags):
        assert (422, "VALIDATION_ERROR") == world.ask(finished, {"limit": "many"}, headers=star).outcome


def test_tag_of_another_coding(world: World) -> None:
    """A compressed body is a different representation."""
    batch_id = world.put_batch()
    world.put_jobs(batch_id, ["completed"] * 100)
    gzip = [("Accept-Encoding", "gzip")]
    tags = {
        coding: world.ask(batch_id, headers=headers).headers["ETag"]
        for coding, headers in (("plain", []), ("gzip", gzip))
    }
    asked = {"plain": [("If-None-Match", tags["gzip"])], "gzip": [*gzip, ("If-None-Match", tags["plain"])]}
    assert [200, 200] == [world.ask(batch_id, headers=headers).status for headers in asked.values()]
    assert 304 == world.ask(batch_id, headers=[*gzip, ("If-None-Match", tags["gzip"])]).status


@pytest.mark.parametrize(
    ("name", "value"), [("revision", 8), ("total_urls", 101), ("parallel_jobs", 3), ("revision", None)]
)
def test_batch_that_has_changed(world: World, name: str, value: int | None) -> None:
    """The digest covers the whole batch item, including its revision."""
    declared: dict[str, Attribute] = {"total_urls": 100, "revision": 7, "created_at": now(-60)}
    batch_id = unique("batch")
    world.put_item(batch_item(batch_id, **declared))
    world.put_jobs(batch_id, ["completed", "pending"])
    before = world.get(batch_id).headers["ETag"]
    assert 304 == again(world, batch_id, before).status

    world.put_item(batch_item(batch_id, **declared | {name: value}))

    answer = again(world, batch_id, before)
    assert 200 == answer.status
    assert before != answer.headers["ETag"]


def test_expired_or_deleted_batch(world: World, running: str) -> None:
    before = world.get(running).headers["ETag"]
    world.put_batch(running, expires_at=int(time.time()) - 1)
    assert (404, "BATCH_NOT_FOUND") == again(world, running, before).outcome
    world.delete_batch(running)
    assert (404, "BATCH_NOT_FOUND") == again(world, running, before).outcome


def test_wait_of_a_running_batch(world: World, running: str, stalled: str) -> None:
    """`Retry-After` is a whole number of seconds from 1 to 60."""
    for batch_id in (running, stalled):
        first = world.get(batch_id)
        second = again(world, batch_id, first.headers["ETag"])
        for answer in (first, second):
            assert re.fullmatch(r"[1-9][0-9]?", answer.headers["Retry-After"])
            assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_wait_is_the_same_for_an_answer_and_for_not_modified(
    world: World, running: str, stalled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same moment, with the same batch: however few jobs are left."""
    one_left = world.put_batch(timeout_per_url=200)
    world.put_jobs(one_left, {"a": {"status": "processing", "started_at": now(-1)}})
    moment = time.time()
    monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: moment, monotonic=time.monotonic))
    for batch_id in (running, stalled, one_left):
        first = world.get(batch_id)
        second = again(world, batch_id, first.headers["ETag"])
        assert [200, 304] == [first.status, second.status]
        assert (
            first.headers["Retry-After"]
            == second.headers["Retry-After"]
            == again(world, batch_id, "*").headers["Retry-After"]
        )


def test_wait_of_a_finished_batch(world: World, finished: str) -> None:
    """No `Retry-After`: it will never change."""
    first = world.get(finished)
    second = again(world, finished, first.headers["ETag"])
    assert [200, 304] == [first.status, second.status]
    assert not [answer for answer in (first, second) if "Retry-After" in answer.headers]


def test_wait_of_a_batch_that_has_begun_nothing(world: World) -> None:
    batch_id = world.put_batch(total_urls=1000)
    assert 1 <= int(world.get(batch_id).headers["Retry-After"]) <= 60


def test_forecast_in_a_kept_answer_is_not_past(world: World, running: str) -> None:
    """While a tag holds, the client's forecast is in the future."""
    first = world.get(running)
    if again(world, running, first.headers["ETag"]).status == 304:
        assert moment(first.data["estimated_completion"]) >= datetime.now(UTC).replace(microsecond=0)
