"""The command line: help, and failures in one line."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from batch_progress_cli.__main__ import EXTRA, main
from batch_progress_cli.main import app

NOTHING_SLOW = """
import sys
from typer.testing import CliRunner
from batch_progress_cli.main import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
slow = {"boto3", "botocore", "httpx", "moto", "pydantic", "rich", "werkzeug", "batch_progress"}
print(sorted(slow & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--help"], ["serve", "watch", "token", "simulate", "openapi"]),
        (["token", "--help"], ["issue", "list", "revoke"]),
        (
            ["watch", "--help"],
            ["BATCH_ID", "--token", "--url", "--json", "--give-up-after", "3 if it gave up", "FREDDY_API_KEY"],
        ),
        (["simulate", "--help"], ["--jobs", "--workers", "--seed", "--stalls", "--local"]),
    ],
)
def test_help_names_what_there_is(arguments: list[str], named: list[str]) -> None:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"})
    text = " ".join(done.stdout.split())
    assert (0, []) == (done.exit_code, [name for name in named if name not in text])


def test_help_loads_nothing_slow() -> None:
    """Help imports no AWS client, no server and no function."""
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", NOTHING_SLOW], capture_output=True, text=True, check=True, timeout=60
    )
    assert "[]\n" == done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["fly"], "No such command 'fly'"),
        (["token"], "Missing command"),
        (["token", "issue"], "Missing option '--owner'"),
        (["token", "issue", "--owner", "a", "--expires-in", "soon"], "'soon' is not a time span"),
        (
            ["token", "issue", "--owner", "a", "--local", "1", "--table", "t"],
            "give one of --local, --table and --stack",
        ),
        (["token", "list", "--local", "port"], "'port' is not a port"),
        (["token", "list", "--local", "1"], "nothing answers at http://127.0.0.1:1"),
        (["token", "revoke", "--local", "1"], "no token on standard input"),
        (["watch"], "Missing argument 'BATCH_ID'"),
        (["watch", "a"], "no token; give --token or set FREDDY_API_KEY"),
        (["watch", "a/b", "--token", "demo-token"], "'a/b' is not a batch id"),
        (["watch", "a", "--token", "de mo"], "the token has characters that are not allowed in a token"),
        (["watch", "a", "--token", "demo-token", "--url", "ftp://a"], "'ftp://a' is not the address of an API"),
        (["watch", "a", "--token", "demo-token", "--url", "http://a:b"], "'http://a:b' is not the address of an API"),
        (["watch", "a", "--token", "demo-token", "--give-up-after", "1"], "'1' is not a time span"),
        (["simulate", "--workers", "0"], "--workers is 0; it must be from 1 to 200"),
        (["simulate", "--failures", "2"], "--failures is 2; it must be from 0 to 1"),
        (["simulate", "--kill-workers", "-1"], "--kill-workers is -1; it must be from 0 to 40"),
        (["simulate", "--lost-after", "0"], "--lost-after is 0; it must be from 1 to 86,400"),
        (["simulate", "--jobs", "many"], "Invalid value for '--jobs'"),
        (["simulate", "--local", "1"], "nothing answers at http://127.0.0.1:1/; for --local, `make run` must run"),
    ],
)
def test_a_failure_is_one_line_and_status_2(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"FREDDY_API_KEY": None, "BATCH_PROGRESS_URL": None})
    assert 2 == done.exit_code
    assert done.stderr.startswith("batch-progress: ")
    assert said in done.stderr
    assert 1 == done.stderr.count("\n")


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (0, f"batch-progress {metadata.version('batch-progress')}\n") == (done.exit_code, done.stdout)


def completed(shell: str, line: str) -> str:
    """Return what the command tells a shell that completes a line."""
    words = line.split(" ")
    variables = {
        "_BATCH_PROGRESS_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return CliRunner().invoke(app, prog_name="batch-progress", env=variables).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_options(shell: str) -> None:
    assert "simulate" in completed(shell, "batch-progress sim")
    assert "watch" not in completed(shell, "batch-progress sim")
    assert "revoke" in completed(shell, "batch-progress token ")
    assert "--give-up-after" in completed(shell, "batch-progress watch --g")


def test_zsh_runs_nothing_of_a_help_text() -> None:
    """It evaluates what it gets, and help texts quote commands in backticks."""
    text = completed("zsh", "batch-progress token list --lo")
    assert r'"--local":"Use the local server (\`make run\`) at this port."' in text


def test_bash_completes_after_what_show_completion_prints() -> None:
    """The script that it prints for the shell that runs it is sourced there."""
    script = (
        "source <(batch-progress --show-completion); COMP_WORDS=(batch-progress token re); COMP_CWORD=2;"
        '"$(complete -p batch-progress | sed "s/.*-F //; s/ .*//")" batch-progress; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603  # the text above
        ["/usr/bin/env", "bash", "-c", script],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "revoke\n" == done.stdout


def test_without_a_package_of_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback, also if only one package is missing."""
    found = util.find_spec
    monkeypatch.setattr("batch_progress_cli.__main__.find_spec", lambda name: None if name == "rich" else found(name))
    with pytest.raises(SystemExit, match="2"):
        main()
    assert 'batch-progress: not installed: rich; run: pip install "batch-progress[cli]"\n' == capsys.readouterr().err


def test_the_extra_is_what_the_command_looks_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(EXTRA) == [name.partition(">=")[0] for name in project["optional-dependencies"]["cli"]]
