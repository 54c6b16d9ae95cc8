"""What the stack promises beyond what the linters check."""

import json
import re
import tomllib
from typing import Any

import pytest

from batch_progress.supervision import LONGEST_DELAY_SECONDS, SOURCE
from batch_progress.table import SUPERVISOR_ATTRIBUTES
from local_cloud.template import TEMPLATE as FILE
from local_cloud.template import read, tables

TEXT = FILE.read_text(encoding="utf-8")
OPERATIONS = FILE.parent / "docs" / "operations.md"
TEMPLATE = read()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
API: dict[str, Any] = RESOURCES["Api"]["Properties"]
FUNCTION: dict[str, Any] = RESOURCES["ProgressFunction"]["Properties"]
REVISION: dict[str, Any] = RESOURCES["RevisionFunction"]["Properties"]
CHANGES: dict[str, Any] = REVISION["Events"]["JobChanges"]["Properties"]
SUPERVISOR: dict[str, Any] = RESOURCES["SupervisorFunction"]["Properties"]
CHECKS: dict[str, Any] = SUPERVISOR["Events"]["Checks"]["Properties"]

# The properties of each alarm, by the part of its name that is also the heading of its runbook.
ALARMS: dict[str, dict[str, Any]] = {
    one["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): one["Properties"]
    for one in RESOURCES.values()
    if one["Type"] == "AWS::CloudWatch::Alarm"
}

# The gateway's own errors in the contract: status and code by response type.
REFUSALS = {
    "THROTTLED": (429, "RATE_LIMIT_EXCEEDED"),
    "ACCESS_DENIED": (403, "ACCESS_DENIED"),
    "WAF_FILTERED": (403, "ACCESS_DENIED"),
    "MISSING_AUTHENTICATION_TOKEN": (404, "ROUTE_NOT_FOUND"),
    "RESOURCE_NOT_FOUND": (404, "ROUTE_NOT_FOUND"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "UNSUPPORTED_MEDIA_TYPE"),
    "DEFAULT_4XX": (422, "VALIDATION_ERROR"),
    "INTEGRATION_FAILURE": (502, "BAD_GATEWAY"),
    "INTEGRATION_TIMEOUT": (504, "GATEWAY_TIMEOUT"),
    "API_CONFIGURATION_ERROR": (500, "INTERNAL_ERROR"),
    "DEFAULT_5XX": (500, "INTERNAL_ERROR"),
}
REQUEST = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"


def substituted(template: str) -> Any:  # noqa: ANN401  # any JSON
    """Fill in a gateway template as API Gateway does: variables only, and a dash for a missing value."""
    return json.loads(
        re.sub(r"\$context\.[\w.]+", lambda name: REQUEST if name[0] == "$context.requestId" else "-", template)
    )


def test_the_gateway_answers_each_refusal_of_the_contract() -> None:
    """All but 413: AWS does not support customizing REQUEST_TOO_LARGE."""
    assert REFUSALS.keys() == API["GatewayResponses"].keys()


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_the_gateway_is_the_error_envelope(kind: str) -> None:
    """Its message is fixed, it quotes nothing of the request, and no cache stores it."""
    status, code = REFUSALS[kind]
    response = API["GatewayResponses"][kind]
    template = response["ResponseTemplates"]["application/json"]
    body = substituted(template)
    assert str(status) == response["StatusCode"]
    # AWS documents this variable for templates, and `$context.xrayTraceId` for access logs only.
    assert {"$context.requestId"} == set(re.findall(r"\$[\w.]+", template))
    assert {
        "success": False,
        "error": {
            "code": code,
            "message": body["error"]["message"] or "missing",
            "system_message": body["error"]["system_message"] or "missing",
            "type": "server_error" if status >= 500 else "client_error",
            "status": status,
            "details": {},
            "trace_id": REQUEST,
            "timestamp": None,
        },
    } == body
    retry = {"Retry-After": "'1'"} if status == 429 else {}
    headers = {"Cache-Control": "'no-store'", "X-Request-Id": "context.requestId"} | retry
    assert {"Headers": headers} == response["ResponseParameters"]


def test_the_access_log_is_json_without_headers_or_paths() -> None:
    """Headers and paths can hold a token, and a value with a quotation mark would break the line."""
    log = API["AccessLogSetting"]["Format"]
    assert all(value in {"-", REQUEST} for value in substituted(log).values())
    assert set() == set(re.findall(r"\$context\.[\w.]+", log)) & {
        "$context.path",
        "$context.identity.userAgent",
        "$context.identity.apiKey",
        "$context.error.message",
        "$context.error.messageString",
    }


def test_every_request_reaches_the_function() -> None:
    """Any method and any path, so the function makes every 404 and 405."""
    events = [event["Properties"] for event in FUNCTION["Events"].values()]
    assert {
        "/api/v1/scrape/batch/{batch_id}/progress",
        "/v1/scrape/batch/{batch_id}/progress",
        "/",
        "/{proxy+}",
    } == {event["Path"] for event in events}
    assert all(event["Method"] == "ANY" and event["RestApiId"] == {"Ref": "Api"} for event in events)


# Permissions


def statements(role: str, *, own_key: bool = False) -> list[dict[str, Any]]:
    """Return the statements of a role's policies: those without a condition, or those for a customer managed key."""
    policies = [
        *RESOURCES[role]["Properties"]["Policies"],
        *(
            one["Properties"]
            for one in RESOURCES.values()
            if one["Type"] == "AWS::IAM::ManagedPolicy" and {"Ref": role} in one["Properties"]["Roles"]
        ),
    ]
    choices = [policy["Fn::If"] for policy in policies if "Fn::If" in policy]
    assert all(("HasOwnKey", {"Ref": "AWS::NoValue"}) == (condition, other) for condition, _, other in choices)
    chosen = [choice[1] for choice in choices] if own_key else [policy for policy in policies if "Fn::If" not in policy]
    return [statement for policy in chosen for statement in policy["PolicyDocument"]["Statement"]]


def own(value: Any) -> Any:  # noqa: ANN401  # CloudFormation's JSON
    """Return what a value is if no parameter names a table."""
    match value:
        case {"Fn::If": ["OwnsJobsTable" | "OwnsTokensTable", mine, _]}:
            return mine
    return value


def given(value: Any, table: str) -> Any:  # noqa: ANN401  # the same
    """Return what a value is if a parameter names the table."""
    condition, _, other = value["Fn::If"]
    assert f"Owns{table}Table" == condition
    return other


def actions(statement: dict[str, Any]) -> list[str]:
    """Return a statement's actions; IAM also allows a single one."""
    return [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]


def resources(statement: dict[str, Any]) -> list[str]:
    """Return a statement's resources: `JobsTable.Arn`, or the last part of a name. The tables are the stack's own."""
    several = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    names = []
    for one in map(own, several):
        match one:
            case {"Fn::GetAtt": [name, attribute]}:
                names.append(f"{name}.{attribute}")
            case {"Fn::Sub": text}:
                names.append(text.rpartition(":")[2])
            case _:
                names.append(one)
    return names


LOGS = {("{}Logs.Arn", "logs:CreateLogStream"), ("{}Logs.Arn", "logs:PutLogEvents")}
# The function that continues traces of the API and of callers. Nothing that invokes the others is traced.
TRACES = {("*", "xray:PutTraceSegments"), ("*", "xray:PutTelemetryRecords")}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "Progress",
            {
                ("JobsTable.Arn", "dynamodb:Query"),
                ("JobsTable.Arn", "dynamodb:GetItem"),
                ("JobsTable.Arn", "dynamodb:UpdateItem"),
                ("TokensTable.Arn", "dynamodb:GetItem"),
                *TRACES,
            },
        ),
        (
            "Revision",
            {
                ("JobsTable.Arn", "dynamodb:UpdateItem"),
                *(
                    ("JobsTable.StreamArn", f"dynamodb:{a}")
                    for a in ("DescribeStream", "GetRecords", "GetShardIterator")
                ),
                ("*", "dynamodb:ListStreams"),
                ("RevisionFailures.Arn", "sqs:SendMessage"),
                ("ChecksQueue.Arn", "sqs:SendMessage"),
            },
        ),
        (
            "Supervisor",
            {
                ("JobsTable.Arn", "dynamodb:Query"),
                ("JobsTable.Arn", "dynamodb:GetItem"),
                ("JobsTable.Arn", "dynamodb:UpdateItem"),
                *(
                    ("ChecksQueue.Arn", f"sqs:{a}")
                    for a in ("SendMessage", "ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
                ),
                ("event-bus/${EventBusName}", "events:PutEvents"),
            },
        ),
    ],
)
def test_a_function_has_no_permission_beyond_its_work(name: str, wanted: set[tuple[str, str]]) -> None:
    """Besides its own work each may only write its log."""
    role, function = RESOURCES[f"{name}Role"]["Properties"], RESOURCES[f"{name}Function"]["Properties"]
    granted = {
        (resource, action)
        for statement in statements(f"{name}Role")
        for resource in resources(statement)
        for action in actions(statement)
    }
    assert wanted | {(resource.format(name), action) for resource, action in LOGS} == granted
    assert role.keys().isdisjoint({"ManagedPolicyArns", "PermissionsBoundary"})
    assert {"Fn::GetAtt": [f"{name}Role", "Arn"]} == function["Role"]
    assert "Policies" not in function
    assert (name == "Progress") == ("TokensTable" in json.dumps(function["Environment"]))


