"""The command line, `batch-progress`; docs/cli.md says what each command promises."""

# Each command imports what it needs when it runs, so that `--help` answers at once.
# ruff: noqa: PLC0415

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from batch_progress_cli.failure import FAILED, NO, Failed
from batch_progress_cli.terminal import visible

LARGEST_PORT = 65535


class Commands(TyperGroup):
    """A group whose failures are one line on stderr and an exit status of ours."""

    def main(self, *arguments: Any, **options: Any) -> NoReturn:  # noqa: ANN401  # those of the class above
        """Run the command line and exit."""
        try:
            status = super().main(*arguments, **options | {"standalone_mode": False})
        except Failed as failure:
            status = _say(str(failure), FAILED)
        except TyperException as error:
            message = " ".join(error.format_message().split()).removesuffix(".")
            status = _say(f"{visible(message, 400)}; see --help", FAILED)
        except typer.Abort:
            status = FAILED
        sys.exit(status)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # Typer's own kind of context; whatever the command returns
        """Run a command; end it when nobody reads what it prints any more."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        return result


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
token = typer.Typer(help="Issue, list and revoke the tokens that clients ask with.")
app.add_typer(token, name="token")


def _say(message: str, status: int) -> int:
    print(f"batch-progress: {message}", file=sys.stderr)
    return status


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_PORT):
        raise Failed(f"{text!r} is not a port; give a number from 0 (any free one) to {LARGEST_PORT}")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Failed(f"{visible(repr(text))} is not an IPv4 address") from None


Local = Annotated[
    int | None,
    typer.Option(parser=_port, metavar="PORT", help="Work on the local server (`make run`) at this port."),
]
Table = Annotated[str | None, typer.Option(metavar="NAME", help="Work on the table of this name.")]
Stack = Annotated[
    str | None, typer.Option(metavar="NAME", help="Work on the table of this stack; batch-progress where not given.")
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # the option's value
    if wanted:
        from importlib.metadata import version

        print(f"batch-progress {version('batch-progress')}")
        raise typer.Exit


@app.callback()
def batch_progress(
    *,
    version: Annotated[  # its callback does everything
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """How far is my scrape batch, and when will it be done."""


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="Where to listen; 0 takes any free port.")
    ] = 3000,
    bridge: Annotated[
        str | None,
        typer.Option(parser=_address, metavar="ADDRESS", help="Let containers have the tables at Docker's bridge."),
    ] = None,
) -> None:
    """Run the API on 127.0.0.1 over an embedded DynamoDB, with an example batch and one that is worked off."""
    from batch_progress_cli.checkout import serve

    serve(port, bridge)


@app.command()
def watch(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID", help="The batch to watch.")],
    token: Annotated[
        str, typer.Option(envvar="FREDDY_API_KEY", show_default=False, help="The token to ask with.")
    ] = "",
    url: Annotated[
        str, typer.Option(envvar="BATCH_PROGRESS_URL", help="Where the API answers.")
    ] = "http://127.0.0.1:3000",
    give_up_after: Annotated[
        str, typer.Option(metavar="SPAN", help="End when there was no answer for so long (90s, 5m, 2h).")
    ] = "5m",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each change.")] = False,
) -> int:
    """Watch a batch to its end: status 0 when every job completed, 1 when some failed, 2 when it could not be told."""
    from batch_progress_cli.api import Api
    from batch_progress_cli.duration import duration
    from batch_progress_cli.follow import follow, terminable
    from batch_progress_cli.views import view

    with terminable(), Api(url, batch_id, token) as api, view(as_json=as_json) as shown:
        return follow(api, shown, duration(give_up_after).total_seconds())


@app.command()
def simulate(  # noqa: PLR0913, PLR0917  # a command's options, given by name
    batch_id: Annotated[
        str,
        typer.Argument(metavar="[BATCH_ID]", show_default=False, help="The batch to make; a new name where not given."),
    ] = "",
    owner: Annotated[str, typer.Option(help="Whose batch it is.")] = "demo",
    jobs: Annotated[int, typer.Option(help="How many pages there are.")] = 40,
    workers: Annotated[int, typer.Option(help="How many are scraped at a time.")] = 4,
    median: Annotated[float, typer.Option(help="Seconds that half of the pages stay below.")] = 2.5,
    spread: Annotated[float, typer.Option(help="How much they differ (sigma of a log-normal); 0: not at all.")] = 0.45,
    timeout: Annotated[float, typer.Option(help="Seconds after which a page is given up.")] = 30,
    failures: Annotated[float, typer.Option(help="The share of pages that fails, 0 to 1.")] = 0.05,
    stalls: Annotated[float, typer.Option(help="The share of pages on which a worker hangs, 0 to 1.")] = 0,
    stall: Annotated[float, typer.Option(help="Seconds that it hangs, whatever the timeout.")] = 60,
    items: Annotated[int, typer.Option(help="The most items that a page yields.")] = 40,
    seed: Annotated[int | None, typer.Option(show_default=False, help="The same seed, the same workload.")] = None,
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Record a scraper's workload as it is worked off, by simulated workers, to see it move."""
    import secrets

    from batch_progress.recorder import BatchRecorder
    from batch_progress_cli.simulation import Workload, simulate
    from batch_progress_cli.target import JOBS, Where, aws, open_table

    workload = Workload(jobs, workers, median, spread, timeout, failures, stalls, stall, items)
    client, name = open_table(JOBS, Where(local, table, stack))
    batch_id = batch_id or f"batch_{secrets.token_hex(5)}"
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    print(f"{visible(batch_id)} of {visible(owner)}: {jobs} jobs, {workers} workers, seed {seed}", flush=True)
    with aws():
        print(simulate(BatchRecorder(name, client), batch_id, owner, workload, seed))


