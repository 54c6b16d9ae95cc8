"""Why jobs failed, and which: the reasons lead to their jobs, which can be copied and exported."""

import csv
import io
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Clock, sign_in
from tests.browser.fake_api import FakeApi, Job, job

CODES = ["TIMEOUT"] * 30 + ["WORKER_LOST"] * 4 + [None] * 3 + [f"E{number:02}" for number in range(12)]


def ten_thousand() -> list[Job]:
    """Return a finished batch in which every fourth job failed, for one of fifteen reasons."""
    dice = random.Random(11)  # noqa: S311  # a workload
    return [
        job(number, "failed", error_code=dice.choice(CODES)) if number % 4 == 0 else job(number, "completed")
        for number in range(10_000)
    ]


def reason(tab: Page, name: str) -> None:
    """Follow a reason to its jobs."""
    tab.locator("#reasons").get_by_role("button", name=name, exact=True).click()


def test_the_count_of_each_reason_equals_its_rows(tab: Page, api: FakeApi) -> None:
    """At ten thousand jobs, over all pages of the table, the codes that are not named included."""
    api.jobs, api.basis = ten_thousand(), "finished"
    wanted = Counter(one["error_code"] for one in api.jobs if one["status"] == "failed")
    sign_in(tab, api.page())
    expect(tab.locator("#reasons li")).to_have_count(11)
    named = 0
    for item in tab.locator("#reasons li").all():
        count = int((item.locator("b").text_content() or "").replace(",", ""))
        name = item.locator("button").text_content() or ""
        item.locator("button").click()
        rows = 0
        for first in range(1, count + 1, 100):
            end = min(first + 99, count)
            expect(tab.locator("#where")).to_have_text(f"{first:,} to {end:,} of {count:,}")
            codes = tab.locator("#rows tr").evaluate_all(
                "rows => rows.map((row) => row.querySelector('.why')?.textContent)"
            )
            rows += len(codes)
            if name != "other codes":
                assert {None if name == "no code" else name} == set(codes)
            if end < count:
                tab.get_by_role("button", name="Next").click()
        assert count == rows
        if name == "other codes":
            assert wanted.total() - named == count
        else:
            assert wanted[None if name == "no code" else name] == count
            named += count
    tab.get_by_role("button", name="other codes only").click()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 2,500")
    expect(tab.get_by_role("radio", name="failed 2,500")).to_be_checked()


def test_a_reason_moves_the_focus_to_its_jobs(tab: Page, api: FakeApi) -> None:
    """By keyboard one goes on from there: the next stops are the filter, and which reason it is."""
    api.jobs = [job(number, "failed", error_code="A" if number % 2 else "B") for number in range(300)]
    sign_in(tab, api.page())
    reason(tab, "B")
    expect(tab.get_by_role("heading", name="Jobs", exact=True)).to_be_focused()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("radio", name="failed")).to_be_focused()
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="B only")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 300")
    tab.get_by_role("button", name="Show all failed jobs").click()
    expect(tab.get_by_role("radio", name="failed")).to_be_checked()


def test_a_poll_leaves_the_focus_on_a_reason(tab: Page, api: FakeApi) -> None:
    """Also when the reasons change their order."""
    api.jobs = [job(1, "failed", error_code="A"), job(2, "failed", error_code="B"), job(3)]
    sign_in(tab, api.page())
    tab.get_by_role("button", name="B", exact=True).focus()
    api.jobs = [job(1, "failed", error_code="A"), *(job(n, "failed", error_code="B") for n in range(2, 5)), job(5)]
    expect(tab.locator("#reasons li").first).to_have_text("3B")
    expect(tab.get_by_role("button", name="B", exact=True)).to_be_focused()


def test_a_long_code_finds_its_jobs(tab: Page, api: FakeApi) -> None:
    """The service cuts a code to 100 characters; an emoji is one."""
    api.jobs = [
        job(1, "failed", error_code="😀" * 120),
        job(2, "failed", error_code="X"),
        job(3, "failed", error_code=""),
    ]
    sign_in(tab, api.page())
    reason(tab, "😀" * 100)
    expect(tab.locator("#where")).to_have_text("1 to 1 of 1")
    expect(tab.locator("#rows tr")).to_contain_text("job_000001")
    reason(tab, "empty code")
    expect(tab.locator("#rows tr")).to_contain_text("job_000003")


