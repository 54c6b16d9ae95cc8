"""Ten thousand jobs: the page asks for pages and stays quick."""

import random
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.fake_api import FakeApi, Job, job, rfc3339

COUNT = 10_000
LONGEST_TASK_MS = 200
OBSERVE = """
window.longest = 0;
new PerformanceObserver((list) => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({ type: "longtask", buffered: true });
"""


def jobs(ended: int) -> list[Job]:
    """Return the batch when so many of its jobs have ended, one in fifty of them badly."""
    dice = random.Random(7)  # noqa: S311  # a workload
    began = datetime.now(UTC) - timedelta(hours=1)
    found = []
    for number in range(COUNT):
        if number >= ended:
            found.append(job(number, "processing" if number < ended + 50 else "pending"))
            continue
        end = began + timedelta(hours=1) * (number / ended)
        times = {"started_at": rfc3339(end - timedelta(seconds=dice.uniform(2, 30)), "milliseconds")}
        times["finished_at"] = rfc3339(end, "milliseconds")
        reason = {"error_code": dice.choice(["TIMEOUT", "HTTP_403", "NO_DATA"]), "error_message": "It is told why."}
        found.append(
            job(number, "failed", **times, **reason) if number % 50 == 0 else job(number, "completed", **times)
        )
    return found


def test_ten_thousand_jobs_without_a_long_task(tab: Page, api: FakeApi) -> None:
    """Opened, polled, turned over and filtered, no task keeps the page from answering a click for long."""
    api.jobs = jobs(6_000)
    tab.add_init_script(OBSERVE)
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("60%")
    # The history was looked up page by page, once.
    expect(tab.locator("#chart .lost")).to_be_visible()
    expect(tab.locator("#reasons li")).to_have_count(3)
    tab.wait_for_function("() => document.querySelector('#chart .edge').points.length > 250")
    api.jobs = jobs(6_500)
    expect(tab.locator("#percent")).to_have_text("65%")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("201 to 300 of 10,000")
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#where")).to_have_text("1 to 100")
    expect(tab.locator("#rows .pill.failed")).to_have_count(100)
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 130")
    assert LONGEST_TASK_MS > tab.evaluate("window.longest")


def test_a_page_in_the_middle_is_kept_up_to_date(tab: Page, api: FakeApi) -> None:
    """A poll moves the counts and the page that is shown, and turns back to no other."""
    api.jobs = jobs(150)
    sign_in(tab, api.page())
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    expect(tab.locator("#rows .pill.processing")).to_have_count(50)
    api.jobs = jobs(200)
    expect(tab.locator("#rows .pill.processing")).to_have_count(0)
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    tab.get_by_role("button", name="Previous").click()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")


def test_a_batch_that_fits_an_answer_is_asked_for_in_one(tab: Page, api: FakeApi) -> None:
    """Filter and pages of up to a thousand jobs cost no request."""
    api.jobs = [job(number, "failed" if number % 4 == 0 else "completed") for number in range(999)] + [job(999)]
    api.retry_after = 60
    sign_in(tab, api.page())
    expect(tab.locator("#where")).to_have_text("1 to 100 of 1,000")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 1,000")
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 250")
    assert [{"include": "details,estimate", "limit": "1000"}] == api.asked
