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


@dataclass(frozen=True, slots=True)
class Written:
    """A body on its wire.

    Attributes:
        text: As the response carries it.
        size: Bytes that it takes of the response's JSON.
        compressed: Whether `text` is base64 of gzip.
    """

    text: str
    size: int
    compressed: bool = False


class Coding(Protocol):
    """A way to put a body on a wire."""

    # Bytes of jobs beyond which nothing can fit.
    ceiling: int

    def write(self, body: bytes) -> Written:
        """Write a JSON text; it fits the response when its size is within `ROOM`."""


class Identity:
    """As it is, a string in API Gateway's response."""

    ceiling = ROOM

    def write(self, body: bytes) -> Written:
        """Count the escapes as if all beyond ASCII were escaped too, which some runtimes do."""
        text = body.decode()
        if text.isascii():
            return Written(text, len(text) + text.count('"') + text.count("\\"))
        return Written(text, len(json.dumps(text)))


class Gzip:
    """Compressed, where that pays."""

    ceiling = ROOM * _BEST_RATIO

    def write(self, body: bytes) -> Written:
        """Compress the body, unless it is small."""
        if len(body) < _WORTH_COMPRESSING:
            return Identity().write(body)
        text = base64.b64encode(igzip.compress(body, _LEVEL, mtime=0)).decode()
        return Written(text, len(text), compressed=True)


class PlainObject:
    """No string but an object, as `lambda.invoke` returns it."""

    ceiling = ROOM

    def write(self, body: bytes) -> Written:
        """Count the blanks that the runtime writes behind colons and commas; those in texts count too, to be safe."""
        text = body.decode()
        length = len(text) if text.isascii() else len(json.dumps(text)) - text.count('"') - text.count("\\")
        return Written(text, length + text.count(":") + text.count(","))
