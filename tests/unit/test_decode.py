"""Decoding of pages and items: what is accepted, what is not, and how much of it is lost."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress import decode
from batch_progress.table import JobStatus

JOB: dict[str, Any] = {
    "sk": {"S": "JOB#a"},
    "url": {"S": "https://example.com/a"},
    "status": {"S": "completed"},
    "items_extracted": {"N": "25"},
    "started_at": {"S": "2024-12-16T10:30:02.123Z"},
    "finished_at": {"S": "2024-12-16T10:30:09.456Z"},
}
# For each attribute a value of the wrong type.
BAD = {
    "url": {"N": "1"},
    "status": {"S": "done"},
    "items_extracted": {"N": "-1"},
    "started_at": {"S": "yesterday"},
    "finished_at": {"S": "2024-12-16T10:30:09"},
    "owner_id": {"BOOL": True},
    "total_urls": {"N": "1.5"},
    "created_at": {"S": ""},
    "parallel_jobs": {"S": "3"},
    "timeout_per_url": {"N": "-0.5"},
    "revision": {"N": "1e400"},
    "expires_at": {"NULL": True},
}


def page(*items: object, **values: object) -> bytes:
    """Return a query's page in DynamoDB's format."""
    return json.dumps({"Items": items, "Count": len(items), "ScannedCount": len(items)} | values).encode()


def decoded(body: bytes, *, detailed: bool = False, jobs_only: bool = False) -> decode.QueryPage[Any]:
    return decode.query_page(body, detailed=detailed, jobs_only=jobs_only)


def test_an_item() -> None:
    (item,) = decoded(page(JOB)).items
    assert (
        decode.Item(
            sk=decode.Text("JOB#a"),
            url=decode.Text("https://example.com/a"),
            status=decode.Status("completed"),
            items_extracted=decode.Count(25),
            started_at=decode.Time(datetime(2024, 12, 16, 10, 30, 2, 123_000, UTC)),
            finished_at=decode.Time(datetime(2024, 12, 16, 10, 30, 9, 456_000, UTC)),
        )
        == item
    )


def test_a_detailed_item_keeps_its_times_as_they_were_recorded() -> None:
    """Even an invalid one, which is checked where it is shown."""
    extra = {"error_code": {"S": "TIMEOUT"}, "error_message": {"S": "…"}, "started_at": {"S": "yesterday"}}
    (item,) = decoded(page(JOB | extra), detailed=True).items
    assert ("yesterday", "2024-12-16T10:30:09.456Z") == (item.started_at.S, item.finished_at.S)
    assert ("TIMEOUT", "…") == (item.error_code.S, item.error_message.S)


@pytest.mark.parametrize("odd", [{}, {"url": {"N": "1"}}], ids=["all well", "one odd attribute"])
def test_a_detailed_page_has_what_details_show(odd: dict[str, Any]) -> None:
    """All of it, with and without an attribute of the wrong type."""
    failure = {"error_code": {"S": "TIMEOUT"}, "error_message": {"S": "…"}}
    (item,) = decoded(page(JOB | failure | odd), detailed=True).items
    assert ("TIMEOUT", "…", "2024-12-16T10:30:02.123Z") == (item.error_code.S, item.error_message.S, item.started_at.S)


def test_absent_attributes_are_none_and_unknown_ones_are_ignored() -> None:
    """Writers of different versions can share a table."""
    (item,) = decoded(page({"sk": {"S": "JOB#a"}, "novelty": {"M": {"deep": {"L": [{"NULL": True}]}}}})).items
    assert decode.Item(sk=decode.Text("JOB#a")) == item


def test_of_a_page() -> None:
    """Its last key and its cost."""
    key = {"batch_id": {"S": "b"}, "sk": {"S": "JOB#a"}}
    answer = decoded(page(JOB, LastEvaluatedKey=key, ConsumedCapacity={"TableName": "t", "CapacityUnits": 0.5}))
    assert (1, key, 0.5, {}) == (answer.count, answer.last_key, answer.consumed.units, answer.malformed)
    last = decoded(page())
    assert (0, None, 0.0) == (last.count, last.last_key, last.consumed.units)


@pytest.mark.parametrize("name", BAD)
def test_an_attribute_of_the_wrong_type_costs_only_itself(name: str) -> None:
    """The other attributes and items are complete, and the bad attribute is named."""
    odd = JOB | {"sk": {"S": "JOB#b"}, name: BAD[name]}
    answer = decoded(page(JOB, odd, JOB | {"sk": {"S": "JOB#c"}}))
    before, mended, after = answer.items
    (whole,) = decoded(page({key: value for key, value in odd.items() if key != name})).items
    assert {"JOB#b": frozenset({name})} == answer.malformed
    assert whole == mended
    assert ["JOB#a", "JOB#c"] == [before.sk.S, after.sk.S]
    assert before.items_extracted == after.items_extracted == decode.Count(25)


def test_every_attribute_of_the_wrong_type() -> None:
    answer = decoded(page({"sk": {"S": "JOB#a"}} | BAD))
    assert [decode.Item(sk=decode.Text("JOB#a"))] == answer.items
    assert {"JOB#a": frozenset(BAD)} == answer.malformed


def test_a_page_with_an_odd_item_goes_on_where_it_would_have() -> None:
    key = {"batch_id": {"S": "b"}, "sk": {"S": "JOB#a"}}
    answer = decoded(page(JOB | {"url": {"N": "1"}}, LastEvaluatedKey=key, ConsumedCapacity={"CapacityUnits": 2}))
    assert (key, 2.0) == (answer.last_key, answer.consumed.units)


@given(
    items=st.lists(
        st.fixed_dictionaries(
            {},
            optional={name: st.sampled_from([JOB.get(name, {"S": "x"}), bad]) for name, bad in BAD.items()},
        ),
        max_size=8,
    )
)
def test_no_mixture_loses_an_item(items: list[dict[str, Any]]) -> None:
    """The same number of items in the same order, each decoded as if alone."""
    numbered = [{"sk": {"S": f"JOB#{number}"}} | item for number, item in enumerate(items)]
    answer = decoded(page(*numbered))
    assert [item["sk"]["S"] for item in numbered] == [item.sk.S for item in answer.items]
    assert answer.items == [decoded(page(item)).items[0] for item in numbered]


TIMES = st.one_of(
    st.datetimes(timezones=st.none() | st.just(UTC)).map(datetime.isoformat),
    st.from_regex(
        r"\A(?:20[0-3]\d|\d{4})-[01]\d-[0-3]\d[Tt ]?[0-2]\d:[0-5]\d:\d\d(?:\.\d*)?(?:[Zz]|[-+]\d\d:?\d\d)?\Z"
    ),
    st.integers().map(str),
    st.text(max_size=5),
)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(2**53, 2**64).map(str),
    st.floats().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"\A-?[0-9]{1,3}(?:\.[0-9]{0,3})?(?:[eE][-+]?[0-9]{1,3})?\Z"),
    st.text(max_size=3),
)
VALUES = st.one_of(
    st.fixed_dictionaries({"S": st.one_of(st.sampled_from(JobStatus), TIMES, NUMBERS, st.text())}),
    st.fixed_dictionaries({"N": NUMBERS}),
    st.sampled_from(
        [{"NULL": True}, {"BOOL": False}, {"B": "AA=="}, {"L": [{"S": "x"}]}, {"M": {"S": {"S": "x"}}}, {"SS": ["x"]}]
    ),
    # None of these is a value of DynamoDB's.
    st.sampled_from([None, 5, "x", [], {}, {"S": 5}, {"S": None}, {"N": 5}, {"S": "x", "N": "5"}]),
)


@given(
    data=st.data(),
    kind=st.sampled_from([decode.Item, decode.JobItem, decode.DetailedItem]),
    size=st.sampled_from([1, 2, 3, 250]),
)
def test_a_page_is_decoded_as_its_items_are_one_by_one(
    data: st.DataObject, kind: type[decode.JobItem], size: int
) -> None:
    """Whatever is malformed: each item keeps its good attributes, and the names of the others are reported."""
    attribute = dict.fromkeys(kind.__struct_fields__[1:], VALUES)
    good = st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in JOB.items() if name != "sk"})
    drawn = data.draw(st.lists(good | st.fixed_dictionaries({}, optional=attribute), max_size=8))
    body = page(*({"sk": {"S": f"JOB#{number}"}} | one for number, one in enumerate(drawn)))
    alone = [decode.item(raw, kind) for raw in msgspec.json.decode(body, type=decode.QueryPage[msgspec.Raw]).items]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_SLICE", size)
        answer = decoded(body, detailed=kind is decode.DetailedItem, jobs_only=kind is decode.JobItem)
    assert [item for item, _ in alone] == answer.items
    assert {item.sk.S: bad for item, bad in alone if bad} == answer.malformed


# What a writer may get wrong in each of its items.
MISTAKES: dict[str, dict[str, Any]] = {
    "times are numbers": {"started_at": {"N": "1734345002"}, "finished_at": {"N": "1734345009"}},
    "times without an offset": {
        "started_at": {"S": "2024-12-16T10:30:02"},
        "finished_at": {"S": "2024-12-16T10:30:09"},
    },
    "times are digits": {"started_at": {"S": "1734345002"}, "finished_at": {"S": "1734345009"}},
    "times that no calendar has": {"started_at": {"S": "2024-02-30T10:30:02Z"}, "finished_at": {"S": "0000-00-00"}},
    "negative number": {"items_extracted": {"N": "-1"}},
    "fraction": {"items_extracted": {"N": "0.5"}},
    "number too large": {"items_extracted": {"N": "18446744073709551615"}},
    "number as text": {"items_extracted": {"S": "25"}},
    "capital letters": {"status": {"S": "COMPLETED"}},
    "null": {"url": {"NULL": True}},
    "everything": BAD,
}


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_exception_for_each_malformed_attribute(
    monkeypatch: pytest.MonkeyPatch, mistake: str, *, detailed: bool
) -> None:
    """Exceptions were most of the cost: a batch with a mistake in each item took up to 30 times as long."""
    body = page(*(JOB | {"sk": {"S": f"JOB#{number}"}} | MISTAKES[mistake] for number in range(600)))
    expected = decoded(body, detailed=detailed)
    assert detailed or 600 == len(expected.malformed)
    for name in ("_fits", "item"):
        monkeypatch.setattr(decode, name, None)
    assert expected == decoded(body, detailed=detailed)
    if detailed:
        assert 600 == len(decode.moments([item.started_at and item.started_at.S for item in expected.items]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"Items": []}',
        b'{"Count": 0}',
        b'{"Items": {}, "Count": 0}',
        b'{"Items": [null], "Count": 1}',
        b'{"Items": [{}], "Count": 1}',
        b'{"Items": [{"sk": {"N": "1"}}], "Count": 1}',
        page(JOB)[:-1],
        page(JOB) + b"}",
        page(JOB, Count=2),
        page(JOB, Count=0),
        page(JOB | {"url": {"N": "1"}}, Count=2),
        page(JOB, Count=None),
        page(JOB, LastEvaluatedKey=[]),
        page(JOB, LastEvaluatedKey={"sk": "JOB#a"}),
        page(JOB, LastEvaluatedKey={"sk": {"NULL": True}}),
        page(JOB).replace(b"example", b"\xff"),
    ],
)
def test_invalid_pages(body: bytes) -> None:
    """An incomplete page is refused, also if its count differs from its items."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decoded(body)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"Item": []}', b'{"Item": null}', b'{"Item": {"sk": 1}}'])
