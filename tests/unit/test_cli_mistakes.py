"""Each mistake at each command ends in one line and the right status, whatever the encoding of the terminal."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from batch_progress_cli.__main__ import main
from batch_progress_cli.main import app

# A token, but neither AWS nor the address of an API.
ENVIRONMENT = {
    "FREDDY_API_KEY": "demo-token",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "TERM": "dumb",
} | dict.fromkeys(
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL_DYNAMODB",
        "BATCH_PROGRESS_URL",
        "BATCH_PROGRESS_JOBS_TABLE",
        "BATCH_PROGRESS_TOKENS_TABLE",
    )
)
ENCODINGS = ("utf-8", "cp1252", "latin-1", "ascii")
# No encoding but UTF-8 has the last two characters; the first is in cp1252, but not in ASCII.
STRANGE = "ü☠\u202e"


type Bad = Mapping[tuple[str, ...], str]


@dataclass(frozen=True)
class Mistakes:
    """A command, and what can be wrong with it.

    Attributes:
        valid: Arguments with which it runs.
        missing: What it says without arguments; `None` if it needs none.
        bad: Arguments with a bad value, and what it says about them.
        closed: Options that lead to a port at which nothing listens; `None` if it connects to nothing.
        uses_aws: Whether it looks for a table on AWS.
    """

    valid: Sequence[str] = ()
    missing: str | None = None
    bad: Bad = field(default_factory=dict)
    closed: Sequence[str] | None = None
    uses_aws: bool = False


LOCAL = ("--local", "1")
BAD_PORT: Bad = {("--local", STRANGE): "is not a port", ("--local", "65536"): "'65536' is not a port"}
COMMANDS = {
    "serve": Mistakes(
        bad={
            ("--port", STRANGE): "is not a port",
            ("--port", "-1"): "'-1' is not a port",
            ("--bridge", STRANGE): "is not an IPv4 address",
        }
    ),
    "watch": Mistakes(
        ["batch_a"],
        "Missing argument 'BATCH_ID'",
        {
            ("--give-up-after", STRANGE): "is not a time span",
            ("--token", STRANGE): "the token has characters that are not allowed",
            ("--url", STRANGE): "is not the address of an API",
        },
        closed=("--url", "http://127.0.0.1:1", "--give-up-after", "1s"),
    ),
    "events": Mistakes(bad=BAD_PORT, closed=LOCAL),
    "simulate": Mistakes(
        bad={("--jobs", STRANGE): "Invalid value for '--jobs'", ("--jobs", "0"): "jobs is 0", **BAD_PORT},
        closed=LOCAL,
        uses_aws=True,
    ),
    "openapi": Mistakes(
        bad={
            ("--check", STRANGE): "No such file",
            ("--write", f"{STRANGE}/a"): "No such file",
            ("--write", "a", "--check", "b"): "give one of --write and --check",
        }
    ),
    "token issue": Mistakes(
        ["--owner", "demo"],
        "Missing option '--owner'",
        {("--expires-in", STRANGE): "is not a time span", **BAD_PORT},
        closed=LOCAL,
        uses_aws=True,
    ),
    "token jwt": Mistakes(
        ["--owner", "demo"],
        "Missing option '--owner'",
        {("--owner", ""): "the owner is empty", ("--expires-in", STRANGE): "is not a time span", **BAD_PORT},
        closed=LOCAL,
    ),
    "token list": Mistakes(
        bad={("--local", "1", "--table", "t"): "give one of --local, --table and --stack", **BAD_PORT},
        closed=LOCAL,
        uses_aws=True,
    ),
    "token revoke": Mistakes(["abcdef"], "no token on standard input", BAD_PORT, closed=LOCAL, uses_aws=True),
}


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def failure(encoding: str, *arguments: str, **environment: str) -> str:
    """Run a command that fails; return its one line without the beginning."""
    done = CliRunner(charset=encoding).invoke(app, arguments, env=ENVIRONMENT | environment)
    assert (2, "") == (done.exit_code, done.stdout), done.exception
    # `watch` says that it tries again.
    *_, line = done.stderr_bytes.decode(encoding).splitlines()
    assert 1 == done.stderr.count("\n") or arguments[0] == "watch"
    assert line.startswith("batch-progress: ")
    return line.removeprefix("batch-progress: ")


def test_the_table_has_every_command() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert sorted(COMMANDS) == sorted(names(group))


def names(group: TyperGroup, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


@pytest.mark.parametrize("command", ["", "token", *COMMANDS])
def test_an_unknown_option(command: str, encoding: str) -> None:
    assert failure(encoding, *command.split(), "--nosuch" + STRANGE).startswith("No such option: --nosuch")


@pytest.mark.parametrize("command", ["", "token"])
def test_an_unknown_command(command: str, encoding: str) -> None:
    assert failure(encoding, *command.split(), STRANGE).startswith("No such command ")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_argument_too_many(command: str, encoding: str) -> None:
    arguments = (*COMMANDS[command].valid, "b", "c", STRANGE)
    assert "unexpected extra argument" in failure(encoding, *command.split(), *arguments)


@pytest.mark.parametrize("command", [name for name, mistakes in COMMANDS.items() if mistakes.missing])
def test_a_missing_argument(command: str, encoding: str) -> None:
    assert (COMMANDS[command].missing or "") in failure(encoding, *command.split())


@pytest.mark.parametrize(
    ("command", "arguments"), [(name, bad) for name, mistakes in COMMANDS.items() for bad in mistakes.bad]
)
def test_a_bad_value(command: str, arguments: tuple[str, ...], encoding: str) -> None:
    mistakes = COMMANDS[command]
    assert mistakes.bad[arguments] in failure(encoding, *command.split(), *mistakes.valid, *arguments)


@pytest.mark.parametrize("command", [name for name, mistakes in COMMANDS.items() if mistakes.closed])
def test_no_server(command: str) -> None:
    mistakes = COMMANDS[command]
    line = failure("cp1252", *command.split(), *mistakes.valid, *(mistakes.closed or ()))
    assert "127.0.0.1:1" in line or "Connection refused" in line
    assert "`make run` must run" in line or command == "watch"


@pytest.mark.parametrize("command", [name for name, mistakes in COMMANDS.items() if mistakes.uses_aws])
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "AWS is not set up: no region; set AWS_DEFAULT_REGION or AWS_PROFILE"),
        ({"AWS_DEFAULT_REGION": "eu-central-1"}, "AWS is not set up: Unable to locate credentials"),
        ({"AWS_PROFILE": "nosuch"}, "AWS is not set up: The config profile (nosuch) could not be found"),
        ({"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "a"}, "AWS is not set up: Partial credentials"),
    ],
)
def test_no_aws(command: str, environment: dict[str, str], said: str) -> None:
    """The line says how to reach the local server's tables instead."""
    line = failure("cp1252", *command.split(), *COMMANDS[command].valid, **environment)
    assert line.startswith(said)
    assert line.endswith("; for the tables of `make run`, give --local 3000")


