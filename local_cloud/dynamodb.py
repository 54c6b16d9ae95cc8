"""An in-memory DynamoDB with the operations that the functions, the recorder and the command line use.

Every operation is atomic, and costs no more in a large table than in a small one. What is not implemented is refused,
never ignored: operations, arguments, and expressions on parts of an attribute.
"""

import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import msgspec

from local_cloud import expressions
from local_cloud.expressions import Invalid, Value

type Item = dict[str, Value]
type Arguments = dict[str, Any]
type Response = dict[str, Any]
# A partition key and a sort key. The sort key is empty in a table without one.
type Key = tuple[str, str]

UNIT_BYTES: Final = 4_096
PAGE_BYTES: Final = 1_048_576
_WRITE_UNIT_BYTES: Final = 1_024
_LARGEST_ITEM: Final = 409_600
_LONGEST_KEYS: Final = (2_048, 1_024)
_MOST_IN_A_TRANSACTION: Final = 100
_MOST_IN_A_BATCH: Final = 25
# The arguments that are supported.
_READ: Final = {
    "TableName",
    "ConsistentRead",
    "ProjectionExpression",
    "ExpressionAttributeNames",
    "ReturnConsumedCapacity",
}
_PAGE: Final = _READ | {"ExpressionAttributeValues", "FilterExpression", "Limit", "ExclusiveStartKey", "Select"}
_WRITE: Final = {
    "TableName",
    "ConditionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ReturnValues",
    "ReturnValuesOnConditionCheckFailure",
    "ReturnConsumedCapacity",
    "ReturnItemCollectionMetrics",
}
_encoder: Final = msgspec.json.Encoder()
_object: Final = msgspec.json.Decoder(dict[str, Any])


class Refused(Exception):
    """DynamoDB would refuse the request.

    Attributes:
        code: DynamoDB's error code.
        message: What is wrong.
        details: The other fields of the error.
    """

    def __init__(self, code: str, message: str, **details: Any) -> None:  # noqa: ANN401  # DynamoDB's JSON
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True, slots=True)
class _Stored:
    """An item, which is never changed.

    Attributes:
        item: Its attributes.
        size: The bytes that DynamoDB charges for it.
        encoded: The attributes of each projection that has been read, as JSON.
    """

    item: Item
    size: int
    encoded: dict[tuple[str, ...], msgspec.Raw] = field(default_factory=dict)

    def projected(self, wanted: tuple[str, ...]) -> msgspec.Raw:
        """Return the wanted attributes as JSON. Most items of a large batch have not changed since the last read."""
        found = self.encoded.get(wanted)
        if found is None:
            found = msgspec.Raw(_encoder.encode(expressions.projected(wanted, self.item)))
            self.encoded[wanted] = found
        return found


@dataclass(slots=True)
class _Partition:
    """The items of a partition key, by sort key."""

    items: dict[str, _Stored] = field(default_factory=dict)
    sorted_keys: list[str] = field(default_factory=list)


