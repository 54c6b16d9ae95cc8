"""Real tables, the handler, and API Gateway's part in front of it."""

import base64
import gzip
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.datastructures import Headers

from batch_progress.table import BATCH_KEY, JOB_PREFIX, batch_key, timestamp
from functions.progress import app
from local_cloud.lambda_context import LambdaContext
from local_cloud.proxy_event import proxy_event
from local_cloud.template import timeout_seconds

type Pairs = Mapping[str, str] | Sequence[tuple[str, str]]
type Attribute = str | int | dict[str, Any] | None  # string, number, DynamoDB's JSON, or absent

TIMEOUT = timeout_seconds("ProgressFunction")
REALISTIC = (("Host", "api.example.com"), ("User-Agent", "tests"), ("X-Forwarded-Proto", "https"))
# Lambda's limit on a response payload.
SIX_MEGABYTES = 6 * 1024 * 1024
BATCH_WRITE_LIMIT = 25

# A process that answers one event. It tests what happens once in a process: a cold start, and the output on stdout.
ONE_EVENT = """
import json, sys
from tests.integration.world import Context
from functions.progress.app import handler
print("answer:" + json.dumps(handler(json.load(sys.stdin), Context(60))))
"""


def now(seconds: float = 0) -> str:
    """Return the time `seconds` from now in the tables' format: RFC 3339, UTC, milliseconds."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return timestamp(moment)


def moment(text: str) -> datetime:
    """Parse a time of an answer, which must have whole seconds and a Z."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text, re.ASCII), text
    return datetime.fromisoformat(text)


def unique(prefix: str) -> str:
    """Return a unique id."""
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


