"""The function behind the table's stream: a change of a job increases its batch's revision.

Plain Python rather than Powertools' `BatchProcessor`, which calls back once for each record, where here many records
are one update. It also fails a record that it cannot read, which would block the shard.
"""

import os
import time
from functools import cache
from typing import Any, Final

import msgspec
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from batch_progress import decode, dynamodb
from batch_progress.errors import ServiceUnavailable
from batch_progress.revision import NotCountable, Revisions
from batch_progress.settings import revision_settings
from batch_progress.table import JOB_PREFIX

# Time to keep for the answer once DynamoDB has been called.
_ANSWER_SECONDS: Final = 0.5

logger = Logger(service="batch-progress", serialize_stacktrace=False)
metrics = Metrics(namespace="BatchProgress", service="revision")


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


@cache
def _revisions() -> Revisions:
    return Revisions(dynamodb.client(), revision_settings().jobs_table)


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:  # noqa: ANN401  # Lambda's context
    """Add 1 to the revision of each batch with changed jobs, once for a delivery.

    Args:
        event: Records of one shard of the table's stream, in its order.
        context: Lambda's context.

    Returns:
        The last record of each batch that could not be counted. Lambda delivers again from the lowest of them on, which
        includes each such batch and repeats as little as possible of the others.
    """
    revisions = _revisions()
    seconds = context.get_remaining_time_in_millis() / 1_000
    counted, failures = 0, []
    with dynamodb.deadline(time.monotonic() + seconds - _ANSWER_SECONDS):
        for batch_id, sequence_number in _changed(event["Records"]).items():
            try:
                counted += revisions.count(batch_id)
            except NotCountable:
                # A retry would fail too and block the shard. Without it, a client's tag is at most a minute stale.
                logger.exception("batch is not countable", extra={"batch_id": batch_id})
            except ServiceUnavailable as error:
                logger.warning("batch is not counted yet", extra={"batch_id": batch_id, "cause": str(error.__cause__)})
                failures.append({"itemIdentifier": sequence_number})
            except Exception:  # the other batches are counted all the same
                logger.exception("batch is not counted", extra={"batch_id": batch_id})
                failures.append({"itemIdentifier": sequence_number})
    # Keeps the metrics of two stacks in one account apart.
    metrics.add_dimension("function_name", os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"))
    metrics.add_metric("Revisions", MetricUnit.Count, counted)
    metrics.add_metric("RevisionFailures", MetricUnit.Count, len(failures))
    metrics.flush_metrics()
    return {"batchItemFailures": failures}


def _changed(records: list[object]) -> dict[str, str]:
    """Return the sequence number of the last record of a job by batch."""
    changed: dict[str, str] = {}
    for record in records:
        try:
            change = msgspec.convert(record, StreamRecord).dynamodb
        except msgspec.ValidationError as error:
            logger.warning("malformed record", extra={"reason": str(error)})
            continue
        # The event source filters too. Without any filter the function would be triggered by its own updates.
        if change.keys.sk.S.startswith(JOB_PREFIX):
            changed[change.keys.batch_id.S] = change.sequence_number
    return changed
