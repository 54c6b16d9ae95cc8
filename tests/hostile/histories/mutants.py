"""Mutants of the rule of kept counts: the histories must find each of them.

A mutant is the project's code with one piece of text replaced, in a process of its own:
`python -m tests.hostile.histories.mutants <name> <histories>` prints what was wrong in the first history that finds it.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Final

from tests.hostile.histories import ROOT

LAYER: Final = "layers/batch_progress/batch_progress"


@dataclass(frozen=True)
class Mutant:
    """A change of the code.

    Attributes:
        name: For the command line.
        what: What is wrong with it.
        path: The file.
        old: The text that is replaced, which is in the file exactly once.
        new: What replaces it.
    """

    name: str
    what: str
    path: str
    old: str
    new: str

    @property
    def module(self) -> str:
        return self.path.removeprefix(LAYER.rpartition("/")[0] + "/").removesuffix(".py").replace("/", ".")

    def source(self) -> str:
        """Return the changed source.

        Raises:
            ValueError: The text is not there, or not only once: the code has changed, and the mutant must follow it.
        """
        source = (ROOT / self.path).read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(f"mutant {self.name!r} no longer applies: {self.path} has {source.count(self.old)} of it")
        return source.replace(self.old, self.new)


_KEPT: Final = f"{LAYER}/kept.py"
_COUNTING: Final = "functions/progress/counting.py"

MUTANTS: Final = (
    Mutant(
        "as-many-changes",
        "a count is given with as many changes as jobs were pending",
        _KEPT,
        "0 <= changes < kept.progress.counts.pending",
        "0 <= changes <= kept.progress.counts.pending",
    ),
    Mutant(
        "no-digest",
        "a count of another BATCH item is given",
        _KEPT,
        "if kept.batch != fingerprint(batch):",
        "if kept.batch is None:",
    ),
    Mutant(
        "older-count",
        "a count replaces a later one",
        _KEPT,
        '"attribute_not_exists(#counted_at) OR #counted_at <= :made',
        '"attribute_not_exists(#counted_at) OR attribute_exists(#counted_at) OR #counted_at <= :made',
    ),
    Mutant(
        "tag-of-now",
        "the tag has the revision of the BATCH item, not of the count",
        _COUNTING,
        "return replace(batch, revision=count.revision if same else _NO_REVISION)",
        "return replace(batch, revision=batch.revision if same else _NO_REVISION)",
    ),
    Mutant(
        "no-oldest",
        "a count of any age is given while another request counts",
        _KEPT,
        "if not -_CLOCK_SKEW_SECONDS <= age < OLDEST_SECONDS:",
        "if not -_CLOCK_SKEW_SECONDS <= age:",
    ),
    Mutant(
        "no-age",
        "a count is given for a minute while its batch changes",
        _KEPT,
        "return min(self.units / UNITS_PER_SECOND, OLDEST_SECONDS)",
        "return max(self.units / UNITS_PER_SECOND, OLDEST_SECONDS)",
    ),
    Mutant(
        "endless-lease",
        "a lease does not end",
        _KEPT,
        '"attribute_not_exists(#counting) OR #counting < :now OR',
        '"attribute_not_exists(#counting) OR (#counting < :now AND #counting > :far) OR',
    ),
    Mutant(
        "no-lease",
        "a lease is obtained that another request holds",
        _KEPT,
        '"attribute_not_exists(#counting) OR #counting < :now OR',
        '"attribute_not_exists(#counting) OR attribute_exists(#counting) OR #counting < :now OR',
    ),
    Mutant(
        "lease-kept",
        "a lease is not given back with the count",
        _KEPT,
        '"SET #counted = :counted, #counted_at = :made REMOVE #counting"',
        '"SET #counted = :counted, #counted_at = :made, #counting = if_not_exists(#counting, :made)"',
    ),
    Mutant(
        "negative-changes",
        "a count is given after the revision has gone back",
        _KEPT,
        "0 <= changes < kept.progress.counts.pending",
        "changes < kept.progress.counts.pending",
    ),
    Mutant(
        "any-changes",
        "a count is given for 50 s, whatever has changed",
        _KEPT,
        "changes == 0 and age < UNCHANGED_SECONDS",
        "changes >= 0 and age < UNCHANGED_SECONDS",
    ),
    Mutant(
        "no-owner",
        "a deleted BATCH item is created again",
        _KEPT,
        "attribute_exists(#owner_id) AND ({condition})",
        "(attribute_exists(#owner_id) OR attribute_not_exists(#owner_id)) AND ({condition})",
    ),
    Mutant(
        "deliveries",
        "the revision counts deliveries, not jobs",
        "functions/revision/app.py",
        "len(changes.jobs)",
        "1",
    ),
    Mutant(
        "records",
        "the revision counts records, not jobs",
        "functions/revision/app.py",
        "self.jobs: set[str] = set()",
        "self.jobs: Any = type('Jobs', (list,), {'add': list.append})()",
    ),
    Mutant(
        "filtered",
        "a count is given to a request that filters by status",
        _COUNTING,
        "return query.limit is not None and query.status is None and query.cursor is None",
        "return query.limit is not None and query.cursor is None",
    ),
    Mutant(
        "unlimited",
        "a count is given to a request that lists all jobs",
        _COUNTING,
        "return query.limit is not None and query.status is None and query.cursor is None",
        "return query.status is None and query.cursor is None",
    ),
    Mutant(
        "small",
        "the count of a small batch is given",
        _KEPT,
        "if kept is None or kept.units <= LARGE_UNITS:",
        "if kept is None:",
    ),
    Mutant(
        "unreadable",
        "an unreadable count is an error",
        _KEPT,
        "except (msgspec.DecodeError, RecursionError):\n            return None",
        "except (msgspec.DecodeError, RecursionError):\n            raise",
    ),
)


class _Mutated(SourceFileLoader):
    """Loads the changed source, and no bytecode."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(ROOT / mutant.path))
        self._source = mutant.source()

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return compile(self._source, self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self._mutant.module:
            return None
        file = ROOT / self._mutant.path
        return importlib.util.spec_from_file_location(fullname, file, loader=_Mutated(self._mutant))


def hunt(mutant: Mutant, histories: int) -> tuple[int, str] | None:
    """Play histories on a mutant in a process of its own.

    Returns:
        The number of histories it took to find the mutant and what was wrong, `None` if none of them does.
    """
    command = [sys.executable, "-m", "tests.hostile.histories.mutants", mutant.name, str(histories)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # as above
    if done.returncode:
        raise RuntimeError(f"mutant {mutant.name}: {done.stderr[-2000:]}")
    number, _, wrong = done.stdout.strip().partition(" ")
    return (int(number), wrong) if wrong else None


def _main(name: str, histories: int) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))
    from tests.hostile.histories.history import played  # noqa: PLC0415  # after the change

    for number in range(1, histories + 1):
        wrong = played(f"mutant {number}").oracle.wrong
        if wrong:
            print(number, wrong[0])
            return
    print(histories)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
