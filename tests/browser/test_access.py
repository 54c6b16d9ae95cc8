"""The page for everybody: in light and dark, by keyboard, by screen reader, on a small screen."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import barriers
from tests.browser.conftest import sign_in
from tests.browser.fake_api import TOKEN, FakeApi, job

REASON = {"error_code": "TIMEOUT", "error_message": "The page did not answer within 30 seconds."}
TIMES = {"started_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:06:05.000Z"}


def mixed(count: int) -> list[dict[str, object]]:
    """Return jobs of every status."""
    statuses = ["completed", "completed", "failed", "cancelled", "processing", "pending"]
    jobs = [job(number, statuses[number % 6], **TIMES) for number in range(count)]
    return [one | (REASON if one["status"] == "failed" else {}) for one in jobs]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_has_a_serious_barrier(tab: Page, api: FakeApi, scheme: Literal["light", "dark"]) -> None:
    """axe-core finds nothing serious: the form, its refusal, running, stalled, finished, away, unknown."""
    tab.emulate_media(color_scheme=scheme)
    tab.goto(api.page())
    expect(tab.get_by_label("API token")).to_be_visible()
    assert [] == barriers(tab)

    sign_in(tab, api.page(), "another-token")
    expect(tab.locator("#signin-fault")).not_to_be_empty()
    assert [] == barriers(tab)

    api.jobs = mixed(250)
    sign_in(tab, api.page())
    for basis, word in (("observed", "Running"), ("stalled", "Stalled"), ("finished", "Finished")):
        api.basis = basis
        expect(tab.locator("#state")).to_have_text(word)
        assert [] == barriers(tab)

    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    api.basis = "observed"
    tab.reload()
    expect(tab.locator("#notice")).to_be_visible()
    assert [] == barriers(tab)

    api.refusal = (404, "BATCH_NOT_FOUND", None)
    tab.reload()
    expect(tab.get_by_role("heading", name="No such batch")).to_be_visible()
    assert [] == barriers(tab)


def test_by_keyboard_alone(tab: Page, api: FakeApi) -> None:
    """Token, filter, pages and links: each is reached by Tab, shown as focused, and worked without a pointer."""
    api.jobs = [job(number, "completed" if number % 2 else "failed") for number in range(300)]
    tab.goto(api.page())
    tab.keyboard.press("Tab")
    expect(tab.get_by_label("API token")).to_be_focused()
    tab.keyboard.type(TOKEN)
    tab.keyboard.press("Enter")
    expect(tab.locator("#rows tr")).to_have_count(100)

    def tab_to(name: str) -> None:
        for _ in range(120):
            tab.keyboard.press("Tab")
            if name == tab.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent"):
                seen = tab.evaluate("""() => {
                    const one = document.activeElement, shown = one.type === "radio" ? one.parentElement : one;
                    return getComputedStyle(shown).outlineStyle;
                }""")
                assert "solid" == seen
                return
        raise AssertionError(f"{name} is not reached")

    expect(tab.get_by_role("heading", level=1)).to_be_focused()
    tab_to("all")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 150")
    tab_to("Next")
    tab.keyboard.press("Enter")
    expect(tab.locator("#where")).to_have_text("101 to 150 of 150")
    expect(tab.get_by_role("button", name="Next")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#where")).to_have_text("101 to 150 of 150")
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 150")


def test_a_poll_leaves_the_focus_where_it_is(tab: Page, api: FakeApi) -> None:
    """A row that changes keeps its link, and whoever stands on it."""
    sign_in(tab, api.page())
    tab.get_by_role("link", name="https://example.com/page/9", exact=True).focus()
    api.jobs = [*api.jobs[:8], job(9, "completed"), job(10)]
    expect(tab.locator("#percent")).to_have_text("90%")
    expect(tab.get_by_role("link", name="https://example.com/page/9", exact=True)).to_be_focused()


def test_a_listener_is_told_of_progress_and_not_of_every_poll(tab: Page, api: FakeApi) -> None:
    """One sentence at the start, none for polls that change little, one at the end."""
    jobs = [job(number, "completed" if number < 41 else "pending") for number in range(200)]
    api.jobs = jobs
    sign_in(tab, api.page())
    expect(tab.locator("#say")).to_contain_text("20% done")
    tab.evaluate("""() => {
        window.heard = 0;
        new MutationObserver(() => { window.heard += 1; }).observe(document.getElementById("say"), { childList: true });
    }""")
    for more in (42, 43, 44):
        api.jobs = [job(number, "completed" if number < more else "pending") for number in range(200)]
        expect(tab.locator("#completed")).to_have_text(str(more))
    assert 0 == tab.evaluate("window.heard")
    api.jobs, api.basis = [job(number, "completed") for number in range(200)], "finished"
    expect(tab.locator("#say")).to_contain_text("100% done, All done")
    assert 1 == tab.evaluate("window.heard")


def test_landmarks_headings_and_table(tab: Page, api: FakeApi) -> None:
    """A screen reader finds its way: one main, one h1, rows with a header, named columns, a described chart."""
    sign_in(tab, api.page())
    expect(tab.get_by_role("main")).to_have_count(1)
    expect(tab.get_by_role("heading", level=1)).to_have_text("batch_xyz789")
    expect(tab.get_by_role("table", name="Jobs")).to_be_visible()
    assert ["Job", "Status", "Items", "Time"] == tab.get_by_role("columnheader").all_text_contents()
    expect(tab.get_by_role("rowheader")).to_have_count(10)
    expect(tab.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"8 of 10 jobs ended from .*; the rest is forecast to end at .*, between .* and .*\.")
    )


@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_needs_scrolling_sideways(tab: Page, api: FakeApi, width: int) -> None:
    """Long ids, addresses and reasons wrap."""
    tab.set_viewport_size({"width": width, "height": 740})
    api.jobs = [
        job(1, "failed", url="https://example.com/" + "x" * 2_000, job_id="j" * 200, **TIMES, error_code="E" * 100),
        *mixed(240),
    ]
    tab.goto(api.page("b" * 128))
    assert 0 == tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    sign_in(tab, api.page("b" * 128))
    expect(tab.locator("#rows tr")).to_have_count(100)
    assert 0 == tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    cut = tab.evaluate("""[...document.querySelectorAll("td, th, dd, dt, #pager p, button")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
        .map((one) => one.textContent.slice(0, 60))""")
    assert [] == cut
    assert [] == barriers(tab)
    expect(tab.get_by_role("table", name="Jobs").get_by_role("row").nth(1).get_by_role("rowheader")).to_have_count(1)
