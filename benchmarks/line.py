"""A bad line to DynamoDB: a proxy on loopback that spoils so many of an engine's answers, in one way or in all."""

import contextlib
import json
import os
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit
from zlib import crc32

_HANDED_ON: Final = ("content-type", "x-amz-crc32", "x-amzn-requestid")
_THROTTLES: Final = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
# Longer than one attempt waits, and shorter.
_SILENT_SECONDS: Final = 2.6
_LATE_SECONDS: Final = 1.2


class Mode(StrEnum):
    """A way to be bad."""

    THROTTLE = "throttle"
    ERROR = "500"
    RESET = "reset"
    SLOW = "slow"
    CUT = "truncated"
    CORRUPT = "corrupt"


@dataclass(frozen=True)
class Reply:
    """What comes for a call.

    Attributes:
        status: HTTP's.
        headers: As they are sent, but for the length.
        body: As it is sent.
        promised: Its length as the header says, its own unless given.
        silent: Seconds before anything is sent.
        pause: Seconds after each quarter of the body.
        reset: After so many bytes of the body the connection is reset; at once where there are none.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    promised: int | None = None
    silent: float = 0
    pause: float = 0
    reset: int | None = None


@dataclass
class Line:
    """The proxy's orders, and what it has done.

    Attributes:
        engine: Address of what is behind it.
        seed: Makes its choices.
        remembers: Whether an answer to a read is kept for the same question, where nothing is written: a local engine
            is slower than the service.
        rate: The share of answers to spoil.
        modes: The ways to do it.
        spoilt: How many were spoilt in each way.
        address: Where it listens.
    """

    engine: str
    seed: int
    remembers: bool = False
    rate: float = 0
    modes: tuple[Mode, ...] = tuple(Mode)
    spoilt: Counter[Mode] = field(default_factory=Counter)
    address: str = ""

    def __post_init__(self) -> None:
        """Remember nothing yet."""
        self._chance = random.Random(self.seed)
        self._kept: dict[tuple[str, bytes], Reply] = {}
        # Ends every wait when the line is taken down.
        self.over = threading.Event()

    def reply(self, operation: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return what comes for a call: the engine's answer, or what is left of it."""
        # A call is one at a time, so that the choices are the same for the same seed.
        mode = self._chance.choice(self.modes) if self._chance.random() < self.rate else None
        if mode is None:
            return self._ask(operation, headers, body)
        self.spoilt[mode] += 1
        if mode is Mode.THROTTLE:
            return _refusal(400, self._chance.choice(_THROTTLES))
        if mode is Mode.ERROR:
            return _refusal(self._chance.choice((500, 503)), "InternalServerError")
        if mode is Mode.RESET and self._chance.random() < 1 / 3:
            # Nobody has heard the question.
            return Reply(200, {}, b"", reset=0)
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
            reply = Reply(answer.status, handed_on, answer.read())
        if self.remembers and operation in ("Query", "GetItem"):
            self._kept[operation, body] = reply
        return reply


def _refusal(status: int, code: str) -> Reply:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "spoilt"}).encode()
    return Reply(status, {"Content-Type": "application/x-amz-json-1.0", "x-amz-crc32": str(crc32(body))}, body)


type _Damage = Callable[[Reply, random.Random], Reply]


def _reset(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, reset=chance.choice((0, chance.randrange(len(reply.body) or 1))))


def _silent(reply: Reply, _: random.Random) -> Reply:
    return replace(reply, silent=_SILENT_SECONDS)


def _late(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, silent=chance.uniform(0, _LATE_SECONDS))


def _trickling(reply: Reply, chance: random.Random) -> Reply:
    return replace(reply, pause=chance.uniform(0, _LATE_SECONDS))


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
    """Still JSON, still of the right shape, and wrong."""
    at = [place for place, byte in enumerate(reply.body) if byte in b"0123456789"]
    body = bytearray(reply.body)
    if at:
        place = chance.choice(at)
        body[place] = ord("0") + (body[place] - ord("0") + chance.randint(1, 9)) % 10
    return replace(reply, body=bytes(body)) if at else _cut(reply, chance)


def _item_lost(reply: Reply, chance: random.Random) -> Reply:
    """The same, and worse: all of it is consistent."""
    answer = json.loads(reply.body)
    if answer.get("Items"):
        answer["Items"].pop(chance.randrange(len(answer["Items"])))
        answer["Count"] = len(answer["Items"])
        answer.pop("LastEvaluatedKey", None)
    else:
        # Who was known is not, and who was not is the demo.
        answer = {} if "Item" in answer else {"Item": {"owner_id": {"S": "demo"}}}
    return replace(reply, body=json.dumps(answer).encode())


_DAMAGE: Final[dict[Mode, tuple[_Damage, ...]]] = {
    Mode.RESET: (_reset,),
    Mode.SLOW: (_silent, _late, _trickling),
    Mode.CUT: (_ends_early, _cut, _empty),
    Mode.CORRUPT: (_bytes_changed, _digit_changed, _item_lost),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # So that a client may hang up while it is still waited for.
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    line: Line

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a call."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self._send(self.line.reply(operation, dict(self.headers.items()), body))

    def _send(self, reply: Reply) -> None:
        self.line.over.wait(reply.silent)
        if reply.reset == 0:
            self._reset()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        promised = len(reply.body) if reply.promised is None else reply.promised
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        if reply.reset is not None:
            self.wfile.write(reply.body[: reply.reset])
            self._reset()
            return
        step = -(-len(reply.body) // 4) if reply.pause else len(reply.body)
        for at in range(0, len(reply.body), step or 1):
            self.line.over.wait(reply.pause)
            self.wfile.write(reply.body[at : at + step])
        self.close_connection = promised != len(reply.body)

    def _reset(self) -> None:
        # Closing without lingering sends RST in place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Now, and past the server, which would say a FIN first.
        os.close(self.connection.detach())
        self.close_connection = True


@contextlib.contextmanager
def bad_line(line: Line) -> Iterator[Line]:
    """Put up the line on a free port of this machine for as long as the block takes."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"line": line}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    line.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield line
    finally:
        line.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
