"""What the stack promises beyond what the linters check."""

import json
import re
import tomllib
from typing import Any

import pytest

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

DASHBOARD: dict[str, Any] = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
# The properties of each alarm by the name of its page.
PAGES: dict[str, dict[str, Any]] = {
    one["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): one["Properties"]
    for one in RESOURCES.values()
    if one["Type"] == "AWS::CloudWatch::Alarm"
}

# What the contract's error table has for the gateway: status and code, and which of its types make them.
REFUSALS = {
    "THROTTLED": (429, "RATE_LIMIT_EXCEEDED"),
    "ACCESS_DENIED": (403, "ACCESS_DENIED"),
    "WAF_FILTERED": (403, "ACCESS_DENIED"),
    "MISSING_AUTHENTICATION_TOKEN": (404, "ROUTE_NOT_FOUND"),
    "RESOURCE_NOT_FOUND": (404, "ROUTE_NOT_FOUND"),
    "REQUEST_TOO_LARGE": (413, "PAYLOAD_TOO_LARGE"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "UNSUPPORTED_MEDIA_TYPE"),
    "DEFAULT_4XX": (422, "VALIDATION_ERROR"),
    "INTEGRATION_FAILURE": (502, "BAD_GATEWAY"),
    "INTEGRATION_TIMEOUT": (504, "GATEWAY_TIMEOUT"),
    "API_CONFIGURATION_ERROR": (500, "INTERNAL_ERROR"),
    "DEFAULT_5XX": (500, "INTERNAL_ERROR"),
}
TRACE = "1-67891233-abcdef012345678912345678"


def substituted(template: str) -> Any:  # noqa: ANN401  # whatever the JSON is
    """Fill in a template of the gateway as it does: variables only, no logic; what it does not know is a dash."""
    return json.loads(re.sub(r"\$context\.[\w.]+", lambda name: TRACE if "xray" in name[0] else "-", template))


def test_the_gateway_answers_each_refusal_of_the_contract() -> None:
    """Every type that can occur has its own answer, and no other."""
    assert REFUSALS.keys() == API["GatewayResponses"].keys()


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_the_gateway_is_the_error_envelope(kind: str) -> None:
    """Status and code as in the contract, the status pinned, the message fixed, nothing of the request quoted."""
    status, code = REFUSALS[kind]
    response = API["GatewayResponses"][kind]
    template = response["ResponseTemplates"]["application/json"]
    body = substituted(template)
    error = body["error"]

    assert str(status) == response["StatusCode"]
    assert {"$context.xrayTraceId"} == set(re.findall(r"\$[\w.]+", template))
    assert ["success", "error"] == list(body)
    assert body["success"] is False
    assert ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"] == list(error)
    assert (code, status, {}, TRACE, None) == tuple(
        error[field] for field in ("code", "status", "details", "trace_id", "timestamp")
    )
    assert ("server_error" if status >= 500 else "client_error") == error["type"]
    assert all(isinstance(error[field], str) and error[field] for field in ("message", "system_message"))


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_the_gateway_has_the_headers_of_an_error(kind: str) -> None:
    """No cache keeps it, the request can be found again, and a throttled client knows how long to wait."""
    wanted = {"Cache-Control": "'no-store'", "X-Request-Id": "context.requestId"}
    if kind == "THROTTLED":
        wanted["Retry-After"] = "'1'"
    assert {"Headers": wanted} == API["GatewayResponses"][kind]["ResponseParameters"]


def test_the_access_log_is_json_without_headers_or_paths() -> None:
    """A token could stand in either, and a value with a quotation mark would break the line."""
    log = API["AccessLogSetting"]["Format"]
    assert all(value in {"-", TRACE} for value in substituted(log).values())
    assert set() == set(re.findall(r"\$context\.[\w.]+", log)) & {
        "$context.path",
        "$context.identity.userAgent",
        "$context.identity.apiKey",
        "$context.error.message",
        "$context.error.messageString",
    }


def test_every_request_reaches_the_function() -> None:
    """Both paths, and everything else too, by any method: so every 404 and 405 is the function's."""
    events = [event["Properties"] for event in FUNCTION["Events"].values()]
    assert {
        "/api/v1/scrape/batch/{batch_id}/progress",
        "/v1/scrape/batch/{batch_id}/progress",
        "/",
        "/{proxy+}",
    } == {event["Path"] for event in events}
    assert all(event["Method"] == "ANY" and event["RestApiId"] == {"Ref": "Api"} for event in events)


def statements(role: dict[str, Any], *, own_key: bool = False) -> list[dict[str, Any]]:
    """Return what a role's policies say; with a key of one's own, what is said then and not otherwise."""
    always = [policy for policy in role["Policies"] if "Fn::If" not in policy]
    choices = [policy["Fn::If"] for policy in role["Policies"] if "Fn::If" in policy]
    assert all(("HasOwnKey", {"Ref": "AWS::NoValue"}) == (condition, other) for condition, _, other in choices)
    policies = [with_key for _, with_key, _ in choices] if own_key else always
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def actions(statement: dict[str, Any]) -> list[str]:
    """Return the actions of a statement, which may be one."""
    return [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]


def granted(role: dict[str, Any]) -> set[tuple[str, str]]:
    """Return what a role may do: each resource with each action."""
    return {
        (json.dumps(statement["Resource"]), action) for statement in statements(role) for action in actions(statement)
    }


def test_the_function_may_read_and_nothing_else() -> None:
    """Query and GetItem on the jobs, GetItem on the tokens, its own log, traces; no policy beside these."""
    role = RESOURCES["ProgressRole"]["Properties"]
    jobs, tokens, logs = (
        json.dumps({"Fn::GetAtt": [name, "Arn"]}) for name in ("JobsTable", "TokensTable", "ProgressLogs")
    )
    assert {
        (jobs, "dynamodb:Query"),
        (jobs, "dynamodb:GetItem"),
        (tokens, "dynamodb:GetItem"),
        (logs, "logs:CreateLogStream"),
        (logs, "logs:PutLogEvents"),
        ('"*"', "xray:PutTraceSegments"),
        ('"*"', "xray:PutTelemetryRecords"),
    } == granted(role)
    assert role.keys().isdisjoint({"ManagedPolicyArns", "PermissionsBoundary"})
    assert {"Fn::GetAtt": ["ProgressRole", "Arn"]} == FUNCTION["Role"]
    assert "Policies" not in FUNCTION


def test_the_revision_function_may_count_and_nothing_else() -> None:
    """Update the jobs table, read its stream, say what failed; it never reads an item and knows no tokens table."""
    role = RESOURCES["RevisionRole"]["Properties"]
    stream = json.dumps({"Fn::GetAtt": ["JobsTable", "StreamArn"]})
    logs = json.dumps({"Fn::GetAtt": ["RevisionLogs", "Arn"]})
    assert {
        (json.dumps({"Fn::GetAtt": ["JobsTable", "Arn"]}), "dynamodb:UpdateItem"),
        (stream, "dynamodb:DescribeStream"),
        (stream, "dynamodb:GetRecords"),
        (stream, "dynamodb:GetShardIterator"),
        ('"*"', "dynamodb:ListStreams"),
        (json.dumps({"Fn::GetAtt": ["RevisionFailures", "Arn"]}), "sqs:SendMessage"),
        (logs, "logs:CreateLogStream"),
        (logs, "logs:PutLogEvents"),
        ('"*"', "xray:PutTraceSegments"),
        ('"*"', "xray:PutTelemetryRecords"),
    } == granted(role)
    assert role.keys().isdisjoint({"ManagedPolicyArns", "PermissionsBoundary"})
    assert {"Fn::GetAtt": ["RevisionRole", "Arn"]} == REVISION["Role"]
    assert "Policies" not in REVISION
    variables = {"BATCH_PROGRESS_JOBS_TABLE": {"Ref": "JobsTable"}, "AWS_ENDPOINT_URL_DYNAMODB": ""}
    assert variables == REVISION["Environment"]["Variables"]


def test_the_revision_function_may_write_the_revision_and_nothing_else() -> None:
    """Not a status, not a total; the owner and the key can't be left out, being in the condition."""
    (update,) = (
        statement
        for statement in statements(RESOURCES["RevisionRole"]["Properties"])
        if statement["Action"] == "dynamodb:UpdateItem"
    )
    assert {
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["batch_id", "sk", "owner_id", "revision"]},
        "StringEqualsIfExists": {"dynamodb:ReturnValues": "NONE"},
    } == update["Condition"]


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        ("ProgressRole", {("dynamodb", "kms:Decrypt"), ("lambda", "kms:Decrypt")}),
        (
            "RevisionRole",
            {
                *(("dynamodb", f"kms:{action}") for action in ("Decrypt", "Encrypt", "ReEncrypt*", "GenerateDataKey*")),
                *(("sqs", f"kms:{action}") for action in ("Decrypt", "GenerateDataKey")),
                ("lambda", "kms:Decrypt"),
            },
        ),
    ],
)
def test_a_key_of_one_s_own_is_used_through_its_services_alone(role: str, wanted: set[tuple[str, str]]) -> None:
    """Each role does by it what its service needs, and nothing directly."""
    found = set()
    for statement in statements(RESOURCES[role]["Properties"], own_key=True):
        assert {"Ref": "KmsKeyArn"} == statement["Resource"]
        via = statement["Condition"]["StringEquals"]["kms:ViaService"]
        services = via if isinstance(via, list) else [via]
        assert all(service["Fn::Sub"].endswith(".${AWS::Region}.${AWS::URLSuffix}") for service in services)
        names = [service["Fn::Sub"].partition(".")[0] for service in services]
        found |= {(name, action) for name in names for action in actions(statement) if action != "kms:DescribeKey"}
    assert wanted == found


