"""How the function serves the page. tests/browser tests what the page does in a browser."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest

from batch_progress.settings import page_is_served
from local_cloud.template import read
from tests.integration.world import Answer, World, request_lines

PATH = "/watch/batch_xyz789"


@pytest.fixture
def set_watch_page() -> Iterator[Callable[[str], None]]:
    """Set `BATCH_PROGRESS_WATCH_PAGE` as a new deployment would: the function reads it once."""
    with pytest.MonkeyPatch.context() as environment:

        def set_to(value: str) -> None:
            environment.setenv("BATCH_PROGRESS_WATCH_PAGE", value)
            page_is_served.cache_clear()

        yield set_to
    page_is_served.cache_clear()


def get(world: World, path: str = PATH, *, method: str = "GET", **headers: str) -> Answer:
    return world.request(method, path, headers)


def policy(answer: Answer) -> dict[str, str]:
    """Return the directives of the page's policy."""
    directives = [one.partition(" ") for one in answer.headers["Content-Security-Policy"].split("; ")]
    return {name: value for name, _, value in directives}


def test_the_page_needs_no_token_and_holds_no_data(world: World) -> None:
    """It is the same for every batch, whether the batch exists or not."""
    page = get(world)
    assert (HTTPStatus.OK, "text/html; charset=utf-8") == (page.status, page.headers["Content-Type"])
    assert page.text == get(world, "/watch/" + "x" * 128).text
    assert "batch_xyz789" not in page.text


def test_headers(world: World) -> None:
    """No MIME sniffing, no referrer, no opener from another origin; a browser caches the page for five minutes."""
    page = get(world)
    for name, value in {
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "public, max-age=300",
        "Vary": "Accept-Encoding",
    }.items():
        assert [value] == page.headers.getlist(name)
    assert "x-request-id" in page.names


