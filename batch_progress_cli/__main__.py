"""The entry point of `batch-progress`."""

import sys
from importlib.util import find_spec
from typing import Final

from batch_progress_cli.failure import FAILED, INTERRUPTED

# The packages of the extra `cli` in pyproject.toml. `pip install batch-progress`, without it, is for workers.
EXTRA: Final = ("httpx", "rich", "typer")


def main() -> None:
    """Run the command line if its packages are installed."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        hint = 'pip install "batch-progress[cli]"'
        print(f"batch-progress: not installed: {', '.join(missing)}; run: {hint}", file=sys.stderr)
        sys.exit(FAILED)
    try:
        from batch_progress_cli.main import app  # noqa: PLC0415  # needs the extra's packages

        app()
    except KeyboardInterrupt:
        # Typer reports one within a command; this one came before or after it.
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
