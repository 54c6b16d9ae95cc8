"""`sam deploy` of the template as it is, onto an emulator of AWS: from an empty account to an empty stack.

What shows here and nowhere else: that CloudFormation takes the template, what SAM makes of it, that each function's
role lets it do its work, the alias, the stream's mapping to the function, a second deployment, and what is left when
the stack is gone.

What the emulator cannot show is in docs/engines.md. One gap is filled here: it takes the API's definition and leaves
out each method that is written as `x-amazon-apigateway-any-method`, as SAM writes all of ours and AWS takes them; so
the fixture reads from the deployed template what it left out, and puts it. Were the template's routes wrong, they would
be put wrong.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import yaml
from botocore.exceptions import ClientError
from werkzeug.datastructures import Headers

from batch_progress.recorder import BatchRecorder
from tests.engines.ministack import REGION, ROOT, Aws, ministack
from tests.integration.test_revision import revision
from tests.integration.world import Answer, Context, Pairs, World, pairs, unique
from tests.package.test_build import HOST

pytestmark = pytest.mark.timeout(300)

STACK = "batch-progress-test"
ANY = "x-amazon-apigateway-any-method"
PATHS = ["/api/v1/scrape/batch/{}/progress", "/v1/scrape/batch/{}/progress"]
# A stream's mapping is asked each second or so.
ARRIVES_WITHIN = 30


@dataclass(frozen=True)
class Stack(World):
    """The stack as it was deployed, asked through its API and by its alias."""

    aws: Aws = field(kw_only=True)
    template: Path = field(kw_only=True)
    outputs: dict[str, str] = field(kw_only=True)

    def resources(self) -> dict[str, str]:
        """Return the physical id of each resource, by its logical id."""
        pages = self.aws.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        found = (one for page in pages for one in page["StackResourceSummaries"])
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found}

    def request(self, method: str, path: str, headers: Pairs = (), query: Pairs = ()) -> Answer:
        """Ask as an HTTP client does, at the emulator's address of the API."""
        api = self.resources()["Api"]
        url = f"{self.aws.address}/restapis/{api}/prod/_user_request_{path}"
        # Nothing that a client would add by itself, such as a coding that it accepts.
        sent = [("Accept-Encoding", "identity"), *pairs(headers)]
        response = httpx.request(method, url, params=urlencode(pairs(query)), headers=sent, timeout=60)
        coding = response.headers.get("Content-Encoding")
        return Answer(response.status_code, Headers(response.headers.multi_items()), response.text, coding, {})

    def invoke(self, event: object, context: Context | None = None) -> dict[str, Any]:
        """Ask as another Lambda does, by the name in the stack's outputs."""
        assert context is None
        payload, _ = self.called(event)
        return payload

    def called(self, event: object) -> tuple[dict[str, Any], str]:
        """Invoke the function by the name in the stack's outputs; return the answer and the version that gave it."""
        answer = self.aws.client("lambda").invoke(
            FunctionName=self.outputs["ProgressFunctionName"], Payload=json.dumps(event)
        )
        payload = json.load(answer["Payload"])
        assert "FunctionError" not in answer, payload
        return payload, answer["ExecutedVersion"]

    def deploy(self, *parameters: str) -> str:
        """Deploy what was built, as `make deploy` does; return what SAM printed."""
        return deploy(self.aws, self.template, *parameters)

    def versions(self) -> list[str]:
        """Return the published versions of both functions."""
        functions, names = self.aws.client("lambda"), self.resources()
        return [
            version["FunctionArn"]
            for function in ("ProgressFunction", "RevisionFunction")
            for version in functions.list_versions_by_function(FunctionName=names[function])["Versions"]
        ]


def deploy(aws: Aws, template: Path, *parameters: str) -> str:
    """Deploy with the project's own configuration, but for the parameters and the stack's name."""
    settings = ("--config-file", str(ROOT / "samconfig.toml"), "--stack-name", STACK, "--no-progressbar")
    # In an account that has CodeDeploy traffic would shift gradually.
    overrides = (f"Arch={HOST}", "DeploymentPreference=AllAtOnce", *parameters)
    return aws.sam("deploy", "--template-file", str(template), *settings, "--parameter-overrides", *overrides)


