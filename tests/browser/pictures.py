"""Takes the README's pictures of the page, of a seeded demo batch: `make pictures`."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from tests.browser.chromium import chromium
from tests.browser.fake_api import TOKEN, FakeApi, Job, job, rfc3339, serving

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOW = datetime(2026, 1, 15, 10, 42, 30, tzinfo=UTC)
SITES = ("shop.example/lamps/", "shop.example/chairs/", "archive.example/maps/", "news.example/2026/01/")
REASONS = (
    ("TIMEOUT", "The page did not answer within 30 seconds."),
    ("TIMEOUT", "The page did not answer within 30 seconds."),
    ("HTTP_403", "The site refused the request."),
)
TOTAL, WORKERS, LEFT = 240, 5, 78
Scheme = Literal["light", "dark"]


def demo() -> list[Job]:
    """Return a batch that is two thirds done, by five workers; one job in twenty failed."""
    dice = random.Random(5)  # noqa: S311  # a workload
    jobs = [job(number, url=f"https://{SITES[number % 4]}{number * 37 % 1000}") for number in range(1, TOTAL + 1)]
    free = [NOW - timedelta(minutes=11)] * WORKERS
    for one in jobs[:-LEFT]:
        worker = free.index(min(free))
        began, free[worker] = free[worker], free[worker] + timedelta(seconds=dice.lognormvariate(2.9, 0.45))
        one |= {"status": "completed", "items_extracted": dice.randrange(8, 60), "started_at": rfc3339(began)}
        one["finished_at"] = rfc3339(min(free[worker], NOW), "milliseconds")
        if dice.random() < 0.05:  # one in twenty
            one |= dict(zip(("error_code", "error_message"), dice.choice(REASONS), strict=True), status="failed")
    for one in jobs[-LEFT:][:WORKERS]:
        one |= {"status": "processing", "started_at": rfc3339(NOW - timedelta(seconds=dice.randrange(2, 20)))}
    return jobs


def main() -> None:
    """Take the pictures."""
    api = FakeApi(jobs=demo(), clock=lambda: NOW, left=timedelta(minutes=5, seconds=10), retry_after=10)
    with serving(api, stage=""), chromium() as browser:
        for scheme in get_args(Scheme):
            with browser.new_context(
                viewport={"width": 960, "height": 1130}, color_scheme=scheme, timezone_id="UTC", reduced_motion="reduce"
            ) as context:
                page = context.new_page()
                page.clock.set_fixed_time(NOW)
                page.goto(api.page("batch_spring_catalogue"))
                page.get_by_label("API token").fill(TOKEN)
                page.get_by_role("button", name="Watch").click()
                page.locator("#rows tr").first.wait_for()
                page.wait_for_function("() => document.querySelector('#chart .edge').points.length > 100")
                page.screenshot(path=DOCS / f"watch-{scheme}.png")


if __name__ == "__main__":
    main()
