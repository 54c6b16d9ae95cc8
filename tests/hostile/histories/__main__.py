"""Play histories, and hunt mutants: `make histories`."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from typing import Final

from tests.hostile.histories.history import played
from tests.hostile.histories.mutants import MUTANTS, SUPERVISOR_MUTANTS, hunt

BATCHES: Final = int(os.environ.get("BATCHES", "4000"))
# A mutant must be found in this many.
HUNTED: Final = 400
# A report shows the first faults.
_SHOWN: Final = 10
# Histories that a process plays at once.
_SHARE: Final = 20


def play(seeds: list[str]) -> tuple[Counter[str], dict[str, list[str]]]:
    """Play histories; return what happened in all of them, and what was wrong by seed."""
    totals: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    for seed in seeds:
        history = played(seed)
        totals += history.totals
        if history.oracle.wrong:
            wrong[seed] = history.oracle.wrong
    return totals, wrong


def _shares(count: int) -> Iterator[list[str]]:
    seeds = chain(map(str, range(count)), (f"supervised {number}" for number in range(count // 2)))
    while share := list(islice(seeds, _SHARE)):
        yield share


def main() -> None:
    """Play histories, or those of the seeds given, and hunt mutants; exit with 1 if anything is wrong.

    `BATCHES` histories test the answers to pollers, half as many the supervisor.
    """
    if sys.argv[1:]:
        totals, wrong = play(sys.argv[1:])
    else:
        totals, wrong = Counter(), {}
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for number, (some, more) in enumerate(pool.map(play, _shares(BATCHES)), 1):
                totals += some
                wrong |= more
                print(f"{number * _SHARE:,} histories, wrong in {len(wrong)}", end="\r", file=sys.stderr, flush=True)
    for seed, faults in islice(wrong.items(), _SHOWN):
        print(f"seed {seed}:", *faults[:3], sep="\n  ")
    print(", ".join(f"{what}: {count:,}" for what, count in sorted(totals.items())))
    print(f"{len(sys.argv[1:]) or BATCHES + BATCHES // 2:,} histories, wrong in {len(wrong)}")
    missed = 0
    if not sys.argv[1:]:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            mutants = (*MUTANTS, *SUPERVISOR_MUTANTS)
            for mutant, found in zip(mutants, pool.map(hunt, mutants, [HUNTED] * len(mutants)), strict=True):
                missed += found is None
                how = "NOT FOUND" if found is None else f"{found[0]:>4}  {found[1].partition(':')[0]}"
                print(f"{mutant.name:18} {mutant.what:75} {how}")
    if wrong or missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
