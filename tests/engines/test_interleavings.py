"""Random interleavings of workers at one job (tests/integration/interleavings.py), on DynamoDB Local."""

import os

import pytest

from batch_progress.recorder import BatchRecorder
from batch_progress.table import job_key
from tests.integration.interleavings import History
from tests.integration.world import World, unique

HISTORIES = int(os.environ.get("HISTORIES", "150"))


@pytest.mark.timeout(0)
def test_random_interleavings_agree_with_the_table(world: World) -> None:
    """Amazon's own engine evaluates the conditions as moto does: outcomes and items are the model's after each call."""
    recorder, batch_id = BatchRecorder(world.jobs_table, world.dynamodb), unique("batch")
    for seed in range(HISTORIES):
        where = {"TableName": world.jobs_table, "Key": job_key(batch_id, f"job_{seed:06}")}
        History(recorder, world.dynamodb, where, seed).run()
