"""Two to four workers at one job: attempts, redeliveries, deaths, cancelling and the supervisor in any order."""

import os
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.exceptions import ConditionalCheckFailed
from moto.dynamodb.models import DynamoDBBackend

from batch_progress.recorder import BatchRecorder
from batch_progress.table import job_key
from local_cloud.template import tables
from tests.integration.interleavings import History

# `make interleavings` runs 10,000.
HISTORIES = int(os.environ.get("HISTORIES", "120"))
# Every cell of the table in docs/recording.md: the job's status, the call, and the status after it.
CELLS = {
    *(
        "pending start processing",
        "pending fail refused",
        "pending complete completed",
        "pending fail failed",
        "pending cancel cancelled",
    ),
    *("processing start processing", "processing complete completed", "processing fail failed"),
    *("processing fail processing", "processing cancel cancelled", "processing report processing"),
    *("completed start refused", "completed complete completed", "completed fail completed"),
    *("completed cancel refused", "completed report refused"),
    *("failed start refused", "failed start processing", "failed complete completed", "failed fail failed"),
    *("failed fail refused", "failed cancel refused", "failed report refused"),
    *("cancelled start refused", "cancelled complete refused", "cancelled fail refused"),
    *("cancelled cancel cancelled", "cancelled report refused"),
    *("processing lose failed", "processing lose processing", "completed lose completed"),
    *("processing fail refused", "processing report refused", "died"),
}


class Table:
    """The jobs table in this process: moto's expressions without its server, one call at a time."""

    def __init__(self) -> None:
        self._engine = DynamoDBBackend("eu-central-1", "123456789012")
        (jobs,) = [table for table in tables() if table["TableName"] == "JobsTable"]
        schema, attributes = jobs["KeySchema"], jobs["AttributeDefinitions"]
        self._engine.create_table(
            "JobsTable",
            schema,
            None,
            attributes,
            None,
            None,
            None,
            "PAY_PER_REQUEST",
            None,
            [],
            None,
            None,
        )

    def put_item(self, *, TableName: str, Item: dict[str, Any]) -> None:  # noqa: N803  # botocore's names
        self._engine.put_item(TableName, Item, overwrite=True)

    def get_item(self, *, TableName: str, Key: dict[str, Any], ConsistentRead: bool) -> dict[str, Any]:  # noqa: N803
        assert ConsistentRead
        found = self._engine.get_item(TableName, Key)
        return {} if found is None else {"Item": found.to_json()["Attributes"]}

    def update_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # botocore's
        key, name = arguments["Key"], arguments["TableName"]
        try:
            item = self._engine.update_item(
                name,
                key,
                arguments["UpdateExpression"],
                arguments["ExpressionAttributeNames"],
                arguments["ExpressionAttributeValues"],
                condition_expression=arguments["ConditionExpression"],
            )
        except ConditionalCheckFailed as error:
            found = self.get_item(TableName=name, Key=key, ConsistentRead=True)
            code = {"Error": {"Code": "ConditionalCheckFailedException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(code | found, "UpdateItem") from error
        return {"Attributes": item.to_json()["Attributes"]}


@pytest.mark.timeout(0)
def test_random_interleavings_agree_with_the_table() -> None:
    """After each call the outcome and the item are the model's. Each cell of the table occurs."""
    table, kinds = Table(), set[str]()
    recorder = BatchRecorder("JobsTable", table)
    for seed in range(HISTORIES):
        where = {"TableName": "JobsTable", "Key": job_key(f"batch_{seed}", "job_000001")}
        history = History(recorder, table, where, seed)
        history.run()
        kinds |= history.kinds
    assert CELLS <= kinds
