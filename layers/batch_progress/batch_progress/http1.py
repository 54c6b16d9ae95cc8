"""Read HTTP/1.1 responses (RFC 9112).

`http.client` is correct too, but parses headers as those of an e-mail: that took a tenth of a small answer, and its
imports a twentieth of a cold start (docs/decisions/0004-dynamodb-client.md).
"""

import io
import re
from typing import Final

_LONGEST_LINE: Final = 65_536
_MOST_HEADERS: Final = 100
_NO_BODY: Final = frozenset({204, 304})
_FINAL: Final = 200

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: (.*))?").fullmatch
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)").fullmatch
_LENGTH: Final = re.compile("[0-9]+").fullmatch
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?").fullmatch


class NotHttp(Exception):
    """The bytes are not an HTTP/1 response."""


class IncompleteRead(Exception):
    """The connection was closed within the response."""


class RemoteDisconnected(ConnectionResetError):
    """The connection was closed before a response began."""


class Response:
    """A response whose body has not been read yet.

    Attributes:
        status: Its status; interim responses (1xx) are skipped.
        reason: The text after the status.
        headers: By lower-case name; of a repeated header the first value.
        keeps_open: Whether the connection can carry another request after the body.
    """

    def __init__(self, reader: io.BufferedReader) -> None:
        """Read the head.

        Raises:
            NotHttp: It is malformed.
            IncompleteRead: The connection was closed within it.
            RemoteDisconnected: The connection was closed before it.
        """
        self._reader = reader
        if not reader.peek(1):
            raise RemoteDisconnected("closed without a response")
        minor = self._read_head()
        while self.status < _FINAL:
            minor = self._read_head()
        self._chunked = "transfer-encoding" in self.headers
        self._length = self._content_length()
        close = "close" in self.headers.get("connection", "").lower()
        self.keeps_open = minor != b"0" and not close and (self._chunked or self._length is not None)

    def _read_head(self) -> bytes:
        """Read a status line and headers; return the minor version."""
        line = self._line()
        match = _STATUS_LINE(line)
        if match is None:
            raise NotHttp(f"status line {line[:100]!r}")
        self.status = int(match[2])
        self.reason = (match[3] or b"").decode("latin-1")
        self.headers: dict[str, str] = {}
        for _ in range(_MOST_HEADERS + 1):
            line = self._line()
            if not line:
                return match[1]
            header = _HEADER(line)
            if header is None:
                raise NotHttp(f"header {line[:100]!r}")
            self.headers.setdefault(header[1].decode().lower(), header[2].strip().decode("latin-1"))
        raise NotHttp("too many headers")

    def _content_length(self) -> int | None:
        """Return the length of the body, `None` if the body ends with the last chunk or with the connection."""
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if self.status in _NO_BODY:
            return 0
        if coding is not None:
            if coding.lower() != "chunked":
                raise NotHttp(f"transfer coding {coding[:100]!r}")
            return None
        if length is not None and not _LENGTH(length):
            raise NotHttp(f"length {length[:100]!r}")
        return None if length is None else int(length)

    def read(self) -> bytes:
        """Read the body.

        Raises:
            NotHttp: Its chunks are malformed.
            IncompleteRead: The connection was closed within it.
        """
        if self._length is not None:
            return self._exactly(self._length)
        return self._chunks() if self._chunked else self._reader.read()

    def _chunks(self) -> bytes:
        chunks = []
        while True:
            line = self._line()
            match = _CHUNK_SIZE(line)
            if match is None:
                raise NotHttp(f"chunk size {line[:100]!r}")
            size = int(match[1], 16)
            if not size:
                break
            chunks.append(self._exactly(size))
            if self._line():
                raise NotHttp("a chunk is longer than its size")
        while self._line():
            pass  # trailers
        return b"".join(chunks)

    def _line(self) -> bytes:
        line = self._reader.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise NotHttp("a line is too long") if len(line) == _LONGEST_LINE else IncompleteRead("a line")
        return line.rstrip(b"\r\n")

    def _exactly(self, length: int) -> bytes:
        body = self._reader.read(length)
        if len(body) < length:
            raise IncompleteRead(f"{len(body)} of {length} bytes")
        return body
