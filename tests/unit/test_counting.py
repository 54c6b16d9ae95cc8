"""When the next poll of a batch is worthwhile, and what a process remembers of large batches."""

import pytest
from msgspec.structs import replace

from batch_progress.kept import GIVEN_UP_SECONDS, KeptCount
from batch_progress.model import Batch
from batch_progress.progress import Basis, Counts, Estimate, Progress
from functions.progress import counting
from functions.progress.counting import LargeBatches, next_poll_of_kept

NOW = 1_734_345_000.0
COUNTS = Counts(50_000, 100, 0, 0)


@pytest.mark.parametrize(
    ("units", "age", "earliest", "completion", "expected"),
    [
        (1_000, 0, 9_000, 10_000, 60),  # a twentieth of the time that is left, but at most a minute
        (1_000, 0, 80, 100, 10),  # when the batch may be counted again
        (1_000, 7, 80, 100, 5),
        (1_000, 0, 12, 40, 3),  # the batch may end in 12 s, although it probably takes longer
        (1_000, 0, 2, 12, 1),
        (1_000, 0, -3, 12, 1),
        (1_000, 30, 2, 2, 1),
        (20_000, 0, 800, 900, 60),
    ],
)
def test_a_poll_of_a_kept_count_is_worthwhile_when_it_can_show_more(
    units: float, age: float, earliest: float, completion: float, expected: int
) -> None:
    """When the batch is counted again, or when it may have ended: in a quarter of the time to its earliest end."""
    estimate = Estimate(Basis.OBSERVED, int(NOW + completion), int(NOW + earliest), int(NOW + 2 * completion))
    kept = KeptCount.of(Batch("b", "demo"), Progress(NOW - age, COUNTS, estimate, None), units)
    assert expected == next_poll_of_kept(kept, NOW)
    finished = replace(kept.progress, estimate=replace(estimate, basis=Basis.FINISHED))
    assert next_poll_of_kept(replace(kept, progress=finished), NOW) is None


def test_a_process_remembers_the_batches_that_were_large_last() -> None:
    """Not those that have become small, and not any number of them."""
    large = LargeBatches()
    assert 0 == large.units(None) == large.units("a")
    large.note("a", 400)
    large.note("small", 100)
    assert (400, 0) == (large.units("a"), large.units("small"))
    large.note("a", 99)
    assert 0 == large.units("a")
    for number in range(counting._MOST_BATCHES + 1):
        large.note(str(number), 101)
    assert (0, 101) == (large.units("0"), large.units("1"))


def test_a_batch_is_too_large_for_a_minute() -> None:
    large = LargeBatches()
    large.note_too_large("a", NOW)
    assert large.is_too_large("a", NOW + GIVEN_UP_SECONDS - 1)
    assert not large.is_too_large("a", NOW + GIVEN_UP_SECONDS)
    assert not large.is_too_large("b", NOW)
