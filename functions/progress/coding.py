"""Putting a body on a wire, and how large it may be there.

Lambda refuses a response whose JSON is over 6,291,556 bytes. A body travels inside that JSON: as a string, in
which quotes, backslashes and characters beyond ASCII take more room than in the body itself, or compressed, as base64.
"""

import base64
import json
from dataclasses import dataclass
from typing import Final, Protocol

from isal import igzip

LAMBDA_LIMIT: Final = 6_291_556
# Status, headers (API Gateway allows 10,240 bytes of them) and the keys of the proxy response.
_AROUND_BODY: Final = 16_384
ROOM: Final = LAMBDA_LIMIT - _AROUND_BODY
# Below this a body fits a network packet or two as it is.
_WORTH_COMPRESSING: Final = 1_024
# The level at which isal is as fast as at its first and nearly as small as at its last.
_LEVEL: Final = 2
# No list of jobs compresses better than this on its way to the limit, base64 included.
_BEST_RATIO: Final = 12
# The bytes that escaping adds to U+007F, which Python's JSON escapes although it is ASCII.
_DELETE_ESCAPE: Final = len(r"\u007f") - 1


@dataclass(frozen=True, slots=True)
class Written:
    """A body on its wire.

    Attributes:
        text: As the response carries it.
        compressed: Whether `text` is base64 of gzip.
    """

    text: str
    compressed: bool = False


class Coding(Protocol):
    """A way to put a body on a wire."""

    def room_for(self, chunk: bytes, strings: int) -> int:
        """Return at most how many bytes of the response a part of the body takes, in which so many strings stand."""

    def write(self, body: bytes) -> Written:
        """Write a JSON text; uncompressed it fits if its parts did, compressed if the text is within `ROOM`."""


class Identity:
    """As it is, a string in API Gateway's response."""

    def room_for(self, chunk: bytes, strings: int) -> int:
        """Count two quotes round each string and two characters for each escape, each of which is escaped once more.

        All beyond ASCII counts as escaped too, which some runtimes do.
        """
        if not chunk.isascii():
            return len(json.dumps(chunk.decode()))
        return len(chunk) + 2 * strings + 2 * _count(b"\\", chunk) + _DELETE_ESCAPE * _count(b"\x7f", chunk)

    def write(self, body: bytes) -> Written:
        """Leave the body as it is."""
        return Written(body.decode())


class Gzip:
    """Compressed, where that pays."""

    def room_for(self, chunk: bytes, strings: int) -> int:  # noqa: ARG002  # what stands in it plays no part
        """Count the least that it can take; what it really takes shows when all is compressed."""
        return len(chunk) // _BEST_RATIO

    def write(self, body: bytes) -> Written:
        """Compress the body, unless it is small."""
        if len(body) < _WORTH_COMPRESSING:
            return Identity().write(body)
        text = base64.b64encode(igzip.compress(body, _LEVEL, mtime=0)).decode()
        return Written(text, compressed=True)


def _count(byte: bytes, chunk: bytes) -> int:
    """Count a rare byte; looking for the first one is 25 times faster than counting, and most chunks have none."""
    return chunk.count(byte) if byte in chunk else 0


class PlainObject:
    """No string but an object, as `lambda.invoke` returns it."""

    def room_for(self, chunk: bytes, strings: int) -> int:
        """Count a blank behind each colon and comma that the runtime writes, those in texts too, to be safe."""
        length = len(chunk) if chunk.isascii() else len(json.dumps(chunk.decode())) - 2 * strings
        # Escapes of U+007F are counted twice where the chunk is not ASCII; that is rare and safe.
        return length + chunk.count(b":") + chunk.count(b",") + _DELETE_ESCAPE * _count(b"\x7f", chunk)

    def write(self, body: bytes) -> Written:
        """Leave the body as it is."""
        return Written(body.decode())
