"""The report of the benchmark, from `results.json`: for the terminal, and as the table in README.md.

`report.py` writes the table between the two markers of README.md; `report.py --check` fails if it is not current.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results.json"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- performance:begin -->"
END: Final = "<!-- performance:end -->"

_TO_STRAIGHTFORWARD: Final = {50: 0.22, 1_000: 0.10, 10_000: 0.070, 50_000: 0.055}
_TO_LIMIT: Final = {10_000: 1.4, 50_000: 1.4}


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each target with its measured value."""
    warm, cold, unchanged, token = (results[part] for part in ("warm", "cold", "unchanged", "token"))
    allowed_lookups = 1 + int(token["seconds"] // 30)
    rows = [
        *[
            (f"warm CPU, this / straightforward, {jobs:,} jobs", warm[str(jobs)]["to_straightforward"], most)
            for jobs, most in _TO_STRAIGHTFORWARD.items()
        ],
        *[
            (f"warm CPU, this / limit, {jobs:,} jobs", warm[str(jobs)]["to_limit"], most)
            for jobs, most in _TO_LIMIT.items()
        ],
        ("CPU per job, 50,000 / 1,000 jobs", results["flat"], 1.3),
        ("unchanged poll: reads of the jobs table", unchanged["reads"], 1),
        ("unchanged poll: pages of jobs read", unchanged["jobs_pages"], 0),
        ("unchanged poll: CPU, 50,000 / 50 jobs", unchanged["large_to_small"], 1.1),
        (
            "CPU of an unchanged poll / a straightforward answer, 50 jobs",
            round(unchanged["small_ms"] / warm["50"]["straightforward_ms"], 4),
            0.12,
        ),
        ("kept count, limit=0: reads of the jobs table", results["kept"]["reads"], 1),
        ("kept count, limit=0: CPU / unchanged poll, 50,000 jobs", results["kept"]["to_unchanged"], 1.3),
        (f"token: look-ups in {token['requests']} requests", token["lookups"], allowed_lookups),
        ("peak memory growth, this / straightforward, 50,000 jobs", results["memory"]["to_straightforward"], 0.35),
        ("cold start CPU, this / straightforward, .pyc on both sides", cold["to_compiled"], 0.30),
        ("cold start CPU, this / straightforward as sam build leaves it", cold["to_as_built"], 0.13),
    ]
    return [{"name": name, "value": value, "at_most": most, "reached": value <= most} for name, value, most in rows]


def text(results: dict[str, Any]) -> str:
    """Return the full report for the terminal."""
    machine, cold, memory = results["machine"], results["cold"], results["memory"]
    unchanged, token = results["unchanged"], results["token"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    heading = (
        f"{'jobs':>8}{'this':>10}{'straightf.':>12}{'limit':>10}{'/ str.':>9}{'/ limit':>9}"
        f"{'gzip':>10}{'calls':>7}{'read KB':>10}{'sent KB':>10}{'gzip KB':>9}{'listed':>8}"
    )
    poll = (
        f"unchanged poll: {unchanged['small_ms']:.3f} ms at 50 jobs, {unchanged['large_ms']:.3f} ms at 50,000; "
        f"{unchanged['reads']:g} read, {unchanged['dynamodb_bytes']:,} bytes"
    )
    start = (
        f"cold start CPU: {cold['this_ms']:.0f} ms; straightforward {cold['compiled_ms']:.0f} ms with .pyc, "
        f"{cold['as_built_ms']:.0f} ms without"
    )
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, {results['seconds']} s",
        versions,
        "",
        "warm CPU in ms, medians; the runtime's json.dumps of the response is counted in each",
        heading,
    ]
    lines += [
        f"{int(jobs):>8,}{row['this_ms']:>10.3f}{row['straightforward_ms']:>12.3f}{row['limit_ms']:>10.3f}"
        f"{row['to_straightforward']:>9.4f}{row['to_limit']:>9.3f}{row['gzip_ms']:>10.3f}{row['queries']:>7}"
        f"{row['dynamodb_bytes'] / 1e3:>10,.1f}{row['bytes'] / 1e3:>10,.1f}{row['gzip_bytes'] / 1e3:>9,.1f}"
        f"{row['jobs_listed']:>8,}"
        for jobs, row in results["warm"].items()
    ]
    lines += [
        "",
        poll,
        f"token: {token['lookups']} look-up in {token['requests']} requests over {token['seconds']} s",
        f"peak memory growth at 50,000: {memory['this_mb']} MB, straightforward {memory['straightforward_mb']} MB",
        start,
    ]
    lines += [
        f"forecast {tuple(each['jobs'])}: {each['ms']:.3f} ms, {each['share']:.1%} of the straightforward answer "
        f"for {int(jobs):,} jobs"
        for jobs, each in results["forecast"].items()
    ]
    lines += ["", f"{'target':<66}{'value':>9}{'at most':>9}"]
    lines += [
        f"{row['name']:<66}{row['value']:>9.4g}{row['at_most']:>9.4g}  {'reached' if row['reached'] else 'MISSED'}"
        for row in results["targets"]
    ]
    return "\n".join(lines)


def markdown(results: dict[str, Any]) -> str:
    """Return the README's table."""
    machine, cold, memory, unchanged = (results[part] for part in ("machine", "cold", "memory", "unchanged"))
    names = {"python": "Python", "botocore": "botocore", "msgspec": "msgspec", "pydantic": "pydantic"}
    versions = ", ".join(f"{name} {results['versions'][key]}" for key, name in names.items())
    rows = [
        *[
            (f"CPU of an answer, {int(jobs):,} jobs", row["this_ms"], row["straightforward_ms"], "ms")
            for jobs, row in results["warm"].items()
        ],
        ("CPU of an unchanged poll, 50,000 jobs", unchanged["large_ms"], None, "ms"),
        ("CPU of a cold start to the first answer, both with `.pyc`", cold["this_ms"], cold["compiled_ms"], "ms"),
        (
            "the same, the straightforward one without `.pyc`, as `sam build` packages it",
            cold["this_ms"],
            cold["as_built_ms"],
            "ms",
        ),
        ("peak memory growth, 50,000 jobs", memory["this_mb"], memory["straightforward_mb"], "MB"),
    ]
    ratios = [
        *[row["to_straightforward"] for row in results["warm"].values()],
        None,
        *[cold["to_compiled"], cold["to_as_built"], memory["to_straightforward"]],
    ]
    lines = [
        "| | this handler | straightforward | ratio |",
        "| --- | ---: | ---: | ---: |",
        *[
            f"| {name} | {_amount(ours, unit)} | {_amount(theirs, unit)} | {'' if ratio is None else f'{ratio:.3f}'} |"
            for (name, ours, theirs, unit), ratio in zip(rows, ratios, strict=True)
        ],
        "",
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; {versions}.",
    ]
    return "\n".join(lines)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2f} {unit}" if value < 10 else f"{value:,.0f} {unit}"  # noqa: PLR2004  # two digits


def readme(written: str, table: str) -> str | None:
    """Return the README with the table between its markers; `None` if it has no markers."""
    before, begin, rest = written.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}" if begin and end else None


def main() -> None:
    """Write the README's table, or check it."""
    written = README.read_text(encoding="utf-8")
    if not RESULTS.exists():
        sys.exit("performance: there is no benchmarks/results.json; run make bench")
    wanted = readme(written, markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
    if wanted is None:
        print(f"performance: README.md has no {BEGIN} and {END}; nothing to do")
    elif "--check" in sys.argv[1:]:
        if wanted != written:
            sys.exit(
                "performance: the table in README.md does not match benchmarks/results.json; run: make performance"
            )
    elif wanted != written:
        README.write_text(wanted, encoding="utf-8")
        print("performance: wrote the table in README.md")


if __name__ == "__main__":
    main()
