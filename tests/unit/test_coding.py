"""Body encodings: the share of Lambda's limit that each needs, never underestimated."""

import base64
import gzip
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from functions.progress import coding
from functions.progress.coding import LAMBDA_LIMIT, ROOM, Body, Gzip, Identity, PlainObject

# ASCII, but escaped in Python's JSON.
DELETES = {"\x7f" * 9: "\x7f" * 99}
TEXTS = st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()))


def strings(value: object) -> int:
    """Count the strings in a value, including names."""
    match value:
        case str():
            return 1
        case list():
            return sum(map(strings, value))
        case dict():
            return len(value) + sum(map(strings, value.values()))
    return 0


@given(value=TEXTS)
@example(DELETES)
def test_as_it_is(value: object) -> None:
    """The text is unchanged, and its size is at least that in the response's JSON."""
    body = json.dumps(value, ensure_ascii=False).encode()
    written = Identity().write(body)
    assert (body.decode(), False) == (written.text, written.compressed)
    room = Identity().room_for(body, strings(value))
    assert len(json.dumps(written.text)) - 2 <= room
    assert len(json.dumps(written.text, ensure_ascii=False).encode()) - 2 <= room


@given(value=st.dictionaries(st.text("abc"), st.text("abc") | st.integers()))
def test_room_is_not_larger_than_needed(value: object) -> None:
    """For plain letters it is exact."""
    body = json.dumps(value).encode()
    assert len(json.dumps(body.decode())) - 2 == Identity().room_for(body, strings(value))


@given(value=TEXTS)
@example(DELETES)
def test_as_an_object(value: object) -> None:
    """At least the runtime's output, with or without escaping of non-ASCII characters."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    written = PlainObject().write(body)
    assert (body.decode(), False) == (written.text, written.compressed)
    room = PlainObject().room_for(body, strings(value))
    assert max(len(json.dumps(value)), len(json.dumps(value, ensure_ascii=False).encode())) <= room


@pytest.mark.parametrize(("size", "compressed"), [(0, False), (1_023, False), (1_024, True), (100_000, True)])
def test_compressed_where_it_pays(size: int, *, compressed: bool) -> None:
    body = b"x" * size
    written = Gzip().write(body)
    assert compressed == written.compressed
    assert body == (gzip.decompress(base64.b64decode(written.text)) if compressed else written.text.encode())


def test_compression_is_the_same_each_time() -> None:
    """It contains no timestamp."""
    body = b"x" * 10_000
    assert Gzip().write(body) == Gzip().write(body)


@pytest.mark.parametrize("kind", [Identity, PlainObject, Gzip])
@given(
    parts=st.lists(st.binary(max_size=3_000) | st.integers(0, 9_000).map(bytes), max_size=20),
    room=st.integers(500, 9_000),
    exact=st.booleans(),
)
def test_parts_are_joined_and_fit(kind: type[Body], parts: list[bytes], room: int, *, exact: bool) -> None:
    """The body is what was accepted between its two ends, and takes no more room than there is."""
    accepted = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "ROOM", room)
        body = kind()
        for part in parts:
            if body.add(part.hex().encode(), 0, exact=exact):
                accepted += part.hex()
    written = body.write(b"before" * 300, b"after")
    text = gzip.decompress(base64.b64decode(written.text)).decode() if written.compressed else written.text
    assert "before" * 300 + accepted + "after" == text
    around = 200 if kind is Gzip else 1_805
    assert len(written.text) <= room + around


def test_what_fits_leaves_room_for_the_response_around_it() -> None:
    """API Gateway accepts 10,240 bytes of headers."""
    assert 2 * 10_240 < LAMBDA_LIMIT - ROOM < 65_536
