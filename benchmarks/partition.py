"""One partition of DynamoDB: a proxy that adds a partition's limits and speed to DynamoDB Local.

`python -m benchmarks.partition ENGINE TABLE` serves on a free port and prints it.

- It refuses reads of `TABLE` beyond 3,000 units a second and writes beyond 1,000, as a partition of the service does.
- Writes, their conditions and the stream are the engine's. The proxy keeps a copy of the rows of `TABLE` and answers
  reads from it: the engine takes 2 s for 50,000 rows, and a partition's limit would never be reached.
  `tests/engines/test_partition.py` compares the proxy's answers with the engine's.
- It counts units by caller (the access key), table and kind. The operation `Totals` returns the counts.
"""

import json
import re
import sys
import time
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from itertools import accumulate
from math import ceil
from threading import Event, Lock, local
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from isal.isal_zlib import crc32

from batch_progress.table import Item
from benchmarks.cost import PAGE_BYTES, UNIT_BYTES, size
from tests.hostile.misbehaving import Reply, misbehaving

READS_PER_SECOND: Final = 3_000.0
WRITES_PER_SECOND: Final = 1_000.0
# Burst capacity: a partition saves up the unused capacity of this many seconds.
BURST_SECONDS: Final = 1.0
_OK: Final = 200
_TYPE: Final = {"Content-Type": "application/x-amz-json-1.0"}
_WRITES: Final = frozenset({"UpdateItem", "PutItem", "DeleteItem", "BatchWriteItem"})
_READS: Final = frozenset({"Query", "GetItem"})
_CALLER: Final = re.compile(r"Credential=([^/]+)/")
_CONDITION: Final = re.compile(
    r"(?P<hash>#?\w+) = (?P<id>:\w+)"
    r"(?: AND (?:(?P<range>#?\w+) BETWEEN (?P<low>:\w+) AND (?P<high>:\w+)"
    r"|begins_with\((?P<sk>#?\w+), (?P<prefix>:\w+)\)))?"
)
_QUERY: Final = frozenset(
    {
        *("TableName", "KeyConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues"),
        *("ProjectionExpression", "ReturnConsumedCapacity", "ConsistentRead", "ExclusiveStartKey", "Limit"),
    }
)
_LAST: Final = "\U0010ffff"

type Request = dict[str, Any]


class Bucket:
    """A token bucket: it fills at a rate up to a burst, and lets a call through while it is not empty.

    A call is not refused because it takes more than is left: what it takes is known only after it.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start with a full bucket at `now`, in seconds of any clock."""
        self._rate = rate
        self._burst = burst
        self._units = burst
        self._at = now

    def admits(self, now: float) -> bool:
        """Whether a call may start at `now`."""
        self._units = min(self._units + (now - self._at) * self._rate, self._burst)
        self._at = now
        return self._units > 0

    def take(self, units: float) -> None:
        """Remove the units of a call; the bucket may become negative."""
        self._units -= units


class Page(NamedTuple):
    """A page of rows.

    Attributes:
        rows: The encoded rows, with commas between them.
        number: How many they are.
        read: Their size in bytes, as DynamoDB counts it.
        last: The last sort key if the page ended before the end, otherwise `None`.
    """

    rows: bytes
    number: int
    read: int
    last: str | None


class Span(NamedTuple):
    """What a query asks for: sort keys from `low` to `high`, at most `limit` rows, these attributes or (none) all."""

    low: str
    high: str
    limit: int | None
    names: frozenset[str]


class Rows:
    """The rows of one batch, in the order of the sort key."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._items: dict[str, Item] = {}
        self._sizes: dict[str, int] = {}
        # Encoded rows by projection, and whole pages, until one of their rows changes.
        self._encoded: defaultdict[frozenset[str], dict[str, bytes]] = defaultdict(dict)
        self._pages: dict[Span, Page] = {}

    def put(self, key: str, item: Item | None) -> None:
        """Replace the row with this sort key; `None` deletes it."""
        for encoded in self._encoded.values():
            encoded.pop(key, None)
        for span, page in list(self._pages.items()):
            if span.low <= key <= (page.last or span.high):
                del self._pages[span]
        if item is None:
            if self._items.pop(key, None) is not None:
                self._keys.remove(key)
            return
        if key not in self._items:
            insort(self._keys, key)
        self._items[key] = item
        self._sizes[key] = size(item)

    def get(self, key: str, names: frozenset[str]) -> tuple[bytes | None, int]:
        """Return the encoded attributes of a row, and the row's size in bytes."""
        if key not in self._items:
            return None, 0
        return self._attributes(key, names), self._sizes[key]

    def page(self, span: Span) -> Page:
        """Return a page."""
        page = self._pages.get(span)
        if page is None:
            page = self._pages[span] = self._page(span)
        return page

    def _page(self, span: Span) -> Page:
        begin, end = bisect_left(self._keys, span.low), bisect_right(self._keys, span.high)
        wanted = end if span.limit is None else min(end, begin + span.limit)
        sizes = list(accumulate(map(self._sizes.__getitem__, self._keys[begin:wanted])))
        # The row that reaches 1 MB is the page's last one.
        fits = min(bisect_left(sizes, PAGE_BYTES) + 1, len(sizes))
        keys = self._keys[begin : begin + fits]
        encoded = self._encoded[span.names]
        rows = b",".join([encoded.get(key) or self._attributes(key, span.names) for key in keys])
        cut = fits < len(sizes) or (fits > 0 and fits == span.limit)
        return Page(rows, fits, sizes[fits - 1] if fits else 0, keys[-1] if cut else None)

    def _attributes(self, key: str, names: frozenset[str]) -> bytes:
        item = self._items[key]
        shown = {name: value for name, value in item.items() if name in names} if names else item
        encoded = self._encoded[names][key] = msgspec.json.encode(shown)
        return encoded


