"""Run a loop in a thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(loop: Callable[[], None], stop: threading.Event, name: str) -> Iterator[None]:
    """Run `loop`, which must return soon after `stop` is set, in a thread of this name until the block ends."""
    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
