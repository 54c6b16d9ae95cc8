"""Two to four workers at one job: attempts, redeliveries, deaths, cancelling and the supervisor in any order."""

import os
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_progress.recorder import BatchRecorder
from batch_progress.table import Item, job_key
from tests.integration.interleavings import History

# `make interleavings` runs 10,000.
HISTORIES = int(os.environ.get("HISTORIES", "1000"))
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
    """The jobs table in this process, one call at a time.

    It knows the expressions that the recorder and the supervisor use, and is fast enough for 10,000 histories.
    tests/engines runs some of the same histories on DynamoDB Local.
    """

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}

    def put_item(self, *, TableName: str, Item: Item) -> None:  # noqa: N803  # botocore's names
        self._items[repr((TableName, Item["batch_id"], Item["sk"]))] = dict(Item)

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool) -> dict[str, Item]:  # noqa: N803
        assert ConsistentRead
        found = self._items.get(repr((TableName, Key["batch_id"], Key["sk"])))
        return {} if found is None else {"Item": dict(found)}

    def update_item(self, **arguments: Any) -> dict[str, Item]:  # noqa: ANN401  # botocore's
        key, name = arguments["Key"], arguments["TableName"]
        item = self.get_item(TableName=name, Key=key, ConsistentRead=True).get("Item", {})
        known = arguments["ExpressionAttributeNames"] | arguments["ExpressionAttributeValues"]
        text = f"{arguments['UpdateExpression']} {arguments['ConditionExpression']}"
        assert known.keys() == set(re.findall(r"[#:]\w+", text))
        if not condition(arguments["ConditionExpression"])(item, known):
            code = {"Error": {"Code": "ConditionalCheckFailedException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(code | {"Item": item}, "UpdateItem")
        sets, _, removes = arguments["UpdateExpression"].removeprefix("SET ").partition(" REMOVE ")
        new = {}
        for path, value in re.findall(r"(#\w+) = (:\w+|if_not_exists\(#\w+, :\w+\) \+ :\w+)", sets):
            if value.startswith(":"):
                new[known[path]] = known[value]
            else:
                old, default, more = re.findall(r"[#:]\w+", value)
                total = sum(int(number["N"]) for number in (item.get(known[old], known[default]), known[more]))
                new[known[path]] = {"N": str(total)}
        item |= new
        for path in filter(None, removes.split(", ")):
            item.pop(known[path], None)
        self.put_item(TableName=name, Item=item)
        return {"Attributes": new}


@cache
def condition(text: str) -> Callable[[Item, dict[str, Any]], bool]:
    """Compile a condition to Python: `AND`, `OR` and `NOT` bind as Python's do."""
    source = re.sub(r"(#\w+) IN \((.*?)\)", r"(get(\1) in [\2])", text)
    source = re.sub(r"(#\w+) BETWEEN (:\w+) AND (:\w+)", r"between(get(\1), \2, \3)", source)
    source = re.sub(r"(#\w+) = (:\w+)", r"(get(\1) == \2)", source)
    source = re.sub(r"attribute_exists\((#?\w+)\)", r"(get(\1) is not None)", source)
    source = re.sub(r"attribute_not_exists\((#?\w+)\)", r"(get(\1) is None)", source)
    source = re.sub(r"attribute_type\((#\w+), (:\w+)\)", r"(\2['S'] in (get(\1) or {}))", source)
    source = source.replace(" AND ", " and ").replace(" OR ", " or ").replace("NOT ", "not ").replace("get(sk)", "item")
    source = re.sub(r"[#:]\w+", lambda found: f"known[{found[0]!r}]", source)
    compiled = compile(source, text, "eval")

    def holds(item: Item, known: dict[str, Any]) -> bool:
        return bool(eval(compiled, {"item": item or None, "get": item.get, "between": between, "known": known}))  # noqa: S307

    return holds


def between(value: dict[str, str] | None, least: dict[str, str], most: dict[str, str]) -> bool:
    return value is not None and "N" in value and int(least["N"]) <= int(value["N"]) <= int(most["N"])


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
