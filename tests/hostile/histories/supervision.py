"""What the contract says of lost jobs and of events, judged by what the supervisor read and wrote."""

from math import floor, inf
from typing import Final

from local_cloud.dynamodb import Item
from tests.hostile.histories.cloud import Cloud, Task, Told
from tests.hostile.histories.engine import Served
from tests.hostile.histories.oracle import Oracle, Truth, epoch, moment, text, walks

FINISHED: Final = "Batch Finished"
STALLED: Final = "Batch Stalled"
_LOST: Final = frozenset({"status", "finished_at", "error_code", "error_message"})
_COUNTS: Final = ("total_urls", "completed", "failed", "pending", "total_items_extracted")

# The "some seconds" after the stream delivered the last change.
PROMPT_SECONDS: Final = 20.0

type Facts = tuple[object, ...]


def last_sign(row: Item) -> float | None:
    """Return when the worker of a job last showed a sign of life, `None` if that is not recorded."""
    signs = [sign for name in ("started_at", "seen_at") if (sign := moment(row, name)) is not None]
    return max(signs, default=None)


def seconds(batch: Item, name: str) -> float | None:
    """Return a declared number of seconds, `None` if it is not declared or malformed."""
    value = batch.get(name, {}).get("N")
    return float(value) if value is not None and float(value) > 0 else None


class Supervision:
    """Judges the supervisor in one history.

    Args:
        oracle: Takes the faults.
        cloud: Has the events and the queue.

    Attributes:
        lost_after: The batch's, in seconds; `None` where it declares none.
        lost: The number of jobs that were failed.
        unfinished: Whether jobs are left at the end.
        born: When the `BATCH` item was last created: events of the one before do not count.
    """

    def __init__(self, oracle: Oracle, cloud: Cloud) -> None:
        self._oracle = oracle
        self._cloud = cloud
        self.lost_after: float | None = None
        self.lost = 0
        self.unfinished = False
        self.born = 0.0

    def failed(self, task: Task, served: Served) -> None:
        """Judge a write to a job: its worker must have been silent for too long."""
        before = (served.before.item if served.before else None) or {}
        after = served.versions[0].item or {}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if not task.name.startswith("check ") or changed - _LOST or after.get("error_code") != {"S": "WORKER_LOST"}:
            self._oracle.fault("role", f"{task.name} changed {sorted(changed)} of a job")
        self.lost += 1
        sign = last_sign(before)
        silent = None if sign is None else served.at + self._oracle.skew - sign
        if text(before, "status") != "processing" or silent is None or silent < (self.lost_after or inf):
            self._oracle.fault("alive", f"{task.name} failed a job whose worker was silent for {silent} s: {before}")

    def checked(self, task: Task) -> None:
        """Judge the events that a check has put: they tell what it read."""
        mine = [told for told in self._cloud.bus if told.task is task]
        truths = [walk.truth for walk in walks(task) if walk.complete]
        for told in mine:
            facts = tuple(told.detail[name] for name in _COUNTS)
            if facts not in [tuple(truth.counts[name] for name in _COUNTS) for truth in truths]:
                self._oracle.fault("event", f"{task.name}: {told.detail}, rows {truths}")
            if (told.kind == FINISHED) != (told.detail["pending"] == 0):
                self._oracle.fault("event", f"{task.name}: {told.kind} of {told.detail}")

    @property
    def _events(self) -> list[Told]:
        return [told for told in self._cloud.bus if told.at >= self.born]

    def ids(self) -> None:
        """Judge the ids of all events: an id has one content, and a repeat has the same id."""
        told_by_id: dict[str, Facts] = {}
        last: dict[str, tuple[str, Facts]] = {}
        for told in self._events:
            identity, facts = told.detail["id"], facts_of(told)
            kind = "finished" if told.kind == FINISHED else "stalled"
            if not identity.startswith(f"{told.detail['batch_id']}/{kind}/"):
                self._oracle.fault("id", f"{identity} of {told.kind}")
            if told_by_id.setdefault(identity, facts) != facts:
                self._oracle.fault("id", f"{identity} tells {facts} and {told_by_id[identity]}")
            before = last.get(told.kind)
            # The events of two stalls can have the same time: it is in whole seconds.
            if told.kind == FINISHED and before is not None and before[1] == facts and before[0] != identity:
                self._oracle.fault("id", f"{identity} repeats {before[0]}: {facts}")
            if before is None or before[0] != identity:
                last[told.kind] = identity, facts

    def at_rest(self, batch: Item, rows: list[Item], now: float) -> None:
        """Judge the events and the lost jobs after a long time without changes."""
        truth = Truth.of(batch, rows)
        self.unfinished = not truth.finished
        lost_after = seconds(batch, "lost_after")
        for row in rows:
            sign = last_sign(row)
            if lost_after and text(row, "status") == "processing" and sign is not None and sign + lost_after < now:
                self._oracle.fault("lost", f"a job is silent since {now - sign:.0f} s: {row}")
        if truth.finished:
            told = [facts_of(each) for each in self._events if each.kind == FINISHED]
            expected = (*(truth.counts[name] for name in _COUNTS), floor(truth.end))
            if not told or self._last(FINISHED) != expected:
                self._oracle.fault("untold", f"finished: {expected}, told {told}")
            return
        moved = [at for row in rows for name in ("started_at", "seen_at", "finished_at") if (at := moment(row, name))]
        moved += [created] if not moved and (created := moment(batch, "created_at")) else []
        longest = seconds(batch, "timeout_per_url")
        if moved and longest is not None and now - max(moved) > longest and self._last(STALLED) != (floor(max(moved)),):
            told = [facts_of(each) for each in self._events if each.kind == STALLED]
            self._oracle.fault("untold", f"stalled since {floor(max(moved))}, told {told}")

    def prompt(self, since: float) -> None:
        """Judge how late the last event comes after what it tells was known."""
        last = self._cloud.bus[-1] if self._cloud.bus else None
        if last is not None and last.kind == FINISHED and last.at - since > PROMPT_SECONDS:
            self._oracle.fault("late", f"{last.detail['id']} came {last.at - since:.0f} s after the last change")

    def chain(self, *, over: bool) -> None:
        """Judge the chain of checks: it ends with its batch, and not before."""
        waiting = len(self._cloud.queue)
        if over == bool(waiting):
            self._oracle.fault("chain", f"{waiting} checks are on their way, over: {over}")

    def _last(self, kind: str) -> Facts | None:
        """Return what the last new event of a kind tells."""
        ids: dict[str, Facts] = {}
        for told in self._events:
            if told.kind == kind:
                ids.setdefault(told.detail["id"], facts_of(told))
        return list(ids.values())[-1] if ids else None


def facts_of(told: Told) -> Facts:
    """Return what makes an event another one than the one before."""
    at = epoch(told.detail["at"])
    return (*(told.detail[name] for name in _COUNTS), at) if told.kind == FINISHED else (at,)
