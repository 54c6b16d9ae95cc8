"""HTTP: API Gateway in front of a handler, and on the same port the tables, the events and the token issuer.

A request is refused if its `Host` is not a name of this machine: the owner of a web page can make a name resolve to
127.0.0.1 (DNS rebinding). Everything except the API is also refused to web pages, whatever their origin.
"""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import EVENTS_PATH, HOST, ISSUER_PATH
from batch_progress_cli.terminal import visible
from local_cloud import aws
from local_cloud.proxy_event import Event

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

    from local_cloud.checks import EventLog
    from local_cloud.issuer import LocalIssuer

# Containers know this machine by the last name, which exists in no public DNS.
_LOOPBACK_NAMES: Final = frozenset({HOST, "localhost", "host.docker.internal"})


def http_server(
    listener: socket.socket,
    handler: Callable[[Event], object],
    screen: TextIO,
    services: aws.Services | None = None,
    issuer: "LocalIssuer | None" = None,
    events: "EventLog | None" = None,
) -> "BaseWSGIServer":
    """Return a server that calls the handler for each request and prints a line for it on the screen."""
    from werkzeug import Request, Response  # noqa: PLC0415
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    from local_cloud.gateway import SENT_HEADERS, respond  # noqa: PLC0415

    class RequestHandler(WSGIRequestHandler):
        def make_environ(self) -> dict[str, Any]:
            return super().make_environ() | {SENT_HEADERS: self.headers.items()}

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Do nothing: the application below prints a line."""

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        # On the same port, so that other commands need only `--local PORT`.
        asked: Any = None
        if services and aws.TARGET in environ:
            asked = _tables(services)
        elif issuer and path.startswith(f"{ISSUER_PATH}/"):
            asked = issuer.respond(Request(environ))
        elif events and path == EVENTS_PATH:
            asked = Response(events.lines(), content_type="application/x-ndjson")
        answer: Iterable[bytes] = (_not_for_pages(asked) if asked else api)(environ, start_response)
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
        _known_by(_LOOPBACK_NAMES, application),
        threaded=True,
        request_handler=RequestHandler,
        fd=listener.fileno(),
    )


@contextlib.contextmanager
def serving(server: "BaseWSGIServer") -> Iterator[None]:
    """Answer requests in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="http")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def tables_at(bridge: str | None, port: int, services: aws.Services) -> Iterator[None]:
    """Serve the tables, and nothing else, at the address of Docker's bridge; do nothing if `bridge` is `None`."""
    if bridge is None:
        yield
        return
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415  # slow

    class Silent(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Do nothing."""

    names = frozenset({bridge, "host.docker.internal"})
    application = _known_by(names, _not_for_pages(_tables(services)))
    with listening(bridge, port) as listener:
        server = make_server(bridge, port, application, threaded=True, request_handler=Silent, fd=listener.fileno())
        with serving(server):
            yield


def _tables(services: aws.Services) -> "WSGIApplication":
    """Return an application that answers requests in AWS's protocol."""
    from werkzeug import Request  # noqa: PLC0415  # slow

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        target = environ.get(aws.TARGET)
        if target is None:
            return _refused(start_response, "404 Not Found", "Only the tables are here.")
        status, body = services.answer(target, Request(environ).get_data())
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", aws.headers(body))  # noqa: PLR2004  # HTTP's
        return [body]

    return application


def _known_by(names: frozenset[str], application: "WSGIApplication") -> "WSGIApplication":
    """Refuse requests to another host."""

    def checked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get("HTTP_HOST", "").partition(":")[0].lower() not in names:
            return _refused(start_response, "421 Misdirected Request", f"Ask for {' or '.join(sorted(names))}.")
        return application(environ, start_response)

    return checked


def _not_for_pages(application: "WSGIApplication") -> "WSGIApplication":
    """Refuse the requests of web pages, whichever they come from. A browser says so; no other client does."""

    def checked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", "none") != "none":
            return _refused(start_response, "403 Forbidden", "Web pages have no access.")
        return application(environ, start_response)

    return checked


def _refused(start_response: "StartResponse", status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


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
