"""The JSON structure of answers and errors. `scripts/openapi.py` generates the OpenAPI document from it."""

from typing import Annotated, Any, Literal

import msgspec

from batch_progress.progress import LONGEST_CODE, MOST_FAILURES, Basis
from batch_progress.table import WORKER_LOST, JobStatus

# The schema of jobs in the OpenAPI document.
JOB_SCHEMA = "#/components/schemas/Job"

_EXAMPLE_TIME = "2024-12-16T10:35:00Z"
_MOMENT_FORMAT = "RFC 3339 in UTC, whole seconds."
# The tables allow numbers of 64 bits; generated clients would otherwise use 32.
Natural = Annotated[int, msgspec.Meta(ge=0, extra_json_schema={"format": "int64"})]
Moment = Annotated[
    str,
    msgspec.Meta(description=_MOMENT_FORMAT, examples=[_EXAMPLE_TIME], extra_json_schema={"format": "date-time"}),
]


class Estimate(msgspec.Struct, frozen=True):
    """The interval around `estimated_completion`, and what the estimate is based on."""

    basis: Annotated[
        Basis,
        msgspec.Meta(
            description="`declared`: no job has ended, so the estimate relies on the declared workers and timeout, or "
            "on defaults. `observed`: at least one job has ended. `stalled`: some jobs have not ended, but none has "
            "moved for longer than a job may take. `finished`: all jobs have ended; `earliest`, `latest` "
            "and `estimated_completion` are equal."
        ),
    ]
    earliest: Annotated[Moment, msgspec.Meta(description=f"The start of the interval. {_MOMENT_FORMAT}")]
    latest: Annotated[Moment, msgspec.Meta(description=f"The end of the interval. {_MOMENT_FORMAT}")]
    confidence: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=1,
            description="The probability that the batch ends between `earliest` and `latest`.",
            extra_json_schema={"format": "double"},
        ),
    ]


class Reason(msgspec.Struct, frozen=True):
    """The number of jobs that failed for one reason."""

    error_code: Annotated[
        str | None,
        msgspec.Meta(
            description=f"Their error code, cut to {LONGEST_CODE} characters. `null`: they have none. `{WORKER_LOST}`: "
            "their worker showed no sign of life for longer than the batch allows."
        ),
    ]
    jobs: Annotated[
        int,
        msgspec.Meta(
            ge=1, description="The number of jobs that failed with this code.", extra_json_schema={"format": "int64"}
        ),
    ]


class Summary(msgspec.Struct, frozen=True):
    """The jobs by status, and the reasons of failures."""

    statuses: Annotated[
        dict[JobStatus, Natural],
        msgspec.Meta(
            description="The number of jobs of each status. They sum to `total_urls`: declared URLs without a job are "
            "`pending`, or `cancelled` if the batch is cancelled.",
            extra_json_schema={
                "title": "Statuses",
                "properties": {
                    status: {
                        "description": f"The number of jobs whose status is `{status}`.",
                        "type": "integer",
                        "minimum": 0,
                        "format": "int64",
                    }
                    for status in JobStatus
                },
                "required": list(JobStatus),
            },
        ),
    ]
    failures: Annotated[
        list[Reason],
        msgspec.Meta(
            description=f"The {MOST_FAILURES} most frequent error codes of jobs whose status is `failed`, the most "
            "frequent first."
        ),
    ]
    as_of: Annotated[
        Moment,
        msgspec.Meta(
            description="When the jobs were counted. An answer with `limit` may give the last count of a large batch: "
            f"all counts and the estimate are then of this moment. {_MOMENT_FORMAT}"
        ),
    ]


