"""The embedded DynamoDB: moto in this process, with the template's tables and the example batches."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batch_progress_cli.local_server import HOST, JOBS_TABLE, REGION, TOKENS_TABLE
from local_cloud import seed
from local_cloud.checks import CHECKS, create_queues, queue_url

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@contextlib.contextmanager
def embedded_dynamodb() -> Iterator[str]:
    """Run the engine with the template's tables and the example; yield its address."""
    with dynamodb_engine() as endpoint:
        use_only(endpoint)
        _fill()
        yield endpoint


@contextlib.contextmanager
def dynamodb_engine(app: "WSGIApplication | None" = None) -> Iterator[str]:
    """Run moto's DynamoDB, or an application around it, in threads of this process; yield its address."""
    from werkzeug.serving import make_server  # noqa: PLC0415  # slow

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # hide the access log
    server = make_server(HOST, 0, app or dynamodb_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_only(endpoint: str) -> None:
    """Point every AWS client in this process at a local engine, and remove the user's own AWS and proxy settings."""
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
        "AWS_ENDPOINT_URL_SQS": endpoint,
        "AWS_ENDPOINT_URL_EVENTBRIDGE": endpoint,
        "BATCH_PROGRESS_JOBS_TABLE": JOBS_TABLE,
        "BATCH_PROGRESS_TOKENS_TABLE": TOKENS_TABLE,
        "BATCH_PROGRESS_CHECKS_QUEUE_URL": queue_url(endpoint, CHECKS),
        "BATCH_PROGRESS_EVENT_BUS": "default",
    }


def _fill() -> None:
    import botocore.session  # noqa: PLC0415  # slow

    from local_cloud.template import tables  # noqa: PLC0415  # reads YAML

    client = botocore.session.Session().create_client("dynamodb")
    for table in tables():
        client.create_table(**table)
    create_queues()
    seed.seed(client, JOBS_TABLE, TOKENS_TABLE, datetime.now(UTC))


# moto checks a condition and writes in two steps; DynamoDB does both in one.
_one_at_a_time = threading.Lock()


def dynamodb_app() -> "WSGIApplication":
    """Return an application that answers from the process's one DynamoDB, one request at a time."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415  # slow
        DomainDispatcherApplication,
        create_backend_app,
    )

    moto = DomainDispatcherApplication(create_backend_app)

    def serial(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with _one_at_a_time:
            answer: Iterable[bytes] = moto(environ, start_response)
            return answer

    return serial
