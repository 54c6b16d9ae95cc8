"""A live batch, from its first job to its end: the local API, the real functions, jobs recorded as a worker does."""

from playwright.sync_api import Page, expect

from batch_progress.recorder import BatchRecorder
from batch_progress_cli.target import JOBS, Where, open_table
from local_cloud import seed
from tests.browser.conftest import sign_in
from tests.integration import server

BATCH = "batch_live_in_a_browser"
COUNT = 4


def test_a_live_batch_to_its_end(tab: Page) -> None:
    """What workers record is on the screen without a reload; at the end the page rests."""
    with server.running() as local:
        client, table = open_table(JOBS, Where(int(local.address.rpartition(":")[2])))
        recorder = BatchRecorder(table, client)
        urls = [f"https://example.com/{number}" for number in range(COUNT)]
        jobs = recorder.create(BATCH, seed.OWNER, urls, parallel_jobs=4, timeout_per_url=20)
        sign_in(tab, f"{local.address}/watch/{BATCH}", seed.TOKEN)
        expect(tab.locator("#percent")).to_have_text("0%")
        expect(tab.locator("#range")).to_contain_text("a first estimate")
        for number, job in enumerate(jobs):
            status = tab.locator("#rows tr").nth(number).locator(".pill")
            recorder.start(BATCH, job)
            expect(status).to_have_text("processing")
            if number == 2:
                recorder.fail(BATCH, job, "HTTP_403", "The site refused the request.", items_extracted=7)
                expect(status).to_have_text("failed")
            else:
                recorder.complete(BATCH, job, 7)
                expect(status).to_have_text("completed")
        expect(tab.locator("#state")).to_have_text("Finished")
        expect(tab.locator("#percent")).to_have_text("100%")
        expect(tab.locator("#items")).to_have_text("28")
        expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
        expect(tab.locator("#reasons")).to_contain_text("HTTP_403")

        def asked() -> int:
            return local.screen.read_text().count(BATCH)

        before = asked()
        tab.wait_for_timeout(3_000)
        assert before == asked()
        client.close()
