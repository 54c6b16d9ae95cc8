"""The handler of the table's stream: increases the revision of each batch whose jobs change.

Powertools' `BatchProcessor` is not used: it processes records one by one, while many records here need only one update,
and it reports a malformed record as failed, which would block the shard.
"""

import time
from collections import defaultdict
from functools import cache
from typing import Any, Final

import msgspec
from aws_lambda_powertools import Logger

from batch_progress import decode, dynamodb
from batch_progress.chains import Chains
from batch_progress.errors import ServiceUnavailable
from batch_progress.messages import ChecksQueue, Queue
from batch_progress.revision import NotCountable, Revisions
from batch_progress.settings import revision_settings
from batch_progress.table import BATCH_KEY, JOB_PREFIX

# Time kept for the response after the last DynamoDB request.
_ANSWER_SECONDS: Final = 0.5

logger = Logger(service="batch-progress", serialize_stacktrace=False)


class Keys(msgspec.Struct, frozen=True):
    """The key of the item that changed."""

    batch_id: decode.Text
    sk: decode.Text


class Change(msgspec.Struct, frozen=True):
    """A change; the stream carries keys only."""

    keys: Keys = msgspec.field(name="Keys")
    sequence_number: str = msgspec.field(name="SequenceNumber")


class StreamRecord(msgspec.Struct, frozen=True):
    """A record of the stream."""

    dynamodb: Change
    event_name: str = msgspec.field(name="eventName", default="")


@cache
def _client() -> dynamodb.Client:
    return dynamodb.client()


@cache
def _revisions() -> Revisions:
    return Revisions(_client(), revision_settings().jobs_table)


@cache
def _queue() -> Queue:
    return ChecksQueue(revision_settings().checks_queue_url)


@cache
def _chains() -> Chains:
    return Chains(_client(), revision_settings().jobs_table, _queue())


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:  # noqa: ANN401  # Lambda's context
    """Add to the revision of each batch the number of its jobs that have changed.

    Args:
        event: Records of one shard of the table's stream, in order.
        context: Lambda's context.

    Returns:
        The last record of each batch that could not be counted. Lambda delivers again from the earliest of them: that
        includes each such batch, and repeats as few other records as possible.
    """
    revisions, chains = _revisions(), _chains()
    seconds = context.get_remaining_time_in_millis() / 1_000
    failures = []
    with dynamodb.deadline(time.monotonic() + seconds - _ANSWER_SECONDS):
        for batch_id, changes in _changed(event["Records"]).items():
            sequence_number = changes.last
            try:
                found = revisions.count(batch_id, len(changes.jobs))
                if found is not None:
                    chains.changed(found, time.time())
            except NotCountable:
                # A retry would fail too and block the shard. Clients still see the change within a minute.
                logger.exception("batch is not countable", extra={"batch_id": batch_id})
            except ServiceUnavailable as error:
                logger.warning("batch is not counted yet", extra={"batch_id": batch_id, "cause": str(error.__cause__)})
                failures.append({"itemIdentifier": sequence_number})
            except Exception:  # the other batches are still counted
                logger.exception("batch is not counted", extra={"batch_id": batch_id})
                failures.append({"itemIdentifier": sequence_number})
    return {"batchItemFailures": failures}


class _Changes:
    """The changes of one batch in a delivery.

    Attributes:
        jobs: The sort keys of the jobs that have changed.
        last: The sequence number of the last change.
    """

    def __init__(self) -> None:
        self.jobs: set[str] = set()
        self.last = ""


def _changed(records: list[object]) -> dict[str, _Changes]:
    """Return the changes of jobs in a delivery by batch. A new batch is in it too, without a job."""
    changed: dict[str, _Changes] = defaultdict(_Changes)
    for record in records:
        try:
            converted = msgspec.convert(record, StreamRecord)
        except msgspec.ValidationError as error:
            logger.warning("malformed record", extra={"reason": str(error)})
            continue
        change, sort_key = converted.dynamodb, converted.dynamodb.keys.sk.S
        # The event source filters too. Without a filter, the functions' own updates of `BATCH` items would trigger it.
        is_job = sort_key.startswith(JOB_PREFIX)
        if is_job or (sort_key == BATCH_KEY and converted.event_name == "INSERT"):
            changes = changed[change.keys.batch_id.S]
            changes.last = change.sequence_number
            if is_job:
                changes.jobs.add(sort_key)
    return changed
