"""The encodings of an answer's body, and the limit on its size.

Lambda refuses a response whose JSON is over 6,291,556 bytes. The body is a string in that JSON: either uncompressed,
where escaping makes quotes, backslashes and non-ASCII characters longer, or compressed, as base64.
"""

import base64
import json
from typing import Final, Protocol

import msgspec
from isal import igzip, isal_zlib

LAMBDA_LIMIT: Final = 6_291_556
# Status, headers (API Gateway allows 10,240 bytes of them) and the keys of the proxy response.
_AROUND_BODY: Final = 16_384
# The body without jobs: the counts, the estimate, the summary with the longest error codes and the longest cursor.
_AROUND_JOBS: Final = 20_480
# The bytes of the response that are left for jobs.
ROOM: Final = LAMBDA_LIMIT - _AROUND_BODY - _AROUND_JOBS
# A smaller body is not compressed: it fits in one or two network packets anyway.
_WORTH_COMPRESSING: Final = 1_024
# isal is nearly as fast at this level as at its fastest, and compresses nearly as well as at its best.
_LEVEL: Final = 2
# The bytes that escaping adds to U+007F, which Python's JSON escapes although it is ASCII.
_DELETE_ESCAPE: Final = len(r"\u007f") - 1


class Written(msgspec.Struct, frozen=True):
    """A body as the response carries it.

    Attributes:
        text: The string in the response.
        compressed: Whether `text` is base64 of gzip.
    """

    text: str
    compressed: bool = False


class Body(Protocol):
    """A body in one encoding, made of parts that arrive one after the other."""

    def add(self, part: bytes, strings: int, *, exact: bool) -> bool:
        """Append a part if it fits; return whether it did.

        Args:
            part: A part of a JSON text.
            strings: The number of strings in it.
            exact: Whether to measure a part that may fit; otherwise it does not count as fitting.
        """

    def write(self, before: bytes, after: bytes = b"") -> Written:
        """Return the whole body: `before`, the parts, `after`."""


class Identity:
    """An uncompressed body: a string in the response to API Gateway."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._room = ROOM

    def add(self, part: bytes, strings: int, *, exact: bool) -> bool:  # noqa: ARG002  # the size is always computed
        """Append a part if it fits."""
        needed = self.room_for(part, strings)
        if needed > self._room:
            return False
        self._parts.append(part)
        self._room -= needed
        return True

    def write(self, before: bytes, after: bytes = b"") -> Written:
        """Return the whole body."""
        return Written(b"".join((before, *self._parts, after)).decode())

    @staticmethod
    def room_for(part: bytes, strings: int) -> int:
        """Return an upper bound of the bytes that a part takes in the response.

        Escaping adds two bytes for the quotes of each string, at most two for each backslash, and the length of the
        escapes of non-ASCII characters, which some runtimes write.
        """
        if not part.isascii():
            return len(json.dumps(part.decode()))
        return len(part) + 2 * strings + 2 * _count(b"\\", part) + _DELETE_ESCAPE * _count(b"\x7f", part)


class PlainObject(Identity):
    """The body of a direct answer: a JSON object, not a string."""

    @staticmethod
    def room_for(part: bytes, strings: int) -> int:  # noqa: ARG004  # quotes are not escaped in an object
        """Return an upper bound of the bytes that a part takes in the response.

        The runtime writes a space after each colon and comma between values; those in strings are counted too. It
        escapes each UTF-16 code unit of a non-ASCII character with six bytes.
        """
        length = len(part)
        if not part.isascii():
            text = part.decode()
            ascii_letters = len(text.encode("ascii", "ignore"))
            length = ascii_letters + 6 * (len(text.encode("utf-16-le")) // 2 - ascii_letters)
        return length + part.count(b":") + part.count(b",") + _DELETE_ESCAPE * _count(b"\x7f", part)


class Gzip:
    """A compressed body, unless it is small.

    While all parts would fit even if they were incompressible, they are kept uncompressed and compressed at the end.
    After that, each part is compressed when it arrives, so that its size is known: deflate streams that end with a
    flush can be joined.
    """

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._compressed: list[bytes] = []
        self._compressed_bytes = 0
        # CRC-32 and length of the uncompressed text of the parts compressed so far.
        self._checksum = 0
        self._length = 0

    def add(self, part: bytes, strings: int, *, exact: bool) -> bool:  # noqa: ARG002  # base64 has no escapes
        """Append a part if it fits."""
        if not self._fits(_deflated_at_most(self._waiting_bytes + len(part))):
            self._compress_waiting()
            if not self._fits(_deflated_at_most(len(part))):
                return exact and self._add_compressed(part)
        self._waiting.append(part)
        self._waiting_bytes += len(part)
        return True

    def _add_compressed(self, part: bytes) -> bool:
        deflated = _deflate(part)
        if not self._fits(len(deflated)):
            return False
        self._take(deflated, part)
        return True

    def write(self, before: bytes, after: bytes = b"") -> Written:
        """Return the whole body, compressed unless it is small."""
        if not self._compressed:
            body = b"".join((before, *self._waiting, after))
            if len(body) < _WORTH_COMPRESSING:
                return Written(body.decode())
            return _base64(igzip.compress(body, _LEVEL, mtime=0))
        rest = b"".join((*self._waiting, after))
        checksum = isal_zlib.crc32_combine(isal_zlib.crc32(before), self._checksum, self._length)
        checksum = isal_zlib.crc32_combine(checksum, isal_zlib.crc32(rest), len(rest))
        length = len(before) + self._length + len(rest)
        trailer = checksum.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
        return _base64(
            b"".join((_GZIP_HEADER, _deflate(before), *self._compressed, _deflate(rest, isal_zlib.Z_FINISH), trailer))
        )

    def _fits(self, more: int) -> bool:
        # Base64 turns three bytes into four.
        return (self._compressed_bytes + more) * 4 <= ROOM * 3

    def _compress_waiting(self) -> None:
        if self._waiting:
            waiting = b"".join(self._waiting)
            self._waiting, self._waiting_bytes = [], 0
            self._take(_deflate(waiting), waiting)

    def _take(self, deflated: bytes, part: bytes) -> None:
        self._compressed.append(deflated)
        self._compressed_bytes += len(deflated)
        self._checksum = isal_zlib.crc32_combine(self._checksum, isal_zlib.crc32(part), len(part))
        self._length += len(part)


# RFC 1952: deflate, no flags, no time, the fastest algorithm, an unknown system.
_GZIP_HEADER: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255))


def _deflate(part: bytes, flush: int = isal_zlib.Z_SYNC_FLUSH) -> bytes:
    stream = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    return stream.compress(part) + stream.flush(flush)


def _deflated_at_most(length: int) -> int:
    """Return an upper bound of the bytes that `_deflate` makes of `length`: incompressible data is stored in blocks."""
    return length + length // 256 + 64


def _base64(body: bytes) -> Written:
    return Written(base64.b64encode(body).decode(), compressed=True)


def _count(byte: bytes, part: bytes) -> int:
    """Count a rare byte. Most parts have none, and searching for the first one is 25 times faster than counting."""
    return part.count(byte) if byte in part else 0