@pytest.mark.parametrize(
    ("role", "attributes", "returned"),
    [
        ("ProgressRole", ["counted", "counted_at", "counting"], "NONE"),
        ("RevisionRole", ["revision", "check_number", "check_due"], "ALL_NEW"),
    ],
)
def test_a_function_may_write_its_own_attributes_and_nothing_else(
    role: str, attributes: list[str], returned: str
) -> None:
    """The key and the owner are also in the list because they are in the update's condition."""
    (update,) = (one for one in statements(role) if one["Action"] == "dynamodb:UpdateItem")
    assert {
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["batch_id", "sk", "owner_id", *attributes]},
        "StringEqualsIfExists": {"dynamodb:ReturnValues": returned},
    } == update["Condition"]


def test_the_supervisor_writes_its_notes_and_fails_lost_jobs_and_nothing_else() -> None:
    """No permission covers both kinds of items: with none can it write an owner or a job's items."""
    batch, job = (one["Condition"] for one in statements("SupervisorRole") if one["Action"] == "dynamodb:UpdateItem")
    of_batch = set(batch["ForAllValues:StringEquals"]["dynamodb:Attributes"])
    of_job = set(job["ForAllValues:StringEquals"]["dynamodb:Attributes"])
    assert {"batch_id", "sk"} == of_batch & of_job
    assert {"owner_id", "counted", "counted_at", "counting", *SUPERVISOR_ATTRIBUTES} == of_batch - of_job
    condition = {"attempt", "started_at", "seen_at"}
    assert {"status", "finished_at", "error_code", "error_message", *condition} == of_job - of_batch
    assert {"dynamodb:ReturnValues": ["NONE", "ALL_NEW"]} == batch["StringEqualsIfExists"]
    assert {"dynamodb:ReturnValues": "NONE"} == job["StringEqualsIfExists"]