def attributes(values: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return values as DynamoDB's JSON. Values that already are such JSON stay unchanged."""
    kinds: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kinds[name] = value
        elif isinstance(value, str):
            kinds[name] = {"S": value}
        elif value is not None:
            kinds[name] = {"N": str(value)}
    return kinds


def batch_item(batch_id: str, **values: Attribute) -> dict[str, Any]:
    """Return a batch item in DynamoDB's JSON; `owner_id` is `demo` by default."""
    return attributes({"batch_id": batch_id, "sk": BATCH_KEY, "owner_id": "demo"} | values)


class Context(LambdaContext):
    """Lambda's context, by default with the function's timeout."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        super().__init__(timeout)


@dataclass(frozen=True)
class Answer:
    """An HTTP response as a client receives it, with the function's payload."""

    status: int
    headers: Headers
    text: str
    coding: str | None
    payload: dict[str, Any]

    @classmethod
    def read(cls, payload: dict[str, Any]) -> "Answer":
        """Read a handler's payload as API Gateway does."""
        headers = Headers()
        multiple = payload.get("multiValueHeaders") or {}
        single = {name: [value] for name, value in (payload.get("headers") or {}).items() if name not in multiple}
        for name, values in (single | multiple).items():
            for value in values:
                assert isinstance(value, str)
                headers.add(name, value)
        body = payload.get("body") or ""
        raw = base64.b64decode(body, validate=True) if payload.get("isBase64Encoded") else body.encode()
        coding = headers.get("Content-Encoding")
        text = (gzip.decompress(raw) if coding == "gzip" else raw).decode()
        return cls(payload["statusCode"], headers, text, coding, payload)

    @property
    def json(self) -> Any:  # noqa: ANN401  # whatever JSON the body is
        return json.loads(self.text)

    @property
    def data(self) -> dict[str, Any]:
        """The data; the answer must be a 200."""
        assert 200 == self.status, self.text
        body = self.json
        assert ["success", "data"] == list(body)
        assert body["success"] is True
        return dict(body["data"])

    @property
    def error(self) -> dict[str, Any]:
        """The error; the answer must be an error envelope."""
        body = self.json
        assert ["success", "error"] == list(body)
        assert body["success"] is False
        error = dict(body["error"])
        assert self.status == error["status"]
        return error

    @property
    def outcome(self) -> tuple[int, str]:
        """The status and the error code."""
        return self.status, self.error["code"]

    @property
    def names(self) -> set[str]:
        """The names of the headers, in lower case."""
        return {name.lower() for name, _ in self.headers}


@dataclass(frozen=True)
class Run:
    """The answer to one event from a process of its own, and the process's output."""

    payload: dict[str, Any]
    log: str

    @property
    def http(self) -> Answer:
        return Answer.read(self.payload)


@dataclass(frozen=True)
class World:
    """The tables and the function."""

    dynamodb: Any
    jobs_table: str
    tokens_table: str
    tokens: dict[str, str] = field(default_factory=dict)  # a valid token by owner

    # Items

    def put_batch(self, batch_id: str | None = None, *, owner: str = "demo", **values: Attribute) -> str:
        """Write a batch item, by default created a minute ago, and return the batch id."""
        batch_id = batch_id or unique("batch")
        self.put_item(batch_item(batch_id, **{"owner_id": owner, "created_at": now(-60)} | values))
        return batch_id

    def put_job(self, batch_id: str, job_id: str, /, **values: Attribute) -> None:
        """Write one job, by default pending and with a URL."""
        self.put_jobs(batch_id, {job_id: values})

    def put_jobs(self, batch_id: str, jobs: Mapping[str, Mapping[str, Attribute]] | Iterable[str]) -> None:
        """Write jobs, given by id or as a list of statuses."""
        if not isinstance(jobs, Mapping):
            jobs = {f"job_{number:06}": {"status": status} for number, status in enumerate(jobs, 1)}
        self.put_items(
            attributes(
                {
                    "batch_id": batch_id,
                    "sk": JOB_PREFIX + job_id,
                    "status": "pending",
                    "url": f"https://example.com/{job_id}",
                }
                | dict(values)
            )
            for job_id, values in jobs.items()
        )

    def put_item(self, item: dict[str, Any]) -> None:
        """Write one item of the jobs table, in DynamoDB's JSON."""
        self.dynamodb.put_item(TableName=self.jobs_table, Item=item)

    def put_items(self, items: Iterable[dict[str, Any]], *, at_once: int = BATCH_WRITE_LIMIT) -> None:
        """Write items of the jobs table, in DynamoDB's JSON, with different keys."""
        for some in itertools.batched(items, at_once, strict=False):
            left = {self.jobs_table: [{"PutRequest": {"Item": item}} for item in some]}
            while left:
                left = self.dynamodb.batch_write_item(RequestItems=left)["UnprocessedItems"]

    def delete_batch(self, batch_id: str) -> None:
        """Delete a batch item but not its jobs."""
        self.dynamodb.delete_item(TableName=self.jobs_table, Key=batch_key(batch_id))

    def put_token(self, token: str | None = None, owner: str = "demo", **values: Attribute) -> str:
        """Write a token and return it; `values` may have `expires_at` and `revoked_at`."""
        token = token or unique("token")
        item = {
            "token_hash": hashlib.sha256(token.encode()).hexdigest(),
            "owner_id": owner,
            "label": "a test",
            "created_at": now(-3600),
        }
        self.dynamodb.put_item(TableName=self.tokens_table, Item=attributes(item | values))
        return token

    # Requests

    def get(self, batch_id: str, /, owner: str = "demo", **query: str) -> Answer:
        """Request a batch with a valid token of its owner."""
        return self.ask(batch_id, query, owner=owner)

    def ask(self, batch_id: str, query: Pairs = (), *, headers: Pairs = (), owner: str = "demo") -> Answer:
        """Request a batch with a valid token, a query that may repeat parameters, and further headers."""
        return self.request("GET", progress_path(batch_id), [*self.key(owner), *pairs(headers)], query)

    def key(self, owner: str = "demo") -> list[tuple[str, str]]:
        """Return a header with a valid token of an owner."""
        if owner not in self.tokens:
            self.tokens[owner] = self.put_token(owner=owner)
        return [("X-API-Key", self.tokens[owner])]

    def request(self, method: str, path: str, headers: Pairs = (), query: Pairs = ()) -> Answer:
        """Send a request through API Gateway."""
        payload = self.invoke(event(method, path, headers, query))
        return Answer.read(payload)

    def walk(self, batch_id: str, **query: str) -> Iterator[dict[str, Any]]:
        """Request page after page until the last one; yield the data of each."""
        data = self.get(batch_id, **query).data
        yield data
        while data["next_cursor"] is not None:
            data = self.get(batch_id, **query, cursor=data["next_cursor"]).data
            yield data

    def invoke(self, event: object, context: Context | None = None) -> dict[str, Any]:
        """Invoke the function with any JSON; return its answer."""
        # Long enough for a slow engine; tests/integration/test_faults.py tests the deadline.
        answer = json.loads(json.dumps(app.handler(event, context or Context(60))))
        assert isinstance(answer, dict)
        return answer

    def elsewhere(self, event: object, **environment: str | None) -> "Run":
        """Invoke the function in a new process with changes to the environment; `None` unsets a variable."""
        variables: dict[str, str | None] = {**os.environ, **environment}
        done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
            [sys.executable, "-c", ONE_EVENT],
            input=json.dumps(event),
            env={name: value for name, value in variables.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        log, mark, answer = done.stdout.rpartition("answer:")
        assert mark, done.stderr
        return Run(dict(json.loads(answer)), log + done.stderr)


def request_lines(output: str) -> list[dict[str, Any]]:
    """Return the log lines of requests among what was printed."""
    return [json.loads(line) for line in output.splitlines() if '"message":"request"' in line]


def pairs(values: Pairs) -> list[tuple[str, str]]:
    """Return names and values as pairs; names may repeat."""
    return list(values.items() if isinstance(values, Mapping) else values)


def progress_path(batch_id: str) -> str:
    """Return the documented path of a batch's progress."""
    return f"/api/v1/scrape/batch/{batch_id}/progress"


def event(method: str, path: str, headers: Pairs = (), query: Pairs = ()) -> dict[str, Any]:
    """Return a REST API's proxy event."""
    return proxy_event(method, path, [*REALISTIC, *pairs(headers)], pairs(query))