def test_a_lost_worker_is_explained(tab: Page, api: FakeApi) -> None:
    api.jobs = [job(1, "failed", error_code="WORKER_LOST"), job(2, "failed", error_code="constructor")]
    sign_in(tab, api.page())
    items = tab.locator("#reasons li")
    expect(items.filter(has_text="WORKER_LOST")).to_contain_text("The worker showed no sign of life")
    expect(items.filter(has_text="constructor")).to_have_text("1constructor")


def test_a_reason_is_kept_up_to_date(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Once a minute, as any filter: the service reads the whole batch for it."""
    api.jobs = [job(number, "failed", error_code="A") for number in range(3)] + [
        job(number) for number in range(3, 9_000)
    ]
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    reason(tab, "A")
    expect(tab.locator("#where")).to_have_text("1 to 3 of 3")
    api.jobs = [job(number, "failed", error_code="A") for number in range(5)] + [
        job(number) for number in range(5, 9_000)
    ]
    clock.advance(1)
    clock.seconds_to_poll(2)
    expect(tab.locator("#failed")).to_have_text("5")
    expect(tab.locator("#rows tr")).to_have_count(3)
    expect(tab.locator("#listed")).to_be_empty()
    clock.advance(6)
    expect(tab.locator("#pager p")).to_have_text(re.compile(r"1 to 3 of 3, as of \d\d:10:00"))
    clock.advance(60)
    expect(tab.locator("#rows tr")).to_have_count(5)
    expect(tab.locator("#pager p")).to_have_text("1 to 5 of 5")


def test_a_list_does_not_claim_the_count_of_another_moment(tab: Page, api: FakeApi, clock: Clock) -> None:
    """A job has failed between the count and the list: the list shows it, and counts it."""
    api.jobs = [job(1, "failed", error_code="A"), *(job(number) for number in range(2, 5))]
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    api.jobs = [*(job(number, "failed", error_code="A") for number in (1, 2)), job(3), job(4)]
    reason(tab, "A")
    expect(tab.locator("#where")).to_have_text("1 to 2 of 2")
    expect(tab.locator("#reasons b")).to_have_text("1")


def test_no_row_is_lost_on_the_way_back(tab: Page, api: FakeApi) -> None:
    """A user leaves a page of a reason while its jobs are still being read, and returns to it."""
    api.jobs, api.basis = [job(n, "failed", error_code="AB"[n % 8 == 0]) for n in range(5_000)], "finished"
    sign_in(tab, api.page())
    reason(tab, "B")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 625")
    tab.evaluate("for (const id of ['next', 'previous']) document.getElementById(id).click()")
    expect(tab.locator("#where")).to_have_text("1 to 100 of 625")
    found = []
    for first in range(1, 626, 100):
        expect(tab.locator("#where")).to_have_text(f"{first} to {min(first + 99, 625)} of 625")
        found += tab.locator("#rows th > :nth-child(2)").all_text_contents()
        if first < 601:
            tab.get_by_role("button", name="Next").click()
    assert [f"job_{n:06}" for n in range(0, 5_000, 8)] == found


def test_the_filters_have_counts(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Of the whole batch, and current. Without a summary there are none."""
    sign_in(tab, api.page())
    clock.seconds_to_poll()
    names = ["all 10", "completed 6", "failed 2", "processing 1", "pending 1", "cancelled 0"]
    assert names == tab.locator("#filter label").all_text_contents()
    api.jobs = [*api.jobs[:8], job(9, "completed"), job(10, "cancelled")]
    clock.advance(1)
    expect(tab.get_by_role("radio", name="cancelled 1")).to_be_visible()
    expect(tab.get_by_role("radio", name="completed 7")).to_be_visible()
    api.summaries = False
    tab.reload()
    expect(tab.locator("#percent")).to_have_text("100%")
    assert "completed" == tab.locator("#filter label").nth(1).text_content()


def exported(tab: Page) -> list[list[str]]:
    """Download the CSV; return its rows."""
    with tab.expect_download() as caught:
        tab.get_by_role("button", name="Download CSV").click()
    assert re.fullmatch(r"batch_xyz789(-\w+)?\.csv", caught.value.suggested_filename)
    content = Path(caught.value.path()).read_bytes().decode()
    assert "\ufeff" == content[0]
    assert content.endswith("\r\n")
    return list(csv.reader(io.StringIO(content[1:], newline="")))


def test_all_failed_jobs_are_exported(tab: Page, api: FakeApi) -> None:
    """Those of all pages; and only those of a reason when one is chosen."""
    api.jobs, api.basis = ten_thousand(), "finished"
    failed = [one for one in api.jobs if one["status"] == "failed"]
    sign_in(tab, api.page())
    tab.get_by_role("button", name="Show all failed jobs").click()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 2,500")
    rows = exported(tab)
    assert list(job(1)) == rows[0]
    assert [["" if value is None else str(value) for value in one.values()] for one in failed] == rows[1:]
    expect(tab.locator("#told")).to_have_text("2,500 jobs in batch_xyz789-failed.csv.")
    reason(tab, "WORKER_LOST")
    expect(tab.locator("#told")).to_be_empty()
    expect(tab.get_by_role("button", name="WORKER_LOST only")).to_be_visible()
    expect(tab.locator("#where")).to_contain_text("1 to 100 of ")
    lost = [one["job_id"] for one in failed if one["error_code"] == "WORKER_LOST"]
    assert lost == [row[0] for row in exported(tab)[1:]]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "\uff0d1", "\uff20A", "\x00=1"]
)
def test_a_cell_is_not_a_formula(tab: Page, api: FakeApi, text: str) -> None:
    """A spreadsheet shows it as text."""
    api.jobs = [job(1, "failed", job_id=text, url=text, error_code=text, error_message=text)]
    sign_in(tab, api.page())
    expect(tab.locator("#rows tr")).to_have_count(1)
    row = exported(tab)[1]
    assert [f"'{text}"] * 4 == [row[0], row[1], row[6], row[7]]