def test_invalid_answers_to_a_get(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode.get_result(body)


def test_no_item() -> None:
    assert b"" == bytes(decode.get_result(b"{}").raw)


def test_a_key_given_twice_counts_as_it_does_everywhere() -> None:
    """The last one counts, as in Python's `json` and so in the stock client."""
    body = b'{"Items": [{"sk": {"S": "JOB#a"}, "sk": {"S": "JOB#b"}}], "Count": 7, "Count": 1}'
    assert json.loads(body)["Items"][0]["sk"]["S"] == decoded(body).items[0].sk.S == "JOB#b"


def test_many_large_pages_at_once() -> None:
    """1 MB each, some with a malformed item, in several threads, which do not interfere."""
    odd: list[dict[str, Any]] = [{}, {"url": {"N": "1"}}, {}, {"status": {"S": "x"}}]
    bodies = [
        page(*({"sk": {"S": f"JOB#{number}-{job:05}"}, "url": {"S": "x" * 200}} for job in range(4_500)), JOB | bad)
        for number, bad in enumerate(odd)
    ]
    assert all(len(body) > 10**6 for body in bodies)
    found: dict[int, decode.QueryPage[Any]] = {}

    def decode_page(number: int) -> None:
        found[number] = decoded(bodies[number])

    threads = [threading.Thread(target=decode_page, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, bad in enumerate(odd):
        assert 4_501 == len(found[number].items)
        assert f"JOB#{number}-04499" == found[number].items[-2].sk.S
        assert ({"JOB#a": frozenset(bad)} if bad else {}) == found[number].malformed


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-12-16T10:30:02.123Z", datetime(2024, 12, 16, 10, 30, 2, 123_000, UTC)),
        ("2024-12-16T11:30:02+01:00", datetime(2024, 12, 16, 10, 30, 2, tzinfo=UTC)),
        ("2024-02-29t11:30:02-0100", datetime(2024, 2, 29, 12, 30, 2, tzinfo=UTC)),
        ("2023-02-29T11:30:02Z", None),
        ("2024-02-30T11:30:02Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("2024-12-16T10:30:02", None),
        ("1734345002", None),
        ("1734345002.5", None),
        ("-1", None),
        ("1e9", None),
        ("2024-12-16", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_timestamps(text: str, moment: datetime | None) -> None:
    """A timestamp needs an offset, and a number is not one, whether it is decoded in an item or shown in details."""
    others = ["2024-12-16T10:30:02Z", None]
    assert [moment, *decode.moments(others)] == decode.moments([text, *others])
    (item,) = decoded(page(JOB | {"started_at": {"S": text}})).items
    assert (moment and decode.Time(moment)) == item.started_at
