"""The read units in docs/operations.md are those that DynamoDB Local counts."""

from datetime import UTC, datetime

import pytest

from benchmarks.cost import size, units
from benchmarks.workload import batch_id, items
from tests.integration.world import World


@pytest.mark.parametrize("jobs", [10, 50, 1_000])
def test_a_full_read_costs_what_the_table_says(world: World, jobs: int) -> None:
    """Half a unit for each 4 KB of the items read, rounded up, whatever attributes are requested."""
    batch = list(items(jobs, datetime.now(UTC)))
    world.put_items(batch)
    answer = world.dynamodb.query(
        TableName=world.jobs_table,
        KeyConditionExpression="batch_id = :batch_id",
        ExpressionAttributeValues={":batch_id": {"S": batch_id(jobs)}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert jobs + 1 == answer["Count"]
    assert units(size(item) for item in batch) == answer["ConsumedCapacity"]["CapacityUnits"]


def test_an_unchanged_poll_costs_half_a_unit(world: World) -> None:
    """It reads the batch item only, however many jobs there are."""
    batch = list(items(10, datetime.now(UTC)))
    world.put_items(batch)
    key = {"batch_id": {"S": batch_id(10)}, "sk": {"S": "BATCH"}}
    answer = world.dynamodb.get_item(TableName=world.jobs_table, Key=key, ReturnConsumedCapacity="TOTAL")
    assert 0.5 == answer["ConsumedCapacity"]["CapacityUnits"]
