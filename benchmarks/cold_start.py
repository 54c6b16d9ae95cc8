"""Answer one event in a new process, as a cold start does: `cold_start.py MODULE <EVENT`."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

# The handler must find only the build on the path, so this entry is removed again.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.append(_ROOT)
from local_cloud.lambda_context import LambdaContext  # noqa: E402  # needs the line above

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
