"""The embedded DynamoDB: moto's, in this process, with the tables of the template and the example's items."""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batch_progress_cli.local_server import HOST, JOBS_TABLE, REGION, TOKENS_TABLE
from local_cloud import seed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


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

    from local_cloud.template import tables  # noqa: PLC0415  # reads YAML

    client = botocore.session.Session().create_client("dynamodb")
    for table in tables():
        client.create_table(**table)
    seed.seed(client, JOBS_TABLE, TOKENS_TABLE, datetime.now(UTC))


def dynamodb_app() -> "WSGIApplication":
    """Return the embedded DynamoDB once more."""
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415  # slow
        DomainDispatcherApplication,
        create_backend_app,
    )

    return DomainDispatcherApplication(create_backend_app)
