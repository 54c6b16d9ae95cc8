"""Finds a port for an engine, and waits for the engine to start."""

import contextlib
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

STARTS_WITHIN: Final = 240.0
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANAS: Final = 49_152
_PORTS: Final = 10_000


class EngineFailed(Exception):
    """The engine cannot run here; the message says why."""


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that stay free until the engine listens at them.

    They are below those that the system hands out by itself: another process could get one of those meanwhile.

    Raises:
        EngineFailed: Not as many are free.
    """
    lowest = int(_EPHEMERAL.read_text(encoding="ascii").split()[0]) if _EPHEMERAL.exists() else _IANAS
    found: list[int] = []
    for port in random.sample(range(lowest - _PORTS, lowest), _PORTS):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise EngineFailed(f"no port from {lowest - _PORTS} to {lowest} is free")


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
