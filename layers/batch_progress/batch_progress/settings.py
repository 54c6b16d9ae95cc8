"""What the deployment tells the code, read once from the environment."""

import os
from functools import cache
from typing import Annotated

import msgspec

from batch_progress.errors import ConfigurationError

TableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}\Z")]


class Settings(msgspec.Struct, frozen=True):
    """The environment variables that the functions need.

    Attributes:
        jobs_table: `BATCH_PROGRESS_JOBS_TABLE`, batches and their jobs.
        tokens_table: `BATCH_PROGRESS_TOKENS_TABLE`, hashes of the tokens that were issued.
    """

    jobs_table: TableName = msgspec.field(name="BATCH_PROGRESS_JOBS_TABLE")
    tokens_table: TableName = msgspec.field(name="BATCH_PROGRESS_TOKENS_TABLE")


@cache
def settings() -> Settings:
    """Return the settings of this deployment.

    Raises:
        ConfigurationError: A variable is missing or no table's name; the message names it.
    """
    values = {name: os.environ[name] for name in Settings.__struct_encode_fields__ if name in os.environ}
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"The environment of this function is not complete: {error}") from None