def test_the_policy_allows_only_the_script_and_style_of_the_page(world: World) -> None:
    """It has the hashes of the one script and the one style. No tag has an event handler, a style or a URL."""
    page = get(world)

    def source(tag: str) -> str:
        assert 1 == len(re.findall(rf"<{tag}\b", page.text))
        inline = re.search(rf"<{tag}>(.*)</{tag}>", page.text, re.DOTALL)
        assert inline
        return f"'sha256-{base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()}'"

    assert {
        "default-src": "'none'",
        "script-src": source("script"),
        "style-src": source("style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    } == policy(page)
    assert [] == re.findall(r"<[^>]*\s(?:on\w+|style|src|href|action)=", page.text)


def test_nothing_is_absolute_and_nothing_makes_markup(world: World) -> None:
    """The page works under a stage's prefix, names no other host, and never turns a string into markup."""
    text = get(world).text
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert [] == re.findall(r"[\"'`]/[A-Za-z]", text)
    assert [] == re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|localStorage", text
    )


def test_it_is_small(world: World) -> None:
    """Compressed, as browsers request it, it fits into ten segments: what a server sends before it waits (RFC 6928).

    Few clients request it uncompressed; that limit only notices comments or white space that the build leaves in.
    """
    compressed = get(world, **{"Accept-Encoding": "gzip"})
    assert "gzip" == compressed.coding
    assert compressed.text == get(world).text
    assert 10 * 1_460 > len(base64.b64decode(compressed.payload["body"]))
    assert 40_960 > len(compressed.text.encode())


def test_head(world: World) -> None:
    """The same headers, no body."""
    page, head = get(world), get(world, method="HEAD")
    assert (HTTPStatus.OK, "") == (head.status, head.text)
    assert page.names == head.names


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(world: World, method: str) -> None:
    refused = get(world, method=method)
    assert (405, "METHOD_NOT_ALLOWED") == refused.outcome
    assert "GET, HEAD" == refused.headers["Allow"]


@pytest.mark.parametrize("path", ["/watch/batch_xyz789/", "/watch/%62atch_xyz789"])
def test_equivalent_urls(world: World, path: str) -> None:
    assert HTTPStatus.OK == get(world, path).status


@pytest.mark.parametrize("name", ["a.b", "x" * 129, "%3Cscript%3E", "a%2Fb", "%ff", "ü"])
def test_an_invalid_batch_id(world: World, name: str) -> None:
    """The error is that of the API, and does not repeat the id."""
    refused = get(world, f"/watch/{name}")
    assert (422, "VALIDATION_ERROR") == refused.outcome
    assert ["batch_id"] == list(refused.error["details"])
    assert name not in refused.text


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/watch/a.b", 422, "VALIDATION_ERROR"),
        ("/watch/%3Cscript%3E", 422, "VALIDATION_ERROR"),
        ("/watch", 404, "ROUTE_NOT_FOUND"),
        ("/watch/", 404, "ROUTE_NOT_FOUND"),
        ("/watch/a/b", 404, "ROUTE_NOT_FOUND"),
    ],
)
def test_a_browser_at_an_invalid_address_gets_the_page(
    world: World, path: str, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status of the error, which is logged. No cache gives it to an API client, nor for a corrected path."""
    page = get(world, path, Accept=BROWSER)
    assert (status, "text/html; charset=utf-8") == (page.status, page.headers["Content-Type"])
    assert get(world).text == page.text
    assert ["no-store"] == page.headers.getlist("Cache-Control")
    assert ["Accept, Accept-Encoding"] == page.headers.getlist("Vary")
    assert policy(get(world)) == policy(page)
    logged = request_lines(capsys.readouterr().out)
    assert {code} == {one["outcome"] for one in logged if one["status"] == status}
    head = get(world, path, method="HEAD", Accept=BROWSER)
    assert (status, "") == (head.status, head.text)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html;q=0, application/json", "text/htmlx"])
def test_a_client_that_does_not_ask_for_html_gets_the_envelope(world: World, accept: str) -> None:
    assert (422, "VALIDATION_ERROR") == get(world, "/watch/a.b", Accept=accept).outcome


@pytest.mark.parametrize(
    ("method", "path", "outcome"),
    [
        ("POST", "/watch/a", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/watch/a.b", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/watch/a/b", (404, "ROUTE_NOT_FOUND")),
        ("GET", "/watches", (404, "ROUTE_NOT_FOUND")),
        ("GET", "/v1/watch/a.b", (404, "ROUTE_NOT_FOUND")),
    ],
)
def test_other_errors_are_the_apis_in_a_browser_too(
    world: World, method: str, path: str, outcome: tuple[int, str]
) -> None:
    assert outcome == get(world, path, method=method, Accept=BROWSER).outcome


@pytest.mark.parametrize("path", ["/watch", "/watch/", "/watch/a/b", "/Watch/a", "/watch//", "/api/watch/a"])
def test_similar_paths_are_unknown_routes(world: World, path: str) -> None:
    assert (404, "ROUTE_NOT_FOUND") == get(world, path).outcome


def test_a_deployment_without_the_page(world: World, set_watch_page: Callable[[str], None]) -> None:
    """Its path is an unknown route, whatever the method and the id."""
    set_watch_page("false")
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", "/watch/a.b")):
        assert (404, "ROUTE_NOT_FOUND") == get(world, path, method=method, Accept=BROWSER).outcome


@pytest.mark.parametrize("setting", ["", "no", "True"])
def test_an_invalid_setting(
    world: World, set_watch_page: Callable[[str], None], caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    """The log names the variable, the client gets a plain 500, and progress is still answered."""
    set_watch_page(setting)
    assert (500, "INTERNAL_ERROR") == get(world).outcome
    assert "BATCH_PROGRESS_WATCH_PAGE must be true or false" in caplog.text
    assert HTTPStatus.OK == world.get(world.put_batch()).status


def test_the_template_has_the_parameter() -> None:
    """The page is served by default. A change of the parameter alone publishes a new version of the function."""
    template = read()
    parameter = template["Parameters"]["WatchPage"]
    function = template["Resources"]["ProgressFunction"]["Properties"]
    assert ("true", ["true", "false"]) == (parameter["Default"], parameter["AllowedValues"])
    assert {"Ref": "WatchPage"} == function["Environment"]["Variables"]["BATCH_PROGRESS_WATCH_PAGE"]
    assert "${WatchPage}" in function["VersionDescription"]["Fn::Sub"][0]


def test_requests_for_progress_do_not_import_the_page() -> None:
    """The function starts without the page."""
    code = "import sys, functions.progress.app; print([name for name in sys.modules if 'progress.page' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert "[]\n" == done.stdout
