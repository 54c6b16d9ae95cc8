"""The command line: `batch-progress serve | openapi`."""

# Each command imports what it needs when it runs, so that `--help` answers at once.
# ruff: noqa: PLC0415

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

LARGEST_PORT = 65535


def _fail(message: str, status: int) -> NoReturn:
    print(f"batch-progress: {message}", file=sys.stderr)
    raise typer.Exit(status)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_PORT):
        _fail(f"{text!r} is not a port; give a number from 0 (any free one) to {LARGEST_PORT}", 2)
    return int(text)


@app.callback()
def batch_progress() -> None:
    """How far is my scrape batch, and when will it be done."""


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="Where to listen; 0 takes any free port.")
    ] = 3000,
) -> None:
    """Run the API on 127.0.0.1 over an embedded DynamoDB that holds an example batch."""
    from cli.serve import ServeFailed, serve

    try:
        serve(port)
    except ServeFailed as error:
        _fail(str(error), 2)


@app.command()
def openapi(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the document to this file.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Fail unless this file is current.")] = None,
) -> None:
    """Print the OpenAPI document made from the code's own models, or write it, or check a file against it."""
    import json

    from cli.openapi import document

    current = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if write:
        write.write_text(current, encoding="utf-8")
    if check and not (check.is_file() and check.read_text(encoding="utf-8") == current):
        _fail(f"{check} is not current; run `make openapi`", 1)
    if not write and not check:
        print(current, end="")
