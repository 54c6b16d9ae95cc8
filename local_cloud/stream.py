"""The jobs table's stream, delivered to the function behind it as Lambda's event source mapping delivers it."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import batched
from typing import Any

from batch_progress.table import BATCH_KEY, JOB_PREFIX
from local_cloud.background import in_background
from local_cloud.template import StreamMapping

type Record = dict[str, Any]
type Function = Callable[[dict[str, Any]], Any]
type Source = Callable[[], list[Record]]

logger = logging.getLogger(__name__)


class Stream:
    """A thread that delivers what a source returns."""

    def __init__(self, source: Source, function: Function, mapping: StreamMapping) -> None:
        """Take the source of records, the function behind the stream, and the template's mapping between them."""
        self._source = source
        self._function = function
        self._mapping = mapping
        self._stop = threading.Event()

    def delivered(self) -> AbstractContextManager[None]:
        """Deliver changes while the block runs."""
        return in_background(self.run, self._stop, "stream")

    def run(self) -> None:
        """Deliver the changes of each window until stopped."""
        while not self._stop.wait(self._mapping.window_seconds):
            deliver(self._source(), self._function, self._mapping)


def deliver(records: list[Record], function: Function, mapping: StreamMapping) -> None:
    """Deliver the records that pass the template's filter; deliver again those that the function reports as failed."""
    for batch in batched(filter(_passes, records), mapping.batch_size, strict=False):
        left = list(batch)
        for _ in range(1 + mapping.retries):
            try:
                left = failed_from(left, function({"Records": left}))
            except Exception:
                logger.exception("The stream's function failed")
            if not left:
                break
        else:
            # As in the cloud, tags of these batches hold for up to a minute longer.
            logger.error("%d changes were not counted", len(left))


def _passes(record: Record) -> bool:
    """Return whether a record is of a job, or of a new batch."""
    sort_key = record["dynamodb"]["Keys"]["sk"]["S"]
    return sort_key.startswith(JOB_PREFIX) or (sort_key == BATCH_KEY and record.get("eventName") == "INSERT")


def failed_from(records: list[Record], answer: dict[str, Any]) -> list[Record]:
    """Return the records that Lambda delivers again: the first one that failed, and all after it."""
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    return records[min(map(numbers.index, failed)) :] if failed else []


def remote(streams: Any, arn: str) -> Source:  # noqa: ANN401  # botocore ships no types
    """Return a stream that is read over the API, from now on.

    Args:
        streams: A client of DynamoDB Streams.
        arn: The stream.
    """
    iterators: dict[str, str | None] = {}
    # A shard that opens later is read from its beginning.
    kinds = iter(["LATEST"])

    def take() -> list[Record]:
        kind = next(kinds, "TRIM_HORIZON")
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            name = shard["ShardId"]
            if name not in iterators:
                found = streams.get_shard_iterator(StreamArn=arn, ShardId=name, ShardIteratorType=kind)
                iterators[name] = found["ShardIterator"]
        taken: list[Record] = []
        for name, iterator in iterators.items():
            if iterator is not None:
                page = streams.get_records(ShardIterator=iterator)
                iterators[name] = page.get("NextShardIterator")
                taken += page["Records"]
        return taken

    return take
