"""Every command of README and docs does what its reader expects."""

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
from tests.integration.server import COMMAND, LocalApi, unmeasured

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
PORT = "3000"
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
CANARY = "DeploymentPreference=Canary10Percent5Minutes"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"

# Those that end by themselves, with what they must print. They run as they stand, but for the port.
ENDS = {
    "curl -H 'X-API-Key: demo-token' http://127.0.0.1:3000/api/v1/scrape/batch/batch_xyz789/progress": '"completed":7',
    ".venv/bin/batch-progress token issue --owner alice --expires-in 30d": "bp_",
    """.venv/bin/batch-progress token issue --owner alice --label "her laptop" --expires-in 30d
.venv/bin/batch-progress token list""": "her laptop",
    """token=$(.venv/bin/batch-progress token issue --owner alice)
echo "$token" | .venv/bin/batch-progress token revoke""": "Revoked hash ",
    ".venv/bin/batch-progress token issue --owner demo --local 3000": "bp_",
    ".venv/bin/batch-progress token issue --owner alice --issuer https://issuer.example.com": "bp_",
    ".venv/bin/batch-progress token jwt --owner demo": "eyJ",
    'curl -H "Authorization: Bearer $(.venv/bin/batch-progress token jwt --owner demo)" '
    "http://127.0.0.1:3000/api/v1/scrape/batch/batch_session/progress": '"completed":7',
}
# Those that go on for long: what they print first; then Ctrl-C ends them.
GOES_ON = {
    ".venv/bin/batch-progress watch batch_live --token demo-token": " of 40 completed, ",
    ".venv/bin/batch-progress watch batch_live --token demo-token | cat": " of 40 completed, ",
    ".venv/bin/batch-progress watch batch_live --token demo-token --json": '"total_urls": 40',
    ".venv/bin/batch-progress simulate batch_trial --jobs 60 --workers 6 --median 2 --failures 0.1 --local 3000": (
        "batch_trial of demo: 60 jobs, 6 workers, seed "
    ),
    "make run": "The batch progress API is running on ",
    "make run BRIDGE=172.17.0.1": "The batch progress API is running on ",
}
# Those that need AWS, or that run these tests: what they call, with which arguments.
CALLS = {
    "make test": ["pytest tests/unit tests/integration"],
    "make invoke EVENT=events/key.json": [
        f"sam build --parameter-overrides Arch={MACHINE}",
        f"sam local invoke ProgressFunction -e events/key.json --parameter-overrides Arch={MACHINE}",
    ],
    "make invoke FUNCTION=RevisionFunction EVENT=events/revision/job_changes.json": [
        f"sam build --parameter-overrides Arch={MACHINE}",
        f"sam local invoke RevisionFunction -e events/revision/job_changes.json --parameter-overrides Arch={MACHINE}",
    ],
    ".venv-sam/bin/sam local start-api --port 3080 --parameter-overrides Arch=x86_64": [
        "sam local start-api --port 3080 --parameter-overrides Arch=x86_64"
    ],
    ".venv-sam/bin/sam local start-lambda --port 3081 --parameter-overrides Arch=x86_64": [
        "sam local start-lambda --port 3081 --parameter-overrides Arch=x86_64"
    ],
    "make deploy": [
        "sam build --parameter-overrides Arch=arm64",
        "sam deploy --parameter-overrides Arch=arm64 DeploymentPreference=Canary10Percent5Minutes",
    ],
    'make deploy PARAMETERS="DeploymentPreference=Canary10Percent5Minutes '
    'TokenIssuer=https://issuer.example.com TokenAudience=batch-progress"': [
        "sam build --parameter-overrides Arch=arm64",
        (
            "sam deploy --parameter-overrides Arch=arm64 DeploymentPreference=Canary10Percent5Minutes "
            "TokenIssuer=https://issuer.example.com TokenAudience=batch-progress"
        ),
    ],
    f'make deploy PARAMETERS="{CANARY} AlarmTopicArn={TOPIC}"': [
        "sam build --parameter-overrides Arch=arm64",
        f"sam deploy --parameter-overrides Arch=arm64 {CANARY} AlarmTopicArn={TOPIC}",
    ],
    'make deploy PARAMETERS="WatchPage=false"': [
        "sam build --parameter-overrides Arch=arm64",
        "sam deploy --parameter-overrides Arch=arm64 WatchPage=false",
    ],
}


