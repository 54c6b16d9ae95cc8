"""Delivery of the jobs table's stream, as the event source mapping in the template does it."""

from typing import Any

import pytest

from batch_progress.table import batch_key, job_key
from local_cloud.stream import Record, deliver, failed_from
from local_cloud.template import StreamMapping

MAPPING = StreamMapping(batch_size=3, window_seconds=0, retries=2)


def record(number: int, *, of_batch: bool = False, event: str = "MODIFY") -> Record:
    """Return a stream record of a job, or of the batch's own item."""
    key = batch_key("batch_a") if of_batch else job_key("batch_a", f"job_{number}")
    return {"eventName": event, "dynamodb": {"Keys": key, "SequenceNumber": str(number)}}


class Function:
    """A function that fails at the records it is given, each a given number of times."""

    def __init__(self, **failures: int) -> None:
        self.failures = {name.removeprefix("at_"): times for name, times in failures.items()}
        self.batches: list[list[str]] = []

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
        self.batches.append(numbers)
        failed = [number for number in numbers if self.failures.get(number, 0) > 0]
        for number in failed:
            self.failures[number] -= 1
        return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}


def test_jobs_and_new_batches_are_delivered() -> None:
    """The template filters changes of the batch's own item: the function itself makes them."""
    function = Function()
    new = record(4, of_batch=True, event="INSERT")
    deliver([record(1), record(2, of_batch=True), record(3), new], function, MAPPING)
    assert [["1", "3", "4"]] == function.batches


def test_without_records_that_pass_the_function_is_not_called() -> None:
    function = Function()
    deliver([record(1, of_batch=True)], function, MAPPING)
    assert [] == function.batches


def test_a_batch_has_no_more_records_than_the_template_allows() -> None:
    function = Function()
    deliver([record(number) for number in range(1, 8)], function, MAPPING)
    assert [["1", "2", "3"], ["4", "5", "6"], ["7"]] == function.batches


def test_delivery_continues_at_the_first_failed_record() -> None:
    function = Function(at_2=1)
    deliver([record(1), record(2), record(3)], function, MAPPING)
    assert [["1", "2", "3"], ["2", "3"]] == function.batches


def test_failures_are_reported_in_any_order() -> None:
    answer = {"batchItemFailures": [{"itemIdentifier": "3"}, {"itemIdentifier": "2"}]}
    assert [record(2), record(3)] == failed_from([record(1), record(2), record(3)], answer)


def test_a_batch_that_keeps_failing_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After the retries of the template. The next batch is still delivered."""
    function = Function(at_2=99)
    deliver([record(number) for number in range(1, 5)], function, MAPPING)
    assert [["1", "2", "3"], ["2", "3"], ["2", "3"], ["4"]] == function.batches
    assert ["2 changes were not counted"] == [entry.getMessage() for entry in caplog.records]


def test_an_exception_fails_the_whole_batch(caplog: pytest.LogCaptureFixture) -> None:
    batches = []

    def function(event: dict[str, Any]) -> dict[str, Any]:
        batches.append(len(event["Records"]))
        if len(batches) == 1:
            raise RuntimeError("out of memory")
        return {"batchItemFailures": []}

    deliver([record(1), record(2)], function, MAPPING)
    assert [2, 2] == batches
    assert ["The stream's function failed"] == [entry.getMessage() for entry in caplog.records]
