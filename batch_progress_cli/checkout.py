"""Commands that run only in a checkout.

They need the local cloud, the functions or the template, which the wheel does not contain.
"""

# The wheel has none of these modules.
# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batch_progress_cli.failure import Failed


def serve(port: int, bridge: str | None) -> None:
    """Run the local server.

    Raises:
        Failed: It cannot start, or this is not a checkout.
    """
    with _checkout("the local server", "make run"):
        from local_cloud.serve import serve as run

        run(port, bridge)


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document.

    Raises:
        Failed: This is not a checkout.
    """
    with _checkout("the OpenAPI document", "make openapi"):
        from scripts.openapi import document

        return document()


@contextmanager
def _checkout(what: str, target: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failed(f"{what} needs a checkout of the project (`{target}`): {error.name} is not installed") from error
