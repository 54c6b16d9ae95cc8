"""The commands of `batch-progress`; docs/cli.md documents them."""

# Commands import what they need when they run, so that `--help` is fast.
# ruff: noqa: PLC0415

import ipaddress
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from batch_progress_cli.failure import FAILED, NO, Failed
from batch_progress_cli.streams import drop_unwritten, prepare
from batch_progress_cli.terminal import visible

LARGEST_PORT = 65535
# Of a help text, on a wide terminal.
LONGEST_LINE = 80


class Commands(TyperGroup):
    """A command group that reports each failure as one line on stderr and an exit status."""

    def main(self, *arguments: Any, **options: Any) -> NoReturn:  # noqa: ANN401  # as in the base class
        """Run the command line and exit."""
        prepare()
        try:
            status = super().main(*arguments, **options | {"standalone_mode": False})
            sys.stdout.flush()
        except Failed as failure:
            status = _say(str(failure), failure.status)
        except TyperException as error:
            message = " ".join(error.format_message().split()).removesuffix(".")
            status = _say(f"{visible(message, 400)}; see --help", FAILED)
        except (typer.Abort, BrokenPipeError, _ReaderGone):
            status = FAILED
        except OSError as error:
            status = _say(str(error), FAILED)
        drop_unwritten()
        sys.exit(status)

    def make_context(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as in the base class
        """Parse the arguments. `--help` prints here."""
        width = min(shutil.get_terminal_size().columns, LONGEST_LINE)
        with _own_status():
            return super().make_context(*arguments, **options, terminal_width=width)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  # as in the base class
        """Run a command."""
        with _own_status():
            return super().invoke(ctx)


class _ReaderGone(Exception):
    """The reader of the output has gone."""


@contextmanager
def _own_status() -> Iterator[None]:
    """Keep typer and Rich from exiting with status 1, which means that jobs failed."""
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGone from error
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            raise _ReaderGone from error
        raise


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
token = typer.Typer(rich_markup_mode=None, help="Issue, list and revoke API tokens.")
app.add_typer(token, name="token")


def _say(message: str, status: int) -> int:
    with suppress(OSError):
        print(f"batch-progress: {visible(message)}", file=sys.stderr)
    return status


def _port(given: str | int) -> int:
    text = str(given)  # typer passes a default as it is
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_PORT):
        raise Failed(f"{visible(repr(text), 140)} is not a port; give a number up to {LARGEST_PORT}")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Failed(f"{visible(repr(text))} is not an IPv4 address") from None


Local = Annotated[
    int | None,
    typer.Option(parser=_port, metavar="PORT", help="Use the local server (`make run`) at this port."),
]
Table = Annotated[str | None, typer.Option(metavar="NAME", help="Use the table of this name.")]
Stack = Annotated[
    str | None, typer.Option(metavar="NAME", help="Use the table of this stack. Default: batch-progress.")
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
    """Progress of scrape batches: how many jobs have ended, and when the batch will be done."""


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="The port to listen on; 0 for any free port.")
    ] = 3000,
    bridge: Annotated[
        str | None,
        typer.Option(
            parser=_address,
            metavar="ADDRESS",
            help="Also serve the tables at this address of Docker's bridge, for containers.",
        ),
    ] = None,
) -> None:
    """Run the API on this machine.

    It listens on 127.0.0.1, and has an embedded DynamoDB with an example batch and a batch that is being processed.
    """
    from batch_progress_cli.checkout import serve

    serve(port, bridge)


@app.command()
def watch(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID", help="The batch to watch.")],
    token: Annotated[str, typer.Option(envvar="FREDDY_API_KEY", show_default=False, help="The API token.")] = "",
    url: Annotated[
        str, typer.Option(envvar="BATCH_PROGRESS_URL", help="The address of the API.")
    ] = "http://127.0.0.1:3000",
    give_up_after: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN",
            show_default=False,
            help="Exit after this long without an answer (status 2) or without progress once the batch has stalled "
            "(status 3): 90s, 5m, 2h. Default: 5m without an answer; a stalled batch is watched on.",
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line for each change.")] = False,
) -> int:
    """Watch a batch to its end.

    Exit status: 0 if every job completed, 1 if some did not, 2 on an error, 3 if it gave up on a stalled batch.
    """
    from batch_progress_cli.api import connected
    from batch_progress_cli.duration import duration
    from batch_progress_cli.follow import Patience, follow, terminable
    from batch_progress_cli.views import view

    given = None if give_up_after is None else duration(give_up_after).total_seconds()
    patience = Patience() if given is None else Patience(given, given)
    with terminable(), connected(url, batch_id, token) as connection, view(as_json=as_json) as shown:
        return follow(connection, batch_id, shown, patience)


