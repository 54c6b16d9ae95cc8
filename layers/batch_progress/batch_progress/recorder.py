"""Recording batches and what becomes of their jobs: what scraper workers use.

Every change of a job is one conditional write, so that a call may be repeated by whoever is not sure that it
happened: a worker whose message came twice, a client that lost an answer, a process that was killed. Arguments are
checked by pydantic, whose `ValidationError` comes before anything is written (docs/recording.md).
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from time import time
from typing import Annotated, Any, Final, Self, assert_never

import botocore.session
import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as Unreachable
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
    validate_call,
)
from pydantic_core import PydanticCustomError

from batch_progress import table
from batch_progress.dynamodb import RETRYABLE_CODES
from batch_progress.errors import (
    BatchConflict,
    BatchNotFound,
    IllegalTransition,
    JobNotFound,
    ServiceUnavailable,
)
from batch_progress.table import (
    AFTER_JOBS,
    BATCH_KEY,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_WORKERS,
    ENDED,
    JOB_PREFIX,
    LARGEST_NUMBER,
    Item,
    JobStatus,
)

LONGEST_URL: Final = 2_048
LONGEST_ERROR: Final = 1_024
# Of default ids; a batch of more jobs has longer ones, all of one length, so that they sort as they were given.
_LEAST_DIGITS: Final = 6

_url: Final = TypeAdapter(HttpUrl)


def _is_url(text: str) -> str:
    """Let an address pass as it was given, whatever its normal form is."""
    _url.validate_python(text)
    return text


def _in_order(value: object) -> object:
    """Refuse a set: another run would give its members other ids."""
    if isinstance(value, set | frozenset):
        raise PydanticCustomError("rule", "must be in an order, which a set is not")
    return value


def _cut(value: object) -> object:
    """Cut an error's text; what is no Unicode in it, such as a file's undecodable name, becomes a question mark."""
    return value[:LONGEST_ERROR].encode(errors="replace").decode() if isinstance(value, str) else value


def _epoch(value: object) -> object:
    # Without an offset it would be another time on another machine.
    return int(value.timestamp()) if isinstance(value, datetime) and value.tzinfo else value


Id = Annotated[str, Field(strict=True, pattern=f"^{table.ID_PATTERN}$")]
OwnerId = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
Url = Annotated[
    str,
    Field(strict=True, max_length=LONGEST_URL, pattern=r"^(?i:https?)://[^\s\x00-\x1f\x7f]+$"),
    AfterValidator(_is_url),
]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_NUMBER)]
Workers = Annotated[int, Field(strict=True, ge=1, le=LARGEST_NUMBER)]
Timeout = Annotated[float, Field(strict=True, ge=1, le=LARGEST_NUMBER)]
ErrorCode = Annotated[str, Field(strict=True, min_length=1), BeforeValidator(_cut)]
ErrorText = Annotated[str, Field(strict=True), BeforeValidator(_cut)]
Flag = Annotated[bool, Field(strict=True)]
Expiry = Annotated[int, Field(strict=True, ge=1, le=table.LAST_SECOND), BeforeValidator(_epoch)]


class _NewBatch(BaseModel):
    """A batch to be made, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_id: Id
    owner_id: OwnerId
    urls: Annotated[list[Url], FailFast(), BeforeValidator(_in_order)]
    job_ids: Annotated[list[Id], FailFast(), BeforeValidator(_in_order)]
    parallel_jobs: Workers
    timeout_per_url: Timeout
    expires_at: Expiry | None

    @field_validator("job_ids", mode="before")
    @classmethod
    def _default_ids(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            return value
        count = len(info.data.get("urls", ()))
        digits = max(_LEAST_DIGITS, len(str(count)))
        return [f"job_{number:0{digits}}" for number in range(1, count + 1)]

    @model_validator(mode="after")
    def _an_id_for_each_url(self) -> Self:
        if len(self.job_ids) != len(self.urls):
            raise PydanticCustomError("rule", "there must be as many 'job_ids' as 'urls'")
        if len(set(self.job_ids)) != len(self.job_ids):
            raise PydanticCustomError("rule", "no two of 'job_ids' may be the same")
        return self

    def item(self, now: str) -> Item:
        """Return its `BATCH` item."""
        return table.item(
            batch_id=self.batch_id,
            sk=BATCH_KEY,
            owner_id=self.owner_id,
            total_urls=len(self.urls),
            created_at=now,
            parallel_jobs=self.parallel_jobs,
            timeout_per_url=self.timeout_per_url,
            made_from=self._digest(),
            expires_at=self.expires_at,
        )

    def jobs(self, expires_at: dict[str, str] | None) -> Iterator[Item]:
        """Yield its `JOB#` items, which expire with the batch as it is stored."""
        for job_id, url in zip(self.job_ids, self.urls, strict=True):
            item = table.item(
                batch_id=self.batch_id,
                sk=JOB_PREFIX + job_id,
                url=url,
                status=JobStatus.PENDING,
                items_extracted=0,
            )
            yield item if expires_at is None else item | {"expires_at": expires_at}

    def is_stored_as(self, item: Item) -> bool:
        """Tell whether a `BATCH` item is this batch's; one that was not made here says no more than whose it is."""
        return item.get("owner_id") == {"S": self.owner_id} and item.get("made_from") in (None, {"S": self._digest()})

    def _digest(self) -> str:
        """Hash all that a rerun must give again. An expiry is made from the clock: the first one stands."""
        values = [self.job_ids, self.urls, self.parallel_jobs, self.timeout_per_url]
        return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


@dataclass(slots=True)
class RunningJob:
    """A job at work.

    Attributes:
        batch_id: Its batch.
        job_id: Its id.
        items_extracted: What has been found so far; the block counts it up.
    """

    batch_id: str
    job_id: str
    items_extracted: int = 0


def _compared(status: JobStatus) -> tuple[str, ...]:
    """Return the attributes that make a repeated call the same call; times differ and do not count."""
    match status:
        case JobStatus.PENDING | JobStatus.PROCESSING | JobStatus.CANCELLED:
            return ()
        case JobStatus.COMPLETED:
            return ("items_extracted",)
        case JobStatus.FAILED:
            return ("items_extracted", "error_code", "error_message")
        case _:
            assert_never(status)


# The value of an absent attribute.
_ABSENT: Final = table.item(items_extracted=0)
_NEW: Final = "attribute_not_exists(sk)"

# One partition takes 1,000 writes a second, whatever the table's mode, and one process about as many: more connections
# bring nothing (docs/decisions/0009-recorder-writes.md).
_CONNECTIONS: Final = 8
# So many writes are lined up at once.
_IN_LINE: Final = 1_000


def _dynamodb() -> Any:  # noqa: ANN401  # botocore ships no types
    config = Config(
        connect_timeout=2,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 4},
        # The arguments are this module's own, and DynamoDB checks them too.
        parameter_validation=False,
        user_agent="batch-progress",
    )
    return botocore.session.Session().create_client("dynamodb", config=config)


