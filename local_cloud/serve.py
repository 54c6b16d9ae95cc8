"""The local server: the real functions between an HTTP server and an embedded DynamoDB."""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from batch_progress_cli.events import event_line
from batch_progress_cli.local_server import HOST, JOBS_TABLE, REGION
from local_cloud import seed
from local_cloud.checks import CHECKS, EVENTS, EventLog, Message, Poller, delivered
from local_cloud.dynamodb import embedded_dynamodb
from local_cloud.http_server import http_server, listening, say, tables_at
from local_cloud.lambda_context import LambdaContext
from local_cloud.proxy_event import Event

if TYPE_CHECKING:
    from local_cloud.issuer import LocalIssuer


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
        embedded_dynamodb() as endpoint,
        tables_at(bridge, listener.getsockname()[1]),
    ):
        port = listener.getsockname()[1]
        issuer = _trusted_issuer(port)
        events = EventLog()
        server = http_server(listener, _load_handler(endpoint), screen, issuer, events)
        with _background(endpoint, events, screen):
            say(screen, _welcome(port, log_name))
            server.serve_forever()
    say(screen, "\nStopped.")


def _trusted_issuer(port: int) -> "LocalIssuer":
    """Return an issuer of session tokens that the function trusts, and create a batch for its users."""
    import botocore.session  # noqa: PLC0415  # slow

    from batch_progress.tokens import session_owner  # noqa: PLC0415  # slow
    from local_cloud.issuer import LocalIssuer  # noqa: PLC0415  # imports cryptography

    issuer = LocalIssuer(f"http://{HOST}:{port}")
    os.environ |= issuer.environment()
    owner = session_owner(issuer.address, seed.OWNER)
    seed.seed_session(botocore.session.Session().create_client("dynamodb"), JOBS_TABLE, owner, datetime.now(UTC))
    return issuer


def _load_handler(endpoint: str) -> Callable[[Event], object]:
    """Return a function that calls the handler as an execution environment does: one event at a time."""
    if os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") != endpoint:
        raise RuntimeError("the function would use another DynamoDB")
    from functions.progress.app import handler  # noqa: PLC0415  # only once the environment is set
    from local_cloud.template import timeout_seconds  # noqa: PLC0415  # reads YAML

    seconds = timeout_seconds("ProgressFunction")

    def call(event: Event) -> object:
        with _one_at_a_time:
            return handler(event, LambdaContext(seconds))

    return call


# Powertools collects the metrics of a process in one global: handlers must not run concurrently.
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _background(endpoint: str, events: EventLog, screen: TextIO) -> Iterator[None]:
    """Process the live batch, and deliver the table's stream, the checks and the events, while the block runs."""
    import botocore.session  # noqa: PLC0415  # slow

    from functions.revision import app as revision  # noqa: PLC0415
    from functions.supervisor import app as supervisor  # noqa: PLC0415
    from local_cloud.live_batch import LiveBatch  # noqa: PLC0415  # only once the environment is set
    from local_cloud.stream import Stream, embedded  # noqa: PLC0415
    from local_cloud.template import stream_mapping, timeout_seconds  # noqa: PLC0415  # reads YAML

    def called(handler: Callable[..., Any], function: str) -> Callable[[Event], Any]:
        seconds = timeout_seconds(function)

        def call(event: Event) -> object:
            with _one_at_a_time:
                return handler(event, LambdaContext(seconds))

        return call

    def told(messages: list[Message]) -> set[str]:
        for message in messages:
            events.add(message["Body"].encode())
            say(screen, event_line(json.loads(message["Body"])))
        return set()

    client = botocore.session.Session().create_client("dynamodb")
    stream = Stream(embedded(JOBS_TABLE, REGION), called(revision.handler, "RevisionFunction"), stream_mapping())
    checks = Poller(endpoint, CHECKS, delivered(called(supervisor.handler, "SupervisorFunction")))
    live = LiveBatch(client, JOBS_TABLE)
    with stream.delivered(), checks.polling(), Poller(endpoint, EVENTS, told).polling(), live.at_work():
        yield


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
