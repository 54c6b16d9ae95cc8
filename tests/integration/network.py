"""A network of a command's own: its port 3000 is free, whatever else this machine runs."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

# Makes a network namespace with a loopback interface, and keeps it until its input ends.
# Where the system does not allow that, prints 0: the commands then use this machine's network.
_KEEP = """
import fcntl, os, socket, struct, sys
flags = 0
for tried in (getattr(os, "CLONE_NEWNET", 0), getattr(os, "CLONE_NEWNET", 0) | getattr(os, "CLONE_NEWUSER", 0)):
    try:
        os.unshare(tried)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    except (AttributeError, OSError):
        continue
    flags = tried
    break
print(flags, flush=True)
sys.stdin.read()
"""
_JOIN = """
import os, sys
os.setns(os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]))
os.execvp(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def network() -> Iterator[list[str]]:
    """Make a network; yield what to put before a command that shall run in it."""
    with subprocess.Popen(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", _KEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout
        assert keeper.stdin
        flags = keeper.stdout.readline().strip()
        yield [] if flags == "0" else [sys.executable, "-c", _JOIN, str(keeper.pid), flags]
        keeper.stdin.close()
