"""Moments as the tables write them."""

from datetime import datetime


def timestamp(moment: datetime) -> str:
    """Return a moment in UTC as the tables write it, with milliseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
