"""Bodies on their wires: how much of Lambda's limit each takes, never less than it will."""

import base64
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.progress.coding import LAMBDA_LIMIT, ROOM, Gzip, Identity, PlainObject

TEXTS = st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))


@given(value=TEXTS)
def test_as_it_is(value: object) -> None:
    """The text is the body, and its size what the response's JSON makes of it."""
    body = json.dumps(value, ensure_ascii=False).encode()
    written = Identity().write(body)
    assert (body.decode(), False) == (written.text, written.compressed)
    assert len(json.dumps(written.text)) - 2 <= written.size <= len(json.dumps(written.text))


@given(value=TEXTS)
def test_as_an_object(value: object) -> None:
    """At least what the runtime writes, whether it escapes what is not ASCII or not."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    written = PlainObject().write(body)
    assert (body.decode(), False) == (written.text, written.compressed)
    assert max(len(json.dumps(value)), len(json.dumps(value, ensure_ascii=False).encode())) <= written.size + 2


@pytest.mark.parametrize(("size", "compressed"), [(0, False), (1_023, False), (1_024, True), (100_000, True)])
def test_compressed_where_it_pays(size: int, *, compressed: bool) -> None:
    body = b"x" * size
    written = Gzip().write(body)
    assert compressed == written.compressed
    assert len(written.text) == written.size
    assert body == (gzip.decompress(base64.b64decode(written.text)) if compressed else written.text.encode())


def test_compression_is_the_same_each_time() -> None:
    """No time is in it."""
    body = b"x" * 10_000
    assert Gzip().write(body) == Gzip().write(body)


def test_what_fits_leaves_room_for_the_response_around_it() -> None:
    """API Gateway takes 10,240 bytes of headers."""
    assert 10_240 < LAMBDA_LIMIT - ROOM < 65_536
