"""Mutants of the rule of kept counts and of the supervision: the histories must find each of them.

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
        histories: The first word of the seeds that are to find it.
    """

    name: str
    what: str
    path: str
    old: str
    new: str
    histories: str = "mutant"

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
        '" OR #counted_at <= :made OR #counted_at > :far"',
        '" OR attribute_exists(#counted_at) OR #counted_at <= :made OR #counted_at > :far"',
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
        '" OR #counting < :now OR #counting > :far"',
        '" OR (#counting < :now AND #counting > :far)"',
    ),
    Mutant(
        "no-lease",
        "a lease is obtained that another request holds",
        _KEPT,
        '" OR #counting < :now OR #counting > :far"',
        '" OR attribute_exists(#counting) OR #counting < :now OR #counting > :far"',
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
        'ConditionExpression="attribute_exists(#owner_id)"',
        'ConditionExpression="(attribute_exists(#owner_id) OR attribute_not_exists(#owner_id))"',
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


_SUPERVISION: Final = f"{LAYER}/supervision.py"
_SUPERVISOR: Final = f"{LAYER}/supervisor.py"
_CHAINS: Final = f"{LAYER}/chains.py"
_MESSAGES: Final = f"{LAYER}/messages.py"

_SEND: Final = "        self._queue.send(_encoder.encode(check).decode(), delay)\n"
_DUE: Final = '        due = {":due": {"N": f"{now + delay:.3f}"}}\n'
_NUMBER: Final = 'self._number(check, "SET #check_number = :number, #check_due = :due", "<", due)'

SUPERVISOR_MUTANTS: Final = tuple(
    Mutant(*mutant, histories="supervised")
    for mutant in (
        (
            "announced-first",
            "an event is noted as put before it is put",
            _SUPERVISOR,
            "found = self._noted(found, told)\n        self._bus.put",
            "found = self._noted(found, replace(told, put=True))\n        self._bus.put",
        ),
        (
            "announced-by-anyone",
            "two checks announce at once",
            _SUPERVISOR,
            'condition = "#announced = :old"',
            'condition = "(attribute_exists(#announced) OR #announced = :old)"',
        ),
        (
            "new-id",
            "a repeated event has another id",
            _SUPERVISION,
            "return None if latest.put else latest",
            "return None if latest.put else Announcement(kind, revision + 1, facts)",
        ),
        (
            "same-id",
            "another event has the id of the one before",
            _SUPERVISION,
            "return Announcement(kind, max(revision, latest.revision + 1), facts)",
            "return Announcement(kind, revision, facts)",
        ),
        (
            "told-once",
            "only the first end of a batch is announced",
            _SUPERVISION,
            "if latest.facts == facts:",
            "if latest.facts == facts or kind is Kind.FINISHED:",
        ),
        (
            "refused-event",
            "an event that EventBridge refuses counts as put",
            _MESSAGES,
            'if not answer["FailedEntryCount"]:',
            'if answer["FailedEntryCount"] is not None:',
        ),
        (
            "any-state",
            "a job is failed whatever its worker has done since",
            _SUPERVISOR,
            'ConditionExpression=" AND ".join(same)',
            'ConditionExpression=" AND ".join(f"(attribute_exists(url) OR {each})" for each in same)',
        ),
        (
            "seen-ignored",
            "reports are no sign of life",
            _SUPERVISION,
            "for moment in (started, seen) if moment is not None",
            "for moment in (started,) if moment is not None",
        ),
        (
            "noted-first",
            "a check is noted before it is sent",
            _CHAINS,
            f"{_SEND}{_DUE}        return {_NUMBER}",
            f"{_DUE}        noted = {_NUMBER}\n{_SEND}        return noted",
        ),
        (
            "dropped",
            "a check is dropped although no later one exists",
            _SUPERVISOR,
            "if check.number < found.chain.number:",
            "if check.number <= found.chain.number:",
        ),
        (
            "end-of-chain",
            "a change during the last check is forgotten",
            _SUPERVISOR,
            "if after is not None and after.batch.revision != batch.revision:",
            "if after is None and batch.revision < 0:",
        ),
        (
            "no-look-back",
            "a change during a check is forgotten",
            _SUPERVISOR,
            "if after is not None and is_outdated(after.batch, count_of(kept, after.batch)):",
            "if after is None and batch.revision < 0:",
        ),
        (
            "stale-read",
            "a check reads what may be old",
            _SUPERVISOR,
            "self._store.read(check.batch_id, None, began, stats, supervised=True)",
            "self._store.read(check.batch_id, None, began, stats)",
        ),
        (
            "ghost-notes",
            "notes create a deleted BATCH item again",
            _CHAINS,
            'f"attribute_exists(#owner_id) AND {condition}"',
            'f"(attribute_exists(#owner_id) OR attribute_not_exists(#owner_id)) AND {condition}"',
        ),
    )
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
    mutant = next(mutant for mutant in (*MUTANTS, *SUPERVISOR_MUTANTS) if mutant.name == name)
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))
    from tests.hostile.histories.history import played  # noqa: PLC0415  # after the change

    for number in range(1, histories + 1):
        wrong = played(f"{mutant.histories} {number}").oracle.wrong
        if wrong:
            print(number, wrong[0])
            return
    print(histories)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
