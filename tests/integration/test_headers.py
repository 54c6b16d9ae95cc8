"""The headers of a 200, and of HEAD."""

from tests.integration.world import Answer, World, event, now, progress_path

ALWAYS = {"content-type", "etag", "cache-control", "vary", "x-request-id"}


def put_finished(world: World) -> str:
    batch_id = world.put_batch()
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-9)}, "b": {"status": "failed"}})
    return batch_id


def test_headers_of_a_finished_batch(world: World) -> None:
    """It has no `Retry-After`, because it will not change."""
    answer = world.get(put_finished(world))
    assert ALWAYS == answer.names
    assert "application/json" == answer.headers["Content-Type"]
    assert "private, no-cache" == answer.headers["Cache-Control"]
    assert "Authorization, X-API-Key, Accept-Encoding" == answer.headers["Vary"]


def test_each_header_stands_once(world: World) -> None:
    answer = world.get(put_finished(world), limit="1")
    names = [name.lower() for name, _ in answer.headers]
    assert sorted({*ALWAYS, "link"}) == sorted(names)


def test_request_id_is_the_gateways(world: World) -> None:
    request = event("GET", progress_path(world.put_batch()), world.key())
    request_id = request["requestContext"]["requestId"]
    assert request_id == Answer.read(world.invoke(request)).headers["X-Request-Id"]


def test_request_id_of_an_error(world: World) -> None:
    request = event("GET", progress_path(world.put_batch()))
    request_id = request["requestContext"]["requestId"]
    assert request_id == Answer.read(world.invoke(request)).headers["X-Request-Id"]


def test_tag_is_weak(world: World) -> None:
    tag = world.get(put_finished(world)).headers["ETag"]
    assert tag.startswith('W/"')
    assert tag.endswith('"')


def test_head_is_get_without_a_body(world: World) -> None:
    """The same headers, including those that differ between two GETs."""
    path = progress_path(put_finished(world))
    for query in ({}, {"limit": "1"}, {"include": "details"}):
        get, head = (world.request(method, path, world.key(), query) for method in ("GET", "HEAD"))
        assert (200, "") == (head.status, head.text)
        assert get.names == head.names
        for name in ("Content-Type", "Cache-Control", "Vary"):
            assert get.headers[name] == head.headers[name]
        assert get.headers.get("Link") == head.headers.get("Link")


def test_head_on_both_paths(world: World) -> None:
    batch_id = put_finished(world)
    for prefix in ("/api", ""):
        for end in ("", "/"):
            path = f"{prefix}/v1/scrape/batch/{batch_id}/progress{end}"
            assert 200 == world.request("HEAD", path, world.key()).status


def test_answer_of_a_plain_client_is_text(world: World) -> None:
    """Without `Accept-Encoding` the body is plain text, and API Gateway decodes nothing."""
    answer = world.get(put_finished(world))
    assert answer.coding is None
    assert not answer.payload.get("isBase64Encoded")