def test_only_jobs_wake_the_revision_function() -> None:
    """The batch's own item would do it by the function's own update, for ever."""
    (one,) = CHANGES["FilterCriteria"]["Filters"]
    assert {"dynamodb": {"Keys": {"sk": {"S": [{"prefix": "JOB#"}]}}}} == json.loads(one["Pattern"])
    assert {"Fn::GetAtt": ["JobsTable", "StreamArn"]} == CHANGES["Stream"]


def test_a_change_that_cannot_be_counted_holds_nothing_up_for_ever() -> None:
    """Failures are told one by one, tried a few times for a few minutes, and kept."""
    assert ["ReportBatchItemFailures"] == CHANGES["FunctionResponseTypes"]
    assert CHANGES["BisectBatchOnFunctionError"] is True
    assert 60 <= CHANGES["MaximumRecordAgeInSeconds"] <= 600
    assert 1 <= CHANGES["MaximumRetryAttempts"] <= 10
    assert {"Type": "SQS", "Destination": {"Fn::GetAtt": ["RevisionFailures", "Arn"]}} == CHANGES["DestinationConfig"][
        "OnFailure"
    ]
    assert "AWS::SQS::Queue" == RESOURCES["RevisionFailures"]["Type"]


@pytest.mark.parametrize("function", [FUNCTION, REVISION])
def test_a_function_runs_as_its_live_alias(function: dict[str, Any]) -> None:
    """And a change of the layer alone, where the code is, publishes a version."""
    assert ("live", True) == (function["AutoPublishAlias"], function["AutoPublishAliasAllProperties"])
    assert "LogGroup" in function["LoggingConfig"]


