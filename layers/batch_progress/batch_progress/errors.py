"""All errors, as one small tree. They are independent of HTTP: `functions/progress/envelope.py` maps codes to statuses.

* BatchProgressError
  * AuthenticationError
    * AuthenticationRequired
    * CredentialRefused
  * BatchNotFound
  * JobNotFound
  * BatchConflict
  * IllegalTransition
  * InvalidRequest
  * ServiceUnavailable
    * CountUnderWay
    * BatchTooLarge
  * ConfigurationError
"""

import copyreg
from collections.abc import Mapping
from typing import Any, ClassVar


class BatchProgressError(Exception):
    """An error that a caller sees: in the envelope of a response, or as an exception of the recorder.

    Attributes:
        code: Stable identifier, for programs.
        message: One sentence for people.
        system_message: A short fixed text for logs and alarms.
        details: The values that the error is about, by name. Never a secret, never another tenant's data.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    message: ClassVar[str] = "Something went wrong on our side. Please try again."
    system_message: ClassVar[str] = "Internal error"

    def __init__(self, **details: str) -> None:
        super().__init__(self.system_message)
        self.details: Mapping[str, str] = details

    def __str__(self) -> str:
        """Return the fixed text and the details, such as `Batch not found (batch_id: batch_xyz789)`."""
        details = ", ".join(f"{name}: {value}" for name, value in self.details.items())
        return f"{self.system_message} ({details})" if details else self.system_message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling `__init__`, whose arguments differ by class. A process pool pickles exceptions."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # pickle's own


class AuthenticationError(BatchProgressError):
    """The caller could not be authenticated."""


class AuthenticationRequired(AuthenticationError):
    """The request has no credentials."""

    code = "AUTHENTICATION_REQUIRED"
    message = "Send your token as 'Authorization: Bearer <token>' or 'X-API-Key: <token>'."
    system_message = "Authentication required"


class CredentialRefused(AuthenticationError):
    """The request's credential is not valid. The subclasses distinguish the reason, and bearer tokens from API keys."""


class TokenInvalid(CredentialRefused):
    """The bearer token is malformed, unknown or revoked."""

    code = "TOKEN_INVALID"
    message = "This bearer token is not valid."
    system_message = "Invalid token"


class AuthorizationMalformed(TokenInvalid):
    """`Authorization` has another scheme than `Bearer`, has no token, or was sent twice with different values."""

    message = "The Authorization header must be 'Bearer <token>', and must be sent once."


class TokenExpired(CredentialRefused):
    """The bearer token has expired."""

    code = "TOKEN_EXPIRED"
    message = "This bearer token has expired."
    system_message = "Token expired"


class TokenMissingSubject(CredentialRefused):
    """The session token is valid, but has no usable owner claim."""

    code = "TOKEN_MISSING_SUBJECT"
    message = "This bearer token does not name its owner."
    system_message = "Token without an owner claim"


class ApiKeyInvalid(CredentialRefused):
    """The API key is malformed or unknown."""

    code = "INVALID_API_KEY"
    message = "This API key is not valid."
    system_message = "Invalid API key"


class ApiKeyExpired(CredentialRefused):
    """The API key has expired."""

    code = "API_KEY_EXPIRED"
    message = "This API key has expired."
    system_message = "API key expired"


class ApiKeyDeactivated(CredentialRefused):
    """The API key has been revoked."""

    code = "API_KEY_DEACTIVATED"
    message = "This API key has been deactivated."
    system_message = "API key deactivated"


class BatchNotFound(BatchProgressError):
    """The batch does not exist, has expired or belongs to another owner. The caller cannot see which."""

    code = "BATCH_NOT_FOUND"
    message = "No batch with this id belongs to you."
    system_message = "Batch not found"

    def __init__(self, batch_id: str) -> None:
        super().__init__(batch_id=batch_id)


