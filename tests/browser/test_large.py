"""Ten thousand jobs: the page loads them page by page and stays responsive."""

import json
import random
import re
from collections import Counter
from datetime import datetime, timedelta

from playwright.sync_api import Browser, Page, Route, expect

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


def asked_for(api: FakeApi, limit: int) -> list[dict[str, str]]:
    """Return the parameters, without the limit, of each request with this limit."""
    return [
        {name: one for name, one in asked.items() if name != "limit"}
        for asked in api.asked
        if asked["limit"] == str(limit)
    ]


def test_ten_thousand_jobs_without_a_long_task(tab: Page, api: FakeApi, clock: Clock, browser: Browser) -> None:
    """Opening, polling, paging and filtering: no task keeps the page from answering a click for long."""
    api.jobs = jobs(6_000, clock.now)
    browser.start_tracing(page=tab, categories=["disabled-by-default-devtools.timeline"])
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("60%")
    expect(tab.locator("#reasons li")).to_have_count(3)
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")
    for ended in range(6_050, 6_550, 50):
        api.jobs = jobs(ended, clock.now)
        clock.advance(clock.seconds_to_poll())
        expect(tab.locator("#completed")).to_have_text(f"{sum(job['status'] == 'completed' for job in api.jobs):,}")
    expect(tab.locator("#percent")).to_have_text("65%")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("201 to 300 of 10,000")
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 130")
    expect(tab.locator("#rows .pill.failed")).to_have_count(100)
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 130 of 130")
    assert LONGEST_TASK_MS > second_longest_task(browser.stop_tracing())


