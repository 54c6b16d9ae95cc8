"""The wheel: what `pip install .` installs, without an extra and with `client` or `cli`."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.integration import server
from tests.integration.client_examples import python_examples
from tests.integration.server import LocalApi

local_api = server.local_api  # pytest finds fixtures among the names of this module

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UV = shutil.which("uv") or ROOT / ".venv-uv/bin/uv"
SERVE = "batch-progress: the local server needs a checkout of the project (`make run`): local_cloud is not installed\n"
OPENAPI = (
    "batch-progress: the OpenAPI document needs a checkout of the project (`make openapi`): scripts is not installed\n"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made by the build backend."""
    to = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(to)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603  # the project's own tool
    (built,) = to.glob("*.whl")
    return built


def installed(wheel: Path, to: Path, *options: str, extra: str = "") -> Path:
    """Install the wheel into a new environment; return the command."""
    python, requirement = str(to / "bin/python"), f"batch-progress{extra} @ {wheel.as_uri()}"
    for command in (
        ["venv", "--quiet", "--no-project", "--python", sys.executable, str(to)],
        ["pip", "install", "--quiet", "--python", python, *options, requirement],
    ):
        done = subprocess.run([UV, *command], capture_output=True, text=True, check=False)  # noqa: S603  # the same
        assert 0 == done.returncode, done.stderr
    return to / "bin/batch-progress"


def run(command: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command outside the checkout; return its exit status and output."""
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(  # noqa: S603  # the command that was just installed
        [command, *arguments], cwd=command.parent, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_it_brings_two_packages_and_nothing_else(wheel: Path) -> None:
    """No `functions`, `local_cloud` or `tests`: other packages use such names."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"batch_progress", "batch_progress_cli", f"batch_progress-{PROJECT['version']}.dist-info"} == names


def test_without_the_extra_the_client_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    python = installed(wheel, tmp_path / "environment", "--no-deps").with_name("python")
    status, printed, said = run(python, "-c", "import batch_progress.client")
    assert (1, "") == (status, printed)
    error = 'ImportError: batch_progress.client needs httpx: pip install "batch-progress[client]"'
    assert error == said.splitlines()[-1]
    assert "ModuleNotFoundError" not in said


def test_with_the_extra_the_client_does_what_its_page_shows(wheel: Path, tmp_path: Path, local_api: LocalApi) -> None:
    """The first example, unchanged, against the local server. It needs no package of the functions or the command."""
    python = installed(
        wheel, tmp_path / "environment", "--constraint", str(ROOT / "requirements/dev.txt"), extra="[client]"
    ).with_name("python")
    others = [
        requirement.partition(">=")[0].partition("[")[0].replace("-", "_")
        for extra in ("functions", "cli")
        for requirement in PROJECT["optional-dependencies"][extra]
        if requirement not in PROJECT["optional-dependencies"]["client"]
    ]
    assert {"aws_lambda_powertools", "pyjwt", "typer"} <= set(others)
    # botocore brings urllib3.
    unwanted = sorted({*others, "jwt", "cryptography"} - {"urllib3"})
    search = f"import importlib.util as u; print([name for name in {unwanted} if u.find_spec(name)])"
    assert (0, "[]\n", "") == run(python, "-c", search)
    example = python_examples()["Python"]
    status, printed, said = run(python, "-c", example.at(local_api.address))
    assert (0, "") == (status, said)
    assert example.printed_like(printed), printed


def test_without_the_extra_the_command_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    """A worker needs `batch_progress` only."""
    command = installed(wheel, tmp_path / "environment", "--no-deps")
    said = 'batch-progress: not installed: httpx, rich, typer; run: pip install "batch-progress[cli]"\n'
    assert (2, "", said) == run(command, "--version")


def test_with_the_extra_the_command_works(wheel: Path, tmp_path: Path) -> None:
    """With the declared packages only, in the tested versions."""
    command = installed(
        wheel, tmp_path / "environment", "--constraint", str(ROOT / "requirements/dev.txt"), extra="[cli]"
    )
    assert (0, f"batch-progress {PROJECT['version']}\n", "") == run(command, "--version")
    status, told, _ = run(command, "--help")
    assert (0, []) == (status, [name for name in ("watch", "token", "simulate", "serve") if name not in told])
    status, _, said = run(
        command, "watch", "batch", "--token", "token", "--url", "http://127.0.0.1:1", "--give-up-after", "1s"
    )
    assert 2 == status
    assert said.splitlines()[-1].startswith("batch-progress: gave up after")
    assert (2, "", SERVE) == run(command, "serve", "--port", "0")
    assert (2, "", OPENAPI) == run(command, "openapi")
