"""CloudWatch, as far as the template uses it: metrics from log lines, metric math, and alarms minute by minute."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import CodeType
from typing import Any, Final

from local_cloud.template import read

_RESOURCES: Final[dict[str, Any]] = read()["Resources"]
STATISTICS: Final[dict[str, Callable[[list[float]], float]]] = {"Sum": sum, "SampleCount": len, "Maximum": max}


@dataclass(frozen=True)
class Metric:
    """A metric's identity where it is made or used."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]] = frozenset()


def text(value: str | dict[str, Any]) -> str:
    """Return a value of the template in the notation of `Fn::Sub`."""
    match value:
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [*names]}:
            return f"${{{'.'.join(names)}}}"
        case {"Fn::Sub": str(pattern)}:
            return pattern
        case {"Fn::If": ["OwnsJobsTable" | "OwnsTokensTable", own, _]}:
            return text(own)
    return str(value)


def metric_of(properties: Mapping[str, Any]) -> Metric:
    """Return the metric that an alarm or a part of its expression names."""
    dimensions = {(one["Name"], text(one["Value"])) for one in properties.get("Dimensions", [])}
    return Metric(text(properties["Namespace"]), properties["MetricName"], frozenset(dimensions))


@cache
def filters(log_group: str) -> list[dict[str, Any]]:
    """Return the metric filters of a log group by its logical id."""
    found = [one["Properties"] for one in _RESOURCES.values() if one["Type"] == "AWS::Logs::MetricFilter"]
    return [one for one in found if {"Ref": log_group} == one["LogGroupName"]]


def compared(found: Mapping[str, Any]) -> set[str]:
    """Return the fields of log lines in a metric filter's pattern."""
    return set(re.findall(r"\$\.(\w+)", found["FilterPattern"]))


def taken(found: Mapping[str, Any]) -> set[str]:
    """Return the fields of log lines that become a metric filter's value or dimensions."""
    (made,) = found["MetricTransformations"]
    values = [made["MetricValue"], *(one["Value"] for one in made.get("Dimensions", []))]
    return {value.removeprefix("$.") for value in values if value.startswith("$.")}


def measured(found: Mapping[str, Any], line: Mapping[str, Any]) -> tuple[Metric, float] | None:
    """Return the metric and the value that a filter takes from a log line, `None` if it does not match."""
    if not eval(_condition(found["FilterPattern"]), {"line": line}):  # noqa: S307  # the template's pattern
        return None
    (made,) = found["MetricTransformations"]
    dimensions = {(one["Key"], str(line[one["Value"].removeprefix("$.")])) for one in made.get("Dimensions", [])}
    value = made["MetricValue"]
    number = float(line[value.removeprefix("$.")] if value.startswith("$.") else value)
    return Metric(text(made["MetricNamespace"]), made["MetricName"], frozenset(dimensions)), number


@cache
def _condition(pattern: str) -> CodeType:
    condition = pattern.strip("{} ").replace("&&", " and ").replace("||", " or ")
    condition = re.sub(r"\$\.(\w+) = \*", r"'\1' in line", condition)
    condition = re.sub(r"\$\.(\w+) = ", r"line.get('\1') == ", condition)
    return compile(condition, pattern, "eval")


def embedded(line: Mapping[str, Any]) -> Iterable[tuple[Metric, float]]:
    """Yield the metrics that a line in the embedded metric format is."""
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, str(line[name])) for name in names)
            for metric in directive["Metrics"]:
                yield Metric(directive["Namespace"], metric["Name"], dimensions), float(line[metric["Name"]])


@dataclass
class Metrics:
    """The samples of metrics by minute."""

    samples: dict[Metric, dict[int, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, minute: int, metric: Metric, value: float) -> None:
        self.samples[metric][minute].append(value)

    def logged(self, minute: int, log_group: str, line: Mapping[str, Any]) -> None:
        """Add what the filters of a log group take from a line."""
        for found in filters(log_group):
            if one := measured(found, line):
                self.add(minute, *one)

    def statistic(self, metric: Metric, name: str, minutes: Iterable[int]) -> float | None:
        """Return a statistic over some minutes, `None` without a sample."""
        values = [value for minute in minutes for value in self.samples[metric].get(minute, [])]
        return STATISTICS[name](values) if values else None


def goes_off(alarm: str, metrics: Metrics, minutes: int, values: Mapping[str, str]) -> int | None:
    """Return the number of minutes after which an alarm of the template goes off, `None` if it does not.

    Args:
        alarm: Its logical id.
        metrics: What happened.
        minutes: For how long it is evaluated.
        values: What the template's references stand for.
    """
    properties = _RESOURCES[alarm]["Properties"]
    assert "notBreaching" == properties["TreatMissingData"]
    breaches = {"GreaterThanThreshold": float.__gt__, "GreaterThanOrEqualToThreshold": float.__ge__}
    breach = breaches[properties["ComparisonOperator"]]
    breaching: list[bool] = []
    for minute in range(minutes):
        value = _datapoint(properties, metrics, minute, values)
        breaching.append(value is not None and breach(float(value), float(properties["Threshold"])))
        if sum(breaching[-properties["EvaluationPeriods"] :]) >= properties["DatapointsToAlarm"]:
            return minute + 1
    return None


def _datapoint(properties: Mapping[str, Any], metrics: Metrics, minute: int, values: Mapping[str, str]) -> float | None:
    """Return an alarm's value of one minute."""

    def statistic(part: Mapping[str, Any], name: str) -> float | None:
        used = metric_of(part)
        dimensions = frozenset((key, values.get(value, value)) for key, value in used.dimensions)
        return metrics.statistic(Metric(used.namespace, used.name, dimensions), name, [minute])

    if "Metrics" not in properties:
        assert 60 == properties["Period"]
        return statistic(properties, properties["Statistic"])
    known: dict[str, Any] = {"IF": _if, "FILL": lambda one, other: other if one is None else one}
    (result,) = (one for one in properties["Metrics"] if one.get("ReturnData", True))
    for one in properties["Metrics"]:
        if one is not result:
            assert 60 == one["MetricStat"]["Period"]
            known[one["Id"]] = statistic(one["MetricStat"]["Metric"], one["MetricStat"]["Stat"])
    expression = result["Expression"].replace("||", " or ").replace("&&", " and ")
    # A missing operand makes the result missing; FILL takes the place of one.
    needed = set(re.findall(r"\b[a-z]+\b", re.sub(r"FILL\(\w+, \d+\)", "", expression))) - {"or", "and"}
    if any(known[name] is None for name in needed):
        return None
    return float(eval(expression, known))  # noqa: S307  # the template's expression


def _if(condition: object, then: float, otherwise: float) -> float:
    return then if condition else otherwise
