"""A DynamoDB that answers four calls out of a can, and fails as it is told to."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

PLACES = ("token", "batch", "first page", "later page")

_BATCH = {"sk": {"S": "BATCH"}, "owner_id": {"S": "demo"}, "total_urls": {"N": "2"}}
_KEY = {"batch_id": {"S": "batch"}, "sk": {"S": "JOB#a"}}
_JOBS = [
    {"sk": {"S": f"JOB#{job}"}, "url": {"S": f"https://example.com/{job}"}, "status": {"S": "completed"}}
    for job in "ab"
]
GOOD: dict[str, dict[str, Any]] = {
    "token": {"Item": {"token_hash": {"S": "…"}, "owner_id": {"S": "demo"}}},
    "batch": {"Item": _BATCH},
    "first page": {"Items": [_BATCH, _JOBS[0]], "Count": 2, "ScannedCount": 2, "LastEvaluatedKey": _KEY},
    "later page": {"Items": [_JOBS[1]], "Count": 1, "ScannedCount": 1},
}


@dataclass(frozen=True)
class Reply:
    """What comes for a call.

    Attributes:
        status: HTTP's.
        body: As it is sent.
        promised: Its length as the header says, its own unless given.
        checksum: As the header says, none unless given.
        headers: More of them.
        silent: Seconds before anything is sent.
        drip: Seconds before each single byte of the body.
        stall: Seconds after the body, of which more is promised.
        hang_up: Whether the connection ends without a word.
    """

    status: int = 200
    body: bytes = b""
    promised: int | None = None
    checksum: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: float = 0
    drip: float = 0
    stall: float = 0
    hang_up: bool = False


def good(place: str) -> Reply:
    """Return the right answer."""
    body = json.dumps(GOOD[place]).encode()
    return Reply(body=body, checksum=crc32(body))


def error(code: str, status: int = 400) -> Reply:
    """Return DynamoDB's way to say what went wrong."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "…"}).encode()
    return Reply(status, body, checksum=crc32(body))


def fault(name: str, place: str) -> Reply:
    """Return a fault by its name, where `place` is asked for."""
    right = good(place)
    half = right.body[: len(right.body) // 2]
    damaged = {
        "bad checksum": replace(right, checksum=1),
        # Still JSON, still of the right shape, and wrong.
        "nothing there, bad checksum": replace(right, body=b'{"Items": [], "Count": 0}'),
        "cut, with checksum": replace(right, body=half),
        "cut": replace(right, body=half, checksum=None),
        "empty": Reply(),
        "no object": Reply(body=b"null"),
        "another object": Reply(body=b'{"Item": [], "Items": 7}'),
        "no text": replace(right, body=right.body.replace(b"e", b"\xff"), checksum=None),
        "ends within the body": replace(right, body=half, promised=len(right.body)),
        "stalls within the body": replace(right, body=half, promised=len(right.body), stall=0.4),
        "hangs up": Reply(hang_up=True),
        "slow": replace(right, silent=0.9),
        "error, cut": replace(
            error("ProvisionedThroughputExceededException"), body=b'{"__type": "com.am', checksum=None
        ),
        "error, empty": Reply(400),
        "error, bad checksum": replace(error("ResourceNotFoundException"), checksum=1),
        "internal": error("InternalServerError", 500),
        "unavailable": Reply(503, b"<html>Service Unavailable</html>"),
        "gateway": Reply(502),
    }
    return damaged[name] if name in damaged else error(name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # So that a client may hang up while it is still waited for.
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the play."""


class Faulty:
    """The server, what it is to do wrong, and how often it was asked."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.connections = 0
        self.forever: dict[str, Reply] = {}
        self.once: dict[str, Reply] = {}
        # Ends every wait when the test is over.
        self.over = threading.Event()
        self.address = ""

    def forget(self) -> None:
        """Do nothing wrong any more, and count anew."""
        self.calls.clear()
        self.forever.clear()
        self.once.clear()

    def reply(self, place: str) -> Reply:
        self.calls[place] += 1
        return self.once.pop(place, None) or self.forever.get(place) or good(place)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: Faulty

    def setup(self) -> None:
        super().setup()
        self.faulty.connections += 1

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "GetItem" in self.headers["X-Amz-Target"]:
            place = "token" if request["TableName"] == "TokensTable" else "batch"
        else:
            place = "later page" if "ExclusiveStartKey" in request else "first page"
        self._send(self.faulty.reply(place))

    def _send(self, reply: Reply) -> None:
        self.faulty.over.wait(reply.silent)
        if reply.hang_up:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        promised = len(reply.body) if reply.promised is None else reply.promised
        self.send_header("Content-Length", str(promised))
        if reply.checksum is not None:
            self.send_header("x-amz-crc32", str(reply.checksum))
        self.end_headers()
        step = 1 if reply.drip else len(reply.body) or 1
        for at in range(0, len(reply.body), step):
            self.faulty.over.wait(reply.drip)
            self.wfile.write(reply.body[at : at + step])
        self.faulty.over.wait(reply.stall)
        self.close_connection = promised != len(reply.body)


@contextlib.contextmanager
def serving() -> Iterator[Faulty]:
    """Serve on a free port of this machine."""
    faulty = Faulty()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"faulty": faulty}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    faulty.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield faulty
    finally:
        # A test that fails too, or the process would wait for the thread for ever.
        faulty.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