def test_cells_are_quoted(tab: Page, api: FakeApi) -> None:
    """Quotes, commas, line breaks, emoji and Persian text come back as they were."""
    text = 'a "quoted", text;\nof 😀 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645'
    api.jobs = [job(1, "failed", url=text, error_message=text, items_extracted=7)]
    sign_in(tab, api.page())
    expect(tab.locator("#rows tr")).to_have_count(1)
    with tab.expect_download() as caught:
        tab.get_by_role("button", name="Download CSV").click()
    rows = list(csv.reader(io.StringIO(Path(caught.value.path()).read_bytes().decode("utf-8-sig"), newline="")))
    assert ["job_000001", text, "failed", "7", "", "", "", text] == rows[1]


def test_failed_urls_are_copied(tab: Page, api: FakeApi) -> None:
    """One per line, those of all pages. One with a line break stays on its line."""
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    api.jobs = [job(number, "failed" if number % 2 else "completed") for number in range(2_500)]
    api.jobs = [*api.jobs, job(9_998, "failed", url="https://example.com/a\nb c"), job(9_999, "failed", url="")]
    api.basis = "finished"
    sign_in(tab, api.page())
    tab.get_by_role("radio", name="failed").check()
    expect(tab.locator("#where")).to_have_text("1 to 100 of 1,252")
    tab.get_by_role("button", name="Copy failed URLs").click()
    expect(tab.locator("#told")).to_have_text("1,251 URLs copied.")
    expect(tab.locator("#say")).to_have_text("1,251 URLs copied.")
    urls = [f"https://example.com/page/{number}" for number in range(1, 2_500, 2)]
    assert [*urls, "https://example.com/a%0Ab%20c"] == tab.evaluate("navigator.clipboard.readText()").split("\n")


def test_a_copied_url_is_not_a_formula(tab: Page, api: FakeApi) -> None:
    """A spreadsheet into which it is pasted shows it as text."""
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    texts = ["=1+1", "+1", "-1", "@A1"]
    api.jobs = [job(number, url=text) for number, text in enumerate(texts)]
    sign_in(tab, api.page())
    tab.get_by_role("button", name="Copy URLs").click()
    expect(tab.locator("#told")).to_have_text("4 URLs copied.")
    assert [f"'{text}" for text in texts] == tab.evaluate("navigator.clipboard.readText()").split("\n")


def test_a_browser_that_cannot_copy(tab: Page, api: FakeApi) -> None:
    """Without HTTPS there is no clipboard. The page says what to do instead."""
    tab.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    sign_in(tab, api.page())
    tab.get_by_role("button", name="Copy URLs").click()
    expect(tab.locator("#told")).to_have_text("The URLs could not be copied. Try again, or download the CSV.")


