"""What the progress function does while Lambda initializes it."""

import os
import subprocess
import sys

import pytest

LAMBDA = {
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_ACCESS_KEY_ID": "fake",
    "AWS_SECRET_ACCESS_KEY": "fake",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "BATCH_PROGRESS_JOBS_TABLE": "JobsTable",
    "BATCH_PROGRESS_TOKENS_TABLE": "TokensTable",
}
# Prints how many clients there are after the import, and what the function answers to a direct call without a table.
CODE = """
import json
from functions.progress import app
print(app._client.cache_info().currsize, app.handler({"batch_id": "b"}, None)["error"]["code"])
"""


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "1 SERVICE_UNAVAILABLE"),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": None}, "0 SERVICE_UNAVAILABLE"),
        ({"BATCH_PROGRESS_JOBS_TABLE": None}, "1 INTERNAL_ERROR"),
        ({"AWS_DEFAULT_REGION": None, "AWS_REGION": None}, "0 INTERNAL_ERROR"),
    ],
    ids=str,
)
def test_the_client_is_made_in_the_init_phase(changed: dict[str, str | None], expected: str) -> None:
    """The import creates the client only in Lambda's init phase.

    With a wrong configuration the function still loads, and answers with an error.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BATCH_PROGRESS_"))
    }
    # A port of this machine on which nothing listens.
    settings = LAMBDA | {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"} | changed
    environment |= {name: value for name, value in settings.items() if value is not None}
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    assert expected == done.stdout.splitlines()[-1]
