"""The examples in docs/recording.md, with only the table's name changed."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from batch_progress.recorder import BatchRecorder
from tests.integration.world import Context, World, unique

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/recording.md").read_text()


class ScrapeFailed(Exception):
    """Raised by the examples' scraper."""


def scrape(url: str) -> list[str]:
    """Return three items; fail for a URL with `gone` in it."""
    if "gone" in url:
        raise ScrapeFailed("The page is gone.")
    return ["a", "b", "c"]


@pytest.fixture(autouse=True)
def _scraper(monkeypatch: pytest.MonkeyPatch) -> None:
    scraper = types.ModuleType("scraper")
    vars(scraper).update(scrape=scrape, ScrapeFailed=ScrapeFailed)
    monkeypatch.setitem(sys.modules, "scraper", scraper)


def blocks(heading: str, language: str) -> list[str]:
    """Return the examples under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found


def message(number: int, job_id: str, url: str, batch_id: str) -> dict[str, Any]:
    body = json.dumps({"batch_id": batch_id, "job_id": job_id, "url": url})
    return {"messageId": f"message-{number}", "body": body}


def test_lambda_on_sqs(world: World) -> None:
    """A failed job's message is delivered again and restarts the job. A message for an ended job is deleted."""
    batch_id, urls = unique("batch"), ["https://example.com/1", "https://example.com/gone", "https://example.com/3"]
    recorder = BatchRecorder(world.jobs_table, world.dynamodb)
    job_ids = recorder.create(batch_id, "demo", urls)
    recorder.cancel(batch_id, job_ids[2])
    messages = [message(*both, batch_id) for both in [(n, job_ids[n], url) for n, url in enumerate(urls)]]
    messages.append(messages[0] | {"messageId": "again"})
    example: dict[str, Any] = {}
    exec(blocks("In a Lambda on SQS", "python")[0], example)  # noqa: S102  # the page's own

    for _ in range(2):
        answer = example["handler"]({"Records": messages}, Context())

        assert {"batchItemFailures": [{"itemIdentifier": "message-1"}]} == answer
        assert ["completed", "failed", "cancelled"] == [
            job["status"] for job in world.get(batch_id, include="details").data["jobs"]
        ]


def test_plain_process(world: World) -> None:
    """It can be run twice."""
    batch_id = unique("batch")
    text = blocks("In a plain process", "python")[0]
    text = text.replace("jobs-table", world.jobs_table).replace("batch_2024_12_16", batch_id)
    for _ in range(2):
        exec(text, {})  # noqa: S102  # the page's own
    assert (2, 0, 6) == tuple(
        world.get(batch_id).data[name] for name in ("completed", "pending", "total_items_extracted")
    )


def test_another_language(world: World) -> None:
    """The requests make a batch with one completed job. Sent again, each is refused and nothing is reset."""
    batch_id = unique("batch")
    operations = {"PutItem": world.dynamodb.put_item, "UpdateItem": world.dynamodb.update_item}
    texts = blocks("In another language", "json")
    named = [text.replace("jobs-table", world.jobs_table).replace("batch_2024_12_17", batch_id) for text in texts]
    requests = [next(iter(json.loads(text).items())) for text in named]
    assert 4 == len(requests)
    for name, request in requests:
        operations[name](**request)
    for name, request in requests:
        with pytest.raises(world.dynamodb.exceptions.ConditionalCheckFailedException):
            operations[name](**request)
    data = world.get(batch_id).data
    assert (1, 1, 25) == tuple(data[name] for name in ("total_urls", "completed", "total_items_extracted"))
    assert "2024-12-17T10:30:09Z" == data["estimated_completion"]
    # The recorder sees the same state: its call is a no-op.
    BatchRecorder(world.jobs_table, world.dynamodb).complete(batch_id, "job_000001", 25)
