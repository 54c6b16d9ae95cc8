"""A fake DynamoDB with prepared answers, in a process of its own, so that its CPU time is not measured.

It answers `Query` for a whole batch, `GetItem` for a `BATCH` item and the token, keeps counts, and counts calls.
`GET /refresh/<jobs>` rebuilds a batch with recent times; `GET /asked` returns the counts and resets them.
"""

import hashlib
import json
import socketserver
import zlib
from collections import Counter
from datetime import UTC, datetime
from threading import Lock
from typing import Final

import msgspec

from batch_progress.store import FIRST_PAGE_ITEMS
from batch_progress.table import Item
from benchmarks import workload

_NOT_FOUND: Final = {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "canned"}


class Canned:
    """The prepared answers, and the counts of calls."""

    def __init__(self) -> None:
        token = {
            "token_hash": {"S": hashlib.sha256(workload.TOKEN.encode()).hexdigest()},
            "owner_id": {"S": workload.OWNER},
            "created_at": {"S": "2024-12-16T10:00:00.000Z"},
        }
        self._lock = Lock()
        self._asked: Counter[str] = Counter()
        self._queries: dict[tuple[str, str | None, int | None], bytes] = {}
        self._batches: dict[str, Item] = {}
        self._items = {workload.TOKENS_TABLE: {token["token_hash"]["S"]: _http(_got(token))}}
        self._items[workload.JOBS_TABLE] = {}

    def refresh(self, jobs: int) -> None:
        """Rebuild the batch with this number of jobs, with times relative to now."""
        now, batch_id = datetime.now(UTC), workload.batch_id(jobs)
        for first in (None, FIRST_PAGE_ITEMS):
            self._queries |= {
                (batch_id, start, None if start else first): _http(body)
                for start, body in workload.pages(jobs, now, first).items()
            }
        self._batches[batch_id] = next(workload.items(jobs, now))
        self._items[workload.JOBS_TABLE][batch_id] = _http(_got(self._batches[batch_id]))

    def answer(self, operation: str, body: bytes) -> bytes:
        """Answer one DynamoDB call."""
        asked = json.loads(body)
        table = asked["TableName"]
        if operation == "Query":
            values = [value["S"] for value in asked["ExpressionAttributeValues"].values()]
            batch_id = next(value for value in values if value.startswith("batch_"))
            start = asked.get("ExclusiveStartKey", {}).get("sk", {}).get("S")
            found = self._queries.get((batch_id, start, asked.get("Limit")))
        elif operation == "UpdateItem":
            found = self._update(asked["Key"]["batch_id"]["S"], asked["ExpressionAttributeValues"])
        else:
            key = asked["Key"]
            found = self._items[table].get(key.get("batch_id", key.get("token_hash"))["S"])
        answer = found or _http(json.dumps(_NOT_FOUND).encode(), "400 Bad Request")
        with self._lock:
            self._asked[f"{operation} {table}"] += 1
            self._asked[f"{table} bytes"] += len(answer)
        return answer

    def _update(self, batch_id: str, values: Item) -> bytes:
        """Keep a count on a `BATCH` item; other updates change nothing."""
        if ":counted" in values:
            batch = self._batches[batch_id] | {"counted": values[":counted"], "counted_at": values[":made"]}
            self._items[workload.JOBS_TABLE][batch_id] = _http(_got(batch))
        return _http(b"{}")

    def asked(self) -> bytes:
        """Return the counts of calls and reset them."""
        with self._lock:
            counts, self._asked = self._asked, Counter()
        return json.dumps(counts).encode()


def _got(item: Item) -> bytes:
    return msgspec.json.encode({"ConsumedCapacity": {"CapacityUnits": 0.5}, "Item": item})


def _http(body: bytes, status: str = "200 OK") -> bytes:
    """Return a whole HTTP response as DynamoDB sends it."""
    headers = (
        f"HTTP/1.1 {status}",
        "Server: Server",
        "Date: Mon, 16 Dec 2024 10:31:02 GMT",
        "Content-Type: application/x-amz-json-1.0",
        f"Content-Length: {len(body)}",
        "Connection: keep-alive",
        "x-amzn-RequestId: 0123456789ABCDEFGHIJKLMNOPVV4KQNSO5AEMVJF66Q9ASUAAJG",
        f"x-amz-crc32: {zlib.crc32(body)}",
    )
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


class _Connection(socketserver.StreamRequestHandler):
    """One connection of a client."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until the client closes the connection."""
        canned: Canned = self.server.canned  # type: ignore[attr-defined]  # set by `serve`
        while request := self.rfile.readline():
            headers = {}
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                headers[name.strip().lower()] = value.strip()
            body = self.rfile.read(int(headers.get(b"content-length", 0)))
            path = request.split()[1].decode()
            if path == "/asked":
                answer = _http(canned.asked())
            elif path.startswith("/refresh/"):
                canned.refresh(int(path.rpartition("/")[2]))
                answer = _http(b"{}")
            else:
                answer = canned.answer(headers[b"x-amz-target"].decode().rpartition(".")[2], body)
            self.wfile.write(answer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


def serve() -> None:
    """Serve on a free port and print it."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        server.canned = Canned()  # type: ignore[attr-defined]  # read by each connection
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve()
