"""Supervision costs little beside the workers' own writes, and `supervision.json` says how much."""

import pytest

from benchmarks.cost import BEFORE, supervised, supervision, workers
from benchmarks.supervision import row, simulated


@pytest.mark.parametrize("jobs", [10, 50, 1_000])
def test_the_file_has_what_is_measured(jobs: int) -> None:
    """The end of the batch is announced once, and its chain ends. The largest batch takes minutes: the benchmark's."""
    simulation = simulated(jobs)
    assert 1 == simulation.finished
    assert row(simulation) == supervised()[jobs]


def test_a_large_batch_costs_a_tenth_at_most() -> None:
    """Without logs and traces, as the table in docs/operations.md has it."""
    measured = supervised()[1_000]
    uses = supervision(measured, BEFORE).uses
    assert (
        sum(use.dollars() for use in uses if use.price not in {"log_byte", "trace"}) <= workers(measured).dollars() / 10
    )
