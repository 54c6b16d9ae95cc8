"""Print the template as CloudFormation gets it, for the linters: what SAM makes of it.

Run by the Python of the SAM command line: `.venv-sam/bin/python scripts/expand.py template.yaml [Name=value ...]`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class NoManagedPolicies:
    """Stands in for IAM's list of policies, which this template asks nothing of."""

    def load(self) -> dict[str, str]:
        """Return none."""
        return {}


def expanded(template: dict[str, Any], parameters: dict[str, str]) -> dict[str, Any]:
    """Return what SAM makes of a template; parameters that are not given have their defaults."""
    declared = template["Resources"]
    for resource in declared.values():
        properties = resource["Properties"]
        # SAM takes a bucket's address alone, such as `sam package` puts here.
        for name in properties.keys() & {"CodeUri", "ContentUri"}:
            properties[name] = f"s3://bucket/{properties[name]}"
    metadata = {name: resource["Metadata"] for name, resource in declared.items() if "Metadata" in resource}
    result: dict[str, Any] = transform(template, parameters, NoManagedPolicies())
    for name, resource in result["Resources"].items():
        # A suppression holds for all that SAM makes of a resource, each of which it names by it.
        makers = [maker for maker in metadata if name.startswith(maker) and name not in declared]
        if makers:
            resource.setdefault("Metadata", {})["checkov"] = metadata[max(makers, key=len)].get("checkov", {})
    return result


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    source = yaml_parse(Path(sys.argv[1]).read_text(encoding="utf-8"))
    json.dump(expanded(source, dict(argument.split("=", 1) for argument in sys.argv[2:])), sys.stdout, indent=1)
