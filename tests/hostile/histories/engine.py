"""An in-memory DynamoDB for the operations that the functions and the recorder use.

Every operation is atomic. Its responses are DynamoDB's JSON, so that the project's own decoder reads them. It keeps
every version of every item, so that an oracle can see what a read saw.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import Any

from local_cloud import expressions
from local_cloud.dynamodb import PAGE_BYTES, UNIT_BYTES, Item, item_size, normalized, returned
from local_cloud.expressions import Invalid, Value

type Arguments = dict[str, Any]


class Refused(Exception):
    """A non-retryable error.

    Attributes:
        code: DynamoDB's error code.
        item: The existing item, where a failed condition was to return it.
    """

    def __init__(self, code: str, message: str, item: Item | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.item = item


@dataclass(frozen=True)
class Version:
    """An item after a change. `item` is `None` after a deletion.

    Attributes:
        number: Versions of all items of a table are numbered in the order of their changes.
        at: When it was written, in epoch seconds.
        item: All attributes.
        size: Its (weighted) bytes.
    """

    number: int
    at: float
    item: Item | None
    size: float = 0.0


@dataclass(frozen=True)
class Key:
    """The primary key of an item; `sort` is empty in a table without a sort key."""

    partition: str
    sort: str


@dataclass(frozen=True)
class Change:
    """A change of an item, as the table's stream tells it."""

    key: Key
    before: Version | None
    after: Version


@dataclass(frozen=True)
class Served:
    """What an operation read or wrote.

    Attributes:
        operation: `Query`, `GetItem`, `UpdateItem`, `PutItem` or `DeleteItem`.
        arguments: The request.
        at: When, in epoch seconds.
        table: The table's name.
        versions: The versions that were read, in the order of the sort key, or the one that was written.
        units: The read units reported, twice as many for a consistent read.
        from_key: Of a query: the sort key after which it began, or the first that its condition admits.
        to_key: Of a query: the last sort key that it looked at, `None` if it reached the end.
        before: Of a write: the version before.
    """

    operation: str
    arguments: Arguments
    at: float
    table: str
    versions: Sequence[Version]
    units: float = 0.0
    from_key: str = ""
    to_key: str | None = None
    before: Version | None = None

    @property
    def consistent(self) -> bool:
        return bool(self.arguments.get("ConsistentRead"))


type Partitions = dict[str, dict[str, Version]]


@dataclass
class Replica:
    """A copy of a table that lags behind: the first `applied` changes."""

    partitions: Partitions = field(default_factory=dict)
    applied: int = 0