def test_every_output_of_the_function_names_its_alias() -> None:
    """The unqualified function is whatever was uploaded last; callers are to get what is live."""
    naming = {
        name: output["Value"] for name, output in TEMPLATE["Outputs"].items() if "ProgressFunction" in str(output)
    }
    assert {
        "ProgressFunctionName": {"Fn::Sub": "${ProgressFunction}:live"},
        "ProgressFunctionArn": {"Ref": "ProgressFunction.Alias"},
    } == naming
    assert FUNCTION["AutoPublishAlias"] == "live"


def test_parameters_and_outputs_are_described() -> None:
    """Whoever deploys reads what each is for, and finds the outputs that others rely on."""
    assert all(entry["Description"] for kind in ("Parameters", "Outputs") for entry in TEMPLATE[kind].values())
    assert {"ApiUrl", "ProgressFunctionName", "JobsTableName", "TokensTableName", "LayerArn"} <= set(
        TEMPLATE["Outputs"]
    )


def test_every_log_ends_some_day() -> None:
    """Each log group says how long it keeps."""
    groups = [one["Properties"] for one in RESOURCES.values() if one["Type"] == "AWS::Logs::LogGroup"]
    assert groups
    assert all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups)


@pytest.mark.parametrize("kind", ["AWS::DynamoDB::Table", "AWS::SQS::Queue"])
def test_data_outlives_the_stack(kind: str) -> None:
    """What cannot be made again stays when the stack goes; a first deployment that fails leaves nothing."""
    found = [resource for resource in RESOURCES.values() if resource["Type"] == kind]
    assert found
    assert {("RetainExceptOnCreate", "Retain")} == {
        (one["DeletionPolicy"], one["UpdateReplacePolicy"]) for one in found
    }


