"""The Python examples of docs/client.md, the README and the notebook print what is shown below them."""

import contextlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch_progress.client import AsyncProgressClient, ProgressClient, errors
from tests.integration.client_examples import PAGE, Example, python_examples
from tests.integration.server import CEILING, LocalApi, unmeasured

EXAMPLES = python_examples()


@pytest.fixture(scope="module")
def printed(local_api: LocalApi, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """The status, the output and the errors of each example. They wait for the same batch, at the same time."""
    folder = tmp_path_factory.mktemp("examples")
    environment = unmeasured() | {"PYTHONIOENCODING": "utf-8"}
    with contextlib.ExitStack() as stack:
        started = {}
        for number, (name, example) in enumerate(EXAMPLES.items()):
            file = folder / f"example_{number}.py"
            file.write_text(example.at(local_api.address), encoding="utf-8")
            process = subprocess.Popen(  # noqa: S603  # the page's own
                [sys.executable, str(file)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            started[name] = stack.enter_context(process)
        ended = {name: process.communicate(timeout=CEILING) for name, process in started.items()}
        return {name: (process.returncode, *ended[name]) for name, process in started.items()}


def test_the_documents_have_the_examples() -> None:
    assert ["Python", "asyncio", "A progress bar", "Poll it", "progress-bar.ipynb"] == list(EXAMPLES)
    assert 10 == len(EXAMPLES["Python"].code.splitlines())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_is_shown(printed: dict[str, tuple[int, str, str]], name: str) -> None:
    status, output, said = printed[name]
    assert (0, "") == (status, said)
    assert EXAMPLES[name].printed_like(output), output


@pytest.mark.parametrize(
    ("output", "like"),
    [
        ("1 of 40\n40 of 40\n39 completed, 1 failed\njob_1 TIMEOUT http://a/b\n", True),
        ("40 of 40\n40 completed, 0 failed\n", True),
        ("40 of 40\n", False),
        ("1 of 40\n40 of 40\n39 completed, 1 failed\nTraceback\n", False),
    ],
)
def test_the_comparison_can_fail(output: str, like: bool) -> None:  # noqa: FBT001
    """Only lines of failed jobs may be missing."""
    shown = "3 of 40\n...\n40 of 40\n38 completed, 2 failed\njob_7 HTTP_503 https://example.com/7\n"
    assert like is Example("", shown).printed_like(output)


def test_every_call_is_in_the_table_with_its_defaults() -> None:
    for made in (ProgressClient, AsyncProgressClient):
        for name in ("get", "jobs", "watch", "wait"):
            parameters = inspect.signature(getattr(made, name)).parameters.values()
            shown = ", ".join(
                one.name if one.default is one.empty else f"{one.name}={one.default}"
                for one in parameters
                if one.name not in {"self", "retry_for"}
            )
            assert f"| `{name}({shown})` |" in PAGE.read_text(encoding="utf-8")


def test_every_error_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| Exception \|.*?\n\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    listed = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    tree = re.findall(r"^ *\* (\w+)", inspect.getdoc(errors) or "", re.MULTILINE)
    assert tree == ["ProgressError", *listed]


def test_the_readme_links_to_the_page() -> None:
    assert "](docs/client.md)" in (Path(PAGE).parents[1] / "README.md").read_text(encoding="utf-8")
