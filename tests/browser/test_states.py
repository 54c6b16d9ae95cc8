"""What the page shows in each state of batch, token and network."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Clock, sign_in
from tests.browser.fake_api import TOKEN, FakeApi, job


def test_a_running_batch(tab: Page, api: FakeApi) -> None:
    """Percentage, time left with its range, counts, and the bar described in words."""
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text("Running")
    expect(tab.locator("#percent")).to_have_text("80%")
    expect(tab.locator("#left")).to_have_text("About 4 min left")
    expect(tab.locator("#range")).to_contain_text("between ")
    expect(tab.get_by_role("progressbar")).to_have_attribute(
        "aria-valuetext", "6 completed, 2 failed, 2 pending (1 of them processing), of 10."
    )
    expect(tab).to_have_title("80%, 2 failed · batch_xyz789")
    expect(tab.locator("#rows tr")).to_have_count(10)


def test_an_unchanged_poll_is_a_304(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The page sends the ETag that it has, polls after `Retry-After`, and shows the next change."""
    api.retry_after = 7
    sign_in(tab, api.page())
    assert 7 == clock.seconds_to_poll()
    clock.advance(6)
    expect(tab.locator("#fresh")).to_have_text(re.compile(r"As of [\d:]+(?:, \d+ Jan)?, next update in 1 s"))
    opened = clock.requests()
    clock.advance(1)
    assert 7 == clock.seconds_to_poll(2)
    assert (opened + 1, 1) == (clock.requests(), api.unchanged)
    api.jobs = [job(1, "completed")] * 9 + [job(10)]
    clock.advance(7)
    expect(tab.locator("#percent")).to_have_text("90%")


def test_the_token_stays_in_the_tab(tab: Page, api: FakeApi) -> None:
    """It survives a reload, is in no URL, cookie or permanent storage, and "Forget token" deletes it."""
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.reload()
    expect(tab.locator("#percent")).to_have_text("80%")
    assert ("", 0, api.page()) == tuple(tab.evaluate("[document.cookie, localStorage.length, location.href]"))
    tab.get_by_role("button", name="Forget token").click()
    expect(tab.get_by_label("API token")).to_be_visible()
    expect(tab.locator("#view")).to_be_hidden()
    assert "" == tab.evaluate("sessionStorage.getItem('batch-progress')")


