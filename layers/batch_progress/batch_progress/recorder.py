"""Create batches and record the progress of their jobs: the API for scraper workers (docs/recording.md).

Messages are delivered twice, workers die, and two workers can run one job. So every attempt at a job has a number, a
success is final, and only the latest attempt can fail a job (docs/decisions/0009-recorder-writes.md). Every change of a
job is one conditional write, so every call can be repeated.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from itertools import batched
from numbers import Real
from time import time
from typing import Annotated, Any, Final, Self, get_type_hints

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
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
    validate_call,
)
from pydantic_core import ArgsKwargs, PydanticCustomError

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
    WORKER_LOST,
    Item,
    JobStatus,
)

LONGEST_URL: Final = 2_048
LONGEST_ERROR: Final = 1_024
# The default of `lost_after`: a multiple of a job's timeout, and a minimum in seconds.
LOST_AFTER_TIMEOUTS: Final = 3
LEAST_LOST_AFTER: Final = 60.0
# Digits of default job ids. Larger batches have longer ids, all of one length, so that they sort in the URLs' order.
_LEAST_DIGITS: Final = 6

_url: Final = TypeAdapter(HttpUrl)
_URL: Final = re.compile(r"(?i:https?)://[^\s\x00-\x1f\x7f]+")
_ID: Final = re.compile(table.ID_PATTERN)


def _is_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise PydanticCustomError("rule", table.ID_RULE)
    return text


def _is_url(text: str) -> str:
    """Validate a URL, but keep its spelling: pydantic would normalise it."""
    if not _URL.fullmatch(text):
        raise PydanticCustomError("rule", "must begin with http:// or https:// and have no blanks")
    try:
        _url.validate_python(text)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise PydanticCustomError("rule", "is not a URL: {reason}", {"reason": reason}) from None
    return text


def _in_order(value: object) -> object:
    """Refuse a set: its order differs between runs, so a rerun would give the URLs other ids."""
    if isinstance(value, set | frozenset):
        raise PydanticCustomError("rule", "must have an order, so a set is not accepted")
    return value


def _cut(value: object) -> object:
    """Cut an error text, and replace lone surrogates (of an undecodable file name, for example) with question marks."""
    return value[:LONGEST_ERROR].encode(errors="replace").decode() if isinstance(value, str) else value


def _is_number(value: object) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _whole(value: Any) -> object:  # noqa: ANN401  # to be validated
    """Convert a whole number of any numeric type to an integer: 25.0, Decimal(25), numpy.int64(25)."""
    try:
        return int(value) if _is_number(value) and 0 <= value <= LARGEST_NUMBER and value % 1 == 0 else value
    except ArithmeticError:  # a Decimal that is not a number
        return value


def _real(value: Any) -> object:  # noqa: ANN401  # to be validated
    """Convert a number of any numeric type to a float."""
    return float(value) if _is_number(value) else value


def _epoch(value: Any) -> int:  # noqa: ANN401  # to be validated
    """Convert a time to whole epoch seconds, rounded towards 0.

    A naive time is refused: it would be another moment on a machine in another time zone.
    """
    if isinstance(value, datetime) and value.tzinfo:
        value = value.timestamp()
    try:
        seconds = int(value) if _is_number(value) else None
    except (ArithmeticError, ValueError):  # infinite, or not a number
        seconds = None
    if seconds is None:
        raise PydanticCustomError("rule", "must be epoch seconds, or a datetime with a time zone")
    if seconds > table.LAST_SECOND:
        raise PydanticCustomError("rule", "must be in epoch seconds, not in milliseconds")
    return seconds


Name = Annotated[str, Field(strict=True, min_length=1)]
Id = Annotated[str, Field(strict=True), AfterValidator(_is_id)]
OwnerId = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
Url = Annotated[
    str,
    Field(strict=True, max_length=LONGEST_URL),
    AfterValidator(_is_url),
]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_NUMBER), BeforeValidator(_whole)]
Attempt = Annotated[int, Field(strict=True, ge=1, le=LARGEST_NUMBER), BeforeValidator(_whole)]
Workers = Annotated[int, Field(strict=True, ge=1, le=LARGEST_NUMBER), BeforeValidator(_whole)]
Seconds = Annotated[float, Field(strict=True, ge=1, le=LARGEST_NUMBER), BeforeValidator(_real)]
ErrorCode = Annotated[str, Field(strict=True, min_length=1), BeforeValidator(_cut)]
ErrorText = Annotated[str, Field(strict=True), BeforeValidator(_cut)]
Flag = Annotated[bool, Field(strict=True)]
Expiry = Annotated[int, Field(strict=True, ge=1), BeforeValidator(_epoch)]

_count: Final[TypeAdapter[int]] = TypeAdapter(Count)


def _refusal(
    what: str, error: ValidationError, given: Mapping[str, object], names: Mapping[int | str, str]
) -> ValidationError:
    """Return a validation error that names the batch, the job and each argument.

    Args:
        what: What is not valid: a call, or an attribute.
        error: pydantic's error. It names positional arguments by their number.
        given: The arguments by name.
        names: The names of the positional arguments.
    """
    for kind in ("job", "batch"):
        one = given.get(f"{kind}_id")
        if isinstance(one, str) and _ID.fullmatch(one):
            what += f" of {kind} {one}"
    lines = []
    for each in error.errors(include_url=False, include_context=False):
        first, *rest = each["loc"] or ("",)
        is_call = isinstance(each["input"], ArgsKwargs)  # an argument is missing
        lines.append(
            {
                # With a type of pydantic's own, the text would link to pydantic's documentation.
                "type": PydanticCustomError(each["type"], each["msg"]),
                "loc": (names.get(first, first), *rest) if each["loc"] else (),
                "input": dict(given) if is_call else each["input"],
            }
        )
    return ValidationError.from_exception_data(what, lines)  # type: ignore[arg-type]  # as the class wants them


def _validated[**Arguments, ResultT](method: Callable[Arguments, ResultT]) -> Callable[Arguments, ResultT]:
    """Validate the arguments of a method by its annotations, and name an invalid one."""
    signature, plain = inspect.signature(method), get_type_hints(method)
    names: dict[int | str, str] = dict(enumerate(signature.parameters))
    call = validate_call(method)
    what = method.__qualname__.removesuffix(".__init__")

    @wraps(method)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> ResultT:
        try:
            return call(*args, **kwargs)
        except ValidationError as error:
            if error.title != method.__qualname__:  # raised by the method
                raise
            given = {names.get(number, str(number)): value for number, value in enumerate(args) if number} | kwargs
            raise _refusal(what, error, given, names) from None

    # For `help`: the types without the rules of validation.
    checked.__signature__ = signature.replace(  # type: ignore[attr-defined]  # `inspect` reads it
        parameters=[
            one.replace(annotation=plain.get(name, one.annotation)) for name, one in signature.parameters.items()
        ],
    )
    return checked


class _NewBatch(BaseModel):
    """The validated arguments of `create`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_id: Id
    owner_id: OwnerId
    urls: Annotated[list[Url], FailFast(), BeforeValidator(_in_order)]
    job_ids: Annotated[list[Id], FailFast(), BeforeValidator(_in_order)]
    parallel_jobs: Workers
    timeout_per_url: Seconds
    lost_after: Seconds | None
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
            lost_after=self.lost_after or max(LEAST_LOST_AFTER, LOST_AFTER_TIMEOUTS * self.timeout_per_url),
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
        """Hash the values that a rerun must repeat.

        Not `expires_at`, which is usually computed from the clock, nor `lost_after`: batches of earlier versions have
        none, and a rerun of such a batch must not be a conflict.
        """
        values = [self.job_ids, self.urls, self.parallel_jobs, self.timeout_per_url]
        return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