@app.command()
def events(
    local: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="The port of the local server (`make run`).")
    ] = 3000,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as EventBridge delivers it.")] = False,
) -> None:
    """Print the events of the local server.

    First those since its start, then each as it comes.
    """
    from batch_progress_cli import events as local_events
    from batch_progress_cli.follow import terminable

    with terminable():
        for line in local_events.events(local):
            print(line if as_json else local_events.event_line(local_events.decoded(line)), flush=True)


@app.command()
def simulate(  # noqa: PLR0913, PLR0917  # a command's options, given by name
    batch_id: Annotated[
        str,
        typer.Argument(metavar="BATCH_ID", show_default=False, help="The batch to create. Default: a new id."),
    ] = "",
    owner: Annotated[str, typer.Option(help="The owner of the batch.")] = "demo",
    jobs: Annotated[int, typer.Option(help="Number of pages, one job each.")] = 40,
    workers: Annotated[int, typer.Option(help="Number of pages scraped at the same time.")] = 4,
    median: Annotated[float, typer.Option(help="Median seconds per page.")] = 2.5,
    spread: Annotated[
        float, typer.Option(help="Sigma of the log-normal distribution of the seconds; 0 for no variation.")
    ] = 0.45,
    timeout: Annotated[float, typer.Option(help="Seconds after which a page fails with TIMEOUT.")] = 30,
    failures: Annotated[float, typer.Option(help="Share of pages that fail, 0 to 1.")] = 0.05,
    stalls: Annotated[float, typer.Option(help="Share of pages on which the worker hangs, 0 to 1.")] = 0,
    stall: Annotated[float, typer.Option(help="Seconds that a worker hangs, regardless of the timeout.")] = 60,
    items: Annotated[int, typer.Option(help="Maximum number of items per page.")] = 40,
    kill_workers: Annotated[
        int, typer.Option(help="Number of workers that are killed in the middle of a page and record no end.")
    ] = 0,
    lost_after: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            help="Seconds without a sign of life after which a job is failed as WORKER_LOST. "
            "Default: three times the timeout, at least 60.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(show_default=False, help="Seed of the workload; the same seed gives the same workload."),
    ] = None,
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Process a batch with simulated workers.

    They create the batch and record their progress as real workers do.
    """
    import secrets

    from batch_progress_cli.simulation import Workload, simulate
    from batch_progress_cli.target import JOBS, Where, aws, open_table

    workload = Workload(
        jobs, workers, median, spread, timeout, failures, stalls, stall, items, kill_workers, lost_after
    )
    if local is not None:
        workload.check_local()
    client, name = open_table(JOBS, Where(local, table, stack))
    batch_id = batch_id or f"batch_{secrets.token_hex(5)}"
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    with aws():
        for line in simulate(client, name, batch_id, owner, workload, seed):
            print(line, flush=True)


@app.command()
def openapi(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the document to this file.")] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Exit with status 1 unless this file is current.")
    ] = None,
) -> int:
    """Print the OpenAPI document.

    It is generated from the code. Options write it to a file, or check a file against it.
    """
    import json

    from batch_progress_cli.checkout import openapi_document

    if write and check:
        raise Failed("give one of --write and --check")
    checked = check.read_bytes() if check else None
    current = (json.dumps(openapi_document(), indent=2, ensure_ascii=False) + "\n").encode()
    if write:
        write.write_bytes(current)
    if check and checked != current:
        return _say(f"{check} is not current; run `make openapi`", NO)
    if not write and not check:
        # UTF-8 like the file, whatever the encoding of the output.
        sys.stdout.buffer.write(current)
    return 0


@token.command("issue")
def issue_token(  # noqa: PLR0913, PLR0917  # a command's options, given by name
    owner: Annotated[str, typer.Option(help="The owner whose batches the token can read.")],
    label: Annotated[str, typer.Option(show_default=False, help="A label for the list of tokens.")] = "",
    expires_in: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Lifetime: 12h, 30d, 52w. Default: no expiry.")
    ] = None,
    issuer: Annotated[
        str,
        typer.Option(
            metavar="URL",
            show_default=False,
            help="The issuer whose session tokens name this owner in their owner claim.",
        ),
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="BATCH_ID", show_default=False, help="The only batch that the token opens.")
    ] = "",
    link: Annotated[
        str,
        typer.Option(
            metavar="URL",
            show_default=False,
            help="Print a link to the page of --batch, with the token in it. URL is the address of the API.",
        ),
    ] = "",
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Create a token, or a link to share.

    It is printed once: the table stores only its SHA-256.
    """
    from datetime import UTC, datetime

    from batch_progress_cli.duration import duration
    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import SHOWN, TokenTable, page_address

    lasts = None if expires_in is None else duration(expires_in)
    if link and not batch:
        raise Failed("--link needs --batch: a link opens one batch, and nothing else of its owner")
    page = page_address(link, batch) if link else ""
    tokens_table = TokenTable(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        secret, entry = tokens_table.issue(owner, label, lasts, datetime.now(UTC), issuer=issuer, batch_id=batch)
    until = f"until {entry.expires_at}" if entry.expires_at else "until it is revoked"
    try:
        print(f"{page}#token={secret}" if page else secret, flush=True)
    except OSError as error:
        name = entry.token_hash[:SHOWN]
        raise Failed(f"the token could not be printed; revoke it: token revoke {name}") from error
    print(
        f"Good for {entry.opens} {until}; hash {entry.token_hash[:SHOWN]}. It is not shown again.",
        file=sys.stderr,
    )


@token.command("jwt")
def session_token(
    owner: Annotated[str, typer.Option(help="The owner: the `sub` of the token.")],
    expires_in: Annotated[str, typer.Option(metavar="SPAN", help="Lifetime: 90s, 15m, 12h.")] = "1h",
    local: Annotated[
        int, typer.Option(parser=_port, metavar="PORT", help="The port of the local server (`make run`).")
    ] = 3000,
) -> None:
    """Print a session token (JWT).

    It is signed by the local server's issuer, which stands in for an identity provider.
    """
    from batch_progress_cli.duration import duration
    from batch_progress_cli.local_server import HOST
    from batch_progress_cli.session_token import TokenRequest, ask_for_token

    if not owner:
        raise Failed("the owner is empty")
    lasts = int(duration(expires_in).total_seconds())
    print(ask_for_token(f"http://{HOST}:{local}", TokenRequest(owner, lasts)))


@token.command("list")
def list_tokens(local: Local = None, table: Table = None, stack: Stack = None) -> None:
    """List the tokens.

    Each with its owner, batch, label, times and the beginning of its hash.
    """
    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import TokenTable, listing

    tokens_table = TokenTable(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        print(listing(tokens_table.tokens()))


@token.command("revoke")
def revoke_token(
    named: Annotated[
        str,
        typer.Argument(metavar="TOKEN|HASH", help="The token, or the beginning of its hash; - reads it from stdin."),
    ] = "-",
    local: Local = None,
    table: Table = None,
    stack: Stack = None,
) -> None:
    """Revoke a token.

    It stops working within 30 seconds.
    """
    from datetime import UTC, datetime

    from batch_progress_cli.target import TOKENS, Where, aws, open_table
    from batch_progress_cli.token_table import SHOWN, TokenTable

    if named == "-":
        if sys.stdin.isatty():
            print("The token, or the beginning of its hash: ", end="", file=sys.stderr, flush=True)
        named = sys.stdin.readline()
    named = named.strip()
    if not named:
        raise Failed("no token on standard input")
    tokens_table = TokenTable(*open_table(TOKENS, Where(local, table, stack)))
    with aws():
        entry, changed = tokens_table.revoke(named, datetime.now(UTC))
    what = f"hash {entry.token_hash[:SHOWN]} of {entry.owner}"
    print(f"Revoked {what}." if changed else f"Already revoked: {what}, {visible(entry.revoked_at)}.")
