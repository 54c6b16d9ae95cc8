"""Print the template as SAM expands it for CloudFormation, for the linters.

Runs on the Python of the SAM command line: `.venv-sam/bin/python scripts/expand.py template.yaml [Name=value ...]`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

LINTERS = ("checkov", "cfn-lint")


class NoManagedPolicies:
    """Replaces the list of IAM's managed policies, which this template does not use."""

    def load(self) -> dict[str, str]:
        """Return no policies."""
        return {}


def expanded(template: dict[str, Any], parameters: dict[str, str]) -> dict[str, Any]:
    """Expand a template; parameters that are not given take their defaults."""
    declared = template["Resources"]
    for resource in declared.values():
        properties = resource["Properties"]
        # SAM accepts S3 addresses only; `sam package` would insert one here.
        for name in properties.keys() & {"CodeUri", "ContentUri"}:
            properties[name] = f"s3://bucket/{properties[name]}"
    metadata = {name: resource["Metadata"] for name, resource in declared.items() if "Metadata" in resource}
    result: dict[str, Any] = transform(template, parameters, NoManagedPolicies())
    for name, resource in result["Resources"].items():
        # A suppression applies to every resource that SAM generates from one; their names start with its name.
        makers = [maker for maker in metadata if name.startswith(maker) and name not in declared]
        if makers:
            made = metadata[max(makers, key=len)]
            resource.setdefault("Metadata", {}).update({tool: made[tool] for tool in LINTERS if tool in made})
    return result


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    source = yaml_parse(Path(sys.argv[1]).read_text(encoding="utf-8"))
    json.dump(expanded(source, dict(argument.split("=", 1) for argument in sys.argv[2:])), sys.stdout, indent=1)
