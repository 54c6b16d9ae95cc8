"""A small `make faults`: every kind of request while a proxy spoils half of DynamoDB's answers, in every way."""

import os
from collections.abc import Iterator

import pytest

from batch_progress import dynamodb
from functions.progress import app as progress
from functions.revision import app as revision
from tests.hostile import bad_line as bad
from tests.hostile.bad_line import Line, Mode, bad_line
from tests.hostile.faults import Progress, Revision, Row, fill
from tests.integration.world import World

RATE = 0.5
SEED = 1
TURNS = 4


@pytest.fixture
def line(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A proxy between the functions and the tables, which spoils nothing yet."""
    del world  # the functions use its tables
    monkeypatch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(bad, "_SILENT_SECONDS", 1.2)
    monkeypatch.setattr(bad, "_LATE_SECONDS", 0.05)
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 0.0)
    factories = (
        progress._store,
        progress._counts,
        progress._large,
        progress._tokens,
        progress._client,
        revision._revisions,
    )
    engine = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    with bad_line(Line(engine, SEED, remembers=True)) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", line.address)
        yield line
    for factory in factories:
        factory.cache_clear()


def test_no_answer_is_wrong(line: Line, world: World) -> None:
    """Each answer is right, or a clean 503 after which the right one follows on a good line."""
    row = Row("mixed", RATE)
    Progress(line, fill(world.dynamodb)).disturbed(row, TURNS)
    assert [] == row.wrong
    assert row.unavailable == row.recovered > 0
    assert row.right > row.unavailable
    assert set(Mode) == set(line.spoilt)


def test_no_change_is_lost(line: Line, world: World) -> None:
    """Each change is counted, or reported as failed until it is."""
    line.remembers = False
    row = Row("mixed", RATE)
    Revision(line, world.dynamodb).disturbed(row, TURNS * 3)
    assert [] == row.wrong
    assert row.unavailable == row.recovered > 0
    assert set(Mode) == set(line.spoilt)
