"""HTTP on loopback: API Gateway in front of a handler, and on the same port DynamoDB and the token issuer."""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import EVENTS_PATH, HOST, ISSUER_PATH
from batch_progress_cli.terminal import visible
from local_cloud.dynamodb import dynamodb_app
from local_cloud.proxy_event import Event

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

    from local_cloud.checks import EventLog
    from local_cloud.issuer import LocalIssuer


def http_server(
    listener: socket.socket,
    handler: Callable[[Event], object],
    screen: TextIO,
    issuer: "LocalIssuer | None" = None,
    events: "EventLog | None" = None,
) -> "BaseWSGIServer":
    """Return a server that calls the handler for each request and prints a line for it on the screen."""
    from werkzeug import Request, Response  # noqa: PLC0415
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    from local_cloud.gateway import SENT_HEADERS, respond  # noqa: PLC0415

    # On the same port, so that other commands need only `--local PORT`.
    engine = dynamodb_app()

    class RequestHandler(WSGIRequestHandler):
        def make_environ(self) -> dict[str, Any]:
            return super().make_environ() | {SENT_HEADERS: self.headers.items()}

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Do nothing: the application below prints a line."""

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        asked: Any = api
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith(("DynamoDB_", "AmazonSQS.", "AWSEvents.")):
            asked = engine
        elif issuer and environ.get("PATH_INFO", "").startswith(f"{ISSUER_PATH}/"):
            asked = issuer.respond(Request(environ))
        elif events and environ.get("PATH_INFO") == EVENTS_PATH:
            asked = Response(events.lines(), content_type="application/x-ndjson")
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
        say(screen, line)
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
def tables_at(bridge: str | None, port: int) -> Iterator[None]:
    """Serve the tables, and nothing else, at the address of Docker's bridge; do nothing if `bridge` is `None`."""
    if bridge is None:
        yield
        return
    from werkzeug.serving import make_server  # noqa: PLC0415  # slow

    with listening(bridge, port) as listener:
        server = make_server(bridge, port, dynamodb_app(), threaded=True, fd=listener.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def listening(address: str, port: int) -> Iterator[socket.socket]:
    """Listen on a port while the block runs.

    Raises:
        Failed: The port is taken or not permitted, or the address is not of this machine.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(128)
        except OSError as error:
            other = "BRIDGE= or --bridge" if error.errno == errno.EADDRNOTAVAIL else "PORT= or --port"
            raise Failed(f"port {port} on {address}: {error.strerror}; give another with {other}") from error
        yield listener


def say(screen: TextIO, text: str) -> None:
    """Print a line; ignore that the reader of the output has gone (`| head`)."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=screen, flush=True)
