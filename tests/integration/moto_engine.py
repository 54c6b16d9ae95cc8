"""moto in this process: DynamoDB, SQS and EventBridge for the integration tests."""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# moto checks a condition and writes in two steps; DynamoDB does both in one.
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def moto_engine(app: "WSGIApplication | None" = None) -> Iterator[str]:
    """Run moto, or an application around it, in threads of this process; yield its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # hide the access log
    server = make_server("127.0.0.1", 0, app or moto_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def moto_app() -> "WSGIApplication":
    """Return an application that answers from the process's one moto, one request at a time."""
    moto = DomainDispatcherApplication(create_backend_app)

    def serial(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with _one_at_a_time:
            answer: Iterable[bytes] = moto(environ, start_response)
            return answer

    return serial
