"""The DynamoDB, the queue and the bus of `make run`."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_progress.table import BATCH_KEY, JOB_PREFIX
from local_cloud import checks, serve
from local_cloud.aws import Services
from local_cloud.checks import EventBus, EventLog, Queue
from local_cloud.dynamodb import DynamoDB, Refused
from local_cloud.template import expiry_attributes, tables

JOBS = "JobsTable"


def dynamodb() -> DynamoDB:
    """Return the template's tables, empty."""
    return DynamoDB(tables(), expiry_attributes())


def item(number: int, **values: dict[str, Any]) -> dict[str, Any]:
    return {"batch_id": {"S": "batch_a"}, "sk": {"S": f"{JOB_PREFIX}{number}"}, **values}


def put(engine: DynamoDB, what: dict[str, Any]) -> None:
    engine.call("PutItem", {"TableName": JOBS, "Item": what})


def test_a_change_is_in_the_stream_once() -> None:
    """The engine forgets what was taken, and a write that changes nothing is not in the stream."""
    engine = dynamodb()
    for status in ("pending", "processing", "processing"):
        put(engine, item(1, status={"S": status}))
    engine.call("DeleteItem", {"TableName": JOBS, "Key": item(1)})
    records = engine.take_changes(JOBS)
    assert ["INSERT", "MODIFY", "REMOVE"] == [record["eventName"] for record in records]
    assert [item(1)] * 3 == [record["dynamodb"]["Keys"] for record in records]
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert sorted(set(numbers)) == numbers
    assert [] == engine.take_changes(JOBS)


def test_a_table_keeps_the_latest_item_only() -> None:
    """However often it is written: the live batch of `make run` is written again and again."""
    engine = dynamodb()
    for number in range(100):
        put(engine, item(1, items_extracted={"N": str(number)}))
        engine.take_changes(JOBS)
    found = engine.call("Scan", {"TableName": JOBS})
    assert [item(1, items_extracted={"N": "99"})] == found["Items"]
    assert 1 == engine.call("DescribeTable", {"TableName": JOBS})["Table"]["ItemCount"]


class Unread(dict[str, Any]):
    """A partition of another batch: a transaction must not read it."""

    def __iter__(self) -> Any:  # noqa: ANN401  # never returns
        raise AssertionError("the whole table was read")

    def items(self) -> Any:  # noqa: ANN401  # never returns
        raise AssertionError("the whole table was read")

    def __deepcopy__(self, _memo: object) -> Any:  # noqa: ANN401  # never returns
        raise AssertionError("the whole table was copied")


@pytest.mark.parametrize("holds", [True, False])
def test_a_transaction_touches_its_own_items_only(holds: bool) -> None:  # noqa: FBT001
    engine = dynamodb()
    put(engine, item(1) | {"batch_id": {"S": "batch_b"}})
    partition = engine._tables[JOBS].partitions["batch_b"]
    partition.items = Unread(partition.items)
    condition = {"ConditionExpression": f"attribute_{'not_' if holds else ''}exists(sk)"}
    write = {"TransactItems": [{"Put": {"TableName": JOBS, "Item": item(1)} | condition}]}
    if holds:
        engine.call("TransactWriteItems", write)
    else:
        with pytest.raises(Refused):
            engine.call("TransactWriteItems", write)


def test_items_expire() -> None:
    """Only in tables with an expiry, and only items whose time has passed."""
    engine = dynamodb()
    put(engine, item(1, expires_at={"N": "99"}))
    put(engine, item(2, expires_at={"N": "101"}))
    put(engine, item(3))
    put(engine, item(4, expires_at={"S": "soon"}))
    engine.take_changes(JOBS)
    engine.delete_expired(100)
    keys = [found["sk"]["S"] for found in engine.call("Scan", {"TableName": JOBS})["Items"]]
    assert [f"{JOB_PREFIX}{number}" for number in (2, 3, 4)] == keys
    assert ["REMOVE"] == [record["eventName"] for record in engine.take_changes(JOBS)]