class Progress(msgspec.Struct, frozen=True):
    """The progress of a batch. `completed`, `failed` and `pending` sum to `total_urls`."""

    batch_id: Annotated[str, msgspec.Meta(description="The batch's id, as in the request.")]
    total_urls: Annotated[
        Natural,
        msgspec.Meta(description="The declared number of URLs, or the number of jobs if that is larger."),
    ]
    completed: Annotated[Natural, msgspec.Meta(description="Jobs whose status is `completed`.")]
    failed: Annotated[
        Natural,
        msgspec.Meta(
            description="Jobs whose status is `failed` or `cancelled`, together; in a cancelled batch also the "
            "declared URLs without a job. `include=summary` gives each status by itself."
        ),
    ]
    pending: Annotated[
        Natural,
        msgspec.Meta(
            description="What is left to do: jobs whose status is `pending` or `processing`, and declared URLs that "
            "have no job yet unless the batch is cancelled. At 0 the batch is finished."
        ),
    ]
    total_items_extracted: Annotated[
        Natural, msgspec.Meta(description="The items extracted by all jobs, whatever their status.")
    ]
    estimated_completion: Annotated[
        Moment,
        msgspec.Meta(
            description="When the batch is expected to end. Of a finished batch: when its last job ended or the batch "
            f"was cancelled, or if neither is recorded, when the batch was created. {_MOMENT_FORMAT}"
        ),
    ]
    # Jobs are encoded page by page as they are read, and inserted as raw JSON.
    jobs: Annotated[
        msgspec.Raw,
        msgspec.Meta(
            description="The jobs of this page, in the order of `job_id`. `include=details` adds the times and the "
            "error of each job.",
            extra_json_schema={"type": "array", "items": {"$ref": JOB_SCHEMA}},
        ),
    ]
    estimate: Annotated[
        Estimate | msgspec.UnsetType,
        msgspec.Meta(description="With `include=estimate`: the interval around `estimated_completion`."),
    ] = msgspec.UNSET
    summary: Annotated[
        Summary | msgspec.UnsetType,
        msgspec.Meta(
            description="With `include=summary`, on the first page only: the jobs by status, and the reasons of "
            "failures."
        ),
    ] = msgspec.UNSET
    next_cursor: Annotated[
        str | msgspec.UnsetType | None,
        msgspec.Meta(
            description="The `cursor` of the next page; `null` on the last page and with `limit=0`. Present if the "
            "request has `limit` or `cursor`, or if the answer ends early because it would be too large."
        ),
    ] = msgspec.UNSET


class ProgressResponse(msgspec.Struct, frozen=True):
    """The envelope of an answer."""

    success: Annotated[Literal[True], msgspec.Meta(description="`true`; an error has `false`.")]
    data: Annotated[Progress, msgspec.Meta(description="The progress of the batch.")]


class ApiError(msgspec.Struct, frozen=True):
    """What went wrong."""

    code: Annotated[str, msgspec.Meta(description="Stable identifier of the error, for programs.")]
    message: Annotated[str, msgspec.Meta(description="One sentence for people.")]
    system_message: Annotated[str, msgspec.Meta(description="A short fixed text for logs and alarms.")]
    type: Annotated[
        Literal["client_error", "server_error"],
        msgspec.Meta(description="Whether the request is at fault or the service."),
    ]
    status: Annotated[int, msgspec.Meta(description="The HTTP status.", ge=400, le=599)]
    details: Annotated[
        dict[str, Any],
        msgspec.Meta(
            description="The values that the error is about. In a `422`: each invalid field with the reason.",
            extra_json_schema={"additionalProperties": True},
        ),
    ]
    trace_id: Annotated[str, msgspec.Meta(description="Identifies the request in traces and logs.")]
    timestamp: Annotated[
        Moment | None,
        msgspec.Meta(description="When the error occurred; `null` if API Gateway made the error."),
    ]


class ErrorResponse(msgspec.Struct, frozen=True):
    """The envelope of an error."""

    success: Annotated[Literal[False], msgspec.Meta(description="`false`.")]
    error: Annotated[ApiError, msgspec.Meta(description="The error.")]
