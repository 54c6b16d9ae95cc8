"""The supervisor's handler with a real queue, bus and rule (moto's): from a message to an event at a consumer."""

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from batch_progress import messages
from batch_progress.errors import ConfigurationError, ServiceUnavailable
from batch_progress.messages import ChecksQueue, EventBus, EventRefused
from batch_progress.settings import revision_settings, supervisor_settings
from batch_progress.store import ReadStats
from batch_progress.supervision import Check, Event
from batch_progress.supervisor import Done, Interrupted, Outcome
from functions.revision import app as revision
from functions.supervisor import app
from local_cloud.template import read
from tests.integration.moto_engine import moto_engine
from tests.integration.test_revision import deliver, record
from tests.integration.world import Context, World, now, unique


@dataclass(frozen=True)
class Wires:
    """The queue of checks, and a queue that a rule sends the events to."""

    sqs: Any
    checks: str
    events: str

    def received(self, url: str) -> list[dict[str, Any]]:
        """Return the messages that are there, parsed."""
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


@pytest.fixture
def wires(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wires]:
    del world  # its environment comes first
    with moto_engine() as address:
        for service in ("SQS", "EVENTBRIDGE"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", address)
        sqs, events = boto3.client("sqs"), boto3.client("events")
        checks, consumer = (sqs.create_queue(QueueName=unique("q"))["QueueUrl"] for _ in range(2))
        bus = unique("bus")
        events.create_event_bus(Name=bus)
        events.put_rule(Name="all", EventBusName=bus, EventPattern='{"source": ["batch-progress"]}')
        arn = sqs.get_queue_attributes(QueueUrl=consumer, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "1", "Arn": arn}])
        monkeypatch.setenv("BATCH_PROGRESS_CHECKS_QUEUE_URL", checks)
        monkeypatch.setenv("BATCH_PROGRESS_EVENT_BUS", bus)
        monkeypatch.setattr(revision, "_queue", lambda: ChecksQueue(checks))
        _restart()
        yield Wires(sqs, checks, consumer)
        _restart()


def _restart() -> None:
    settings = (supervisor_settings, revision_settings)
    for cached in (*settings, app._supervisor, revision._client, revision._revisions, revision._chains):
        cached.cache_clear()


def checked(*bodies: object, timeout: float = 60) -> list[str]:
    """Deliver messages; return the ids of those that were reported as failed."""
    records = [
        {"messageId": str(number), "body": body if isinstance(body, str) else json.dumps(body)}
        for number, body in enumerate(bodies)
    ]
    answer = app.handler({"Records": records}, Context(timeout))
    assert ["batchItemFailures"] == list(answer)
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_the_last_change_of_a_batch_becomes_an_event(world: World, wires: Wires) -> None:
    """The stream's function asks for a check, and the rule's target receives the event."""
    batch_id = world.put_batch(total_urls=1)
    world.put_jobs(batch_id, {"a": {"status": "completed", "finished_at": now(-5)}})
    assert [] == deliver([record(batch_id, "BATCH", name="INSERT"), record(batch_id, "JOB#a")])
    while not (checks := wires.received(wires.checks)):
        time.sleep(0.1)
    (check,) = checks
    assert {"batch_id": batch_id, "number": 1} == check
    assert [] == checked(check)
    (event,) = wires.received(wires.events)
    assert ("batch-progress", "Batch Finished") == (event["source"], event["detail-type"])
    assert (f"{batch_id}/finished/1", 1) == (event["detail"]["id"], event["detail"]["completed"])


def test_a_batch_that_runs_has_its_next_check_in_the_queue(world: World, wires: Wires) -> None:
    """Delayed until something can happen."""
    batch_id = world.put_batch(total_urls=1, timeout_per_url=300, created_at=now())
    assert [] == checked({"batch_id": batch_id, "number": 1})
    assert [] == wires.received(wires.checks)
    attributes = wires.sqs.get_queue_attributes(QueueUrl=wires.checks, AttributeNames=["All"])["Attributes"]
    assert ("0", "1") == tuple(attributes[f"ApproximateNumberOfMessages{kind}"] for kind in ("", "Delayed"))


class Stub:
    """A supervisor with an outcome for each batch."""

    def __init__(self, outcomes: dict[str, Exception]) -> None:
        self.outcomes = outcomes
        self.checked: list[str] = []

    def check(self, check: Check) -> Done:
        self.checked.append(check.batch_id)
        if error := self.outcomes.get(check.batch_id):
            raise error
        return Done(Outcome.LOOKED, ReadStats())


