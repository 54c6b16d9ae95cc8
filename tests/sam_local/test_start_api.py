"""The API by `sam local start-api`, with the functions in containers.

It imitates only API Gateway's routes. It ignores `GatewayResponses`, so other tests cover the gateway's own errors. It
joins repeated headers, so two different values cannot be tested. It decodes paths, throttles nothing, writes no access
log and checks no permission.
"""

from collections.abc import Iterator

import httpx
import pytest

from tests.sam_local.conftest import at_work, command, listens
from tests.sam_local.test_invoke import check_data

PORT = 3080
PATH = "/api/v1/scrape/batch/batch_xyz789/progress"
KEY = {"X-API-Key": "demo-token"}
BEARER = {"Authorization": "Bearer demo-token"}


@pytest.fixture(scope="module")
def client(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of the API, as docs/containers.md starts it."""
    with (
        at_work(command(".venv-sam/bin/sam local start-api"), environment, lambda _: listens(PORT)),
        httpx.Client(
            base_url=f"http://127.0.0.1:{PORT}", headers={"Accept-Encoding": "identity"}, timeout=120
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("headers", [KEY, BEARER], ids=["key", "bearer"])
@pytest.mark.parametrize("path", [PATH, PATH.removeprefix("/api")], ids=["path", "short path"])
def test_either_path_takes_either_credential(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers=headers)
    assert 200 == answer.status_code
    assert "application/json" == answer.headers["Content-Type"]
    check_data(answer.json())


def test_a_compressed_answer_arrives_as_it_was_compressed(client: httpx.Client) -> None:
    """The API's binary media types make the answer binary, not base64 text."""
    answer = client.get(PATH, headers=KEY | {"Accept-Encoding": "gzip"})
    assert (200, "gzip") == (answer.status_code, answer.headers["Content-Encoding"])
    check_data(answer.json())


def test_an_unchanged_poll_is_not_sent_again(client: httpx.Client) -> None:
    """Its ETag stays the same."""
    tag = client.get(PATH, headers=KEY).headers["ETag"]
    again = client.get(PATH, headers=KEY | {"If-None-Match": tag})
    assert (304, b"", tag) == (again.status_code, again.content, again.headers["ETag"])


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    answer = client.head(PATH, headers=KEY)
    assert (200, b"") == (answer.status_code, answer.content)
    assert answer.headers["ETag"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", PATH, {}, 401, "AUTHENTICATION_REQUIRED"),
        ("GET", PATH, {"X-API-Key": "no-such-token"}, 401, "INVALID_API_KEY"),
        ("GET", PATH, {"Authorization": "Bearer demo-expired-token"}, 401, "TOKEN_EXPIRED"),
        ("GET", PATH.replace("xyz789", "none"), KEY, 404, "BATCH_NOT_FOUND"),
        ("GET", "/api/v1/scrape", KEY, 404, "ROUTE_NOT_FOUND"),
        ("GET", "/", KEY, 404, "ROUTE_NOT_FOUND"),
        ("DELETE", PATH, KEY, 405, "METHOD_NOT_ALLOWED"),
        ("POST", PATH, KEY, 405, "METHOD_NOT_ALLOWED"),
        ("GET", PATH + "?limit=many", KEY, 422, "VALIDATION_ERROR"),
        ("GET", PATH.replace("_", "."), KEY, 422, "VALIDATION_ERROR"),
    ],
)
def test_an_error_is_the_envelope_with_its_status(
    client: httpx.Client, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """Errors have `WWW-Authenticate`, `Allow` and `Cache-Control` where these belong."""
    answer = client.request(method, path, headers=headers)
    assert (status, code) == (answer.status_code, answer.json()["error"]["code"])
    assert "no-store" == answer.headers["Cache-Control"]
    assert (status == 401) == ("WWW-Authenticate" in answer.headers)
    assert ("GET, HEAD" if status == 405 else None) == answer.headers.get("Allow")


def test_the_page_that_watches_a_batch_is_served(client: httpx.Client) -> None:
    """The function reads the page from a file that is not a module."""
    answer = client.get("/watch/batch_xyz789")
    assert (200, True) == (answer.status_code, answer.headers["Content-Type"].startswith("text/html"))
    assert "<title>Batch progress" in answer.text