def test_a_bad_token(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The form comes back, says why, and waits for another token in the focused field. The page does not poll."""
    sign_in(tab, api.page(), "another-token")
    expect(tab.locator("#signin-fault")).to_have_text("This token is not valid.")
    expect(tab.get_by_label("API token")).to_be_focused()
    expect(tab.get_by_label("API token")).to_have_value("")
    clock.advance(3600)
    assert 1 == clock.requests()


def test_a_token_that_expires_during_use(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Nothing of the batch stays on the screen."""
    sign_in(tab, api.page())
    expect(tab.locator("#view")).to_be_visible()
    api.refusal = (401, "TOKEN_EXPIRED", None)
    clock.advance(clock.seconds_to_poll())
    expect(tab.locator("#signin-fault")).to_have_text("This token has expired.")
    expect(tab.locator("#view")).to_be_hidden()


@pytest.mark.parametrize("token", ["short", "with blank inside", "ümlaut-token", "tab\tinside-it"])
def test_an_invalid_token_is_not_sent(tab: Page, api: FakeApi, token: str) -> None:
    sign_in(tab, api.page(), token)
    expect(tab.locator("#signin-fault")).to_contain_text("8 or more letters")
    assert [] == api.asked


def test_an_unknown_batch(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The page names the batch, and requests it again only when the user asks for it."""
    api.refusal = (404, "BATCH_NOT_FOUND", None)
    sign_in(tab, api.page("batch_nowhere"))
    expect(tab.get_by_role("heading", name="No such batch")).to_be_visible()
    expect(tab).to_have_title("No such batch · batch_nowhere")
    expect(tab.locator("#notice-text")).to_have_text(
        "The owner of this token has no batch batch_nowhere. It may have been deleted."
    )
    clock.advance(3600)
    assert 1 == clock.requests()
    api.refusal = None
    tab.get_by_role("button", name="Try now").click()
    expect(tab.locator("#percent")).to_have_text("80%")


@pytest.mark.parametrize("name", ["a.b", "%3Cscript%3E", "x" * 129, "%ff"])
def test_a_url_without_a_valid_batch_id(tab: Page, api: FakeApi, name: str) -> None:
    """The page does not ask for a token, and sends nothing."""
    tab.goto(api.page(name))
    expect(tab.get_by_role("heading", name="No batch at this address")).to_be_visible()
    expect(tab.get_by_label("API token")).to_be_hidden()
    assert [] == api.asked


def test_a_trailing_slash_is_accepted(tab: Page, api: FakeApi) -> None:
    sign_in(tab, api.page() + "/")
    expect(tab.locator("#percent")).to_have_text("80%")


def test_offline_and_back(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The page keeps the last state and shows its time; it polls at once when the connection returns."""
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    tab.context.set_offline(True)
    expect(tab.get_by_role("heading", name="You are offline")).to_be_visible()
    expect(tab.locator("#notice-text")).to_contain_text("This page shows the state of ")
    expect(tab.locator("#percent")).to_have_text("80%")
    expect(tab).to_have_title("Offline at 80% · batch_xyz789")
    tab.context.set_offline(False)
    expect(tab.locator("#notice")).to_be_hidden()
    expect(tab.locator("#state")).to_have_text("Running")


def test_offline_claims_nothing(tab: Page, api: FakeApi, clock: Clock) -> None:
    """No time left, no forecast in the chart, and only a range that has not passed."""
    ends = ["2026-01-02T03:04:05Z", "2026-01-02T03:06:05Z"]
    api.jobs = [*(job(number, "completed", finished_at=end) for number, end in enumerate(ends * 4)), *api.jobs[8:]]
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    expect(tab.locator("#chart .band")).to_have_count(1)
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    clock.advance(1)
    expect(tab.locator("#left")).to_have_text(re.compile(r"No news since \d\d:10:00"))
    expect(tab.locator("#range")).to_have_text(re.compile(r"The forecast then: between \d\d:13:12 and \d\d:16:00"))
    expect(tab.locator("#chart .band, #chart .path, #chart .now")).to_have_count(0)
    expect(tab.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"^8 of 10 jobs ended [^;]*$"))
    clock.advance(600)
    clock.seconds_to_poll(3)  # the poll that was due has been refused too
    expect(tab.locator("#range")).to_be_empty()
    expect(tab.locator("#left")).to_contain_text("No news since ")
    api.refusal = None
    api.jobs = [*api.jobs[:8], job(9), job(10)]
    tab.get_by_role("button", name="Try now").click()
    expect(tab.locator("#left")).to_have_text("About 4 min left")
    expect(tab.locator("#chart .band")).to_have_count(1)


@pytest.mark.parametrize("width", [375, 1280])
def test_offline_is_seen_at_every_scroll_position(tab: Page, api: FakeApi, clock: Clock, width: int) -> None:
    """At the top, in the middle of the table and at its end; what has the focus is not behind it."""
    tab.set_viewport_size({"width": width, "height": 600})
    api.jobs = [job(number, "failed" if number % 3 else "pending", error_code="E") for number in range(200)]
    sign_in(tab, api.page())
    tab.locator("#jobs-title").scroll_into_view_if_needed()
    expect(tab.locator("#rows tr")).to_have_count(100)
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    clock.advance(clock.seconds_to_poll())
    for share in (0, 0.3, 0.7, 1):
        tab.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)
        expect(tab.get_by_role("heading", name="The service cannot answer just now")).to_be_in_viewport(ratio=1)
    links = tab.locator("#rows a")
    links.nth(40).focus()
    for _ in range(30):
        tab.keyboard.press("Shift+Tab")
        assert "visible" == tab.evaluate("""() => {
            const { x, y, width } = document.activeElement.getBoundingClientRect();
            const shown = document.elementFromPoint(x + width / 2, y + 5);
            if (document.activeElement.contains(shown)) return "visible";
            return `${document.activeElement.outerHTML} at ${x},${y} is behind ${shown?.outerHTML}`;
        }""")