def test_only_what_failed_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails, for whatever reason, does not keep the others of its delivery from being done."""
    stub = Stub({"b": ServiceUnavailable(), "c": Interrupted(), "d": RuntimeError("a bug")})
    monkeypatch.setattr(app, "_supervisor", lambda: stub)
    assert ["1", "2", "3"] == checked(*({"batch_id": name, "number": 1} for name in "abcde"))
    assert list("abcde") == stub.checked


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "{}", '{"batch_id": 1, "number": 1}', '{"batch_id": "a"}', "[" * 9_999]
)
def test_a_malformed_message_is_reported(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """It ends up in the dead-letter queue."""
    monkeypatch.setattr(app, "_supervisor", lambda: Stub({}))
    assert ["0"] == checked(body)


def test_time_that_runs_out_is_reported(world: World, wires: Wires) -> None:
    """Before the timeout, which would repeat every check of the delivery."""
    batch_id = world.put_batch()
    assert ["0"] == checked({"batch_id": batch_id, "number": 1}, timeout=3)
    assert [] == wires.received(wires.checks)


def test_a_queue_or_bus_that_is_missing_is_no_silent_loss(world: World, wires: Wires) -> None:
    del world
    with pytest.raises(ServiceUnavailable):
        ChecksQueue(f"{wires.checks}-none").send("{}", 0)
    with pytest.raises(ServiceUnavailable):
        EventBus("no-such-bus").put(Event("Batch Finished", {}))


def test_a_cold_start_does_not_log_where_its_credentials_are_from(
    wires: Wires, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Botocore does, at the level that Lambda logs. Other loggers keep their level."""
    monkeypatch.setattr(logging.getLogger("botocore"), "level", logging.NOTSET)
    with caplog.at_level(logging.INFO):
        ChecksQueue(wires.checks).send("{}", 0)
        assert logging.INFO == logging.getLogger().level
    assert [] == [record.message for record in caplog.records if record.name.startswith("botocore")]


def test_a_service_that_does_not_answer_is_given_up_before_the_functions_time_out(wires: Wires) -> None:
    """Three attempts, of which each takes at most a second to connect and three to read."""
    config = ChecksQueue(wires.checks)._client.meta.config
    assert (1, 3) == (config.connect_timeout, config.read_timeout)
    assert {"mode": "standard", "total_max_attempts": 3} == config.retries
    functions = [read()["Resources"][f"{name}Function"]["Properties"] for name in ("Revision", "Supervisor")]
    assert all(3 * (1 + 3) < function["Timeout"] for function in functions)


class Entries:
    """A client of EventBridge that takes the call and refuses the entry some times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.calls = 0

    def put_events(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # EventBridge's
        (entry,) = arguments["Entries"]
        assert {"EventBusName", "Source", "DetailType", "Detail"} == entry.keys()
        self.calls += 1
        refused = {"ErrorCode": "InternalFailure", "ErrorMessage": "later"}
        failed = self.calls <= self.refusals
        return {"FailedEntryCount": int(failed), "Entries": [refused if failed else {"EventId": "1"}]}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the bus has waited; it does not wait."""
    waited: list[float] = []
    monkeypatch.setattr("batch_progress.messages.time.sleep", waited.append)
    return waited


@pytest.mark.parametrize("refusals", [0, 1, 2])
def test_an_entry_that_is_refused_is_put_again(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], refusals: int
) -> None:
    """After a moment. The call itself succeeds then."""
    client, bus = Entries(refusals), EventBus("default")
    monkeypatch.setattr(messages, "_client", lambda _: client)
    bus.put(Event("Batch Finished", {}))
    assert refusals + 1 == client.calls
    assert [0.2, 0.4][:refusals] == pauses


def test_an_entry_that_is_always_refused_fails(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    client = Entries(9)
    monkeypatch.setattr(messages, "_client", lambda _: client)
    with pytest.raises(ServiceUnavailable) as raised:
        EventBus("default").put(Event("Batch Finished", {}))
    assert (3, "InternalFailure: later") == (client.calls, str(raised.value.__cause__))
    assert 2 == len(pauses)
    assert isinstance(raised.value.__cause__, EventRefused)


@pytest.mark.parametrize(
    "name", ["BATCH_PROGRESS_JOBS_TABLE", "BATCH_PROGRESS_CHECKS_QUEUE_URL", "BATCH_PROGRESS_EVENT_BUS"]
)
@pytest.mark.parametrize("value", [None, "", "not valid"])
def test_a_setting_that_is_wrong_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    del world
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    _restart()
    with pytest.raises(ConfigurationError, match=name):
        supervisor_settings()
    monkeypatch.undo()
    _restart()
    assert supervisor_settings().jobs_table == os.environ["BATCH_PROGRESS_JOBS_TABLE"]
