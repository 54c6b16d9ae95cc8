"""The tables of costs in docs/operations.md.

`cost_tables.py` writes each table between its two markers; `cost_tables.py --check` fails if the page is old;
`cost_tables.py --print` prints all tables, and every bill with its arithmetic.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from benchmarks.cost import (
    BEFORE,
    MONTH,
    OPERATIONS,
    PARTS,
    PRICES,
    REGIONS,
    SMALL_JOBS,
    WATCHERS,
    Bill,
    Stack,
    dollars_an_hour,
    full,
    hostile,
    idle,
    million,
    polls,
    results,
    size,
    small,
    stack,
    stream,
    supervised,
    supervision,
    watched,
    workers,
)
from benchmarks.workload import items
from local_cloud.template import read

# The runs of the benchmark of watchers that the page shows: jobs and watchers. All poll once a second.
WATCHED: Final = ((1_000, 20), (10_000, 20), (50_000, 1), (50_000, 20), (50_000, 100), (100_000, 20))


def table(heads: Sequence[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """Return the lines of a table whose first columns are text."""
    marks = [" --- |"] * left + [" ---: |"] * (len(heads) - left)
    return [f"| {' | '.join(heads)} |", "|" + "".join(marks), *(f"| {' | '.join(row)} |" for row in rows)]


def dollars(amount: float) -> str:
    """Return an amount in cents."""
    return f"${amount:,.2f}"


def list_price(amount: float) -> str:
    """Return a price, in cents or more precisely."""
    return dollars(amount) if amount == round(amount, 2) else f"${amount:g}"


def prices() -> str:
    """Return the table of prices."""
    rows = []
    for price in PRICES.values():
        count = f"{price.count:,} " if price.count > 1 else ""
        cells = [
            list_price(price.dollars[region]) + (" (not confirmed)" if region in price.unconfirmed else "")
            for region in REGIONS
        ]
        site = price.source.removeprefix("https://aws.amazon.com/").rstrip("/")
        rows.append([f"{count}{price.what}", *cells, price.date, f"[{site}]({price.source})"])
    return "\n".join(table(["", *REGIONS, "as of", "AWS's page"], rows))


def requests(now: Stack) -> str:
    """Return the table of a million requests of each kind."""
    found = (*polls(), watched(50_000, 1), watched(50_000, 100), *hostile())
    bills = [million(poll, now) for poll in found]
    parts = [part for part in PARTS if any(bill.parts()[part] for bill in bills)]
    heads = ["", "read units", "billed ms", "log bytes", "sent", *parts, "a million", REGIONS[1]]
    rows = [
        [
            *(poll.name, f"{poll.read_units:,g}", f"{poll.billed_ms:,}", f"{poll.log_bytes(now):,}"),
            f"{poll.sent_bytes / 1e3:,.1f} KB",
            *(dollars(bill.parts()[part]) for part in parts),
            *(dollars(bill.dollars(region)) for region in REGIONS),
        ]
        for poll, bill in zip(found, bills, strict=True)
    ]
    batch, *jobs = (size(item) for item in items(10_000, datetime.now(UTC)))
    machine = f"{results()['machine']['cpu']}, {results()['machine']['system']}"
    return "\n".join(
        [
            *table(heads, rows),
            "",
            f"Items of the workload: on average {sum(jobs) / len(jobs):,.0f} bytes per job, {batch:,} for the batch.",
            f"CPU time and bytes sent were measured on {results()['date']} ({machine}).",
        ]
    )


def bills(of: Stack) -> Iterator[Bill]:
    """Yield all bills, without those of large batches that are read in full."""
    yield idle(of)
    for poll in (polls()[0], full(50), full(1_000), watched(50_000, 1), watched(50_000, 100)):
        bill = million(poll, of)
        yield Bill(f"1 M polls: {bill.name}", bill.uses)
    yield stream(of)
    for jobs, row in supervised().items():
        yield Bill(f"supervision of 1,000 batches of {jobs:,} jobs", supervision(row, of, 1_000).uses)
    yield small(of)
    for poll in hostile():
        bill = million(poll, of)
        yield Bill(f"1 M hostile requests: {bill.name}", bill.uses)


def months(now: Stack) -> str:
    """Return the table of bills, before and now."""
    rows = [
        [new.name, dollars(old.dollars()), dollars(new.dollars()), dollars(new.dollars(REGIONS[1]))]
        for old, new in zip(bills(BEFORE), bills(now), strict=True)
    ]
    row = supervised()[SMALL_JOBS]
    own = workers(row, MONTH / row["seconds"])
    rows.append([f"{own.name} in that month", *(dollars(own.dollars(each)) for each in (REGIONS[0], *REGIONS))])
    return "\n".join(table(["", f"before, {REGIONS[0]}", f"now, {REGIONS[0]}", f"now, {REGIONS[1]}"], rows))


def arithmetic(bill: Bill) -> list[list[str]]:
    """Return a row for each quantity of a bill: what it is, how it was computed, its price and its cost."""
    found = []
    for use in bill.uses:
        price = PRICES[use.price]
        count = f" for {price.count:,}" if price.count > 1 else ""
        quantity = f"{use.quantity:,.0f}" if use.quantity >= 1 or not use.quantity else f"{use.quantity:.2f}"
        cost = [dollars(use.dollars(region)) for region in REGIONS]
        found.append([price.what, use.how, quantity, f"{list_price(price.dollars[REGIONS[0]])}{count}", *cost])
    return found


def detailed(bill: Bill) -> str:
    """Return a bill with its arithmetic."""
    heads = ["", "how many", "quantity", "price", *REGIONS]
    total = ["**together**", "", "", "", *(f"**{dollars(bill.dollars(region))}**" for region in REGIONS)]
    return "\n".join(table(heads, [*arithmetic(bill), total], 2))


def before_and_now(old: Bill, new: Bill) -> str:
    """Return a table of two bills by part of AWS's bill."""
    was, is_now = old.parts(), new.parts()
    rows = [[part, dollars(was[part]), dollars(is_now[part])] for part in PARTS if was[part] or is_now[part]]
    rows.append(["**together**", f"**{dollars(old.dollars())}**", f"**{dollars(new.dollars())}**"])
    return "\n".join(table(["", "before", "now"], rows))


