"""Everything that can go wrong, as one small tree. None of it knows of HTTP.

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
  * ConfigurationError
"""

import copyreg
from collections.abc import Mapping
from typing import Any, ClassVar


class BatchProgressError(Exception):
    """A failure that a caller is told about.

    Attributes:
        code: Stable name of the failure, for programs.
        message: One sentence for the person at the other end.
        system_message: A short fixed text for logs and alarms.
        details: What the failure is about; never a secret, never another tenant's.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    message: ClassVar[str] = "Something went wrong on our side. Please try again."
    system_message: ClassVar[str] = "Internal error"

    def __init__(self, **details: str) -> None:
        """Keep `details`; the texts are those of the class."""
        super().__init__(self.system_message)
        self.details: Mapping[str, str] = details

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error cross from one process to another, as a pool of them hands it over, whatever it is made from."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # pickle's own


class AuthenticationError(BatchProgressError):
    """The caller did not show who it is."""


class AuthenticationRequired(AuthenticationError):
    """No credentials came with the request."""

    code = "AUTHENTICATION_REQUIRED"
    message = "Send your token as 'Authorization: Bearer <token>' or 'X-API-Key: <token>'."
    system_message = "Authentication required"


class CredentialRefused(AuthenticationError):
    """A credential came and is not good. The subclasses say why, and by which header it came."""


class TokenInvalid(CredentialRefused):
    """A bearer token that is malformed, unknown or revoked."""

    code = "TOKEN_INVALID"
    message = "This bearer token is not valid."
    system_message = "Invalid token"


class TokenExpired(CredentialRefused):
    """A bearer token past its expiry."""

    code = "TOKEN_EXPIRED"
    message = "This bearer token has expired."
    system_message = "Token expired"


class TokenMissingSubject(CredentialRefused):
    """A session token that is good and does not say whose it is."""

    code = "TOKEN_MISSING_SUBJECT"
    message = "This bearer token does not say whose it is."
    system_message = "Token without its owner's claim"


class ApiKeyInvalid(CredentialRefused):
    """An API key that is malformed or unknown."""

    code = "INVALID_API_KEY"
    message = "This API key is not valid."
    system_message = "Invalid API key"


class ApiKeyExpired(CredentialRefused):
    """An API key past its expiry."""

    code = "API_KEY_EXPIRED"
    message = "This API key has expired."
    system_message = "API key expired"


class ApiKeyDeactivated(CredentialRefused):
    """An API key that was revoked."""

    code = "API_KEY_DEACTIVATED"
    message = "This API key has been deactivated."
    system_message = "API key deactivated"


class BatchNotFound(BatchProgressError):
    """No batch with this id belongs to the caller: missing, expired or another owner's, told alike."""

    code = "BATCH_NOT_FOUND"
    message = "No batch with this id belongs to you."
    system_message = "Batch not found"

    def __init__(self, batch_id: str) -> None:
        """Name the batch that was asked for."""
        super().__init__(batch_id=batch_id)


class JobNotFound(BatchProgressError):
    """The batch is there, and has no such job."""

    code = "JOB_NOT_FOUND"
    message = "This batch has no job with this id."
    system_message = "Job not found"

    def __init__(self, batch_id: str, job_id: str) -> None:
        """Name the job that was asked for."""
        super().__init__(batch_id=batch_id, job_id=job_id)


class BatchConflict(BatchProgressError):
    """The id is taken by a batch that is not the one to be made: another owner's, or one with other values."""

    code = "BATCH_CONFLICT"
    message = "This batch id is taken by another batch."
    system_message = "Batch conflict"

    def __init__(self, batch_id: str) -> None:
        """Name the batch, never whose it is."""
        super().__init__(batch_id=batch_id)


class IllegalTransition(BatchProgressError):
    """A job cannot go from its state to the one asked for, or is there already with other values.

    Attributes:
        current: The state it is in, and stays in.
        wanted: The state it was to go to.
    """

    code = "ILLEGAL_TRANSITION"
    message = "The job is in a state from which it cannot go to this one."
    system_message = "Illegal transition"

    def __init__(self, batch_id: str, job_id: str, current: str, wanted: str) -> None:
        """Name the job and both states."""
        super().__init__(batch_id=batch_id, job_id=job_id, current=current, wanted=wanted)
        self.current = current
        self.wanted = wanted

    def __str__(self) -> str:
        """Say both states."""
        job = f"{self.details['job_id']} of {self.details['batch_id']}"
        if self.current == self.wanted:
            return f"{job} is {self.current} already, with other values"
        return f"{job} cannot go from {self.current} to {self.wanted}"


class InvalidRequest(BatchProgressError):
    """The caller asked for something that cannot be; `details` says what and why, by field."""

    code = "VALIDATION_ERROR"
    message = "The request is not valid; 'details' says which fields and why."
    system_message = "Validation failed"


class ServiceUnavailable(BatchProgressError):
    """DynamoDB, or the issuer of session tokens, was away, too slow or sent a damaged answer, after the retries."""

    code = "SERVICE_UNAVAILABLE"
    message = "The service cannot answer just now. Please try again shortly."
    system_message = "Service unavailable"


class ConfigurationError(BatchProgressError):
    """The deployment is wrong, not the caller: `str(error)` names the setting, the caller sees a plain 500."""

    def __init__(self, reason: str) -> None:
        """Keep `reason` for the log; it is not for the caller."""
        super().__init__()
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason
