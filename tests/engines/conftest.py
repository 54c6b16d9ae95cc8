"""The tables and the function on Amazon's DynamoDB Local, and the stack as built."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.dynamodb_local import dynamodb_local
from tests.integration import conftest
from tests.package.test_build import HOST, sam_build

world = conftest.world  # the same, on another engine


@pytest.fixture(scope="session")
def dynamodb_endpoint() -> Iterator[str]:
    """The engine at `DYNAMODB_ENDPOINT`, or one for these tests."""
    if given := os.environ.get("DYNAMODB_ENDPOINT"):
        yield given
        return
    with dynamodb_local() as address:
        yield address


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack as built by `sam build` for this machine."""
    built = tmp_path_factory.mktemp("stack") / "build"
    done = sam_build(built, HOST)
    assert 0 == done.returncode, done.stderr
    return built
