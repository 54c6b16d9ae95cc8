"""Checks of arguments before anything is sent. What the API checks is left to it."""

from collections.abc import Iterable
from numbers import Real

from batch_progress.client.errors import InvalidRequest


def seconds(name: str, value: object) -> float:
    """Return a number of seconds.

    Raises:
        InvalidRequest: It is none: a text such as "5m", a `timedelta`, `None`.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or value != value:  # noqa: PLR0124  # only NaN differs
        raise InvalidRequest(f"{name} must be a number of seconds, not {value!r}")
    return float(value)


def statuses(value: object) -> str:
    """Return the statuses of a list of jobs, separated by commas.

    Raises:
        InvalidRequest: It is neither a text nor a collection of texts.
    """
    if isinstance(value, str):
        return value
    texts = list(value) if isinstance(value, Iterable) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"status must be a status, or several in a list, not {value!r}")
    return ",".join(texts)


def http_client[HttpT](value: HttpT | None, kind: type[HttpT]) -> HttpT | None:
    """Return a client of httpx that the caller gave.

    Raises:
        InvalidRequest: It is another object: that of the other kind, or a class.
    """
    if value is not None and not isinstance(value, kind):
        raise InvalidRequest(f"http must be an httpx.{kind.__name__}, not {value!r}")
    return value
