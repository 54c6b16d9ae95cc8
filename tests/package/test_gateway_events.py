"""The local gateway's events compared with those of `sam local start-api`."""

import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from local_cloud.http_server import http_server
from local_cloud.template import TEMPLATE
from tests.engines.starting import free_ports, until_it_listens
from tests.integration.server import CEILING

ROOT = TEMPLATE.parent
PATH = "/api/v1/scrape/batch/batch_xyz789/progress"
VOLATILE = ("requestId", "requestTime", "requestTimeEpoch")

type Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def sam() -> Iterator[int]:
    """The port of SAM's server."""
    subprocess.run([sys.executable, "scripts/setup.py", "sam"], cwd=ROOT, check=True)  # the project's own
    (port,) = free_ports(1)
    program = Path(__file__).with_name("sam_start_api.py")
    command = [str(part) for part in (ROOT / ".venv-sam/bin/python", program, TEMPLATE, port)]
    with (
        tempfile.NamedTemporaryFile() as log,  # a full pipe would block it
        subprocess.Popen(  # noqa: S603  # the same
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"SAM_CLI_TELEMETRY": "0"}
        ) as process,
    ):
        try:
            until_it_listens("sam local start-api", process, port, Path(log.name))
            yield port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def ours() -> Iterator[int]:
    """The port of the local gateway with a handler that returns the event."""

    def echo(event: dict[str, object]) -> object:
        return {"statusCode": 200, "headers": {"X-Event": base64.b64encode(json.dumps(event).encode()).decode()}}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = http_server(listener, echo, io.StringIO())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield listener.getsockname()[1]
        server.shutdown()
        thread.join()


def event(port: int, method: str, target: str, headers: Headers, body: bytes) -> dict[str, Any]:
    """Send a raw request and return its event."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CEILING)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in [("Host", "127.0.0.1"), *headers]:
        connection.putheader(name, value)
    connection.endheaders(body or None)
    response = connection.getresponse()
    connection.close()
    assert 200 == response.status
    return dict(json.loads(base64.b64decode(response.headers["X-Event"])))


def like_sam(event: dict[str, Any]) -> dict[str, Any]:
    """Return our event changed as SAM differs from the service. This lists every difference."""
    several: dict[str, list[str]] = {}
    for name, values in event["multiValueHeaders"].items():
        # Its WSGI server joins repeated headers and loses their case.
        several[name.title()] = [",".join(values)]
    parameters = event["pathParameters"] or {}
    context = event["requestContext"]
    return event | {
        # It decodes paths; the service does not.
        "path": unquote(event["path"]),
        "pathParameters": {name: unquote(value) for name, value in parameters.items()} or None,
        "headers": {name: values[-1] for name, values in several.items()},
        "multiValueHeaders": several,
        "requestContext": context
        | {
            # It has the resource here; the service has the stage and the path.
            "path": context["resourcePath"],
            "identity": context["identity"] | {"userAgent": "Custom User Agent String"},
        },
    }


def settled(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without the parts that differ between requests and ports."""
    event["requestContext"] = {name: value for name, value in event["requestContext"].items() if name not in VOLATILE}
    assert event["headers"].pop("X-Forwarded-Port").isdigit()
    assert event["multiValueHeaders"].pop("X-Forwarded-Port")
    return event


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"),
    [
        ("GET", PATH, [("X-API-Key", "demo-token"), ("User-Agent", "test")], b""),
        ("GET", "/v1/scrape/batch/b/progress", [("Authorization", "Bearer a.b.c")], b""),
        ("GET", PATH + "/", [], b""),
        ("HEAD", PATH, [], b""),
        ("POST", PATH, [("Content-Type", "application/json"), ("Content-Length", "8")], b'{"a": 1}'),
        ("PUT", PATH, [("Content-Length", "2")], b"\x00\xff"),
        ("DELETE", PATH, [], b""),
        ("PATCH", "/", [("Content-Length", "0")], b""),
        ("OPTIONS", "/somewhere/else", [("Origin", "https://example.com")], b""),
        ("GET", "/", [], b""),
        ("GET", "/?a=1", [], b""),
        ("GET", PATH + "/more", [], b""),
        ("GET", PATH + "?limit=1&limit=2&status=failed,pending", [], b""),
        ("GET", PATH + "?limit=&cursor&include=%20", [], b""),
        ("GET", PATH + "?a%20b=c%2Bd+e&x=%C3%A4%F0%9F%98%80&=&&;", [], b""),
        ("GET", PATH + "?", [], b""),
        ("GET", PATH + "?bad=%FF%zz%", [], b""),
        ("GET", "/v1/scrape/batch/batch%5Fxyz%20%C3%A4+!/progress", [], b""),
        ("GET", "/v1/%E4%BD%A0/x", [], b""),
        ("GET", PATH, [("X-API-Key", "one"), ("x-api-key", "two"), ("Accept", "a"), ("accept", "b")], b""),
        ("GET", PATH, [("Cookie", "a=b; c=d"), ("If-None-Match", 'W/"1", "2"'), ("Empty", "")], b""),
        ("GET", PATH, [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.1")], b""),
    ],
)
def test_the_same_event(
    sam: int, ours: int, method: str, target: str, headers: Headers, body: bytes
) -> None:  # a request has that many parts
    """The same request makes the same event, except for SAM's differences from the service."""
    expected = event(sam, method, target, headers, body)
    actual = event(ours, method, target, headers, body)
    assert settled(expected) == settled(like_sam(actual))


def test_an_encoded_slash_stays_in_its_segment(sam: int, ours: int) -> None:
    """SAM decodes the path before it matches the resource, which splits the segment. The service does not."""
    target = "/v1/scrape/batch/a%2Fb/progress"
    assert "/{proxy+}" == event(sam, "GET", target, [], b"")["resource"]
    made = event(ours, "GET", target, [], b"")
    assert ("/v1/scrape/batch/{batch_id}/progress", {"batch_id": "a%2Fb"}, target) == (
        made["resource"],
        made["pathParameters"],
        made["path"],
    )
