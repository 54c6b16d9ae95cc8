"""The handler behind HTTP on loopback in several processes, as an API has several execution environments.

The processes share a listening socket. Each answers one request at a time, as in Lambda, and logs to a file.
"""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from batch_progress_cli.local_server import HOST
from local_cloud.http_server import http_server
from local_cloud.lambda_context import LambdaContext
from local_cloud.proxy_event import Event
from local_cloud.template import timeout_seconds

ROOT: Final = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(processes: int, environment: dict[str, str], folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Serve while the block runs; yield the address and the process ids.

    Args:
        processes: Number of processes.
        environment: Environment variables in addition to this process's.
        folder: The folder of their log files.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=1_024))
        outputs = [stack.enter_context((folder / f"{number}.log").open("wb")) for number in range(processes)]
        command = [sys.executable, "-m", "tests.hostile.serving", str(listener.fileno())]
        running = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603  # our own
                    command,
                    cwd=ROOT,
                    env=os.environ | environment,
                    pass_fds=[listener.fileno()],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
            for output in outputs
        ]
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}", [process.pid for process in running]
        finally:
            for process in running:
                process.terminate()


def ready(address: str) -> None:
    """Wait until the API answers.

    Raises:
        httpx.HTTPError: It does not answer within two minutes.
    """
    httpx.get(address, timeout=120)


def main() -> None:
    """Serve on the socket whose descriptor is the argument, until terminated."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The process ends by SIGTERM: buffered lines would be lost.
        sys.stdout.reconfigure(line_buffering=True)
    from functions.progress.app import handler  # noqa: PLC0415  # the parent process must not import it

    one_at_a_time = threading.Lock()

    seconds = timeout_seconds("ProgressFunction")

    def call(event: Event) -> object:
        with one_at_a_time:
            return handler(event, LambdaContext(seconds))

    listener = socket.socket(fileno=int(sys.argv[1]))
    with Path(os.devnull).open("w", encoding="utf-8") as screen:
        http_server(listener, call, screen).serve_forever()


if __name__ == "__main__":
    main()
