"""The local server: the real functions between an HTTP server and an embedded DynamoDB."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from batch_progress_cli.events import event_line
from batch_progress_cli.local_server import HOST, JOBS_TABLE, TOKENS_TABLE
from local_cloud import seed
from local_cloud.aws import Services, use_only
from local_cloud.background import in_background
from local_cloud.checks import EventBus, EventLog, Queue
from local_cloud.dynamodb import DynamoDB, Item
from local_cloud.http_server import http_server, listening, say, serving, tables_at
from local_cloud.lambda_context import LambdaContext
from local_cloud.proxy_event import Event

if TYPE_CHECKING:
    from local_cloud.issuer import LocalIssuer

# How often expired items are deleted, and the log if it is larger than this many bytes.
_CLEANING_SECONDS = 60.0
_LARGEST_LOG = 20_000_000
# A signal ends the server within this time.
_SIGNAL_SECONDS = 0.5


def serve(port: int, bridge: str | None = None) -> None:
    """Serve until interrupted or terminated.

    Args:
        port: The port to listen on; 0 for any free port.
        bridge: Also serve the tables at this address, where containers reach them.

    Raises:
        Failed: The port is taken or not permitted, or `bridge` is not an address of this machine.
    """
    screen = sys.stdout
    with (
        _interruptible(),
        # Bind first: a taken port fails at once, and early requests wait in the backlog.
        listening(HOST, port) as listener,
        _log_file() as (log, log_name),
        # As in Lambda, the functions log to stdout. Keep that off the screen.
        contextlib.redirect_stdout(log),
    ):
        port = listener.getsockname()[1]
        address = f"http://{HOST}:{port}"
        use_only(address)
        services, events = _services(screen)
        issuer = _trusted_issuer(address, services.tables)
        server = http_server(listener, _load_handler(address), screen, services, issuer, events)
        # The server ends last: what runs in the background needs it.
        with tables_at(bridge, port, services), serving(server), _background(services, log):
            say(screen, _welcome(port, log_name))
            # Not one endless wait: a signal that arrives just before it would not end it.
            while True:
                time.sleep(_SIGNAL_SECONDS)
    say(screen, "\nStopped.")


def _services(screen: TextIO) -> tuple[Services, EventLog]:
    """Return the tables, with the example in them, the queue and the bus, and what has been on the bus."""
    from local_cloud.template import expiry_attributes, tables  # noqa: PLC0415  # reads YAML

    events = EventLog()

    def told(event: dict[str, Any]) -> None:
        events.add(json.dumps(event).encode())
        say(screen, event_line(event))

    dynamodb = DynamoDB(tables(), expiry_attributes())
    now = datetime.now(UTC)
    _put(dynamodb, JOBS_TABLE, seed.batch_items(now))
    _put(dynamodb, TOKENS_TABLE, seed.token_items(now))
    return Services(dynamodb, Queue(), EventBus(told)), events


def _put(dynamodb: DynamoDB, table: str, items: list[Item]) -> None:
    for item in items:
        dynamodb.call("PutItem", {"TableName": table, "Item": item})


def _trusted_issuer(address: str, dynamodb: DynamoDB) -> "LocalIssuer":
    """Return an issuer of session tokens that the function trusts, and create a batch for its users."""
    from batch_progress.tokens import session_owner  # noqa: PLC0415  # slow
    from local_cloud.issuer import LocalIssuer  # noqa: PLC0415  # imports cryptography

    issuer = LocalIssuer(address)
    os.environ |= issuer.environment()
    owner = session_owner(issuer.address, seed.OWNER)
    _put(dynamodb, JOBS_TABLE, seed.batch_items(datetime.now(UTC), seed.SESSION_BATCH, owner))
    return issuer


def _load_handler(address: str) -> Callable[[Event], object]:
    """Return the function behind the API."""
    if os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") != address:
        raise RuntimeError("the function would use another DynamoDB")
    from functions.progress.app import handler  # noqa: PLC0415  # only once the environment is set

    return _invocation(handler, "ProgressFunction")


def _invocation(handler: Callable[..., Any], function: str) -> Callable[[Event], Any]:
    """Return what calls a handler as an execution environment does: one event at a time.

    Different functions run at the same time, so a long check delays no answer.
    """
    from local_cloud.template import timeout_seconds  # noqa: PLC0415  # reads YAML

    one_at_a_time, seconds = threading.Lock(), timeout_seconds(function)

    def call(event: Event) -> object:
        with one_at_a_time:
            return handler(event, LambdaContext(seconds))

    return call


@contextlib.contextmanager
def _background(services: Services, log: TextIO) -> Iterator[None]:
    """Process the live batch, deliver the table's stream and the checks, and delete what is old."""
    import botocore.session  # noqa: PLC0415  # slow

    from functions.revision import app as revision  # noqa: PLC0415
    from functions.supervisor import app as supervisor  # noqa: PLC0415
    from local_cloud.live_batch import LiveBatch  # noqa: PLC0415  # only once the environment is set
    from local_cloud.stream import Stream  # noqa: PLC0415
    from local_cloud.template import checks_at_once, stream_mapping  # noqa: PLC0415  # reads YAML

    stop = threading.Event()

    def clean() -> None:
        while not stop.wait(_CLEANING_SECONDS):
            services.tables.delete_expired(time.time())
            _empty_if_large(log)

    changes = partial(services.tables.take_changes, JOBS_TABLE)
    stream = Stream(changes, _invocation(revision.handler, "RevisionFunction"), stream_mapping())
    checks = services.checks.delivered(_invocation(supervisor.handler, "SupervisorFunction"), checks_at_once())
    live = LiveBatch(botocore.session.Session().create_client("dynamodb"), JOBS_TABLE)
    with in_background(clean, stop, "cleaning"), stream.delivered(), checks, live.at_work():
        yield