class BatchRecorder:
    """The jobs table, for writing.

    Every method checks its arguments first and raises pydantic's `ValidationError`, with nothing written; and it
    raises `ServiceUnavailable` when DynamoDB is away or overwhelmed after the retries: repeat the call then, it does
    what is left to do. A job goes `pending → processing → completed | failed | cancelled`, from `pending` straight to
    an end too, and from `failed` back to `processing` only with `retry=True`.
    """

    def __init__(self, table_name: str, client: Any = None) -> None:  # noqa: ANN401  # botocore ships no types
        """Take the jobs table's name, and botocore's or boto3's DynamoDB client where it shall not be an own one."""
        self._table = table_name
        self._client = client or _dynamodb()

    def create(
        self,
        batch_id: str,
        owner_id: str,
        urls: Iterable[str],
        *,
        job_ids: Iterable[str] | None = None,
        parallel_jobs: int = DEFAULT_WORKERS,
        timeout_per_url: float = DEFAULT_TIMEOUT_SECONDS,
        expires_at: datetime | int | None = None,
    ) -> list[str]:
        """Make a batch of pending jobs, or what is still missing of it.

        May be repeated after a crash, by several at once and while workers are at it: a job that exists stays as it
        is.

        Args:
            batch_id: 1 to 128 of `A-Za-z0-9_-`, never used before.
            owner_id: Who may see it.
            urls: http(s) addresses of up to 2,048 characters.
            job_ids: As many, of the alphabet of `batch_id`; `job_000001` and on where not given.
            parallel_jobs: How many workers will be at it.
            timeout_per_url: Seconds that a job may take.
            expires_at: When it may be forgotten, in epoch seconds or as an aware time. Of a batch that is there
                already the first one stands.

        Returns:
            The ids of the jobs in the order of `urls`.

        Raises:
            BatchConflict: The id is taken by a batch of another owner, one made from other values, or jobs of one
                that has expired.
        """
        new = _NewBatch.model_validate(
            {
                "batch_id": batch_id,
                "owner_id": owner_id,
                "urls": urls,
                "job_ids": job_ids,
                "parallel_jobs": parallel_jobs,
                "timeout_per_url": timeout_per_url,
                "expires_at": expires_at,
            }
        )
        stored, existing = self._claim(new)
        missing = (item for item in new.jobs(stored.get("expires_at")) if item["sk"]["S"] not in existing)
        self._write_all(self._client.put_item, ({"Item": item, "ConditionExpression": _NEW} for item in missing))
        return new.job_ids

    def _claim(self, new: _NewBatch) -> tuple[Item, set[str]]:
        """Write the `BATCH` item, unless it is there; return it with the sort keys of the jobs that are there.

        It comes before any job, so that whose the jobs are is never in doubt and progress is seen from the start.
        """
        items = list(self._query(new.batch_id, "sk, owner_id, made_from, expires_at"))
        batch = items.pop(0) if items and not _is_job(items[0]) else None
        if (batch and not new.is_stored_as(batch)) or (not batch and any(map(_has_expired, items))):
            raise BatchConflict(new.batch_id)
        if batch is None:
            batch = new.item(self._now())
            if self._write(self._client.put_item, {"Item": batch, "ConditionExpression": _NEW}) is not None:
                # Somebody else has just written it: look at theirs.
                return self._claim(new)
        return batch, {item["sk"]["S"] for item in items}

    @validate_call
    def start(self, batch_id: Id, job_id: Id, *, retry: Flag = False) -> None:
        """Take a job. One that has been taken already stays as it is: its worker may have died.

        Args:
            batch_id: The batch.
            job_id: Its job.
            retry: Whether one that failed is begun anew.

        Raises:
            IllegalTransition: It has ended.
            BatchNotFound: There is no such batch.
            JobNotFound: There is no such job in it.
        """
        barred = {JobStatus.PROCESSING, *ENDED} - ({JobStatus.FAILED} if retry else set())
        at = table.item(started_at=self._now())
        self._move(batch_id, job_id, JobStatus.PROCESSING, table.item(items_extracted=0), at, barred)

    @validate_call
    def complete(self, batch_id: Id, job_id: Id, items_extracted: Count) -> None:
        """End a job well.

        Raises:
            IllegalTransition: It has ended otherwise, or with another number of items.
            BatchNotFound: There is no such batch.
            JobNotFound: There is no such job in it.
        """
        self._end(batch_id, job_id, JobStatus.COMPLETED, table.item(items_extracted=items_extracted))

    @validate_call
    def fail(
        self,
        batch_id: Id,
        job_id: Id,
        error_code: ErrorCode,
        error_message: ErrorText = "",
        *,
        items_extracted: Count = 0,
    ) -> None:
        """End a job that cannot be done.

        Args:
            batch_id: The batch.
            job_id: Its job.
            error_code: The kind of failure, for programs; cut to 1,024 characters.
            error_message: The failure in words; cut to 1,024 characters.
            items_extracted: What had been found.

        Raises:
            IllegalTransition: It has ended otherwise, or with other values.
            BatchNotFound: There is no such batch.
            JobNotFound: There is no such job in it.
        """
        values = table.item(items_extracted=items_extracted, error_code=error_code, error_message=error_message or None)
        self._end(batch_id, job_id, JobStatus.FAILED, values)

    @validate_call
    def cancel(self, batch_id: Id, job_id: Id) -> None:
        """End a job that is not wanted any more. A worker that is at it learns so when it records its own end.

        Raises:
            IllegalTransition: It has completed or failed.
            BatchNotFound: There is no such batch.
            JobNotFound: There is no such job in it.
        """
        self._end(batch_id, job_id, JobStatus.CANCELLED, {})

    @validate_call
    def cancel_batch(self, batch_id: Id) -> int:
        """Cancel every job that has not ended.

        Returns:
            How many that were; of a call that is repeated, how many were left.

        Raises:
            BatchNotFound: There is no such batch.
        """
        items = self._query(batch_id, "sk, #status", {"#status": "status"})
        if next(items, {}).get("sk") != {"S": BATCH_KEY}:
            raise BatchNotFound(batch_id)
        alive = (item["sk"]["S"] for item in items if item.get("status", {}).get("S") not in ENDED)
        values = table.item(finished_at=self._now())
        updates = (_update(batch_id, sort_key, JobStatus.CANCELLED, values, ENDED) for sort_key in alive)
        return self._write_all(self._client.update_item, updates)

    @contextmanager
    def job(self, batch_id: str, job_id: str, *, retry: bool = False) -> Iterator[RunningJob]:
        """Take a job, and end it as the block ends.

        It completes with the `items_extracted` that the block counted; or fails with the exception's class as its
        code and its text as its message, and the exception goes on. An exception that is no `Exception`, such as
        Ctrl-C, is no failure of the job: it stays taken, to be done by whom it is handed to next.

        Arguments and errors are those of `start`, and at the end those of `complete`.
        """
        self.start(batch_id, job_id, retry=retry)
        running = RunningJob(batch_id, job_id)
        try:
            yield running
        except Exception as error:
            try:
                self.fail(batch_id, job_id, type(error).__name__, str(error), items_extracted=running.items_extracted)
            except Exception as unrecorded:  # noqa: BLE001  # whatever it is, the block's own comes first
                error.add_note(f"This failure of {job_id} of {batch_id} is not recorded: {unrecorded}")
            raise
        self.complete(batch_id, job_id, running.items_extracted)

    @staticmethod
    def _now() -> str:
        return table.timestamp(datetime.now(UTC))

    def _end(self, batch_id: str, job_id: str, end: JobStatus, values: Item) -> None:
        self._move(batch_id, job_id, end, values, table.item(finished_at=self._now()), ENDED)

    def _move(
        self,
        batch_id: str,
        job_id: str,
        to: JobStatus,
        values: Item,
        at: Item,
        barred: Collection[JobStatus],
    ) -> None:
        """Change a job unless its state is one of `barred`.

        Nothing happens where its state is `to` with the same `values`: then it has been done already, at another time.
        """
        update = _update(batch_id, JOB_PREFIX + job_id, to, values | at, barred)
        found = self._write(self._client.update_item, update)
        if found is None:
            return
        if not found:
            raise self._missing(batch_id, job_id)
        current = found["status"]["S"]
        if current != to or any(found.get(name, _ABSENT.get(name)) != values.get(name) for name in _compared(to)):
            raise IllegalTransition(batch_id, job_id, current, to)

    def _missing(self, batch_id: str, job_id: str) -> BatchNotFound | JobNotFound:
        """Return what is to be told of a job that is not there."""
        arguments = {"TableName": self._table, "Key": table.batch_key(batch_id), "ConsistentRead": True}
        answer = _call(self._client.get_item, arguments)
        return JobNotFound(batch_id, job_id) if "Item" in answer else BatchNotFound(batch_id)

    def _write(self, operation: Any, arguments: dict[str, Any]) -> Item | None:  # noqa: ANN401  # botocore's
        """Write on a condition; return `None`, or the item in the way of it, which is empty when there is none."""
        arguments = arguments | {"TableName": self._table, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        try:
            _call(operation, arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            in_the_way: Item = error.response.get("Item", {})
            return in_the_way
        return None

    def _write_all(self, operation: Any, writes: Iterable[dict[str, Any]]) -> int:  # noqa: ANN401  # botocore's
        """Write all whose conditions hold, several at a time, and return how many did; the first failure ends it."""

        def written(arguments: dict[str, Any]) -> bool:
            return self._write(operation, arguments) is None

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return sum(sum(pool.map(written, some)) for some in batched(writes, _IN_LINE, strict=False))

    def _query(self, batch_id: str, attributes: str, names: dict[str, str] | None = None) -> Iterator[Item]:
        """Yield a batch's items, page after page: its `BATCH`, then its jobs; as of now."""
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "batch_id = :batch_id AND sk BETWEEN :from AND :to",
            "ExpressionAttributeValues": {
                ":batch_id": {"S": batch_id},
                ":from": {"S": BATCH_KEY},
                ":to": {"S": AFTER_JOBS},
            },
            "ProjectionExpression": attributes,
            "ConsistentRead": True,
        }
        if names:
            arguments["ExpressionAttributeNames"] = names
        while True:
            page = _call(self._client.query, arguments)
            # Something else may stand between the two.
            yield from (item for item in page["Items"] if _is_job(item) or item["sk"]["S"] == BATCH_KEY)
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]


