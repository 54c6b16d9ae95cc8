"""The function behind the table's stream: a job that changes makes its batch's revision go up.

Plain Python rather than Powertools' `BatchProcessor`: that calls back once for each record, where here many
records are one update, and it takes a record that it cannot read for a failure, which would hold up the shard.
"""

import os
import time
from functools import cache
from typing import Any, Final

import msgspec
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from batch_progress import wire
from batch_progress.errors import ServiceUnavailable
from batch_progress.revision import NotCountable, Revisions
from batch_progress.settings import revision_settings
from batch_progress.store import JOB_PREFIX

# What is left of the function's time for the last attempt at DynamoDB and for the answer.
_RESERVE_SECONDS: Final = wire.LAST_ATTEMPT_SECONDS + 0.5

logger = Logger(service="batch-progress")
metrics = Metrics(namespace="BatchProgress", service="revision")


class Keys(msgspec.Struct, frozen=True):
    """The key of the item that changed."""

    batch_id: wire.Text
    sk: wire.Text


class Change(msgspec.Struct, frozen=True):
    """What the stream says of a change; the view is of keys only."""

    keys: Keys = msgspec.field(name="Keys")
    sequence_number: str = msgspec.field(name="SequenceNumber")


class StreamRecord(msgspec.Struct, frozen=True):
    """A record of the stream."""

    dynamodb: Change


@cache
def _revisions() -> Revisions:
    return Revisions(wire.dynamodb(), revision_settings().jobs_table)


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:  # noqa: ANN401  # Lambda's context
    """Add 1 to the revision of each batch that has a job among the changes, once however many there are.

    Args:
        event: Records of one shard of the table's stream, in its order.
        context: Lambda's context.

    Returns:
        The last record of each batch that could not be counted. Lambda delivers again from the lowest of them on,
        so that each such batch comes again, and as little as can be of what is done.
    """
    revisions = _revisions()
    seconds = context.get_remaining_time_in_millis() / 1_000
    counted, failures = 0, []
    with wire.deadline(time.monotonic() + seconds - _RESERVE_SECONDS):
        for batch_id, sequence_number in _changed(event["Records"]).items():
            try:
                counted += revisions.count(batch_id)
            except NotCountable:
                # Trying again would hold up the shard for nothing; without a count a client is a minute late.
                logger.exception("batch is not countable", extra={"batch_id": batch_id})
            except ServiceUnavailable:
                logger.warning("batch is not counted yet", extra={"batch_id": batch_id})
                failures.append({"itemIdentifier": sequence_number})
            except Exception:  # the other batches are counted whatever befalls this one
                logger.exception("batch is not counted", extra={"batch_id": batch_id})
                failures.append({"itemIdentifier": sequence_number})
    # So that one stack's numbers are not another's in the same account.
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
        # The filter lets jobs alone through. Were it lost, the function would wake itself by each of its own updates.
        if change.keys.sk.S.startswith(JOB_PREFIX):
            changed[change.keys.batch_id.S] = change.sequence_number
    return changed
