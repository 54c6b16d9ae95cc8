"""The answer's shape: what is encoded, and what the OpenAPI document is made from."""

from typing import Annotated, Any, Literal

import msgspec

from batch_progress.progress import Basis

# Where the OpenAPI document keeps the shapes of jobs.
JOB_SCHEMA = "#/components/schemas/Job"
DETAILED_JOB_SCHEMA = "#/components/schemas/DetailedJob"

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
    jobs: Annotated[
        msgspec.Raw,
        msgspec.Meta(
            description="In the order of `job_id`; with their details where `include=details` asks for them.",
            extra_json_schema={
                "type": "array",
                "items": {"anyOf": [{"$ref": JOB_SCHEMA}, {"$ref": DETAILED_JOB_SCHEMA}]},
            },
        ),
    ]
    estimate: EstimateView | msgspec.UnsetType = msgspec.UNSET
    next_cursor: str | msgspec.UnsetType | None = msgspec.UNSET


class ProgressAnswer(msgspec.Struct, frozen=True):
    """The envelope of an answer."""

    success: Literal[True]
    data: ProgressView


class ErrorView(msgspec.Struct, frozen=True):
    """What went wrong."""

    code: Annotated[str, msgspec.Meta(description="Stable name of the failure, for programs.")]
    message: Annotated[str, msgspec.Meta(description="One sentence for a person.")]
    system_message: str
    type: Literal["client_error", "server_error"]
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    details: Annotated[dict[str, Any], msgspec.Meta(description="In a 422 the reason of each bad field.")]
    trace_id: str
    timestamp: Annotated[
        Moment | None,
        msgspec.Meta(description="When it was told; `null` where the gateway told it."),
    ]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The envelope of an error."""

    success: Literal[False]
    error: ErrorView
