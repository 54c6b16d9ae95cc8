"""Answer once, as a cold function does: `cold_start.py MODULE`, with the event on the standard input."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

# The process has only the build on its path, and so has what the handler imports.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.append(_ROOT)
from local_cloud.lambda_context import LambdaContext  # noqa: E402  # found by the line above

sys.path.remove(_ROOT)


def main() -> None:
    """Import the handler, call it, print its answer."""
    handler = import_module(sys.argv[1]).handler
    answer = json.dumps(handler(json.load(sys.stdin), LambdaContext(120)))
    if json.loads(answer)["statusCode"] != 200:  # noqa: PLR2004  # HTTP's OK
        sys.exit(answer)
    # Lambda freezes the process here: its shutdown is not part of a cold start.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
