"""Mutation testing: `mutation.py [MODULE ...]` applies each change that mutmut knows to a module and runs its tests.

A change that no test notices is a survivor. The exit status is 1 when a survivor has no reason in
benchmarks/survivors.toml, or when the tests notice fewer than nine of ten changes of a module. The figures go to
benchmarks/mutation.json and docs/mutation.md.
`mutation.py --again [MODULE ...]` runs only the survivors of the last run, against the current tests.

mutmut skips decorated functions and derives a module's name from its path, for which it only knows `src/`. So it
works on a copy in `mutants/MODULE/src`, in which `@decorator def f` is `f = decorator(f)`. It changes functions only:
constants, fields of structs and their defaults stay as they are.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import libcst as cst

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "batch_progress"
LAYER: Final = ROOT / "layers" / PACKAGE / PACKAGE
MUTANTS: Final = ROOT / "mutants"
FIGURES: Final = ROOT / "benchmarks" / "mutation.json"
REASONS: Final = ROOT / "benchmarks" / "survivors.toml"
PAGE: Final = ROOT / "docs" / "mutation.md"
BEGIN: Final = "<!-- figures: begin -->"
END: Final = "<!-- figures: end -->"
LEAST_SHARE: Final = 0.9
# A changed loop could exhaust the machine's memory before it times out.
MOST_MEMORY: Final = 4 * 2**30

# The tests that specify each module, not every test that runs its code.
TESTS: Final = {
    "progress": ["tests/unit/test_progress.py"],
    "forecast": ["tests/unit/test_forecast.py"],
    "decode": ["tests/unit/test_decode.py", "tests/integration/test_malformed.py"],
    "dynamodb": [
        "tests/unit/test_decode.py",
        "tests/integration/test_faults.py",
        "-k",
        "not ((slow or stalls) and (token or later or batch))",  # slow, and the same as for the first page
    ],
    "recorder": ["tests/integration/test_recorder.py", "tests/integration/test_interleavings.py"],
    "supervision": ["tests/unit/test_supervision.py"],
    "supervisor": ["tests/integration/test_supervisor.py"],
    "messages": ["tests/integration/test_supervisor_app.py"],
    "tokens": [
        "tests/unit/test_tokens.py",
        "tests/integration/test_tokens.py",
        "tests/integration/test_token_flood.py",
        "tests/integration/test_session_tokens.py",
    ],
    "jwt": ["tests/integration/test_session_tokens.py"],
    "jwks": ["tests/unit/test_jwks.py", "tests/integration/test_session_tokens.py"],
    "client.protocol": ["tests/unit/test_client.py"],
    "client.connection": ["tests/unit/test_client.py", "tests/integration/test_client.py"],
    "client.arguments": ["tests/unit/test_client.py"],
    "client.errors": ["tests/unit/test_client.py"],
    "client.results": ["tests/unit/test_client.py"],
}
# Functions that a fixture calls once for many tests. mutmut would attribute them only to the first of these tests.
ONCE: Final = {"dynamodb": "x_client"}

# One process, the same examples in each run, no shrinking, and none of the plugins that cost time in every run.
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
# Wall-clock time: with a shorter limit, a mutant that merely waited on a busy machine would count as killed.
timeout_multiplier = 5.0
timeout_constant = 10.0
on_dependency_change = "ignore"
"""
# mutmut's terms for a mutant that a test noticed.
_KILLED: Final = frozenset({"killed", "timeout"})


