"""The even sample."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_progress.sample import LARGEST, Sample


def sample_of(*pages: range) -> Sample[int]:
    sample: Sample[int] = Sample()
    for page in pages:
        sample.add(page, lambda value: value)
    return sample


def pages(total: int, cuts: list[int]) -> list[range]:
    """Divide the numbers from 0 to `total` into consecutive pages."""
    return [range(start, end) for start, end in pairwise([0, *sorted(min(cut, total) for cut in cuts), total])]


@given(st.integers(0, 40 * LARGEST), st.lists(st.integers(0, 40 * LARGEST), max_size=20))
def test_every_kth_value_is_kept(total: int, cuts: list[int]) -> None:
    """At most `LARGEST`, evenly, the first included, however the values are divided into pages; k is a power of two."""
    sample = sample_of(*pages(total, cuts))
    assert list(range(0, total, sample.every)) == sample.kept
    assert 1 == sample.every.bit_count()
    assert len(sample.kept) <= LARGEST
    assert total == sample.seen


@given(st.integers(LARGEST + 1, 40 * LARGEST))
def test_no_more_is_dropped_than_necessary(total: int) -> None:
    """Half of the limit is always used."""
    assert len(sample_of(range(total)).kept) > LARGEST // 2


@pytest.mark.parametrize(
    ("total", "every"), [(0, 1), (1, 1), (LARGEST, 1), (LARGEST + 1, 2), (2 * LARGEST, 2), (2 * LARGEST + 1, 4)]
)
def test_all_are_kept_while_they_are_few(total: int, every: int) -> None:
    assert every == sample_of(range(total)).every


def test_only_values_that_are_kept_are_computed() -> None:
    """A page of any size costs at most `LARGEST` of them."""
    computed: list[int] = []
    sample: Sample[None] = Sample()
    sample.add(range(100 * LARGEST), computed.append)
    assert len(sample.kept) == len(computed) <= LARGEST
