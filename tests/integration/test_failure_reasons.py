"""What an operator reads in the log about a failure of DynamoDB."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_progress import dynamodb
from batch_progress.dynamodb import Client, Reason
from batch_progress.endpoint import Endpoint
from batch_progress.sigv4 import Credentials
from batch_progress.store import BatchStore
from functions.progress import app
from local_cloud.lambda_context import LambdaContext
from tests.hostile.misbehaving import Reply
from tests.integration.faulty import Faulty, error, good, serving
from tests.integration.world import request_lines

RUNBOOK = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The function in front of a server that misbehaves."""
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 0.0)
    with serving() as server:
        host, port = server.address.removeprefix("http://").split(":")
        credentials = Credentials("fake", "fake", None)
        client = Client(
            Endpoint(secure=False, host=host, port=int(port), region="eu-central-1", credentials=lambda: credentials)
        )
        store = BatchStore(client, "JobsTable")
        monkeypatch.setattr(app, "_store", lambda: store)
        yield server
        client.close()


def request_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Make a direct call and return the fields of its log line."""
    app.handler({"batch_id": "batch"}, LambdaContext(60))
    (line,) = request_lines(capsys.readouterr().out)
    return line


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error("ThrottlingException"), ("throttled", "ThrottlingException", 400, 3)),
        (error("InternalServerError", 500), ("server error", "InternalServerError", 500, 3)),
        (replace(good("first page"), checksum=1), ("damaged response", "checksum", 200, 3)),
        (Reply(403, b"<html>"), ("unknown response", None, 403, 1)),
        (Reply(hang_up=True), ("no connection", "RemoteDisconnected", None, 3)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_503_says_what_went_wrong_at_dynamodb(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], reply: Reply, expected: tuple[object, ...]
) -> None:
    faulty.forever["first page"] = reply
    line = request_line(capsys)
    assert (503, "SERVICE_UNAVAILABLE") == (line["status"], line["outcome"])
    assert expected == tuple(line["dynamodb"][name] for name in ("reason", "error", "http_status", "attempts"))


@pytest.mark.usefixtures("faulty")
def test_a_success_has_no_reason(capsys: pytest.CaptureFixture[str]) -> None:
    line = request_line(capsys)
    assert 200 == line["status"]
    assert "dynamodb" not in line


def test_the_runbook_lists_every_reason() -> None:
    """Except `refused`, which is answered with a 500 and logged with its traceback."""
    text = RUNBOOK.read_text("utf-8")
    assert [] == [reason for reason in Reason if reason is not Reason.REFUSED and f"| `{reason}` |" not in text]
