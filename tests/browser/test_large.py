"""Ten thousand jobs: the page loads them page by page and stays responsive."""

import json
import random
from datetime import datetime, timedelta

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Clock, sign_in
from tests.browser.fake_api import FakeApi, Job, job, rfc3339

COUNT = 10_000
LONGEST_TASK_MS = 200


def second_longest_task(trace: bytes) -> float:
    """Return how many milliseconds of CPU time the second longest task of a page took, from a trace of Chromium.

    CPU time, not wall time: on a busy machine a task also waits for its turn. The longest task may be one in which
    Chromium also compiles the script or collects garbage; slow code of the page is slow at each poll.
    """
    events = json.loads(trace)["traceEvents"]
    main = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == "CrRendererMain"}
    tasks = [one["tdur"] for one in events if "tdur" in one and (one["pid"], one["tid"]) in main]
    return float(sorted(tasks)[-2]) / 1_000


def jobs(ended: int, now: datetime) -> list[Job]:
    """Return the batch after this many of its jobs have ended; one in fifty has failed."""
    dice = random.Random(7)  # noqa: S311  # a workload
    began = now - timedelta(hours=1)
    found = []
    for number in range(COUNT):
        if number >= ended:
            found.append(job(number, "processing" if number < ended + 50 else "pending"))
            continue
        end = began + timedelta(hours=1) * (number / ended)
        times = {"started_at": rfc3339(end - timedelta(seconds=dice.uniform(2, 30)), "milliseconds")}
        times["finished_at"] = rfc3339(end, "milliseconds")
        reason = {
            "error_code": dice.choice(["TIMEOUT", "HTTP_403", "NO_DATA"]),
            "error_message": "The site gave a reason.",
        }
        found.append(
            job(number, "failed", **times, **reason) if number % 50 == 0 else job(number, "completed", **times)
        )
    return found


def test_ten_thousand_jobs_without_a_long_task(tab: Page, api: FakeApi, clock: Clock, browser: Browser) -> None:
    """Opening, polling, paging and filtering: no task keeps the page from answering a click for long."""
    api.jobs = jobs(6_000, clock.now)
    browser.start_tracing(page=tab, categories=["disabled-by-default-devtools.timeline"])
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("60%")
    # The page read the history, in pages and once.
    expect(tab.locator("#chart .lost")).to_be_visible()
    expect(tab.locator("#reasons li")).to_have_count(3)
    tab.wait_for_function("() => document.querySelector('#chart .edge').points.length > 250")
    api.jobs = jobs(6_500, clock.now)
    clock.advance(clock.seconds_to_poll())
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
    assert LONGEST_TASK_MS > second_longest_task(browser.stop_tracing())


def test_a_later_page_is_kept_up_to_date(tab: Page, api: FakeApi, clock: Clock) -> None:
    """A poll updates the counts and the page that is shown, and shows no other page."""
    api.jobs = jobs(150, clock.now)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    expect(tab.locator("#rows .pill.processing")).to_have_count(50)
    api.jobs = jobs(200, clock.now)
    clock.advance(1)
    expect(tab.locator("#rows .pill.processing")).to_have_count(0)
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    tab.get_by_role("button", name="Previous").click()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")


def test_a_batch_that_fits_into_one_answer_needs_one_request(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Up to a thousand jobs, filter and pages need no request."""
    api.jobs = [job(number, "failed" if number % 4 == 0 else "completed") for number in range(999)] + [job(999)]
    sign_in(tab, api.page())
    expect(tab.locator("#where")).to_have_text("1 to 100 of 1,000")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 1,000")
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 250")
    assert 1 == clock.requests()
    assert [{"include": "details,estimate", "limit": "1000"}] == api.asked
