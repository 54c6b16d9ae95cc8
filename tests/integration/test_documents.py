"""Every `sh` block of the documents is run, or its calls are checked."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local_cloud.template import read
from tests.integration.network import network
from tests.integration.server import CEILING, COMMAND, running, unmeasured

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
PORT = "3000"
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
# A comment before a shell block says how it is tested:
#   <!-- test: prints TEXT -->                      it ends with status 0 and prints the text
#   <!-- test: runs until stopped; prints TEXT -->  it prints the text, and Ctrl-C ends it
#   <!-- test: calls ... -->                        it is not run; the comment lists its commands, one per line
#   <!-- test: generates NAME -->                   it generates a client, which tests/clients runs
BLOCK = re.compile(r"(?:^<!-- test: ([^>]*?)\s*-->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Return the shell blocks of all documents with their comments."""
    found = [BLOCK.findall(path.read_text(encoding="utf-8")) for path in DOCUMENTS]
    return [(comment, block.strip()) for some in found for comment, block in some]


def marked(kind: str) -> dict[str, str]:
    """Return the blocks whose comment is of a kind, each once, with the rest of the comment."""
    return {block: comment.removeprefix(kind).strip() for comment, block in blocks() if comment.startswith(kind)}


ENDS, RUNS, CALLS, GENERATES = (
    marked(kind) for kind in ("prints ", "runs until stopped; prints ", "calls\n", "generates ")
)
# Blocks that start the local server themselves.
SERVES = [block for block in RUNS if re.search(r"make run|batch-progress serve", block)]
# Blocks that call AWS's command line. Each call is checked against botocore's description of the service.
AWS = list(dict.fromkeys(block for _, block in blocks() if re.search(r"(^|\$\()aws ", block, re.MULTILINE)))
# Services whose name on the command line differs from botocore's, and options that every command has.
SERVICES = {"deploy": "codedeploy"}
GLOBAL_OPTIONS = {"query", "output"}
# Resources that SAM makes for a gradual deployment (tests/package/test_stack.py).
BY_SAM = {"ServerlessDeploymentApplication", "ProgressFunctionDeploymentGroup"}
AWS_COMMAND = """#!{python}
import json, sys
with open("{calls}", "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
print("an-answer")
"""


ADDRESS = f"http://127.0.0.1:{PORT}"
ENVIRONMENT = {
    **unmeasured(),
    "AWS_ENDPOINT_URL_DYNAMODB": ADDRESS,
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "BATCH_PROGRESS_TOKENS_TABLE": "TokensTable",
    # So `make setup` does nothing.
    "MAKEFLAGS": f"PYTHON3=true BIN={COMMAND.parent}",
    "MAKELEVEL": "0",
}


@pytest.fixture(scope="module")
def at_home() -> Iterator[list[str]]:
    """Run the local API at the documents' port; give what to put before a command that shall find it there."""
    with network() as prefix, running("--port", PORT, prefix=prefix):
        yield prefix


def shell(block: str) -> list[str]:
    """Return the call of a block, as it stands but for this environment's Python and command."""
    return ["/bin/sh", "-ec", block.replace(".venv/bin", str(COMMAND.parent))]


def test_every_command_is_tested() -> None:
    """A new block needs a comment that says how, unless it calls AWS."""
    tested = {*ENDS, *RUNS, *CALLS, *GENERATES, *AWS}
    assert [] == [block for _, block in blocks() if block not in tested]
    assert all((ENDS, RUNS, SERVES, CALLS, GENERATES, AWS))


# First, so that the documents' port is still free where there is only this machine's network.
@pytest.mark.parametrize("block", SERVES)
def test_it_serves(block: str) -> None:
    with network() as prefix:
        begins_and_ends([*prefix, *shell(block)], RUNS[block])


@pytest.mark.parametrize("block", ENDS)
def test_it_runs_as_it_stands(at_home: list[str], block: str) -> None:
    done = subprocess.run(  # noqa: S603  # the documents' own
        [*at_home, *shell(block)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=CEILING,
    )
    assert 0 == done.returncode, done.stderr
    assert ENDS[block] in done.stdout


@pytest.mark.parametrize("block", [block for block in RUNS if block not in SERVES])
def test_it_begins_and_ctrl_c_ends_it(at_home: list[str], block: str) -> None:
    begins_and_ends([*at_home, *shell(block)], RUNS[block])


def begins_and_ends(command: list[str], text: str) -> None:
    """Run a command until it prints a text, then interrupt it as Ctrl-C does."""
    with subprocess.Popen(  # noqa: S603  # the documents' own
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that Ctrl-C reaches this process group only
    ) as process:
        assert process.stdout
        assert process.stderr
        line, deadline = "", time.monotonic() + CEILING
        while text not in line and time.monotonic() < deadline and process.poll() is None:
            line = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=CEILING)
    assert text in line, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("block", CALLS)
