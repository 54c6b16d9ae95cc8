"""A live batch from start to end, on the local API with the real functions; the test records the jobs as a worker."""

from playwright.sync_api import Locator, Page, expect

from batch_progress.recorder import BatchRecorder
from batch_progress_cli.target import JOBS, Where, open_table
from local_cloud import seed
from tests.browser.conftest import Clock, sign_in
from tests.integration import server

BATCH = "batch_live_in_a_browser"
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
        expect(tab.locator("#state")).to_have_text("Finished")
        expect(tab.locator("#percent")).to_have_text("100%")
        expect(tab.locator("#items")).to_have_text("28")
        expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
        expect(tab.locator("#reasons")).to_contain_text("HTTP_403")
        requests = clock.requests()
        clock.advance(3600)
        assert requests == clock.requests()
        client.close()
