"""The local API, and what passes between it and a client."""

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from batch_progress import table
from batch_progress.table import JOB_PREFIX, JobStatus
from local_cloud.seed import TOKEN, batch_items
from scripts.openapi import document
from tests.integration import server
from tests.integration.server import LocalApi

local_api = server.local_api  # pytest finds fixtures among the names of this module

BATCH = "batch_clients"
# Only API Gateway throttles, so the recorder answers requests for this batch as the gateway does.
THROTTLED = "batch_throttled"


@dataclass
class Recorder:
    """A server that passes requests on to the local API and records the answers.

    Attributes:
        address: Its address.
        answers: What a client should have read: the status, the ETag and the body of each answer.
    """

    address: str
    answers: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(scope="session")
def filled_api(local_api: LocalApi) -> LocalApi:
    """The local API with a batch that has a value in each field: long numbers and texts beyond ASCII too."""
    jobs = boto3.client(
        "dynamodb",
        endpoint_url=local_api.address,
        region_name="eu-central-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    odd = table.item(
        batch_id=BATCH,
        sk=f"{JOB_PREFIX}job_aaa",
        url="https://example.com/\N{ARABIC LETTER FARSI YEH}\N{ZERO WIDTH NON-JOINER}\N{GRINNING FACE}?a=1&b=%20",
        status=JobStatus.FAILED,
        items_extracted=2**40,
        started_at="2024-12-16T11:31:02.125+01:00",
        finished_at="2024-12-16T10:31:09Z",
        error_code=None,
        error_message=None,
    )
    for item in (*batch_items(datetime.now(UTC), BATCH), odd):
        jobs.put_item(TableName="JobsTable", Item=item)
    return local_api


@pytest.fixture
def recorder(filled_api: LocalApi) -> Iterator[Recorder]:
    host = urlsplit(filled_api.address).netloc
    example = document()["paths"]["/v1/scrape/batch/{batch_id}/progress"]["get"]["responses"]["429"]
    throttled = example["content"]["application/json"]["examples"]["RATE_LIMIT_EXCEEDED"]["value"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = self._throttled() if THROTTLED in self.path else self._passed_on()
            plain = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
            recorded.answers.append(
                {"status": status, "etag": headers.get("ETag"), "body": json.loads(plain) if plain else None}
            )
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in {"transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # the name that the base class looks for

        def _passed_on(self) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(host)
            headers = {name: self.headers[name] for name in self.headers if name.lower() not in {"host", "connection"}}
            connection.request(self.command, self.path, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

        def _throttled(self) -> tuple[int, dict[str, str], bytes]:
            body = json.dumps(throttled).encode()
            return 429, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as passing:
        recorded = Recorder(f"http://127.0.0.1:{passing.server_port}")
        thread = threading.Thread(target=passing.serve_forever)
        thread.start()
        yield recorded
        passing.shutdown()
        thread.join()


def requests(api: LocalApi) -> list[dict[str, Any]]:
    """Return requests that together get an answer with every field, and every kind of error."""
    everything = {"batch_id": BATCH, "include": "details,estimate,summary"}
    first = _fetched(api, "?limit=2")
    return [
        _request(everything | {"limit": 2}),
        _request(everything | {"limit": 1000, "cursor": first["cursor"]}, scheme="bearer"),
        _request({"batch_id": BATCH, "status": "failed,cancelled"}),
        _request({"batch_id": BATCH}, operation="getBatchProgressByShortPath"),
        _request({"batch_id": BATCH, "limit": 0}, operation="getBatchProgressHeaders"),
        _request({"batch_id": BATCH, "limit": 0}, operation="getBatchProgressHeadersByShortPath"),
        _request({"batch_id": BATCH, "limit": 2, "if_none_match": "*"}),
        _request({"batch_id": "batch_of_another"}),
        _request({"batch_id": BATCH, "cursor": "bad"}),
        _request({"batch_id": BATCH}, token="another-token"),
        _request({"batch_id": BATCH}, token="another-token", scheme="bearer"),
        _request({"batch_id": THROTTLED}),
    ]


def _request(
    parameters: dict[str, str | int],
    *,
    operation: str = "getBatchProgress",
    token: str = TOKEN,
    scheme: str = "key",
) -> dict[str, Any]:
    return {"operation": operation, "token": token, "scheme": scheme, "parameters": parameters}


def _fetched(api: LocalApi, query: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(api.address).netloc)
    connection.request("GET", f"/v1/scrape/batch/{BATCH}/progress{query}", headers={"X-API-Key": TOKEN})
    response = connection.getresponse()
    return {"cursor": json.loads(response.read())["data"]["next_cursor"]}
