"""Waits for an engine to start."""

import contextlib
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

STARTS_WITHIN: Final = 240.0


class EngineFailed(Exception):
    """The engine cannot run here; the message says why."""


def until_it_listens(name: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until it accepts connections on loopback.

    Raises:
        EngineFailed: It ended or does not listen in time; the message has the last line of its log.
    """
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise EngineFailed(f"{name} does not start: {lines[-1]}")
        time.sleep(0.05)
