"""A web page from elsewhere, in a browser on the machine of `make run`: it reads nothing there."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from local_cloud import seed
from tests.browser.chromium import ARGUMENTS
from tests.browser.chromium import PATH as CHROMIUM
from tests.integration import server
from tests.integration.server import LocalApi
from tests.integration.test_serve import PATH, SCAN, listening

# Returns what a page can read of an answer.
READ: Final = """async ([address, request]) => {
    try {
        const answer = await fetch(address, request);
        return answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`;
    } catch (error) {
        return error.name;
    }
}"""
TABLE: Final = {"method": "POST", "headers": SCAN, "body": '{"TableName": "JobsTable"}'}
# Without headers of its own, a page need not ask the server before it sends a request.
SIMPLE: Final = {"method": "POST", "body": '{"owner": "demo", "seconds": 60}'}
REBOUND: Final = "rebound.example.com"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalApi]:
    """A server that also serves containers."""
    with server.running("--bridge", "127.0.0.2") as running:
        yield running


class Elsewhere(BaseHTTPRequestHandler):
    """Serves an empty page."""

    def do_GET(self) -> None:
        """Answer any path."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def page_at(browser: Browser, address: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        yield page


def requests(port: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every way to ask for something of the server, on each of its addresses."""
    for address in (f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "127.0.0.2")):
        yield address, TABLE
        yield address + PATH, {"headers": {"X-API-Key": seed.TOKEN}}
        yield f"{address}/issuer/token", SIMPLE
        for path in ("/", "/events", "/issuer/jwks.json", "/watch/batch_live"):
            yield address + path, {}
        for request in (TABLE, SIMPLE, {}):
            yield address, request | {"mode": "no-cors"}


def test_a_page_of_another_origin_reads_nothing(browser: Browser, local: LocalApi) -> None:
    """Neither tables nor the API nor anything else, on any port. The other origin is as close as can be: loopback."""
    port = int(local.address.rpartition(":")[2])
    assert {port} == {port for _, port in listening(local.process.pid)}
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=elsewhere.serve_forever, args=(0.05,)).start()
    try:
        with page_at(browser, f"http://127.0.0.1:{elsewhere.server_port}/") as page:
            # The page can read what it may read.
            assert "200 " == page.evaluate(READ, ["/", {}])
            for request in requests(port):
                expected = "opaque" if "mode" in request[1] else "TypeError"
                assert expected == page.evaluate(READ, list(request)), request
    finally:
        elsewhere.shutdown()
        elsewhere.server_close()


def test_a_name_that_is_bound_to_this_machine_later_reads_nothing(browser: Browser, local: LocalApi) -> None:
    """DNS rebinding: to the browser, the page and the server then have one origin, so it lets the page read."""
    port = int(local.address.rpartition(":")[2])
    for address in ("127.0.0.1", "127.0.0.2"):
        arguments = [*ARGUMENTS, f"--host-resolver-rules=MAP {REBOUND} {address}"]
        another = browser.browser_type.launch(executable_path=CHROMIUM, args=arguments)
        with another, page_at(another, f"http://{REBOUND}:{port}/watch/batch_live") as page:
            for path, request in (("/", TABLE), (PATH, {"headers": {"X-API-Key": seed.TOKEN}}), ("/events", {})):
                assert page.evaluate(READ, [path, request]).startswith("421 Ask for "), path