def test_every_suppression_has_its_reason() -> None:
    """Beside what it suppresses: checkov's as its comment, cfn-lint's behind its id."""
    checkov = [
        skip
        for resource in RESOURCES.values()
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]
    assert checkov
    assert all(len(skip["comment"]) > 10 for skip in checkov)
    cfn_lint = re.findall(r"^ +- [EWI][A-Z]?\d{4}\b(.*)$", TEXT, re.MULTILINE)
    assert cfn_lint
    assert all(re.match(r" # .{5,}", reason) for reason in cfn_lint)


# What tells an operator


def test_there_is_an_alarm_for_what_can_go_wrong() -> None:
    """Each by the name that its page has."""
    assert {
        "server-errors",
        "latency",
        "new-version-errors",
        "function-throttles",
        "request-throttles",
        "table-throttles",
        "revision-lag",
        "malformed-items",
        "revision-failures",
    } == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_an_alarm_says_what_to_do(page: str) -> None:
    """In its description, which CloudWatch cuts at 1,024 characters, and at length on its page."""
    description = PAGES[page]["AlarmDescription"]
    assert 100 < len(description) <= 1024
    assert description.endswith(f" docs/operations.md#{page}")
    assert any(
        word in description for word in ("Wake somebody", "In working hours", "Nobody is woken", "nobody is woken")
    )
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert page in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_no_traffic_is_no_alarm(page: str) -> None:
    """An idle night has no data."""
    assert "notBreaching" == PAGES[page]["TreatMissingData"]