def test_a_batch_that_is_not_offline_claims_no_range_that_has_passed(tab: Page, api: FakeApi, clock: Clock) -> None:
    api.retry_after, api.left = 60, timedelta(seconds=20)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    expect(tab.locator("#range")).to_contain_text("between ")
    clock.advance(31)
    expect(tab.locator("#left")).to_have_text("Any moment now")
    expect(tab.locator("#range")).to_be_empty()


def icon(tab: Page) -> str:
    """Return the page's icon, an SVG image."""
    source: str = tab.evaluate("decodeURIComponent(document.querySelector('link[rel=icon]').href)")
    return source.removeprefix("data:image/svg+xml,")


GREEN, RED, AMBER, GREY = "#23966f", "#b53a22", "#d9980d", "#a9afb5"


def dashes(colour: str, size: float) -> str:
    """Return how the icon's source begins a slice of this colour and size in percent."""
    return f'stroke="{colour}" stroke-width="8" pathLength="100" stroke-dasharray="{size:g} 100"'


@pytest.mark.parametrize(
    ("statuses", "word", "left", "title"),
    [
        ("cccc", "Finished", "All done", "Done"),
        ("cccf", "Part failed", "Done, with 1 failed", "Done, 1 failed"),
        ("ccfx", "Part failed", "Done, with 1 failed, 1 cancelled", "Done, 1 failed, 1 cancelled"),
        ("ffff", "Failed", "All 4 failed", "All failed"),
        ("fffx", "Failed", "3 failed, 1 cancelled", "All failed"),
        ("xxxx", "Cancelled", "All 4 cancelled", "Cancelled"),
    ],
)
def test_how_a_batch_ended(tab: Page, api: FakeApi, statuses: str, word: str, left: str, title: str) -> None:
    """In words, in the title, in the icon, and in the colour of the percentage and the chart."""
    names = {"c": "completed", "f": "failed", "x": "cancelled"}
    ends = ["2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z", "2026-01-02T03:06:05Z", "2026-01-02T03:07:05Z"]
    api.jobs = [
        job(number, names[one], finished_at=end) for number, (one, end) in enumerate(zip(statuses, ends, strict=True))
    ]
    api.basis = "finished"
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text(word)
    expect(tab.locator("#left")).to_have_text(left)
    expect(tab).to_have_title(f"{title} · batch_xyz789")
    completed = statuses.count("c")
    assert dashes(GREEN, 25 * completed) in icon(tab)
    assert dashes(RED, 100 - 25 * completed) in icon(tab)
    red = tab.evaluate("getComputedStyle(document.querySelector('.f')).backgroundColor")
    ink = tab.evaluate("getComputedStyle(document.body).color")
    percent = tab.locator("#percent")
    expect(percent).to_have_text("100%")
    expect(percent).to_have_css("color", ink if completed else red)
    # The line of the failed jobs covers that of the ended ones where they are the same.
    last = tab.locator("#chart .edge").last
    expect(last).to_have_css(
        "stroke",
        red if completed < 4 else tab.evaluate("getComputedStyle(document.querySelector('.c')).backgroundColor"),
    )


def test_everything_that_ended_so_far_failed(tab: Page, api: FakeApi) -> None:
    """The percentage is red before the batch ends."""
    api.jobs = [job(1, "failed"), job(2, "failed"), job(3), job(4)]
    sign_in(tab, api.page())
    expect(tab).to_have_title("50%, 2 failed · batch_xyz789")
    red = tab.evaluate("getComputedStyle(document.querySelector('.f')).backgroundColor")
    expect(tab.locator("#percent")).to_have_css("color", red)
    api.jobs = [job(1, "failed"), job(2, "failed"), job(3, "completed"), job(4)]
    expect(tab.locator("#percent")).not_to_have_css("color", red)


