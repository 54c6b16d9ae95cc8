"""Output formats of `watch`: bars on a terminal, lines in a pipe, JSON for scripts."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any, Self

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batch_progress.client.results import Progress, Reason
from batch_progress_cli.api import Job
from batch_progress_cli.duration import span
from batch_progress_cli.follow import State, View
from batch_progress_cli.terminal import visible

# How often per second a terminal is redrawn, for its countdown.
_REFRESHES = 2
# An answer is overdue after this time; until then a terminal shows no trouble.
_LATE_SECONDS = 2.0
_STALLED = "stalled: no job has moved for longer than the timeout of a job"
# How many failed jobs are shown, the last ones.
_LAST = 5


@contextmanager
def view(*, as_json: bool) -> Iterator[View]:
    """Return the output format for this standard output."""
    if as_json:
        yield Json()
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        yield Lines()
        return
    with Screen(console) as screen:
        yield screen


class Json:
    """Print a JSON object for each change; the last one has `"final": true`."""

    def __init__(self) -> None:
        self._printed: object = None

    def show(self, state: State) -> None:
        """Print the state if it changed."""
        if _changes(state) != self._printed:
            self._printed = _changes(state)
            print(json.dumps(record(state)), flush=True)

    def trouble(self, reason: str | None, wait: float) -> None:
        """Print the failure on stderr."""
        _trouble_line(reason, wait)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


def record(state: State) -> dict[str, Any]:
    """Return the fields of the API's answer, and `rate_per_minute`, `failures`, `hanging` and `final`."""
    data: dict[str, Any] = msgspec.to_builtins(state.progress)
    return data | {
        "rate_per_minute": None if state.per_minute is None else round(state.per_minute, 1),
        "failures": msgspec.to_builtins(_last_failures(state)),
        "hanging": msgspec.to_builtins(state.hanging),
        "final": state.progress.finished,
    }


class Lines:
    """Print a line for each change, and one for each new failure; of a large batch one for its reasons."""

    def __init__(self) -> None:
        self._printed: object = None
        self._failures: set[str] | None = None
        self._reasons: list[Reason] = []

    def show(self, state: State) -> None:
        """Print the state if it changed."""
        progress = state.progress
        if _changes(state) == self._printed:
            return
        self._printed = _changes(state)
        known = self._failures or set()
        failures = state.failures or []
        # After the first poll, print only the latest failures.
        fresh = _last_failures(state) if self._failures is None else failures
        for job in sorted(fresh, key=lambda job: job.finished_at or ""):
            if job.job_id not in known:
                print(f"failed: {_failure(job)}")
        self._failures = {job.job_id for job in failures}
        if progress.reasons != self._reasons and (state.failures is None or progress.finished):
            self._reasons = progress.reasons
            print(f"reasons of failures: {_reasons(progress)}")
        items = f"{progress.total_items_extracted:,} items"
        print(f"{_counts(progress)}; {items}; {_rate(state)}{_outlook(state, state.now)}", flush=True)

    def trouble(self, reason: str | None, wait: float) -> None:
        """Print the failure on stderr."""
        _trouble_line(reason, wait)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


