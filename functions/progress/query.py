"""What a caller asks for. Parameters are checked by pydantic, which a plain poll never imports."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from batch_progress.errors import InvalidRequest
from batch_progress.model import JobStatus
from functions.progress.cursor import Cursor

BATCH_ID: Final = "[A-Za-z0-9_-]{1,128}"
BATCH_ID_RULE: Final = "must be 1 to 128 of A-Z, a-z, 0-9, '_' and '-'"
PARAMETERS: Final = frozenset({"status", "limit", "cursor", "include"})
MOST_JOBS: Final = 1_000

_batch_id = re.compile(BATCH_ID)


@dataclass(frozen=True, slots=True)
class Query:
    """A question about one batch.

    Attributes:
        batch_id: The batch.
        status: Show only jobs of these; `None` for all.
        limit: Show at most so many jobs; `None` for all.
        cursor: Where the page before ended; `None` for the first page.
        details: Whether jobs come with times and failures.
        estimate: Whether the estimate's basis and interval come.
    """

    batch_id: str
    status: frozenset[JobStatus] | None = None
    limit: int | None = None
    cursor: Cursor | None = None
    details: bool = False
    estimate: bool = False

    @property
    def paged(self) -> bool:
        """Whether the caller takes the jobs page by page, and so is told of the next one."""
        return self.limit is not None or self.cursor is not None


def from_http(batch_id: str, parameters: Mapping[str, str]) -> Query:
    """Make a query of a path's id and a query string's last values; what is not known is left alone.

    Raises:
        InvalidRequest: A value is not as it should be; `details` has each.
    """
    known = {name: value for name, value in parameters.items() if name in PARAMETERS}
    if not known and _batch_id.fullmatch(batch_id):
        return Query(batch_id)
    from functions.progress.parameters import HttpParameters, validated  # noqa: PLC0415  # pydantic: 60 ms, once

    return validated(HttpParameters, {**known, "batch_id": batch_id}).query()


def from_direct(event: object) -> tuple[Query, str | None]:
    """Make a query of a direct event; return it with the owner that it is narrowed to, `None` for any.

    Raises:
        InvalidRequest: It is no object, has an unknown key, or a value is not as it should be.
    """
    from functions.progress.parameters import DirectEvent, validated  # noqa: PLC0415  # pydantic: 60 ms, once

    if not isinstance(event, dict):
        raise InvalidRequest(event="must be an object with a 'batch_id'")
    # JSON can hold half of a letter, which can't be named in an answer.
    named = {str(name).encode(errors="replace").decode(): value for name, value in event.items()}
    parameters = validated(DirectEvent, named)
    return parameters.query(), parameters.owner_id