def test_a_batch_without_jobs(tab: Page, api: FakeApi, clock: Clock) -> None:
    """It is not done: nothing was to be done. The page shows the first job by itself."""
    api.jobs, api.basis = [], "finished"
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text("No jobs")
    expect(tab.locator("#percent")).to_have_text("0%")
    expect(tab.locator("#left")).to_have_text("No jobs yet")
    expect(tab.locator("#range")).to_have_text("This batch has no jobs. This page checks twice a minute.")
    expect(tab).to_have_title("No jobs · batch_xyz789")
    expect(tab.locator("#figure")).to_be_hidden()
    assert 30 == clock.seconds_to_poll()
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    clock.advance(30)
    expect(tab.locator("#left")).to_have_text(re.compile(r"No news since \d\d:10:00"))
    expect(tab.locator("#range")).to_be_empty()
    api.jobs, api.basis, api.refusal = [job(1)], "declared", None
    clock.advance(clock.seconds_to_poll(2))
    expect(tab.locator("#state")).to_have_text("Running")


def test_a_running_batch_is_polled_without_retry_after(tab: Page, api: FakeApi, clock: Clock) -> None:
    """A proxy may remove the header. A page that stopped polling would show an old forecast as if it were current."""
    api.retry_after = 0
    sign_in(tab, api.page())
    assert 30 == clock.seconds_to_poll()


def test_loading(tab: Page, api: FakeApi) -> None:
    """Until the first answer the page says that it loads."""
    tab.route("**/progress?**", lambda _: None)
    sign_in(tab, api.page())
    expect(tab.get_by_role("heading", name="Loading this batch")).to_be_visible()
    expect(tab.locator("#say")).to_contain_text("Loading this batch")
    expect(tab).to_have_title("Loading · batch_xyz789")
    expect(tab.get_by_role("button", name="Try now")).to_be_hidden()


def test_the_icon_shows_the_state(tab: Page, api: FakeApi, clock: Clock) -> None:
    """A pie of the ended jobs; grey and hollow offline, amber when stalled."""
    tab.goto(api.page())
    assert GREY in icon(tab)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    assert dashes(GREEN, 60) in icon(tab)
    assert dashes(RED, 20) in icon(tab)
    api.basis = "stalled"
    clock.advance(1)
    expect(tab.locator("#state")).to_have_text("Stalled")
    expect(tab).to_have_title("Stalled at 80% · batch_xyz789")
    assert f'<circle r="8" fill="{AMBER}"/>' in icon(tab)
    clock.seconds_to_poll(2)
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    clock.advance(1)
    expect(tab.locator("#state")).to_have_text("Offline")
    assert dashes(GREEN, 0) in icon(tab)
    assert icon(tab).endswith('<circle r="5" fill="#fff"/></svg>')


