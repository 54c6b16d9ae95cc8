"""`sam deploy` of the template to an emulator of AWS: from an empty account to a deleted stack.

Only these tests show that CloudFormation accepts the template and SAM's expansion of it, that each function's role is
sufficient, and how the alias, the event source mapping, a second deployment and a deletion behave.

docs/engines.md lists what the emulator cannot show. The fixture fills one gap: the emulator ignores methods written as
`x-amazon-apigateway-any-method`, which SAM uses for all of ours. The fixture adds them from the deployed template, so a
wrong route in the template stays wrong.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import yaml
from botocore.exceptions import ClientError
from werkzeug.datastructures import Headers

from batch_progress.recorder import BatchRecorder
from benchmarks.cost import OPERATIONS
from tests.engines.ministack import REGION, ROOT, Aws, ministack
from tests.integration.test_documents import AWS
from tests.integration.test_revision import revision
from tests.integration.world import Answer, Context, Pairs, World, pairs, unique
from tests.package.test_build import HOST

STACK = "batch-progress-test"
ANY = "x-amazon-apigateway-any-method"
PATHS = ["/api/v1/scrape/batch/{}/progress", "/v1/scrape/batch/{}/progress"]
# Seconds to wait for a change. The event source mapping polls about once a second; a tag stops holding after 60.
ARRIVES_WITHIN = 50


@dataclass(frozen=True)
class Stack(World):
    """The deployed stack, with requests to its API and its alias."""

    aws: Aws = field(kw_only=True)
    template: Path = field(kw_only=True)
    outputs: dict[str, str] = field(kw_only=True)

    def resources(self) -> dict[str, str]:
        """Return the physical ids of the resources by logical id."""
        pages = self.aws.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        found = (one for page in pages for one in page["StackResourceSummaries"])
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found}

    def request(self, method: str, path: str, headers: Pairs = (), query: Pairs = ()) -> Answer:
        """Send a request to the API's address at the emulator."""
        api = self.resources()["Api"]
        url = f"{self.aws.address}/restapis/{api}/prod/_user_request_{path}"
        # Without the headers that a client adds, such as `Accept-Encoding`.
        sent = [("Accept-Encoding", "identity"), *pairs(headers)]
        response = httpx.request(method, url, params=urlencode(pairs(query)), headers=sent, timeout=60)
        coding = response.headers.get("Content-Encoding")
        return Answer(response.status_code, Headers(response.headers.multi_items()), response.text, coding, {})

    def invoke(self, event: object, context: Context | None = None) -> dict[str, Any]:
        """Invoke the function by the name in the stack's outputs."""
        assert context is None
        payload, _ = self.called(event)
        return payload

    def called(self, event: object) -> tuple[dict[str, Any], str]:
        """Invoke the function by the name in the stack's outputs; return the answer and the executed version."""
        answer = self.aws.client("lambda").invoke(
            FunctionName=self.outputs["ProgressFunctionName"], Payload=json.dumps(event)
        )
        payload = json.load(answer["Payload"])
        assert "FunctionError" not in answer, payload
        return payload, answer["ExecutedVersion"]

    def deploy(self, *parameters: str) -> str:
        """Deploy the build as `make deploy` does; return SAM's output."""
        return deploy(self.aws, self.template, *parameters)

    def versions(self) -> list[str]:
        """Return the published versions of all functions."""
        functions, names = self.aws.client("lambda"), self.resources()
        return [
            version["FunctionArn"]
            for function in ("ProgressFunction", "RevisionFunction", "SupervisorFunction")
            for version in functions.list_versions_by_function(FunctionName=names[function])["Versions"]
        ]


def deploy(aws: Aws, template: Path, *parameters: str) -> str:
    """Deploy with the project's configuration and other parameters and stack name."""
    settings = ("--config-file", str(ROOT / "samconfig.toml"), "--stack-name", STACK, "--no-progressbar")
    # The emulator has no CodeDeploy for a gradual deployment.
    overrides = (f"Arch={HOST}", "DeploymentPreference=AllAtOnce", *parameters)
    return aws.sam("deploy", "--template-file", str(template), *settings, "--parameter-overrides", *overrides)