class Screen(AbstractContextManager["Screen"]):
    """Draw bars, in place."""

    def __init__(self, console: Console) -> None:
        self._shown: tuple[State, float] | None = None
        self._trouble: str | None = None
        self._next_poll = time.monotonic()
        # Rich draws from a thread, so that times go on while a poll waits for its answer.
        self._live = Live(
            get_renderable=self._picture, console=console, refresh_per_second=_REFRESHES, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        """Start drawing below the cursor."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, keep the last picture, restore the terminal."""
        self._live.stop()

    def show(self, state: State) -> None:
        """Draw the state."""
        self._shown, self._trouble = (state, time.monotonic()), None
        self._next_poll = time.monotonic()
        self._live.refresh()

    def trouble(self, reason: str | None, wait: float) -> None:
        """Say why the last poll failed."""
        self._trouble = reason
        self._next_poll = time.monotonic() + wait
        self._live.refresh()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        self._next_poll = time.monotonic() + seconds
        time.sleep(seconds)

    def _picture(self) -> RenderableType:
        moment = time.monotonic()
        wait = self._next_poll - moment
        trouble = self._trouble or ("waiting for an answer" if wait < -_LATE_SECONDS else None)
        if not self._shown:
            return picture(None, None, trouble, wait)
        state, shown_at = self._shown
        return picture(state, state.now + timedelta(seconds=moment - shown_at), trouble, wait)


def picture(state: State | None, now: datetime | None, trouble: str | None = None, wait: float = 0) -> RenderableType:
    """Return what a terminal shows. Of a small terminal the first lines remain, and the beginning of each.

    Args:
        state: The last state; `None` before the first answer.
        now: The server's time now.
        trouble: Why there is no newer state; `None` if there is none because no poll is due.
        wait: Seconds until the next poll.
    """
    parts: list[RenderableType] = []
    if state and now:
        parts.append(_heading(state.progress))
    if trouble:
        since = [f"last answer {span((now - state.now).total_seconds())} ago"] if state and now else []
        again = [f"next try in {span(wait)}"] if wait > 0 else []
        parts.append(_line(("; ".join([*since, *again, trouble]), "yellow")))
    if state and now:
        progress, offline = state.progress, trouble is not None
        processing = f"{progress.processing:,} processing; " if progress.processing else ""
        parts += [
            Text(_STALLED if state.hanging else _outlook(state, now, offline=offline)),
            *_paragraph("hanging", state.named(state.now if offline else now), "yellow"),
            _bars(progress),
            Text(f"{_rate(state)}{processing}{progress.total_items_extracted:,} items"),
        ]
        if progress.reasons:
            parts.append(Text.assemble(("reasons of failures: ", "bold"), (_reasons(progress), "red")))
        parts += _paragraph("last failures", map(_failure, _last_failures(state)), "red")
    elif not trouble:
        parts.append(_line(("polling …", "dim")))
    return Group(*parts)


def _paragraph(title: str, texts: Iterable[str], style: str) -> list[Text]:
    lines = [_line((f"  {text}", style)) for text in texts]
    return [_line((title, "bold")), *lines] if lines else []


def _heading(progress: Progress) -> Text:
    share = f"{percentage(progress)} of {progress.total_urls:,} URLs" if progress.total_urls else "no URLs"
    return _line((share, "bold"), ("  ", ""), (visible(progress.batch_id), "bold"))


def _line(*pieces: tuple[str, str]) -> Text:
    return Text.assemble(*pieces, no_wrap=True, overflow="ellipsis")


def _bars(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column()
    table.add_column(ratio=1)
    table.add_column(justify="right")
    table.add_column(justify="right")
    for name, count, style in (
        ("completed", progress.completed, "green"),
        ("failed", progress.failed, "red"),
        ("pending", progress.pending, "blue"),
    ):
        total = max(progress.total_urls, 1)
        bar = ProgressBar(total=total, completed=count, complete_style=style, finished_style=style)
        table.add_row(Text(name), bar, Text(f"{count:,}", style=style), Text(_percent(count, total)))
    return table


def percentage(progress: Progress) -> str:
    """Return how much of a batch has ended."""
    return _percent(progress.completed + progress.failed, max(progress.total_urls, 1))


def _percent(count: int, total: int) -> str:
    """Return a share, rounded down: 100% is all, and 0% is none."""
    return f"{100 * count // total}%" if count == 0 or 100 * count >= total else "<1%"


def _last_failures(state: State) -> list[Job]:
    """Return the jobs that failed last, latest first."""
    return sorted(state.failures or [], key=lambda job: job.finished_at or "", reverse=True)[:_LAST]


def _reasons(progress: Progress) -> str:
    """Return the reasons of failures, the most frequent first; the API names at most ten."""
    named = [
        f"{reason.jobs:,} {'no code' if reason.error_code is None else visible(reason.error_code, 64)}"
        for reason in progress.reasons
    ]
    statuses = progress.summary.statuses if progress.summary else None
    others = statuses.failed - sum(reason.jobs for reason in progress.reasons) if statuses else 0
    return ", ".join([*named, *([f"{others:,} with other codes"] if others > 0 else [])])


def _failure(job: Job) -> str:
    reason = visible(job.error_code or "no reason recorded", 64)
    message = f": {visible(job.error_message, 200)}" if job.error_message else ""
    return f"{visible(job.job_id, 64)} {reason}{message}  {visible(job.url, 200)}"


def _changes(state: State) -> object:
    """Return the parts of a state whose change is printed; the estimate changes with every poll."""
    progress = state.progress
    counts = (progress.total_urls, progress.completed, progress.failed, progress.total_items_extracted)
    jobs = [job.job_id for job in (*(state.failures or ()), *state.hanging)]
    return *counts, progress.estimate.basis, progress.reasons, jobs


def _counts(progress: Progress) -> str:
    share = f"{percentage(progress)}: " if progress.total_urls else ""
    processing = f" ({progress.processing:,} processing)" if progress.processing else ""
    return (
        f"{share}{progress.completed:,} of {progress.total_urls:,} completed, {progress.failed:,} failed, "
        f"{progress.pending:,} pending{processing}"
    )


def _rate(state: State) -> str:
    return "" if state.per_minute is None or state.progress.finished else f"{state.per_minute:,.0f} jobs a minute; "


def _outlook(state: State, now: datetime, *, offline: bool = False) -> str:
    """Return when the batch ends, when it ended, or that it is stalled; and how old an old count is.

    Args:
        state: The last state.
        now: The server's time now.
        offline: Whether a newer state is overdue: the last one then supports no statement about the present.
    """
    progress, estimate = state.progress, state.progress.estimate
    at = _clock(progress.estimated_completion, now)
    if progress.finished:
        return f"finished at {at}"
    if progress.stalled:
        return f"{_STALLED}; {state.stall(now)}"
    left, earliest, latest = (
        round((moment - now).total_seconds())
        for moment in (progress.estimated_completion, estimate.earliest, estimate.latest)
    )
    if offline and left > 0:
        return f"expected to end at {at} (likely {_clock(estimate.earliest, now)} to {_clock(estimate.latest, now)})"
    if offline:
        return f"was expected to end at {at}"
    summary = progress.summary
    counted = f"; counted {span((now - summary.as_of).total_seconds())} ago" if summary and state.age else ""
    likely = f"{span(earliest)} to {span(latest)}" if earliest > 0 else f"within {span(latest)}"
    if left > 0:
        return f"ends in {span(left)} at {at} (likely {likely}){counted}"
    return f"was expected to end at {at}{f' (likely {likely})' if latest > 0 else ''}{counted}"


def _clock(moment: datetime, now: datetime) -> str:
    """Return the time of day, after the date if that is another one."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"


def _trouble_line(reason: str | None, wait: float) -> None:
    text = f"{reason}; next try in {span(wait)}" if reason else "the API answers again"
    print(f"batch-progress: {text}", file=sys.stderr, flush=True)
