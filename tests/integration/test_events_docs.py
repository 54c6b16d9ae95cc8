"""docs/events.md: its examples are events of the supervisor, its templates are valid, and its consumer works."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.api import ManualArgs, lint_file

from batch_progress.model import Batch
from batch_progress.progress import Basis, Counts, Estimate, Failures, Progress, Summary
from batch_progress.supervision import SOURCE, Announced, announcement, event
from batch_progress.table import JobStatus
from tests.integration.world import World, moment, unique

TEXT = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]
TEMPLATES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
(CONSUMER,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["detail-type"]))
def test_an_example_is_what_the_supervisor_puts(example: dict[str, Any]) -> None:
    """Made again from its own values, it is the same."""
    detail, summary = example["detail"], example["detail"]["summary"]
    counts = Counts(*(detail[name] for name in ("total_urls", "completed", "failed", "total_items_extracted")))
    at = moment(detail["at"])
    end = int(at.timestamp())
    statuses = {JobStatus(name): jobs for name, jobs in summary["statuses"].items()}
    assert counts.total_urls == sum(statuses.values())
    basis = Basis(detail["id"].split("/")[1])
    failures = [Failures(**each) for each in summary["failures"]]
    as_of = moment(summary["as_of"]).timestamp()
    counted = Summary(statuses, failures)
    progress = Progress(as_of, counts, Estimate(basis, end, end, end), counted)
    batch = Batch(detail["batch_id"], detail["owner_id"], revision=int(detail["id"].split("/")[2]))
    told = announcement(progress, batch.revision, Announced(), ended=at, moved=at)
    assert told
    made = event(told, batch, progress, counted)
    assert example == {"source": SOURCE, "detail-type": made.detail_type, "detail": made.detail}
    # Fields are listed in the order in which they come.
    assert json.dumps(detail) == json.dumps(made.detail)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_valid(template: str, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text('AWSTemplateFormatVersion: "2010-09-09"\n' + template, encoding="utf-8")
    assert [] == [str(match) for match in lint_file(file, ManualArgs(regions=["eu-central-1"]))]


def test_there_is_a_template_for_each_target() -> None:
    assert 3 == len(TEMPLATES)
    patterns = "".join(TEMPLATES)
    assert patterns.count(f"source: [{SOURCE}]") == 3


def test_the_consumer_does_its_work_once(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For an event that comes twice."""
    name = unique("seen")
    boto3.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "event_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "event_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    monkeypatch.setenv("SEEN_TABLE", name)
    code: dict[str, Any] = {}
    exec(CONSUMER, code)  # noqa: S102  # the document's own
    records = [{"body": json.dumps(example)} for example in (*EXAMPLES, *EXAMPLES)]
    code["handler"]({"Records": records}, None)
    assert ["batch_xyz789 8 2", "batch_xyz789 6 1"] == capsys.readouterr().out.splitlines()
    world.dynamodb.delete_table(TableName=name)
