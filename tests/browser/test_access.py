"""Accessibility: light and dark, keyboard, screen reader, small screens."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.axe import problems
from tests.browser.conftest import Clock, sign_in
from tests.browser.fake_api import TOKEN, FakeApi, Job, job

REASON = {"error_code": "TIMEOUT", "error_message": "The page did not answer within 30 seconds."}
TIMES = {"started_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:06:05.000Z"}


def mixed(count: int) -> list[dict[str, object]]:
    """Return jobs of every status."""
    statuses = ["completed", "completed", "failed", "cancelled", "processing", "pending"]
    jobs = [job(number, statuses[number % 6], **TIMES) for number in range(count)]
    return [one | (REASON if one["status"] == "failed" else {}) for one in jobs]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_state_has_a_serious_problem(tab: Page, api: FakeApi, scheme: Literal["light", "dark"]) -> None:
    """Neither the token form and its error, nor the page as it loads, nor a batch in any state."""
    tab.emulate_media(color_scheme=scheme)
    tab.goto(api.page())
    expect(tab.get_by_label("API token")).to_be_visible()
    assert [] == problems(tab)

    sign_in(tab, api.page(), "another-token")
    expect(tab.locator("#signin-fault")).not_to_be_empty()
    assert [] == problems(tab)

    api.jobs = mixed(250)
    sign_in(tab, api.page())
    for basis, word in (("observed", "Running"), ("stalled", "Stalled"), ("finished", "Part failed")):
        api.basis = basis
        expect(tab.locator("#state")).to_have_text(word)
        expect(tab.locator("#rows tr")).to_have_count(100)
        if basis == "stalled":
            expect(tab.locator("#hung li")).to_have_count(6)
        assert [] == problems(tab)
    tab.locator("#reasons button").first.click()
    expect(tab.locator("#chosen")).to_be_visible()
    expect(tab.locator("#rows tr")).not_to_have_count(100)
    assert [] == problems(tab)

    api.basis = "observed"
    tab.reload()
    expect(tab.locator("#state")).to_have_text("Running")
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    expect(tab.locator("#state")).to_have_text("Offline")
    assert [] == problems(tab)
    tab.evaluate("scrollTo(0, 2_000)")
    assert [] == problems(tab)
    tab.reload()
    expect(tab.get_by_role("heading", name="The service cannot answer just now")).to_be_visible()
    assert [] == problems(tab)

    api.refusal, api.basis = None, "finished"
    ends: list[tuple[str, list[Job]]] = [
        ("Finished", [job(1, "completed", **TIMES)]),
        ("Failed", [job(1, "failed", error_code="WORKER_LOST", **TIMES), job(2, "failed", **TIMES)]),
        ("Cancelled", [job(1, "cancelled")]),
        ("No jobs", []),
    ]
    for word, api.jobs in ends:
        tab.reload()
        expect(tab.locator("#state")).to_have_text(word)
        assert [] == problems(tab)

    tab.route("**/progress?**", lambda _: None)
    tab.reload()
    expect(tab.get_by_role("heading", name="Loading this batch")).to_be_visible()
    assert [] == problems(tab)
    tab.unroute("**/progress?**")

    api.refusal = (404, "BATCH_NOT_FOUND", None)
    tab.reload()
    expect(tab.get_by_role("heading", name="No such batch")).to_be_visible()
    assert [] == problems(tab)


def test_by_keyboard_alone(tab: Page, api: FakeApi) -> None:
    """Token, filter and pages: each is reached by Tab, shows its focus, and works without a pointer.

    Few stops are before each: the links of the jobs come after the pages.
    """
    api.jobs = [job(number, "completed" if number % 2 else "failed") for number in range(300)]
    tab.goto(api.page())
    tab.keyboard.press("Tab")
    expect(tab.get_by_label("API token")).to_be_focused()
    tab.keyboard.type(TOKEN)
    tab.keyboard.press("Enter")
    expect(tab.locator("#rows tr")).to_have_count(100)

    def tab_to(name: str) -> None:
        for _ in range(10):
            tab.keyboard.press("Tab")
            text = tab.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent")
            if name == text.rstrip(" 0123456789"):
                seen = tab.evaluate("""() => {
                    const one = document.activeElement, shown = one.type === "radio" ? one.parentElement : one;
                    return getComputedStyle(shown).outlineStyle;
                }""")
                assert "solid" == seen
                return
        raise AssertionError(f"Tab does not reach {name}")

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
    """A row that changes keeps its link, and the link keeps the focus."""
    sign_in(tab, api.page())
    tab.get_by_role("link", name="https://example.com/page/9", exact=True).focus()
    api.jobs = [*api.jobs[:8], job(9, "completed"), job(10)]
    expect(tab.locator("#percent")).to_have_text("90%")
    expect(tab.get_by_role("link", name="https://example.com/page/9", exact=True)).to_be_focused()


def test_a_screen_reader_announces_progress_but_not_every_poll(tab: Page, api: FakeApi, clock: Clock) -> None:
    """One sentence at the start, none for small changes within a minute, one after a minute, one at the end."""
    jobs = [job(number, "completed" if number < 41 else "pending") for number in range(200)]
    api.jobs = jobs
    sign_in(tab, api.page())
    expect(tab.locator("#say")).to_contain_text("20% done")
    tab.evaluate("""() => {
        window.announced = 0;
        const observer = new MutationObserver(() => { window.announced += 1; });
        observer.observe(document.getElementById("say"), { childList: true });
    }""")
    for completed, seconds, announced in ((42, 1, 0), (43, 1, 0), (44, 57, 0), (45, 2, 1)):
        api.jobs = [job(number, "completed" if number < completed else "pending") for number in range(200)]
        clock.advance(seconds)
        expect(tab.locator("#completed")).to_have_text(str(completed))
        assert announced == tab.evaluate("window.announced")
    api.jobs, api.basis = [job(number, "completed") for number in range(200)], "finished"
    clock.advance(1)
    expect(tab.locator("#say")).to_contain_text("100% done, All done")
    assert 2 == tab.evaluate("window.announced")


def test_forced_colors_show_which_filter_is_chosen(tab: Page, api: FakeApi) -> None:
    """High contrast: the browser replaces the colours of the page. The bar keeps its own, which have a meaning."""
    tab.emulate_media(forced_colors="active", reduced_motion="reduce")
    sign_in(tab, api.page())
    expect(tab.locator("#rows tr")).to_have_count(10)

    def colour(shown: Locator, share: float) -> bytes:
        """Return the picture of a spot of an element at a share of its width."""
        shown.scroll_into_view_if_needed()
        box = shown.bounding_box()
        assert box
        return tab.screenshot(
            clip={"x": box["x"] + share * box["width"], "y": box["y"] + box["height"] / 2, "width": 2, "height": 2}
        )

    labels = tab.locator("#filter label")
    assert colour(labels.nth(1), 0.05) == colour(labels.nth(2), 0.05)
    assert colour(labels.nth(0), 0.05) != colour(labels.nth(1), 0.05)
    bar = tab.locator("#bar")
    assert 4 == len({colour(bar, 0.3), colour(bar, 0.7), colour(bar, 0.95), colour(tab.locator("#percent"), 0.99)})


def test_on_paper(tab: Page, api: FakeApi) -> None:
    """Light, whatever the screen is; the reasons, but no controls; and the bar, although it is a background."""
    sign_in(tab, api.page())
    expect(tab.locator("#view")).to_be_visible()
    ink = tab.evaluate("getComputedStyle(document.body).color")
    tab.emulate_media(media="print", color_scheme="dark")
    assert ink == tab.evaluate("getComputedStyle(document.body).color")
    assert ["no code"] == [one.text_content() for one in tab.locator("button, input").all() if one.is_visible()]
    expect(tab.locator("#bar .c")).to_have_css("print-color-adjust", "exact")


def test_landmarks_headings_and_table(tab: Page, api: FakeApi) -> None:
    """What a screen reader navigates by: one main, one h1, row headers, named columns, a described chart."""
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
    expect(tab.locator("#failures")).to_be_visible()
    tab.locator("#jobs-title").scroll_into_view_if_needed()
    expect(tab.locator("#rows tr")).to_have_count(100)
    assert 0 == tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    cut = tab.evaluate("""[...document.querySelectorAll("td, th, dd, dt, #pager p, button")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
        .map((one) => one.textContent.slice(0, 60))""")
    assert [] == cut
    assert [] == problems(tab)
    expect(tab.get_by_role("table", name="Jobs").get_by_role("row").nth(1).get_by_role("rowheader")).to_have_count(1)