@pytest.mark.parametrize("page", PAGES)
def test_an_alarm_tells_the_topic_where_there_is_one(page: str) -> None:
    """That it is on, and that it is over."""
    told = {"Fn::If": ["HasTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert (told, told) == (PAGES[page]["AlarmActions"], PAGES[page]["OKActions"])


@pytest.mark.parametrize("page", PAGES)
def test_an_alarm_hears_one_number(page: str) -> None:
    """A metric, or one expression that uses every metric of it; and it can go off within its own time."""
    alarm = PAGES[page]
    assert 1 <= alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]
    if "Metrics" not in alarm:
        assert alarm["Period"] in {60, 300}
        return
    (result,) = (metric for metric in alarm["Metrics"] if metric.get("ReturnData", True))
    parts = [metric for metric in alarm["Metrics"] if metric is not result]
    assert {part["Id"] for part in parts} == set(re.findall(r"\b[a-z]+\b", result["Expression"]))
    assert 1 == len({part["MetricStat"]["Period"] for part in parts})


def test_a_rate_needs_some_traffic() -> None:
    """One failure of two requests at night is no 50%."""
    expressions = [alarm["Metrics"][-1]["Expression"] for alarm in PAGES.values() if "Metrics" in alarm]
    rates = [expression for expression in expressions if "/" in expression]
    assert 2 == len(rates)
    assert all(re.fullmatch(r"IF\((\w+) >= \d+, 100 \* \1 / requests, 0\)", rate) for rate in rates)


def test_alarms_undo_a_deployment() -> None:
    """Those of what a new version can do wrong."""
    assert {
        "Fn::If": [
            "HasAlarms",
            [{"Ref": "ServerErrorsAlarm"}, {"Ref": "LatencyAlarm"}, {"Ref": "NewVersionErrorsAlarm"}],
            [{"Ref": "AWS::NoValue"}],
        ]
    } == FUNCTION["DeploymentPreference"]["Alarms"]


def test_a_deployment_by_hand_of_samconfig_is_a_canary() -> None:
    """The template's own default is for where there is no CodeDeploy."""
    config = tomllib.loads((FILE.parent / "samconfig.toml").read_text(encoding="utf-8"))
    given = config["default"]["deploy"]["parameters"]["parameter_overrides"]
    assert ["DeploymentPreference=Canary10Percent5Minutes"] == given
    assert "AllAtOnce" == TEMPLATE["Parameters"]["DeploymentPreference"]["Default"]


def test_the_dashboard_is_a_page() -> None:
    """JSON whose widgets lie beside each other, all within its 24 columns, with every alarm at the top."""
    cells: set[tuple[int, int]] = set()
    for widget in DASHBOARD["widgets"]:
        covers = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert cells.isdisjoint(covers)
        cells |= covers
    assert set(range(24)) == {x for x, _ in cells}
    (alarms,) = (widget["properties"]["alarms"] for widget in DASHBOARD["widgets"] if widget["type"] == "alarm")
    assert {f"${{AWS::StackName}}-{page}" for page in PAGES} == {arn.rpartition(":alarm:")[2] for arn in alarms}


def test_the_dashboard_shows_what_is_asked_of_it() -> None:
    """Traffic, outcomes, latency, cold starts, jobs per answer, the share of unchanged polls, read units."""
    titles = {widget["properties"]["title"] for widget in DASHBOARD["widgets"]}
    assert {
        "Traffic",
        "Outcomes",
        "Latency, ms",
        "Cold starts",
        "Jobs per answer",
        "Polls answered 304, %",
        "Read units",
    } <= titles


def test_tables_are_what_create_table_takes() -> None:
    """Keys, billing and the stream of keys, by the logical id."""
    jobs, tokens = tables()
    assert ("JobsTable", "TokensTable") == (jobs["TableName"], tokens["TableName"])
    assert [("batch_id", "HASH"), ("sk", "RANGE")] == [(k["AttributeName"], k["KeyType"]) for k in jobs["KeySchema"]]
    assert [("token_hash", "HASH")] == [(k["AttributeName"], k["KeyType"]) for k in tokens["KeySchema"]]
    assert {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"} == jobs["StreamSpecification"]
    assert "StreamSpecification" not in tokens


def test_session_tokens_are_off_until_an_issuer_is_named() -> None:
    """And an issuer is not taken without an audience, nor over plain HTTP."""
    parameters = TEMPLATE["Parameters"]
    variables = FUNCTION["Environment"]["Variables"]
    for name, variable, default in (
        ("TokenIssuer", "BATCH_PROGRESS_TOKEN_ISSUER", ""),
        ("TokenAudience", "BATCH_PROGRESS_TOKEN_AUDIENCE", ""),
        ("TokenOwnerClaim", "BATCH_PROGRESS_TOKEN_OWNER_CLAIM", "sub"),
    ):
        assert default == parameters[name]["Default"]
        assert {"Ref": name} == variables[variable]
    pattern = parameters["TokenIssuer"]["AllowedPattern"]
    taken = ["", "https://example.auth0.com/", "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_a1B2c3D4e"]
    assert [True] * 3 == [bool(re.fullmatch(pattern, text)) for text in taken]
    refused = ["http://example.com", "example.com", "https://", "https://a b", "https://a?b", "https://a#b"]
    assert [False] * 6 == [bool(re.fullmatch(pattern, text)) for text in refused]
    (rule,) = TEMPLATE["Rules"].values()
    assert {"Fn::Not": [{"Fn::Equals": [{"Ref": "TokenIssuer"}, ""]}]} == rule["RuleCondition"]
    assert [{"Fn::Not": [{"Fn::Equals": [{"Ref": "TokenAudience"}, ""]}]}] == [
        assertion["Assert"] for assertion in rule["Assertions"]
    ]


def test_the_description_of_a_version_always_fits() -> None:
    """Lambda takes 256 characters; it carries the values of the parameters that make a version another one."""
    longest = {
        "Arch": len("x86_64"),
        "MemorySize": len("10240"),
        "WatchPage": len("false"),
        "KeyId": len("1234abcd-12ab-34cd-56ef-1234567890ab"),
        **{
            name: TEMPLATE["Parameters"][name]["MaxLength"]
            for name in ("TokenIssuer", "TokenAudience", "TokenOwnerClaim")
        },
    }
    text = FUNCTION["VersionDescription"]["Fn::Sub"][0]
    assert len(re.sub(r"\$\{(\w+)\}", lambda name: "x" * longest[name[1]], text)) <= 256
