"""The shapes of DynamoDB's items and answers, and decoding them straight from the response body.

Decoding with msgspec into these structs costs a small part of what botocore's parser costs, which walks over every
attribute in Python (docs/decisions/0004-wire.md). An attribute of the wrong type costs only itself.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal

import msgspec

from batch_progress.table import LARGEST_NUMBER, JobStatus

Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class Text(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S."""

    S: str


class Time(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S that is an RFC 3339 timestamp."""

    S: Timestamp


class Status(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S that is a job's status; a plain string, since decoding enum members is slower."""

    S: Literal[tuple(status.value for status in JobStatus)]  # type: ignore[valid-type]  # the enum stays the only list


class Count(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type N that is a whole number of at least 0."""

    N: Number


class Seconds(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type N that is a number of at least 0."""

    N: Annotated[float, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]


class Item(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """An item of the jobs table, a `BATCH` or a `JOB#`; an absent attribute is `None`."""

    sk: Text
    url: Text | None = None
    status: Status | None = None
    items_extracted: Count | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    owner_id: Text | None = None
    total_urls: Count | None = None
    created_at: Time | None = None
    parallel_jobs: Count | None = None
    timeout_per_url: Seconds | None = None
    revision: Count | None = None
    expires_at: Seconds | None = None


class DetailedItem(Item, gc=False, frozen=True, kw_only=True):
    """An item with what `include=details` shows; its times are the recorded text, which may be no time."""

    started_at: Text | None = None  # type: ignore[assignment]  # the same attribute, undecoded
    finished_at: Text | None = None  # type: ignore[assignment]  # the same
    error_code: Text | None = None
    error_message: Text | None = None


class Consumed(msgspec.Struct, frozen=True):
    """The cost of a read.

    Attributes:
        units: Read request units, 0 when the engine does not report them.
    """

    units: float = msgspec.field(name="CapacityUnits", default=0.0)


class QueryPage[ItemT](msgspec.Struct, frozen=True):
    """A page of a `Query`.

    Attributes:
        items: In the order of the sort key.
        count: The number of items according to DynamoDB.
        last_key: The start of the next page, `None` on the last one.
        consumed: The cost.
        malformed: Names of the attributes of the wrong type, by sort key; they are absent in `items`.
    """

    items: list[ItemT] = msgspec.field(name="Items")
    count: int = msgspec.field(name="Count")
    last_key: dict[str, dict[str, str]] | None = msgspec.field(name="LastEvaluatedKey", default=None)
    consumed: Consumed = msgspec.field(name="ConsumedCapacity", default=Consumed())
    malformed: Mapping[str, frozenset[str]] = msgspec.field(name="", default={})


class GetResult(msgspec.Struct, frozen=True):
    """The result of a `GetItem`; `raw` is empty when there is no such item."""

    raw: msgspec.Raw = msgspec.field(name="Item", default=msgspec.Raw())
    consumed: Consumed = msgspec.field(name="ConsumedCapacity", default=Consumed())


# Numbers arrive as strings: `strict=False` lets "25" be 25.
_page_of_items: Final = msgspec.json.Decoder(QueryPage[Item], strict=False)
_page_of_detailed_items: Final = msgspec.json.Decoder(QueryPage[DetailedItem], strict=False)
_page_of_raw_items: Final = msgspec.json.Decoder(QueryPage[msgspec.Raw])
_get_result: Final = msgspec.json.Decoder(GetResult)
_attributes: Final = msgspec.json.Decoder(dict[str, dict[str, Any]])


def query_page(body: bytes, *, detailed: bool) -> QueryPage[Any]:
    """Decode a page of a `Query`; an item with a malformed attribute does not fail the page.

    Raises:
        msgspec.DecodeError: The body is truncated, is not JSON, or is not a page.
    """
    try:
        page: QueryPage[Any] = (_page_of_detailed_items if detailed else _page_of_items).decode(body)
    except msgspec.ValidationError:
        page = _item_by_item(_page_of_raw_items.decode(body), DetailedItem if detailed else Item)
    if page.count != len(page.items):
        raise msgspec.DecodeError("Count differs from the number of items")
    return page


def get_result(body: bytes) -> GetResult:
    """Decode the result of a `GetItem`; the attributes of its item may be of any type.

    Raises:
        msgspec.DecodeError: The body is truncated, is not JSON, or is not a result.
    """
    result = _get_result.decode(body)
    if bytes(result.raw):
        _attributes.decode(result.raw)
    return result


def _item_by_item(page: QueryPage[msgspec.Raw], kind: type[Item]) -> QueryPage[Item]:
    items, malformed = [], {}
    for raw in page.items:
        decoded, bad = item(raw, kind)
        items.append(decoded)
        if bad:
            malformed[decoded.sk.S] = bad
    return QueryPage(items, page.count, page.last_key, page.consumed, malformed)


def item[ItemT: msgspec.Struct](raw: msgspec.Raw, kind: type[ItemT]) -> tuple[ItemT, frozenset[str]]:
    """Decode one item without its attributes of the wrong type; return it with their names.

    Raises:
        msgspec.ValidationError: Its key is of the wrong type, which DynamoDB never stores.
    """
    try:
        return msgspec.json.decode(raw, type=kind, strict=False), frozenset()
    except msgspec.ValidationError:
        attributes = msgspec.json.decode(raw, type=dict[str, Any])
    types = {name: type_ for name, type_ in _types(kind).items() if name in attributes}
    good = {name: attributes[name] for name, type_ in types.items() if _fits(attributes[name], type_)}
    return msgspec.convert(good, kind, strict=False), frozenset(types.keys() - good.keys())


@cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the type of each attribute by its name in the table; cached, as the look-up costs more than decoding."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def _fits(value: object, type_: Any) -> bool:  # noqa: ANN401  # any type that msgspec supports
    try:
        msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def moment(text: str) -> datetime | None:
    """Parse an RFC 3339 text with an offset; `None` when it is not one."""
    try:
        return msgspec.convert(text, Timestamp, strict=False)
    except msgspec.ValidationError:
        return None
