"""The API on this machine: the real function, an HTTP server before it, an embedded DynamoDB behind it."""

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4

from cli import seed
from cli.failure import Failed
from cli.terminal import visible

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

    from cli.issuer import LocalIssuer

HOST = "127.0.0.1"
REGION = "eu-central-1"
# The batch that moves (cli/live.py).
LIVE_BATCH = "batch_live"
JOBS_TABLE = "JobsTable"
TOKENS_TABLE = "TokensTable"
# The function's, in template.yaml.
TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Context:
    """What Lambda hands a handler beside the event."""

    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    function_name: str = "batch-progress-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:123456789012:function:batch-progress-local"
    log_group_name: str = "local"
    log_stream_name: str = "local"
    deadline: float = field(default_factory=lambda: time.monotonic() + TIMEOUT_MS / 1000)

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's timeout."""
        return max(0, int((self.deadline - time.monotonic()) * 1000))


def serve(port: int, bridge: str | None = None) -> None:
    """Serve until interrupted or terminated.

    Args:
        port: Where to listen; 0 is any free one.
        bridge: The address at which containers reach this machine, if they are to have the tables.

    Raises:
        Failed: the port is taken, or not ours to take, or the bridge is not of this machine.
    """
    screen = sys.stdout
    with (
        _interruptible(),
        # Taken first, so that a taken port is known at once and an early request waits for its answer.
        _listening(HOST, port) as listener,
        _log_file() as (log, log_name),
        # A Lambda's output goes to its log; here the function's records and metrics go to a file, off the screen.
        contextlib.redirect_stdout(log),
        embedded_dynamodb() as endpoint,
        _tables_at(bridge, listener.getsockname()[1]),
    ):
        port = listener.getsockname()[1]
        issuer = _trusted_issuer(port)
        server = http_server(listener, _load_handler(endpoint), screen, issuer)
        with _at_work():
            _say(screen, _welcome(port, log_name))
            server.serve_forever()
    _say(screen, "\nStopped.")


@contextlib.contextmanager
def embedded_dynamodb() -> Iterator[str]:
    """Run moto's DynamoDB in this process, with the template's tables and the example; give its address."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer  # noqa: PLC0415  # a second

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # its access lines
    engine = ThreadedMotoServer(HOST, port=0, verbose=False)
    engine.start()
    try:
        host, port = engine.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        use_only(endpoint)
        _fill()
        yield endpoint
    finally:
        engine.stop()


def use_only(endpoint: str) -> None:
    """Point everything AWS in this process at a local engine; of the user's own settings nothing is left."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "BATCH_PROGRESS_JOBS_TABLE": JOBS_TABLE,
        "BATCH_PROGRESS_TOKENS_TABLE": TOKENS_TABLE,
    }


def _fill() -> None:
    import botocore.session  # noqa: PLC0415  # slow

    from cli.tables import tables  # noqa: PLC0415  # reads YAML

    client = botocore.session.Session().create_client("dynamodb")
    for table in tables():
        client.create_table(**table)
    seed.seed(client, JOBS_TABLE, TOKENS_TABLE, datetime.now(UTC))


