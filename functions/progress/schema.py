"""The answer's shape: what is encoded, and what the OpenAPI document is made from."""

from typing import Annotated, Literal

import msgspec

from batch_progress.model import Job
from batch_progress.progress import Basis

_EXAMPLE_TIME = "2024-12-16T10:35:00Z"
Natural = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$",
        description="RFC 3339 in UTC, whole seconds.",
        examples=[_EXAMPLE_TIME],
    ),
]


class EstimateView(msgspec.Struct, frozen=True):
    """What `estimated_completion` is made from, and how sure it is."""

    basis: Basis
    earliest: Moment
    latest: Moment
    confidence: float


class ProgressView(msgspec.Struct, frozen=True):
    """How far a batch is. `completed`, `failed` and `pending` sum to `total_urls`."""

    batch_id: str
    total_urls: Natural
    completed: Natural
    failed: Natural
    pending: Natural
    total_items_extracted: Natural
    estimated_completion: Moment
    # Jobs are encoded page by page as they are read, and put in whole.
    jobs: list[Job] | msgspec.Raw
    estimate: EstimateView | msgspec.UnsetType = msgspec.UNSET
    next_cursor: str | None | msgspec.UnsetType = msgspec.UNSET


class ProgressAnswer(msgspec.Struct, frozen=True):
    """The envelope of an answer."""

    success: Literal[True]
    data: ProgressView
