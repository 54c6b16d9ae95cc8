"""Print the events of the local server as they come."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import msgspec

from batch_progress_cli.failure import Failed
from batch_progress_cli.local_server import EVENTS_PATH, HOST
from batch_progress_cli.terminal import visible

# The server sends a line at least this often.
_SILENCE_SECONDS = 60.0


def events(port: int) -> Iterator[str]:
    """Yield the events of the local server since its start, then each as it comes, as JSON.

    Raises:
        Failed: No local server answers at this port, or it has stopped.
    """
    url = f"http://{HOST}:{port}{EVENTS_PATH}"
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=2)
    try:
        # A proxy cannot reach loopback on this machine.
        with httpx.stream("GET", url, timeout=timeout, trust_env=False) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.strip():
                    yield line
    except httpx.HTTPError as error:
        raise Failed(f"no events at {url}; `make run` must run, or give its port with --local") from error
    raise Failed("the local server has stopped")


def event_line(event: dict[str, Any]) -> str:
    """Return an event as one line for people."""
    detail = event["detail"]
    counts = f"{detail['completed']} completed, {detail['failed']} failed, {detail['pending']} pending"
    summary = detail["summary"]
    reasons = [f"{each['jobs']} {each['error_code'] or 'no code'}" for each in summary["failures"]]
    # `failed` includes them.
    reasons += [f"{cancelled} cancelled"] if (cancelled := summary["statuses"]["cancelled"]) else []
    shown = visible(f"{detail['batch_id']}  {counts}{f' ({", ".join(reasons)})' if reasons else ''}", 200)
    at = datetime.fromisoformat(event["time"]).astimezone()
    return f"{at:%H:%M:%S}  event  {event['detail-type']}  {shown}"


def decoded(line: str) -> dict[str, Any]:
    """Return an event from its JSON."""
    return dict(msgspec.json.decode(line, type=dict[str, Any]))