class _Table:
    """A table, from the arguments of `CreateTable`. Its keys are strings."""

    def __init__(self, definition: Arguments, expires: str) -> None:
        self.definition = definition
        self.name: str = definition["TableName"]
        keys = {key["KeyType"]: key["AttributeName"] for key in definition["KeySchema"]}
        self.partition_key: str = keys["HASH"]
        self.sort_key: str = keys.get("RANGE", "")
        self.expires = expires
        self.partitions: dict[str, _Partition] = {}
        self.created = time.time()
        # Changes that the reader of the stream has not taken.
        self.changes: list[Response] = []
        self._streams = "StreamSpecification" in definition
        self._number = 0

    def key(self, item: Mapping[str, Value], *, exact: bool = True) -> Key:
        """Return the key in an item, or in a request, which has no other attributes.

        Raises:
            Invalid: It is not a key of this table.
        """
        names = [name for name in (self.partition_key, self.sort_key) if name]
        for name, longest in zip(names, _LONGEST_KEYS, strict=False):
            text = item.get(name, {}).get("S")
            if not isinstance(text, str):
                raise Invalid(f"One of the required keys was not given a value: {name} must be a string")
            if not 0 < len(text.encode()) <= longest:
                raise Invalid(f"One or more parameter values are not valid: {name} must have 1 to {longest:,} bytes")
        if exact and len(item) != len(names):
            raise Invalid("The provided key element does not match the schema")
        return item[names[0]]["S"], item[self.sort_key]["S"] if self.sort_key else ""

    def key_item(self, key: Key) -> Item:
        """Return the key's attributes."""
        names = (self.partition_key, self.sort_key)
        return {name: {"S": text} for name, text in zip(names, key, strict=True) if name}

    def get(self, key: Key) -> _Stored | None:
        """Return an item."""
        partition = self.partitions.get(key[0])
        return partition.items.get(key[1]) if partition else None

    def put(self, key: Key, item: Item | None) -> None:
        """Store an item, or delete it if `item` is `None`; a real change goes into the stream."""
        before = self.get(key)
        if (before and before.item) == item:
            return
        partition = self.partitions.setdefault(key[0], _Partition())
        if item is None:
            del partition.items[key[1]]
            del partition.sorted_keys[bisect_left(partition.sorted_keys, key[1])]
            if not partition.items:
                del self.partitions[key[0]]
        else:
            if before is None:
                insort(partition.sorted_keys, key[1])
            partition.items[key[1]] = _Stored(item, item_size(item))
        if self._streams:
            self._number += 1
            name = "INSERT" if before is None else "REMOVE" if item is None else "MODIFY"
            change = {"Keys": self.key_item(key), "SequenceNumber": str(self._number), "StreamViewType": "KEYS_ONLY"}
            self.changes.append({"eventName": name, "eventSource": "aws:dynamodb", "dynamodb": change})

    def keys(self) -> Iterable[Key]:
        """Yield the keys of all items, in order."""
        for partition in sorted(self.partitions):
            for sort_key in self.partitions[partition].sorted_keys:
                yield partition, sort_key


