"""The expanded stack under every choice of its parameters, and that a linter's finding fails the build."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from local_cloud.template import read
from tests.integration.test_documents import BY_SAM

ROOT = Path(__file__).resolve().parents[2]
KEY = "arn:aws:kms:eu-central-1:123456789012:key/0b1c2d3e-0000-4000-8000-000000000000"
STREAM = "arn:aws:dynamodb:eu-central-1:123456789012:table/jobs/stream/2026-11-24T03:00:00.123"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"
CHOICES = {
    "DeploymentPreference": ("AllAtOnce", "Canary10Percent5Minutes"),
    "AlarmTopicArn": ("", TOPIC),
    "KmsKeyArn": ("", KEY),
    "ReservedConcurrency": ("0", "50"),
    "ManageApiLogRole": ("true", "false"),
    "Tracing": ("true", "false"),
    "JobsTableStreamArn": ("", STREAM),
    "TokensTableName": ("", "tokens"),
}
NOTHING = {"Ref": "AWS::NoValue"}

type Stack = dict[str, dict[str, Any]]


@cache
def expanded(preference: str, *others: str) -> str:
    """Return the template expanded by SAM with these parameters. Its resources depend on the first one only."""
    python, script = str(ROOT / ".venv-sam/bin/python"), "scripts/expand.py"
    command = [python, script, "template.yaml", f"DeploymentPreference={preference}", *others]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return str(done.stdout)


def deployed(**chosen: str) -> Stack:
    """Return the resources with these parameters: conditions are evaluated, references are not."""
    template = json.loads(expanded(chosen.get("DeploymentPreference", "AllAtOnce")))
    parameters = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()} | chosen

    def holds(condition: Any) -> bool:  # noqa: ANN401  # CloudFormation's JSON
        match condition:
            case {"Fn::Equals": [one, other]}:
                one, other = (parameters[each["Ref"]] if isinstance(each, dict) else str(each) for each in (one, other))
                return bool(one == other)
            case {"Fn::Not": [one]}:
                return not holds(one)
            case {"Fn::Or": several}:
                return any(holds(one) for one in several)
            case {"Condition": str(name)} | str(name):
                return holds(template["Conditions"][name])
        raise AssertionError(condition)

    def decided(value: Any) -> Any:  # noqa: ANN401  # the same
        match value:
            case {"Fn::If": [condition, yes, no]}:
                return decided(yes if holds(condition) else no)
            case dict():
                return {
                    name: one for name, one in zip(value, map(decided, value.values()), strict=True) if one != NOTHING
                }
            case list():
                return [one for one in map(decided, value) if one != NOTHING]
        return value

    return {
        name: decided(resource)
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or holds(resource["Condition"])
    }


def references(value: Any) -> Iterator[str]:  # noqa: ANN401  # the same
    """Yield the names that a value refers to."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [str(name), *_]} | {"Fn::GetAtt": str(name)}:
            yield name.partition(".")[0]
        case {"Fn::Sub": [str(text), values]}:
            yield from (name.partition(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", text) if name not in values)
            yield from references(values)
        case {"Fn::Sub": str(text)}:
            yield from (name.partition(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", text))
        case dict():
            for one in value.values():
                yield from references(one)
        case list():
            for one in value:
                yield from references(one)


def waits_for(stack: Stack) -> dict[str, set[str]]:
    """Return the dependencies of each resource."""
    graph = {name: {one for one in references(resource) if one in stack} for name, resource in stack.items()}
    for name, resource in stack.items():
        depends = resource.get("DependsOn", [])
        graph[name] |= {depends} if isinstance(depends, str) else set(depends)
    return graph


def before(stack: Stack, name: str) -> set[str]:
    """Return a resource's dependencies, including indirect ones."""
    graph, found, left = waits_for(stack), set[str](), {name}
    while left:
        found |= left
        left = {needed for one in left for needed in graph[one]} - found
    return found - {name}


def of(stack: Stack, kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of the resources of a kind."""
    return {name: one["Properties"] for name, one in stack.items() if one["Type"] == kind}


EVERY_CHOICE = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]


@pytest.mark.parametrize("chosen", EVERY_CHOICE, ids=lambda chosen: " ".join(one[:20] for one in chosen.values()))
def test_a_first_deployment_finds_all_that_it_needs(chosen: dict[str, str]) -> None:
    """With any parameters: no reference to a missing resource, and no circular dependency."""
    stack = deployed(**chosen)
    known = {*stack, *json.loads(expanded("AllAtOnce"))["Parameters"]}
    dangling = {
        (name, one)
        for name, resource in stack.items()
        for one in references(resource)
        if one not in known and not one.startswith("AWS::")
    }
    assert set() == dangling
    assert len(stack) == len(list(TopologicalSorter(waits_for(stack)).static_order()))


@pytest.mark.parametrize("function", ["ProgressFunction", "RevisionFunction", "SupervisorFunction"])
def test_the_tests_read_globals_as_sam_does(function: str) -> None:
    """`read` merges `Globals` for the other tests and the local cloud."""
    ours = read()["Resources"][function]["Properties"]
    made = of(json.loads(expanded("AllAtOnce"))["Resources"], "AWS::Lambda::Function")[function]
    same = ("Runtime", "Architectures", "Layers", "KmsKeyArn", "LoggingConfig", "Environment", "Timeout", "MemorySize")
    # SAM adds a hash to the name of the layer's version.
    made["Layers"] = [{"Ref": re.sub("[0-9a-f]{10}$", "", layer["Ref"])} for layer in made["Layers"]]
    assert {name: made[name] for name in same} == {name: ours[name] for name in same}


def test_the_stage_waits_for_the_role_that_writes_its_log() -> None:
    """A new account has no such role and refuses a stage with an access log."""
    assert "ApiLogAccount" in before(deployed(), "ApiprodStage")
    assert "ApiLogAccount" not in deployed(ManageApiLogRole="false")


def test_by_default_there_is_no_alarm_and_no_key() -> None:
    """Without a topic alarms send no notification; encryption uses AWS's own keys."""
    stack = deployed()
    assert {} == of(stack, "AWS::CloudWatch::Alarm")
    assert {} == of(stack, "AWS::CodeDeploy::DeploymentGroup")
    assert "KmsKeyArn" not in json.dumps([one["Properties"] for one in stack.values() if "Version" not in one["Type"]])
    assert all(table["SSESpecification"]["SSEEnabled"] for table in of(stack, "AWS::DynamoDB::Table").values())
    assert all(queue["SqsManagedSseEnabled"] for queue in of(stack, "AWS::SQS::Queue").values())


def test_a_topic_is_told_of_every_alarm() -> None:
    alarms = of(deployed(AlarmTopicArn=TOPIC), "AWS::CloudWatch::Alarm")
    declared = [one for one in read()["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    assert len(declared) == len(alarms)
    assert all([{"Ref": "AlarmTopicArn"}] == one["AlarmActions"] == one["OKActions"] for one in alarms.values())


def test_a_canary_is_undone_by_alarms_that_are_there_before_it() -> None:
    """This works without a topic too. The alarm on the new version exists before traffic shifts."""
    stack = deployed(DeploymentPreference="Canary10Percent5Minutes")
    alarms = of(stack, "AWS::CloudWatch::Alarm")
    assert alarms
    assert all({"AlarmActions", "OKActions"}.isdisjoint(one) for one in alarms.values())
    (group,) = of(stack, "AWS::CodeDeploy::DeploymentGroup").values()
    undone_by = {"ServerErrorsAlarm", "LatencyAlarm", "NewVersionErrorsAlarm", "NewVersionAnswersAlarm"}
    assert undone_by == {one["Name"]["Ref"] for one in group["AlarmConfiguration"]["Alarms"]}
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert undone_by <= before(stack, "ProgressFunctionAliaslive")
    (version,) = (name for name in of(stack, "AWS::Lambda::Version") if name.startswith("ProgressFunction"))
    answers = {one["Id"]: one["MetricStat"]["Metric"] for one in alarms["NewVersionAnswersAlarm"]["Metrics"][:2]}
    for metric, name in (
        (alarms["NewVersionErrorsAlarm"], "ExecutedVersion"),
        (answers["requests"], "ExecutedVersion"),
        (answers["errors"], "Version"),
    ):
        dimensions = {one["Name"]: one["Value"] for one in metric["Dimensions"]}
        assert {"Fn::GetAtt": [version, "Version"]} == dimensions[name]


def test_the_runbook_stops_a_canary_by_the_names_that_sam_gives() -> None:
    """An application and a group of this stack, so that no other deployment of the account is stopped."""
    stack = deployed(DeploymentPreference="Canary10Percent5Minutes")
    assert BY_SAM == {name for name, one in stack.items() if one["Type"].startswith("AWS::CodeDeploy::")}


@pytest.mark.parametrize("jobs", ["", STREAM])
@pytest.mark.parametrize("tokens", ["", "tokens"])
def test_a_table_that_exists_is_used_instead_of_one_of_its_own(jobs: str, tokens: str) -> None:
    """Each of the two; the stream of a jobs table that exists invokes the revision function."""
    stack = deployed(JobsTableStreamArn=jobs, TokensTableName=tokens)
    owned = {name for name, given in (("JobsTable", jobs), ("TokensTable", tokens)) if not given}
    assert owned == of(stack, "AWS::DynamoDB::Table").keys()
    (stream,) = (
        one["EventSourceArn"]
        for one in of(stack, "AWS::Lambda::EventSourceMapping").values()
        if one["FunctionName"] == {"Ref": "RevisionFunctionAliaslive"}
    )
    assert ({"Ref": "JobsTableStreamArn"} if jobs else {"Fn::GetAtt": ["JobsTable", "StreamArn"]}) == stream


def test_a_key_of_one_s_own_encrypts_all_that_is_kept() -> None:
    """It encrypts tables, queues, logs and environment variables. All functions may use the key."""
    stack, key = deployed(KmsKeyArn=KEY), {"Ref": "KmsKeyArn"}
    assert all(
        {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key} == table["SSESpecification"]
        for table in of(stack, "AWS::DynamoDB::Table").values()
    )
    queues = of(stack, "AWS::SQS::Queue").values()
    assert [(key, False)] * 3 == [(queue["KmsMasterKeyId"], "SqsManagedSseEnabled" in queue) for queue in queues]
    assert 4 == len(of(stack, "AWS::Logs::LogGroup"))
    assert all(key == group["KmsKeyId"] for group in of(stack, "AWS::Logs::LogGroup").values())
    functions = of(stack, "AWS::Lambda::Function")
    assert [key] * 3 == [function["KmsKeyArn"] for function in functions.values()]
    for role in (function["Role"]["Fn::GetAtt"][0] for function in functions.values()):
        assert "use-the-key" in {policy["PolicyName"] for policy in stack[role]["Properties"]["Policies"]}


@pytest.mark.parametrize(("chosen", "reserved"), [("0", None), ("50", {"Ref": "ReservedConcurrency"})])
def test_concurrency_is_reserved_where_it_is_asked_for(chosen: str, reserved: object) -> None:
    """By default none is reserved: a new account cannot reserve any, and 0 would switch the function off."""
    functions = of(deployed(ReservedConcurrency=chosen), "AWS::Lambda::Function")
    assert reserved == functions["ProgressFunction"].get("ReservedConcurrentExecutions")
    for name in ("RevisionFunction", "SupervisorFunction"):
        assert "ReservedConcurrentExecutions" not in functions[name]


@pytest.mark.parametrize(
    "parameter",
    ["Arch", "MemorySize", "WatchPage", "KmsKeyArn", "TokenIssuer", "TokenAudience", "TokenOwnerClaim"],
)
def test_a_parameter_that_changes_the_function_publishes_a_version(parameter: str) -> None:
    """SAM ignores parameter values. CloudFormation replaces a version if its description changes."""
    versions = of(deployed(KmsKeyArn=KEY), "AWS::Lambda::Version")
    (version,) = (one for name, one in versions.items() if name.startswith("ProgressFunction"))
    assert parameter in set(references(version["Description"]))


def described(pattern: Any, values: dict[str, str]) -> str:  # noqa: ANN401  # CloudFormation's JSON
    """Return a text of the template with these values of its variables."""
    text = pattern["Fn::Sub"] if isinstance(pattern["Fn::Sub"], str) else pattern["Fn::Sub"][0]
    return re.sub(r"\$\{([\w.]+)\}", lambda name: values[name[1]], text)


def versions(**chosen: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the policies for deletion and replacement of each version, by its logical id and its description."""
    template = json.loads(expanded("AllAtOnce", *(f"{name}={value}" for name, value in chosen.items())))
    values = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()} | chosen
    values["KeyId"] = values["KmsKeyArn"].rpartition("/")[2]
    values["StreamTime"] = values["JobsTableStreamArn"].rpartition("/")[2]
    names = {"Jobs": values["JobsTableStreamArn"] or "own", "Tokens": values["TokensTableName"] or "own"}
    # Another description replaces the policy, and the new one has another id.
    values["ReadTables.PolicyId"] = described(template["Resources"]["ReadTables"]["Properties"]["Description"], names)
    found = {}
    for name, one in template["Resources"].items():
        if one["Type"] == "AWS::Lambda::Version":
            text = described(one["Properties"]["Description"], values)
            found[name, text] = (one.get("DeletionPolicy", "Delete"), one.get("UpdateReplacePolicy", "Delete"))
    return found


@pytest.mark.parametrize(
    ("chosen", "functions"),
    [
        ({"MemorySize": "2048"}, {"ProgressFunction"}),
        ({"EventBusName": "orders"}, {"SupervisorFunction"}),
        ({"KmsKeyArn": KEY}, {"ProgressFunction", "RevisionFunction", "SupervisorFunction"}),
        ({"JobsTableStreamArn": STREAM}, {"ProgressFunction", "RevisionFunction", "SupervisorFunction"}),
        ({"TokensTableName": "tokens"}, {"ProgressFunction"}),
    ],
)
def test_a_change_of_a_parameter_keeps_the_version_to_roll_back_to(chosen: dict[str, str], functions: set[str]) -> None:
    """SAM keeps the version's logical id. Its new description makes CloudFormation replace it."""
    before, after = versions(), versions(**chosen)
    # `UpdateReplacePolicy` of the new template decides about a replaced version.
    replaced = {name: after[name, text] for name, text in after if (name, text) not in before}
    assert replaced.keys() <= {name for name, _ in before}
    assert functions == {name.partition("Version")[0] for name in replaced}
    assert {("Retain", "Retain")} == set(replaced.values())


def test_a_change_of_the_template_keeps_the_version_to_roll_back_to() -> None:
    """SAM gives it another logical id, and CloudFormation removes the old one as its `DeletionPolicy` says."""
    assert {"Retain"} == {deletion for deletion, _ in versions().values()}


def test_a_deleted_stack_leaves_no_function() -> None:
    """Nor its alias, event sources and permissions: they would go on running. Its versions go with it."""
    kinds = {
        "AWS::Lambda::Function",
        "AWS::Lambda::Alias",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Permission",
    }
    found = [one for one in deployed().values() if one["Type"] in kinds]
    assert kinds == {one["Type"] for one in found}
    assert all("DeletionPolicy" not in one for one in found)


def test_a_version_has_a_description_that_fits() -> None:
    """At most Lambda's 256 characters, with any parameters."""
    longest = {
        name: max([str(one["Default"]), *map(str, one.get("AllowedValues", ()))], key=len).ljust(
            one.get("MaxLength", len(str(one.get("MaxValue", ""))))
        )
        for name, one in read()["Parameters"].items()
    } | {
        "EventBusName": "b" * 128,
        "KeyId": KEY.rpartition("/")[2],
        "StreamTime": STREAM.rpartition("/")[2],
        "ReadTables.PolicyId": "ANPA" + "A" * 17,
    }
    for version in of(deployed(KmsKeyArn=KEY), "AWS::Lambda::Version").values():
        assert len(described(version["Description"], longest)) <= 256


# A linter's finding fails the build

BREAKS = {
    "cfn-lint": ("RetentionInDays: !Ref LogRetentionDays", "RetentionInDays: some", "E3012|E3030|E1021"),
    "its serverless rules": ("[ES6000]", "[ES9999]", "ES6000"),
    "checkov": ("id: CKV_AWS_117", "id: CKV_AWS_999", "CKV_AWS_117"),
}


@pytest.mark.parametrize("tool", BREAKS)
def test_a_finding_fails_the_build(tool: str, tmp_path: Path) -> None:
    """CI's template has no findings, so this one has."""
    old, new, finding = BREAKS[tool]
    source = (ROOT / "template.yaml").read_text(encoding="utf-8")
    assert old in source
    broken = tmp_path / "template.yaml"
    broken.write_text(source.replace(old, new), encoding="utf-8")
    done = subprocess.run(  # noqa: S603  # our own Makefile
        ["/usr/bin/env", "make", "check-template", f"TEMPLATE={broken}", f"EXPANDED={tmp_path}/expanded"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 != done.returncode
    assert re.search(finding, done.stdout + done.stderr), done.stdout + done.stderr