class RunningJob:
    """The job of a `with recorder.job(...)` block.

    Attributes:
        batch_id: Its batch.
        job_id: Its id.
        attempt: The number of this attempt at the job, 1 for the first.
    """

    __slots__ = ("_items", "_recorder", "attempt", "batch_id", "job_id")

    def __init__(self, recorder: "BatchRecorder", batch_id: str, job_id: str, attempt: int) -> None:
        self._recorder = recorder
        self._items = 0
        self.batch_id = batch_id
        self.job_id = job_id
        self.attempt = attempt

    @property
    def items_extracted(self) -> int:
        """The number of items found so far. The block sets it; `report` and the end of the block record it.

        Raises:
            ValidationError: The value is not a count. It is raised where the value is set, not after the work.
        """
        return self._items

    @items_extracted.setter
    def items_extracted(self, value: int) -> None:
        try:
            self._items = _count.validate_python(value)
        except ValidationError as error:
            ids = {"batch_id": self.batch_id, "job_id": self.job_id}
            raise _refusal("items_extracted", error, ids, {}) from None

    def report(self) -> None:
        """Record `items_extracted`, and that the worker is alive.

        Raises:
            IllegalTransition: Another attempt has taken the job over, or it has ended: the worker may stop.
        """
        self._recorder.report(self.batch_id, self.job_id, self._items, attempt=self.attempt)


