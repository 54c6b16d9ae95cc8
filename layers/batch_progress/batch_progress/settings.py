"""What the deployment tells the code, read once from the environment; each function asks for what it needs alone."""

import os
from functools import cache
from typing import Annotated

import msgspec

from batch_progress.errors import ConfigurationError

TableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}\Z")]
# Keys that vouch for clients come over TLS, but for an issuer on this machine.
Issuer = Annotated[
    str,
    msgspec.Meta(pattern=r"^(https://[^\s?#]+|http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?(/[^\s?#]*)?)\Z"),
]


class RevisionSettings(msgspec.Struct, frozen=True):
    """The environment variables that the revision function needs.

    Attributes:
        jobs_table: `BATCH_PROGRESS_JOBS_TABLE`, batches and their jobs.
    """

    jobs_table: TableName = msgspec.field(name="BATCH_PROGRESS_JOBS_TABLE")


class Settings(RevisionSettings, frozen=True):
    """Those that the progress function needs.

    Attributes:
        tokens_table: `BATCH_PROGRESS_TOKENS_TABLE`, hashes of the tokens that were issued.
        token_issuer: `BATCH_PROGRESS_TOKEN_ISSUER`, whose session tokens are taken, as their `iss` spells it; `None`
            where none are.
        token_audience: `BATCH_PROGRESS_TOKEN_AUDIENCE`, whom they must be meant for, several divided by commas.
        token_owner_claim: `BATCH_PROGRESS_TOKEN_OWNER_CLAIM`, the claim that says whose they are.
    """

    tokens_table: TableName = msgspec.field(name="BATCH_PROGRESS_TOKENS_TABLE")
    token_issuer: Issuer | None = msgspec.field(name="BATCH_PROGRESS_TOKEN_ISSUER", default=None)
    token_audience: str = msgspec.field(name="BATCH_PROGRESS_TOKEN_AUDIENCE", default="")
    token_owner_claim: str = msgspec.field(name="BATCH_PROGRESS_TOKEN_OWNER_CLAIM", default="sub")

    def __post_init__(self) -> None:
        """Refuse an issuer whose tokens for anybody else would be taken, too."""
        if self.token_issuer and not self.audiences:
            raise ValueError("BATCH_PROGRESS_TOKEN_ISSUER needs BATCH_PROGRESS_TOKEN_AUDIENCE")

    @property
    def audiences(self) -> frozenset[str]:
        """Whom session tokens must be meant for, one of them at least."""
        return frozenset(name.strip() for name in self.token_audience.split(",") if name.strip())


@cache
def settings() -> Settings:
    """Return the progress function's settings.

    Raises:
        ConfigurationError: A variable is missing or no table's name; the message names it.
    """
    return _read(Settings)


@cache
def revision_settings() -> RevisionSettings:
    """Return the revision function's settings; raises as `settings` does."""
    return _read(RevisionSettings)


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
    # A template has no way to leave a variable out: an empty one counts as absent.
    values = {name: os.environ[name] for name in kind.__struct_encode_fields__ if os.environ.get(name)}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The environment of this function is not complete: {error}") from None