_SERVER_ERROR: Final = 500


def _call(operation: Any, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # botocore ships no types
    """Call an operation of botocore's client.

    Raises:
        ServiceUnavailable: DynamoDB is away or overwhelmed, after the retries.
        ClientError: DynamoDB refused the request and would refuse it again.
    """
    try:
        response: dict[str, Any] = operation(**arguments)
    except (Unreachable, HTTPClientError) as error:
        raise ServiceUnavailable from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"].get("Code", "")
        # Without a code in the body botocore gives the status: the error is truncated, or not DynamoDB's own.
        if status >= _SERVER_ERROR or code in RETRYABLE_CODES or code.isdigit():
            raise ServiceUnavailable from error
        raise
    return response


def _is_job(item: Item) -> bool:
    return item["sk"]["S"].startswith(JOB_PREFIX)


def _has_expired(item: Item) -> bool:
    return float(item.get("expires_at", {}).get("N", "inf")) <= time()


def _update(batch_id: str, sort_key: str, to: JobStatus, values: Item, barred: Collection[JobStatus]) -> dict[str, Any]:
    """Return the update of a job to state `to` unless its state is one of `barred`; a job without one is pending."""
    sets = {**table.item(status=to), **values}
    removed = [] if to in ENDED else ["finished_at", "error_code", "error_message"]
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in sets)
    if removed:
        expression += " REMOVE " + ", ".join(f"#{name}" for name in removed)
    states = {f":{state.value}_": {"S": state.value} for state in barred}
    return {
        "Key": table.item(batch_id=batch_id, sk=sort_key),
        "UpdateExpression": expression,
        "ConditionExpression": f"attribute_exists(sk) AND NOT #status IN ({', '.join(states)})",
        "ExpressionAttributeNames": {f"#{name}": name for name in (*sets, *removed)},
        "ExpressionAttributeValues": {f":{name}": value for name, value in sets.items()} | states,
    }