def test_the_supervisor_puts_only_events_of_this_service() -> None:
    (put,) = (one for one in statements("SupervisorRole") if one["Action"] == "events:PutEvents")
    assert {"StringEqualsIfExists": {"events:source": SOURCE}} == put["Condition"]
    variables = SUPERVISOR["Environment"]["Variables"]
    assert {"Ref": "EventBusName"} == variables["BATCH_PROGRESS_EVENT_BUS"]
    assert "default" == TEMPLATE["Parameters"]["EventBusName"]["Default"]


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        (
            "ProgressRole",
            {
                *(("dynamodb", f"kms:{action}") for action in ("Decrypt", "Encrypt", "ReEncrypt*", "GenerateDataKey*")),
                ("lambda", "kms:Decrypt"),
            },
        ),
        (
            "RevisionRole",
            {
                *(("dynamodb", f"kms:{action}") for action in ("Decrypt", "Encrypt", "ReEncrypt*", "GenerateDataKey*")),
                *(("sqs", f"kms:{action}") for action in ("Decrypt", "GenerateDataKey")),
                ("lambda", "kms:Decrypt"),
            },
        ),
        (
            "SupervisorRole",
            {
                *(("dynamodb", f"kms:{action}") for action in ("Decrypt", "Encrypt", "ReEncrypt*", "GenerateDataKey*")),
                *(("sqs", f"kms:{action}") for action in ("Decrypt", "GenerateDataKey")),
                ("lambda", "kms:Decrypt"),
            },
        ),
    ],
)
def test_a_customer_managed_key_is_used_only_through_services(role: str, wanted: set[tuple[str, str]]) -> None:
    found = set()
    for statement in statements(role, own_key=True):
        assert {"Ref": "KmsKeyArn"} == statement["Resource"]
        via = statement["Condition"]["StringEquals"]["kms:ViaService"]
        services = [service["Fn::Sub"] for service in (via if isinstance(via, list) else [via])]
        assert all(service.endswith(".${AWS::Region}.${AWS::URLSuffix}") for service in services)
        found |= {
            (service.partition(".")[0], action)
            for service in services
            for action in actions(statement)
            if action != "kms:DescribeKey"
        }
    assert wanted == found