class _Undecorated(cst.CSTTransformer):
    """Turns `@decorator def f` into `def f` and `f = decorator(f)`, and removes `@cache` and `@lru_cache(...)`.

    mutmut attributes a cached function to the first test that calls it, and runs mutants with its warm cache.
    """

    def leave_FunctionDef(  # noqa: N802  # libcst's name and signature
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.FlattenSentinel[cst.BaseStatement]:
        decorators = [each.decorator for each in original_node.decorators]
        called = [each.func if isinstance(each, cst.Call) else each for each in decorators]
        names = [each.value if isinstance(each, cst.Name) else "" for each in called]
        if names in ([], ["staticmethod"]):  # mutmut handles these
            return updated_node
        bare = updated_node.with_changes(decorators=[])
        if isinstance(called[0], cst.Attribute) and called[0].attr.value == "setter":
            # Under the property's own name, it would replace the property before it becomes its setter.
            bare = bare.with_changes(name=cst.Name(f"set_{bare.name.value}"))
        if names in (["cache"], ["lru_cache"]):
            return bare
        decorated: cst.BaseExpression = bare.name
        for decorator in reversed(decorators):
            decorated = cst.Call(decorator, [cst.Arg(decorated)])
        assignment = cst.Assign([cst.AssignTarget(updated_node.name)], decorated)
        return cst.FlattenSentinel([bare, cst.SimpleStatementLine([assignment])])


def stage(module: str) -> Path:
    """Make the copy that mutmut works on."""
    place = MUTANTS / module
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(LAYER, place / "src" / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    source = f"src/{PACKAGE}/{module.replace('.', '/')}.py"
    file = place / source
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
        files=json.dumps([source]),
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
    """Run mutmut on the named mutants, or on all if no name is given."""
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
    """Return the result of each mutant by name."""
    lines = mutmut(place, "results", "--all", "true").splitlines()
    return dict(line.strip().split(": ") for line in lines if "__mutmut_" in line)


def figures(found: dict[str, str]) -> dict[str, Any]:
    """Summarize the results of one module."""
    killed = sum(end in _KILLED for end in found.values())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "mutants": len(found),
        "killed": killed,
        "timed_out": sum(end == "timeout" for end in found.values()),
        "share": round(killed / len(found), 4),
    }


def _change(place: Path, name: str) -> str:
    """Return the function that a mutant changed, and the changed line."""
    diff = mutmut(place, "show", name).splitlines()
    was, now = (
        " ".join(line[1:].strip() for line in diff if re.match(sign, line)) for sign in (r"-(?!-)", r"\+(?!\+)")
    )
    function = re.sub(r"^.*?\.x[_ǁ]", "", name.partition("__mutmut_")[0]).replace("ǁ", ".")
    return f"{function}: {now if re.search(r'\w', now) else f'without {was}'}"


def _reasons() -> dict[str, set[str]]:
    """Return the survivors that have a reason, by module."""
    written = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    return {
        module: {mutant for entry in entries if entry["reason"] for mutant in entry["mutants"]}
        for module, entries in written.items()
    }


def _keep(module: str, found: dict[str, Any]) -> None:
    """Write a module's figures into the data file and the page."""
    kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    kept = {one: found if one == module else kept[one] for one in TESTS if one in kept or one == module}
    FIGURES.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    rows = ["| Module | Mutants | Killed | by timeout | Share | Date |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    rows += [
        f"| {name} | {row['mutants']} | {row['killed']} | {row['timed_out']} | {row['share']:.1%} | {row['date']} |"
        for name, row in kept.items()
    ]
    table = "\n".join(rows)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Test the named modules, or all."""
    again = "--again" in arguments
    modules = [one for one in arguments if one != "--again"] or list(TESTS)
    if unknown := set(modules) - TESTS.keys():
        sys.exit(f"mutation: no such module: {', '.join(unknown)}; there are: {', '.join(TESTS)}")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    reasons = _reasons()
    faults = []
    for module in modules:
        if again:
            place = MUTANTS / module
            if not (place / "mutants" / "mutmut-stats.json").exists():
                sys.exit(f"mutation: there is no earlier run; run make mutation MODULE={module} first")
            names = [name for name, end in ends(place).items() if end != "killed"]
            (place / "mutants" / "mutmut-stats.json").unlink()
        else:
            place, names = stage(module), []
        run(module, place, names)
        results = ends(place)
        found = figures(results)
        _keep(module, found)
        print(f"{module}: {found['killed']} of {found['mutants']} killed, {found['share']:.1%}")
        if found["share"] < LEAST_SHARE:
            faults.append(f"{module}: the tests notice fewer than {LEAST_SHARE:.0%} of the mutants")
        survivors = {_change(place, name) for name, end in results.items() if end not in _KILLED}
        known = reasons.get(module, set())
        faults += [
            f"{module}: no reason for this survivor in {REASONS.relative_to(ROOT)}:\n  {json.dumps(one)},"
            for one in sorted(survivors - known)
        ]
        for one in sorted(known - survivors):
            print(f"{module}: has a reason, but did not survive (remove it if it never does): {one}")
    if faults:
        sys.exit("\n".join(f"mutation: {fault}" for fault in faults))


if __name__ == "__main__":
    main(sys.argv[1:])
