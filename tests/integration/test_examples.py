"""The vendor's published curl and Python examples, with only the base URL changed."""

import json
import os
import subprocess
import sys

from tests.integration.server import CEILING, LocalApi

CURL = """\
curl {address}/api/v1/scrape/batch/batch_xyz789/progress \\
  -H "X-API-Key: $FREDDY_API_KEY"
"""
REQUESTS = """\
import os
import requests

api_key = os.environ["FREDDY_API_KEY"]
response = requests.get(
    "{address}/api/v1/scrape/batch/batch_xyz789/progress",
    headers={{"X-API-Key": api_key}}
)
data = response.json()["data"]
print(f"Progress: {{data['completed']}}/{{data['total_urls']}} completed")
print(f"Total items: {{data['total_items_extracted']}}")
"""


def run(*command: str) -> str:
    """Run an example and return what it prints."""
    environment = os.environ | {"FREDDY_API_KEY": "demo-token"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=CEILING)  # noqa: S603
    return done.stdout


def test_curl(local_api: LocalApi) -> None:
    data = json.loads(run("/bin/sh", "-c", CURL.format(address=local_api.address)))["data"]
    assert (7, 10, 245) == (data["completed"], data["total_urls"], data["total_items_extracted"])


def test_python_requests(local_api: LocalApi) -> None:
    printed = run(sys.executable, "-c", REQUESTS.format(address=local_api.address))
    assert "Progress: 7/10 completed\nTotal items: 245\n" == printed