# Functions and data


def test_only_jobs_and_new_batches_invoke_the_revision_function() -> None:
    """The functions' own updates of the batch item would invoke it in an endless loop."""
    jobs, batches = (json.loads(one["Pattern"]) for one in CHANGES["FilterCriteria"]["Filters"])
    assert {"dynamodb": {"Keys": {"sk": {"S": [{"prefix": "JOB#"}]}}}} == jobs
    assert {"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"S": ["BATCH"]}}}} == batches
    assert {"Fn::GetAtt": ["JobsTable", "StreamArn"]} == own(CHANGES["Stream"])


def test_a_change_that_cannot_be_counted_does_not_block_the_stream() -> None:
    """The change is retried alone, a few times for a few minutes, and then kept in the queue."""
    assert ["ReportBatchItemFailures"] == CHANGES["FunctionResponseTypes"]
    assert CHANGES["BisectBatchOnFunctionError"] is True
    assert 60 <= CHANGES["MaximumRecordAgeInSeconds"] <= 600
    assert 1 <= CHANGES["MaximumRetryAttempts"] <= 10
    destination = {"Type": "SQS", "Destination": {"Fn::GetAtt": ["RevisionFailures", "Arn"]}}
    assert destination == CHANGES["DestinationConfig"]["OnFailure"]


def test_a_check_that_fails_is_repeated_a_few_times_and_kept() -> None:
    """Without the others of its batch, and only after the function that had it must have ended."""
    queue = RESOURCES["ChecksQueue"]["Properties"]
    assert {"Fn::GetAtt": ["ChecksQueue", "Arn"]} == CHECKS["Queue"]
    assert ["ReportBatchItemFailures"] == CHECKS["FunctionResponseTypes"]
    assert queue["VisibilityTimeout"] >= 6 * SUPERVISOR["Timeout"]
    assert {"Fn::GetAtt": ["ChecksFailures", "Arn"]} == queue["RedrivePolicy"]["deadLetterTargetArn"]
    assert 3 <= queue["RedrivePolicy"]["maxReceiveCount"] <= 5
    assert queue["MessageRetentionPeriod"] > 5 * queue["VisibilityTimeout"] + LONGEST_DELAY_SECONDS


def test_the_supervisor_leaves_concurrency_to_the_other_functions() -> None:
    """A new account runs 10 functions at once; its event source takes some of them at most."""
    assert 2 <= CHECKS["ScalingConfig"]["MaximumConcurrency"] <= 10
    assert "ReservedConcurrentExecutions" not in SUPERVISOR


@pytest.mark.parametrize("function", [FUNCTION, REVISION, SUPERVISOR])
def test_a_function_runs_as_its_live_alias(function: dict[str, Any]) -> None:
    """A change of the layer alone, which holds the code, also publishes a version."""
    assert ("live", True) == (function["AutoPublishAlias"], function["AutoPublishAliasAllProperties"])
    assert "LogGroup" in function["LoggingConfig"]


def test_every_output_of_the_function_names_its_alias() -> None:
    """The unqualified function is the latest upload; callers need the live version."""
    outputs = TEMPLATE["Outputs"].items()
    assert {
        "ProgressFunctionName": {"Fn::Sub": "${ProgressFunction}:live"},
        "ProgressFunctionArn": {"Ref": "ProgressFunction.Alias"},
    } == {name: output["Value"] for name, output in outputs if "ProgressFunction" in str(output["Value"])}


def test_parameters_and_outputs_are_described() -> None:
    assert all(entry["Description"] for kind in ("Parameters", "Outputs") for entry in TEMPLATE[kind].values())


def test_every_log_group_has_the_chosen_retention() -> None:
    groups = [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::Logs::LogGroup"]
    assert groups
    assert all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups)


@pytest.mark.parametrize(
    ("kind", "deletion"), [("AWS::DynamoDB::Table", "Retain"), ("AWS::SQS::Queue", "RetainExceptOnCreate")]
)
def test_data_outlives_the_stack(kind: str, deletion: str) -> None:
    """A failed first deployment deletes its queues. Checks are no data: without the function they mean nothing."""
    found = [one for name, one in RESOURCES.items() if one["Type"] == kind and name != "ChecksQueue"]
    assert found
    assert {(deletion, "Retain")} == {(one["DeletionPolicy"], one["UpdateReplacePolicy"]) for one in found}


def test_a_table_is_deleted_by_nobody_by_mistake() -> None:
    """Not even by CloudFormation, so a failed first deployment must not try to."""
    found = [one for one in RESOURCES.values() if one["Type"] == "AWS::DynamoDB::Table"]
    assert 2 == len(found)
    assert all(one["Properties"]["DeletionProtectionEnabled"] is True for one in found)


def test_the_role_for_logs_outlives_a_failed_first_deployment() -> None:
    """The account still names it, and all of its APIs log with it."""
    assert {("Retain", "Retain")} == {
        (RESOURCES[name]["DeletionPolicy"], RESOURCES[name]["UpdateReplacePolicy"])
        for name in ("ApiLogRole", "ApiLogAccount")
    }


def test_a_second_region_has_a_dashboard_of_its_own() -> None:
    """An account's dashboards are global, unlike its stacks."""
    assert {"Fn::Sub": "${AWS::StackName}-${AWS::Region}"} == RESOURCES["Dashboard"]["Properties"]["DashboardName"]


def test_every_suppression_has_its_reason() -> None:
    """The reason for checkov is in `comment`, the one for cfn-lint in a YAML comment on the same line."""
    checkov = [
        skip
        for resource in RESOURCES.values()
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]
    assert checkov
    assert all(len(skip["comment"]) > 10 for skip in checkov)
    cfn_lint = re.findall(r"^.*ignore_checks:(.*)$", TEXT, re.MULTILINE)
    assert cfn_lint
    assert all(re.fullmatch(r" \[\w+(, \w+)*\] \} \} # .{5,}", rest) for rest in cfn_lint)


def test_tables_are_what_create_table_takes() -> None:
    """Keys, billing and the stream of keys, by the logical id."""
    jobs, tokens = tables()
    assert ("JobsTable", "TokensTable") == (jobs["TableName"], tokens["TableName"])
    assert [("batch_id", "HASH"), ("sk", "RANGE")] == [(k["AttributeName"], k["KeyType"]) for k in jobs["KeySchema"]]
    assert [("token_hash", "HASH")] == [(k["AttributeName"], k["KeyType"]) for k in tokens["KeySchema"]]
    assert {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"} == jobs["StreamSpecification"]
    assert "StreamSpecification" not in tokens


def test_everything_follows_a_table_that_a_parameter_names() -> None:
    """Environment, event source, alarm, dashboard and outputs; the ARN of the stream also names the table."""
    stream = {"Ref": "JobsTableStreamArn"}
    jobs, tokens = (
        {"Fn::Select": [1, {"Fn::Split": ["/", {"Fn::Sub": "${JobsTableStreamArn}/"}]}]},
        {"Ref": "TokensTableName"},
    )
    variables = FUNCTION["Environment"]["Variables"]
    alarm = RESOURCES["TableThrottlesAlarm"]["Properties"]["Metrics"]
    of_jobs, _, of_tokens = (part["MetricStat"]["Metric"]["Dimensions"][0]["Value"] for part in alarm[:3])
    dashboard = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"][1]
    for value in (
        *(one["Environment"]["Variables"]["BATCH_PROGRESS_JOBS_TABLE"] for one in (FUNCTION, REVISION, SUPERVISOR)),
        *(of_jobs, dashboard["JobsTable"], TEMPLATE["Outputs"]["JobsTableName"]["Value"]),
    ):
        assert ({"Ref": "JobsTable"}, jobs) == (own(value), given(value, "Jobs"))
    for value in (
        *(variables["BATCH_PROGRESS_TOKENS_TABLE"], of_tokens, dashboard["TokensTable"]),
        TEMPLATE["Outputs"]["TokensTableName"]["Value"],
    ):
        assert ({"Ref": "TokensTable"}, tokens) == (own(value), given(value, "Tokens"))
    assert stream == given(CHANGES["Stream"], "Jobs")


@pytest.mark.parametrize("role", ["ProgressRole", "RevisionRole", "SupervisorRole"])
def test_every_permission_follows_a_table_that_a_parameter_names(role: str) -> None:
    """The same permissions, for the table, its stream or the tokens table."""
    stream = {"Ref": "JobsTableStreamArn"}
    wanted = {
        "JobsTable.Arn": ("Jobs", {"Fn::Select": [0, {"Fn::Split": ["/stream/", stream]}]}),
        "JobsTable.StreamArn": ("Jobs", stream),
        "TokensTable.Arn": (
            "Tokens",
            {"Fn::Sub": "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${TokensTableName}"},
        ),
    }
    found = [one for one in statements(role) if any(name in wanted for name in resources(one))]
    assert found
    for statement in found:
        (name,) = resources(statement)
        table, other = wanted[name]
        assert other == given(statement["Resource"], table)


def test_the_arn_of_a_stream_is_that_of_a_table() -> None:
    """Not the ARN of a table, whose stream would be missing, and not the name of one."""
    pattern = TEMPLATE["Parameters"]["JobsTableStreamArn"]["AllowedPattern"]
    table = "arn:aws:dynamodb:eu-central-1:123456789012:table/jobs-2"
    taken = ["", f"{table}/stream/2026-11-24T03:00:00.123"]
    refused = [table, f"{table}/stream/", f"{table}/index/a/stream/2026-11-24T03:00:00.123", "jobs-2"]
    assert taken == [text for text in taken + refused if re.fullmatch(pattern, text)]


def test_session_tokens_are_off_until_an_issuer_is_named() -> None:
    """An issuer needs an audience and https."""
    parameters, variables = TEMPLATE["Parameters"], FUNCTION["Environment"]["Variables"]
    for name, variable, default in (
        ("TokenIssuer", "BATCH_PROGRESS_TOKEN_ISSUER", ""),
        ("TokenAudience", "BATCH_PROGRESS_TOKEN_AUDIENCE", ""),
        ("TokenOwnerClaim", "BATCH_PROGRESS_TOKEN_OWNER_CLAIM", "sub"),
    ):
        assert default == parameters[name]["Default"]
        assert {"Ref": name} == variables[variable]
    pattern = parameters["TokenIssuer"]["AllowedPattern"]
    taken = ["", "https://example.auth0.com/", "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_a1B2c3D4e"]
    refused = ["http://example.com", "example.com", "https://", "https://a b", "https://a?b", "https://a#b"]
    assert taken == [text for text in taken + refused if re.fullmatch(pattern, text)]
    rule = TEMPLATE["Rules"]["SessionTokensAreForSomebody"]
    assert {"Fn::Not": [{"Fn::Equals": [{"Ref": "TokenIssuer"}, ""]}]} == rule["RuleCondition"]
    assert [{"Fn::Not": [{"Fn::Equals": [{"Ref": "TokenAudience"}, ""]}]}] == [
        assertion["Assert"] for assertion in rule["Assertions"]
    ]


def test_a_deployment_with_samconfig_is_a_canary() -> None:
    """The template's own default also works without CodeDeploy."""
    config = tomllib.loads((FILE.parent / "samconfig.toml").read_text(encoding="utf-8"))
    given = config["default"]["deploy"]["parameters"]["parameter_overrides"]
    assert ["DeploymentPreference=Canary10Percent5Minutes"] == given
    assert "AllAtOnce" == TEMPLATE["Parameters"]["DeploymentPreference"]["Default"]


# The bill


def test_what_costs_is_off_until_it_is_asked_for() -> None:
    """Traces, metrics by route, and Lambda's own lines of each invocation."""
    assert "false" == TEMPLATE["Parameters"]["Tracing"]["Default"]
    assert {"Fn::If": ["TracesRequests", True, False]} == API["TracingEnabled"]
    assert all("MetricsEnabled" not in one for one in API["MethodSettings"])
    for function in (FUNCTION, REVISION, SUPERVISOR):
        assert ("PassThrough", "WARN") == (function["Tracing"], function["LoggingConfig"]["SystemLogLevel"])


# Alarms and dashboard


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_leads_to_its_runbook(name: str) -> None:
    """Its description, which CloudWatch cuts at 1,024 characters, ends with a link to the heading."""
    description = ALARMS[name]["AlarmDescription"]
    assert 100 < len(description) <= 1024
    assert description.endswith(f" docs/operations.md#{name}")
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert name in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_notifies_the_topic_and_ignores_silence(name: str) -> None:
    """No traffic means no data; the topic, if there is one, also gets the end of the alarm."""
    alarm, topic = ALARMS[name], {"Fn::If": ["HasTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert (topic, topic, "notBreaching") == (alarm["AlarmActions"], alarm["OKActions"], alarm["TreatMissingData"])


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_one_number(name: str) -> None:
    """A metric, or one expression that uses all of its metrics; a rate counts only above some traffic."""
    alarm = ALARMS[name]
    assert 1 <= alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]
    if "Metrics" not in alarm:
        assert alarm["Period"] in {60, 300}
        return
    (result,) = (metric for metric in alarm["Metrics"] if metric.get("ReturnData", True))
    parts = [metric for metric in alarm["Metrics"] if metric is not result]
    assert {part["Id"] for part in parts} == set(re.findall(r"\b[a-z]+\b", result["Expression"]))
    assert 1 == len({part["MetricStat"]["Period"] for part in parts})
    if "/" in result["Expression"]:
        few = r"IF\((\w+) >= \d+( \|\| 2 \* \1 >= requests)?, 100 \* \1 / requests, 0\)"
        assert re.fullmatch(few, result["Expression"])


def test_the_dashboard_shows_every_alarm_and_fills_its_rows() -> None:
    """CloudWatch places the widgets one after another on 24 columns."""
    text, values = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    alarms, *metrics = json.loads(text)["widgets"]
    assert {"Alarm", "JobsTable", "TokensTable"} == values.keys()
    assert {f"${{Alarm}}-{name}" for name in ALARMS} == set(alarms["properties"]["alarms"])
    assert 24 == alarms["width"]
    assert 0 == sum(widget["width"] for widget in metrics) % 24
    assert len({widget["properties"]["title"] for widget in metrics}) == len(metrics)