def test_an_export_that_fails(tab: Page, api: FakeApi) -> None:
    """No file with a part of the jobs is written."""
    sign_in(tab, api.page())
    expect(tab.locator("#rows tr")).to_have_count(10)
    api.listing_refusal = (503, "SERVICE_UNAVAILABLE", 30)
    downloads: list[str] = []
    tab.on("download", lambda download: downloads.append(download.suggested_filename))
    tab.get_by_role("button", name="Download CSV").click()
    expect(tab.locator("#told")).to_have_text("The jobs could not be read. Try again.")
    assert [] == downloads


def test_hung_jobs_are_named_first(tab: Page, api: FakeApi, clock: Clock) -> None:
    """When a batch stalls: those that run for longest, and how many more. One request for each change."""
    started = {5: "2026-01-02T03:01:00Z", 3: "2026-01-02T03:02:00Z", 9: "2026-01-02T03:03:00Z"}
    api.jobs = [
        job(number, "processing", started_at=started.get(number, "2026-01-02T03:09:00Z")) for number in range(12)
    ]
    api.jobs = [*api.jobs, *(job(number) for number in range(12, 20))]
    api.basis = "stalled"
    sign_in(tab, api.page())
    named = tab.locator("#hung li")
    expect(named).to_have_count(6)
    for at, number in enumerate((5, 3, 9)):
        expect(named.nth(at)).to_have_text(
            re.compile(rf"https://example.com/page/{number}job_00000{number}, since \d\d:0{at + 1}:00")
        )
    assert tab.evaluate("document.getElementById('hung').offsetTop < document.getElementById('percent').offsetTop")
    expect(named.last).to_have_text("and 7 more")
    clock.advance(clock.seconds_to_poll())
    clock.seconds_to_poll(2)
    assert 1 == len([one for one in api.asked if one.get("status") == "processing"])
    named.last.get_by_role("button").click()
    expect(tab.locator("#where")).to_have_text("1 to 12 of 12")
    api.jobs = [*(job(number, "completed") for number in range(12)), *api.jobs[12:]]
    clock.advance(1)
    expect(tab.locator("#hung li")).to_have_count(0)
    expect(tab.locator("#notice-text")).to_contain_text("No worker has started another job")
    api.basis = "observed"
    api.jobs = [*api.jobs[:19], job(20, "processing")]
    clock.advance(60)
    expect(tab.locator("#state")).to_have_text("Running")
    expect(tab.locator("#hung")).to_be_hidden()


def test_the_longest_hung_job_is_named_wherever_it_is(tab: Page, api: FakeApi) -> None:
    """Also beyond the first page of the largest size."""
    api.jobs = [job(number, "processing", started_at="2026-01-02T03:09:00Z") for number in range(2_500)]
    api.jobs[2_400]["started_at"] = "2026-01-02T03:01:00Z"
    api.basis = "stalled"
    sign_in(tab, api.page())
    expect(tab.locator("#hung li").first).to_contain_text("job_002400")
    expect(tab.locator("#hung li").last).to_have_text("and 2,495 more")


def test_how_long_a_job_runs_is_current(tab: Page, api: FakeApi, clock: Clock) -> None:
    """Also in a batch in which nothing changes. Offline, the page does not claim that the job still runs."""
    api.jobs = [job(1, "processing", started_at="2026-01-02T03:08:00Z"), job(2)]
    api.basis = "stalled"
    sign_in(tab, api.page())
    time = tab.locator("#rows td").nth(2)
    expect(time).to_have_text("2 min so far")
    for number in range(1, 6):
        clock.advance(clock.seconds_to_poll(number) + 59)
    clock.seconds_to_poll(6)
    expect(time).to_have_text("7 min so far")
    api.refusal = (503, "SERVICE_UNAVAILABLE", 600)
    clock.advance(clock.seconds_to_poll(6))
    expect(tab.locator("#state")).to_have_text("Offline")
    clock.advance(300)
    expect(tab.locator("#notice-text")).to_contain_text("Next try in 300 s.")
    expect(time).to_have_text("7 min so far")


def test_a_table_that_loads_says_so(tab: Page, api: FakeApi) -> None:
    """The table does, and the rows of the filter before are dimmed."""
    tab.route(re.compile("limit=100&"), lambda _: None)
    tab.route(re.compile("limit=100$"), lambda _: None)
    sign_in(tab, api.page())
    expect(tab.locator("#none")).to_have_text("Loading jobs…")
    expect(tab.locator("#table")).to_have_attribute("aria-busy", "true")
