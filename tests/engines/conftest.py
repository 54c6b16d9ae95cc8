"""The tables and the function on Amazon's DynamoDB Local: the one that runs, or one of its own."""

import os
from collections.abc import Iterator

import pytest

from tests.engines.dynamodb_local import dynamodb_local
from tests.integration import conftest

world = conftest.world  # the same, on another engine


@pytest.fixture(scope="session")
def dynamodb_endpoint() -> Iterator[str]:
    """The engine that `DYNAMODB_ENDPOINT` names, else one for these tests alone."""
    if given := os.environ.get("DYNAMODB_ENDPOINT"):
        yield given
        return
    with dynamodb_local() as address:
        yield address
