"""One browser for all tests, and for each test a window of its own that must not report an error."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.browser.chromium import chromium
from tests.browser.fake_api import TOKEN, FakeApi, job, serving

expect.set_options(timeout=30_000)
# What the browser itself says of a refused or failed request; the page is to cope with those.
EXPECTED = "Failed to load resource"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """An empty tab; a script's error, or anything that the policy refuses, fails the test."""
    with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
        page = context.new_page()
        wrong: list[str] = []

        def take_down(message: ConsoleMessage) -> None:
            if message.type == "error" and EXPECTED not in message.text:
                wrong.append(message.text)

        page.on("console", take_down)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        yield page
        assert [] == wrong


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A batch of ten: six completed, two failed, one processing, one pending."""
    statuses = ["completed"] * 6 + ["failed"] * 2 + ["processing", "pending"]
    with serving(FakeApi(jobs=[job(number, status) for number, status in enumerate(statuses, 1)])) as served:
        yield served


def sign_in(tab: Page, address: str, token: str = TOKEN) -> None:
    """Open the page and give it a token."""
    tab.goto(address)
    tab.get_by_label("API token").fill(token)
    tab.get_by_role("button", name="Watch").click()
