"""Validate requests with pydantic models."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from batch_progress.errors import InvalidRequest
from batch_progress.table import ID_PATTERN, ID_RULE, JobStatus
from functions.progress.cursor import Cursor, InvalidCursor
from functions.progress.query import Query

MOST_JOBS: Final = 1_000

INCLUDES: Final = ("details", "estimate", "summary")
_LIMIT_RULE: Final = f"must be a whole number from 0 to {MOST_JOBS}"
_limit = re.compile(r"[0-9]{1,4}\Z")
# An answer lists at most this many invalid fields.
_MOST_REASONS: Final = 20


def _refuse(rule: str) -> PydanticCustomError:
    return PydanticCustomError("rule", rule)


def _batch_id(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(ID_PATTERN, value):
        raise _refuse(ID_RULE)
    return value


def _chosen(value: object, names: tuple[str, ...]) -> frozenset[str]:
    """Return the names in a list or a comma-separated string."""
    chosen = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(chosen, list)
        or not chosen
        or not all(isinstance(name, str) and name in names for name in chosen)
    ):
        raise _refuse("must be one or more of " + ", ".join(names) + "; separated by commas, without spaces")
    return frozenset(chosen)


def _statuses(value: object) -> frozenset[JobStatus]:
    return frozenset(map(JobStatus, _chosen(value, tuple(JobStatus))))


def _includes(value: object) -> frozenset[str]:
    return _chosen(value, INCLUDES)


def _most_jobs(value: object) -> int:
    if isinstance(value, str) and _limit.match(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_JOBS:
        raise _refuse(_LIMIT_RULE)
    return value


def _cursor(value: object, info: ValidationInfo) -> Cursor | None:
    batch_id = info.data.get("batch_id")
    if batch_id is None:
        # The batch id is invalid and reported; a cursor is only valid for its batch.
        return None
    if not isinstance(value, str):
        raise _refuse(Cursor.RULE)
    try:
        return Cursor.decode(value, batch_id)
    except InvalidCursor as error:
        raise _refuse(str(error)) from None


def _owner_id(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _refuse("must be a non-empty string; omit it to allow any owner's batch")
    return value


class HttpParameters(BaseModel):
    """The parameters of the HTTP endpoint, in the path and in the query string."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    batch_id: Annotated[
        str, BeforeValidator(_batch_id), Field(description="The batch's id.", pattern=f"^{ID_PATTERN}$")
    ]
    status: Annotated[
        frozenset[JobStatus] | None,
        BeforeValidator(_statuses),
        Field(
            description="List only jobs with these statuses, separated by commas. The counts are still those of "
            "the whole batch."
        ),
    ] = None
    limit: Annotated[
        int | None,
        BeforeValidator(_most_jobs),
        Field(description="List at most this many jobs. 0: only the counts. Without it: all jobs.", ge=0, le=MOST_JOBS),
    ] = None
    cursor: Annotated[
        Cursor | None,
        PlainValidator(_cursor, json_schema_input_type=str),
        Field(description="The `next_cursor` of the previous page: continue where that ended."),
    ] = None
    include: Annotated[
        frozenset[str],
        BeforeValidator(_includes),
        Field(
            description="What to add to the answer, separated by commas. `details`: the times and the error of each "
            "job. `estimate`: the interval around `estimated_completion`. `summary`: the jobs by status and the "
            "reasons of failures, on the first page."
        ),
    ] = frozenset()

    def query(self) -> Query:
        """Return the parameters as a query."""
        return Query(
            batch_id=self.batch_id,
            status=self.status,
            limit=self.limit,
            cursor=self.cursor,
            details="details" in self.include,
            estimate="estimate" in self.include,
            summary="summary" in self.include,
        )


class DirectEvent(HttpParameters):
    """The event of a direct invocation. IAM authenticates the caller."""

    model_config = ConfigDict(extra="forbid")

    owner_id: Annotated[
        str | None,
        BeforeValidator(_owner_id),
        Field(description="Answer only if the batch belongs to this owner."),
    ] = None


def validated[ModelT: BaseModel](model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Validate `values`.

    Raises:
        InvalidRequest: `details` has a reason for each invalid field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        reasons = {
            str(fault["loc"][0])[:100]: _REASONS.get(fault["type"], fault["msg"])
            for fault in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_REASONS]
        }
    raise InvalidRequest(**reasons)


_REASONS: Final = {"missing": "is missing", "extra_forbidden": "is not a known key"}
