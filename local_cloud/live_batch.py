"""A batch that simulated workers process again and again, so that a first look shows progress."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from batch_progress import table
from batch_progress.errors import BatchProgressError
from batch_progress.recorder import BatchRecorder
from batch_progress.table import BATCH_KEY, timestamp
from batch_progress_cli.simulation import Crew, Workload, create, plan
from local_cloud.seed import LIVE_BATCH, OWNER

WORKLOAD = Workload(jobs=40, workers=4, median=2.5, spread=0.45, timeout=8, failures=0.05)
# Long enough to see the end of a round, short enough that a visitor rarely finds a finished batch.
PAUSE_SECONDS = 6.0

logger = logging.getLogger(__name__)


class LiveBatch:
    """The batch and its workers."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401  # boto has no types
        table: str,
        workload: Workload = WORKLOAD,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._client = client
        self._table = table
        self._workload = workload
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._crew = Crew(BatchRecorder(table, client), LIVE_BATCH, self._stop)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Process the batch while the block runs."""
        thread = threading.Thread(target=self._run, name=LIVE_BATCH, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        first = plan(self._workload, seed=0)
        job_ids = create(self._crew.recorder, LIVE_BATCH, OWNER, self._workload, first)
        fresh = self._items()
        for number in count():
            try:
                self._put(fresh)
                tasks = plan(self._workload, seed=number)
                self._crew.work(dict(zip(job_ids, tasks, strict=True)), self._workload.workers)
            except (BatchProgressError, BotoCoreError, ClientError):
                # The user may change the tables by hand. Start the next round anyway.
                logger.exception("The round of the live batch failed")
            if self._stop.wait(self._pause_seconds):
                return

    def _items(self) -> list[dict[str, Any]]:
        """Return the items of the batch; they fit into one page."""
        condition, values = "batch_id = :batch_id", {":batch_id": {"S": LIVE_BATCH}}
        answer = self._client.query(
            TableName=self._table, KeyConditionExpression=condition, ExpressionAttributeValues=values
        )
        return list(answer["Items"])

    def _put(self, fresh: list[dict[str, Any]]) -> None:
        """Reset every item in one transaction, so that no reader sees a part of it.

        The `BATCH` item gets a new `created_at`, so that no ETag of the previous round matches. What the functions keep
        on it stays: their checks go on, and no event has the id of an earlier one.
        """
        key = table.batch_key(LIVE_BATCH)
        current = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item", {})
        kept = {name: current[name] for name in ("revision", *table.SUPERVISOR_ATTRIBUTES) if name in current}
        now = table.item(created_at=timestamp(datetime.now(UTC)))
        items = [item | kept | now if item["sk"]["S"] == BATCH_KEY else item for item in fresh]
        self._client.transact_write_items(
            TransactItems=[{"Put": {"TableName": self._table, "Item": item}} for item in items]
        )
