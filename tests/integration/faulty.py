"""A DynamoDB with canned answers to four calls, and the faults that a test asks for."""

import contextlib
import json
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from zlib import crc32

from tests.hostile.misbehaving import Misbehaving, Reply, misbehaving

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


def place(operation: str, body: bytes) -> str:
    """Return which of the four calls a request is."""
    request = json.loads(body)
    if operation == "GetItem":
        return "token" if request["TableName"] == "TokensTable" else "batch"
    return "later page" if "ExclusiveStartKey" in request else "first page"


def good(place: str) -> Reply:
    body = json.dumps(GOOD[place]).encode()
    return Reply(body=body, checksum=crc32(body))


def error(code: str, status: int = 400) -> Reply:
    """Return an error response in DynamoDB's format."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "…"}).encode()
    return Reply(status, body, checksum=crc32(body))


def fault(name: str, place: str) -> Reply:
    """Return a fault by its name, as the answer to a call."""
    right = good(place)
    half = right.body[: len(right.body) // 2]
    damaged = {
        "bad checksum": replace(right, checksum=1),
        # Valid JSON with the right structure and wrong content.
        "nothing there, bad checksum": replace(right, body=b'{"Items": [], "Count": 0}'),
        "cut, with checksum": replace(right, body=half),
        "cut": replace(right, body=half, checksum=None),
        "empty": Reply(),
        "no object": Reply(body=b"null"),
        "another object": Reply(body=b'{"Item": [], "Items": 7}'),
        "no text": replace(right, body=right.body.replace(b"e", b"\xff"), checksum=None),
        "ends within the body": replace(right, body=half, promised=len(right.body)),
        "stalls within the body": replace(right, body=half, promised=len(right.body), stall=60),
        "hangs up": Reply(hang_up=True),
        "slow": replace(right, silent=60),
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


class Faulty:
    """The server's faults, and how many calls it got."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.forever: dict[str, Reply] = {}
        self.once: dict[str, Reply] = {}
        self.server = Misbehaving()

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def connections(self) -> int:
        return self.server.connections

    def close_connections(self) -> None:
        self.server.close_connections()

    def answer(self, operation: str, _: dict[str, str], body: bytes) -> Reply:
        return self.reply(place(operation, body))

    def forget(self) -> None:
        """Remove all faults and reset the counts."""
        self.calls.clear()
        self.forever.clear()
        self.once.clear()

    def reply(self, place: str) -> Reply:
        self.calls[place] += 1
        reply = self.next(place)
        self.once.pop(place, None)
        return reply

    def next(self, place: str) -> Reply:
        return self.once.get(place) or self.forever.get(place) or good(place)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Faulty]:
    """Run the server on a free port of loopback until the block ends, with TLS if a context is given."""
    faulty = Faulty()
    with misbehaving(faulty.answer, tls) as faulty.server:
        yield faulty
