"""A DynamoDB that answers four calls out of a can, and fails as it is told to."""

import contextlib
import json
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


class Faulty:
    """What the server does wrong, and how often it was asked."""

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

    def answer(self, operation: str, _: dict[str, str], body: bytes) -> Reply:
        """Answer a call as `reply` says for the place that it reads."""
        request = json.loads(body)
        if operation == "GetItem":
            return self.reply("token" if request["TableName"] == "TokensTable" else "batch")
        return self.reply("later page" if "ExclusiveStartKey" in request else "first page")

    def forget(self) -> None:
        """Do nothing wrong any more, and count anew."""
        self.calls.clear()
        self.forever.clear()
        self.once.clear()

    def reply(self, place: str) -> Reply:
        self.calls[place] += 1
        return self.once.pop(place, None) or self.forever.get(place) or good(place)


@contextlib.contextmanager
def serving() -> Iterator[Faulty]:
    """Serve on a free port of this machine."""
    faulty = Faulty()
    with misbehaving(faulty.answer) as faulty.server:
        yield faulty
