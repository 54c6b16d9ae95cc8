"""DynamoDB's answers, decoded straight from the wire.

botocore's own parser walks over every attribute of every item in Python, which is most of the cost of a large
read. A session takes another parser through a public extension point; this one decodes successful answers to
`Query` and `GetItem` with msgspec and leaves every error and every other operation to the stock parser, so that
retries and typed errors stay botocore's. It is stricter in one thing: an answer that is cut, is no JSON or does not
match its checksum is retried and never taken for good, where the stock client takes the first for an empty one and
the last as it is once its retries are used up (docs/decisions/0004-wire.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

import botocore.session
import msgspec
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as Unreachable
from botocore.parsers import PROTOCOL_PARSERS, JSONParser, ResponseParserFactory
from isal.isal_zlib import crc32
from urllib3.exceptions import HTTPError

from batch_progress import decode
from batch_progress.errors import ServiceUnavailable

# One attempt; `Deadline` bounds them all together.
CONNECT_TIMEOUT_SECONDS: Final = 1
READ_TIMEOUT_SECONDS: Final = 2
ATTEMPTS: Final = 3
# A last attempt may begin just before the deadline and take this long.
LAST_ATTEMPT_SECONDS: Final = CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS

# What the next query decodes to; set by `query`, read by the parser that botocore calls inside it.
_detailed: ContextVar[bool] = ContextVar("detailed", default=False)
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class WireParser(JSONParser):  # type: ignore[misc]  # botocore ships no types
    """The stock parser, but for successful answers to `Query` and `GetItem`."""

    def parse(self, response: dict[str, Any], shape: Any) -> dict[str, Any]:  # noqa: ANN401  # botocore's signature
        """Parse a response; one of ours comes as `{"Answer": …}`, a damaged one as an error that is retried."""
        metadata = {"HTTPStatusCode": response["status_code"], "HTTPHeaders": response["headers"]}
        if not _intact(response):
            return {"Error": _DAMAGED, "ResponseMetadata": metadata}
        name = shape.name if shape is not None and response["status_code"] < 300 else None  # noqa: PLR2004  # HTTP's successes
        if name not in ("QueryOutput", "GetItemOutput"):
            parsed: dict[str, Any] = super().parse(response, shape)
            return parsed
        try:
            if name == "QueryOutput":
                answer: object = decode.query_page(response["body"], detailed=_detailed.get())
            else:
                answer = decode.get_result(response["body"])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {"Error": _DAMAGED, "ResponseMetadata": metadata}
        return {"Answer": answer, "ResponseMetadata": metadata}


# The code is one that every retry mode of botocore takes for a passing fault.
_DAMAGED: Final = {"Code": "RequestTimeout", "Message": "Damaged answer"}


def _intact(response: dict[str, Any]) -> bool:
    """Tell whether a body is as it was sent: by its checksum, or by its letters where an engine sends none."""
    body, expected = response["body"], response["headers"].get("x-amz-crc32")
    if expected is not None:
        return bool(expected == str(crc32(body)))
    try:
        # msgspec passes over names that it does not know without looking at their letters.
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


class WireParserFactory(ResponseParserFactory):  # type: ignore[misc]  # botocore ships no types
    """Hands botocore the parser above for the protocol that DynamoDB speaks."""

    def create_parser(self, protocol_name: str) -> Any:  # noqa: ANN401  # botocore's signature
        """Return a parser for `protocol_name`."""
        parser = WireParser if protocol_name == "json" else PROTOCOL_PARSERS[protocol_name]
        return parser(**self._defaults)


class DeadlinePassed(Exception):
    """There is no time left for another attempt."""


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Let no attempt begin after `at`, in seconds of `time.monotonic`, or end `LAST_ATTEMPT_SECONDS` later."""
    token = _deadline.set(at)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Return how long it is until the deadline after which no attempt begins; without one, for ever."""
    at = _deadline.get()
    return inf if at is None else at - monotonic()


def client() -> Any:  # noqa: ANN401  # botocore ships no types
    """Make a DynamoDB client that decodes as this module says."""
    session = botocore.session.Session()
    session.register_component("response_parser_factory", WireParserFactory())
    client = session.create_client(
        "dynamodb",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            # A tenth of a small answer each: the arguments are this package's own, and DynamoDB checks them too; the
            # usual name of the client is put together anew for each request.
            parameter_validation=False,
            user_agent="batch-progress",
            account_id_endpoint_mode="disabled",
        ),
    )
    session = client._endpoint.http_session  # noqa: SLF001  # botocore hands it out nowhere else
    client.meta.events.register("before-send.dynamodb", partial(_send, session))
    client.meta.events.register_first("needs-retry.dynamodb", _give_up)
    return client


# How much of a body is taken at once.
_CHUNK_BYTES: Final = 2**18


def _send(session: Any, request: Any, **_: object) -> AWSResponse | None:  # noqa: ANN401  # botocore ships no types
    """Send a request within the deadline, its body read as it comes.

    botocore's timeout is for each piece of a body, so that one which trickles in is read without end.
    """
    at = _deadline.get()
    if at is None:
        return None
    if monotonic() >= at:
        raise DeadlinePassed
    request.stream_output = True
    response = session.send(request)
    # No piece is waited for longer than that.
    body = _Body(response.raw, at + LAST_ATTEMPT_SECONDS - READ_TIMEOUT_SECONDS)
    whole = AWSResponse(response.url, response.status_code, response.headers, body)
    # Read here, where botocore retries what fails.
    _ = whole.content
    return whole


class _Body:
    """A body that is read until some time and no longer."""

    def __init__(self, raw: Any, until: float) -> None:  # noqa: ANN401  # urllib3's, as botocore hands it out
        self._raw = raw
        self._until = until

    def stream(self) -> Iterator[bytes]:
        """Yield what comes, piece by piece."""
        try:
            while piece := self._raw.read1(_CHUNK_BYTES):
                yield piece
                if monotonic() >= self._until:
                    self._raw.close()
                    raise DeadlinePassed
        except HTTPError as error:
            raise HTTPClientError(error=error) from error


def _give_up(response: tuple[AWSResponse, dict[str, Any]] | None, **_: object) -> bool | None:
    """Keep botocore from waiting for an attempt that the deadline would not let begin."""
    at = _deadline.get()
    if at is None:
        return None
    if response is not None:
        # It would wait as long as this says, up to 5 seconds.
        response[0].headers.pop("x-amz-retry-after", None)
    return False if monotonic() >= at else None


def query(client: Any, *, detailed: bool = False, **arguments: Any) -> decode.QueryPage[Any]:  # noqa: ANN401  # botocore's arguments
    """Read one page.

    Args:
        client: From `dynamodb`.
        detailed: Whether items come as `DetailedItem`.
        arguments: Those of the client's `query`.

    Raises:
        ServiceUnavailable: DynamoDB gave no whole answer in time, after the retries.
        botocore.exceptions.ClientError: It refused, and would again.
    """
    token = _detailed.set(detailed)
    try:
        answer: decode.QueryPage[Any] = _answer(client.query, arguments)
    finally:
        _detailed.reset(token)
    return answer


def get_item(client: Any, **arguments: Any) -> decode.GetResult:  # noqa: ANN401  # botocore's arguments
    """Read one item; raises as `query` does."""
    answer: decode.GetResult = _answer(client.get_item, arguments)
    return answer


def update_item(client: Any, **arguments: Any) -> None:  # noqa: ANN401  # botocore's arguments
    """Change one item; raises as `query` does."""
    call(client.update_item, arguments)


# What DynamoDB says when it will do better later.
_PASSING: Final = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TransactionInProgressException",
    },
)


def _answer(operation: Any, arguments: dict[str, Any]) -> Any:  # noqa: ANN401  # botocore ships no types
    return call(operation, arguments)["Answer"]


def call(operation: Any, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # botocore ships no types
    """Call an operation of any client; raises as `query` does."""
    try:
        response: dict[str, Any] = operation(**arguments)
    except (Unreachable, HTTPClientError, DeadlinePassed) as error:
        raise ServiceUnavailable from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"].get("Code", "")
        # For want of a code in the body botocore gives the status: an error that is cut, or not DynamoDB's own.
        if status >= 500 or code in _PASSING or code.isdigit():  # noqa: PLR2004  # HTTP's server errors
            raise ServiceUnavailable from error
        raise
    if "Error" in response:
        # Damaged, and botocore raises no error for an answer of status 200.
        raise ServiceUnavailable
    return response
