"""Our in-memory engines, that of `make run` and that of the histories, behave as DynamoDB does."""

import itertools
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from batch_progress.table import BATCH_KEY, JOB_PREFIX
from local_cloud import dynamodb
from local_cloud.template import tables
from tests.hostile.histories import engine
from tests.integration.world import World, unique

type Arguments = dict[str, Any]

CONDITIONS: Final = (
    "attribute_exists(#owner)",
    "attribute_exists(#owner) AND (attribute_not_exists(#made) OR #made <= :five)",
    "attribute_not_exists(#made) OR #made < :five OR NOT attribute_type(#made, :n)",
    "#made > :five AND attribute_type(#made, :n)",
    "attribute_exists(#owner) AND NOT #owner IN (:alice, :bob)",
    "#made BETWEEN :one AND :five",
    "#owner = :alice OR (#made = :five AND NOT attribute_exists(#owner))",
    "begins_with(#owner, :alice)",
    "#owner >= :bob",
)
UPDATES: Final = (
    "SET #made = :five",
    "SET #made = :one, #owner = :bob REMOVE #lease",
    "ADD #made :five",
    "SET #lease = if_not_exists(#lease, :one)",
    "SET #made = #made + :one",
    "SET #lease = :five REMOVE #made, #owner",
    "SET #lease = #made",
)
NAMES: Final = {"#owner": "owner_id", "#made": "counted_at", "#lease": "counting", "#url": "url"}
VALUES: Final = {
    ":one": {"N": "1"},
    ":five": {"N": "5"},
    ":alice": {"S": "alice"},
    ":bob": {"S": "bob"},
    ":n": {"S": "N"},
}
# The attributes of the item that a condition or an update meets.
ITEMS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {},
    {"owner_id": {"S": "alice"}},
    {"owner_id": {"S": "alicia"}, "counted_at": {"N": "5"}},
    {"owner_id": {"S": "bob"}, "counted_at": {"N": "4.5"}, "counting": {"N": "100"}},
    {"owner_id": {"S": "carol"}, "counted_at": {"S": "5"}},
    {"counted_at": {"N": "-5"}, "counting": {"S": "x"}},
)


def used(text: str, placeholders: Mapping[str, Any]) -> dict[str, Any]:
    return {token: value for token, value in placeholders.items() if token in text}


def answer(call: Any, arguments: Arguments) -> dict[str, Any]:  # noqa: ANN401  # botocore's method, or the engine's
    """Return what an operation answers, or the code of its error."""
    try:
        response: dict[str, Any] = call(arguments)
    except engine.Refused as error:
        return {"error": error.code} | ({"Item": error.item} if error.item else {})
    except dynamodb.Refused as error:
        return {"error": error.code} | details(error.details)
    except ClientError as error:
        return {"error": error.response["Error"]["Code"]} | details(error.response)
    others = ("ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics")
    return {name: value for name, value in response.items() if name not in others}


