"""Output formats of `watch`: bars on a terminal, lines in a pipe, JSON for scripts."""

import json
import sys
import time
from collections.abc import Iterator
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

# How often the countdown on a terminal is redrawn.
_REFRESH_SECONDS = 0.5
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
        print(f"{_counts(progress)}; {_rate(state)}{_outlook(state, state.now)}", flush=True)

    def trouble(self, reason: str | None, wait: float) -> None:
        """Print the failure on stderr."""
        _trouble_line(reason, wait)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


class Screen(AbstractContextManager["Screen"]):
    """Draw bars, in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False, vertical_overflow="crop")
        self._state: State | None = None
        self._shown_at = 0.0
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        """Start drawing below the cursor."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, keep the last picture, restore the terminal."""
        self._live.stop()

    def show(self, state: State) -> None:
        """Draw the state."""
        self._state, self._shown_at = state, time.monotonic()
        self._draw(0)

    def trouble(self, reason: str | None, wait: float) -> None:
        """Show the failure in the last line."""
        self._trouble = reason
        self._draw(wait)

    def wait(self, seconds: float) -> None:
        """Sleep and redraw the countdown."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._draw(left)
            time.sleep(min(left, _REFRESH_SECONDS))

    def _draw(self, wait: float) -> None:
        since = timedelta(seconds=time.monotonic() - self._shown_at)
        now = self._state.now + since if self._state else None
        self._live.update(picture(self._state, now, self._trouble, wait), refresh=True)


def picture(state: State | None, now: datetime | None, trouble: str | None = None, wait: float = 0) -> RenderableType:
    """Return what a terminal shows.

    Args:
        state: The last state; `None` before the first answer.
        now: The server's time now.
        trouble: Why the last poll failed; `None` if it succeeded.
        wait: Seconds until the next poll.
    """
    parts: list[RenderableType] = []
    if state and now:
        progress = state.progress
        processing = f"{progress.processing:,} processing; " if progress.processing else ""
        parts += [
            _line((visible(progress.batch_id), "bold"), (f"  {progress.total_urls:,} URLs", "")),
            _bars(progress),
            _line((f"{processing}{_rate(state)}{_outlook(state, now)}", "")),
        ]
        if progress.reasons:
            parts.append(_line(("reasons of failures: ", "bold"), (_reasons(progress), "red")))
        if failures := _last_failures(state):
            parts += [_line(("last failures", "bold")), *(_line((f"  {_failure(job)}", "red")) for job in failures)]
    if trouble:
        parts.append(_line((f"{trouble}; next try in {span(wait)}", "yellow")))
    elif not state:
        parts.append(_line(("polling …", "dim")))
    return Group(*parts)


def _line(*pieces: tuple[str, str]) -> Text:
    return Text.assemble(*pieces, no_wrap=True, overflow="ellipsis")


def _bars(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column()
    table.add_column(ratio=1)
    table.add_column(justify="right")
    table.add_column(justify="right")
    total = max(progress.total_urls, 1)
    for name, count, style in (
        ("completed", progress.completed, "green"),
        ("failed", progress.failed, "red"),
        ("pending", progress.pending, "blue"),
    ):
        bar = ProgressBar(total=total, completed=count, complete_style=style, finished_style=style)
        table.add_row(Text(name), bar, Text(f"{count:,}", style=style), Text(f"{count / total:.0%}"))
    return table


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
    processing = f" ({progress.processing:,} processing)" if progress.processing else ""
    return (
        f"{progress.completed:,} of {progress.total_urls:,} completed, {progress.failed:,} failed, "
        f"{progress.pending:,} pending{processing}"
    )


def _rate(state: State) -> str:
    rate = "" if state.per_minute is None or state.progress.finished else f"{state.per_minute:,.0f} jobs a minute; "
    return f"{state.progress.total_items_extracted:,} items; {rate}"


def _outlook(state: State, now: datetime) -> str:
    """Return when the batch ends, when it ended, or that it is stalled; and how old an old count is."""
    progress, estimate = state.progress, state.progress.estimate
    at = progress.estimated_completion.astimezone().strftime("%H:%M:%S")
    if progress.finished:
        return f"finished at {at}"
    if progress.stalled:
        return f"stalled: no job has moved for longer than the timeout of a job; {state.stall(now)}"
    left, earliest, latest = (
        span((moment - now).total_seconds())
        for moment in (progress.estimated_completion, estimate.earliest, estimate.latest)
    )
    summary = progress.summary
    counted = f"; counted {span((now - summary.as_of).total_seconds())} ago" if summary and state.age else ""
    return f"ends in {left} at {at} ({estimate.confidence:.0%}: {earliest} to {latest}){counted}"


def _trouble_line(reason: str | None, wait: float) -> None:
    text = f"{reason}; next try in {span(wait)}" if reason else "the API answers again"
    print(f"batch-progress: {text}", file=sys.stderr, flush=True)