def test_an_unavailable_service(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The page waits as long as `Retry-After` says, and then polls by itself."""
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    sign_in(tab, api.page())
    expect(tab.get_by_role("heading", name="The service cannot answer just now")).to_be_visible()
    assert 30 == clock.seconds_to_poll()
    clock.advance(29)
    assert 1 == clock.requests()
    api.refusal = None
    clock.advance(1)
    expect(tab.locator("#percent")).to_have_text("80%")


def test_a_try_that_takes_long(tab: Page, api: FakeApi, clock: Clock) -> None:
    """While a request is under way, no next try is announced."""
    api.refusal = (503, "SERVICE_UNAVAILABLE", 30)
    sign_in(tab, api.page())
    expect(tab.locator("#notice-text")).to_have_text("Next try in 30 s.")
    tab.route("**/progress?**", lambda _: None)
    tab.get_by_role("button", name="Try now").click()
    clock.advance(1)
    expect(tab.locator("#notice-text")).to_have_text("Trying now…")


def test_exponential_backoff(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Without `Retry-After`, the longest wait doubles from 2 s up to a minute. Jitter takes away up to a half."""
    api.refusal = (500, "INTERNAL_ERROR", None)
    sign_in(tab, api.page())
    waits = []
    for number, longest in enumerate((2, 4, 8, 16, 32, 60, 60), 1):
        waits.append(clock.seconds_to_poll(number))
        assert longest / 2 <= waits[-1] <= longest
        assert number == clock.requests()
        clock.advance(waits[-1])
    assert any(wait % 1 for wait in waits)


def test_a_stalled_batch(tab: Page, api: FakeApi) -> None:
    """The page says so, and forecasts no end."""
    api.basis = "stalled"
    sign_in(tab, api.page())
    expect(tab.get_by_role("heading", name="This batch has stalled")).to_be_visible()
    expect(tab.locator("#left")).to_have_text("2 pending, no progress")
    expect(tab.locator("#range")).to_be_empty()
    expect(tab.locator("#chart .band")).to_have_count(0)


@pytest.mark.parametrize("known", [True, False])
def test_a_stalled_batch_shows_its_last_change(tab: Page, api: FakeApi, clock: Clock, known: bool) -> None:  # noqa: FBT001  # a parameter
    """From the jobs' times where it has them, and otherwise from the polls."""
    times = {"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:06:05Z"} if known else {}
    api.jobs = [job(1, "completed", **times), job(2, "processing"), job(3)]
    sign_in(tab, api.page())
    expect(tab.locator("#pending")).to_have_text("21 processing")
    api.jobs = [*api.jobs[:2], job(3, "processing")]
    clock.advance(clock.seconds_to_poll())
    expect(tab.locator("#pending")).to_have_text("22 processing")
    api.basis = "stalled"
    clock.advance(60)
    expect(tab.locator("#range")).to_have_text(re.compile(r"No job has changed since \d\d:10:01"))
    tab.reload()
    expect(tab.locator("#range")).to_have_text(re.compile(r"No job has changed since \d\d:06:05" if known else "^$"))


def test_a_finished_batch(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The page shows why jobs failed, and does not poll again."""
    times = {"started_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:06:05.000Z"}
    reason = {"error_code": "TIMEOUT", "error_message": "It took too long."}
    api.jobs = [job(1, "completed", **times), job(2, "failed", **times, **reason)]
    api.basis = "finished"
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text("Part failed")
    expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
    expect(tab.locator("#range")).to_contain_text("after 2 min")
    expect(tab.locator("#reasons li")).to_have_text("1TIMEOUT")
    expect(tab.locator("#rows .why")).to_have_text("TIMEOUT: It took too long.")
    expect(tab.locator("#chart .edge")).to_have_count(2)
    requests = clock.requests()
    clock.advance(3600)
    assert requests == clock.requests()


@pytest.mark.parametrize(("seconds", "shown"), [(5, r"As of \d\d:10:00"), (6, r"Counted at \d\d:09:54")])
def test_an_old_count_is_said_to_be_old(tab: Page, api: FakeApi, clock: Clock, seconds: int, shown: str) -> None:
    """The service may reuse the count of a large batch. One of a few seconds ago is as good as new."""
    api.counted_ago = timedelta(seconds=seconds)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    expect(tab.locator("#fresh")).to_have_text(re.compile(shown))


def test_a_service_without_summaries(tab: Page, api: FakeApi, clock: Clock) -> None:
    """After a roll-back: the page shows what it gets, and does not ask for a summary again."""
    api.summaries = False
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    expect(tab.locator("#state")).to_have_text("Running")
    expect(tab.locator("#pending")).to_have_text("2")
    expect(tab.locator("#failures")).to_be_hidden()
    expect(tab.locator("#rows tr")).to_have_count(10)
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#rows tr")).to_have_count(2)
    clock.advance(clock.seconds_to_poll())
    clock.seconds_to_poll(2)
    assert ["summary,estimate", "estimate", "estimate"] == [one["include"] for one in api.asked if one["limit"] == "0"]


def test_a_token_is_sent_as_bearer(tab: Page, api: FakeApi) -> None:
    with tab.expect_request("**/progress?**") as caught:
        sign_in(tab, api.page())
    assert f"Bearer {TOKEN}" == caught.value.headers["authorization"]
    assert not caught.value.headers.get("referer")