class JobNotFound(BatchProgressError):
    """The batch exists, but has no job with this id."""

    code = "JOB_NOT_FOUND"
    message = "This batch has no job with this id."
    system_message = "Job not found"

    def __init__(self, batch_id: str, job_id: str) -> None:
        super().__init__(batch_id=batch_id, job_id=job_id)


class BatchConflict(BatchProgressError):
    """The batch id is in use: by another owner, by a batch with other values, or by jobs of an expired batch.

    Or the batch has been cancelled: then `details` has `cancelled_at`.
    """

    code = "BATCH_CONFLICT"
    message = "Another batch already uses this id."
    system_message = "Batch conflict"

    def __init__(self, batch_id: str, **more: str) -> None:
        super().__init__(batch_id=batch_id, **more)

    def __str__(self) -> str:
        """Name the batch and say what is in the way, but not whose it is."""
        batch = f"Batch {self.details['batch_id']}"
        if cancelled_at := self.details.get("cancelled_at"):
            return f"{batch} was cancelled at {cancelled_at}: it gets no more jobs"
        return (
            f"{batch} has another owner or other URLs, job ids, parallel_jobs or timeout_per_url, or it has expired: "
            "use a new id"
        )


class IllegalTransition(BatchProgressError):
    """A job cannot change to the requested status, or already has it with other values. The job is unchanged.

    Attributes:
        current: The job's status.
        wanted: The requested status.
        attempt: The attempt that made the call, if it named its number.
        latest: The job's latest attempt, if the call named a number; 0 if the job has had none.
    """

    code = "ILLEGAL_TRANSITION"
    message = "The job's current status does not allow this change."
    system_message = "Illegal transition"

    def __init__(
        self,
        batch_id: str,
        job_id: str,
        current: str,
        wanted: str,
        *,
        attempt: int | None = None,
        latest: int | None = None,
    ) -> None:
        numbers = {"attempt": attempt, "latest": latest}
        given = {name: str(number) for name, number in numbers.items() if number is not None}
        super().__init__(batch_id=batch_id, job_id=job_id, current=current, wanted=wanted, **given)
        self.current = current
        self.wanted = wanted
        self.attempt = attempt
        self.latest = latest

    def __str__(self) -> str:
        """Name the job, both statuses and the attempts."""
        job = f"Job {self.details['job_id']} of batch {self.details['batch_id']}"
        if self.attempt != self.latest:
            latest = f"attempt {self.latest} is the latest" if self.latest else "it has had no attempt"
            return f"{job} is {self.current}, and attempt {self.attempt} cannot change it: {latest}"
        if self.current == self.wanted:
            return f"{job} is already {self.current}, with other values"
        again = "; retry=True starts it again" if (self.current, self.wanted) == ("failed", "processing") else ""
        return f"{job} cannot change from {self.current} to {self.wanted}{again if self.attempt is None else ''}"


class InvalidRequest(BatchProgressError):
    """The request is invalid; `details` has the reason for each invalid field."""

    code = "VALIDATION_ERROR"
    message = "The request is not valid; 'details' says which fields and why."
    system_message = "Validation failed"


class ServiceUnavailable(BatchProgressError):
    """DynamoDB (after the retries) or the issuer of session tokens gave no usable response in time."""

    code = "SERVICE_UNAVAILABLE"
    message = "The service is temporarily unavailable. Please try again shortly."
    system_message = "Service unavailable"


class CountUnderWay(ServiceUnavailable):
    """Another request is counting the batch, and did not finish in time."""

    system_message = "Count under way"


class BatchTooLarge(ServiceUnavailable):
    """The batch has too many jobs to be counted in time."""

    message = "This batch is too large to be counted in time. Please try again in a minute."
    system_message = "Batch too large"


class ConfigurationError(BatchProgressError):
    """The deployment's configuration is wrong. `str(error)` says how, for the log; the caller sees `INTERNAL_ERROR`."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason. It is not in `details`, because callers see them."""
        return self.reason