def test_the_top_of_the_page_is_right_and_lists_no_jobs(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Counts, processing and the reasons of failures are those of all jobs, and come with polls for counts alone."""
    api.jobs = [*jobs(6_000, clock.now)[:-2], job(9_998, "failed"), job(9_999, "cancelled")]
    expected = Counter(job["error_code"] or "no code" for job in api.jobs if job["status"] == "failed")
    sign_in(tab, api.page())
    expect(tab.locator("#failures")).to_be_visible()
    reasons = [
        (one.locator("button").text_content(), one.locator("b").text_content())
        for one in tab.locator("#reasons li").all()
    ]
    assert [(code, str(count)) for code, count in expected.most_common()] == reasons
    assert "no code" == reasons[-1][0]
    expect(tab.locator("#pending")).to_have_text("3,99850 processing")
    expect(tab.locator("#failed")).to_have_text("1221 cancelled")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")
    clock.advance(clock.seconds_to_poll())
    clock.seconds_to_poll(2)
    assert [{"include": "summary,estimate"}] * 2 == asked_for(api, 0)
    assert [{"include": "details"}] == asked_for(api, 100)
    assert 3 == len(api.asked)


def test_codes_beyond_the_ten_most_frequent_are_counted(tab: Page, api: FakeApi) -> None:
    api.jobs = [job(number, "failed", error_code=f"E{number % 12:02}") for number in range(1, 37)]
    sign_in(tab, api.page())
    expect(tab.locator("#reasons li")).to_have_count(11)
    expect(tab.locator("#reasons li").last).to_have_text("6other codes")


def test_the_chart_begins_with_the_first_poll(tab: Page, api: FakeApi, clock: Clock) -> None:
    """To show the time before, the page would have to read all jobs. It remembers each poll."""
    api.jobs = jobs(6_000, clock.now)
    sign_in(tab, api.page())
    expect(tab.locator("#chart .band")).to_have_count(1)
    for number, ended in enumerate((6_500, 7_000), 1):
        api.jobs = jobs(ended, clock.now)
        clock.advance(clock.seconds_to_poll(number))
        clock.seconds_to_poll(number + 1)
    assert 3 == tab.evaluate("document.querySelector('#chart .edge').points.length")
    expect(tab.get_by_role("img")).to_have_attribute("aria-label", re.compile("^7,000 of 10,000 jobs ended from .*"))


def test_a_later_page_is_kept_up_to_date(tab: Page, api: FakeApi, clock: Clock) -> None:
    """A poll updates the counts, and some seconds later the page that is shown; it shows no other page."""
    api.jobs = jobs(150, clock.now)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    expect(tab.locator("#rows .pill.processing")).to_have_count(50)
    api.jobs = jobs(200, clock.now)
    clock.advance(1)
    clock.seconds_to_poll(2)
    expect(tab.locator("#rows .pill.processing")).to_have_count(50)
    clock.advance(10)
    expect(tab.locator("#rows .pill.processing")).to_have_count(0)
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    tab.get_by_role("button", name="Previous").click()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")


def test_two_quick_clicks_on_next(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The rows are those of the page that is named."""
    api.jobs = jobs(150, clock.now)
    sign_in(tab, api.page())
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")
    tab.evaluate("for (const _ of [1, 2]) document.getElementById('next').click()")
    expect(tab.locator("#where")).to_have_text("101 to 200 of 10,000")
    expect(tab.locator("#rows tr").first).to_contain_text("job_000100")


def test_a_list_that_takes_long_is_not_started_again(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Polls find a change each second; the table waits for the answer to its first request."""
    api.jobs = jobs(150, clock.now)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    tab.route(re.compile(r"limit=100\b"), hold)
    sign_in(tab, api.page())
    expect(tab.locator("#none")).to_have_text("Loading jobs…")
    for number in range(1, 4):
        clock.seconds_to_poll(number)
        api.jobs = jobs(150 + 50 * number, clock.now)
        clock.advance(1)
    clock.seconds_to_poll(4)
    polls = 4
    assert polls + 1 == clock.requests()
    while not held:
        tab.wait_for_timeout(50)
    held[0].continue_()
    expect(tab.locator("#rows tr")).to_have_count(100)


def test_a_filtered_table_is_updated_once_a_minute(tab: Page, api: FakeApi, clock: Clock) -> None:
    """The service reads the whole batch to filter it. A click is answered at once."""
    api.jobs = jobs(150, clock.now)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    tab.get_by_role("radio", name="processing").check()
    expect(tab.locator("#where")).to_have_text("1 to 50 of 50")
    for number, ended in enumerate((200, 250, 300), 2):
        api.jobs = jobs(ended, clock.now)
        clock.advance(1)
        clock.seconds_to_poll(number)
    expect(tab.locator("#completed")).to_have_text("294")
    expect(tab.locator("#rows tr").first).to_contain_text("job_000150")
    assert [{"include": "details", "status": "processing"}] == asked_for(api, 100)[1:]
    clock.advance(60)
    expect(tab.locator("#rows tr").first).to_contain_text("job_000300")
    assert [{"include": "details", "status": "processing"}] * 2 == asked_for(api, 100)[1:]


def test_a_table_that_is_not_on_the_screen_is_not_requested(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Neither when the page opens nor when a poll finds a change."""
    tab.set_viewport_size({"width": 1100, "height": 200})
    api.jobs = jobs(150, clock.now)
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    api.jobs = jobs(200, clock.now)
    clock.advance(1)
    clock.seconds_to_poll(2)
    assert [] == asked_for(api, 100)
    tab.locator("#jobs-title").scroll_into_view_if_needed()
    expect(tab.locator("#rows tr")).to_have_count(100)
    tab.mouse.wheel(0, -10_000)
    tab.wait_for_function("() => scrollY === 0")
    api.jobs = jobs(250, clock.now)
    clock.advance(1)
    clock.seconds_to_poll(3)
    assert 1 == len(asked_for(api, 100))


def test_a_table_that_cannot_be_listed_is_requested_again(tab: Page, api: FakeApi, clock: Clock) -> None:
    """After the time that the service asks for. What the top shows goes on."""
    api.jobs = jobs(150, clock.now)
    api.listing_refusal = (503, "SERVICE_UNAVAILABLE", 60)
    sign_in(tab, api.page())
    expect(tab.locator("#none")).to_have_text("The jobs cannot be listed just now. This page tries again.")
    expect(tab.locator("#state")).to_have_text("Running")
    clock.advance(clock.seconds_to_poll())
    clock.seconds_to_poll(2)
    assert 1 == len(asked_for(api, 100))
    api.listing_refusal = None
    clock.advance(60)
    expect(tab.locator("#where")).to_have_text("1 to 100 of 10,000")
    expect(tab.locator("#none")).to_be_hidden()


def test_a_batch_that_fits_into_one_answer_shows_its_history(tab: Page, api: FakeApi, clock: Clock) -> None:
    """One request, once, whatever polls find later."""
    began = clock.now - timedelta(minutes=5)
    ends = [rfc3339(began + timedelta(seconds=number), "milliseconds") for number in range(200)]
    api.jobs = [job(number, "completed", finished_at=end) for number, end in enumerate(ends)] + [job(999)] * 800
    sign_in(tab, api.page())
    tab.wait_for_function("() => document.querySelector('#chart .edge')?.points.length > 200")
    api.jobs = [job(number, "completed") for number in range(201)] + [job(999)] * 799
    clock.advance(clock.seconds_to_poll())
    expect(tab.locator("#completed")).to_have_text("201")
    assert [{"include": "details"}] == asked_for(api, 1_000)
