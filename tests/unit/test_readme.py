"""The figures in the README's first table are those of their sources."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def row(begin: str) -> str:
    """Return the row of the first table that begins with a text."""
    (found,) = [line for line in README.splitlines() if line.startswith(f"| **{begin}")]
    return found


def test_the_cost_of_watchers_is_the_benchmarks() -> None:
    runs: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "watchers.json").read_text("utf-8"))["now"]["runs"]
    units = {
        run["watchers"]: run["read_units_per_second"] for run in runs if run["jobs"] == 50_000 if run["interval"] == 1
    }
    assert re.search(
        rf"1 watcher costs {units[1]:.0f} read units a second, 100 cost {units[100]:.0f} ", row("Watchers")
    )


def test_the_error_of_the_estimate_is_the_forecasts() -> None:
    page = (ROOT / "docs" / "forecast.md").read_text("utf-8")
    ours, elapsed = (
        re.findall(rf"^\| {name} \| \**(\d+%)", page, re.MULTILINE)[0]
        for name in (r"\*\*this forecast\*\*", r"elapsed time \(most progress bars\)")
    )
    held = re.findall(r"contained the end in (\d+%) of the recorded cases", page)[0]
    assert [ours, elapsed, held] == re.findall(r"(?<!the )\b\d+%", row("An estimate").replace("80%", ""))


def test_the_bill_is_that_of_a_small_users_month() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (now,) = re.findall(r"^\| a small user's month \| \S+ \| (\$[\d.]+) \|", page, re.MULTILINE)
    assert [now] == re.findall(r"\$[\d.]+\d", row("A bill"))