@pytest.mark.parametrize(
    ("operation", "arguments", "said"),
    [
        ("ExecuteStatement", {}, "has no ExecuteStatement"),
        ("Query", {"TableName": JOBS, "KeyConditions": {}}, "does not support KeyConditions in Query"),
        ("GetItem", {"TableName": "Other", "Key": item(1)}, "resource not found"),
        ("GetItem", {"TableName": JOBS}, "Key is missing"),
        ("GetItem", {"TableName": JOBS, "Key": {"batch_id": {"S": "a"}}}, "sk must be a string"),
        ("GetItem", {"TableName": JOBS, "Key": item(1, more={"S": ""})}, "does not match the schema"),
        ("PutItem", {"TableName": JOBS, "Item": item(1) | {"sk": {"S": ""}}}, "1 to 1,024 bytes"),
        ("PutItem", {"TableName": JOBS, "Item": item(1, a={"S": "", "N": "1"})}, "exactly one"),
        ("PutItem", {"TableName": JOBS, "Item": item(1, a={"N": "one"})}, "numeric"),
        ("PutItem", {"TableName": JOBS, "Item": item(1, a={"S": "a" * 409_600})}, "maximum allowed size"),
        ("Scan", {"TableName": JOBS, "FilterExpression": "attribute_exists(a.b)"}, "Syntax error"),
        ("Scan", {"TableName": JOBS, "ProjectionExpression": "a.b"}, "Syntax error"),
        ("Scan", {"TableName": JOBS, "Limit": 0}, "Limit"),
        ("BatchWriteItem", {"RequestItems": {}}, "1 to 25"),
        ("TransactWriteItems", {"TransactItems": [{"Move": {"TableName": JOBS, "Key": item(1)}}]}, "not a kind"),
    ],
)
def test_what_it_cannot_do_is_refused(operation: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        dynamodb().call(operation, arguments)


class Supervisor:
    """Notes the checks that it gets, and fails the first ones."""

    def __init__(self, failures: int = 0, *, breaks: bool = False) -> None:
        self.bodies: list[list[str]] = []
        self.failures = failures
        self.breaks = breaks

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append([record["body"] for record in event["Records"]])
        if self.breaks:
            raise RuntimeError("out of memory")
        failed = event["Records"][: self.failures]
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in failed]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed."""
    now = [0.0]
    monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_checks_come_when_they_are_due(clock: list[float]) -> None:
    """Each once, at most five at a time."""
    queue, supervisor = Queue(), Supervisor()
    for delay in (5, 0, 3):
        queue.send(str(delay), delay)
    for clock[0] in (0, 1, 4, 6):
        queue.deliver(supervisor, 5)
    assert [["0"], ["3"], ["5"]] == supervisor.bodies
    for number in range(6):
        queue.send(str(number), 0)
    queue.deliver(supervisor, 5)
    queue.deliver(supervisor, 5)
    assert [5, 1] == [len(bodies) for bodies in supervisor.bodies[3:]]


@pytest.mark.parametrize("breaks", [False, True])
def test_failed_checks_come_again(clock: list[float], breaks: bool) -> None:  # noqa: FBT001
    """Those alone that the supervisor reports, or all if it breaks."""
    queue, supervisor = Queue(), Supervisor(failures=1, breaks=breaks)
    queue.send("a", 0)
    clock[0] = 1
    queue.send("b", 0)
    for clock[0] in (2, 3, 40):
        queue.deliver(supervisor, 5)
    assert [["a", "b"], ["a", "b"] if breaks else ["a"]] == [sorted(bodies) for bodies in supervisor.bodies]


def services() -> tuple[Services, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    return Services(dynamodb(), Queue(), EventBus(told.append)), told


def test_an_event_is_delivered_as_eventbridge_does() -> None:
    asked, told = services()
    entry = {"EventBusName": "default", "Source": "s", "DetailType": "t", "Detail": '{"a": 1}'}
    status, body = asked.answer("AWSEvents.PutEvents", json.dumps({"Entries": [entry]}).encode())
    event = told[0]
    assert (200, {"FailedEntryCount": 0, "Entries": [{"EventId": event["id"]}]}) == (status, json.loads(body))
    assert ("s", "t", {"a": 1}, "0") == tuple(event[name] for name in ("source", "detail-type", "detail", "version"))
    assert event["time"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        ("DynamoDB_20120810.GetItem", b"{", "SerializationException"),
        ("DynamoDB_20120810.GetItem", b"[]", "SerializationException"),
        ("DynamoDB_20120810.GetItem", b'{"TableName": "Other"}', "ResourceNotFoundException"),
        ("DynamoDB_20120810.GetItem", b'{"TableName": "JobsTable", "Key": 7}', "InternalServerError"),
        ("AmazonSQS.ReceiveMessage", b"{}", "UnknownOperationException"),
        ("AmazonSQS.SendMessage", b'{"QueueUrl": "http://a/1/Other"}', "QueueDoesNotExist"),
        ("", b"{}", "UnknownOperationException"),
    ],
)
def test_errors_have_aws_s_form(target: str, body: bytes, code: str) -> None:
    status, answer = services()[0].answer(target, body)
    assert (500 if code == "InternalServerError" else 400, code) == (status, json.loads(answer)["__type"])


def test_the_log_of_events_is_bounded() -> None:
    """A client that comes late gets the latest ones."""
    log = EventLog()
    for number in range(checks._MOST_EVENTS + 5):
        log.add(str(number).encode())
    lines = log.lines()
    first = next(lines)
    assert (b"5\n", checks._MOST_EVENTS) == (first, len(log._events))


def test_one_function_does_not_delay_another() -> None:
    """A check of a large batch takes seconds. Each function has one event at a time, as in Lambda."""
    together = threading.Barrier(2, timeout=60)
    progress = serve._invocation(lambda _event, _context: together.wait(), "ProgressFunction")
    supervisor = serve._invocation(lambda _event, _context: together.wait(), "SupervisorFunction")
    with ThreadPoolExecutor() as pool:
        assert {0, 1} == set(pool.map(lambda call: call({}), (progress, supervisor)))
        running: list[int] = []

        def counted(_event: object, _context: object) -> bool:
            running.append(1)
            time.sleep(0.01)
            at_once = len(running)
            running.pop()
            return at_once == 1

        alone = serve._invocation(counted, "ProgressFunction")
        assert [True] * 5 == list(pool.map(lambda _number: alone({}), range(5)))


def test_the_log_is_emptied_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next line is then its first one."""
    monkeypatch.setattr(serve, "_LARGEST_LOG", 10)
    file = tmp_path / "log"
    with file.open("w", buffering=1) as log:
        for line, kept in (("short", "short\n"), ("longer", ""), ("later", "later\n")):
            print(line, file=log)
            serve._empty_if_large(log)
            assert kept == file.read_text()


def test_a_new_batch_is_an_insert() -> None:
    """The function behind the stream asks for the first check of a batch without jobs."""
    engine = dynamodb()
    batch = item(1) | {"sk": {"S": BATCH_KEY}}
    put(engine, batch)
    put(engine, batch | {"revision": {"N": "1"}})
    assert ["INSERT", "MODIFY"] == [record["eventName"] for record in engine.take_changes(JOBS)]
