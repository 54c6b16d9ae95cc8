"""A job's texts are untrusted: the page shows them as text, and nothing in them takes effect."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.fake_api import FakeApi, job

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script><a id=planted href=#>x</a>"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        " javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://example.com/1",
        "//example.com/x",
        "/relative",
        MARKUP,
        "",
    ],
)
def test_a_url_that_is_not_http_is_not_a_link(tab: Page, api: FakeApi, url: str) -> None:
    """It is shown as text; a click on it does nothing."""
    api.jobs = [job(1, url=url)]
    sign_in(tab, api.page())
    shown = tab.locator("#rows th > :first-child")
    expect(shown).to_have_text(url.replace("\t", "\ufffd").strip() or "no URL")
    expect(tab.locator("#rows a")).to_have_count(0)
    shown.click()
    assert api.page() == tab.url


@pytest.mark.parametrize("url", ["https://example.com/a?b=1#c", "HTTP://EXAMPLE.com/", "https://example.com/" + MARKUP])
def test_an_http_url_is_a_link_that_reveals_nothing(tab: Page, api: FakeApi, url: str) -> None:
    """It opens in a new tab, without an opener and without a referrer."""
    api.jobs = [job(1, url=url)]
    sign_in(tab, api.page())
    link = tab.locator("#rows a")
    expect(link).to_have_text(url)
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_have_attribute("target", "_blank")
    assert tab.evaluate("new URL(document.querySelector('#rows a').href).host") == "example.com"


def test_markup_stays_text_everywhere(tab: Page, api: FakeApi) -> None:
    """In the id, the URL, the error and the status: none of it becomes an element."""
    api.jobs = [
        job(1, "failed", job_id=MARKUP, url=MARKUP, error_code=MARKUP, error_message=MARKUP),
        job(2, status=MARKUP, url="https://example.com/" + MARKUP),
    ]
    sign_in(tab, api.page())
    expect(tab.locator("#rows tr")).to_have_count(2)
    expect(tab.locator("#reasons")).to_contain_text(MARKUP)
    assert 0 == tab.locator("img, #planted, body script:not(:last-child)").count()
    assert 1 == tab.evaluate("document.scripts.length")


def test_text_cannot_change_the_direction_of_other_text(tab: Page, api: FakeApi) -> None:
    """Invisible characters, and those that change the direction of text, are replaced."""
    api.jobs = [job(1, url="https://example.com/\u202egnp.exe")]
    sign_in(tab, api.page())
    expect(tab.locator("#rows a")).to_have_text("https://example.com/\ufffdgnp.exe")


PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize("text", [PERSIAN, "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 👍🏽", "क\u094d\u200dष"])
def test_emoji_and_joined_letters_stay_whole(tab: Page, api: FakeApi, text: str) -> None:
    """The zero-width joiner and non-joiner are part of words and emoji, in each text that the page shows."""
    api.jobs = [job(1, "failed", job_id=text, url=f"https://example.com/{text}", error_code=text, error_message=text)]
    sign_in(tab, api.page())
    expect(tab.locator("#rows a")).to_have_text(f"https://example.com/{text}")
    expect(tab.locator("#rows .why")).to_have_text(f"{text}: {text}")
    expect(tab.locator("#reasons")).to_contain_text(text)
    expect(tab.locator("#rows th")).to_contain_text(text)


def test_persian_text_runs_from_right_to_left(tab: Page, api: FakeApi) -> None:
    """Its full stop is at the left."""
    api.jobs = [job(1, "failed", error_message=f"{PERSIAN} {PERSIAN}.")]
    sign_in(tab, api.page())
    expect(tab.locator("#rows .why")).to_be_visible()
    first, last = tab.evaluate("""() => {
        const text = document.querySelector("#rows .why").firstChild, range = new Range();
        return [0, text.length - 1].map((at) => {
            range.setStart(text, at);
            range.setEnd(text, at + 1);
            return range.getBoundingClientRect().x;
        });
    }""")
    assert last < first


SIGNS = (
    "\u061c",
    "\u200b",
    "\u200e",
    "\u200f",
    "\u202a",
    "\u202e",
    "\u2066",
    "\u2069",
    "\ufeff",
    "\x00",
    "\x1b",
    "\x9b",
)


@pytest.mark.parametrize("sign", SIGNS)
def test_invisible_characters_are_replaced(tab: Page, api: FakeApi, sign: str) -> None:
    api.jobs = [job(1, "failed", error_code=f"A{sign}B")]
    sign_in(tab, api.page())
    expect(tab.locator("#rows .why")).to_have_text("A\ufffdB")


def test_the_policy_blocks_injected_content(tab: Page, api: FakeApi) -> None:
    """The policy blocks markup made from text, other scripts and requests to another host."""
    page = tab.context.new_page()  # the `tab` fixture would fail the test for the errors in the console
    page.goto(api.page())
    refused = page.evaluate("""async () => {
        const tries = {
            markup: () => { document.body.innerHTML = "<b>x</b>"; },
            code: () => { document.createElement("script").text = "1"; },
            elsewhere: () => fetch("http://127.0.0.2:9/"),
        };
        const refused = [];
        for (const [name, attempt] of Object.entries(tries)) {
            try { await attempt(); } catch { refused.push(name); }
        }
        return refused;
    }""")
    assert ["markup", "code", "elsewhere"] == refused