def test_it_calls_what_it_should(block: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for name in ("batch-progress", "pytest", "sam"):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n')
        stand_in.chmod(0o700)
    flags = f"PYTHON3=true BIN={tmp_path} SAM={tmp_path}/sam"
    subprocess.run(  # noqa: S603  # the documents' own
        ["/bin/sh", "-ec", block.replace(".venv-sam/bin", str(tmp_path))],
        cwd=ROOT,
        env=ENVIRONMENT | {"MAKEFLAGS": flags},
        capture_output=True,
        check=True,
        timeout=CEILING,
    )
    assert CALLS[block].replace("MACHINE", MACHINE).splitlines() == calls.read_text().splitlines()


def members(shape: Shape | None) -> Iterator[str]:
    """Yield the names of all fields within a shape, at any depth."""
    match shape:
        case StructureShape():
            for name, member in shape.members.items():
                yield name
                yield from members(member)
        case ListShape():
            yield from members(shape.member)
        case MapShape():
            # The keys of SQS's attributes, for example.
            yield from getattr(shape.key, "enum", ())
            yield from members(shape.value)


@pytest.mark.parametrize("block", AWS)
def test_aws_knows_what_it_calls(block: str, tmp_path: Path) -> None:
    """The operations, the options and the fields of `--query` exist in botocore. No required option is missing."""
    calls, command = tmp_path / "calls", tmp_path / "aws"
    command.write_text(AWS_COMMAND.format(python=sys.executable, calls=calls))
    command.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-euc", block], env={"PATH": path}, capture_output=True, check=True, timeout=CEILING)  # noqa: S603
    for service, operation, *arguments in map(json.loads, calls.read_text().splitlines()):
        model = botocore.session.Session().get_service_model(SERVICES.get(service, service))
        called = model.operation_model({xform_name(name, "-"): name for name in model.operation_names}[operation])
        options = {option.removeprefix("--") for option in arguments if option.startswith("--")}
        known = {xform_name(name, "-"): name for name in called.input_shape.members}
        # A boolean option has a negative form.
        flags = {
            f"no-{name}" for name, member in known.items() if called.input_shape.members[member].type_name == "boolean"
        }
        assert options <= known.keys() | flags | GLOBAL_OPTIONS
        assert {xform_name(name, "-") for name in called.input_shape.required_members} <= options
        if "--query" in arguments:
            query = re.sub(r"'[^']*'", "", arguments[arguments.index("--query") + 1])
            fields = set(re.findall(r"[A-Za-z]\w*", query))
            assert fields
            assert fields <= set(members(called.output_shape))


def test_every_resource_that_is_asked_for_is_there() -> None:
    """The logical ids and alarm names in the documents are in the template."""
    resources, text = read()["Resources"], "\n".join(AWS)
    asked = re.findall(r"--logical-resource-id (\w+)", text)
    assert asked
    assert set(asked) <= resources.keys() | BY_SAM
    assert set(re.findall(r"OutputKey=='(\w+)'", text)) <= read()["Outputs"].keys()
    alarms = [one["Properties"]["AlarmName"]["Fn::Sub"] for one in resources.values() if "Alarm" in one["Type"]]
    named = re.findall(r"--alarm-name (\S+)", text)
    assert named
    assert {name.replace("batch-progress", "${AWS::StackName}") for name in named} <= set(alarms)


def test_every_target_that_is_named_is_there() -> None:
    """Targets within sentences are checked too."""
    named = {target for path in DOCUMENTS for target in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert {"run", "check", "deploy"} <= named
    # `make -n` would accept a phony target that has no rule.
    rules = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set() == named - set(rules)


def test_every_link_leads_somewhere() -> None:
    """Links to files of this repository work. Links to other hosts are not checked."""
    broken = [
        (path.name, link)
        for path in DOCUMENTS
        for link in re.findall(r"\]\(([^)#]+)", path.read_text())
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert [] == broken
