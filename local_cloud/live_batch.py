"""A batch that simulated workers process again and again, so that a first look shows progress."""

import logging
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from batch_progress import table
from batch_progress.errors import BatchProgressError
from batch_progress.recorder import BatchRecorder
from batch_progress.table import BATCH_KEY, timestamp
from batch_progress_cli.simulation import Crew, Workload, create, plan
from local_cloud.background import in_background
from local_cloud.seed import LIVE_BATCH, OWNER

WORKLOAD = Workload(jobs=40, workers=4, median=2.5, spread=0.45, timeout=8, failures=0.05, lost_after=15)
# Long enough to see the end of a round, short enough that a visitor rarely finds a finished batch.
PAUSE_SECONDS = 6.0
# In every third round a worker is killed. The queue delivers its message again after this many seconds; by then the
# job has failed as lost.
KILLED_EVERY = 3
REDELIVERED_AFTER_SECONDS = 25.0

logger = logging.getLogger(__name__)


class LiveBatch:
    """The batch and its workers."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401  # boto has no types
        table: str,
        workload: Workload = WORKLOAD,
        pause_seconds: float = PAUSE_SECONDS,
        redelivered_after_seconds: float = REDELIVERED_AFTER_SECONDS,
    ) -> None:
        self._client = client
        self._table = table
        self._workload = workload
        self._pause_seconds = pause_seconds
        self._redelivered_after_seconds = redelivered_after_seconds
        self._stop = threading.Event()
        self._crew = Crew(BatchRecorder(table, client), LIVE_BATCH, self._stop)

    def at_work(self) -> AbstractContextManager[None]:
        """Process the batch while the block runs."""
        return in_background(self._run, self._stop, LIVE_BATCH)

    def _run(self) -> None:
        first = plan(self._workload, seed=0)
        job_ids = create(self._crew.recorder, LIVE_BATCH, OWNER, self._workload, first)
        fresh = self._items()
        for number in count():
            try:
                self._put(fresh)
                self._round(job_ids, number)
            except (BatchProgressError, BotoCoreError, ClientError):
                # The user may change the tables by hand. Start the next round anyway.
                logger.exception("The round of the live batch failed")
            if self._stop.wait(self._pause_seconds):
                return

    def _round(self, job_ids: list[str], number: int) -> None:
        """Process all jobs, and those of a killed worker once more."""
        killed = int(number % KILLED_EVERY == KILLED_EVERY - 1)
        tasks = plan(replace(self._workload, killed=killed), seed=number)
        jobs = dict(zip(job_ids, tasks, strict=True))
        self._crew.work(jobs, self._workload.workers)
        lost = {job_id: replace(task, killed=False) for job_id, task in jobs.items() if task.killed}
        if lost and not self._stop.wait(self._redelivered_after_seconds):
            self._crew.work(lost, self._workload.workers)

    def _items(self) -> list[dict[str, Any]]:
        """Return the items of the batch; they fit into one page."""
        condition, values = "batch_id = :batch_id", {":batch_id": {"S": LIVE_BATCH}}
        answer = self._client.query(
            TableName=self._table, KeyConditionExpression=condition, ExpressionAttributeValues=values
        )
        return list(answer["Items"])

    def _put(self, fresh: list[dict[str, Any]]) -> None:
        """Reset every item in one transaction, so that no reader sees a part of it.

        The `BATCH` item gets a new `created_at`, so that no ETag of the previous round matches. It keeps what the
        functions have noted, so that its revision grows and no two rounds have an event of one id.
        """
        puts = [{"Put": {"TableName": self._table, "Item": item}} for item in fresh if item["sk"]["S"] != BATCH_KEY]
        batch = next(item for item in fresh if item["sk"]["S"] == BATCH_KEY)
        own = {*table.BATCH_ATTRIBUTES, *table.RECORDER_ATTRIBUTES}
        values = {name: value for name, value in batch.items() if name in own}
        values |= table.item(created_at=timestamp(datetime.now(UTC)))
        update = {
            "TableName": self._table,
            "Key": table.batch_key(LIVE_BATCH),
            "UpdateExpression": "SET " + ", ".join(f"{name} = :{name}" for name in values) + " REMOVE cancelled_at",
            "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
        }
        self._client.transact_write_items(TransactItems=[{"Update": update}, *puts])