class DynamoDB:
    """The tables, and the operations on them."""

    def __init__(self, definitions: Iterable[Arguments], expires: Mapping[str, str] | None = None) -> None:
        """Create tables.

        Args:
            definitions: The arguments of `CreateTable` for each.
            expires: By table, the attribute that has the time after which an item may be deleted.
        """
        self._tables = {
            definition["TableName"]: _Table(definition, (expires or {}).get(definition["TableName"], ""))
            for definition in definitions
        }
        self._lock = threading.Lock()
        self._operations: dict[str, tuple[Callable[[Arguments], Response], set[str]]] = {
            "GetItem": (self._get_item, _READ | {"Key"}),
            "Query": (self._query, _PAGE | {"KeyConditionExpression", "ScanIndexForward"}),
            "Scan": (self._scan, _PAGE),
            "PutItem": (self._put_item, _WRITE | {"Item"}),
            "UpdateItem": (self._update_item, _WRITE | {"Key", "UpdateExpression"}),
            "DeleteItem": (self._delete_item, _WRITE | {"Key"}),
            "BatchWriteItem": (self._batch_write_item, {"RequestItems"}),
            # Of two requests with one token DynamoDB performs one. Here, the token is ignored.
            "TransactWriteItems": (self._transact_write_items, {"TransactItems", "ClientRequestToken"}),
            "DescribeTable": (self._describe_table, {"TableName"}),
            "ListTables": (self._list_tables, set()),
        }

    def call(self, operation: str, arguments: Arguments) -> Response:
        """Perform an operation and return DynamoDB's response.

        Raises:
            Refused: DynamoDB would refuse the request, or the operation is not implemented.
        """
        return _object.decode(self.respond(operation, arguments))

    def respond(self, operation: str, arguments: Arguments) -> bytes:
        """Perform an operation and return DynamoDB's response as JSON; raises as `call` does."""
        if operation not in self._operations:
            known = ", ".join(sorted(self._operations))
            raise Refused("UnknownOperationException", f"The local server has no {operation}. It has: {known}")
        perform, supported = self._operations[operation]
        if unsupported := arguments.keys() - supported:
            names = ", ".join(sorted(unsupported))
            raise Refused("ValidationException", f"The local server does not support {names} in {operation}")
        try:
            with self._lock:
                response = perform(arguments)
        except Invalid as error:
            raise Refused("ValidationException", str(error)) from error
        return _encoder.encode(response)

    def take_changes(self, table: str) -> list[Response]:
        """Return the records of a table's stream since the last call."""
        with self._lock:
            found = self._tables[table]
            taken, found.changes = found.changes, []
        return taken

    def delete_expired(self, now: float) -> None:
        """Delete the items whose time has passed, as DynamoDB does within some days."""
        with self._lock:
            for table in self._tables.values():
                if not table.expires:
                    continue
                for key in list(table.keys()):
                    found = table.get(key)
                    until = found.item.get(table.expires, {}).get("N") if found else None
                    if until is not None and float(until) <= now:
                        table.put(key, None)

    def _table(self, name: object) -> _Table:
        try:
            return self._tables[str(name)]
        except KeyError:
            raise Refused("ResourceNotFoundException", "Requested resource not found") from None

    # ---- Reads ----------------------------------------------------------------------------------------------

    def _get_item(self, arguments: Arguments) -> Response:
        table = self._table(arguments.get("TableName"))
        names, projection = arguments.get("ExpressionAttributeNames", {}), arguments.get("ProjectionExpression")
        expressions.check_placeholders(names, {}, projection)
        wanted = expressions.projection(projection, names)
        found = table.get(table.key(_given(arguments, "Key")))
        response: Response = {"Item": expressions.projected(wanted, found.item)} if found else {}
        return response | _read_capacity(arguments, found.size if found else 0)

    def _query(self, arguments: Arguments) -> Response:
        table = self._table(arguments.get("TableName"))
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        condition = _given(arguments, "KeyConditionExpression")
        texts = (condition, arguments.get("ProjectionExpression"), arguments.get("FilterExpression"))
        expressions.check_placeholders(names, values, *texts)
        comparisons = expressions.key_condition(condition, names, values)
        match comparisons.pop(table.partition_key, None):
            case ("compare", "=", _, ("value", token)) if "S" in values[token]:
                partition_key = values[token]["S"]
            case _:
                raise Invalid("Query condition missed key schema element")
        sort = comparisons.pop(table.sort_key, None)
        if comparisons:
            raise Invalid("Query condition missed key schema element")
        keys = self._partition(table, partition_key).sorted_keys
        first, last = expressions.between(sort, values, keys)
        forward = arguments.get("ScanIndexForward", True)
        if "ExclusiveStartKey" in arguments:
            _, start = table.key(arguments["ExclusiveStartKey"])
            if forward:
                first = max(first, bisect_right(keys, start))
            else:
                last = min(last, bisect_left(keys, start))
        within = range(first, last) if forward else range(last - 1, first - 1, -1)
        return self._page(table, arguments, ((partition_key, keys[number]) for number in within))

    def _scan(self, arguments: Arguments) -> Response:
        table = self._table(arguments.get("TableName"))
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        texts = (arguments.get("ProjectionExpression"), arguments.get("FilterExpression"))
        expressions.check_placeholders(names, values, *texts)
        start = table.key(arguments["ExclusiveStartKey"]) if "ExclusiveStartKey" in arguments else None
        return self._page(table, arguments, (key for key in table.keys() if start is None or key > start))  # noqa: SIM118  # not a dict

    @staticmethod
    def _partition(table: _Table, key: str) -> _Partition:
        return table.partitions.get(key) or _Partition()

    @staticmethod
    def _page(table: _Table, arguments: Arguments, keys: Iterable[Key]) -> Response:
        """Return the page that begins with the first of the keys."""
        limit = arguments.get("Limit")
        if limit is not None and limit < 1:
            raise Invalid("Limit must be at least 1")
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        wanted = expressions.projection(arguments.get("ProjectionExpression"), names)
        condition = arguments.get("FilterExpression")
        if condition:
            expressions.check(condition)
        counts_only = arguments.get("Select", "") == "COUNT"
        items: list[msgspec.Raw] = []
        count = scanned = size = 0
        response: Response = {}
        last: Key | None = None
        for key in keys:
            found = table.partitions[key[0]].items[key[1]]
            # DynamoDB ends a page before the filter and the projection.
            if scanned == limit or (scanned and size + found.size > PAGE_BYTES):
                break
            last, scanned, size = key, scanned + 1, size + found.size
            if condition and not expressions.holds(condition, found.item, names, values):
                continue
            count += 1
            if not counts_only:
                items.append(found.projected(wanted))
        else:
            # A page that is full has a last key, whether or not anything follows.
            last = last if scanned == limit else None
        if last:
            response["LastEvaluatedKey"] = table.key_item(last)
        if not counts_only:
            response["Items"] = items
        return response | {"Count": count, "ScannedCount": scanned} | _read_capacity(arguments, size)

    def _describe_table(self, arguments: Arguments) -> Response:
        table = self._table(arguments.get("TableName"))
        sizes = [one.size for partition in table.partitions.values() for one in partition.items.values()]
        return {
            "Table": {
                **{name: value for name, value in table.definition.items() if name != "BillingMode"},
                "TableStatus": "ACTIVE",
                "CreationDateTime": table.created,
                "ItemCount": len(sizes),
                "TableSizeBytes": sum(sizes),
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            }
        }

    def _list_tables(self, _arguments: Arguments) -> Response:
        return {"TableNames": sorted(self._tables)}

    # ---- Writes ---------------------------------------------------------------------------------------------

    def _write(self, operation: str, arguments: Arguments) -> Response:
        table, key, old, new = self._change(operation, arguments)
        table.put(key, new)
        sizes = [item_size(item) for item in (old, new) if item is not None]
        units = max(1, ceil(max(sizes, default=0) / _WRITE_UNIT_BYTES))
        return returned(arguments.get("ReturnValues", "NONE"), old, new) | _capacity(arguments, units)

    def _put_item(self, arguments: Arguments) -> Response:
        return self._write("Put", arguments)

    def _update_item(self, arguments: Arguments) -> Response:
        return self._write("Update", arguments)

    def _delete_item(self, arguments: Arguments) -> Response:
        return self._write("Delete", arguments)

    def _change(self, operation: str, arguments: Arguments) -> tuple[_Table, Key, Item | None, Item | None]:
        """Return the table and the key that a write changes, and the item before and after; change nothing.

        Raises:
            Refused: The condition does not hold.
        """
        table = self._table(arguments.get("TableName"))
        names, values = arguments.get("ExpressionAttributeNames", {}), arguments.get("ExpressionAttributeValues", {})
        condition, update = arguments.get("ConditionExpression"), arguments.get("UpdateExpression")
        expressions.check_placeholders(names, values, condition, update)
        of_item = operation == "Put"
        key = table.key(_given(arguments, "Item" if of_item else "Key"), exact=not of_item)
        found = table.get(key)
        old = found.item if found else None
        if condition and not expressions.holds(condition, old, names, values):
            wanted = old is not None and arguments.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            details = {"Item": old} if wanted else {}
            raise Refused("ConditionalCheckFailedException", "The conditional request failed", **details)
        match operation:
            case "Put":
                new: Item | None = normalized(arguments["Item"])
            case "Update":
                new = normalized(expressions.updated(update or "", old or table.key_item(key), names, values))
                if table.key(new, exact=False) != key:
                    raise Invalid("Cannot update an attribute that is part of the key")
            case "Delete":
                new = None
            case "ConditionCheck":
                new = old
            case _:
                raise Invalid(f"{operation} is not a kind of write")
        if new is not None and item_size(new) > _LARGEST_ITEM:
            raise Invalid("Item size has exceeded the maximum allowed size")
        return table, key, old, new

    def _batch_write_item(self, arguments: Arguments) -> Response:
        changes = []
        for name, requests in _given(arguments, "RequestItems").items():
            for request in requests:
                ((kind, write),) = request.items()
                changes.append(self._change(kind.removesuffix("Request"), write | {"TableName": name}))
        if not 0 < len(changes) <= _MOST_IN_A_BATCH:
            raise Invalid(f"A batch must have 1 to {_MOST_IN_A_BATCH} requests")
        _refuse_twice(changes)
        for table, key, _, new in changes:
            table.put(key, new)
        return {"UnprocessedItems": {}}

    def _transact_write_items(self, arguments: Arguments) -> Response:
        writes = _given(arguments, "TransactItems")
        if not 0 < len(writes) <= _MOST_IN_A_TRANSACTION:
            raise Invalid(f"A transaction must have 1 to {_MOST_IN_A_TRANSACTION} actions")
        changes, reasons = [], []
        for write in writes:
            ((kind, action),) = write.items()
            try:
                changes.append(self._change(kind, action))
            except Refused as refused:
                if refused.code != "ConditionalCheckFailedException":
                    raise
                reasons.append({"Code": "ConditionalCheckFailed", "Message": refused.message} | refused.details)
            else:
                reasons.append({"Code": "None"})
        if len(changes) < len(writes):
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise Refused("TransactionCanceledException", message, CancellationReasons=reasons)
        _refuse_twice(changes)
        for table, key, _, new in changes:
            table.put(key, new)
        return {}


