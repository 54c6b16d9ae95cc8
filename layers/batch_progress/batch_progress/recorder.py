"""Create batches and record the progress of their jobs: the API for scraper workers (docs/recording.md).

Every change of a job is one conditional write, so every call can be repeated: after a message that was delivered twice,
a lost response or a killed process.
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
# Digits of default job ids. Larger batches have longer ids, all of one length, so that they sort in the URLs' order.
_LEAST_DIGITS: Final = 6

_url: Final = TypeAdapter(HttpUrl)


def _is_url(text: str) -> str:
    """Validate a URL, but keep its spelling: pydantic would normalise it."""
    _url.validate_python(text)
    return text


def _in_order(value: object) -> object:
    """Refuse a set: its order differs between runs, so a rerun would give the URLs other ids."""
    if isinstance(value, set | frozenset):
        raise PydanticCustomError("rule", "must have an order, so a set is not accepted")
    return value


def _cut(value: object) -> object:
    """Cut an error text, and replace lone surrogates (of an undecodable file name, for example) with question marks."""
    return value[:LONGEST_ERROR].encode(errors="replace").decode() if isinstance(value, str) else value


def _epoch(value: object) -> object:
    # A naive time is not converted, and so refused: it would be another moment on a machine in another time zone.
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
    """The validated arguments of `create`."""

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
            raise PydanticCustomError("rule", "'job_ids' must have exactly one id for each of the 'urls'")
        if len(set(self.job_ids)) != len(self.job_ids):
            raise PydanticCustomError("rule", "'job_ids' must be unique")
        return self

    def item(self, now: str) -> Item:
        """Return the `BATCH` item."""
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
        """Yield the `JOB#` items. `expires_at` is that of the stored `BATCH` item: the jobs expire with it."""
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
        """Whether a stored `BATCH` item is of this batch. Without `made_from` (other writers), the owner decides."""
        return item.get("owner_id") == {"S": self.owner_id} and item.get("made_from") in (None, {"S": self._digest()})

    def _digest(self) -> str:
        """Hash the values that a rerun must repeat: not `expires_at`, which is usually computed from the clock."""
        values = [self.job_ids, self.urls, self.parallel_jobs, self.timeout_per_url]
        return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


@dataclass(slots=True)
class RunningJob:
    """The job of a `with recorder.job(...)` block.

    Attributes:
        batch_id: Its batch.
        job_id: Its id.
        items_extracted: The number of items found so far. The block sets it; it is recorded when the block ends.
    """

    batch_id: str
    job_id: str
    items_extracted: int = 0


def _compared(status: JobStatus) -> tuple[str, ...]:
    """Return the attributes that must be equal for a repeated call to be a no-op. Times may differ."""
    match status:
        case JobStatus.PENDING | JobStatus.PROCESSING | JobStatus.CANCELLED:
            return ()
        case JobStatus.COMPLETED:
            return ("items_extracted",)
        case JobStatus.FAILED:
            return ("items_extracted", "error_code", "error_message")
        case _:
            assert_never(status)


# The values of absent attributes, for that comparison.
_ABSENT: Final = table.item(items_extracted=0)
_NEW: Final = "attribute_not_exists(sk)"

# A partition takes 1,000 writes a second in any capacity mode, and one process makes about as many: more connections
# would not be faster (docs/decisions/0009-recorder-writes.md).
_CONNECTIONS: Final = 8
# Writes submitted at once, to limit memory.
_IN_LINE: Final = 1_000


def _dynamodb() -> Any:  # noqa: ANN401  # botocore ships no types
    config = Config(
        connect_timeout=2,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 4},
        # The arguments are built in this module, and DynamoDB validates them too.
        parameter_validation=False,
        user_agent="batch-progress",
    )
    return botocore.session.Session().create_client("dynamodb", config=config)


class BatchRecorder:
    """Writes to the jobs table.

    A job goes `pending → processing → completed | failed | cancelled`. It can also go from `pending` directly to an
    end, and from `failed` back to `processing` with `retry=True`.

    Every method raises pydantic's `ValidationError` for invalid arguments, before anything is written, and
    `ServiceUnavailable` if DynamoDB was unavailable or overloaded after all retries. Repeat the call then: it does the
    rest.

    Args:
        table_name: The name of the jobs table.
        client: A DynamoDB client of botocore or boto3; by default, the recorder creates one.
    """

    def __init__(self, table_name: str, client: Any = None) -> None:  # noqa: ANN401  # botocore ships no types
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
        """Create a batch with one pending job for each URL.

        A repeated call creates what is missing and leaves existing jobs unchanged. It can run after a crash, in several
        processes at once, and while workers are running.

        Args:
            batch_id: 1 to 128 of `A-Za-z0-9_-`. Never reuse the id of another batch.
            owner_id: The owner, who can read the batch; up to 256 characters.
            urls: http(s) URLs of up to 2,048 characters.
            job_ids: One id for each URL, in the format of `batch_id`; by default `job_000001` and so on.
            parallel_jobs: The number of workers that will run jobs at once. The forecast uses it.
            timeout_per_url: The time limit of a job in seconds. The forecast uses it.
            expires_at: When the batch and its jobs may be deleted: epoch seconds, or a datetime with a time zone. If
                the batch exists, its first value stays.

        Returns:
            The ids of the jobs, in the order of `urls`.

        Raises:
            BatchConflict: The id is in use: by another owner, by a batch with other URLs, job ids, workers or time
                limit, or by jobs of an expired batch.
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
        """Write the `BATCH` item unless it exists; return it with the sort keys of the existing jobs.

        It is written before any job, so that the jobs always have an owner and progress is visible from the start.
        """
        items = list(self._query(new.batch_id, "sk, owner_id, made_from, expires_at"))
        batch = items.pop(0) if items and not _is_job(items[0]) else None
        if (batch and not new.is_stored_as(batch)) or (not batch and any(map(_has_expired, items))):
            raise BatchConflict(new.batch_id)
        if batch is None:
            batch = new.item(self._now())
            if self._write(self._client.put_item, {"Item": batch, "ConditionExpression": _NEW}) is not None:
                # Another process has just written it: compare with that one.
                return self._claim(new)
        return batch, {item["sk"]["S"] for item in items}

    @validate_call
    def start(self, batch_id: Id, job_id: Id, *, retry: Flag = False) -> None:
        """Set a job to `processing`.

        A no-op if it already is: a worker can take over a job from one that died.

        Args:
            batch_id: The batch's id.
            job_id: The job's id.
            retry: Whether to start a `failed` job again. Its error is removed and its items are set to 0.

        Raises:
            IllegalTransition: The job has ended, and is not a `failed` one with `retry=True`.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        barred = {JobStatus.PROCESSING, *ENDED} - ({JobStatus.FAILED} if retry else set())
        at = table.item(started_at=self._now())
        self._move(batch_id, job_id, JobStatus.PROCESSING, table.item(items_extracted=0), at, barred)

    @validate_call
    def complete(self, batch_id: Id, job_id: Id, items_extracted: Count) -> None:
        """Set a job to `completed`, with the number of items found. A no-op if that is already recorded.

        Raises:
            IllegalTransition: The job has ended with another status or another number of items.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
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
        """Set a job to `failed`. A no-op if that is already recorded with the same values.

        Args:
            batch_id: The batch's id.
            job_id: The job's id.
            error_code: The kind of failure, for programs; cut to 1,024 characters.
            error_message: The failure in words; cut to 1,024 characters.
            items_extracted: The number of items found before the failure.

        Raises:
            IllegalTransition: The job has ended with another status, or has failed with other values.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        values = table.item(items_extracted=items_extracted, error_code=error_code, error_message=error_message or None)
        self._end(batch_id, job_id, JobStatus.FAILED, values)

    @validate_call
    def cancel(self, batch_id: Id, job_id: Id) -> None:
        """Set a job to `cancelled`. A no-op if it already is.

        A worker that is running the job is not interrupted: it gets an `IllegalTransition` when it records the end.

        Raises:
            IllegalTransition: The job has completed or failed.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        self._end(batch_id, job_id, JobStatus.CANCELLED, {})

    @validate_call
    def cancel_batch(self, batch_id: Id) -> int:
        """Cancel every job that has not ended.

        Returns:
            The number of jobs that this call cancelled.

        Raises:
            BatchNotFound: The batch does not exist.
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
        """Start a job, run the block, and record the job's end.

        If the block ends normally, the job completes with the `items_extracted` that the block set. If the block
        raises, the job fails with the exception's class as its error code and the exception's text as its error
        message, and the exception propagates. An exception that is not an `Exception`, such as Ctrl-C, does not end
        the job: it stays `processing` for the next worker.

        Arguments and errors are those of `start`, and at the end those of `complete`. If the failure cannot be
        recorded, the block's exception propagates with a note.
        """
        self.start(batch_id, job_id, retry=retry)
        running = RunningJob(batch_id, job_id)
        try:
            yield running
        except Exception as error:
            try:
                self.fail(batch_id, job_id, type(error).__name__, str(error), items_extracted=running.items_extracted)
            except Exception as unrecorded:  # noqa: BLE001  # the block's exception matters more than any of these
                error.add_note(f"The failure of job {job_id} of batch {batch_id} was not recorded: {unrecorded}")
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
        """Set a job's status to `to`, unless its status is one of `barred`.

        A no-op if the status is already `to` with the same `values`: an earlier call did it. The times `at` may differ.
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
        """Return the error for a job that does not exist."""
        arguments = {"TableName": self._table, "Key": table.batch_key(batch_id), "ConsistentRead": True}
        answer = _call(self._client.get_item, arguments)
        return JobNotFound(batch_id, job_id) if "Item" in answer else BatchNotFound(batch_id)

    def _write(self, operation: Any, arguments: dict[str, Any]) -> Item | None:  # noqa: ANN401  # botocore's
        """Make a conditional write. Return `None` or, if the condition failed, the existing item (empty if none)."""
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
        """Make conditional writes, several at a time; return how many conditions held.

        A failed condition is not an error; all other errors are raised.
        """

        def written(arguments: dict[str, Any]) -> bool:
            return self._write(operation, arguments) is None

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return sum(sum(pool.map(written, some)) for some in batched(writes, _IN_LINE, strict=False))

    def _query(self, batch_id: str, attributes: str, names: dict[str, str] | None = None) -> Iterator[Item]:
        """Yield a batch's items by consistent reads: the `BATCH` item, then the jobs."""
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
            # Items of other kinds may sort between `BATCH` and the jobs.
            yield from (item for item in page["Items"] if _is_job(item) or item["sk"]["S"] == BATCH_KEY)
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]


_SERVER_ERROR: Final = 500


def _call(operation: Any, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # botocore ships no types
    """Call an operation of botocore's client.

    Raises:
        ServiceUnavailable: DynamoDB was unavailable or overloaded, after all retries.
        ClientError: DynamoDB refused the request and would refuse it again.
    """
    try:
        response: dict[str, Any] = operation(**arguments)
    except (Unreachable, HTTPClientError) as error:
        raise ServiceUnavailable from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"].get("Code", "")
        # botocore sets the code to the status if the body has none: it is truncated, or not from DynamoDB.
        if status >= _SERVER_ERROR or code in RETRYABLE_CODES or code.isdigit():
            raise ServiceUnavailable from error
        raise
    return response


def _is_job(item: Item) -> bool:
    return item["sk"]["S"].startswith(JOB_PREFIX)


def _has_expired(item: Item) -> bool:
    return float(item.get("expires_at", {}).get("N", "inf")) <= time()


def _update(batch_id: str, sort_key: str, to: JobStatus, values: Item, barred: Collection[JobStatus]) -> dict[str, Any]:
    """Return an update of a job's status to `to` unless it is one of `barred`. A missing status counts as pending."""
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
