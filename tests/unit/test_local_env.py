"""The configuration of `sam local` agrees with `make run` and the template."""

import inspect
import json
import tomllib
from typing import Any

import pytest
from botocore.session import Session

from batch_progress_cli.local_server import REGION
from batch_progress_cli.main import serve
from local_cloud.checks import queue_url
from local_cloud.template import TEMPLATE, read

ROOT = TEMPLATE.parent
LOCAL: dict[str, dict[str, str]] = json.loads((ROOT / "local-env.json").read_text())
VARIABLES = LOCAL["Parameters"]
CONFIGURED: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]


@pytest.mark.parametrize("function", ["ProgressFunction", "RevisionFunction", "SupervisorFunction"])
def test_each_variable_is_declared_and_empty_where_deployed(function: str) -> None:
    """`sam local` sets no variable that the template does not declare. The queue is that of the local server."""
    declared = read()["Resources"][function]["Properties"]["Environment"]["Variables"]
    given = VARIABLES | LOCAL.get(function, {})
    queue = given.pop("BATCH_PROGRESS_CHECKS_QUEUE_URL", None)
    assert dict.fromkeys(given, "") == {name: declared[name] for name in given}
    address = VARIABLES["AWS_ENDPOINT_URL_DYNAMODB"]
    assert {address} == set(given.values())
    assert (queue is not None) == ("BATCH_PROGRESS_CHECKS_QUEUE_URL" in declared)
    assert queue in {None, queue_url(address)}


def test_an_empty_endpoint_is_the_region_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployed function has the variable, too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "")
    client = Session().create_client("dynamodb", REGION, aws_access_key_id="none", aws_secret_access_key="none")
    assert f"https://dynamodb.{REGION}.amazonaws.com" == client.meta.endpoint_url


def test_a_container_asks_the_port_and_region_of_the_local_server() -> None:
    """By the name that `sam local` gives to this machine."""
    port = inspect.signature(serve).parameters["port"].default
    assert {"AWS_ENDPOINT_URL_DYNAMODB": f"http://host.docker.internal:{port}"} == VARIABLES


@pytest.mark.parametrize("command", ["local_invoke", "local_start_api", "local_start_lambda"])
def test_all_commands_have_the_same_settings(command: str) -> None:
    told = CONFIGURED[command]["parameters"]
    assert (REGION, "local-env.json") == (told["region"], told["env_vars"])
    assert ["host.docker.internal:host-gateway"] == told["add_host"]
