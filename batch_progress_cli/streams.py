"""Standard output and standard error that no encoding and no reader that has gone can break."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO


def prepare() -> None:
    """Replace characters that the encoding of the output lacks, such as bars in cp1252, and accept closed streams."""
    # Python has no stream for a descriptor that was closed when it started.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def drop_unwritten() -> None:
    """Discard output that cannot be written: the interpreter would report it at its exit, and change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")  # open until the process ends
