"""The page on the local API with the real functions: a live batch from start to end, and one of every status."""

from collections import Counter
from itertools import batched

from playwright.sync_api import Locator, Page, expect

from batch_progress import table
from batch_progress.recorder import BatchRecorder
from batch_progress.table import Item, JobStatus
from batch_progress_cli.target import JOBS, Where, open_table
from local_cloud import seed
from tests.browser.conftest import Clock, sign_in
from tests.integration import server

BATCH = "batch_live_in_a_browser"
MIXED = "batch_mixed_in_a_browser"
COUNT = 4


def test_a_live_batch_to_its_end(tab: Page) -> None:
    """The page shows what workers record without a reload, and stops polling at the end."""
    clock = Clock(tab)

    def poll_until(shown: Locator, text: str) -> None:
        # The first poll after a change may get a 304: the stream updates the batch's revision, and so its ETag, a
        # moment later.
        while shown.text_content() != text:
            clock.advance(60)
            tab.wait_for_timeout(50)

    with server.running() as local:
        client, table = open_table(JOBS, Where(int(local.address.rpartition(":")[2])))
        recorder = BatchRecorder(table, client)
        urls = [f"https://example.com/{number}" for number in range(COUNT)]
        jobs = recorder.create(BATCH, seed.OWNER, urls, parallel_jobs=4, timeout_per_url=600)
        sign_in(tab, f"{local.address}/watch/{BATCH}", seed.TOKEN)
        expect(tab.locator("#percent")).to_have_text("0%")
        expect(tab.locator("#range")).to_contain_text("a first estimate")
        for number, job in enumerate(jobs):
            status = tab.locator("#rows tr").nth(number).locator(".pill")
            recorder.start(BATCH, job)
            poll_until(status, "processing")
            if number == 2:
                recorder.fail(BATCH, job, "HTTP_403", "The site refused the request.", items_extracted=7)
                ended = "failed"
            else:
                recorder.complete(BATCH, job, 7)
                ended = "completed"
            poll_until(status, ended)
        expect(tab.locator("#state")).to_have_text("Part failed")
        expect(tab.locator("#percent")).to_have_text("100%")
        expect(tab.locator("#items")).to_have_text("28")
        expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
        expect(tab.locator("#reasons")).to_contain_text("HTTP_403")
        requests = clock.requests()
        clock.advance(3600)
        assert requests == clock.requests()
        client.close()


def mixed_batch() -> list[Item]:
    """Return the items of a batch of 300 jobs of every status, with thirteen error codes and none."""
    items = [table.item(batch_id=MIXED, sk=table.BATCH_KEY, owner_id=seed.OWNER, total_urls=300)]
    for number in range(300):
        values: dict[str, str | float | None] = {"status": list(JobStatus)[number % 5]}
        if values["status"] == JobStatus.FAILED and number % 7:
            values["error_code"] = f"CODE_{number % 13:02}"
        items.append(table.item(batch_id=MIXED, sk=f"{table.JOB_PREFIX}{number:05}", **values))
    return items


def test_what_the_top_shows_equals_the_rows(tab: Page) -> None:
    """By the real function: counts, processing, cancelled, and the reasons of failures, also those it does not name."""
    items = mixed_batch()
    statuses = Counter(item["status"]["S"] for item in items[1:])
    failed = [item for item in items[1:] if item["status"]["S"] == "failed"]
    reasons = Counter(item.get("error_code", {"S": "no code"})["S"] for item in failed)
    with server.running() as local:
        client, name = open_table(JOBS, Where(int(local.address.rpartition(":")[2])))
        for some in batched(items, 25, strict=False):
            client.batch_write_item(RequestItems={name: [{"PutRequest": {"Item": item}} for item in some]})
        client.close()
        sign_in(tab, f"{local.address}/watch/{MIXED}", seed.TOKEN)
        expect(tab.locator("#completed")).to_have_text("60")
        expect(tab.locator("#failed")).to_have_text(f"{statuses['failed'] + statuses['cancelled']}60 cancelled")
        expect(tab.locator("#pending")).to_have_text(f"{statuses['pending'] + statuses['processing']}60 processing")
        tab.locator("#jobs-title").scroll_into_view_if_needed()
        expect(tab.locator("#where")).to_have_text("1 to 100 of 300")
        expect(tab.get_by_role("radio")).to_have_count(6)
        for status in JobStatus:
            expect(tab.get_by_role("radio", name=f"{status} {statuses[status]}", exact=True)).to_be_visible()
        rows = tab.locator("#reasons li").all()
        shown = {row.locator("button").text_content(): int(row.locator("b").text_content() or "") for row in rows}
        others = shown.pop("other codes")
        assert 10 == len(shown)
        assert shown.items() <= reasons.items()
        assert reasons.total() == sum(shown.values()) + others
        for code, count in {**shown, "other codes": others}.items():
            tab.get_by_role("button", name=code or "", exact=True).click()
            expect(tab.locator("#where")).to_have_text(f"1 to {count} of {count}")
            expect(tab.locator("#rows tr")).to_have_count(count)
            wanted = {"no code": "", "other codes": "CODE_"}.get(code or "", code)
            assert count == tab.locator("#rows tr .why" if wanted else "#rows tr").filter(has_text=wanted).count()
