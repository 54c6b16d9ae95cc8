"""Mutation testing: `mutation.py [MODULE ...]` changes a module of the layer in every small way that mutmut knows.

A change that no test notices is a survivor. Each must stand with its reason in docs/mutation.md, and at least nine of
ten changes must be noticed; else the exit status is 1. The figures go into benchmarks/mutation.json.
`mutation.py --again [MODULE ...]` tries only what survived, with the tests as they are now.

mutmut passes decorated functions over, and takes a module's name from its path, of which it knows `src/` alone. So it
works on a copy in which `@cache def f` is `f = cache(f)`, in `mutants/MODULE/src`. It changes functions alone:
constants, fields of structs and their defaults stay as they are.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import libcst as cst

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "batch_progress"
LAYER: Final = ROOT / "layers" / PACKAGE / PACKAGE
MUTANTS: Final = ROOT / "mutants"
FIGURES: Final = ROOT / "benchmarks" / "mutation.json"
REASONS: Final = ROOT / "docs" / "mutation.md"
LEAST_SHARE: Final = 0.9
# A changed loop may fill a machine's memory before its time is up.
MOST_MEMORY: Final = 4 * 2**30

# The tests that are meant to hold each module to its word, rather than all that run through it.
TESTS: Final = {
    "progress": ["tests/unit/test_progress.py"],
    "forecast": ["tests/unit/test_forecast.py"],
    "decode": ["tests/unit/test_decode.py", "tests/integration/test_malformed.py"],
    "dynamodb": [
        "tests/unit/test_decode.py",
        "tests/integration/test_faults.py",
        "-k",
        "not ((slow or stalls) and (token or later or batch))",  # seconds each, and the same as for the first page
    ],
    "recorder": ["tests/integration/test_recorder.py"],
    "tokens": [
        "tests/unit/test_tokens.py",
        "tests/integration/test_tokens.py",
        "tests/integration/test_token_flood.py",
        "tests/integration/test_session_tokens.py",
    ],
    "jwt": ["tests/integration/test_session_tokens.py"],
    "jwks": ["tests/unit/test_jwks.py", "tests/integration/test_session_tokens.py"],
}
# What a fixture calls once for many tests; mutmut would know the first of them alone.
ONCE: Final = {"dynamodb": "x_client"}

# One process, the same examples each time and none made smaller; without what only costs time when each mutant is a
# run of its own.
_PYTEST: Final = [
    *("-n", "0", "--hypothesis-profile", "mutation", "--assert", "plain"),
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "unraisableexception", "threadexception", "schemathesis")),
]
_SETTINGS: Final = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {files}
also_copy = ["batch_progress_cli", "local_cloud", "scripts", "functions", "docs", "events", "template.yaml"]
pytest_add_cli_args = {arguments}
pytest_add_cli_args_test_selection = {tests}
# By the clock: on a busy machine a short one would count as killed what only waited.
timeout_multiplier = 5.0
timeout_constant = 10.0
on_dependency_change = "ignore"
"""
# mutmut's words for a mutant that a test noticed.
_KILLED: Final = frozenset({"killed", "timeout"})