@pytest.mark.parametrize("command", ["", "token", *COMMANDS])
def test_help(command: str, encoding: str) -> None:
    """No name of an option is cut off."""
    for columns in ("40", "80"):
        done = CliRunner(charset=encoding).invoke(app, [*command.split(), "-h"], env={"COLUMNS": columns})
        assert (0, "") == (done.exit_code, done.stderr)
        text = done.stdout_bytes.decode(encoding)
        assert text.startswith("Usage: ")
        assert "..." not in text.partition("Options:")[2].partition("Commands:")[0]
        assert all(len(line) <= int(columns) for line in text.splitlines())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["watch", "--help"], ["openapi"]])
@pytest.mark.parametrize(
    ("device", "errors"),
    [("pipe", ""), ("/dev/full", "batch-progress: [Errno 28] No space left on device\n")],
)
def test_an_output_that_cannot_be_written(
    arguments: list[str],
    device: str,
    errors: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 2: 1 would mean that jobs failed. Without a word if the reader has gone, as of `head -1`."""
    if device == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(device, os.O_WRONLY)
    with open(writer, "w", encoding="cp1252") as stream:  # noqa: PTH123  # opens a descriptor
        monkeypatch.setattr("sys.stdout", stream)
        with pytest.raises(SystemExit, match="2"):
            app(arguments)
    assert errors == capsys.readouterr().err


def test_a_closed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """`>&-`: Python then has no stream at all."""
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    for arguments, status in ((["--help"], 0), (["--version"], 0), (["openapi"], 0), (["fly"], 2)):
        with pytest.raises(SystemExit, match=str(status)):
            app(arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        monkeypatch.setattr("sys.stdout", None)
        monkeypatch.setattr("sys.stderr", None)


def test_ctrl_c_while_the_command_is_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 130, no traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batch_progress_cli.main.app", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main()


def test_the_openapi_document_is_utf_8_in_any_encoding() -> None:
    done = CliRunner(charset="cp1252").invoke(app, ["openapi"])
    assert (Path(__file__).parents[2] / "docs/openapi.json").read_bytes() == done.stdout_bytes


def test_a_terminal_is_asked_for_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """`token revoke` reads it from stdin; without a word it would seem to hang."""
    runner = CliRunner()
    with runner.isolation(input="\n", env=ENVIRONMENT) as (_, errors, _):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        with pytest.raises(SystemExit, match="2"):
            app(["token", "revoke", *LOCAL])
        assert errors.getvalue().startswith(b"The token, or the beginning of its hash: batch-progress: no token")
