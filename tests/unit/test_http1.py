"""HTTP responses: read as `http.client` reads them, and never taken for whole when they are not."""

import io
from http.client import HTTPResponse
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress.http1 import IncompleteRead, NotHttp, RemoteDisconnected, Response

BODY = b'{"Item": {"sk": {"S": "BATCH"}}}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nx-amz-crc32: 7\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"A;name=value\r\n" + BODY[:10] + b"\r\n%x \r\n" % len(BODY[10:]) + BODY[10:] + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
NAMES = st.sampled_from(["Server", "x-amz-crc32", "X-Amz-Retry-After", "Via", "a", "keep-alive"])
VALUES = st.text("abc019 \t:;=,\"'/é", max_size=20).map(str.strip)


def read(response: bytes) -> tuple[Response, bytes]:
    found = Response(io.BufferedReader(io.BytesIO(response)))
    return found, found.read()


class Socket:
    """What `HTTPResponse` reads from."""

    def __init__(self, response: bytes) -> None:
        self._response = response

    def makefile(self, _mode: str) -> IO[bytes]:
        return io.BytesIO(self._response)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Draw a response in one of the ways in which a server may write it."""
    body = draw(st.binary(max_size=40))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 500, 503]))
    reason = draw(st.sampled_from([" OK", " Not Found", " ", ""]))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    headers += draw(st.sampled_from([[], [("Connection", "keep-alive")], [("connection", "Close")]]))
    framing = draw(st.sampled_from(["length", "chunks", "end of the connection"]))
    content = b"" if status in (204, 304) else body
    if framing == "length":
        headers.append(("Content-Length", str(len(content))))
    elif framing == "chunks":
        headers.append(("transfer-encoding", "chunked"))
        cuts = sorted(draw(st.sets(st.integers(1, max(len(content) - 1, 1)), max_size=3)))
        parts = [content[begin:end] for begin, end in zip([0, *cuts], [*cuts, None], strict=True)]
        content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\nvia: proxy\r\n\r\n"]))
    lines = [f"HTTP/1.1 {status}{reason}", *(f"{name}: {value}" for name, value in draw(st.permutations(headers)))]
    return interim + "\r\n".join([*lines, "", ""]).encode("latin-1") + content


@given(responses())
def test_a_response_is_read_as_http_client_reads_it(response: bytes) -> None:
    """Status, reason, headers, body, and whether the connection may be used again."""
    theirs = HTTPResponse(Socket(response), method="POST")  # type: ignore[arg-type]  # it only calls makefile
    theirs.begin()
    content = theirs.read()
    headers: dict[str, Any] = {}
    for name, value in theirs.headers.items():
        headers.setdefault(name.lower(), value)
    ours, body = read(response)
    expected = (theirs.status, theirs.reason, headers, content, not theirs.will_close)
    assert expected == (ours.status, ours.reason, ours.headers, body, ours.keeps_open)


@pytest.mark.parametrize("response", [PLAIN, CHUNKED], ids=["length", "chunks"])
def test_a_response_that_is_cut_is_never_whole(response: bytes) -> None:
    """Wherever the connection ends: before the response, in its head, in its body."""
    assert BODY == read(response)[1]
    with pytest.raises(RemoteDisconnected):
        read(b"")
    for length in range(1, len(response)):
        with pytest.raises(IncompleteRead):
            read(response[:length])


def test_interim_responses_are_skipped() -> None:
    assert BODY == read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + PLAIN)[1]


def test_http_1_0_keeps_no_connection_open() -> None:
    assert not read(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"))[0].keeps_open


@pytest.mark.parametrize(
    "response",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nVia: a\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        CHUNKED.replace(b"A;", b"+A;"),
        CHUNKED.replace(b"A;", b"9;"),
        b"HTTP/1.1 200 OK\r\n" + b"Via: a\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nVia: " + b"a" * 65_536 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(response: bytes) -> None:
    """`http.client` reads some of these somehow; a count must not depend on that."""
    with pytest.raises(NotHttp):
        read(response)
