"""The revision function behind the stream of a local engine, in a process of its own.

`python -m tests.hostile.stream` runs until terminated, in an environment like a function's.
"""

import os

import botocore.session

from local_cloud.lambda_context import LambdaContext
from local_cloud.stream import Stream, remote
from local_cloud.template import stream_mapping, timeout_seconds
from tests.integration.supervision import Unheard


def main() -> None:
    """Deliver the changes from now on."""
    from functions.revision import app  # noqa: PLC0415  # reads its settings from this process's environment

    # No engine here has a queue.
    app._queue = Unheard  # type: ignore[assignment]
    endpoint = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    session = botocore.session.Session()
    streams = session.create_client("dynamodbstreams", endpoint_url=endpoint)
    table = session.create_client("dynamodb").describe_table(TableName=os.environ["BATCH_PROGRESS_JOBS_TABLE"])
    seconds = timeout_seconds("RevisionFunction")
    source = remote(streams, table["Table"]["LatestStreamArn"])
    Stream(source, lambda event: app.handler(event, LambdaContext(seconds)), stream_mapping()).run()


if __name__ == "__main__":
    main()