def _given(arguments: Arguments, name: str) -> Any:  # noqa: ANN401  # DynamoDB's JSON
    if name not in arguments:
        raise Invalid(f"{name} is missing")
    return arguments[name]


def _refuse_twice(changes: list[tuple[_Table, Key, Item | None, Item | None]]) -> None:
    if len({(table.name, key) for table, key, _, _ in changes}) < len(changes):
        raise Invalid("A request must not write one item twice")


def _read_capacity(arguments: Arguments, size: int) -> Response:
    return _capacity(arguments, max(1, ceil(size / UNIT_BYTES)) * (1.0 if arguments.get("ConsistentRead") else 0.5))


def _capacity(arguments: Arguments, units: float) -> Response:
    if arguments.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return {}
    return {"ConsumedCapacity": {"TableName": arguments["TableName"], "CapacityUnits": units}}


def returned(wanted: str, old: Item | None, new: Item | None) -> Response:
    """Return the `Attributes` that a write was asked to return."""
    old, new = old or {}, new or {}
    match wanted:
        case "ALL_OLD":
            values = old
        case "ALL_NEW":
            values = new
        case "UPDATED_OLD":
            values = {name: value for name, value in old.items() if new.get(name) != value}
        case "UPDATED_NEW":
            values = {name: value for name, value in new.items() if old.get(name) != value}
        case _:
            values = {}
    return {"Attributes": values} if values else {}