class Table:
    """A table with its history.

    Args:
        name: Its name.
        partition_key: The name of its partition key.
        sort_key: The name of its sort key, empty without one.
        clock: Returns epoch seconds.
    """

    def __init__(self, name: str, partition_key: str, sort_key: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.partition_key = partition_key
        self.sort_key = sort_key
        self.partitions: Partitions = {}
        self.changes: list[Change] = []
        self.replicas = [Replica(), Replica()]
        # Every byte of an item counts this many times, in units and for the size of a page, so that a batch of some
        # dozen jobs costs as much as one of thousands.
        self.weight: Callable[[Key], float] = lambda _key: 1.0
        self._clock = clock

    def key(self, item: Mapping[str, Value]) -> Key:
        """Return the key in an item or in a request.

        Raises:
            Refused: It has none.
        """
        try:
            return Key(item[self.partition_key]["S"], item[self.sort_key]["S"] if self.sort_key else "")
        except (KeyError, TypeError) as error:
            raise Refused("ValidationException", "One of the required keys was not given a value") from error

    def now(self, key: Key) -> Version | None:
        """Return the current version of an item, `None` if it does not exist."""
        return self.partitions.get(key.partition, {}).get(key.sort)

    def write(self, key: Key, item: Item | None) -> Version:
        """Store an item, or delete it if `item` is `None`."""
        before = self.now(key)
        size = 0 if item is None else item_size(item) * self.weight(key)
        version = Version(len(self.changes) + 1, self._clock(), item, size)
        self.changes.append(Change(key, before, version))
        _apply(self.partitions, key, version)
        return version

    def lagging(self, replica: Replica, applied: int) -> Partitions:
        """Bring a replica forward to at least `applied` changes and return its items."""
        for change in islice(self.changes, replica.applied, max(applied, replica.applied)):
            _apply(replica.partitions, change.key, change.after)
        replica.applied = max(applied, replica.applied)
        return replica.partitions


def _apply(partitions: Partitions, key: Key, version: Version) -> None:
    partition = partitions.setdefault(key.partition, {})
    if version.item is None:
        partition.pop(key.sort, None)
    else:
        partition[key.sort] = version


class Engine:
    """The tables and the operations on them.

    Attributes:
        tables: By name.
        page_bytes: The largest size of a page of a query, in (weighted) bytes.
        lag: The most seconds by which eventually consistent reads are behind.
        early_end: The probability that a page ends before it is full.
        random: The source of what DynamoDB leaves open.
    """

    def __init__(self, clock: Callable[[], float], source: random.Random) -> None:
        self.tables: dict[str, Table] = {}
        self.page_bytes = PAGE_BYTES
        self.lag = 0.0
        self.early_end = 0.0
        self.random = source
        self._clock = clock

    def create_table(self, name: str, partition_key: str, sort_key: str = "") -> Table:
        """Create an empty table."""
        self.tables[name] = Table(name, partition_key, sort_key, self._clock)
        return self.tables[name]

    def call(self, operation: str, arguments: Arguments) -> tuple[dict[str, Any], Served]:
        """Carry out an operation; return DynamoDB's response and what it read or wrote.

        Raises:
            Refused: DynamoDB would refuse the request.
        """
        try:
            table = self.tables[arguments["TableName"]]
        except KeyError as error:
            raise Refused("ResourceNotFoundException", "Requested resource not found") from error
        try:
            match operation:
                case "Query":
                    return self._query(table, arguments)
                case "GetItem":
                    return self._get(table, arguments)
                case "UpdateItem" | "PutItem" | "DeleteItem":
                    return self._write(table, operation, arguments)
        except Invalid as error:
            raise Refused("ValidationException", str(error)) from error
        raise Refused("UnknownOperationException", operation)

    def _partitions(self, table: Table, arguments: Arguments) -> Partitions:
        """Return the items that a read sees: the current ones, or those of a replica that lags behind."""
        if arguments.get("ConsistentRead") or not self.lag:
            return table.partitions
        replica = self.random.choice([None, *table.replicas])
        if replica is None:
            return table.partitions
        since = self._clock() - self.lag
        least = len(table.changes)
        while least > 0 and table.changes[least - 1].after.at > since:
            least -= 1
        return table.lagging(replica, self.random.randint(least, len(table.changes)))

    def _units(self, size: float, arguments: Arguments) -> float:
        return max(1, ceil(size / UNIT_BYTES)) * (1.0 if arguments.get("ConsistentRead") else 0.5)

    def _query(self, table: Table, arguments: Arguments) -> tuple[dict[str, Any], Served]:
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        condition, projection = arguments["KeyConditionExpression"], arguments.get("ProjectionExpression")
        expressions.check_placeholders(names, values, condition, projection, arguments.get("FilterExpression"))
        if arguments.get("FilterExpression") or not arguments.get("ScanIndexForward", True):
            raise Invalid("Filters and backward queries are not supported here")
        comparisons = expressions.key_condition(condition, names, values)
        match comparisons.pop(table.partition_key, None):
            case ("compare", "=", _, ("value", token)):
                partition = self._partitions(table, arguments).get(values[token]["S"], {})
            case _:
                raise Invalid("Query condition missed key schema element")
        sort = comparisons.pop(table.sort_key, None)
        if comparisons:
            raise Invalid("Query condition missed key schema element")
        start = table.key(arguments["ExclusiveStartKey"]).sort if "ExclusiveStartKey" in arguments else None
        keys = sorted(partition)
        keys = [key for key in keys[slice(*expressions.between(sort, values, keys))] if start is None or key > start]
        page, size, cut = self._page([partition[key] for key in keys], arguments.get("Limit"))
        wanted = expressions.projection(projection, names)
        items = [expressions.projected(wanted, version.item or {}) for version in page]
        response: dict[str, Any] = {"Items": items, "Count": len(items), "ScannedCount": len(items)}
        to_key = keys[len(page) - 1] if cut else None
        if to_key is not None:
            response["LastEvaluatedKey"] = {
                name: (page[-1].item or {})[name] for name in (table.partition_key, table.sort_key) if name
            }
        units = self._units(size, arguments)
        low = _lowest(sort, values) if start is None else start
        served = Served("Query", arguments, self._clock(), table.name, page, units, low, to_key)
        return _with_capacity(response, arguments, units), served

    def _page(self, versions: list[Version], limit: int | None) -> tuple[list[Version], float, bool]:
        """Return the versions on the page, their size, and whether the page ends before the last one may be known."""
        if limit is not None and limit < 1:
            raise Invalid("Limit must be at least 1")
        page: list[Version] = []
        size = 0.0
        for version in versions:
            if page and size + version.size > self.page_bytes:
                return page, size, True
            if page and self.early_end and self.random.random() < self.early_end / len(versions):
                return page, size, True
            page.append(version)
            size += version.size
            if len(page) == limit:
                return page, size, True
        return page, size, False

    def _get(self, table: Table, arguments: Arguments) -> tuple[dict[str, Any], Served]:
        names, projection = arguments.get("ExpressionAttributeNames", {}), arguments.get("ProjectionExpression")
        expressions.check_placeholders(names, {}, projection)
        key = table.key(arguments["Key"])
        version = self._partitions(table, arguments).get(key.partition, {}).get(key.sort)
        response: dict[str, Any] = {}
        if version is not None and version.item is not None:
            response["Item"] = expressions.projected(expressions.projection(projection, names), version.item)
        units = self._units(version.size if version else 0.0, arguments)
        served = Served("GetItem", arguments, self._clock(), table.name, [version] if version else [], units)
        return _with_capacity(response, arguments, units), served

    def _write(self, table: Table, operation: str, arguments: Arguments) -> tuple[dict[str, Any], Served]:
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        condition, update = arguments.get("ConditionExpression"), arguments.get("UpdateExpression")
        expressions.check_placeholders(names, values, condition, update)
        key = table.key(arguments["Item"] if operation == "PutItem" else arguments["Key"])
        before = table.now(key)
        old = before.item if before else None
        if condition and not expressions.holds(condition, old, names, values):
            wanted = arguments.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            raise Refused("ConditionalCheckFailedException", "The conditional request failed", old if wanted else None)
        new: Item | None = None
        if operation == "PutItem":
            new = normalized(arguments["Item"])
        elif operation == "UpdateItem":
            identity = dict(arguments["Key"])
            new = normalized(expressions.updated(update or "", old or identity, names, values))
            if any(new.get(name) != value for name, value in identity.items()):
                raise Invalid("Cannot update attribute. This attribute is part of the key")
        version = table.write(key, new)
        served = Served(operation, arguments, self._clock(), table.name, [version], before=before)
        return returned(arguments.get("ReturnValues", "NONE"), old, new), served


def _lowest(sort: expressions.Node | None, values: expressions.Values) -> str:
    """Return the first sort key that a comparison admits."""
    match sort:
        case ("between", _, ("value", token), _) | ("call", "begins_with", [_, ("value", token)]):
            return str(values[token]["S"])
        case ("compare", "=" | ">" | ">=", _, ("value", token)):
            return str(values[token]["S"])
    return ""


def _with_capacity(response: dict[str, Any], arguments: Arguments, units: float) -> dict[str, Any]:
    if arguments.get("ReturnConsumedCapacity", "NONE") != "NONE":
        response["ConsumedCapacity"] = {"TableName": arguments["TableName"], "CapacityUnits": units}
    return response
