"""Parse a request into a `Query`.

A plain poll is parsed here. Only other requests import pydantic, which takes 60 ms.
"""

import re
from collections.abc import Mapping

from batch_progress.errors import InvalidRequest
from batch_progress.table import ID_PATTERN
from functions.progress.http import PARAMETERS
from functions.progress.query import Query

_id = re.compile(ID_PATTERN)


def http_query(batch_id: str, parameters: Mapping[str, str]) -> Query:
    """Make a query from the id in the path and the query string. Unknown parameters are ignored.

    Raises:
        InvalidRequest: A value is invalid. `details` has a reason for each.
    """
    known = {name: value for name, value in parameters.items() if name in PARAMETERS}
    if not known and _id.fullmatch(batch_id):
        return Query(batch_id)
    from functions.progress.parameters import HttpParameters, validated  # noqa: PLC0415  # imports pydantic

    return validated(HttpParameters, {"batch_id": batch_id, **known}).query()


def direct_query(event: object) -> tuple[Query, str | None]:
    """Make a query from a direct event. Return it with the owner that the batch must belong to, `None` for any.

    Raises:
        InvalidRequest: The event is not an object, has an unknown key, or a value is invalid.
    """
    from functions.progress.parameters import DirectEvent, validated  # noqa: PLC0415  # imports pydantic

    if not isinstance(event, dict):
        raise InvalidRequest(event="must be an object with a 'batch_id'")
    # JSON allows lone surrogates in a key, but the answer, which names invalid keys, cannot encode them.
    named = {str(name).encode(errors="replace").decode(): value for name, value in event.items()}
    parameters = validated(DirectEvent, named)
    return parameters.query(), parameters.owner_id