def blocks() -> list[str]:
    """Return the shell blocks of all documents, each once."""
    found = (re.findall(r"^```sh\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL) for path in DOCUMENTS)
    return list(dict.fromkeys(block.strip() for some in found for block in some))


# Those that ask AWS: each call of its command line is held against the services' own descriptions.
AWS = [block for block in blocks() if re.search(r"(^|\$\()aws ", block, re.MULTILINE)]
# Where the command line has another name for a service than its description, and what it takes for any.
SERVICES = {"deploy": "codedeploy"}
GLOBAL_OPTIONS = {"query", "output"}
AWS_COMMAND = """#!{python}
import json, sys
with open("{calls}", "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
print("an-answer")
"""


def environment(api: LocalApi, **more: str) -> dict[str, str]:
    """Return one whose deployed tables are those of the local server, and in which `make setup` does nothing."""
    return {
        **unmeasured(),
        "AWS_ENDPOINT_URL_DYNAMODB": api.address,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "BATCH_PROGRESS_TOKENS_TABLE": "TokensTable",
        "BATCH_PROGRESS_URL": api.address,
        "MAKEFLAGS": f"PYTHON3=true PORT=0 BIN={COMMAND.parent}",
        "MAKELEVEL": "0",
    } | more


def as_here(block: str, api: LocalApi) -> str:
    """Return a block with this server's port and this environment's command."""
    port = api.address.rpartition(":")[2]
    # `token jwt` works on the local server, at its usual port where none is given.
    block = re.sub(r"token jwt --owner \w+", rf"\g<0> --local {PORT}", block)
    block = block.replace("172.17.0.1", "127.0.0.2")  # Docker's bridge, where there is one
    return re.sub(rf"\b{PORT}\b", port, block).replace(".venv/bin/batch-progress", str(COMMAND))


def test_every_command_is_tested_once() -> None:
    """A block that is new in a document is to be listed here, one that is gone to be taken out."""
    assert sorted(blocks()) == sorted([*ENDS, *GOES_ON, *CALLS, *AWS])


@pytest.mark.parametrize("block", ENDS)
def test_it_runs_as_it_stands(local_api: LocalApi, block: str) -> None:
    done = subprocess.run(  # noqa: S603  # the documents' own
        ["/bin/sh", "-ec", as_here(block, local_api)],
        cwd=ROOT,
        env=environment(local_api),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    assert ENDS[block] in done.stdout


@pytest.mark.parametrize("block", GOES_ON)
def test_it_begins_and_ctrl_c_ends_it(local_api: LocalApi, block: str) -> None:
    with subprocess.Popen(  # noqa: S603  # the documents' own
        ["/bin/sh", "-ec", as_here(block, local_api)],
        cwd=ROOT,
        env=environment(local_api),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all of it, and nothing else, gets what a terminal sends
    ) as process:
        assert process.stdout
        assert process.stderr
        line, deadline = "", time.monotonic() + 60
        while GOES_ON[block] not in line and time.monotonic() < deadline and process.poll() is None:
            line = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert GOES_ON[block] in line, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("block", CALLS)
def test_it_calls_what_it_should(local_api: LocalApi, block: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for name in ("pytest", "sam"):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n')
        stand_in.chmod(0o700)
    flags = f"PYTHON3=true BIN={tmp_path} SAM={tmp_path}/sam"
    subprocess.run(  # noqa: S603  # the documents' own
        ["/bin/sh", "-ec", block.replace(".venv-sam/bin", str(tmp_path))],
        cwd=ROOT,
        env=environment(local_api, MAKEFLAGS=flags),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert CALLS[block] == calls.read_text().splitlines()


def members(shape: Shape | None) -> Iterator[str]:
    """Yield the names of all fields within a shape, however deep."""
    match shape:
        case StructureShape():
            for name, member in shape.members.items():
                yield name
                yield from members(member)
        case ListShape():
            yield from members(shape.member)
        case MapShape():
            yield from members(shape.value)


@pytest.mark.parametrize("block", AWS)
def test_aws_knows_what_it_calls(block: str, tmp_path: Path) -> None:
    """Each operation, each option, those that it cannot do without, the fields of what is asked of the answer."""
    calls, command = tmp_path / "calls", tmp_path / "aws"
    command.write_text(AWS_COMMAND.format(python=sys.executable, calls=calls))
    command.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-euc", block], env={"PATH": path}, capture_output=True, check=True, timeout=60)  # noqa: S603
    for service, operation, *arguments in map(json.loads, calls.read_text().splitlines()):
        model = botocore.session.Session().get_service_model(SERVICES.get(service, service))
        called = model.operation_model({xform_name(name, "-"): name for name in model.operation_names}[operation])
        options = {option.removeprefix("--") for option in arguments if option.startswith("--")}
        known = {xform_name(name, "-"): name for name in called.input_shape.members}
        assert options <= known.keys() | GLOBAL_OPTIONS
        assert {xform_name(name, "-") for name in called.input_shape.required_members} <= options
        if "--query" in arguments:
            fields = set(re.findall(r"[A-Za-z]\w*", arguments[arguments.index("--query") + 1]))
            assert fields
            assert fields <= set(members(called.output_shape))


def test_every_resource_that_is_asked_for_is_there() -> None:
    """By its id in the template, or by the alarm's name."""
    resources, text = read()["Resources"], "\n".join(AWS)
    asked = re.findall(r"--logical-resource-id (\w+)", text)
    assert asked
    assert set(asked) <= resources.keys()
    alarms = [one["Properties"]["AlarmName"]["Fn::Sub"] for one in resources.values() if "Alarm" in one["Type"]]
    named = re.findall(r"--alarm-name (\S+)", text)
    assert named
    assert {name.replace("batch-progress", "${AWS::StackName}") for name in named} <= set(alarms)


def test_every_target_that_is_named_is_there(local_api: LocalApi) -> None:
    """Also those within a sentence."""
    named = {target for path in DOCUMENTS for target in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert {"run", "check", "deploy"} <= named
    subprocess.run(  # noqa: S603  # our own Makefile, and nothing is run
        ["/usr/bin/env", "make", "-n", *sorted(named)],
        cwd=ROOT,
        env=environment(local_api),
        capture_output=True,
        check=True,
        timeout=60,
    )


def test_every_link_leads_somewhere() -> None:
    """To a file of this repository, that is; other hosts are not asked."""
    broken = [
        (path.name, link)
        for path in DOCUMENTS
        for link in re.findall(r"\]\(([^)#]+)", path.read_text())
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert [] == broken


def test_the_picture_of_the_terminal_is_current(tmp_path: Path) -> None:
    """It shows what `watch` shows; `make terminal-picture` draws it anew."""
    drawn = tmp_path / "drawn.svg"
    python = COMMAND.with_name("python")
    subprocess.run([python, "scripts/terminal_picture.py", drawn], cwd=ROOT, check=True, timeout=60)  # noqa: S603
    assert drawn.read_text() == (ROOT / "docs" / "watch-terminal.svg").read_text()
