"""All exceptions of the client, as one small tree.

* ProgressError
  * AuthenticationError    401, 403   no token, or one that is not valid (any more)
  * NotFound               404        no such batch, or it belongs to another owner
  * InvalidRequest         4xx        an argument is not valid; `details` says which
  * UnexpectedAnswer                  not an answer of this API (a redirect, a proxy's page), or no path of it
  * Unavailable            5xx, 408   no usable answer, after the retries
    * Throttled            429        too many requests, after the retries
  * TimedOut                          `wait` took longer than its `timeout`
  * Stalled                           `wait` gave up on a batch that has stalled

None of them holds a request, a header or a token, and none has an exception of httpx in its chain.
"""

from collections.abc import Mapping

from batch_progress.client.results import Progress


class ProgressError(Exception):
    """Anything that the client raises.

    Attributes:
        code: The API's code, such as `BATCH_NOT_FOUND`; `""` if the API did not make the error.
        status: The HTTP status; `None` without an answer.
        details: What the error is about. Of an invalid request: each invalid field with the reason.
        trace_id: Identifies the request in the service's logs; `""` if unknown.
        retry_after: After how many seconds the API asked to come back; `None` if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        details: Mapping[str, object] | None = None,
        trace_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.details = dict(details or {})
        self.trace_id = trace_id
        self.retry_after = retry_after


class AuthenticationError(ProgressError):
    """The API does not accept the token."""


class NotFound(ProgressError):
    """The batch does not exist, has expired or belongs to another owner. The API does not say which."""


class InvalidRequest(ProgressError):
    """The API refuses the request, or an argument cannot be sent."""


class UnexpectedAnswer(ProgressError):
    """The address is wrong, or the answer is not of this API; another try would not help."""


class Unavailable(ProgressError):
    """No usable answer came: no connection, a time-out, a damaged body, or an error of the server."""


class Throttled(Unavailable):
    """The API has too many requests."""


class TimedOut(ProgressError):
    """The batch did not end in time.

    Attributes:
        progress: The last state of the batch; `None` if no answer came.
    """

    def __init__(self, message: str, progress: Progress | None = None) -> None:
        super().__init__(message)
        self.progress = progress


class Stalled(ProgressError):
    """Jobs are left, and nothing has moved for longer than a job may take.

    Attributes:
        progress: The last state of the batch.
        seconds: For how long the client has seen it stalled.
    """

    def __init__(self, message: str, progress: Progress | None = None, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.progress = progress
        self.seconds = seconds