def details(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an error tells of items. Messages differ between engines."""
    found = {name: error[name] for name in ("Item", "CancellationReasons") if name in error}
    for reason in found.get("CancellationReasons", ()):
        reason.pop("Message", None)
    return found


type Call = Callable[[str, Arguments], dict[str, Any]]


def histories(table: str) -> Call:
    """Return the operations of the histories' engine."""
    memory = engine.Engine(time.time, random.Random(0))  # noqa: S311  # a repeatable test
    memory.create_table(table, "batch_id", "sk")
    return lambda operation, arguments: memory.call(operation, arguments)[0]


def local(table: str) -> Call:
    """Return the operations of the engine of `make run`."""
    jobs = next(one for one in tables() if one["TableName"] == "JobsTable")
    return dynamodb.DynamoDB([jobs | {"TableName": table}]).call


class Both:
    """The engine under test, and the one that it must behave as."""

    def __init__(self, world: World, memory: Call) -> None:
        self.memory = memory
        self.table = world.jobs_table
        self._dynamodb = world.dynamodb

    def answers(self, operation: str, arguments: Arguments, *, named: bool = True) -> list[dict[str, Any]]:
        """Return the answers of both; a request that is `named` is about the table."""
        given = arguments | {"TableName": self.table} if named else arguments
        return [
            answer(lambda given: getattr(self._dynamodb, xform_name(operation))(**given), given),
            answer(lambda given: self.memory(operation, given), given),
        ]

    def call(self, operation: str, **arguments: Any) -> None:  # noqa: ANN401  # DynamoDB's
        """Call both and compare."""
        expected, actual = self.answers(operation, arguments)
        assert expected == actual, (operation, arguments)

    def pages(self, operation: str, **arguments: Any) -> list[list[Any]]:  # noqa: ANN401  # DynamoDB's
        """Return the items of all pages of both.

        Whether there is an empty page after the last item is left open: engines differ.
        """
        walks: list[list[Any]] = [[], []]
        for number, walk in enumerate(walks):
            given = dict(arguments)
            while True:
                page = self.answers(operation, given)[number]
                if page["Items"]:
                    walk.append(page["Items"])
                if "LastEvaluatedKey" not in page:
                    break
                given["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return walks


@pytest.fixture(params=[histories, local])
def both(world: World, request: pytest.FixtureRequest) -> Both:
    return Both(world, request.param(world.jobs_table))


@pytest.fixture
def both_local(world: World) -> Both:
    return Both(world, local(world.jobs_table))


def test_conditions_and_updates(both: Both) -> None:
    """Whatever the item is like, a conditional update has the same effect and the same answer."""
    updates = itertools.cycle(UPDATES)
    for condition, attributes in itertools.product(CONDITIONS, ITEMS):
        update = next(updates)
        key = {"batch_id": {"S": unique("b")}, "sk": {"S": BATCH_KEY}}
        if attributes is not None:
            both.call("PutItem", Item=key | attributes)
        values = used(condition + update, VALUES)
        arguments = {
            "Key": key,
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": used(condition + update, NAMES),
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        } | ({"ExpressionAttributeValues": values} if values else {})
        expected, actual = both.answers("UpdateItem", arguments)
        if expected == {"error": "500"}:
            continue  # moto fails to compare values of different types
        assert expected == actual, arguments
        both.call("GetItem", Key=key, ConsistentRead=True)


def test_pages(both: Both) -> None:
    """A query returns the same items, page after page, for every limit and every range."""
    batch_id = unique("b")
    keys = [
        BATCH_KEY,
        "AAA",
        "JOB",
        "JOB$",
        "KEY",
        *(f"{JOB_PREFIX}{job}" for job in ("", "a", "B", "é", "10", "9", "\U0001f600")),
    ]
    for number, key in enumerate(keys):
        both.call("PutItem", Item={"batch_id": {"S": batch_id}, "sk": {"S": key}, "url": {"S": str(number)}})
    ranges: tuple[tuple[str, Arguments], ...] = (
        ("#b = :b", {}),
        ("#b = :b AND #sk BETWEEN :from AND :to", {":from": {"S": BATCH_KEY}, ":to": {"S": "JOB$"}}),
        ("#b = :b AND begins_with(#sk, :jobs)", {":jobs": {"S": JOB_PREFIX}}),
        ("#b = :b AND #sk > :from", {":from": {"S": BATCH_KEY}}),
    )
    for condition, values in ranges:
        for limit in (None, 1, 3, 100):
            arguments: Arguments = {
                "KeyConditionExpression": condition,
                "ExpressionAttributeNames": {"#b": "batch_id"} | ({"#sk": "sk"} if "#sk" in condition else {}),
                "ExpressionAttributeValues": {":b": {"S": batch_id}} | values,
                "ConsistentRead": True,
            }
            if limit is not None:
                arguments["Limit"] = limit
            expected, actual = both.pages("Query", **arguments)
            assert expected == actual
            assert actual


def test_projections(both: Both) -> None:
    key = {"batch_id": {"S": unique("b")}, "sk": {"S": BATCH_KEY}}
    both.call("PutItem", Item=key | {"owner_id": {"S": "alice"}, "revision": {"N": "7.5"}, "url": {"NULL": True}})
    for projection in ("sk", "#owner,revision", "#url, nowhere"):
        names = used(projection, NAMES)
        both.call(
            "GetItem",
            Key=key,
            ProjectionExpression=projection,
            **({"ExpressionAttributeNames": names} if names else {}),
        )
    both.call("DeleteItem", Key=key, ReturnValues="ALL_OLD")
    both.call("GetItem", Key=key)


def test_read_units(world: World, both: Both) -> None:
    """A page costs half a unit for each 4 KB that it reads, a consistent one twice as much."""
    batch_id = unique("b")
    for number in range(40):
        both.call("PutItem", Item={"batch_id": {"S": batch_id}, "sk": {"S": f"JOB#{number}"}, "url": {"S": "u" * 500}})
    for consistent in (False, True):
        arguments = {
            "TableName": world.jobs_table,
            "KeyConditionExpression": "batch_id = :b",
            "ExpressionAttributeValues": {":b": {"S": batch_id}},
            "ConsistentRead": consistent,
            "ReturnConsumedCapacity": "TOTAL",
        }
        response = both.memory("Query", arguments)
        assert (6.0 if consistent else 3.0) == response["ConsumedCapacity"]["CapacityUnits"]
        # moto reports one unit for everything.
        reported = world.dynamodb.query(**arguments)["ConsumedCapacity"]["CapacityUnits"]
        assert reported in (6.0 if consistent else 3.0, 1.0)


def test_pages_end_at_their_size(world: World, both: Both) -> None:
    """A page has at most 1 MB, and the next one goes on where it ended."""
    batch_id = unique("b")
    sizes = [380_000, 380_000, 380_000, 5]
    for number, size in enumerate(sizes):
        both.call("PutItem", Item={"batch_id": {"S": batch_id}, "sk": {"S": f"JOB#{number}"}, "url": {"S": "u" * size}})
    arguments: Arguments = {
        "TableName": world.jobs_table,
        "KeyConditionExpression": "batch_id = :b",
        "ExpressionAttributeValues": {":b": {"S": batch_id}},
        "ProjectionExpression": "sk",
    }
    first = both.memory("Query", arguments)
    second = both.memory("Query", arguments | {"ExclusiveStartKey": first["LastEvaluatedKey"]})
    assert ["JOB#0", "JOB#1"] == [item["sk"]["S"] for item in first["Items"]]
    assert ["JOB#2", "JOB#3"] == [item["sk"]["S"] for item in second["Items"]]
    assert "LastEvaluatedKey" not in second


def jobs(both: Both, *statuses: str) -> str:
    """Put a batch of jobs with these statuses; return its id."""
    batch_id = unique("b")
    for number, status in enumerate(statuses):
        key = {"batch_id": {"S": batch_id}, "sk": {"S": f"{JOB_PREFIX}{number}"}}
        both.call("PutItem", Item=key | {"status": {"S": status}, "items_extracted": {"N": str(number)}})
    return batch_id


def test_filters_and_directions(both_local: Both) -> None:
    """A filter leaves out items of a page, and a query can go backward."""
    batch_id = jobs(both_local, "completed", "failed", "pending", "failed", "completed")
    for forward in (True, False):
        for limit in (None, 2):
            expected, actual = both_local.pages(
                "Query",
                KeyConditionExpression="batch_id = :b AND begins_with(sk, :jobs)",
                FilterExpression="#status = :failed OR items_extracted > :two",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={
                    ":b": {"S": batch_id},
                    ":jobs": {"S": JOB_PREFIX},
                    ":failed": {"S": "failed"},
                    ":two": {"N": "2"},
                },
                ScanIndexForward=forward,
                **({"Limit": limit} if limit else {}),
            )
            assert expected == actual
            assert 3 == sum(len(page) for page in actual)


def test_counts(both_local: Both) -> None:
    batch_id = jobs(both_local, "completed", "failed")
    arguments = {"KeyConditionExpression": "batch_id = :b", "ExpressionAttributeValues": {":b": {"S": batch_id}}}
    both_local.call("Query", Select="COUNT", **arguments)


def test_scans_give_every_item_once(both_local: Both) -> None:
    """In any order of the partitions, and page after page.

    Not compared: the other engine's table has the items of other tests too.
    """
    batch_ids = {jobs(both_local, "completed", "failed", "pending") for _ in range(3)}
    for limit in ({}, {"Limit": 1}, {"Limit": 2}):
        items = []
        given: Arguments = {"TableName": both_local.table, **limit}
        for _page in range(10):
            page = both_local.memory("Scan", given)
            items += [(item["batch_id"]["S"], item["sk"]["S"]) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            given["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        assert len(items) == len(set(items)) == 9
        assert batch_ids == {batch_id for batch_id, _ in items}


def test_batches_of_writes(both_local: Both) -> None:
    """Items are put and deleted; a batch that writes one item twice is refused."""
    batch_id = jobs(both_local, "completed", "failed")
    keys = [{"batch_id": {"S": batch_id}, "sk": {"S": f"{JOB_PREFIX}{number}"}} for number in range(3)]
    writes = [
        {"DeleteRequest": {"Key": keys[0]}},
        {"PutRequest": {"Item": keys[1] | {"status": {"S": "pending"}}}},
        {"PutRequest": {"Item": keys[2]}},
    ]
    for requests in (writes, [writes[0], writes[0]]):
        expected, actual = both_local.answers(
            "BatchWriteItem", {"RequestItems": {both_local.table: requests}}, named=False
        )
        assert expected == actual
    for key in keys:
        both_local.call("GetItem", Key=key, ConsistentRead=True)


@pytest.mark.parametrize("holds", [True, False])
def test_a_transaction_writes_all_or_nothing(both_local: Both, holds: bool) -> None:  # noqa: FBT001
    """The reasons of a cancelled one are in the order of its actions."""
    batch_id = jobs(both_local, "completed", "failed", "pending")
    keys = [{"batch_id": {"S": batch_id}, "sk": {"S": f"{JOB_PREFIX}{number}"}} for number in range(4)]
    table = {"TableName": both_local.table}
    status = {"ExpressionAttributeNames": {"#status": "status"}}
    actions: list[Arguments] = [
        {
            "Update": table
            | status
            | {
                "Key": keys[0],
                "UpdateExpression": "SET #status = :new",
                "ExpressionAttributeValues": {":new": {"S": "cancelled"}},
            }
        },
        {"Delete": table | {"Key": keys[1]}},
        {
            "ConditionCheck": table
            | status
            | {
                "Key": keys[2],
                "ConditionExpression": "#status = :wanted",
                "ExpressionAttributeValues": {":wanted": {"S": "pending" if holds else "completed"}},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        },
        {"Put": table | {"Item": keys[3], "ConditionExpression": "attribute_not_exists(sk)"}},
    ]
    expected, actual = both_local.answers("TransactWriteItems", {"TransactItems": actions}, named=False)
    assert expected == actual
    assert holds == ("error" not in actual)
    for key in keys:
        both_local.call("GetItem", Key=key, ConsistentRead=True)
