"""Decode DynamoDB's responses into structs, directly from the body.

This takes a small part of the time of botocore's parser, which walks over every attribute in Python
(docs/decisions/0004-dynamodb-client.md). A malformed attribute is dropped; the rest of its item is kept.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from itertools import batched, compress
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import msgspec

from batch_progress.table import LARGEST_NUMBER, JobStatus

Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
if TYPE_CHECKING:
    type Timestamp = datetime
else:
    # Numbers arrive as strings, so decoding is lax, and would read "1734345002" as a time. A union with a number that
    # cannot exist prevents that.
    Timestamp = Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[float, msgspec.Meta(gt=0, lt=0)]


class Text(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S."""

    S: str


class Time(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S that is an RFC 3339 timestamp."""

    S: Timestamp


class Status(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type S that is a job's status. A plain string, because decoding enum members is slower."""

    S: Literal[tuple(status.value for status in JobStatus)]  # type: ignore[valid-type]  # the enum stays the only list


class Count(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type N that is a whole number of at least 0."""

    N: Number


class Seconds(msgspec.Struct, gc=False, frozen=True):
    """An attribute value of type N that is a number of at least 0."""

    N: Annotated[float, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]


class JobItem(msgspec.Struct, gc=False, frozen=True):
    """A `JOB#` item of the jobs table, with the attributes that every answer needs. An absent attribute is `None`."""

    sk: Text
    url: Text | None = None
    status: Status | None = None
    items_extracted: Count | None = None
    started_at: Time | None = None
    seen_at: Time | None = None
    finished_at: Time | None = None
    error_code: Text | None = None


class Item(JobItem, gc=False, frozen=True):
    """A `BATCH` or a `JOB#` item of the jobs table."""

    attempt: Count | None = None
    owner_id: Text | None = None
    total_urls: Count | None = None
    created_at: Time | None = None
    parallel_jobs: Count | None = None
    timeout_per_url: Seconds | None = None
    lost_after: Seconds | None = None
    cancelled_at: Time | None = None
    expires_at: Seconds | None = None
    revision: Count | None = None
    counted: Text | None = None
    counted_at: Seconds | None = None
    counting: Seconds | None = None


class DetailedItem(Item, gc=False, frozen=True):
    """An item with the attributes of `include=details`. Its times are the recorded strings, and may be malformed."""

    started_at: Text | None = None  # type: ignore[assignment]  # the same attribute, undecoded
    finished_at: Text | None = None  # type: ignore[assignment]  # the same
    error_message: Text | None = None


class Consumed(msgspec.Struct, frozen=True):
    """The cost of a read.

    Attributes:
        units: Read request units, 0 if the engine does not report them.
    """

    units: float = msgspec.field(name="CapacityUnits", default=0.0)


class QueryPage[ItemT](msgspec.Struct, frozen=True):
    """A page of a `Query`.

    Attributes:
        items: In the order of the sort key.
        count: The number of items according to DynamoDB.
        last_key: The start of the next page, `None` on the last one.
        consumed: The cost.
        malformed: The names of malformed attributes, by sort key. They are absent in `items`.
    """

    items: list[ItemT] = msgspec.field(name="Items")
    count: int = msgspec.field(name="Count")
    last_key: dict[str, dict[str, str]] | None = msgspec.field(name="LastEvaluatedKey", default=None)
    consumed: Consumed = msgspec.field(name="ConsumedCapacity", default=Consumed())
    malformed: Mapping[str, frozenset[str]] = msgspec.field(name="", default={})


class GetResult(msgspec.Struct, frozen=True):
    """The result of a `GetItem`. `raw` is empty if the item does not exist."""

    raw: msgspec.Raw = msgspec.field(name="Item", default=msgspec.Raw())
    consumed: Consumed = msgspec.field(name="ConsumedCapacity", default=Consumed())


class UpdateResult(msgspec.Struct, frozen=True):
    """The result of an `UpdateItem`. `raw` has the attributes that were to be returned, and is empty without any."""

    raw: msgspec.Raw = msgspec.field(name="Attributes", default=msgspec.Raw())


# Numbers arrive as strings: `strict=False` decodes "25" as 25.
_page_of_jobs: Final = msgspec.json.Decoder(QueryPage[JobItem], strict=False)
_page_of_items: Final = msgspec.json.Decoder(QueryPage[Item], strict=False)
_page_of_detailed_items: Final = msgspec.json.Decoder(QueryPage[DetailedItem], strict=False)
_page_of_raw_items: Final = msgspec.json.Decoder(QueryPage[msgspec.Raw])
_get_result: Final = msgspec.json.Decoder(GetResult)
_update_result: Final = msgspec.json.Decoder(UpdateResult)
_attributes: Final = msgspec.json.Decoder(dict[str, dict[str, Any]])


def query_page(body: bytes, *, detailed: bool, jobs_only: bool = False) -> QueryPage[Any]:
    """Decode a page of a `Query`; a malformed attribute does not fail the page.

    Items are `DetailedItem`s with `detailed`; otherwise `JobItem`s with `jobs_only`, which take less time, or `Item`s.

    Raises:
        msgspec.DecodeError: The body is truncated, is not JSON, or is not a page.
    """
    try:
        decoder = _page_of_detailed_items if detailed else _page_of_jobs if jobs_only else _page_of_items
        page: QueryPage[Any] = decoder.decode(body)
    except msgspec.ValidationError:
        page = _slice_by_slice(body, DetailedItem if detailed else JobItem if jobs_only else Item)
    if page.count != len(page.items):
        raise msgspec.DecodeError("Count differs from the number of items")
    return page


def get_result(body: bytes) -> GetResult:
    """Decode the result of a `GetItem`. The attributes of its item may have any type.

    Raises:
        msgspec.DecodeError: The body is truncated, is not JSON, or is not a result.
    """
    result = _get_result.decode(body)
    if bytes(result.raw):
        _attributes.decode(result.raw)
    return result


def update_result(body: bytes) -> UpdateResult:
    """Decode the result of an `UpdateItem`; raises as `get_result` does."""
    return _update_result.decode(body)


# A page with malformed items is decoded in slices of this many items, so that one such item costs one slice.
_SLICE: Final = 250


def _slice_by_slice(body: bytes, kind: type[JobItem]) -> QueryPage[JobItem]:
    """Decode a page that has malformed attributes."""
    page = _page_of_raw_items.decode(body)
    decode_items = msgspec.json.Decoder(list[kind], strict=False).decode  # type: ignore[valid-type]  # a variable
    items: list[JobItem] = []
    malformed: dict[str, frozenset[str]] = {}
    suspects: frozenset[str] = frozenset()
    for raw in batched(page.items, _SLICE, strict=False):
        text = b"[" + b",".join(raw) + b"]"
        try:
            items += decode_items(text)
        except msgspec.ValidationError:
            decoded, bad = _without_malformed(text, raw, kind, suspects)
            items += decoded
            malformed |= bad
            # A writer usually makes the same mistake in each item.
            suspects = suspects.union(*set(bad.values()))
    return QueryPage(items, page.count, page.last_key, page.consumed, malformed)


def _without_malformed(
    text: bytes, raw: Sequence[msgspec.Raw], kind: type[JobItem], suspects: frozenset[str]
) -> tuple[list[JobItem], dict[str, frozenset[str]]]:
    """Decode items without their malformed attributes; return them with the names of these by sort key.

    The result is that of `item` for each of them, without an exception for each malformed attribute: attributes are
    decoded loosely, and all of one name are converted together.

    Args:
        text: The items as a JSON array.
        raw: The same items one by one.
        kind: The type to decode them to.
        suspects: The attributes that have been malformed in earlier slices.
    """
    for names in (suspects, frozenset(name for name, _ in _attribute_types(kind))):
        try:
            loose = _loose_items(kind, names).decode(text)
        except msgspec.ValidationError:
            continue
        break
    else:
        # An attribute value that DynamoDB never writes.
        alone = [item(one, kind) for one in raw]
        return [one for one, _ in alone], {one.sk.S: bad for one, bad in alone if bad}
    keys, *columns = zip(*map(msgspec.structs.astuple, loose), strict=True)
    good: list[Sequence[Any]] = [keys]
    bad: dict[str, list[bool]] = {}
    for (name, type_), values in zip(_attribute_types(kind), columns, strict=True):
        converted = _converted(values, type_, _PLAUSIBLE[type_]) if name in names and any(values) else values
        good.append(converted)
        if converted.count(None) != values.count(None):
            bad[name] = [before is not None and after is None for before, after in zip(values, converted, strict=True)]
    rows = list(zip(*bad.values(), strict=True))
    # There are few combinations of names, many times each.
    dropped = {row: frozenset(compress(bad, row)) for row in set(rows) if any(row)}
    return [*map(kind, *good)], {key.S: dropped[row] for key, row in zip(keys, rows, strict=False) if row in dropped}


class _Loose(msgspec.Struct, gc=False):
    """An attribute value of any type. The value of a string or a number is kept, as text; any other is dropped."""

    S: str | None = None
    N: str | None = None


@lru_cache(64)
def _loose_items(kind: type[JobItem], names: frozenset[str]) -> msgspec.json.Decoder[Any]:
    """Return a decoder of items like `kind` in which the attributes of these names may have values of any type."""
    fields = [(name, (_Loose if name in names else type_) | None, None) for name, type_ in _attribute_types(kind)]
    loose = msgspec.defstruct(f"Loose{kind.__name__}", [("sk", Text), *fields], gc=False)
    return msgspec.json.Decoder(list[loose], strict=False)  # type: ignore[valid-type]  # made at run time


@cache
def _attribute_types(kind: type[JobItem]) -> list[tuple[str, Any]]:
    """Return the name of each attribute except the key, in the order of the fields, with the type of its value."""
    return [(name, get_args(type_)[0]) for name, type_ in _types(kind).items() if name != "sk"]


def _converted[ValueT](
    values: Sequence[ValueT | None],
    type_: Any,  # noqa: ANN401  # any type that msgspec supports
    plausible: Callable[[Sequence[ValueT | None]], Sequence[ValueT | None]],
) -> list[Any]:
    """Convert each value to `type_`. `None` stays `None`, and a value that does not fit becomes `None`.

    Args:
        values: The values to convert.
        type_: The type to convert to.
        plausible: Replaces values that cannot fit with `None`. Each one that it misses costs an exception.
    """
    converted: list[Any]
    try:
        converted = _convert(values, list[type_ | None])
    except msgspec.ValidationError:
        values = plausible(values)
        try:
            converted = _convert(values, list[type_ | None])
        except msgspec.ValidationError:
            converted = [
                _convert(value, type_) if value is not None and _fits(value, type_) else None for value in values
            ]
    return converted


type _Column = Sequence[_Loose | None]


def _texts(values: _Column) -> _Column:
    return [value if value is not None and value.S is not None else None for value in values]


def _statuses(values: _Column) -> _Column:
    return [value if value is not None and value.S in _STATUSES else None for value in values]


def _times(values: _Column) -> _Column:
    return [value if value is not None and value.S is not None and _timestamp(value.S) else None for value in values]


def _counts(values: _Column) -> _Column:
    return [value if value is not None and _number(value.N).is_integer() else None for value in values]


def _seconds(values: _Column) -> _Column:
    return [value if value is not None and _number(value.N) < inf else None for value in values]


def _number(text: str | None) -> float:
    """Return the nearest float, or infinity if the text is not a number from 0 to `LARGEST_NUMBER`."""
    try:
        number = float(text or "inf")
    except ValueError:
        return inf
    return number if 0 <= number <= LARGEST_NUMBER + 1 else inf


_STATUSES: Final = frozenset(JobStatus)
_PLAUSIBLE: Final[Mapping[Any, Callable[[_Column], _Column]]] = {
    Text: _texts,
    Status: _statuses,
    Time: _times,
    Count: _counts,
    Seconds: _seconds,
}
# RFC 3339, with small deviations: it takes 29 February in every year and `+0100`, and refuses year 0000 and leap
# seconds. The offset is checked first, because writers often forget it.
_timestamp: Final = re.compile(
    r"(?=.{19,}(?:[Zz]|[-+].{4,5})\Z)"
    r"(?!0000)\d{4}-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|[12]\d))"
    r"[Tt ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d++)?+(?:[Zz]|[-+](?:[01]\d|2[0-3]):?[0-5]\d)",
    re.ASCII,
).fullmatch


def item[ItemT: msgspec.Struct](raw: msgspec.Raw, kind: type[ItemT]) -> tuple[ItemT, frozenset[str]]:
    """Decode one item without its malformed attributes; return it with the names of these.

    Raises:
        msgspec.ValidationError: Its key has the wrong type, which DynamoDB never stores.
    """
    try:
        return msgspec.json.decode(raw, type=kind, strict=False), frozenset()
    except msgspec.ValidationError:
        attributes = msgspec.json.decode(raw, type=dict[str, Any])
    types = {name: type_ for name, type_ in _types(kind).items() if name in attributes}
    good = {name: attributes[name] for name, type_ in types.items() if _fits(attributes[name], type_)}
    return _convert(good, kind), frozenset(types.keys() - good.keys())


@cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the type of each attribute by its name. Cached, because the look-up takes longer than decoding."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def _convert(value: object, type_: Any) -> Any:  # noqa: ANN401  # any type that msgspec supports
    # Not strict, because numbers are strings; from attributes, because a loose value is an object.
    return msgspec.convert(value, type_, strict=False, from_attributes=True)


def _fits(value: object, type_: Any) -> bool:  # noqa: ANN401  # any type that msgspec supports
    try:
        _convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def moments(texts: Sequence[str | None]) -> list[datetime | None]:
    """Parse RFC 3339 timestamps with an offset. `None` stays `None`, and a malformed one becomes `None`."""
    return _converted(texts, Timestamp, _rfc3339)


def _rfc3339(texts: Sequence[str | None]) -> Sequence[str | None]:
    return [text if text is not None and _timestamp(text) else None for text in texts]