def checks(now: Stack) -> str:
    """Return the table of supervision."""
    heads = ["", *("workers' write units", "cost", "read units", "write units", "messages", "invocations", "cost")]
    rows = []
    for jobs, row in supervised().items():
        own, bill = workers(row).dollars(), supervision(row, now)
        cost = sum(use.dollars() for use in bill.uses if use.price not in {"log_byte", "trace"})
        rows.append(
            [
                *(f"{jobs:,} jobs, {row['workers']} workers", f"{row['worker_write_units']:,}", f"${own:.6f}"),
                *(f"{row['read_units']:,.0f}", f"{row['write_units']:,}", f"{row['messages']:,}"),
                *(f"{row['invocations']:,}", f"${cost:.6f}", f"{cost / own:.1%}"),
            ]
        )
    return "\n".join(table([*heads, "share"], rows))


def watchers() -> str:
    """Return the table of watchers, before counts were kept and now."""
    report = json.loads(WATCHERS.read_text(encoding="utf-8"))
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


def placed(written: str, name: str, text: str) -> str:
    """Return the page with a table between its markers."""
    before, begin, rest = written.partition(f"<!-- {name}:begin -->")
    _, end, after = rest.partition(f"<!-- {name}:end -->")
    if not (begin and end):
        sys.exit(f"cost: docs/operations.md has no markers for {name}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def tables() -> dict[str, str]:
    """Return the tables by the names of their markers."""
    now = stack(read())
    return {
        "bills": months(now),
        "small": detailed(small(now)),
        "saved": before_and_now(small(BEFORE), small(now)),
        "cost": requests(now),
        "prices": prices(),
        "supervision": checks(now),
        "watchers": watchers(),
    }


def printed() -> None:
    """Print all tables, and every bill with its arithmetic."""
    now = stack(read())
    for name, text in tables().items():
        print(f"# {name}\n\n{text}\n")
    for bill in bills(now):
        print(f"## {bill.name}\n\n{detailed(bill)}\n")


def main() -> None:
    """Write the tables, check them or print them."""
    if "--print" in sys.argv[1:]:
        printed()
        return
    written = wanted = OPERATIONS.read_text(encoding="utf-8")
    for name, text in tables().items():
        wanted = placed(wanted, name, text)
    if "--check" in sys.argv[1:]:
        if wanted != written:
            sys.exit(
                "cost: the tables in docs/operations.md are not those of benchmarks/cost.py; run: make performance"
            )
    elif wanted != written:
        OPERATIONS.write_text(wanted, encoding="utf-8")
        print("cost: wrote the tables in docs/operations.md")


if __name__ == "__main__":
    main()
