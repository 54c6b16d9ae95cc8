"""The API as the command sees it: a connection, and jobs with their times as the API writes them."""

import contextlib
from collections.abc import Iterator

import msgspec

from batch_progress.client.connection import Bearer, Connection
from batch_progress.client.errors import ProgressError
from batch_progress.client.protocol import batch_path
from batch_progress_cli.failure import Failed
from batch_progress_cli.terminal import visible


class Job(msgspec.Struct, frozen=True):
    """A listed job. Its texts are untrusted: pass them through `visible` before printing."""

    job_id: str
    url: str
    started_at: str | None = None
    finished_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None


@contextlib.contextmanager
def connected(url: str, batch_id: str, token: str) -> Iterator[Connection]:
    """Connect to the API while the block runs; nothing is sent yet.

    Raises:
        Failed: The token, the batch id or the address is not valid.
    """
    if not token:
        raise Failed("no token; give --token or set FREDDY_API_KEY")
    try:
        batch_path(batch_id)  # before a view draws anything
        connection = Connection(url, Bearer(token))
    except ProgressError as error:
        raise Failed(visible(str(error), 400)) from error
    with contextlib.closing(connection):
        yield connection
