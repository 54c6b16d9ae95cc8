"""Supervision costs little beside the workers' own writes, and the table says how much."""

import pytest

from benchmarks.cost import OPERATIONS
from benchmarks.supervision import row, simulated


@pytest.mark.parametrize("jobs", [10, 1_000])
def test_the_table_has_what_is_measured(jobs: int) -> None:
    """The end of the batch is announced once, and its chain ends. The largest batch takes minutes: the benchmark's."""
    simulation = simulated(jobs)
    assert 1 == simulation.finished
    assert row(simulation) in OPERATIONS.read_text(encoding="utf-8").splitlines()


def test_a_large_batch_costs_a_tenth_at_most() -> None:
    simulation = simulated(1_000)
    assert simulation.supervision.dollars() <= simulation.workers.dollars() / 10
