"""Randomized histories; `make histories` plays thousands."""

import pytest

from tests.hostile.histories.__main__ import play
from tests.hostile.histories.mutants import MUTANTS, hunt

HISTORIES = 20


def test_every_answer_is_allowed() -> None:
    """No answer is invented or too old, and at rest each tells what the rows say."""
    totals, wrong = play([f"test {number}" for number in range(HISTORIES)])
    assert {} == wrong
    # They have answers of every kind.
    assert min(totals[kind] for kind in ("200", "304", "404", "reused", "lost", "repeated", "reordered")) > 0


def test_every_batch_ends_and_says_so() -> None:
    """The end of each batch is announced after its last change, and no living worker's job is failed."""
    totals, wrong = play([f"supervised test {number}" for number in range(HISTORIES // 2)])
    assert {} == wrong
    assert min(totals[kind] for kind in ("events", "jobs lost")) > 0


def test_a_seed_repeats_its_history() -> None:
    assert play(["again", "supervised again"]) == play(["again", "supervised again"])


def test_a_fault_is_found() -> None:
    """Histories of a changed rule are not all allowed."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "deliveries")
    found = hunt(mutant, histories=5)
    assert found is not None
    assert found[1].startswith("distinct: ")


def test_the_text_of_a_mutant_must_be_there() -> None:
    """A mutant that changes nothing would never be found."""
    mutant = MUTANTS[0]
    changed = type(mutant)(mutant.name, mutant.what, mutant.path, "no such text", "")
    with pytest.raises(ValueError, match="no longer applies"):
        changed.source()