class _Refused(Exception):
    """The condition of a write does not hold; nothing was written.

    Attributes:
        item: The existing item, empty if there is none.
    """

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


_NEW: Final = "attribute_not_exists(sk)"
_EXISTS: Final = "attribute_exists(sk)"
_ENDED: Final = ", ".join(f":{status}" for status in sorted(ENDED))
_ENDED_FOR_GOOD: Final = ", ".join(f":{status}" for status in sorted(ENDED - {JobStatus.FAILED}))
# A missing or unknown status counts as pending.
_NOT_ENDED: Final = f"{_EXISTS} AND NOT #status IN ({_ENDED})"
_NOT_ENDED_OR_FAILED: Final = f"{_EXISTS} AND NOT #status IN ({_ENDED_FOR_GOOD})"
_NOT_ENDED_OR_LOST: Final = (
    f"{_EXISTS} AND (NOT #status IN ({_ENDED}) OR #status = :failed AND #error_code = :worker_lost)"
)
_RUNS_AT_ATTEMPT: Final = "#status = :processing AND #attempt = :attempt"
# A number below 0, or too large to increase, is malformed.
_COUNTABLE: Final = (
    "(attribute_not_exists(#attempt)"
    " OR attribute_type(#attempt, :number) AND #attempt BETWEEN :zero AND :most_attempts)"
)
# The values that the expressions of this module use besides their arguments.
_VALUES: Final = {
    **{f":{status}": {"S": status.value} for status in JobStatus},
    ":worker_lost": {"S": WORKER_LOST},
    ":zero": {"N": "0"},
    ":one": {"N": "1"},
    ":most_attempts": {"N": str(LARGEST_NUMBER - 1)},
    ":number": {"S": "N"},
}

