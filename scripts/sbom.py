"""The bill of materials of the layer, in build/sbom.json, and its licences, in docs/licences.md.

`sbom.py --write` writes both. `sbom.py --check` writes the bill and fails when the page is out of date. Both fail for a
package that is not pinned by hashes, and for a licence that is not allowed.

Runs in `.venv-supply` and reads `.venv-layer`, which contains exactly what layers/batch_progress/requirements.txt pins.
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
BILL: Final = ROOT / "build" / "sbom.json"
LICENCES: Final = ROOT / "docs" / "licences.md"

# Licences that allow closed-source products and require a notice at most.
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
# Classifiers of packages that declare no SPDX licence.
_CLASSIFIED: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
}
# Licences of compiled-in components whose bill names none, by component name.
_UNSAID: Final = {"openssl": "Apache-2.0"}
_REQUIREMENT: Final = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>(?:.*\\\n)*.*)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Refused(Exception):
    """The bill cannot be made, or breaks a rule; the message says which."""


def bill() -> dict[str, Any]:
    """Make the bill: that of cyclonedx-py, with the pinned hashes and the compiled-in components."""
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
        # The files of all architectures, without the address they came from.
        component["externalReferences"] = [
            {"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-256", "content": one} for one in found]}
        ]
        if inside := _compiled_in(component):
            component["components"] = inside
    if missing := hashes.keys() - {component["purl"] for component in made["components"]}:
        raise Refused(f"pinned, but not in {LAYER.name}: {', '.join(sorted(missing))}")
    if fault := JsonStrictValidator(SchemaVersion.from_version(made["specVersion"])).validate_str(json.dumps(made)):
        raise Refused(f"the bill is not valid CycloneDX: {str(fault).splitlines()[0]}")
    if addresses := re.findall(r"https?://[^\"]+", json.dumps(made | {"$schema": ""})):
        raise Refused(f"the bill says where something was downloaded: {addresses[0]}")
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
    """Return the hashes of each pinned package by its package URL."""
    found = _REQUIREMENT.finditer(REQUIREMENTS.read_text(encoding="utf-8"))
    return {
        f"pkg:pypi/{re.sub(r'[-_.]+', '-', one['name']).lower()}@{one['version']}": _HASH.findall(one["rest"])
        for one in found
    }


def _licence(declared: dict[str, Any]) -> dict[str, Any]:
    name = declared.get("license", {}).get("name")
    return {"license": {"id": _CLASSIFIED[name], "acknowledgement": "declared"}} if name in _CLASSIFIED else declared


def _compiled_in(component: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the bills inside a wheel (PEP 770): its Rust crates and linked libraries."""
    name = f"{component['name'].replace('-', '_')}-{component['version']}.dist-info"
    parts = [
        part
        for file in sorted(LAYER.glob(f"lib/python*/site-packages/{name}/sboms/*.json"))
        for part in json.loads(file.read_text(encoding="utf-8"))["components"]
    ]
    # The qualifiers contain local paths and download addresses.
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
        Refused: It declares none, or one that is not allowed.
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
        raise Refused(f"the licence of {component['purl']} is not allowed: {expression or 'none'}")
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
        "The licences that the packages of the Lambda layer declare.",
        "`make sbom` writes this page, and `make check` fails when it is out of date or when a licence is not allowed.",
        "`scripts/sbom.py` lists the allowed licences; [decision 12](decisions/0012-supply-chain.md) has the reasons.",
        "Hashes and dependencies are in the bill of materials, which `make sbom` writes to `build/sbom.json`.",
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
    """Write the bill, and write or check the page."""
    if arguments not in (["--write"], ["--check"]):
        raise Refused("usage: sbom.py --write | --check")
    made = bill()
    page = licences(made)
    BILL.parent.mkdir(exist_ok=True)
    BILL.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments == ["--write"]:
        LICENCES.write_text(page, encoding="utf-8")
    elif LICENCES.read_text(encoding="utf-8") != page:
        raise Refused(f"{LICENCES.relative_to(ROOT)} is out of date; run make sbom")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        sys.exit(f"sbom: {refused}")
