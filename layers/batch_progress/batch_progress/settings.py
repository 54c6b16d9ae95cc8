"""The functions' settings, read once from environment variables. Each function reads only its own."""

import os
from functools import cache
from typing import Annotated

import msgspec

from batch_progress.errors import ConfigurationError

TableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}\Z")]
QueueUrl = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s]+\Z")]
BusName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._/-]{1,256}\Z")]
# https, so that the issuer's keys cannot be replaced in transit; http only on loopback.
Issuer = Annotated[
    str,
    msgspec.Meta(pattern=r"^(https://[^\s?#]+|http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?(/[^\s?#]*)?)\Z"),
]


class _Common(msgspec.Struct, frozen=True):
    """The environment variable that all functions read.

    Attributes:
        jobs_table: `BATCH_PROGRESS_JOBS_TABLE`, the table of batches and their jobs.
    """

    jobs_table: TableName = msgspec.field(name="BATCH_PROGRESS_JOBS_TABLE")


class RevisionSettings(_Common, frozen=True):
    """The environment variables of the revision function.

    Attributes:
        checks_queue_url: `BATCH_PROGRESS_CHECKS_QUEUE_URL`, the queue of the supervisor's checks.
    """

    checks_queue_url: QueueUrl = msgspec.field(name="BATCH_PROGRESS_CHECKS_QUEUE_URL")


class SupervisorSettings(RevisionSettings, frozen=True):
    """The environment variables of the supervisor.

    Attributes:
        event_bus: `BATCH_PROGRESS_EVENT_BUS`, the name of the EventBridge bus for events.
    """

    event_bus: BusName = msgspec.field(name="BATCH_PROGRESS_EVENT_BUS")


class Settings(_Common, frozen=True):
    """The environment variables of the progress function.

    Attributes:
        tokens_table: `BATCH_PROGRESS_TOKENS_TABLE`, the table of token hashes.
        token_issuer: `BATCH_PROGRESS_TOKEN_ISSUER`, the issuer of session tokens, spelled as in their `iss`; `None` if
            session tokens are not accepted.
        token_audience: `BATCH_PROGRESS_TOKEN_AUDIENCE`, their accepted audiences, separated by commas.
        token_owner_claim: `BATCH_PROGRESS_TOKEN_OWNER_CLAIM`, the claim that has the owner.
    """

    tokens_table: TableName = msgspec.field(name="BATCH_PROGRESS_TOKENS_TABLE")
    token_issuer: Issuer | None = msgspec.field(name="BATCH_PROGRESS_TOKEN_ISSUER", default=None)
    token_audience: str = msgspec.field(name="BATCH_PROGRESS_TOKEN_AUDIENCE", default="")
    token_owner_claim: str = msgspec.field(name="BATCH_PROGRESS_TOKEN_OWNER_CLAIM", default="sub")

    def __post_init__(self) -> None:
        """Refuse an issuer without an audience: its tokens for any other application would be accepted."""
        if self.token_issuer and not self.audiences:
            raise ValueError("BATCH_PROGRESS_TOKEN_ISSUER needs BATCH_PROGRESS_TOKEN_AUDIENCE")

    @property
    def audiences(self) -> frozenset[str]:
        """The accepted audiences: a session token must have at least one of them."""
        return frozenset(name.strip() for name in self.token_audience.split(",") if name.strip())


@cache
def settings() -> Settings:
    """Return the progress function's settings.

    Raises:
        ConfigurationError: A variable is missing or invalid. The message names it.
    """
    return _read(Settings)


@cache
def revision_settings() -> RevisionSettings:
    """Return the revision function's settings; raises as `settings` does."""
    return _read(RevisionSettings)


@cache
def supervisor_settings() -> SupervisorSettings:
    """Return the supervisor's settings; raises as `settings` does."""
    return _read(SupervisorSettings)


@cache
def page_is_served() -> bool:
    """Return whether to serve the page of a batch: `BATCH_PROGRESS_WATCH_PAGE`, `true` when it is not set.

    Raises:
        ConfigurationError: The variable is neither `true` nor `false`. An empty one is an error too: it does not say
            whether the page is wanted.
    """
    value = os.environ.get("BATCH_PROGRESS_WATCH_PAGE", "true")
    if value not in {"true", "false"}:
        raise ConfigurationError("BATCH_PROGRESS_WATCH_PAGE must be true or false")
    return value == "true"


def _read[SettingsT: msgspec.Struct](kind: type[SettingsT]) -> SettingsT:
    # The template sets unused variables to an empty string, so an empty one counts as missing.
    values = {name: os.environ[name] for name in kind.__struct_encode_fields__ if os.environ.get(name)}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The function's environment variables are not valid: {error}") from None
