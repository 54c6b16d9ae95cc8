"""When a kept count may be given, and which texts are kept counts."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batch_progress import kept
from batch_progress.kept import KeptCount, Use, use
from batch_progress.model import Batch, Notes
from batch_progress.progress import Basis, Counts, Estimate, Failures, Progress, Summary
from batch_progress.table import JobStatus

NOW = 1_734_345_000.0
BATCH = Batch("batch", "demo", 5_000, revision=70)
SUMMARY = Summary(dict(zip(JobStatus, (900, 100, 3_900, 90, 10), strict=True)), [Failures(None, 90)])
EXPECTED = Estimate(Basis.OBSERVED, int(NOW) + 100, int(NOW) + 90, int(NOW) + 120)
PROGRESS = Progress(NOW, Counts(5_000, 3_900, 100, 7), EXPECTED, SUMMARY)
KEPT = KeptCount.of(BATCH, PROGRESS, 400)


def after(seconds: float, changes: int = 0, *, count: KeptCount = KEPT, **values: Any) -> Use:  # noqa: ANN401  # attributes of a batch
    """Return what happens to a count after some time and changes."""
    return use(count, replace(BATCH, revision=BATCH.revision + changes, **values), NOW + seconds)


def expecting(basis: Basis, completion: float) -> KeptCount:
    estimate = Estimate(basis, int(NOW + completion), int(NOW), int(NOW + 200))
    return replace(KEPT, progress=replace(PROGRESS, estimate=estimate))


@pytest.mark.parametrize(
    ("seconds", "changes", "expected"),
    [
        (-5, 1, Use.GIVE),
        (-5.1, 0, Use.COUNT),
        (0, 0, Use.GIVE),
        (0, 999, Use.GIVE),
        (0, 1_000, Use.RENEW),
        (0, -1, Use.RENEW),
        (3.9, 999, Use.GIVE),
        (4, 1, Use.RENEW),
        (4, 0, Use.GIVE),
        (49.9, 0, Use.GIVE),
        (50, 0, Use.RENEW),
        (59.9, 1, Use.RENEW),
        (60, 0, Use.COUNT),
    ],
)
def test_a_count_is_given_for_a_while(seconds: float, changes: int, expected: Use) -> None:
    """While the batch changes: 1 s for each 100 units, and fewer changes than jobs were pending. Otherwise 50 s."""
    assert expected is after(seconds, changes)


def test_the_count_of_a_small_batch_is_never_given() -> None:
    assert Use.COUNT is after(0, count=replace(KEPT, units=100))
    assert Use.GIVE is after(0, count=replace(KEPT, units=100.5))
    assert Use.COUNT is use(None, BATCH, NOW)


def test_a_very_large_batch_is_counted_once_a_minute() -> None:
    large = replace(KEPT, units=20_000)
    assert [Use.GIVE, Use.COUNT] == [after(seconds, 1, count=large) for seconds in (59.9, 60)]


def test_a_count_of_another_batch_item_is_not_given() -> None:
    """A cancelled or edited batch is counted again."""
    assert Use.RENEW is after(0, total_urls=5_001)
    assert Use.GIVE is after(0, notes=Notes("anything", NOW))


@pytest.mark.parametrize(
    ("basis", "completion", "expected"),
    [
        (Basis.OBSERVED, 10, Use.RENEW),
        (Basis.OBSERVED, 21, Use.GIVE),
        (Basis.DECLARED, 10, Use.RENEW),
        (Basis.STALLED, 10, Use.GIVE),
        (Basis.FINISHED, -999, Use.GIVE),
    ],
)
def test_an_estimate_that_has_passed_is_not_given_when_nothing_changes(
    basis: Basis, completion: float, expected: Use
) -> None:
    assert expected is after(20, count=expecting(basis, completion))


def test_an_estimate_is_never_in_the_past() -> None:
    """While the batch changes, an estimate that has passed moves on with the clock."""
    given = expecting(Basis.OBSERVED, 1).given(NOW + 2.5).estimate
    assert Estimate(Basis.OBSERVED, int(NOW) + 3, int(NOW) + 3, int(NOW) + 200) == given
    finished = expecting(Basis.FINISHED, -999)
    assert finished.progress == finished.given(NOW)


def test_what_is_kept_is_read() -> None:
    assert KEPT == KeptCount.read(replace(BATCH, notes=Notes(KEPT.encode())))
    assert KeptCount.read(BATCH) is None


def changed(**values: object) -> str:
    """Return a kept count with other values, given by their paths."""
    content = msgspec.json.decode(KEPT.encode())
    for path, value in values.items():
        *parents, name = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[name] = value
    return msgspec.json.encode(content).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[" * 100_000,
        KEPT.encode()[:-1],
        changed(version=2),
        changed(units="400"),
        changed(progress__as_of=-1),
        changed(progress__as_of=1e30),
        changed(progress__counts__completed=5_000),
        changed(progress__counts__failed=-1),
        changed(progress__estimate__completion=10**12),
        changed(progress__estimate__basis="guess"),
        changed(progress__summary=None),
        changed(progress__summary__statuses__pending=901),
        changed(progress__summary__statuses={"pending": 5_000}),
    ],
)
def test_what_cannot_be_a_count_is_none(text: str) -> None:
    """Clients never see it, and the batch is counted."""
    assert KEPT == KeptCount.read(replace(BATCH, notes=Notes(changed())))
    assert KeptCount.read(replace(BATCH, notes=Notes(text))) is None


@given(st.text())
def test_any_text_may_stand_there(text: str) -> None:
    assert KeptCount.read(replace(BATCH, notes=Notes(text))) is None


@pytest.mark.parametrize(
    ("counting", "leased", "given_up"),
    [
        (None, False, False),
        (0, False, False),
        (10, True, False),
        (16, False, False),
        (1_000_000_001, False, True),
        (1_000_000_060, False, True),
        (1_000_000_091, False, False),
        (1_000_000_000, False, False),
    ],
)
def test_a_lease_says_who_counts(counting: float | None, *, leased: bool, given_up: bool) -> None:
    """A time close ahead: a request counts until then. One far ahead: the batch could not be counted in time."""
    batch = replace(BATCH, notes=Notes(None, counting and NOW + counting))
    assert (leased, given_up) == (kept.is_leased(batch, NOW), kept.gave_up(batch, NOW))
