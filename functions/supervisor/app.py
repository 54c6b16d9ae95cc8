"""The handler of the queue of checks: makes sure that every batch ends, and announces it."""

import time
from functools import cache
from typing import Any, Final

import msgspec
from aws_lambda_powertools import Logger

from batch_progress import dynamodb
from batch_progress.errors import ServiceUnavailable
from batch_progress.messages import ChecksQueue, EventBus
from batch_progress.settings import supervisor_settings
from batch_progress.supervision import Check
from batch_progress.supervisor import Done, Interrupted, Supervisor

# Time kept for the messages and the response after the last DynamoDB request.
_ANSWER_SECONDS: Final = 3.0
# A check leaves at least this much time for each of the others in the delivery.
_OTHERS_SECONDS: Final = 4.0

logger = Logger(service="batch-progress", serialize_stacktrace=False)


class Message(msgspec.Struct, frozen=True):
    """A message of the queue."""

    message_id: str = msgspec.field(name="messageId")
    body: str


@cache
def _supervisor() -> Supervisor:
    settings = supervisor_settings()
    queue, bus = ChecksQueue(settings.checks_queue_url), EventBus(settings.event_bus)
    return Supervisor(dynamodb.client(), settings.jobs_table, queue, bus)


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:  # noqa: ANN401  # Lambda's context
    """Do the checks of a delivery.

    Args:
        event: Messages of the queue of checks.
        context: Lambda's context.

    Returns:
        The messages whose checks failed. SQS delivers them again, and gives up after some times.
    """
    supervisor = _supervisor()
    ends = time.monotonic() + context.get_remaining_time_in_millis() / 1_000 - _ANSWER_SECONDS
    failures = []
    messages = [msgspec.convert(record, Message) for record in event["Records"]]
    for number, message in enumerate(messages, 1):
        until = ends - _OTHERS_SECONDS * (len(messages) - number)
        if not _is_done(supervisor, message.body, until):
            failures.append({"itemIdentifier": message.message_id})
    return {"batchItemFailures": failures}


def _is_done(supervisor: Supervisor, body: str, until: float) -> bool:
    """Do a check; return whether it succeeded."""
    try:
        check = msgspec.json.decode(body, type=Check)
    except (msgspec.DecodeError, RecursionError):
        # It is kept in the dead-letter queue as evidence.
        logger.exception("malformed check")
        return False
    began = time.perf_counter()
    try:
        with dynamodb.deadline(until):
            done = supervisor.check(check)
    except (ServiceUnavailable, Interrupted) as error:
        reason = f"{type(error).__name__}: {error.__cause__ or error}"
        logger.warning("check failed", extra={"batch_id": check.batch_id, "number": check.number, "cause": reason})
        return False
    except Exception:  # the other checks are still done
        logger.exception("check failed", extra={"batch_id": check.batch_id, "number": check.number})
        return False
    _log(check, done, round((time.perf_counter() - began) * 1_000, 2))
    return True


def _log(check: Check, done: Done, milliseconds: float) -> None:
    """Write the log line of a check."""
    logger.info(
        "check",
        extra={
            "batch_id": check.batch_id,
            "number": check.number,
            "outcome": done.outcome,
            "lost_jobs": done.lost,
            "event": done.announced,
            "jobs": done.jobs,
            "pages": done.stats.pages,
            "read_units": done.stats.read_units,
            "milliseconds": milliseconds,
        },
    )
