"""Draw the output of `batch-progress watch` for the README: `terminal_picture.py FILE`."""

import io
import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from batch_progress.client.results import Estimate, Progress, Reason, Statuses, Summary
from batch_progress_cli.api import Job
from batch_progress_cli.follow import State
from batch_progress_cli.views import picture

NOW = datetime(2026, 11, 24, 10, 33, 20, tzinfo=UTC)
FAILURES = (
    ("job_000027", "HTTP_503", "The site is overloaded.", "https://shop.example.com/page/27"),
    ("job_000019", "TIMEOUT", "The page did not answer within 8 seconds.", "https://news.example.org/page/19"),
)


def state() -> State:
    """Return a batch that is two thirds done."""
    failures = [
        Job(job_id, url, None, (NOW - timedelta(seconds=ago)).isoformat(), code, message)
        for ago, (job_id, code, message, url) in enumerate(FAILURES)
    ]
    reasons = [Reason(code, 1) for _, code, _, _ in FAILURES]
    summary = Summary(Statuses(pending=9, processing=4, completed=25, failed=2, cancelled=0), reasons, NOW)
    ends = [NOW + timedelta(seconds=seconds) for seconds in (11, 7, 18)]
    estimate = Estimate("observed", ends[1], ends[2], 0.8)
    progress = Progress("batch_live", 40, 25, 2, 13, 612, ends[0], estimate, summary)
    return State(progress, NOW, 87.0, failures=failures)


def main() -> None:
    """Write the picture; its content depends on neither the machine nor the time."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    console = Console(record=True, width=104, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(Text("$ batch-progress watch batch_live"))
    console.print(picture(state(), NOW))
    svg = console.export_svg(title="batch-progress watch", unique_id="watch")
    # Without web fonts the picture loads nothing from other hosts.
    Path(sys.argv[1]).write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


main()