class _Undecorated(cst.CSTTransformer):
    """Turns `@decorator def f` into `def f` and `f = decorator(f)`, which is the same, and leaves `@cache` out.

    Of a function that is called once and for all, mutmut would know one test alone.
    """

    def leave_FunctionDef(  # noqa: N802  # libcst's name and signature
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.FlattenSentinel[cst.BaseStatement]:
        """Rewrite one function."""
        decorators = [each.decorator for each in original_node.decorators]
        names = [each.value if isinstance(each, cst.Name) else "" for each in decorators]
        if names in ([], ["staticmethod"]):  # mutmut knows these
            return updated_node
        bare = updated_node.with_changes(decorators=[])
        if names == ["cache"]:
            return bare
        decorated: cst.BaseExpression = bare.name
        for decorator in reversed(decorators):
            decorated = cst.Call(decorator, [cst.Arg(decorated)])
        assignment = cst.Assign([cst.AssignTarget(bare.name)], decorated)
        return cst.FlattenSentinel([bare, cst.SimpleStatementLine([assignment])])


def stage(module: str) -> Path:
    """Lay out what mutmut works on, afresh."""
    place = MUTANTS / module
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(LAYER, place / "src" / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    file = place / "src" / PACKAGE / f"{module}.py"
    file.write_text(cst.parse_module(file.read_text(encoding="utf-8")).visit(_Undecorated()).code, encoding="utf-8")
    for name in (
        "batch_progress_cli",
        "local_cloud",
        "scripts",
        "functions",
        "docs",
        "events",
        "tests",
        "template.yaml",
    ):
        (place / name).symlink_to(ROOT / name)
    settings = _SETTINGS.format(
        files=json.dumps([f"src/{PACKAGE}/{module}.py"]),
        arguments=json.dumps(_PYTEST),
        tests=json.dumps(TESTS[module]),
    )
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (place / "pyproject.toml").write_text(project + settings, encoding="utf-8")
    return place


def mutmut(place: Path, *arguments: str) -> str:
    """Run mutmut and return what it printed."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    environment = os.environ | {"PYTHONHASHSEED": "0", "COLUMNS": "200"}
    done = subprocess.run(  # noqa: S603  # the project's own tool
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        sys.exit(f"mutation: mutmut {arguments[0]} failed in {place.relative_to(ROOT)}:\n{output[-3_000:]}")
    return output


def run(module: str, place: Path, names: list[str]) -> None:
    """Let mutmut run; on those mutants alone that are named, where any are."""
    children = ["--max-children", os.environ.get("CHILDREN", "2")]
    mutmut(place, "run", *children, *names)
    if module in ONCE:
        name = f"{PACKAGE}.{module}.{ONCE[module]}"
        file = place / "mutants" / "mutmut-stats.json"
        known = json.loads(file.read_text(encoding="utf-8"))
        known["tests_by_mangled_function_name"][name] = list(known["duration_by_test"])
        file.write_text(json.dumps(known), encoding="utf-8")
        mutmut(place, "run", *children, f"{name}__mutmut_*")


def ends(place: Path) -> dict[str, str]:
    """Return what became of each mutant."""
    lines = mutmut(place, "results", "--all", "true").splitlines()
    return dict(line.strip().split(": ") for line in lines if "__mutmut_" in line)


def figures(place: Path) -> dict[str, Any]:
    """Sum up."""
    found = ends(place)
    survivors = [name for name, end in found.items() if end not in _KILLED]
    return {
        "mutants": len(found),
        "killed": len(found) - len(survivors),
        "timed_out": sum(end == "timeout" for end in found.values()),
        "share": round(1 - len(survivors) / len(found), 4),
        "survivors": [_change(place, name) for name in survivors],
    }


def _change(place: Path, name: str) -> dict[str, str]:
    """Return what a mutant changed, and where."""
    diff = mutmut(place, "show", name).splitlines()
    was, now = (
        " ".join(line[1:].strip() for line in diff if re.match(sign, line)) for sign in (r"-(?!-)", r"\+(?!\+)")
    )
    function = re.sub(r"^.*?\.x[_ǁ]", "", name.partition("__mutmut_")[0]).replace("ǁ", ".")
    return {"in": function, "was": was, "now": now if re.search(r"\w", now) else f"without {was}"}


def main(arguments: list[str]) -> None:
    """Test the modules named, or all; report and keep what was found."""
    again = "--again" in arguments
    modules = [one for one in arguments if one != "--again"] or list(TESTS)
    if unknown := set(modules) - TESTS.keys():
        sys.exit(f"mutation: no module is called {', '.join(unknown)}; there are: {', '.join(TESTS)}")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    reasons = REASONS.read_text(encoding="utf-8") if REASONS.exists() else ""
    faults = []
    for module in modules:
        if again:
            place = MUTANTS / module
            if not (place / "mutants" / "mutmut-stats.json").exists():
                sys.exit(f"mutation: nothing to do again; run make mutation MODULE={module} first")
            names = [name for name, end in ends(place).items() if end != "killed"]
            (place / "mutants" / "mutmut-stats.json").unlink()
        else:
            place, names = stage(module), []
        run(module, place, names)
        found = figures(place)
        kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        kept = {one: found if one == module else kept[one] for one in TESTS if one in kept or one == module}
        FIGURES.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{module}: {found['killed']} of {found['mutants']} killed, {found['share']:.1%}")
        if found["share"] < LEAST_SHARE:
            faults.append(f"{module}: fewer than {LEAST_SHARE:.0%} of the mutants were killed")
        faults += [
            f"{module}: docs/mutation.md does not say why this survives, in {one['in']}: {one['now']}"
            for one in found["survivors"]
            if f"`{one['in']}`, `{one['now']}`" not in reasons
        ]
    if faults:
        sys.exit("\n".join(f"mutation: {fault}" for fault in faults))


if __name__ == "__main__":
    main(sys.argv[1:])
