"""Compression: only if the client accepts it, and always declared."""

import pytest

from tests.integration.world import World, now

WANTED = ["gzip", "GZIP", "gzip;q=1", "gzip;q=0.5", "gzip, deflate, br", "deflate, gzip;q=1.0", "br;q=1.0,gzip;q=0.8"]
UNWANTED = ["", "identity", "br", "deflate", "gzip;q=0", "gzip; q=0.000", "gzip;q=0, *", "*;q=0", "xgzip", "gzipped"]
EITHER = ["*", "*;q=0.5", "gzip;q=0.5, identity", "gzip;q=nonsense", ";;,,", "gzip;q=2", "x-gzip"]


@pytest.fixture(scope="module")
def large(world: World) -> str:
    """A finished batch with a body large enough to compress. Every read has the same answer."""
    batch_id = world.put_batch()
    world.put_jobs(
        batch_id, {f"job_{number:04}": {"status": "completed", "finished_at": now(-60)} for number in range(60)}
    )
    return batch_id


@pytest.mark.parametrize("accepted", WANTED)
def test_compressed(world: World, large: str, accepted: str) -> None:
    plain = world.get(large)
    answer = world.ask(large, headers={"Accept-Encoding": accepted})
    assert "gzip" == answer.coding
    assert answer.payload["isBase64Encoded"] is True
    assert plain.text == answer.text
    assert len(answer.payload["body"]) < len(plain.text) / 2
    assert plain.headers["Vary"] == answer.headers["Vary"]


@pytest.mark.parametrize("accepted", UNWANTED)
def test_not_compressed(world: World, large: str, accepted: str) -> None:
    answer = world.ask(large, headers={"Accept-Encoding": accepted})
    assert answer.coding is None
    assert 60 == len(answer.data["jobs"])


@pytest.mark.parametrize("accepted", EITHER)
def test_coding_is_always_the_one_that_is_said(world: World, large: str, accepted: str) -> None:
    """The function may choose to compress, but the header must match the body."""
    answer = world.ask(large, headers={"Accept-Encoding": accepted})
    assert answer.coding in {None, "gzip"}
    assert 60 == len(answer.data["jobs"])


def test_header_name_knows_no_case(world: World, large: str) -> None:
    assert "gzip" == world.ask(large, headers={"accept-encoding": "gzip"}).coding


def test_errors_can_be_read_by_who_accepts_compression(world: World, large: str) -> None:
    answer = world.ask(large, {"limit": "many"}, headers={"Accept-Encoding": "gzip"})
    assert (422, "VALIDATION_ERROR") == answer.outcome


def test_head_of_a_compressed_answer(world: World, large: str) -> None:
    headers = [*world.key(), ("Accept-Encoding", "gzip")]
    get, head = (world.request(method, f"/v1/scrape/batch/{large}/progress", headers) for method in ("GET", "HEAD"))
    assert "gzip" == get.coding
    assert not head.payload.get("body")
    assert get.names == head.names
