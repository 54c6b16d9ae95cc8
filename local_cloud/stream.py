"""The embedded table's stream, delivered as Lambda's event source delivers it.

Taken from the engine's memory: over HTTP the engine would keep every record and every question for ever, and asking
would cost more than all the rest.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends

# As the template has it: many changes within a second are one.
_WINDOW_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Stream:
    """The stream of a table of the engine in this process."""

    def __init__(self, table: str, region: str, function: Callable[[dict[str, object]], object]) -> None:
        """Take the table and the function behind its stream."""
        self._tables = dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables
        self._table = table
        self._function = function
        self._stop = threading.Event()

    @contextmanager
    def delivered(self) -> Iterator[None]:
        """Deliver what changes while the block runs."""
        thread = threading.Thread(target=self._run, name="stream", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_WINDOW_SECONDS):
            # The template filters the same: the function must not be woken by its own write.
            jobs = [record for record in self._take() if record["dynamodb"]["Keys"]["sk"]["S"].startswith("JOB#")]
            try:
                if jobs:
                    self._function({"Records": jobs})
            except Exception:
                # Without it a client that sends a tag is up to a minute late, as in the cloud.
                logger.exception("The stream's function failed")

    def _take(self) -> list[dict[str, Any]]:
        """Take the records out, so that they don't heap up; what comes meanwhile stays for the next time."""
        shard = self._tables[self._table].stream_shard
        records = shard.items if shard else []
        taken = records[:]
        del records[: len(taken)]
        return [record.to_json() for record in taken]