@app.command()
def openapi(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the document to this file.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Fail unless this file is current.")] = None,
) -> int:
    """Print the OpenAPI document made from the code's own models, or write it, or check a file against it."""
    import json

    from batch_progress_cli.checkout import openapi_document

    current = json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n"
    if write:
        write.write_text(current, encoding="utf-8")
    if check and not (check.is_file() and check.read_text(encoding="utf-8") == current):
        return _say(f"{check} is not current; run `make openapi`", NO)
    if not write and not check:
        print(current, end="")
    return 0


@token.command("issue")
def issue_token(  # noqa: PLR0917  # a command's options, given by name
    owner: Annotated[str, typer.Option(help="Whose batches it opens.")],
    label: Annotated[str, typer.Option(show_default=False, help="What to call it in the list.")] = "",
    expires_in: Annotated[
        str | None, typer.Option(metavar="SPAN", help="When it ends: 12h, 30d, 52w; never where not given.")
    ] = None,
    issuer: Annotated[
        str,
        typer.Option(
            metavar="URL", show_default=False, help="The owner is whom this issuer of session tokens calls so."
        ),
    ] = "",
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Make a token and print it, this once; the table keeps its SHA-256."""
    from datetime import UTC, datetime

    from batch_progress_cli.duration import duration
    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import SHOWN, TokenBook

    lasts = None if expires_in is None else duration(expires_in)
    book = TokenBook(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        secret, entry = book.issue(owner, label, lasts, datetime.now(UTC), issuer=issuer)
    until = f"until {entry.expires_at}" if entry.expires_at else "until it is revoked"
    print(secret, flush=True)
    print(
        f"Good for the batches of {entry.owner} {until}; hash {entry.token_hash[:SHOWN]}. It is not shown again.",
        file=sys.stderr,
    )


@token.command("jwt")
def session_token(
    owner: Annotated[str, typer.Option(help="Whose session it is: the token's `sub`.")],
    expires_in: Annotated[str, typer.Option(metavar="SPAN", help="When it ends: 90s, 15m, 12h.")] = "1h",
    local: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="The port of the local server (`make run`).")
    ] = 3000,
) -> None:
    """Print a session token (JWT) of the local server's own issuer, to try what an identity provider's would do."""
    from batch_progress_cli.duration import duration
    from batch_progress_cli.local_server import HOST
    from batch_progress_cli.session_token import Wanted, ask_for_token

    if not owner:
        raise Failed("the owner is empty")
    lasts = int(duration(expires_in).total_seconds())
    print(ask_for_token(f"http://{HOST}:{local}", Wanted(owner, lasts)))


@token.command("list")
def list_tokens(local: Local = None, table: Table = None, stack: Stack = None) -> None:
    """List what the table knows of each token; the tokens themselves it does not know."""
    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import TokenBook, listing

    book = TokenBook(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        print(listing(book.tokens()))


@token.command("revoke")
def revoke_token(
    named: Annotated[
        str, typer.Argument(metavar="[TOKEN|HASH]", help="The token, or the beginning of its hash; - reads it.")
    ] = "-",
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Revoke a token, named by itself or by the beginning of its hash; it is refused everywhere within 30 seconds."""
    from datetime import UTC, datetime

    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import SHOWN, TokenBook

    named = (sys.stdin.readline() if named == "-" else named).strip()
    if not named:
        raise Failed("no token on standard input")
    book = TokenBook(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        entry, changed = book.revoke(named, datetime.now(UTC))
    what = f"hash {entry.token_hash[:SHOWN]} of {entry.owner}"
    print(f"Revoked {what}." if changed else f"Was revoked already: {what}, {visible(entry.revoked_at)}.")
