"""A bad line to DynamoDB: a proxy that damages a share of a local engine's answers."""

import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlsplit
from zlib import crc32

from tests.hostile.misbehaving import CHECKSUM, Reply, misbehaving

_HANDED_ON: Final = ("content-type", CHECKSUM, "x-amzn-requestid")
_THROTTLES: Final = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
# Seconds: longer and shorter than the read timeout of an attempt.
_SILENT_SECONDS: Final = 2.6
_LATE_SECONDS: Final = 1.2


class Mode(StrEnum):
    """A kind of damage."""

    THROTTLE = "throttle"
    ERROR = "500"
    RESET = "reset"
    SLOW = "slow"
    CUT = "truncated"
    CORRUPT = "corrupt"


@dataclass
class Line:
    """The settings and counts of the proxy.

    Attributes:
        engine: The address of the engine.
        seed: Determines all random choices.
        remembers: Cache answers to reads, for tables that do not change: a local engine is slower than the service.
        rate: The share of answers to damage.
        modes: The kinds of damage to choose from.
        spoilt: Number of damaged answers by kind.
        address: The address of the proxy.
    """

    engine: str
    seed: int
    remembers: bool = False
    rate: float = 0
    modes: tuple[Mode, ...] = tuple(Mode)
    spoilt: Counter[Mode] = field(default_factory=Counter)
    address: str = ""

    def __post_init__(self) -> None:
        """Seed the random choices."""
        self._chance = random.Random(self.seed)
        self._kept: dict[tuple[str, bytes], Reply] = {}

    def reply(self, operation: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return the engine's answer to a call, or damage it."""
        # Calls come one at a time, so the choices depend on the seed only.
        mode = self._chance.choice(self.modes) if self._chance.random() < self.rate else None
        if mode is None:
            return self._ask(operation, headers, body)
        self.spoilt[mode] += 1
        if mode is Mode.THROTTLE:
            return _refusal(400, self._chance.choice(_THROTTLES))
        if mode is Mode.ERROR:
            return _refusal(self._chance.choice((500, 503)), "InternalServerError")
        if mode is Mode.RESET and self._chance.random() < 1 / 3:
            # Reset before the call reaches the engine.
            return Reply(reset=0)
        return self._chance.choice(_DAMAGE[mode])(self._ask(operation, headers, body), self._chance)

    def _ask(self, operation: str, headers: dict[str, str], body: bytes) -> Reply:
        kept = self._kept.get((operation, body))
        if kept is not None:
            return kept
        connection = HTTPConnection(urlsplit(self.engine).netloc, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            handed_on = {name: value for name, value in answer.getheaders() if name.lower() in _HANDED_ON}
            reply = Reply(answer.status, answer.read(), handed_on)
        if self.remembers and operation in ("Query", "GetItem"):
            self._kept[operation, body] = reply
        return reply


def _refusal(status: int, code: str) -> Reply:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "spoilt"}).encode()
    return Reply(status, body, {"Content-Type": "application/x-amz-json-1.0"}, checksum=crc32(body))


type _Damage = Callable[[Reply, random.Random], Reply]


def _reset(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, reset=chance.choice((0, chance.randrange(len(reply.body) or 1))))


def _silent(reply: Reply, _: random.Random) -> Reply:
    return replace(reply, silent=_SILENT_SECONDS)


def _late(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, silent=chance.uniform(0, _LATE_SECONDS))


def _trickling(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, pause=chance.uniform(0, _LATE_SECONDS), piece=-(-len(reply.body) // 4))


def _ends_early(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, body=reply.body[: chance.randrange(len(reply.body) or 1)], promised=len(reply.body))


def _cut(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, body=reply.body[: chance.randrange(len(reply.body) or 1)])


def _empty(reply: Reply, _: random.Random) -> Reply:
    return replace(reply, body=b"")


def _bytes_changed(reply: Reply, chance: random.Random) -> Reply:
    body = bytearray(reply.body)
    for _ in range(chance.randint(1, 4)):
        body[chance.randrange(len(body))] ^= chance.randint(1, 255)
    return replace(reply, body=bytes(body))


def _digit_changed(reply: Reply, chance: random.Random) -> Reply:
    """Change a digit: still valid JSON of the right shape."""
    at = [place for place, byte in enumerate(reply.body) if byte in b"0123456789"]
    body = bytearray(reply.body)
    if at:
        place = chance.choice(at)
        body[place] = ord("0") + (body[place] - ord("0") + chance.randint(1, 9)) % 10
    return replace(reply, body=bytes(body)) if at else _cut(reply, chance)


def _item_lost(reply: Reply, chance: random.Random) -> Reply:
    """Remove an item: valid JSON that is even consistent."""
    answer = json.loads(reply.body)
    if answer.get("Items"):
        answer["Items"].pop(chance.randrange(len(answer["Items"])))
        answer["Count"] = len(answer["Items"])
        answer.pop("LastEvaluatedKey", None)
    else:
        # A known token becomes unknown, and an unknown one gets the owner `demo`.
        answer = {} if "Item" in answer else {"Item": {"owner_id": {"S": "demo"}}}
    return replace(reply, body=json.dumps(answer).encode())


_DAMAGE: Final[dict[Mode, tuple[_Damage, ...]]] = {
    Mode.RESET: (_reset,),
    Mode.SLOW: (_silent, _late, _trickling),
    Mode.CUT: (_ends_early, _cut, _empty),
    Mode.CORRUPT: (_bytes_changed, _digit_changed, _item_lost),
}


@contextlib.contextmanager
def bad_line(line: Line) -> Iterator[Line]:
    """Run the proxy on a free port while the block runs."""
    with misbehaving(line.reply) as server:
        line.address = server.address
        yield line
