"""The bill of materials of what the layer carries: docs/sbom.json, and its licences in docs/licences.md.

`sbom.py --write` makes both anew; `sbom.py --check` fails when they are not what it would write. Either fails on a
package that is not pinned by hashes, and on a licence that is not on the list below.

Runs in `.venv-supply`, and looks at `.venv-layer`, which holds what layers/batch_progress/requirements.txt pins and
nothing else.
"""

import json
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import ExpressionError, get_spdx_licensing  # type: ignore[import-untyped]  # ships no types

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "layers" / "batch_progress" / "requirements.txt"
LAYER: Final = ROOT / ".venv-layer"
BILL: Final = ROOT / "docs" / "sbom.json"
LICENCES: Final = ROOT / "docs" / "licences.md"

# What may be in a closed product, by name: each asks for a notice at most.
ALLOWED: Final = frozenset(
    {
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "MIT",
        "MIT-0",
        "PSF-2.0",
        "Unicode-3.0",
        "Unicode-DFS-2016",
        "Unlicense",
        "Zlib",
    }
)
# Packages that name no licence of SPDX's, by their classifiers.
_CLASSIFIED: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
}
# What is compiled in by bills that say no licence, by its name there.
_UNSAID: Final = {"openssl": "Apache-2.0"}
_REQUIREMENT: Final = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>(?:.*\\\n)*.*)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Refused(Exception):
    """The bill cannot be made, or is not as it must be; the message says why."""


def bill() -> dict[str, Any]:
    """Make the bill: cyclonedx-py's, with the pinned hashes in it and what packages compiled into themselves."""
    made = _environment()
    made["metadata"]["tools"]["components"] = [
        {name: tool[name] for name in ("type", "name", "version")} for tool in made["metadata"]["tools"]["components"]
    ]
    hashes = _pinned()
    for component in made["components"]:
        purl = component["purl"]
        found = hashes.get(purl)
        if not found:
            raise Refused(f"{purl} is not pinned by hashes in {REQUIREMENTS.relative_to(ROOT)}")
        component["licenses"] = [_licence(one) for one in component.get("licenses", ())]
        # One of these files, whichever fits the machine; where from is no matter of a bill.
        component["externalReferences"] = [
            {"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-256", "content": one} for one in found]}
        ]
        if inside := _compiled_in(component):
            component["components"] = inside
    if fault := JsonStrictValidator(SchemaVersion.from_version(made["specVersion"])).validate_str(json.dumps(made)):
        raise Refused(f"what would be written is no CycloneDX: {str(fault).splitlines()[0]}")
    return made


def _environment() -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--output-reproducible"]
    done = subprocess.run(  # noqa: S603  # the project's own tool
        [*command, "--pyproject", str(ROOT / "pyproject.toml"), str(LAYER / "bin" / "python")],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.decode().strip().splitlines() or ["no output"])[-1]
        raise Refused(f"cyclonedx-py failed: {last}")
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _pinned() -> dict[str, list[str]]:
    """Return the hashes of each requirement, by its package URL."""
    found = _REQUIREMENT.finditer(REQUIREMENTS.read_text(encoding="utf-8"))
    return {
        f"pkg:pypi/{re.sub(r'[-_.]+', '-', one['name']).lower()}@{one['version']}": _HASH.findall(one["rest"])
        for one in found
    }


def _licence(declared: dict[str, Any]) -> dict[str, Any]:
    name = declared.get("license", {}).get("name")
    return {"license": {"id": _CLASSIFIED[name], "acknowledgement": "declared"}} if name in _CLASSIFIED else declared


def _compiled_in(component: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the bills that a wheel brings of its own (PEP 770): the crates it is made of, a library linked to it."""
    name = f"{component['name'].replace('-', '_')}-{component['version']}.dist-info"
    parts = [
        part
        for file in sorted(LAYER.glob(f"lib/python*/site-packages/{name}/sboms/*.json"))
        for part in json.loads(file.read_text(encoding="utf-8"))["components"]
    ]
    # A local path, or where a source was fetched, is no part of a name.
    purls = [part["purl"].partition("?")[0] for part in parts]
    return [
        {
            "bom-ref": f"{component['bom-ref']} {purl}",
            "type": part["type"],
            "name": part["name"],
            "version": part["version"],
        }
        | {"hashes": part.get("hashes", []), "licenses": part.get("licenses") or _unsaid(part), "purl": purl}
        for part, purl in zip(parts, purls, strict=True)
    ]


def _unsaid(part: dict[str, Any]) -> list[dict[str, Any]]:
    expression = _UNSAID.get(part["name"])
    return [{"expression": expression}] if expression else []


def licence(component: dict[str, Any]) -> str:
    """Return a component's licence as an expression.

    Raises:
        Refused: It has none, or one that is not on the list.
    """
    names = [
        one.get("expression") or one["license"].get("id") or one["license"]["name"]
        for one in component.get("licenses", ())
    ]
    expression = " AND ".join(f"({name})" if " OR " in name and len(names) > 1 else name for name in names)
    try:
        allowed = bool(names) and _allows(get_spdx_licensing().parse(expression, validate=True))
    except ExpressionError:
        allowed = False
    if not allowed:
        raise Refused(f"the licence of {component['purl']} is not among those allowed: {expression or 'none'}")
    return expression


def _allows(parsed: Any) -> bool:  # noqa: ANN401  # license-expression ships no types
    operator = getattr(parsed, "operator", "").strip()
    if operator == "OR":
        return any(map(_allows, parsed.args))
    if operator == "AND":
        return all(map(_allows, parsed.args))
    return str(parsed) in ALLOWED


def licences(made: dict[str, Any]) -> str:
    """Return the page of licences."""
    lines = [
        "# Licences",
        "",
        "Made by `make sbom` from what the layer's packages declare, and checked by `make check`; hashes and",
        "dependencies are in [sbom.json](sbom.json). What may be used is listed in `scripts/sbom.py`.",
        "",
        "| Package | Version | Licence |",
        "| --- | --- | --- |",
        *(f"| {one['name']} | {one['version']} | {licence(one)} |" for one in made["components"]),
    ]
    for whole in made["components"]:
        parts = whole.get("components", [])
        if not parts:
            continue
        lines += ["", f"Compiled into {whole['name']}:", "", "| Licence | What |", "| --- | --- |"]
        parts = sorted(parts, key=lambda part: (licence(part), part["name"], part["version"]))
        lines += [
            f"| {expression} | {', '.join(f'{part["name"]} {part["version"]}' for part in some)} |"
            for expression, some in groupby(parts, licence)
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Write the two files, or check them."""
    made = bill()
    wanted = {BILL: json.dumps(made, indent=2, ensure_ascii=False) + "\n", LICENCES: licences(made)}
    if arguments == ["--write"]:
        for file, content in wanted.items():
            file.write_text(content, encoding="utf-8")
    elif arguments == ["--check"]:
        stale = [file for file, content in wanted.items() if not file.exists() or file.read_text("utf-8") != content]
        if stale:
            names = ", ".join(str(file.relative_to(ROOT)) for file in stale)
            raise Refused(f"not what the layer carries: {names}; run make sbom")
    else:
        raise Refused("say --write or --check")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        sys.exit(f"sbom: {refused}")
