"""What the deployment tells the code, read once from the environment; each function asks for what it needs alone."""

import os
from functools import cache
from typing import Annotated

import msgspec

from batch_progress.errors import ConfigurationError

TableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}\Z")]


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
    """

    tokens_table: TableName = msgspec.field(name="BATCH_PROGRESS_TOKENS_TABLE")


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


def _read[SettingsT: msgspec.Struct](kind: type[SettingsT]) -> SettingsT:
    values = {name: os.environ[name] for name in kind.__struct_encode_fields__ if name in os.environ}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The environment of this function is not complete: {error}") from None
