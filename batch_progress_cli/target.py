"""Find the table that a command works on: of the local server, by name, or of a deployed stack."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError
from botocore.session import Session

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import HOST, JOBS_TABLE, REGION, TOKENS_TABLE
from batch_progress_cli.terminal import visible

STACK = "batch-progress"
_LOCAL: Final = "for the tables of `make run`, give --local 3000"


@dataclass(frozen=True)
class Kind:
    """One of the two tables, and the sources of its name.

    Attributes:
        variable: The environment variable that names it.
        output: The stack output that names it.
        local: Its name in the local server.
    """

    variable: str
    output: str
    local: str


JOBS = Kind("BATCH_PROGRESS_JOBS_TABLE", "JobsTableName", JOBS_TABLE)
TOKENS = Kind("BATCH_PROGRESS_TOKENS_TABLE", "TokensTableName", TOKENS_TABLE)


@dataclass(frozen=True)
class Where:
    """The options `--local`, `--table` and `--stack`; at most one is given.

    Attributes:
        local: The port of a local server.
        table: A table's name.
        stack: A stack's name.
    """

    local: int | None = None
    table: str | None = None
    stack: str | None = None


def open_table(kind: Kind, where: Where) -> tuple[Any, str]:
    """Return a DynamoDB client and the name of the table.

    Raises:
        Failed: More than one option was given, or the stack has no such output.
    """
    if sum(given is not None for given in (where.local, where.table, where.stack)) > 1:
        raise Failed("give one of --local, --table and --stack")
    if where.local is not None:
        return _local(where.local), kind.local
    with aws():
        session = Session()
        name = where.table or (None if where.stack else os.environ.get(kind.variable))
        return session.create_client("dynamodb"), name or _of_stack(session, where.stack or STACK, kind.output)


@contextmanager
def aws() -> Iterator[None]:
    """Turn errors of AWS and of the connection into one line."""
    try:
        yield
    except EndpointConnectionError as error:
        raise Failed(f"nothing answers at {error.kwargs['endpoint_url']}; for --local, `make run` must run") from error
    except NoRegionError as error:
        raise Failed(f"AWS is not set up: no region; set AWS_DEFAULT_REGION or AWS_PROFILE; {_LOCAL}") from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise Failed(f"AWS is not set up: {visible(str(error)).removesuffix('.')}; {_LOCAL}") from error
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        if isinstance(error, ClientError) and error.response["Error"].get("Code") == "ResourceNotFoundException":
            raise Failed("there is no such table; --table, --stack and --local choose another") from error
        raise Failed(visible(str(error))) from error


def _local(port: int) -> Any:  # noqa: ANN401  # boto has no types
    return Session().create_client(
        "dynamodb",
        endpoint_url=f"http://{HOST}:{port}",
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # any value works
        # A proxy cannot reach loopback on this machine.
        config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 2}, proxies={}),
    )


def _of_stack(session: Session, stack: str, output: str) -> str:
    cloudformation = session.create_client("cloudformation")
    try:
        stacks = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" not in str(error):
            raise
        region = cloudformation.meta.region_name
        raise Failed(f"no stack {visible(stack, 140)} in {region}; give --stack or --table; {_LOCAL}") from error
    for found in stacks[0].get("Outputs", []):
        if found["OutputKey"] == output:
            return str(found["OutputValue"])
    raise Failed(f"the stack {stack} has no output {output}")
