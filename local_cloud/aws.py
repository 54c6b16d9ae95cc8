"""AWS's protocol over HTTP: DynamoDB, and of SQS and EventBridge the one operation that the functions call."""

import hashlib
import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import msgspec

from batch_progress_cli.local_server import JOBS_TABLE, REGION, TOKENS_TABLE
from local_cloud.checks import CHECKS, EventBus, Queue, queue_url
from local_cloud.dynamodb import DynamoDB, Refused

type Arguments = dict[str, Any]

# The header that names the operation, as WSGI spells it.
TARGET: Final = "HTTP_X_AMZ_TARGET"

_object: Final = msgspec.json.Decoder(dict[str, Any])
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """The services, and the operations on them.

    Attributes:
        tables: DynamoDB.
        checks: The queue.
        bus: The bus of events.
    """

    tables: DynamoDB
    checks: Queue
    bus: EventBus

    def answer(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request: return the status and the body.

        Args:
            target: The header `X-Amz-Target`, such as `DynamoDB_20120810.GetItem`.
            body: The arguments, as JSON.
        """
        try:
            arguments = _object.decode(body)
            return 200, self._operation(target)(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, "SerializationException", str(error))
        except Refused as refused:
            return _error(400, refused.code, refused.message, **refused.details)
        except Exception:
            logger.exception("%s failed", target[:100])
            return _error(500, "InternalServerError", "The local server failed. Its log has the reason.")

    def _operation(self, target: str) -> Callable[[Arguments], bytes]:
        match target.partition("."):
            case ("DynamoDB_20120810", _, name):
                return lambda arguments: self.tables.respond(name, arguments)
            case ("AmazonSQS", _, "SendMessage"):
                return self._send_message
            case ("AWSEvents", _, "PutEvents"):
                return self._put_events
        raise Refused("UnknownOperationException", "The local server has DynamoDB, SQS's SendMessage and PutEvents")

    def _send_message(self, arguments: Arguments) -> bytes:
        if not str(arguments.get("QueueUrl", "")).endswith(f"/{CHECKS}"):
            raise Refused("QueueDoesNotExist", f"The local server has one queue: {CHECKS}")
        body = str(arguments["MessageBody"])
        message_id = self.checks.send(body, arguments.get("DelaySeconds", 0))
        # boto compares the digest.
        digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
        return msgspec.json.encode({"MessageId": message_id, "MD5OfMessageBody": digest})

    def _put_events(self, arguments: Arguments) -> bytes:
        ids = [self.bus.put(entry, _object.decode(entry["Detail"])) for entry in arguments["Entries"]]
        return msgspec.json.encode({"FailedEntryCount": 0, "Entries": [{"EventId": event_id} for event_id in ids]})


def _error(status: int, code: str, message: str, **details: Any) -> tuple[int, bytes]:  # noqa: ANN401  # DynamoDB's JSON
    return status, msgspec.json.encode({"__type": code, "message": message, **details})


def headers(body: bytes) -> list[tuple[str, str]]:
    """Return the headers of an answer."""
    return [
        ("Content-Type", "application/x-amz-json-1.0"),
        ("Content-Length", str(len(body))),
        ("x-amz-crc32", str(zlib.crc32(body))),
        ("x-amzn-RequestId", str(uuid4())),
    ]


def use_only(address: str) -> None:
    """Point every AWS client in this process at the local server, and remove the user's own AWS and proxy settings."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_DYNAMODB": address,
        "AWS_ENDPOINT_URL_SQS": address,
        "AWS_ENDPOINT_URL_EVENTBRIDGE": address,
        "BATCH_PROGRESS_JOBS_TABLE": JOBS_TABLE,
        "BATCH_PROGRESS_TOKENS_TABLE": TOKENS_TABLE,
        "BATCH_PROGRESS_CHECKS_QUEUE_URL": queue_url(address),
        "BATCH_PROGRESS_EVENT_BUS": "default",
    }