@contextlib.contextmanager
def _tables_at(bridge: str | None, port: int) -> Iterator[None]:
    """Let containers have the tables at the address of their bridge, if there is one; all else stays on loopback."""
    if bridge is None:
        yield
        return
    from werkzeug.serving import make_server  # noqa: PLC0415  # slow

    with _listening(bridge, port) as listener:
        server = make_server(bridge, port, _dynamodb(), threaded=True, fd=listener.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _dynamodb() -> "WSGIApplication":
    """Return the embedded DynamoDB once more."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415  # slow
        DomainDispatcherApplication,
        create_backend_app,
    )

    return DomainDispatcherApplication(create_backend_app)


def _trusted_issuer(port: int) -> "LocalIssuer":
    """Return an issuer of session tokens that the function trusts, with a batch for its users to see."""
    import botocore.session  # noqa: PLC0415  # slow

    from batch_progress.tokens import session_owner  # noqa: PLC0415  # slow too
    from cli.issuer import LocalIssuer  # noqa: PLC0415  # brings cryptography

    issuer = LocalIssuer(f"http://{HOST}:{port}")
    os.environ |= issuer.environment()
    owner = session_owner(issuer.address, seed.OWNER)
    seed.seed_session(botocore.session.Session().create_client("dynamodb"), JOBS_TABLE, owner, datetime.now(UTC))
    return issuer


def _load_handler(endpoint: str) -> Callable[[dict[str, object]], object]:
    """Return a call of the real function, made as Lambda makes it: one at a time."""
    if os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") != endpoint:
        raise RuntimeError("the function would speak to another DynamoDB")
    from functions.progress.app import handler  # noqa: PLC0415  # only once the environment is set

    def call(event: dict[str, object]) -> object:
        with _one_at_a_time:
            return handler(event, Context())

    return call


# Powertools keeps a process's metrics in one place.
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    """Let the live batch be worked off, and its changes be counted as the table's stream has them counted."""
    import botocore.session  # noqa: PLC0415  # slow

    from cli.live import LiveBatch  # noqa: PLC0415  # only once the environment is set
    from cli.stream import Stream  # noqa: PLC0415
    from functions.revision.app import handler  # noqa: PLC0415

    def call(event: dict[str, object]) -> None:
        with _one_at_a_time:
            handler(event, Context())

    client = botocore.session.Session().create_client("dynamodb")
    with Stream(JOBS_TABLE, REGION, call).delivered(), LiveBatch(client, JOBS_TABLE).at_work():
        yield


def http_server(
    listener: socket.socket,
    handler: Callable[[dict[str, object]], object],
    screen: TextIO,
    issuer: "LocalIssuer | None" = None,
) -> "BaseWSGIServer":
    """Return a server on a listening socket that asks the handler and says on the screen what it was asked."""
    from werkzeug import Request, Response  # noqa: PLC0415
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    from cli.gateway import SENT_HEADERS, respond  # noqa: PLC0415
    from cli.issuer import PATH  # noqa: PLC0415

    # For the other commands: they know no more than this server's port.
    dynamodb = _dynamodb()

    class RequestHandler(WSGIRequestHandler):
        def make_environ(self) -> dict[str, Any]:
            return super().make_environ() | {SENT_HEADERS: self.headers.items()}

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Nothing: the application below says more."""

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        asked: Any = api
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            asked = dynamodb
        elif issuer and environ.get("PATH_INFO", "").startswith(f"{PATH}/"):
            asked = issuer.respond(Request(environ))
        answer: Iterable[bytes] = asked(environ, start_response)
        return answer

    @Request.application
    def api(request: Request) -> Response:
        began = time.perf_counter()
        response = respond(request, handler)
        target = str(request.environ["REQUEST_URI"])
        took = (time.perf_counter() - began) * 1000
        shown = visible(f"{request.method} {target}", 200)
        line = f"{time.strftime('%H:%M:%S')}  {response.status_code}  {shown}  {took:.0f} ms"
        _say(screen, line)
        return response

    return make_server(
        HOST,
        listener.getsockname()[1],
        application,
        threaded=True,
        request_handler=RequestHandler,
        fd=listener.fileno(),
    )


@contextlib.contextmanager
def _listening(address: str, port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(128)
        except OSError as error:
            other = "BRIDGE= or --bridge" if error.errno == errno.EADDRNOTAVAIL else "PORT= or --port"
            raise Failed(f"port {port} on {address}: {error.strerror}; give another with {other}") from error
        yield listener


@contextlib.contextmanager
def _log_file() -> Iterator[tuple[TextIO, str]]:
    # Not one that removes itself: whoever clears the temporary folder may have been there before.
    number, name = tempfile.mkstemp(prefix="batch-progress-", suffix=".log")
    try:
        with open(number, "w", buffering=1, encoding="utf-8") as log:  # noqa: PTH123  # opens a descriptor
            yield log, name
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the block quietly on Ctrl-C and on a request to terminate."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        for number in signals:  # the first is enough; a second must not disturb the clearing up
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


def _say(screen: TextIO, text: str) -> None:
    # A reader that has gone (`| head`) must not take the answers with it.
    with contextlib.suppress(BrokenPipeError):
        print(text, file=screen, flush=True)


def _welcome(port: int, log: str) -> str:
    address = f"http://{HOST}:{port}"
    command = Path(sys.executable).with_name("batch-progress")
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    return f"""\
The batch progress API is running on {address}

  function   functions.progress.app.handler, called as Lambda calls it
  tables     an embedded DynamoDB, for other commands with --local {port}; gone when this ends
  batches    {seed.BATCH}: 10 URLs, 7 completed, 1 failed, 2 pending, 245 items
             {LIVE_BATCH}: 40 URLs, worked off while you watch, again and again
  tokens     {seed.TOKEN} of their owner, {seed.OWNER}; {seed.EXPIRED_TOKEN} is refused
  sessions   {command} token jwt --owner {seed.OWNER} --local {port} makes a JWT; it opens {seed.SESSION_BATCH}
  log        {log}

Ask it:

  curl -H 'X-API-Key: {seed.TOKEN}' {address}/api/v1/scrape/batch/{seed.BATCH}/progress

Watch it, in a terminal and in a browser:

  {command} watch {LIVE_BATCH} --token {seed.TOKEN} --url {address}
  {address}/watch/{LIVE_BATCH}

Ctrl-C ends it.
"""
