"""The tables of costs in docs/operations.md.

The cost of a million polls is computed from `results.json` and the workload's items, that of watchers from
`watchers.json`. `cost.py` writes each table between its two markers; `cost.py --check` fails if the page is old.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from batch_progress.table import Item
from benchmarks.report import RESULTS, ROOT
from benchmarks.workload import items

OPERATIONS: Final = ROOT / "docs" / "operations.md"
WATCHERS: Final = ROOT / "benchmarks" / "watchers.json"
# The runs of the benchmark of watchers that the page shows: jobs and watchers. All poll once a second.
WATCHED: Final = ((1_000, 20), (10_000, 20), (50_000, 1), (50_000, 20), (50_000, 100), (100_000, 20))
POLLS: Final = 1_000_000

# List prices of us-east-1 in US dollars, as docs/operations.md cites them.
API_REQUEST: Final = 3.50e-6
LAMBDA_REQUEST: Final = 0.20e-6
LAMBDA_GB_SECOND: Final = 0.0000133334
READ_UNIT: Final = 0.125e-6
WRITE_UNIT: Final = 0.625e-6
LOG_BYTE: Final = 0.50 / 1e9
TRACE: Final = 5.00e-6
TRANSFER_BYTE: Final = 0.09 / 1e9

# One read unit is a strongly consistent read of this size; an eventually consistent read costs half a unit.
UNIT_BYTES: Final = 4_096
PAGE_BYTES: Final = 1_048_576
# The function's default memory, and the memory at which Lambda gives a full vCPU.
MEMORY_MB: Final = 1_024
WHOLE_PROCESSOR_MB: Final = 1_769
# Assumed: time of a DynamoDB call, network included, beyond our own CPU time.
CALL_MS: Final = 5.0
# Bytes logged per request: the function's line and metrics (measured by tests); Lambda's own lines and the access log
# (assumed).
LOGGED_BYTES: Final = 900
PLATFORM_BYTES: Final = 1_100
HEADER_BYTES: Final = 500
TRACED: Final = 0.05


@dataclass(frozen=True)
class Poll:
    """The resources of one poll."""

    name: str
    read_units: float
    billed_ms: int
    sent_bytes: int

    def dollars(self) -> dict[str, float]:
        """Return the cost of a million polls, split into the items of the bill."""
        return {
            "API Gateway": POLLS * API_REQUEST,
            "Lambda": POLLS * (LAMBDA_REQUEST + self.billed_ms / 1_000 * MEMORY_MB / 1_024 * LAMBDA_GB_SECOND),
            "DynamoDB": POLLS * self.read_units * READ_UNIT,
            "logs, traces": POLLS * ((LOGGED_BYTES + PLATFORM_BYTES) * LOG_BYTE + TRACED * TRACE),
            "transfer": POLLS * self.sent_bytes * TRANSFER_BYTE,
        }


def size(item: Item) -> int:
    """Return the size of an item as DynamoDB counts it: names and strings in UTF-8, one byte per two digits."""
    total = 0
    for name, value in item.items():
        ((kind, text),) = value.items()
        total += len(name.encode()) + (ceil(len(text) / 2) + 1 if kind == "N" else len(text.encode()))
    return total


def units(sizes: Iterator[int]) -> float:
    """Return the read units of one query over items of these sizes; each page is rounded up to 4 KB."""
    total, page = 0.0, 0
    for one in sizes:
        page += one
        if page >= PAGE_BYTES:
            total, page = total + ceil(page / UNIT_BYTES) / 2, 0
    return total + ceil(page / UNIT_BYTES) / 2


def billed(cpu_ms: float, calls: int) -> int:
    """Return the billed milliseconds: CPU time at this memory's share of a vCPU, and waiting for DynamoDB."""
    return ceil(cpu_ms * WHOLE_PROCESSOR_MB / MEMORY_MB + calls * CALL_MS)