@pytest.fixture(scope="module")
def stack(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack in an empty account."""
    with deployed(build, tmp_path_factory.mktemp("deployed")) as stack:
        yield stack


@contextmanager
def deployed(build: Path, folder: Path) -> Iterator[Stack]:
    """Deploy a copy of the build to an empty account."""
    copy = folder / "build"
    shutil.copytree(build, copy)
    template = copy / "template.yaml"
    with ministack() as aws:
        deploy(aws, template)
        (described,) = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        names = (outputs["JobsTableName"], outputs["TokensTableName"])
        stack = Stack(aws.client("dynamodb"), *names, aws=aws, template=template, outputs=outputs)
        put_any_methods(stack)
        yield stack


def put_any_methods(stack: Stack) -> None:
    """Add the API methods that the emulator leaves out, as in the deployed template."""
    gateway, ids = stack.aws.client("apigateway"), stack.resources()
    body = stack.aws.client("cloudformation").get_template(StackName=STACK, TemplateStage="Processed")["TemplateBody"]
    paths = body["Resources"]["Api"]["Properties"]["Body"]["paths"]
    resources = gateway.get_resources(restApiId=ids["Api"], embed=["methods"], limit=500)["items"]
    by_path = {resource["path"]: resource for resource in resources}
    for path, methods in paths.items():
        # Remove this function once the emulator adds them.
        assert not by_path[path].get("resourceMethods")
        integration = methods[ANY]["x-amazon-apigateway-integration"]
        uri = re.sub(
            r"\$\{(.+?)\}", lambda name: (ids | {"AWS::Region": REGION})[name[1]], integration["uri"]["Fn::Sub"]
        )
        where = {"restApiId": ids["Api"], "resourceId": by_path[path]["id"], "httpMethod": "ANY"}
        gateway.put_method(**where, authorizationType="NONE")
        gateway.put_integration(
            **where, type=integration["type"].upper(), integrationHttpMethod=integration["httpMethod"], uri=uri
        )


def test_cloudformation_gets_a_template_without_yaml_aliases(stack: Stack) -> None:
    """CloudFormation accepts neither aliases nor merge keys; SAM resolves those of template.yaml."""
    assert _shares((ROOT / "template.yaml").read_text())
    sent = stack.aws.client("cloudformation").get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    assert "AWS::Serverless-2016-10-31" in sent
    assert not _shares(sent)


def _shares(template: str) -> bool:
    """Tell whether a template has YAML anchors, aliases or merge keys."""
    return any(
        getattr(event, "anchor", None) or getattr(event, "value", None) == "<<" for event in yaml.parse(template)
    )


@pytest.fixture(scope="module")
def batch_id(stack: Stack) -> str:
    """A recorded batch of ten jobs: seven completed, one failed, two pending."""
    batch_id, recorder = unique("batch"), BatchRecorder(stack.jobs_table, stack.dynamodb)
    jobs = recorder.create(batch_id, "demo", [f"https://example.com/{number}" for number in range(10)])
    for job in jobs[:7]:
        recorder.complete(batch_id, job, 35)
    recorder.fail(batch_id, jobs[7], "HTTP_503")
    return batch_id


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["key", "token"])
def test_a_client_gets_the_progress(stack: Stack, batch_id: str, path: str, scheme: str) -> None:
    """It works on both paths, with an API key and a bearer token, with and without a trailing slash."""
    token = stack.put_token()
    headers = {"X-API-Key": token} if scheme == "key" else {"Authorization": f"Bearer {token}"}
    answers = [stack.request("GET", path.format(batch_id) + slash, headers).data for slash in ("", "/")]
    assert [(10, 7, 1, 2, 245)] * 2 == [
        tuple(data[name] for name in ("total_urls", "completed", "failed", "pending", "total_items_extracted"))
        for data in answers
    ]


@pytest.mark.parametrize("path", PATHS)
def test_a_head_is_answered_without_a_body(stack: Stack, batch_id: str, path: str) -> None:
    answer = stack.request("HEAD", path.format(batch_id), stack.key())
    assert (200, "", True) == (answer.status, answer.text, "ETag" in answer.headers)


def test_a_compressed_answer_comes_as_bytes(stack: Stack, batch_id: str) -> None:
    """The gateway decodes the base64 that the function returns."""
    answer = stack.ask(batch_id, headers={"Accept-Encoding": "gzip"})
    assert ("gzip", 10) == (answer.coding, len(answer.data["jobs"]))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_wrong_with_a_request_is_said(stack: Stack, batch_id: str, path: str) -> None:
    """Each fault has its own status and code, from the function."""
    there, absent, key = path.format(batch_id), path.format(unique("batch")), stack.key()
    outcomes = {
        (401, "AUTHENTICATION_REQUIRED"): stack.request("GET", there),
        (401, "INVALID_API_KEY"): stack.request("GET", there, {"X-API-Key": unique("token")}),
        (401, "TOKEN_INVALID"): stack.request("GET", there, {"Authorization": f"Bearer {unique('token')}"}),
        (404, "BATCH_NOT_FOUND"): stack.request("GET", absent, key),
        (404, "ROUTE_NOT_FOUND"): stack.request("GET", f"{there}/more", key),
        (405, "METHOD_NOT_ALLOWED"): stack.request("DELETE", there, key),
        (422, "VALIDATION_ERROR"): stack.request("GET", there, key, {"limit": "all"}),
    }
    assert list(outcomes) == [answer.outcome for answer in outcomes.values()]


def test_another_function_asks_by_the_alias(stack: Stack, batch_id: str) -> None:
    """It calls the name in the stack's outputs. Event and answer are plain objects."""
    answer, version = stack.called({"batch_id": batch_id, "limit": 0})
    assert (True, 10, [], "1") == (answer["success"], answer["data"]["total_urls"], answer["data"]["jobs"], version)


def test_jobs_that_change_make_a_tag_stop_holding(stack: Stack, batch_id: str) -> None:
    """The stream turns the recorder's writes into a new revision long before the tag's minute has passed."""
    batch_id, recorder = unique("batch"), BatchRecorder(stack.jobs_table, stack.dynamodb)
    # The forecast for these jobs is far longer than the test, so the estimated completion stays in the future.
    jobs = recorder.create(batch_id, "demo", ["https://example.com"] * 120, timeout_per_url=300)
    before = settled(stack, batch_id, len(jobs))
    tag = {"If-None-Match": stack.get(batch_id).headers["ETag"]}
    assert 304 == stack.ask(batch_id, headers=tag).status

    began = time.monotonic()
    for job in jobs:
        recorder.start(batch_id, job)
        recorder.complete(batch_id, job, 1)
    while (answer := stack.ask(batch_id, headers=tag)).status == 304:
        assert time.monotonic() - began < ARRIVES_WITHIN
    assert 0 < answer.data["completed"]
    # At most one increase per change: the function's own update does not invoke it again.
    assert settled(stack, batch_id, before + 1) <= before + 2 * len(jobs)
    assert 120 == stack.get(batch_id).data["completed"]


def settled(stack: Stack, batch_id: str, least: int) -> int:
    """Return a batch's revision once it has reached a number and no longer changes."""
    seen: list[int] = []
    while len(seen) < 4 or len(set(seen[-4:])) > 1 or seen[-1] < least:
        seen.append(revision(stack, batch_id))
        time.sleep(0.5)
    return seen[-1]


def test_a_worker_that_dies_becomes_an_event(stack: Stack) -> None:
    """Its job is lost, the batch finishes by itself, and a queue receives the event by a rule."""
    sqs, events = stack.aws.client("sqs"), stack.aws.client("events")
    consumer = sqs.create_queue(QueueName="consumer")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=consumer, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="finished", EventPattern=json.dumps({"source": ["batch-progress"]}))
    events.put_targets(Rule="finished", Targets=[{"Id": "1", "Arn": arn}])

    batch_id, recorder = unique("batch"), BatchRecorder(stack.jobs_table, stack.dynamodb)
    done, lost = recorder.create(
        batch_id, "demo", ["https://example.com/a", "https://example.com/b"], timeout_per_url=300, lost_after=2
    )
    for job in (done, lost):
        recorder.start(batch_id, job)
    recorder.complete(batch_id, done, 25)

    began, found = time.monotonic(), list[dict[str, Any]]()
    while not found:
        assert time.monotonic() - began < 4 * ARRIVES_WITHIN
        answer = sqs.receive_message(QueueUrl=consumer, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        received = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
        found = [event for event in received if event["detail"]["batch_id"] == batch_id]
    (event,) = found
    assert ("batch-progress", "Batch Finished") == (event["source"], event["detail-type"])
    assert (1, 1, 0, 25) == tuple(
        event["detail"][name] for name in ("completed", "failed", "pending", "total_items_extracted")
    )
    assert [{"error_code": "WORKER_LOST", "jobs": 1}] == event["detail"]["summary"]["failures"]
    sqs.delete_queue(QueueUrl=consumer)
    events.remove_targets(Rule="finished", Ids=["1"])
    events.delete_rule(Name="finished")


def test_a_second_deployment_changes_nothing(stack: Stack) -> None:
    """An unchanged build makes no change set and no version."""
    before = stack.versions()
    assert f"No changes to deploy. Stack {STACK} is up to date" in stack.deploy()
    assert before == stack.versions()


def test_a_layer_that_changes_is_what_the_alias_runs(stack: Stack, batch_id: str) -> None:
    """The layer has the code: deploying only it publishes all functions, and their aliases move."""
    before, layer = stack.versions(), stack.template.parent / "BatchProgressLayer/python/batch_progress"
    (layer / "version.py").write_text("")
    stack.deploy()
    answer, version = stack.called({"batch_id": batch_id})
    assert (len(before) + 3, "2", 10) == (len(stack.versions()), version, answer["data"]["total_urls"])


def test_more_memory_is_what_the_alias_runs(stack: Stack, batch_id: str) -> None:
    """A changed parameter also publishes a version."""
    _, before = stack.called({"batch_id": batch_id})
    stack.deploy("MemorySize=2048")
    _, version = stack.called({"batch_id": batch_id})
    running = stack.aws.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["ProgressFunctionName"].removesuffix(":live"), Qualifier="live"
    )
    assert (str(int(before) + 1), 2048) == (version, running["MemorySize"])


