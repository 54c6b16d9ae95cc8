"""A client of the progress API: ask how far a batch is, list its jobs, wait for its end. docs/client.md shows how.

It needs httpx, which `pip install "batch-progress[client]"` brings.
"""

from importlib.util import find_spec

if find_spec("httpx") is None:
    raise ImportError('batch_progress.client needs httpx: pip install "batch-progress[client]"', name="httpx")

from batch_progress.client.clients import AsyncProgressClient, ProgressClient
from batch_progress.client.errors import (
    AuthenticationError,
    InvalidRequest,
    NotFound,
    ProgressError,
    Stalled,
    Throttled,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from batch_progress.client.results import Estimate, Job, Progress, Reason, Statuses, Summary

__all__ = [
    "AsyncProgressClient",
    "AuthenticationError",
    "Estimate",
    "InvalidRequest",
    "Job",
    "NotFound",
    "Progress",
    "ProgressClient",
    "ProgressError",
    "Reason",
    "Stalled",
    "Statuses",
    "Summary",
    "Throttled",
    "TimedOut",
    "Unavailable",
    "UnexpectedAnswer",
]
