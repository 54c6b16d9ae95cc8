"""Find the largest batch that is counted in time: `make bench-largest`.

A fake DynamoDB answers each page of 1 MB after 20 ms. The time of an answer in Lambda is that of its pages plus its CPU
time on the share of a core that Lambda gives the function for its memory.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any, Final, cast

from batch_progress import decode
from batch_progress.dynamodb import Client
from batch_progress.kept import KeptCounts
from batch_progress.store import FIRST_PAGE_ITEMS, BatchStore, ReadStats
from benchmarks import workload
from functions.progress.answer import full_answer
from functions.progress.coding import Gzip
from functions.progress.counting import Asked, LargeBatches, Sources
from functions.progress.query import Query
from local_cloud.template import read, timeout_seconds

PAGE_SECONDS: Final = 0.02
SIZES: Final = (50_000, 100_000, 250_000, 500_000, 1_000_000)
# Lambda gives a function one core at this memory size, and less in proportion.
_ONE_CORE_MB: Final = 1_769
# The handler keeps this much of the function's time for writing the answer.
_ANSWER_SECONDS: Final = 1.0


class Pages:
    """A DynamoDB with one batch of any size: the jobs of the first pages again and again."""

    def __init__(self, jobs: int) -> None:
        now = datetime.now(UTC)
        bodies = list(workload.pages(10_000, now, FIRST_PAGE_ITEMS).values())
        self._first, self._later = bodies[0], bodies[1]
        self._page_jobs = decode.query_page(self._later, detailed=False).count
        self._pages = max(round((jobs - FIRST_PAGE_ITEMS) / self._page_jobs), 1)
        self.jobs = FIRST_PAGE_ITEMS - 1 + self._pages * self._page_jobs
        self.waited = 0.0
        self._served = 0

    def query(self, *, detailed: bool, **_: Any) -> decode.QueryPage[Any]:  # noqa: ANN401  # DynamoDB's arguments
        """Return the next page."""
        self.waited += PAGE_SECONDS
        body, last = (self._later, self._served == self._pages) if self._served else (self._first, False)
        self._served += 1
        page = decode.query_page(body, detailed=detailed)
        return decode.QueryPage(page.items, page.count, None if last else {"sk": {"S": ""}}, page.consumed)

    def update_item(self, **_: Any) -> None:  # noqa: ANN401  # DynamoDB's arguments
        """Keep nothing."""


def measure(jobs: int, query: dict[str, Any]) -> dict[str, Any]:
    """Count a batch of about this many jobs; return its size and the seconds that the answer takes."""
    pages = Pages(jobs)
    client = cast("Client", pages)
    sources = Sources(BatchStore(client, "jobs"), KeptCounts(client, "jobs"), LargeBatches())
    stats = ReadStats()
    began = time.process_time()
    asked = Asked(Query(workload.batch_id(10_000), **query), None, time.time, stats)
    answer = full_answer(sources, asked, Gzip())
    json.dumps(answer.body.text)
    cpu = time.process_time() - began
    return {"jobs": pages.jobs, "pages": stats.pages, "units": stats.read_units, "cpu": cpu, "waited": pages.waited}


def main() -> None:
    """Print a table, and the size that takes all of the function's time."""
    memory = int(read()["Parameters"]["MemorySize"]["Default"])
    share = min(memory / _ONE_CORE_MB, 1)
    allowed = timeout_seconds("ProgressFunction") - _ANSWER_SECONDS
    print(f"{memory} MB: {share:.2f} of a core; {PAGE_SECONDS * 1_000:.0f} ms a page; {allowed:g} s for an answer")
    for name, query in (("limit=0", {"limit": 0}), ("all jobs, gzip", {})):
        largest = 0.0
        for jobs in SIZES:
            told = measure(jobs, query)
            seconds = told["waited"] + told["cpu"] / share
            largest = told["jobs"] * allowed / seconds
            print(
                f"{name:<16}{told['jobs']:>10,} jobs{told['pages']:>6} pages{told['units']:>9,.0f} units"
                f"{told['cpu']:>8.2f} s CPU{seconds:>8.2f} s"
            )
        print(f"{name:<16}{largest:>10,.0f} jobs take all of the time")


if __name__ == "__main__":
    main()