def normalized(item: Mapping[str, Value]) -> Item:
    """Return an item as DynamoDB stores it: numbers in their normal form.

    Raises:
        Invalid: A value has no type, or more than one.
    """
    return {name: _normal(value) for name, value in item.items()}


def _normal(value: Value) -> Value:
    if len(value) == 1:
        match value:
            case {"N": text}:
                return {"N": expressions.number(text)}
            case {"L": list(elements)}:
                return {"L": [_normal(element) for element in elements]}
            case {"M": dict(members)}:
                return {"M": normalized(members)}
            case {"S": str()} | {"B": str()} | {"BOOL": bool()} | {"NULL": bool()} | {"SS": _} | {"NS": _} | {"BS": _}:
                return dict(value)
    raise Invalid("Supplied AttributeValue must contain exactly one of the supported datatypes")


def item_size(item: Mapping[str, Value]) -> int:
    """Return the bytes that DynamoDB charges for an item."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Value) -> int:
    kind: str
    content: Any
    kind, content = next(iter(value.items()))
    match kind:
        case "S":
            return len(str(content).encode())
        case "N":
            digits = content.lstrip("-").replace(".", "").strip("0")
            return (len(digits) + 1) // 2 + 1 + int(content.startswith("-"))
        case "L":
            return 3 + sum(1 + _value_size(element) for element in content)
        case "M":
            return 3 + sum(len(name.encode()) + 1 + _value_size(element) for name, element in content.items())
        case "SS" | "NS":
            return sum(len(str(element).encode()) for element in content)
    return 1
