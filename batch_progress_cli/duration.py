"""Durations as people write and read them: `15m`, `2m 05s`."""

import re
from datetime import timedelta

from batch_progress_cli.failure import Failed

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def duration(text: str) -> timedelta:
    """Parse `90s`, `15m`, `12h`, `30d` or `4w`.

    Raises:
        Failed: The text has another form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhdw])", text)
    if not match:
        raise Failed(f"{text!r} is not a time span; give one as 90s, 15m, 12h, 30d or 4w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def span(seconds: float) -> str:
    """Format seconds with the two largest units, as `2m 05s`; a negative number counts as 0."""
    whole = max(round(seconds), 0)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"