# A partition takes 1,000 writes a second in any capacity mode, and one process makes about as many: more connections
# would not be faster (docs/decisions/0009-recorder-writes.md).
_CONNECTIONS: Final = 8
# Writes submitted at once, to limit memory.
_IN_LINE: Final = 1_000
# The number of new jobs after which `create` checks whether the batch has been cancelled. A check costs as much as a
# write.
_BETWEEN_LOOKS: Final = 100


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
    end. Each `start` is a new attempt: it takes over a job that is `processing`, and starts a `failed` job again with
    `retry=True` or after `WORKER_LOST`. `complete` overrules a failure, and only the latest attempt can fail a job.

    Every method raises pydantic's `ValidationError` for invalid arguments, before anything is written, and
    `ServiceUnavailable` if DynamoDB was unavailable or overloaded after all retries. Repeat the call then: it does the
    rest.

    Args:
        table_name: The name of the jobs table.
        client: A DynamoDB client of botocore or boto3; by default, the recorder creates one.
    """

    @_validated
    def __init__(self, table_name: Name, client: Any = None) -> None:  # noqa: ANN401  # botocore ships no types
        self._table = table_name
        self._client = client or _dynamodb()

    def create(  # noqa: PLR0913  # the values of a batch, given by name
        self,
        batch_id: str,
        owner_id: str,
        urls: Iterable[str],
        *,
        job_ids: Iterable[str] | None = None,
        parallel_jobs: int = DEFAULT_WORKERS,
        timeout_per_url: float = DEFAULT_TIMEOUT_SECONDS,
        lost_after: float | None = None,
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
            lost_after: A job that is `processing` and shows no sign of life for this number of seconds is failed with
                `WORKER_LOST`. Signs of life are its start and its reports. By default three times `timeout_per_url`,
                and at least 60 seconds. If the batch exists, its first value stays.
            expires_at: When the batch and its jobs may be deleted: epoch seconds, or a datetime with a time zone. If
                the batch exists, its first value stays.

        Returns:
            The ids of the jobs, in the order of `urls`.

        Raises:
            BatchConflict: The id is in use: by another owner, by a batch with other URLs, job ids, workers or time
                limit, or by jobs of an expired batch. Or the batch has been cancelled, before this call or during it:
                then no job is left that has not ended.
        """
        given = {
            "batch_id": batch_id,
            "owner_id": owner_id,
            "urls": urls,
            "job_ids": job_ids,
            "parallel_jobs": parallel_jobs,
            "timeout_per_url": timeout_per_url,
            "lost_after": lost_after,
            "expires_at": expires_at,
        }
        try:
            new = _NewBatch.model_validate(given)
        except ValidationError as error:
            raise _refusal("BatchRecorder.create", error, given, {}) from None
        stored, existing = self._claim(new)
        self._stop_if_cancelled(stored)
        missing = (item for item in new.jobs(stored.get("expires_at")) if item["sk"]["S"] not in existing)
        writes = ({"Item": item, "ConditionExpression": _NEW} for item in missing)
        for some in batched(writes, _BETWEEN_LOOKS, strict=False):
            self._write_all(self._client.put_item, some)
            # After the writes: a job that `cancel_batch` did not see was written after `cancelled_at`.
            self._stop_if_cancelled(next(self._query(batch_id, "batch_id, sk, cancelled_at", limit=1), {}))
        return new.job_ids

    def _stop_if_cancelled(self, batch: Item) -> None:
        """Raise `BatchConflict` if a batch is cancelled, and cancel the jobs that were written since."""
        if "cancelled_at" in batch:
            self._cancel_jobs(batch["batch_id"]["S"])
            raise BatchConflict(batch["batch_id"]["S"], cancelled_at=str(batch["cancelled_at"].get("S")))

    def _claim(self, new: _NewBatch) -> tuple[Item, set[str]]:
        """Write the `BATCH` item unless it exists; return it with the sort keys of the existing jobs.

        It is written before any job, so that the jobs always have an owner and progress is visible from the start.
        """
        items = list(self._query(new.batch_id, "batch_id, sk, owner_id, made_from, expires_at, cancelled_at"))
        batch = items.pop(0) if items and not _is_job(items[0]) else None
        if (batch and not new.is_stored_as(batch)) or (not batch and any(map(_has_expired, items))):
            raise BatchConflict(new.batch_id)
        if batch is None:
            batch = new.item(_now())
            try:
                self._write(self._client.put_item, {"Item": batch, "ConditionExpression": _NEW})
            except _Refused:
                # Another process has just written it: compare with that one.
                return self._claim(new)
        return batch, {item["sk"]["S"] for item in items}

    @_validated
    def start(self, batch_id: Id, job_id: Id, *, retry: Flag = False) -> int:
        """Set a job to `processing`, as a new attempt.

        A job that is `processing` already is taken over, because its worker may be dead. The items that an earlier
        attempt reported, its error and its times are removed.

        Args:
            batch_id: The batch's id.
            job_id: The job's id.
            retry: Whether to start a `failed` job again. One that failed with `WORKER_LOST` starts again in any case.

        Returns:
            The number of this attempt, 1 for the first. `report` and `fail` take it.

        Raises:
            IllegalTransition: The job has ended, and is not a `failed` one that may start again.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        allowed = _NOT_ENDED_OR_FAILED if retry else _NOT_ENDED_OR_LOST
        try:
            return self._start(
                batch_id, job_id, "if_not_exists(#attempt, :zero) + :one", f"{allowed} AND {_COUNTABLE}", {}
            )
        except _Refused as refused:
            found = refused.item
        current = _status(found)
        lost = found.get("error_code") == _VALUES[":worker_lost"]
        if current in ENDED and not (current == JobStatus.FAILED and (retry or lost)):
            raise IllegalTransition(batch_id, job_id, current, JobStatus.PROCESSING)
        try:
            # Another writer's attempt is malformed: count from 1.
            malformed = {"attempt": found["attempt"]}
            return self._start(batch_id, job_id, ":one", f"{allowed} AND #attempt = :attempt", malformed)
        except _Refused:
            # Another worker has just done that.
            return self.start(batch_id, job_id, retry=retry)

    def _start(self, batch_id: str, job_id: str, number: str, condition: str, values: Item) -> int:
        """Start a job on a condition, with an expression for the attempt's number; return that number."""
        expression = (
            f"SET #status = :processing, #started_at = :started_at, #items_extracted = :zero, #attempt = {number}"
            " REMOVE #seen_at, #finished_at, #error_code, #error_message"
        )
        values = table.item(started_at=_now()) | values
        return _attempt(self._change(batch_id, job_id, expression, condition, values, answer="UPDATED_NEW"))

    @_validated
    def report(self, batch_id: Id, job_id: Id, items_extracted: Count, *, attempt: Attempt) -> None:
        """Record the number of items found so far, and that the worker is alive.

        Args:
            batch_id: The batch's id.
            job_id: The job's id.
            items_extracted: The number of items.
            attempt: The number that `start` returned.

        Raises:
            IllegalTransition: The job is not `processing`, or this is not its latest attempt: the worker may stop.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        values = table.item(items_extracted=items_extracted, seen_at=_now())
        try:
            self._change(batch_id, job_id, _set(values), _RUNS_AT_ATTEMPT, values | table.item(attempt=attempt))
        except _Refused as refused:
            raise _not_by(attempt, batch_id, job_id, refused.item, JobStatus.PROCESSING) from None

    @_validated
    def complete(self, batch_id: Id, job_id: Id, items_extracted: Count) -> None:
        """Set a job to `completed`, with the number of items found.

        A success is final. The first one stands: a no-op if the job is `completed`, with any number of items. It
        overrules a failure, and counts whichever attempt it comes from.

        Raises:
            IllegalTransition: The job has been cancelled.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        values = table.item(status=JobStatus.COMPLETED, items_extracted=items_extracted, finished_at=_now())
        expression = f"{_set(values)} REMOVE #error_code, #error_message"
        try:
            self._change(batch_id, job_id, expression, _NOT_ENDED_OR_FAILED, values)
        except _Refused as refused:
            if (current := _status(refused.item)) != JobStatus.COMPLETED:
                raise IllegalTransition(batch_id, job_id, current, JobStatus.COMPLETED) from None

    @_validated
    def fail(
        self,
        batch_id: Id,
        job_id: Id,
        error_code: ErrorCode,
        error_message: ErrorText = "",
        *,
        items_extracted: Count = 0,
        attempt: Attempt | None = None,
    ) -> None:
        """Set a job to `failed`.

        A no-op if the job is `completed`, if it has failed with the same values, or if a later attempt has begun.

        Args:
            batch_id: The batch's id.
            job_id: The job's id.
            error_code: The kind of failure, for programs; cut to 1,024 characters.
            error_message: The failure in words; cut to 1,024 characters.
            items_extracted: The number of items found before the failure.
            attempt: The number that `start` returned; by default, the job fails whichever attempt is at it.

        Raises:
            IllegalTransition: The job has been cancelled, or has failed with other values. Or `attempt` is given, and
                the job has had no such attempt yet or is `pending`.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        values = table.item(items_extracted=items_extracted, error_code=error_code, error_message=error_message or None)
        sets = table.item(status=JobStatus.FAILED, finished_at=_now()) | values
        expression = _set(sets) + ("" if error_message else " REMOVE #error_message")
        condition = _NOT_ENDED if attempt is None else _RUNS_AT_ATTEMPT
        try:
            self._change(batch_id, job_id, expression, condition, sets | table.item(attempt=attempt))
        except _Refused as refused:
            found = refused.item
        else:
            return
        current, latest = _status(found), _attempt(found)
        if attempt is not None and (attempt > latest or current not in {JobStatus.PROCESSING, *ENDED}):
            raise _not_by(attempt, batch_id, job_id, found, JobStatus.FAILED)
        if current == JobStatus.CANCELLED:
            raise IllegalTransition(batch_id, job_id, current, JobStatus.FAILED)
        if current == JobStatus.COMPLETED or (attempt is not None and attempt < latest):
            return
        if any(found.get(name, _ABSENT.get(name)) != values.get(name) for name in _FAILURE):
            raise IllegalTransition(batch_id, job_id, current, JobStatus.FAILED)

    @_validated
    def cancel(self, batch_id: Id, job_id: Id) -> None:
        """Set a job to `cancelled`. A no-op if it already is.

        A worker that is running the job is not interrupted: it gets an `IllegalTransition` when it reports or records
        the end.

        Raises:
            IllegalTransition: The job has completed or failed.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        values = table.item(status=JobStatus.CANCELLED, finished_at=_now())
        try:
            self._change(batch_id, job_id, _set(values), _NOT_ENDED, values)
        except _Refused as refused:
            if (current := _status(refused.item)) != JobStatus.CANCELLED:
                raise IllegalTransition(batch_id, job_id, current, JobStatus.CANCELLED) from None

    @_validated
    def cancel_batch(self, batch_id: Id) -> int:
        """Cancel a batch: every job that has not ended, and every job that has no item yet.

        A `create` that is under way stops, and a later one is refused.

        Returns:
            The number of jobs with an item that this call cancelled.

        Raises:
            BatchNotFound: The batch does not exist.
        """
        expression = "SET #cancelled_at = if_not_exists(#cancelled_at, :cancelled_at)"
        update = _update(table.batch_key(batch_id), expression, _EXISTS, table.item(cancelled_at=_now()))
        try:
            # Before the jobs: a `create` under way then sees it after any job that the query below misses.
            self._write(self._client.update_item, update)
        except _Refused:
            raise BatchNotFound(batch_id) from None
        return self._cancel_jobs(batch_id)

    def _cancel_jobs(self, batch_id: str) -> int:
        """Cancel the jobs that have not ended; return their number."""
        items = self._query(batch_id, "sk, #status", {"#status": "status"})
        alive = (item["sk"] for item in items if _is_job(item) and _status(item) not in ENDED)
        values = table.item(status=JobStatus.CANCELLED, finished_at=_now())
        updates = (
            _update(table.item(batch_id=batch_id) | {"sk": sort_key}, _set(values), _NOT_ENDED, values)
            for sort_key in alive
        )
        return self._write_all(self._client.update_item, updates)

    @contextmanager
    def job(self, batch_id: str, job_id: str, *, retry: bool = False) -> Iterator[RunningJob]:
        """Start a job, run the block, and record the job's end.

        If the block ends normally, the job completes with the `items_extracted` that the block set. If the block
        raises, this attempt fails with the exception's class as its error code and the exception's text as its error
        message, and the exception propagates. That changes nothing if another worker has taken the job over meanwhile.
        An exception that is not an `Exception`, such as Ctrl-C, does not end the job: it stays `processing` for the
        next worker.

        Arguments and errors are those of `start`, and at the end those of `complete`. If the failure cannot be
        recorded, the block's exception propagates with a note.
        """
        running = RunningJob(self, batch_id, job_id, self.start(batch_id, job_id, retry=retry))
        try:
            yield running
        except Exception as error:
            items, code, text = running.items_extracted, type(error).__name__, str(error)
            try:
                self.fail(batch_id, job_id, code, text, items_extracted=items, attempt=running.attempt)
            except Exception as unrecorded:  # noqa: BLE001  # the block's exception matters more than any of these
                error.add_note(f"The failure of job {job_id} of batch {batch_id} was not recorded: {unrecorded}")
            raise
        self.complete(batch_id, job_id, running.items_extracted)

    def _change(
        self, batch_id: str, job_id: str, expression: str, condition: str, values: Item, *, answer: str = "NONE"
    ) -> Item:
        """Update a job on a condition; return the attributes that were asked for.

        Raises:
            _Refused: The job exists, and the condition does not hold.
            BatchNotFound: The batch does not exist.
            JobNotFound: The batch has no job with this id.
        """
        update = _update(table.job_key(batch_id, job_id), expression, condition, values) | {"ReturnValues": answer}
        try:
            attributes: Item = self._write(self._client.update_item, update).get("Attributes", {})
        except _Refused as refused:
            if refused.item:
                raise
        else:
            return attributes
        raise self._missing(batch_id, job_id)

    def _missing(self, batch_id: str, job_id: str) -> BatchNotFound | JobNotFound:
        """Return the error for a job that does not exist."""
        arguments = {"TableName": self._table, "Key": table.batch_key(batch_id), "ConsistentRead": True}
        answer = _call(self._client.get_item, arguments)
        return JobNotFound(batch_id, job_id) if "Item" in answer else BatchNotFound(batch_id)

    def _write(self, operation: Any, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # botocore's
        """Make a conditional write.

        Raises:
            _Refused: The condition does not hold.
        """
        arguments = arguments | {"TableName": self._table, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        try:
            return _call(operation, arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            raise _Refused(error.response.get("Item", {})) from error

    def _write_all(self, operation: Any, writes: Iterable[dict[str, Any]]) -> int:  # noqa: ANN401  # botocore's
        """Make conditional writes, several at a time; return how many conditions held.

        A failed condition is not an error; all other errors are raised.
        """

        def written(arguments: dict[str, Any]) -> bool:
            try:
                self._write(operation, arguments)
            except _Refused:
                return False
            return True

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return sum(sum(pool.map(written, some)) for some in batched(writes, _IN_LINE, strict=False))

    def _query(
        self, batch_id: str, attributes: str, names: dict[str, str] | None = None, *, limit: int | None = None
    ) -> Iterator[Item]:
        """Yield a batch's items by consistent reads of up to `limit` items: the `BATCH` item, then the jobs."""
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
        if limit:
            arguments["Limit"] = limit
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
        raise ServiceUnavailable(**_named(arguments)) from error
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"].get("Code", "")
        # botocore sets the code to the status if the body has none: it is truncated, or not from DynamoDB.
        if status >= _SERVER_ERROR or code in RETRYABLE_CODES or code.isdigit():
            raise ServiceUnavailable(**_named(arguments)) from error
        if code == "ResourceNotFoundException":
            error.add_note(f"There is no table {arguments['TableName']!r}.")
        raise
    return response


def _named(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the ids of the batch and the job that a request is about."""
    key = arguments.get("Key") or arguments.get("Item")
    if key is None:
        return {"batch_id": arguments["ExpressionAttributeValues"][":batch_id"]["S"]}
    job_id = {"job_id": key["sk"]["S"].removeprefix(JOB_PREFIX)} if _is_job(key) else {}
    return {"batch_id": key["batch_id"]["S"]} | job_id


def _now() -> str:
    return table.timestamp(datetime.now(UTC))


def _is_job(item: Item) -> bool:
    return item["sk"]["S"].startswith(JOB_PREFIX)


def _has_expired(item: Item) -> bool:
    return float(item.get("expires_at", {}).get("N", "inf")) <= time()


def _status(item: Item) -> str:
    """Return a job's status. A missing one counts as pending."""
    return item.get("status", {}).get("S", JobStatus.PENDING)


def _attempt(item: Item) -> int:
    """Return the number of a job's latest attempt: 0 if no attempt has a number."""
    return int(Decimal(item.get("attempt", {}).get("N", 0)))


def _not_by(attempt: int, batch_id: str, job_id: str, found: Item, wanted: JobStatus) -> IllegalTransition:
    return IllegalTransition(batch_id, job_id, _status(found), wanted, attempt=attempt, latest=_attempt(found))


# The attributes of a failure that must be equal for a repeated call to be a no-op, and the values of absent ones.
_FAILURE: Final = ("items_extracted", "error_code", "error_message")
_ABSENT: Final = table.item(items_extracted=0)


def _set(values: Item) -> str:
    """Return an expression that sets attributes to the values of the same names."""
    return "SET " + ", ".join(f"#{name} = :{name}" for name in values)


def _update(key: Item, expression: str, condition: str, values: Item) -> dict[str, Any]:
    """Return a conditional update. `values` and `_VALUES` have the values of its expressions."""
    text = f"{expression} {condition}"
    known = _VALUES | {f":{name}": value for name, value in values.items()}
    return {
        "Key": key,
        "UpdateExpression": expression,
        "ConditionExpression": condition,
        # DynamoDB refuses names and values that are not used.
        "ExpressionAttributeNames": {name: name[1:] for name in re.findall(r"#\w+", text)},
        "ExpressionAttributeValues": {name: known[name] for name in re.findall(r":\w+", text)},
    }
