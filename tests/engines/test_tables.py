"""`sam deploy` to tables that exist, and the runbook of a table that is restored, on an emulator of AWS."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_progress.recorder import BatchRecorder
from local_cloud.template import tables
from tests.engines.ministack import ministack
from tests.engines.test_deploy import (
    ARRIVES_WITHIN,
    STACK,
    Stack,
    block_with,
    deploy,
    put_any_methods,
    settled,
    with_names,
)
from tests.integration.world import unique

JOBS, TOKENS = "the-platform-s-jobs", "the-platform-s-tokens"


def parts(stack: Stack) -> dict[str, str]:
    """Return the outputs of the stack."""
    (described,) = stack.aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


@pytest.fixture(scope="module")
def stack(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A first deployment to an account that has both tables."""
    copy = tmp_path_factory.mktemp("deployed") / "build"
    shutil.copytree(build, copy)
    template = copy / "template.yaml"
    with ministack() as aws:
        dynamodb = aws.client("dynamodb")
        for arguments, name in zip(tables(), (JOBS, TOKENS), strict=True):
            dynamodb.create_table(**arguments | {"TableName": name})
        stream = dynamodb.describe_table(TableName=JOBS)["Table"]["LatestStreamArn"]
        deploy(aws, template, f"JobsTableStreamArn={stream}", f"TokensTableName={TOKENS}")
        stack = Stack(dynamodb, JOBS, TOKENS, aws=aws, template=template, outputs={})
        stack.outputs.update(parts(stack))
        put_any_methods(stack)
        yield stack


def polled_until_changed(stack: Stack, batch_id: str, job: str) -> None:
    """Assert that a job that ends makes the batch's ETag stop holding long before its minute has passed."""
    recorder = BatchRecorder(stack.jobs_table, stack.dynamodb)
    tag = {"If-None-Match": stack.get(batch_id).headers["ETag"]}
    assert 304 == stack.ask(batch_id, headers=tag).status
    recorder.start(batch_id, job)
    recorder.complete(batch_id, job, 35)
    began = time.monotonic()
    while (answer := stack.ask(batch_id, headers=tag)).status == 304:
        assert time.monotonic() - began < ARRIVES_WITHIN
    assert 1 <= answer.data["completed"]


@pytest.fixture(scope="module")
def batch(stack: Stack) -> tuple[str, list[str]]:
    """A recorded batch, whose estimated completion stays in the future, and its jobs."""
    batch_id = unique("batch")
    recorder = BatchRecorder(stack.jobs_table, stack.dynamodb)
    urls = [f"https://example.com/{number}" for number in range(20)]
    jobs = recorder.create(batch_id, "demo", urls, timeout_per_url=300)
    created = settled(stack, batch_id, len(jobs))
    # Without a start, which could be counted with it or apart from it.
    recorder.complete(batch_id, jobs[0], 35)
    settled(stack, batch_id, created + 1)
    return batch_id, jobs


def test_the_stack_creates_no_table_of_its_own(stack: Stack) -> None:
    assert {JOBS, TOKENS} == set(stack.dynamodb.list_tables()["TableNames"])
    assert {"JobsTable", "TokensTable"}.isdisjoint(stack.resources())
    assert (JOBS, TOKENS) == (stack.outputs["JobsTableName"], stack.outputs["TokensTableName"])


def test_a_client_gets_the_progress_from_tables_that_exist(stack: Stack, batch: tuple[str, list[str]]) -> None:
    """Token and batch are in them, and the functions' roles suffice."""
    batch_id, _ = batch
    assert 20 == stack.get(batch_id).data["total_urls"]
    unknown = stack.request("GET", f"/v1/scrape/batch/{batch_id}/progress", {"X-API-Key": unique("token")})
    assert (401, "INVALID_API_KEY") == unknown.outcome


def test_the_stream_of_a_table_that_exists_is_read(stack: Stack, batch: tuple[str, list[str]]) -> None:
    batch_id, jobs = batch
    polled_until_changed(stack, batch_id, jobs[1])


def test_a_restored_table_takes_the_place_of_a_lost_one(stack: Stack, batch: tuple[str, list[str]]) -> None:
    """By the runbook's commands. A new version of the function reads the new table, and its stream is read."""
    batch_id, jobs = batch
    restored = f"{STACK}-jobs-2"
    stack.get(batch_id)
    _, before = stack.called({"batch_id": batch_id})
    stack.aws.shell(with_names(block_with("restore-table-to-point-in-time")))
    assert "ACTIVE" == stack.aws.shell(with_names(block_with("--query Table.TableStatus"))).strip()
    stream = stack.aws.shell(with_names(block_with("update-time-to-live"))).split()[-1]
    assert f":table/{restored}/stream/" in stream
    stack.dynamodb.delete_table(TableName=JOBS)

    stack.deploy(f"JobsTableStreamArn={stream}")
    stack = Stack(stack.dynamodb, restored, TOKENS, stack.tokens, aws=stack.aws, template=stack.template, outputs={})
    stack.outputs.update(parts(stack))
    assert (restored, TOKENS) == (stack.outputs["JobsTableName"], stack.outputs["TokensTableName"])
    answer, after = stack.called({"batch_id": batch_id})
    assert (20, str(int(before) + 1)) == (answer["data"]["total_urls"], after)
    mappings = stack.aws.client("lambda").list_event_source_mappings
    named = {"FunctionName": f"{stack.resources()['RevisionFunction']}:live"}
    assert 2 == len(mappings(**named)["EventSourceMappings"])
    stack.aws.shell(with_names(block_with("delete-event-source-mapping")))
    assert [stream] == [one["EventSourceArn"] for one in mappings(**named)["EventSourceMappings"]]
    polled_until_changed(stack, batch_id, jobs[2])
    assert {restored, TOKENS} == set(stack.dynamodb.list_tables()["TableNames"])