class Partition:
    """Answers calls: reads of the table from the copy, everything else from the engine."""

    def __init__(self, engine: str, table: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the engine's address and the name of the table that has limits."""
        self._engine = urlsplit(engine).netloc
        self._table = table
        self._clock = clock
        self._lock = Lock()
        self._batches: defaultdict[str, Rows] = defaultdict(Rows)
        # Writes of one row must reach the copy in the order in which the engine made them.
        self._one_at_a_time: defaultdict[tuple[str, str], Lock] = defaultdict(Lock)
        self._kept = local()
        self._connections: list[HTTPConnection] = []
        self._totals: defaultdict[str, float] = defaultdict(float)
        now = clock()
        self._reads = Bucket(READS_PER_SECOND, READS_PER_SECOND * BURST_SECONDS, now)
        self._writes = Bucket(WRITES_PER_SECOND, WRITES_PER_SECOND * BURST_SECONDS, now)

    def answer(self, operation: str, headers: dict[str, str], body: bytes) -> Reply:
        """Answer one call."""
        if operation == "Totals":
            with self._lock:
                return _reply(json.dumps(self._totals).encode())
        request: Request = json.loads(body)
        if operation not in _WRITES | _READS:
            return self._ask(headers, body)[0]
        found = next(filter(None, map(_CALLER.search, headers.values())), None)
        name = request.get("TableName") or next(iter(request["RequestItems"]))
        kind = "read" if operation in _READS else "write"
        caller = f"{found[1] if found else 'unknown'} {name} {kind}"
        limited = name == self._table
        # Only reads consume before they are answered: what they take is known from the copy.
        with self._lock:
            bucket = self._reads if kind == "read" else self._writes
            if limited and not bucket.admits(self._clock()):
                self._totals[f"{caller} refused"] += 1
                return _refusal()
            reply, units = self._read(operation, request) if limited and kind == "read" else (None, 0.0)
            if reply is not None and limited:
                bucket.take(units)
        if reply is None:
            reply, units = self._forward(operation, headers, request, copied=limited)
            with self._lock:
                if limited:
                    bucket.take(units)
        with self._lock:
            self._totals[f"{caller} units"] += units
            self._totals[f"{caller} calls"] += 1
        return reply

    def close(self) -> None:
        """Close the connections to the engine."""
        for connection in self._connections:
            connection.close()

    # Reads from the copy

    def _read(self, operation: str, request: Request) -> tuple[Reply | None, float]:
        """Answer a read; `None` if the engine must answer it."""
        per_block = 1.0 if request.get("ConsistentRead") else 0.5
        names = _names(request)
        if operation == "GetItem":
            batch_id, key = request["Key"]["batch_id"]["S"], request["Key"]["sk"]["S"]
            item, bytes_read = self._batches[batch_id].get(key, names)
            units = per_block * max(ceil(bytes_read / UNIT_BYTES), 1)
            return _reply(b"{" + _consumed(units, self._table) + (b',"Item":' + item if item else b"") + b"}"), units
        asked = _asked(request)
        if asked is None:
            return None, 0.0
        batch_id, span = asked
        page = self._batches[batch_id].page(span)
        units = per_block * max(ceil(page.read / UNIT_BYTES), 1)
        head = b'{"Count":%d,"ScannedCount":%d,' % (page.number, page.number) + _consumed(units, self._table)
        if page.last:
            head += b',"LastEvaluatedKey":' + msgspec.json.encode({"batch_id": {"S": batch_id}, "sk": {"S": page.last}})
        return _reply(b"".join((head, b',"Items":[', page.rows, b"]}"))), units

    # Calls to the engine

    def _forward(
        self, operation: str, headers: dict[str, str], request: Request, *, copied: bool
    ) -> tuple[Reply, float]:
        """Return the engine's answer and the units it took; bring the copy up to date."""
        asked = request | {"ReturnConsumedCapacity": "TOTAL"}
        if operation == "UpdateItem" and copied:
            if request.get("ReturnValues", "NONE") not in ("NONE", "ALL_NEW"):
                raise ValueError(f"ReturnValues={request['ReturnValues']} does not show the row after the write")
            asked["ReturnValues"] = "ALL_NEW"
        key = request.get("Key") or request.get("Item", {})
        with self._one_at_a_time[_key(key)] if "batch_id" in key else Lock():
            reply, content = self._ask(headers, msgspec.json.encode(asked))
            if reply.status != _OK:
                # A failed condition costs a write unit, and an error does not say what was consumed.
                return reply, 1.0 if b"ConditionalCheckFailed" in reply.body else 0.0
            if copied and operation in _WRITES:
                self._copy(operation, request, content)
        consumed = content.get("ConsumedCapacity", [])
        consumed = consumed if isinstance(consumed, list) else [consumed]
        units = sum(each["CapacityUnits"] for each in consumed)
        if "ReturnValues" in asked and request.get("ReturnValues", "NONE") == "NONE":
            content.pop("Attributes", None)
        return _reply(msgspec.json.encode(content)), units

    def _copy(self, operation: str, request: Request, content: Request) -> None:
        with self._lock:
            match operation:
                case "UpdateItem":
                    self._put(_key(content["Attributes"]), content["Attributes"])
                case "PutItem":
                    self._put(_key(request["Item"]), request["Item"])
                case "DeleteItem":
                    self._put(_key(request["Key"]), None)
                case "BatchWriteItem":
                    if content.get("UnprocessedItems"):
                        raise ValueError("the engine did not write all items")
                    for write in request["RequestItems"][self._table]:
                        if "PutRequest" in write:
                            self._put(_key(write["PutRequest"]["Item"]), write["PutRequest"]["Item"])
                        else:
                            self._put(_key(write["DeleteRequest"]["Key"]), None)

    def _put(self, key: tuple[str, str], item: Item | None) -> None:
        self._batches[key[0]].put(key[1], item)

    def _ask(self, headers: dict[str, str], body: bytes) -> tuple[Reply, Request]:
        """Send a call to the engine on this thread's connection."""
        sent = {name: value for name, value in headers.items() if name.lower() not in _HOP}
        connection: HTTPConnection | None = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = HTTPConnection(self._engine, timeout=60)
            self._connections.append(connection)
        connection.request("POST", "/", body, sent)
        answer = connection.getresponse()
        content = answer.read()
        return _reply(content, answer.status), json.loads(content)


# The engine does not check signatures, so a changed body needs no new one.
_HOP: Final = frozenset({"host", "content-length", "connection", "accept-encoding"})


def _key(item: Item) -> tuple[str, str]:
    return item["batch_id"]["S"], item["sk"]["S"]


def _names(request: Request) -> frozenset[str]:
    """Return the attributes of the projection; none means all."""
    names = request.get("ExpressionAttributeNames", {})
    listed = request.get("ProjectionExpression", "").replace(" ", "")
    return frozenset(names.get(name, name) for name in listed.split(",") if name)


def _asked(request: Request) -> tuple[str, Span] | None:
    """Return the batch and the span of a query, or `None` if the copy cannot answer it."""
    found = _CONDITION.fullmatch(request.get("KeyConditionExpression", ""))
    if found is None or not request.keys() <= _QUERY:
        return None
    names, values = request.get("ExpressionAttributeNames", {}), request["ExpressionAttributeValues"]
    ranged = found["range"] or found["sk"]
    if names.get(found["hash"], found["hash"]) != "batch_id" or (ranged and names.get(ranged, ranged) != "sk"):
        return None
    low, high = "", _LAST
    if found["range"]:
        low, high = values[found["low"]]["S"], values[found["high"]]["S"]
    elif found["sk"]:
        low = values[found["prefix"]]["S"]
        high = low + _LAST
    if "ExclusiveStartKey" in request:
        low = max(low, request["ExclusiveStartKey"]["sk"]["S"] + "\0")
    return values[found["id"]]["S"], Span(low, high, request.get("Limit"), _names(request))


def _consumed(units: float, table: str) -> bytes:
    return b'"ConsumedCapacity":' + msgspec.json.encode({"TableName": table, "CapacityUnits": units})


def _reply(body: bytes, status: int = _OK) -> Reply:
    return Reply(status, body, _TYPE, checksum=crc32(body))


def _refusal() -> Reply:
    """Return the error of an on-demand table whose partition is over its limit."""
    error = {
        "__type": "com.amazon.coral.availability#ThrottlingException",
        "message": "Throughput exceeds the current capacity of your table or index.",
    }
    return _reply(json.dumps(error).encode(), 400)


def main(arguments: Sequence[str] = sys.argv) -> None:
    """Serve until terminated."""
    _, engine, table = arguments
    with misbehaving(Partition(engine, table).answer) as server:
        print(server.address, flush=True)
        Event().wait()


if __name__ == "__main__":
    main()
