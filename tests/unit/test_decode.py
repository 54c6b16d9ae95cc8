"""Pages and items as they come over the wire: what decodes, what does not, and what that costs."""

import json
import math
import threading
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from batch_progress import decode, dynamodb
from batch_progress.errors import ServiceUnavailable

JOB: dict[str, Any] = {
    "sk": {"S": "JOB#a"},
    "url": {"S": "https://example.com/a"},
    "status": {"S": "completed"},
    "items_extracted": {"N": "25"},
    "started_at": {"S": "2024-12-16T10:30:02.123Z"},
    "finished_at": {"S": "2024-12-16T10:30:09.456Z"},
}
# Per attribute of an item, what is not of its type.
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
    """Return a page of a query as DynamoDB writes it."""
    return json.dumps({"Items": items, "Count": len(items), "ScannedCount": len(items)} | values).encode()


def decoded(body: bytes, *, detailed: bool = False) -> decode.QueryPage[Any]:
    return decode.query_page(body, detailed=detailed)


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
    """Even one that is no time: that is found out where it is shown."""
    extra = {"error_code": {"S": "TIMEOUT"}, "error_message": {"S": "…"}, "started_at": {"S": "yesterday"}}
    (item,) = decoded(page(JOB | extra), detailed=True).items
    assert ("yesterday", "2024-12-16T10:30:09.456Z") == (item.started_at.S, item.finished_at.S)
    assert ("TIMEOUT", "…") == (item.error_code.S, item.error_message.S)


@pytest.mark.parametrize("odd", [{}, {"url": {"N": "1"}}], ids=["all well", "one odd attribute"])
def test_a_detailed_page_has_what_details_show(odd: dict[str, Any]) -> None:
    """In full, whether or not an attribute of it is of the wrong type."""
    failure = {"error_code": {"S": "TIMEOUT"}, "error_message": {"S": "…"}}
    (item,) = decoded(page(JOB | failure | odd), detailed=True).items
    assert ("TIMEOUT", "…", "2024-12-16T10:30:02.123Z") == (item.error_code.S, item.error_message.S, item.started_at.S)


def test_what_is_absent_is_none_and_what_is_unknown_is_passed_over() -> None:
    """Two writers of different ages can use one table."""
    (item,) = decoded(page({"sk": {"S": "JOB#a"}, "novelty": {"M": {"deep": {"L": [{"NULL": True}]}}}})).items
    assert decode.Item(sk=decode.Text("JOB#a")) == item


def test_of_a_page() -> None:
    """Where it goes on, and what it cost."""
    key = {"batch_id": {"S": "b"}, "sk": {"S": "JOB#a"}}
    answer = decoded(page(JOB, LastEvaluatedKey=key, ConsumedCapacity={"TableName": "t", "CapacityUnits": 0.5}))
    assert (1, key, 0.5, {}) == (answer.count, answer.last_key, answer.consumed.units, answer.malformed)
    last = decoded(page())
    assert (0, None, 0.0) == (last.count, last.last_key, last.consumed.units)


@pytest.mark.parametrize("name", BAD)
def test_an_attribute_of_the_wrong_type_costs_only_itself(name: str) -> None:
    """The item's others stand, the items around it are whole, and it is told which it was."""
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
    """As many come out as went in, in their order, each as if it had come alone."""
    numbered = [{"sk": {"S": f"JOB#{number}"}} | item for number, item in enumerate(items)]
    answer = decoded(page(*numbered))
    assert [item["sk"]["S"] for item in numbered] == [item.sk.S for item in answer.items]
    assert answer.items == [decoded(page(item)).items[0] for item in numbered]


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
def test_what_is_no_page(body: bytes) -> None:
    """A page that is not whole is none: the number of its items tells too."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decoded(body)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"Item": []}', b'{"Item": null}', b'{"Item": {"sk": 1}}'])
def test_what_is_no_answer_to_a_get(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode.get_result(body)


def test_no_item() -> None:
    assert b"" == bytes(decode.get_result(b"{}").raw)


def test_a_key_given_twice_counts_as_it_does_everywhere() -> None:
    """The last one, as in Python's own reader and so in the stock client."""
    body = b'{"Items": [{"sk": {"S": "JOB#a"}, "sk": {"S": "JOB#b"}}], "Count": 7, "Count": 1}'
    assert json.loads(body)["Items"][0]["sk"]["S"] == decoded(body).items[0].sk.S == "JOB#b"


def test_many_large_pages_at_once() -> None:
    """A megabyte each, some with an odd item, in several threads: nobody gets another's."""
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
        ("2024-12-16T10:30:02", None),
        ("2024-12-16", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_timestamps(text: str, moment: datetime | None) -> None:
    """A moment has an offset; without one nobody knows when it was."""
    assert moment == decode.moment(text)


def test_a_client_waits_seconds_and_tries_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for a connection and two for each piece: three attempts fit into the function's time."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    config = dynamodb.client().meta.config
    assert (1, 2) == (config.connect_timeout, config.read_timeout)
    assert {"mode": "standard", "total_max_attempts": 3} == config.retries


def test_another_protocol_is_botocores_own() -> None:
    """A session makes a client of another service where it needs one for its credentials."""
    assert {"json": True, "query": False} == {
        protocol: isinstance(dynamodb.WireParserFactory().create_parser(protocol), dynamodb.WireParser)
        for protocol in ("json", "query")
    }


@pytest.mark.parametrize(
    ("status", "error", "passing"),
    [
        (500, {"Code": "Novelty"}, True),
        (400, {"Code": "Novelty"}, False),
        (400, {"Code": "ThrottlingException"}, True),
        (400, {"Code": "413"}, True),
        (400, {}, False),
    ],
)
def test_what_passes(status: int, error: dict[str, str], *, passing: bool) -> None:
    """A server's error whatever it is called, what will do better later, and what DynamoDB did not write itself."""

    def refuse() -> dict[str, Any]:
        raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "Query")

    with pytest.raises(ServiceUnavailable if passing else ClientError):
        dynamodb.call(refuse, {})


def test_what_is_left_of_the_time() -> None:
    """Until the deadline, less as time passes; without one there is no end of it."""
    assert math.inf == dynamodb.seconds_left()
    with dynamodb.deadline(time.monotonic() + 100):
        assert 99 < dynamodb.seconds_left() <= 100
    assert math.inf == dynamodb.seconds_left()