def _empty_if_large(log: TextIO) -> None:
    if log.tell() > _LARGEST_LOG:
        log.seek(0)
        log.truncate()


@contextlib.contextmanager
def _log_file() -> Iterator[tuple[TextIO, str]]:
    # Not `NamedTemporaryFile`: it fails at exit if the temporary folder was cleared meanwhile.
    number, name = tempfile.mkstemp(prefix="batch-progress-", suffix=".log")
    try:
        with open(number, "w", buffering=1, encoding="utf-8") as log:  # noqa: PTH123  # opens a descriptor
            yield log, name
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the block without an error on SIGINT and SIGTERM."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        for number in signals:  # a second signal must not interrupt the cleanup
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in signals}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _welcome(port: int, log: str) -> str:
    address = f"http://{HOST}:{port}"
    command = Path(sys.executable).with_name("batch-progress")
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    return f"""\
The batch progress API is running on {address}

  function   functions.progress.app.handler, called as Lambda calls it
  tables     an embedded DynamoDB, for other commands with --local {port}; lost when the server stops
  batches    {seed.BATCH}: 10 URLs, 7 completed, 1 failed, 2 pending, 245 items
             {seed.LIVE_BATCH}: 40 URLs, processed while you watch, then started again
  tokens     {seed.TOKEN} of their owner, {seed.OWNER}; {seed.EXPIRED_TOKEN} has expired
  events     printed here, and by {command} events --local {port}
  sessions   {command} token jwt --owner {seed.OWNER} --local {port} makes a JWT, for {seed.SESSION_BATCH}
  log        {log}

Ask it:

  curl -H 'X-API-Key: {seed.TOKEN}' {address}/api/v1/scrape/batch/{seed.BATCH}/progress

Watch it, in a terminal and in a browser:

  {command} watch {seed.LIVE_BATCH} --token {seed.TOKEN} --url {address}
  {address}/watch/{seed.LIVE_BATCH}

Ctrl-C ends it.
"""
