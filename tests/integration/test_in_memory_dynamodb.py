"""The in-memory DynamoDB of the histories behaves as DynamoDB does."""

import itertools
import random
import time
from collections.abc import Mapping
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from batch_progress.table import BATCH_KEY, JOB_PREFIX
from tests.hostile.histories.engine import Engine, Refused
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
    except (ClientError, Refused) as error:
        code = error.code if isinstance(error, Refused) else error.response["Error"]["Code"]
        item = error.item if isinstance(error, Refused) else error.response.get("Item")
        return {"error": code} | ({"Item": item} if item else {})
    return {name: value for name, value in response.items() if name not in ("ResponseMetadata", "ConsumedCapacity")}


class Both:
    """The engine under test, and the one that it must behave as."""

    def __init__(self, world: World) -> None:
        self.memory = Engine(time.time, random.Random(0))  # noqa: S311  # a repeatable test
        self.memory.create_table(world.jobs_table, "batch_id", "sk")
        self._table = world.jobs_table
        self._dynamodb = world.dynamodb

    def answers(self, operation: str, arguments: Arguments) -> list[dict[str, Any]]:
        """Return the answers of both."""
        method = {"Query": "query", "GetItem": "get_item", "UpdateItem": "update_item"} | {
            "PutItem": "put_item",
            "DeleteItem": "delete_item",
        }
        given = arguments | {"TableName": self._table}
        return [
            answer(lambda given: getattr(self._dynamodb, method[operation])(**given), given),
            answer(lambda given: self.memory.call(operation, given)[0], given),
        ]

    def call(self, operation: str, **arguments: Any) -> None:  # noqa: ANN401  # DynamoDB's
        """Call both and compare."""
        expected, actual = self.answers(operation, arguments)
        assert expected == actual, (operation, arguments)

    def pages(self, **arguments: Any) -> list[list[Any]]:  # noqa: ANN401  # DynamoDB's
        """Return the items of all pages of both.

        Whether there is an empty page after the last item is left open: engines differ.
        """
        walks: list[list[Any]] = [[], []]
        for engine, walk in enumerate(walks):
            given = dict(arguments)
            while True:
                page = self.answers("Query", given)[engine]
                if page["Items"]:
                    walk.append(page["Items"])
                if "LastEvaluatedKey" not in page:
                    break
                given["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return walks


@pytest.fixture
def both(world: World) -> Both:
    return Both(world)


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
            expected, actual = both.pages(**arguments)
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
        response, served = both.memory.call("Query", arguments)
        assert (6.0 if consistent else 3.0) == served.units == response["ConsumedCapacity"]["CapacityUnits"]
        # moto reports one unit for everything.
        reported = world.dynamodb.query(**arguments)["ConsumedCapacity"]["CapacityUnits"]
        assert reported in (served.units, 1.0)


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
    first, _ = both.memory.call("Query", arguments)
    second, _ = both.memory.call("Query", arguments | {"ExclusiveStartKey": first["LastEvaluatedKey"]})
    assert ["JOB#0", "JOB#1"] == [item["sk"]["S"] for item in first["Items"]]
    assert ["JOB#2", "JOB#3"] == [item["sk"]["S"] for item in second["Items"]]
    assert "LastEvaluatedKey" not in second
