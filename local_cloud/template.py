"""Read `template.yaml`: its resources, and what the local server and the tests need of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short tags as their long forms: `!Ref X` as `{"Ref": "X"}`."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if name == "GetAtt":
            value = str(value).split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]  # the only other kind of node
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)


def read(template: Path = TEMPLATE) -> dict[str, Any]:
    """Return a SAM template as plain values, with its `Globals` merged into each function."""
    values = dict(yaml.load(template.read_text(encoding="utf-8"), Loader=_Loader))  # noqa: S506  # a SafeLoader
    shared = values.get("Globals", {}).get("Function", {})
    for resource in values["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"] = _merged(shared, resource["Properties"])
    return values


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Merge maps as SAM does; our globals have no list that a function also has, which SAM would concatenate."""
    both = {
        name: _merged(shared[name], own[name]) for name in shared.keys() & own.keys() if isinstance(own[name], dict)
    }
    return shared | own | both


def timeout_seconds(function: str) -> float:
    """Return the timeout of a function, named by its logical id."""
    return float(read()["Resources"][function]["Properties"]["Timeout"])


@dataclass(frozen=True)
class StreamMapping:
    """How Lambda delivers the jobs table's stream.

    Attributes:
        batch_size: The most records in one invocation.
        window_seconds: The seconds for which changes are collected.
        retries: The number of times that a failed batch is delivered again.
    """

    batch_size: int
    window_seconds: float
    retries: int


def stream_mapping() -> StreamMapping:
    """Return the event source mapping of the revision function."""
    mapping = read()["Resources"]["RevisionFunction"]["Properties"]["Events"]["JobChanges"]["Properties"]
    return StreamMapping(
        batch_size=mapping["BatchSize"],
        window_seconds=mapping["MaximumBatchingWindowInSeconds"],
        retries=mapping["MaximumRetryAttempts"],
    )


def checks_at_once() -> int:
    """Return the most checks in one invocation of the supervisor."""
    size = read()["Resources"]["SupervisorFunction"]["Properties"]["Events"]["Checks"]["Properties"]["BatchSize"]
    return int(size)


def tables(template: Path = TEMPLATE) -> list[dict[str, Any]]:
    """Return the arguments of `CreateTable` for every table of a template, named by its logical id."""
    return [
        {"TableName": name, **_creation(resource["Properties"])}
        for name, resource in read(template)["Resources"].items()
        if resource["Type"] == "AWS::DynamoDB::Table"
    ]


def expiry_attributes(template: Path = TEMPLATE) -> dict[str, str]:
    """Return for every table whose items expire the attribute that says when."""
    return {
        name: resource["Properties"]["TimeToLiveSpecification"]["AttributeName"]
        for name, resource in read(template)["Resources"].items()
        if "TimeToLiveSpecification" in resource.get("Properties", {})
    }


def _creation(properties: dict[str, Any]) -> dict[str, Any]:
    wanted = {key: properties[key] for key in ("KeySchema", "AttributeDefinitions", "BillingMode")}
    stream = properties.get("StreamSpecification")
    # A template enables a stream by its view type; the API needs `StreamEnabled` too.
    return wanted | ({"StreamSpecification": {"StreamEnabled": True, **stream}} if stream else {})
