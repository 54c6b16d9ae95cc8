"""One DynamoDB per test process, with the tables of `template.yaml`. Tests use unique ids and tokens."""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import TYPE_CHECKING

import boto3
import pytest

from batch_progress import dynamodb as client
from batch_progress.settings import settings
from functions.progress import app
from functions.revision import app as revision
from local_cloud.template import tables
from tests.integration import server
from tests.integration.moto_engine import moto_app, moto_engine
from tests.integration.supervision import Unheard
from tests.integration.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

local_api = server.local_api

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "fake",
    "AWS_SECRET_ACCESS_KEY": "fake",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_REGION": "eu-central-1",
    "BATCH_PROGRESS_CHECKS_QUEUE_URL": "http://127.0.0.1:9/checks",
    "BATCH_PROGRESS_EVENT_BUS": "default",
}
ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"
ENGINE = pytest.StashKey[str]()
VARIABLES = {"JobsTable": "BATCH_PROGRESS_JOBS_TABLE", "TokensTable": "BATCH_PROGRESS_TOKENS_TABLE"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a given engine, run only the tests that use it: the others pass on any engine."""
    if os.environ.get("DYNAMODB_ENDPOINT"):
        others = [item for item in items if "dynamodb_endpoint" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def dynamodb_endpoint() -> Iterator[str]:
    """The engine at `DYNAMODB_ENDPOINT`, or moto's in a thread."""
    if given := os.environ.get("DYNAMODB_ENDPOINT"):
        yield given
        return
    moto = moto_app()

    def untraced(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        sys.settrace(None)  # coverage would trace moto, which takes most of the time
        return moto(environ, start_response)

    with moto_engine(untraced) as address:
        yield address


@pytest.fixture(autouse=True)
def _nothing_else_uses_the_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide the engine from the tests that are not run again on a given one."""
    hidden = "dynamodb_endpoint" not in request.fixturenames
    # Not the fixture `monkeypatch`: it would be undone after all other fixtures, not before them.
    with pytest.MonkeyPatch.context() as environment:
        if hidden and request.config.stash.get(ENGINE, "") == os.environ.get(ENDPOINT):
            environment.setenv(ENDPOINT, "http://127.0.0.1:9")
        yield


@pytest.fixture(scope="session")
def world(dynamodb_endpoint: str, pytestconfig: pytest.Config) -> Iterator[World]:
    """The tables and the function. Nothing is reset between tests."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SETTINGS.items():
            environment.setenv(name, value)
        environment.delenv("AWS_PROFILE", raising=False)
        environment.setenv(ENDPOINT, dynamodb_endpoint)
        pytestconfig.stash[ENGINE] = dynamodb_endpoint
        dynamodb = boto3.client("dynamodb")
        names = {}
        for table in tables():
            # Several test processes may share an engine.
            names[table["TableName"]] = f"{table['TableName']}-{uuid.uuid4().hex[:8]}"
            dynamodb.create_table(**table | {"TableName": names[table["TableName"]]})
        for table_id, variable in VARIABLES.items():
            environment.setenv(variable, names[table_id])
        # `make mutation` runs the tests several times in a process.
        _restart()
        # A busy engine answers late. A request that is sent again would be counted twice.
        environment.setattr(client, "READ_TIMEOUT_SECONDS", 60.0)
        # The tests of the supervisor have a queue of their own.
        environment.setattr(revision, "_queue", Unheard)
        yield World(dynamodb, names["JobsTable"], names["TokensTable"])
        for name in names.values():
            dynamodb.delete_table(TableName=name)
        dynamodb.close()


def _restart() -> None:
    """Forget what a process of the function reads once."""
    for cached in (settings, app._client, app._store, app._counts, app._large, app._tokens, app._sessions):
        cached.cache_clear()


@pytest.fixture
def deploy(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Restart the function with other environment variables; `None` unsets one."""
    del world  # its environment comes first

    def restart(**environment: str | None) -> None:
        for name, value in environment.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        _restart()

    yield restart
    _restart()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock of the function, and of the verification of JWTs, ahead by a number of seconds."""

    def move(seconds: float) -> None:
        class Ahead(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> "Ahead":
                return cls.fromtimestamp(time.time() + seconds, tz)

        clock = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic)
        monkeypatch.setattr(app, "time", clock)
        monkeypatch.setattr("jwt.api_jwt.datetime", Ahead)

    return move