def polls(results: dict[str, Any]) -> Iterator[Poll]:
    """Yield a poll without a change, then a full poll for each size of batch."""
    unchanged = results["unchanged"]
    yield Poll("unchanged (304), any size", 0.5, billed(unchanged["large_ms"], 1), HEADER_BYTES)
    for jobs, row in results["warm"].items():
        read = units(size(item) for item in items(int(jobs), datetime.now(UTC)))
        yield Poll(
            f"{int(jobs):,} jobs", read, billed(row["gzip_ms"], row["queries"]), row["gzip_bytes"] + HEADER_BYTES
        )


def markdown(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = list(polls(results))
    heads = ["read units", "billed ms", "sent", *rows[0].dollars(), "a million polls"]
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for row in rows:
        dollars = row.dollars()
        cells = [f"{row.read_units:,.1f}", f"{row.billed_ms:,}", f"{row.sent_bytes / 1e3:,.1f} KB"]
        cells += [f"${each:,.2f}" for each in (*dollars.values(), sum(dollars.values()))]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    batch, *jobs = (size(item) for item in items(10_000, datetime.now(UTC)))
    machine = f"{results['machine']['cpu']}, {results['machine']['system']}"
    lines += [
        "",
        f"Items of the workload: on average {sum(jobs) / len(jobs):,.0f} bytes per job, {batch:,} bytes for the batch.",
        f"CPU time and bytes sent were measured on {results['date']} ({machine}).",
    ]
    return "\n".join(lines)


def watchers(report: dict[str, Any]) -> str:
    """Return the table of watchers, before counts were kept and now."""
    before, now = (
        {(row["jobs"], row["watchers"]): row for row in report[label]["runs"] if row["interval"] == 1}
        for label in ("before", "now")
    )
    heads = [
        *("jobs", "watchers", "read units a second", "before", "right answers", "before"),
        *("oldest count", "end seen by all after", "an hour", "before"),
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + " ---: |" * len(heads)]
    for setting in WATCHED:
        then, row = before[setting], now[setting]
        cells = [f"{setting[0]:,}", str(setting[1])]
        cells += [f"{each['read_units_per_second']:,.0f}" for each in (row, then)]
        cells += [f"{each['right']:.1%}" for each in (row, then)]
        cells += [f"{row['behind_s']['max']:.0f} s", f"{row['end_seen_s']['all']:.1f} s"]
        cells += [f"${dollars_an_hour(each):.2f}" for each in (row, then)]
        lines.append(f"| {' | '.join(cells)} |")
    machine = report["now"]["machine"]
    dates = " and ".join(sorted({report[label]["date"] for label in ("before", "now")}))
    lines += ["", f"Measured on {dates} ({machine['cpu']}, {machine['cores']} cores, {machine['system']})."]
    return "\n".join(lines)


def dollars_an_hour(row: dict[str, Any]) -> float:
    """Return what the progress function's reads and writes of the jobs table cost in an hour."""
    return 3_600 * float(row["read_units_per_second"] * READ_UNIT + row["write_units_per_second"] * WRITE_UNIT)


def placed(written: str, name: str, table: str) -> str:
    """Return the page with a table between its markers."""
    before, begin, rest = written.partition(f"<!-- {name}:begin -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not (begin and end):
        sys.exit(f"cost: docs/operations.md has no markers for {name}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> None:
    """Write the tables, or check them."""
    written = OPERATIONS.read_text(encoding="utf-8")
    wanted = placed(written, "cost", markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
    wanted = placed(wanted, "watchers", watchers(json.loads(WATCHERS.read_text(encoding="utf-8"))))
    if "--check" in sys.argv[1:]:
        if wanted != written:
            sys.exit("cost: the tables in docs/operations.md do not match benchmarks/*.json; run: make performance")
    elif wanted != written:
        OPERATIONS.write_text(wanted, encoding="utf-8")
        print("cost: wrote the tables in docs/operations.md")


if __name__ == "__main__":
    main()
