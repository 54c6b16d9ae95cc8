"""Write the results of `make faults`, `make fuzz` and `make load` into docs/security.md."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from local_cloud.template import timeout_seconds

_HERE: Final = Path(__file__).resolve().parent
PAGE: Final = _HERE.parents[1] / "docs" / "security.md"
BEGIN: Final = "<!-- figures: begin -->"
END: Final = "<!-- figures: end -->"


def _results(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))
    return results


def figures() -> str:
    """Return the paragraphs between the page's markers."""
    faults, fuzz, load = _results("faults"), _results("fuzz"), _results("load")
    setting, ms, late = load["setting"], load["ms"], load["late_304"]
    progress, revision = (_sums(faults[function]) for function in ("progress", "revision"))
    kinds = ", ".join(f"{row['cases']:,} {kind}" for kind, row in fuzz["kinds"].items())
    memory = ", ".join(
        f"{row['start_mb']:.0f} → {row['end_mb']:.0f} MB in service process {number}"
        for number, row in enumerate(load["memory"], 1)
    )
    rates = sorted({row["rate"] for row in faults["progress"]})
    modes = ", ".join(dict.fromkeys(row["mode"] for row in faults["progress"]))
    percents = " or ".join((", ".join(f"{rate:.0%}" for rate in rates[:-1]), f"{rates[-1]:.0%}"))
    recovered = f"{progress['recovered']:,} of the {progress['unavailable']:,}"
    if progress["recovered"] == progress["unavailable"]:
        recovered = f"each of the {progress['unavailable']:,}"
    cpu, cores = load["machine"]["cpu"], load["machine"]["cores"]
    machine = f"{cpu}, {cores} cores for the service, {load['engine']} and the clients"
    timeout = timeout_seconds("ProgressFunction")
    paragraphs = (
        (
            f"`make faults` ({faults['date']}) injected these faults into {percents} of DynamoDB's responses: "
            f"{modes}.\n"
            f"The progress function got {progress['spoilt']:,} faulty responses and gave {progress['answers']:,} "
            f"answers: {progress['right']:,} correct, {progress['unavailable']:,} `503`, {progress['wrong']} wrong.\n"
            f"After {recovered} `503`, the answer was correct when the request was repeated without faults.\n"
            f"The slowest answer took {progress['max_ms'] / 1_000:.1f} s; the function's timeout is {timeout:g} s.\n"
            f"The revision function handled {revision['answers']:,} deliveries: {revision['unavailable']:,} needed a "
            f"retry, {revision['wrong']} changes lost."
        ),
        (
            f"`make fuzz` ({fuzz['date']}, seed {fuzz['seed']}) sent {fuzz['cases']:,} cases ({kinds}); "
            f"findings: {fuzz['bad']}."
        ),
        (
            f"`make load` ({load['date']}; {machine}) ran {setting['clients']} clients on {setting['batches']:,} "
            f"batches for {setting['seconds']:g} s, while {load['jobs_ended']:,} jobs ended.\n"
            f"The clients got {load['requests']:,} answers: {load['share_304']:.0%} were `304`, {load['wrong']} wrong, "
            f"{load['server_errors']} `5xx`; p50 {ms['p50']:,.0f} ms, p99 {ms['p99']:,.0f} ms.\n"
            f"A `304` was at most {late['max_s']} s out of date.\n"
            f"From the end of the warm-up to the end of the test, memory went {memory}."
        ),
    )
    return "\n\n".join(paragraphs)


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("answers", "spoilt", "right", "unavailable", "recovered", "wrong")
    return {name: sum(row[name] for row in rows) for name in names} | {"max_ms": max(row["max_ms"] for row in rows)}


def page(written: str) -> str:
    """Return the page with the figures between its markers."""
    before, _, rest = written.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{figures()}\n{END}{after}"


def main() -> None:
    """Update the page."""
    missing = [name for name in ("faults", "fuzz", "load") if not (_HERE / f"{name}.json").exists()]
    if missing:
        sys.exit(f"security: there is no tests/hostile/{missing[0]}.json; run make faults, make fuzz and make load")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