# The commands of the runbook

RUNBOOK = [block for block in AWS if block in OPERATIONS.read_text(encoding="utf-8")]
VERSION = "version 41"
# The emulator has neither CodeDeploy nor SQS's StartMessageMoveTask. The integration tests check their options.
# test_tables.py runs those of a restored table, and the last test the one that deletes a table.
DELETES = "aws dynamodb delete-table"
ELSEWHERE = ("aws deploy ", "start-message-move-task", "batch-progress-jobs-2", DELETES)
NOT_HERE = [block for block in RUNBOOK if any(command in block for command in ELSEWHERE)]


def with_names(block: str, replaced: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a block with the name of this stack, and with other replacements."""
    block = re.sub(r"\bbatch-progress(?=[ -])", STACK, block)
    for old, new in replaced.items():
        assert old in block
        block = block.replace(old, new)
    return block


def block_with(command: str) -> str:
    """Return the runbook's block with a command."""
    (block,) = (block for block in RUNBOOK if command in block)
    return block


def test_a_rollback_runs_the_version_from_before_the_parameter_changed(stack: Stack, batch_id: str) -> None:
    """By the runbook's commands: the deployment of the test above replaced that version and did not delete it."""
    _, running = stack.called({"batch_id": batch_id})
    listed = stack.aws.shell(
        with_names(block_with('list-versions-by-function --function-name "$function" --query "Versions[-5:]'))
    )
    earlier = [line.split("\t") for line in listed.splitlines() if " 1024 " in line][-1][0]
    assert int(earlier) < int(running)
    roll_back = block_with("update-alias")
    stack.aws.shell(with_names(roll_back, {VERSION: f"version {earlier}"}))
    answer, version = stack.called({"batch_id": batch_id})
    assert (earlier, 10) == (version, answer["data"]["total_urls"])
    stack.aws.shell(with_names(roll_back, {VERSION: f"version {running}"}))


def test_old_versions_are_deleted_by_the_runbook(stack: Stack) -> None:
    """The last five stay."""
    functions, name = stack.aws.client("lambda"), stack.resources()["ProgressFunction"]
    for number in range(6):
        functions.update_function_configuration(FunctionName=name, Description=f"another {number}")
        functions.publish_version(FunctionName=name)

    def versions() -> list[str]:
        return [one["Version"] for one in functions.list_versions_by_function(FunctionName=name)["Versions"]]

    before = versions()
    functions.update_alias(FunctionName=name, Name="live", FunctionVersion=before[-1])
    stack.aws.shell(with_names(block_with("delete-function ")))
    assert ["$LATEST", *before[-5:]] == versions()


@pytest.fixture
def key(stack: Stack) -> str:
    """A key, an alarm and what else the commands need."""
    metric = {"Namespace": "AWS/Lambda", "MetricName": "IteratorAge", "Statistic": "Maximum", "Period": 60}
    compared = {"EvaluationPeriods": 5, "Threshold": 60_000, "ComparisonOperator": "GreaterThanThreshold"}
    stack.aws.client("cloudwatch").put_metric_alarm(AlarmName=f"{STACK}-revision-lag", **metric, **compared)
    return str(stack.aws.client("kms").create_key()["KeyMetadata"]["KeyId"])


@pytest.mark.parametrize("number", [RUNBOOK.index(block) for block in RUNBOOK if block not in NOT_HERE])
def test_a_command_of_the_runbook_runs(stack: Stack, key: str, number: int) -> None:
    """Without an error, by AWS's own command line."""
    block = RUNBOOK[number]
    (running,) = (
        one["FunctionVersion"]
        for one in stack.aws.client("lambda").list_aliases(FunctionName=stack.resources()["ProgressFunction"])[
            "Aliases"
        ]
    )
    examples = {VERSION: f"version {running}", "0b1c2d3e-0000-4000-8000-000000000000": key}
    stack.aws.shell(with_names(block, {old: new for old, new in examples.items() if old in block}))


def test_what_is_left_of_a_deleted_stack_is_its_records(stack: Stack, batch_id: str) -> None:
    """The tables and the dead-letter queues remain with their data. This is the last test: it deletes the stack."""
    resources = stack.resources()
    # The emulator creates a log group again for a check that runs while the stack is deleted.
    stack.aws.client("sqs").purge_queue(QueueUrl=resources["ChecksQueue"])
    time.sleep(5)
    delete = with_names(block_with(DELETES).replace("JobsTable", "TokensTable"))
    with pytest.raises(ClientError, match="protected"):
        stack.dynamodb.delete_table(TableName=resources["TokensTable"])
    stack.aws.sam("delete", "--stack-name", STACK, "--no-prompts")
    with pytest.raises(ClientError, match="does not exist"):
        stack.aws.client("cloudformation").describe_stacks(StackName=STACK)
    assert {resources["JobsTable"], resources["TokensTable"]} == set(stack.dynamodb.list_tables()["TableNames"])
    assert (
        11
        == stack.dynamodb.query(
            TableName=stack.jobs_table,
            KeyConditionExpression="batch_id = :batch",
            ExpressionAttributeValues={":batch": {"S": batch_id}},
            Select="COUNT",
        )["Count"]
    )
    left = {resources["RevisionFailures"], resources["ChecksFailures"]}
    assert left == set(stack.aws.client("sqs").list_queues()["QueueUrls"])
    assert [] == stack.aws.client("lambda").list_functions()["Functions"]
    assert [] == stack.aws.client("apigateway").get_rest_apis()["items"]
    assert [] == stack.aws.client("logs").describe_log_groups(logGroupNamePrefix="/aws/")["logGroups"]
    roles = stack.aws.client("iam").list_roles()["Roles"]
    assert [resources["ApiLogRole"]] == [role["RoleName"] for role in roles]
    # Without the stack, the operator knows the table by its name.
    stack.aws.shell(re.sub(r"\$\(aws cloudformation .*\)", resources["TokensTable"], delete))
    assert [resources["JobsTable"]] == stack.dynamodb.list_tables()["TableNames"]
