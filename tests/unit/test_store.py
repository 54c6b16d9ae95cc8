"""Reading batches: DynamoDB's pages, wherever they end, and their cost. The engines test the rest."""

from typing import Any

import msgspec
import pytest

from batch_progress import decode
from batch_progress.dynamodb import Client
from batch_progress.errors import BatchNotFound
from batch_progress.store import BatchStore, ReadStats

BATCH = {"sk": {"S": "BATCH"}, "owner_id": {"S": "demo"}}
KEY = {"batch_id": {"S": "b"}, "sk": {"S": "BATCH"}}


def job(name: str, **values: dict[str, str]) -> dict[str, Any]:
    return {"sk": {"S": f"JOB#{name}"}, "url": {"S": "u"}, "status": {"S": "pending"}} | values


def answer(*items: dict[str, Any], more: bool = True, units: float = 1.5) -> decode.QueryPage[Any]:
    body = {"Items": items, "Count": len(items), "ConsumedCapacity": {"CapacityUnits": units}}
    return decode.query_page(msgspec.json.encode(body | ({"LastEvaluatedKey": KEY} if more else {})), detailed=False)


class Pages(Client):
    """Answers page by page and records its requests."""

    def __init__(self, *answers: decode.QueryPage[Any]) -> None:
        self._answers = iter(answers)
        self.asked: list[dict[str, Any]] = []

    def query(self, *, detailed: bool = False, **arguments: Any) -> decode.QueryPage[Any]:  # noqa: ANN401  # DynamoDB's
        del detailed
        self.asked.append(arguments)
        return next(self._answers)


def read(*answers: decode.QueryPage[Any]) -> tuple[list[list[str]], ReadStats, Pages]:
    """Read a batch; return the ids page by page, the read statistics, and the client."""
    client, log = Pages(*answers), ReadStats()
    _, pages = BatchStore(client, "jobs").read("b", "demo", 0, log)
    return [[one.job_id for one in page.jobs] for page in pages], log, client


def test_every_page_is_read() -> None:
    """Each page starts where the previous one ended, and the cost includes every page."""
    jobs, log, client = read(answer(BATCH, job("a")), answer(job("b")), answer(job("c"), more=False))
    assert [["a"], ["b"], ["c"]] == jobs
    assert (3, 4.5) == (log.pages, log.read_units)
    assert [None, KEY, KEY] == [asked.get("ExclusiveStartKey") for asked in client.asked]


def test_an_empty_page_is_not_the_last() -> None:
    """An empty first page does not make the batch a 404."""
    assert [["a"], [], ["b"]] == read(answer(), answer(BATCH, job("a")), answer(), answer(job("b"), more=False))[0]
    with pytest.raises(BatchNotFound):
        read(answer(), answer(more=False))


def test_a_stranger_costs_one_page() -> None:
    client, log = Pages(answer(BATCH, job("a")), answer(job("b"), more=False)), ReadStats()
    with pytest.raises(BatchNotFound):
        BatchStore(client, "jobs").read("b", "stranger", 0, log)
    assert (1, 1) == (log.pages, len(client.asked))


def test_jobs_without_their_batch_are_not_found() -> None:
    with pytest.raises(BatchNotFound):
        read(answer(job("a"), more=False))


def test_only_job_items_are_jobs() -> None:
    """Other items between the batch item and the last job are skipped."""
    others = [{"sk": {"S": sk}} for sk in ("BATCH#x", "JOA", "JOB", 'JOB"x')]
    jobs, log, _ = read(answer(BATCH, *others, job("a"), job("b"), more=False))
    assert ([["a", "b"]], set()) == (jobs, log.malformed)


def test_a_malformed_item_is_taken_down_by_its_key() -> None:
    """Attributes that no answer contains are not reported."""
    odd = [job("a", url={"N": "1"}), job("b", owner_id={"N": "1"}), {"sk": {"S": "JOB#c"}}, job("d")]
    jobs, log, _ = read(answer(BATCH | {"total_urls": {"S": "x"}}, *odd, more=False))
    assert [["a", "b", "c", "d"]] == jobs
    assert {"BATCH", "JOB#a", "JOB#c"} == log.malformed
