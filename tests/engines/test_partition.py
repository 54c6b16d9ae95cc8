"""The proxy in front of DynamoDB Local that has a partition's limits: its answers are those of the engine."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.client import BaseClient

from batch_progress import table
from batch_progress.table import AFTER_JOBS, BATCH_KEY, JOB_PREFIX
from benchmarks.partition import Partition
from local_cloud.template import tables
from tests.hostile.faults import client
from tests.hostile.misbehaving import misbehaving

TABLE = "PartitionJobs"
JOBS = 12
BATCH = "batch"
WHOLE = {
    "KeyConditionExpression": "#batch_id = :batch_id AND #sk BETWEEN :from AND :to",
    "ExpressionAttributeValues": {":batch_id": {"S": BATCH}, ":from": {"S": BATCH_KEY}, ":to": {"S": AFTER_JOBS}},
}
JOBS_ALONE = {
    "KeyConditionExpression": "#batch_id = :batch_id AND begins_with(#sk, :jobs)",
    "ExpressionAttributeValues": {":batch_id": {"S": BATCH}, ":jobs": {"S": JOB_PREFIX}},
}


def named(*names: str) -> dict[str, Any]:
    return {
        "ProjectionExpression": ",".join(f"#{name}" for name in names),
        "ExpressionAttributeNames": {f"#{name}": name for name in {*names, "batch_id", "sk"}},
    }


@pytest.fixture(scope="module")
def clients(dynamodb_endpoint: str) -> Iterator[tuple[BaseClient, BaseClient]]:
    """Clients of the proxy and of the engine behind it; all writes went through the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        engine = client(dynamodb_endpoint)
        engine.create_table(**next(one for one in tables() if one["TableName"] == "JobsTable") | {"TableName": TABLE})
        partition = Partition(dynamodb_endpoint, TABLE)
        with misbehaving(partition.answer) as server:
            line = client(server.address)
            write(line)
            yield line, engine
            line.close()
        partition.close()
        engine.delete_table(TableName=TABLE)
        engine.close()


def write(line: BaseClient) -> None:
    """Make rows by every kind of write: three pages of them."""
    items = [table.item(batch_id=BATCH, sk=BATCH_KEY, owner_id="demo", total_urls=JOBS)]
    items += [
        table.item(batch_id=BATCH, sk=f"{JOB_PREFIX}{number:02}", url="x" * 200_000, status="pending")
        for number in range(JOBS)
    ]
    for item in items:
        line.batch_write_item(RequestItems={TABLE: [{"PutRequest": {"Item": item}}]})
    line.put_item(TableName=TABLE, Item=table.item(batch_id=BATCH, sk=f"{JOB_PREFIX}zz", url="https://example.com"))
    line.delete_item(TableName=TABLE, Key=table.job_key(BATCH, "03"))
    answer = update(line, "05", "pending", "completed")
    assert "Attributes" not in answer
    with pytest.raises(line.exceptions.ConditionalCheckFailedException):
        update(line, "06", "processing", "completed")


def update(line: BaseClient, job: str, before: str, after: str) -> dict[str, Any]:
    answer: dict[str, Any] = line.update_item(
        TableName=TABLE,
        Key=table.job_key(BATCH, job),
        UpdateExpression="SET #status = :after",
        ConditionExpression="#status = :before",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":before": {"S": before}, ":after": {"S": after}},
    )
    return answer


def pages(of: BaseClient, **query: object) -> list[dict[str, Any]]:
    """Return all pages of a query, without the metadata of the responses."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        answer = of.query(TableName=TABLE, ReturnConsumedCapacity="TOTAL", **{**query, **more})
        answer.pop("ResponseMetadata")
        found.append(answer)
        if "LastEvaluatedKey" not in answer:
            return found
        more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


@pytest.mark.parametrize(
    "query",
    [
        WHOLE | named("sk", "url", "status"),
        WHOLE | named("sk", "status", "owner_id") | {"Limit": 5},
        WHOLE | named("sk", "status") | {"ConsistentRead": True},
        JOBS_ALONE | named("sk", "status"),
        JOBS_ALONE | named("sk") | {"Limit": JOBS},
        JOBS_ALONE | named("sk") | {"ExclusiveStartKey": table.job_key(BATCH, "04"), "Limit": 3},
        JOBS_ALONE | named("sk") | {"ScanIndexForward": False},
    ],
)
def test_queries(clients: tuple[BaseClient, BaseClient], query: dict[str, Any]) -> None:
    """The same rows, on the same pages, for the same units."""
    line, engine = clients
    expected = pages(engine, **query)
    assert sum(page["Count"] for page in expected) > JOBS / 2
    assert expected == pages(line, **query)


@pytest.mark.parametrize("key", [table.batch_key(BATCH), table.job_key(BATCH, "05"), table.job_key(BATCH, "none")])
def test_single_reads(clients: tuple[BaseClient, BaseClient], key: dict[str, Any]) -> None:
    """The same item for the same units."""
    line, engine = clients
    asked = {"TableName": TABLE, "Key": key, "ReturnConsumedCapacity": "TOTAL", "ConsistentRead": True}
    expected, answered = engine.get_item(**asked), line.get_item(**asked)
    for answer in (expected, answered):
        answer.pop("ResponseMetadata")
    assert expected == answered
