"""The running API conforms to its OpenAPI document."""

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.server import running

ROOT = Path(__file__).parents[2]


def test_the_running_api_keeps_to_its_document() -> None:
    """Over 2,000 cases, valid and invalid, get no response that the document does not describe."""
    with running() as api:
        done = subprocess.run(  # noqa: S603  # the project's own tool
            [
                Path(sys.executable).with_name("schemathesis"),
                *("run", "docs/openapi.json", "--url", api.address, "-H", "X-API-Key: demo-token"),
                *("--max-examples", "500", "--seed", "1", "--no-color"),
            ],
            cwd=ROOT,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.package.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-1000:]
    generated = int(done.stdout.split(" generated")[0].split()[-1])
    assert generated >= 2000
