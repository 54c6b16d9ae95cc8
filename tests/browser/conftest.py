"""One browser for all tests, and a new context for each test. A test fails when the page reports an error."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.browser.chromium import chromium
from tests.browser.fake_api import TOKEN, FakeApi, job, serving

# Milliseconds after which a test stops waiting. Even a busy machine needs far less.
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)
# Chromium logs this for a failed request. The tests ignore it, because the page handles the failure.
EXPECTED = "Failed to load resource"
# Counts the page's requests and keeps the delays of its timeouts. The page sets timeouts only for polls.
RECORD = """{
    const { fetch, setTimeout } = window;
    window.requests = 0;
    window.waits = [];
    window.fetch = (...parameters) => { window.requests += 1; return fetch(...parameters); };
    window.setTimeout = (call, ms) => { window.waits.push(ms / 1000); return setTimeout(call, ms); };
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """An empty tab. A script error, or anything that the policy blocks, fails the test."""
    with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        wrong: list[str] = []

        def record(message: ConsoleMessage) -> None:
            if message.type == "error" and EXPECTED not in message.text:
                wrong.append(message.text)

        page.on("console", record)
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


class Clock:
    """The clock of the page. It stands still until a test advances it, however busy the machine is.

    Attributes:
        now: The current time.
    """

    def __init__(self, tab: Page) -> None:
        """Stop the clock."""
        self.now = datetime(2026, 1, 2, 3, 10, tzinfo=UTC)
        self._tab = tab
        tab.clock.install(time=self.now - timedelta(hours=1))
        tab.clock.pause_at(self.now)
        tab.add_init_script(RECORD)

    def advance(self, seconds: float) -> None:
        """Advance the clock. Each timer of the page that is due by then fires once."""
        milliseconds = math.ceil(seconds * 1_000)
        self.now += timedelta(milliseconds=milliseconds)
        self._tab.clock.fast_forward(milliseconds)

    def requests(self) -> int:
        """Return how many requests the page has sent since it was loaded."""
        sent: int = self._tab.evaluate("window.requests")
        return sent

    def seconds_to_poll(self, number: int = 1) -> float:
        """Wait until the page has scheduled poll `number` (1 is the first); return its delay."""
        self._tab.wait_for_function("number => window.waits.length >= number", arg=number)
        delay: float = self._tab.evaluate("number => window.waits[number - 1]", number)
        return delay


@pytest.fixture
def clock(tab: Page, api: FakeApi) -> Clock:
    """A clock of page and API."""
    clock = Clock(tab)
    api.clock = lambda: clock.now
    return clock


def sign_in(tab: Page, address: str, token: str = TOKEN) -> None:
    """Open the page and enter a token."""
    tab.goto(address)
    tab.get_by_label("API token").fill(token)
    tab.get_by_role("button", name="Watch").click()