@pytest.fixture(scope="module")
def stack(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack in an account that had nothing in it."""
    copy = tmp_path_factory.mktemp("deployed") / "build"
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
    """Put the methods that the emulator leaves out of the API's definition, as the deployed template has them."""
    gateway, ids = stack.aws.client("apigateway"), stack.resources()
    body = stack.aws.client("cloudformation").get_template(StackName=STACK, TemplateStage="Processed")["TemplateBody"]
    paths = body["Resources"]["Api"]["Properties"]["Body"]["paths"]
    resources = gateway.get_resources(restApiId=ids["Api"], embed=["methods"], limit=500)["items"]
    by_path = {resource["path"]: resource for resource in resources}
    for path, methods in paths.items():
        # When the emulator no longer leaves them out, this goes.
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
    """It takes neither aliases nor merge keys; SAM resolves those of template.yaml."""
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
    """A batch of ten jobs that a worker recorded: seven completed, one failed, two to come."""
    batch_id, recorder = unique("batch"), BatchRecorder(stack.jobs_table, stack.dynamodb)
    jobs = recorder.create(batch_id, "demo", [f"https://example.com/{number}" for number in range(10)])
    for job in jobs[:7]:
        recorder.complete(batch_id, job, 35)
    recorder.fail(batch_id, jobs[7], "HTTP_503")
    return batch_id


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["key", "token"])
def test_a_client_gets_the_progress(stack: Stack, batch_id: str, path: str, scheme: str) -> None:
    """On both paths, by key and by token, with a slash behind it or not."""
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
    """And not as the base64 in which the function hands it over."""
    answer = stack.ask(batch_id, headers={"Accept-Encoding": "gzip"})
    assert ("gzip", 10) == (answer.coding, len(answer.data["jobs"]))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_wrong_with_a_request_is_said(stack: Stack, batch_id: str, path: str) -> None:
    """Each by its own status and code, all by the function."""
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
    """By the name in the stack's outputs, with a plain object in and out."""
    answer, version = stack.called({"batch_id": batch_id, "limit": 0})
    assert (True, 10, [], "1") == (answer["success"], answer["data"]["total_urls"], answer["data"]["jobs"], version)


def test_jobs_that_change_make_a_tag_stop_holding(stack: Stack, batch_id: str) -> None:
    """The recorder's writes arrive through the stream as a revision: long before the minute in which any tag ends."""
    batch_id, recorder = unique("batch"), BatchRecorder(stack.jobs_table, stack.dynamodb)
    # An hour to come, so that the estimate does not pass meanwhile.
    jobs = recorder.create(batch_id, "demo", ["https://example.com"] * 120, timeout_per_url=300)
    before = settled(stack, batch_id)
    tag = {"If-None-Match": stack.get(batch_id).headers["ETag"]}
    assert 304 == stack.ask(batch_id, headers=tag).status

    began = time.monotonic()
    for job in jobs:
        recorder.start(batch_id, job)
        recorder.complete(batch_id, job, 1)
    while (answer := stack.ask(batch_id, headers=tag)).status == 304:
        assert time.monotonic() - began < ARRIVES_WITHIN
    assert 0 < answer.data["completed"]
    # At most one for each change, and then no more: the function does not wake itself by its own.
    assert before < settled(stack, batch_id) <= before + 2 * len(jobs)
    assert 120 == stack.get(batch_id).data["completed"]


def settled(stack: Stack, batch_id: str) -> int:
    """Return a batch's revision when it no longer moves."""
    seen = [-1]
    while len(seen) < 4 or len(set(seen[-4:])) > 1:
        seen.append(revision(stack, batch_id))
        time.sleep(0.5)
    assert seen[-1] > 0
    return seen[-1]


def test_a_second_deployment_changes_nothing(stack: Stack) -> None:
    """What is built again from the same is the same: no change set, no version."""
    before = stack.versions()
    assert f"No changes to deploy. Stack {STACK} is up to date" in stack.deploy()
    assert before == stack.versions()


def test_a_layer_that_changes_is_what_the_alias_runs(stack: Stack, batch_id: str) -> None:
    """The code is in the layer: a deployment of it alone publishes both functions, and the alias goes along."""
    before, layer = stack.versions(), stack.template.parent / "BatchProgressLayer/python/batch_progress"
    (layer / "version.py").write_text("")
    stack.deploy()
    answer, version = stack.called({"batch_id": batch_id})
    assert (len(before) + 2, "2", 10) == (len(stack.versions()), version, answer["data"]["total_urls"])


def test_more_memory_is_what_the_alias_runs(stack: Stack, batch_id: str) -> None:
    """A parameter alone publishes a version too."""
    _, before = stack.called({"batch_id": batch_id})
    stack.deploy("MemorySize=2048")
    _, version = stack.called({"batch_id": batch_id})
    running = stack.aws.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["ProgressFunctionName"].removesuffix(":live"), Qualifier="live"
    )
    assert (str(int(before) + 1), 2048) == (version, running["MemorySize"])


def test_what_is_left_of_a_deleted_stack_is_its_records(stack: Stack, batch_id: str) -> None:
    """The tables with what is in them, and what failed to be counted; the last test, for it takes the stack away."""
    resources = stack.resources()
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
    assert [resources["RevisionFailures"]] == stack.aws.client("sqs").list_queues()["QueueUrls"]
    assert [] == stack.aws.client("lambda").list_functions()["Functions"]
    assert [] == stack.aws.client("apigateway").get_rest_apis()["items"]
    assert [] == stack.aws.client("logs").describe_log_groups(logGroupNamePrefix="/aws/")["logGroups"]
    roles = stack.aws.client("iam").list_roles()["Roles"]
    assert [resources["ApiLogRole"]] == [role["RoleName"] for role in roles]
