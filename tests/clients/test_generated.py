"""Clients that generators make from the OpenAPI document read every field of every answer."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.openapi import document
from tests.clients.conftest import Recorder, requests
from tests.integration.server import CEILING, LocalApi
from tests.integration.test_documents import marked

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
TOOLS = ROOT / ".venv-clients" / "bin"
SCHEMAS = document()["components"]["schemas"]
# The commands of docs/openapi.md, by generator.
COMMANDS = {generator: command for command, generator in marked("generates ").items()}


def run(*command: str | Path, folder: Path, text: str = "", **environment: str) -> str:
    """Run a command in a folder, with the generators on the path, and return what it prints."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603  # the documents' own, and what they generate
        command,
        cwd=folder,
        env=os.environ | {"PATH": path, "no_proxy": "127.0.0.1"} | environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=CEILING,
    )
    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def generated(generator: str, folder: Path) -> None:
    """Run a command of the documents, as it stands, in a folder that has openapi.json where the project has it."""
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "openapi.json", folder / "docs")
    run("/bin/sh", "-ec", COMMANDS[generator], folder=folder)


def openapi_python_client(folder: Path) -> tuple[list[str | Path], dict[str, str]]:
    return [TOOLS / "python", PROGRAMS / "openapi_python_client.py"], {"PYTHONPATH": f"{folder}/batch-progress-client"}


def python(folder: Path) -> tuple[list[str | Path], dict[str, str]]:
    return [TOOLS / "python", PROGRAMS / "python.py"], {"PYTHONPATH": f"{folder}/batch-progress-python"}


def typescript_fetch(folder: Path) -> tuple[list[str | Path], dict[str, str]]:
    """Check the types strictly, and compile."""
    assert "TSC" in os.environ, "`make test-clients` installs TypeScript and says where it is"
    sources = folder / "sources"
    sources.mkdir()
    (folder / "batch-progress-typescript").rename(sources / "client")
    shutil.copy(PROGRAMS / "typescript_fetch.ts", sources / "program.ts")
    options = (
        "--strict",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
        "--module",
        "commonjs",
        "--outDir",
        folder / "built",
    )
    run(ROOT / os.environ["TSC"], *options, sources / "program.ts", folder=folder)
    return ["node", folder / "built" / "program.js"], {}


# All that the client needs beyond the JDK and Jackson, which is in the generator's archive.
GENERATED = """package javax.annotation;
public @interface Generated { String[] value(); String date() default ""; String comments() default ""; }
"""


def java(folder: Path) -> tuple[list[str | Path], dict[str, str]]:
    (archive,) = TOOLS.parent.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
    (folder / "Generated.java").write_text(GENERATED)
    sources = [*(folder / "batch-progress-java" / "src" / "main").rglob("*.java"), folder / "Generated.java"]
    program = PROGRAMS / "ReadEveryField.java"
    run("javac", "-nowarn", "-cp", archive, "-d", folder / "built", *sources, program, folder=folder)
    return ["java", "-cp", f"{archive}{os.pathsep}{folder / 'built'}", "ReadEveryField"], {}


BUILD: dict[str, Callable[[Path], tuple[list[str | Path], dict[str, str]]]] = {
    "openapi-python-client": openapi_python_client,
    "python": python,
    "typescript-fetch": typescript_fetch,
    "java": java,
}


def without_nulls(value: Any) -> Any:  # noqa: ANN401  # any JSON
    """Return JSON without nulls: most generated clients give an absent field as null."""
    if isinstance(value, dict):
        return {name: without_nulls(part) for name, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def documented(schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yield the path of each field that a schema describes."""
    for reference in (schema, *schema.get("allOf", ())):
        if "$ref" in reference:
            yield from documented(SCHEMAS[reference["$ref"].rpartition("/")[2]], where)
    yield from documented(schema.get("items", {}), where) if "items" in schema else ()
    for name, part in schema.get("properties", {}).items():
        yield f"{where}.{name}"
        yield from documented(part, f"{where}.{name}")


def filled(value: object, where: str = "") -> Iterator[str]:
    """Yield the path of each field that has a value other than null."""
    if isinstance(value, list):
        for part in value:
            yield from filled(part, where)
    if isinstance(value, dict):
        for name, part in value.items():
            if part is not None:
                yield f"{where}.{name}"
                yield from filled(part, f"{where}.{name}")


def test_the_documents_have_a_command_for_each_generator() -> None:
    assert BUILD.keys() == COMMANDS.keys()


@pytest.mark.parametrize("generator", BUILD)
def test_a_generated_client_reads_every_field(
    filled_api: LocalApi, recorder: Recorder, generator: str, tmp_path: Path
) -> None:
    """What the client's types give is what was sent, for answers that together have every field and kind of error."""
    generated(generator, tmp_path)
    command, environment = BUILD[generator](tmp_path)
    asked = json.dumps(requests(filled_api))
    printed = run(*command, recorder.address, folder=tmp_path, text=asked, **environment)
    sent = [without_nulls(answer) for answer in recorder.answers]
    assert sent == [without_nulls(answer) for answer in json.loads(printed)]
    # The answers are those that were to be tested.
    assert [200, 200, 200, 200, 200, 200, 304, 404, 422, 401, 401, 429] == [answer["status"] for answer in sent]
    bodies = [answer["body"] for answer in recorder.answers if answer["body"]]
    expected = {*documented(SCHEMAS["ProgressResponse"]), *documented(SCHEMAS["ErrorResponse"])}
    assert expected <= {path for body in bodies for path in filled(body)}
    assert any(one["error_code"] is None for one in bodies[0]["data"]["summary"]["failures"])
    assert bodies[-1]["error"]["timestamp"] is None


def test_the_example_of_the_documents_prints_what_they_say(filled_api: LocalApi, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "openapi.md").read_text(encoding="utf-8")
    found = re.search(
        r"<!-- test: openapi-python-client -->\n```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL
    )
    assert found
    generated("openapi-python-client", tmp_path)
    example = found[1].replace("http://127.0.0.1:3000", filled_api.address)
    client = str(tmp_path / "batch-progress-client")
    assert found[2] == run(TOOLS / "python", "-c", example, folder=tmp_path, PYTHONPATH=client)
