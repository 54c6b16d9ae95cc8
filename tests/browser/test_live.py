"""A live batch, from its first job to its end: the local API, the real function, items written as a worker does."""

import re
from datetime import UTC, datetime

import boto3
from playwright.sync_api import Page, expect

from cli import seed
from tests.browser.conftest import sign_in
from tests.browser.fake_api import rfc3339
from tests.integration import server

BATCH = "batch_live_in_a_browser"
COUNT = 4


def test_a_live_batch_to_its_end(tab: Page) -> None:
    """What workers write is on the screen without a reload; at the end the page rests."""
    with server.running() as local:
        engine = re.search(r"DynamoDB on (\S+),", local.screen.read_text())
        assert engine
        dynamodb = boto3.client(
            "dynamodb", "eu-central-1", endpoint_url=engine[1], aws_access_key_id="local", aws_secret_access_key="local"
        )

        def put(key: str, **values: str | int) -> None:
            item = {
                name: {"S": value} if isinstance(value, str) else {"N": str(value)} for name, value in values.items()
            }
            item |= {"batch_id": {"S": BATCH}, "sk": {"S": key}}
            dynamodb.put_item(TableName="JobsTable", Item=item)

        revision = 0

        def put_job(number: int, **values: str | int) -> None:
            nonlocal revision
            put(f"JOB#job_{number}", url=f"https://example.com/{number}", **values)
            # What the stream does in AWS: tell pollers to look again.
            revision += 1
            dynamodb.update_item(
                TableName="JobsTable",
                Key={"batch_id": {"S": BATCH}, "sk": {"S": "BATCH"}},
                UpdateExpression="SET revision = :n",
                ExpressionAttributeValues={":n": {"N": str(revision)}},
            )

        def now() -> str:
            return rfc3339(datetime.now(UTC), "milliseconds")

        put("BATCH", owner_id=seed.OWNER, total_urls=COUNT, created_at=now(), parallel_jobs=4, timeout_per_url=20)
        for number in range(COUNT):
            put_job(number, status="pending")
        sign_in(tab, f"{local.address}/watch/{BATCH}", seed.TOKEN)
        expect(tab.locator("#percent")).to_have_text("0%")
        expect(tab.locator("#range")).to_contain_text("a first guess")
        for number in range(COUNT):
            began = now()
            put_job(number, status="processing", started_at=began)
            expect(tab.locator("#rows tr").nth(number).locator(".pill")).to_have_text("processing")
            bad = number == 2
            end: dict[str, str | int] = (
                {"status": "failed", "error_code": "HTTP_403"} if bad else {"status": "completed"}
            )
            put_job(number, started_at=began, finished_at=now(), items_extracted=7, **end)
            expect(tab.locator("#rows tr").nth(number).locator(".pill")).to_have_text("failed" if bad else "completed")
        expect(tab.locator("#state")).to_have_text("Finished")
        expect(tab.locator("#percent")).to_have_text("100%")
        expect(tab.locator("#items")).to_have_text("28")
        expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
        expect(tab.locator("#reasons")).to_contain_text("HTTP_403")
        rested = local.screen.read_text()
        tab.wait_for_timeout(3_000)
        assert rested == local.screen.read_text()
        dynamodb.close()
