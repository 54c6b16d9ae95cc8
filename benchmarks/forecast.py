"""Measure the error of the forecast, and of the rules that progress bars use.

    make bench-forecast [DURATIONS=FILE]        or python -m benchmarks.forecast [--durations FILE]

Replays the synthetic batches of `replays.py` and, with FILE, recorded ones (one batch per
line, `{"source": "kind/name", "durations": [seconds, …]}`). Prints the errors by family and
the coverage of the interval. Then replays batches of 1,000, 50,000 and 200,000 jobs through
the handler's own tally, and prints how much its sample changes the estimate. Writes all this
to benchmarks/forecast.json, and draws docs/forecast.png. A run without FILE keeps the last
results for recorded batches.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batch_progress.forecast import time_left
from benchmarks import large
from benchmarks.replays import INDEPENDENT, SHARES, Look, Pool, looks, read_pools, synthetic_pools

ROOT = Path(__file__).parent.parent
# The number of ended jobs at which a batch of each size is read.
MOMENTS = {1_000: (10, 500, 900), 50_000: (300, 25_000, 45_000), 200_000: (1_000, 100_000)}
CHART_SHARES = tuple(share / 20 for share in range(1, 20))
type Summary = dict[str, dict[str, float]]


def linear(look: Look) -> float:
    """Extrapolate the elapsed time: the rule of most progress bars."""
    return look.elapsed / len(look.finished) * (look.total - len(look.finished))


def tqdm(look: Look, smoothing: float = 0.3) -> float:
    """Return tqdm's estimate: an exponential average of the time between ends, with its default smoothing."""
    average, previous, weight = 0.0, 0.0, 0.0
    for end in look.ends:
        average += smoothing * (end - previous - average)
        weight += smoothing * (1 - weight)
        previous = end
    return average / weight * (look.total - len(look.finished))


def indicatif(look: Look, window: float = 15.0) -> float:
    """Return indicatif's estimate: the rate, averaged exponentially over time, twice.

    A measurement that is `window` seconds old has a tenth of the weight. Both averages
    start at 0 and are divided by the weight they have so far.
    """
    once, twice, previous, steps = 0.0, 0.0, 0.0, 0
    for end in look.ends:
        steps += 1
        if end <= previous:
            continue
        kept = math.pow(0.1, (end - previous) / window)
        once = once * kept + steps / (end - previous) * (1 - kept)
        twice = twice * kept + once / (1 - math.pow(0.1, end / window)) * (1 - kept)
        previous, steps = end, 0
    kept, weight = math.pow(0.1, (look.elapsed - previous) / window), 1 - math.pow(0.1, look.elapsed / window)
    rate: float = (twice * kept + once * kept / weight * (1 - kept)) / weight
    return (look.total - len(look.finished)) / max(rate, 1e-9)


def mean_work(look: Look) -> float:
    """Return the remaining jobs times the mean duration, divided by the workers."""
    mean = statistics.fmean(look.finished)
    work = sum(max(mean - age, 0.0) for age in look.running) + mean * look.pending
    return work / (look.workers or max(len(look.running), 1))


def ours(look: Look) -> float:
    """Return this project's forecast."""
    return time_left(look.finished, look.running, look.pending, workers=look.workers, timeout=look.timeout).median


RULES: dict[str, Callable[[Look], float]] = {
    "forecast": ours,
    "elapsed time": linear,
    "tqdm": tqdm,
    "indicatif": indicatif,
    "mean work": mean_work,
}


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def summary(seen: Sequence[Look]) -> Summary:
    """Return the errors of each rule, relative to the time left and to the whole run."""
    table = {}
    for name, rule in RULES.items():
        off = [abs(rule(look) - look.left) for look in seen]
        relative = [error / look.left for error, look in zip(off, seen, strict=True)]
        table[name] = {
            "median": round(quantile(relative, 0.5), 4),
            "p90": round(quantile(relative, 0.9), 4),
            "of_run": round(statistics.fmean(error / look.end for error, look in zip(off, seen, strict=True)), 4),
        }
    return table


def covered(seen: Sequence[Look]) -> float:
    """Return how often the interval contained the true time left."""
    held = []
    for look in seen:
        made = time_left(look.finished, look.running, look.pending, workers=look.workers, timeout=look.timeout)
        held.append(made.low <= look.left <= made.high)
    return round(statistics.fmean(held), 3)


def measure(pools: Sequence[Pool]) -> dict[str, object]:
    """Replay the pools; return the errors overall, by family and by share of the run."""
    seen = list(looks(pools))
    shares = {share: [look for look in seen if look.share == share] for share in SHARES}
    families = {pool.family: [look for look in seen if look.pool.family == pool.family] for pool in pools}
    drawn = list(looks(pools, "chart", CHART_SHARES))
    by_share = {share: [look for look in drawn if look.share == share] for share in CHART_SHARES}
    return {
        "pools": len(pools),
        "looks": len(seen),
        "all": summary(seen),
        "covers": covered(seen),
        "covers_by_share": {str(share): covered(some) for share, some in shares.items()},
        "families": {name: summary(some) | {"covers": {"80%": covered(some)}} for name, some in families.items()},
        "median_by_share": {
            name: {str(share): round(quantile([abs(rule(look) - look.left) / look.left for look in some], 0.5), 4)
                   for share, some in by_share.items()}
            for name, rule in RULES.items()
        },
    }  # fmt: skip


def measure_large() -> list[dict[str, float]]:
    """Replay large batches through the tally; return, by size and moment, what its sample changes.

    The declared total is right, a 50th of the jobs, or absent; the orders of the ids take turns.
    """
    table = []
    for jobs, moments in MOMENTS.items():
        batches = [large.spans_of(family, jobs) for family in INDEPENDENT]
        for ended in moments:
            seen = [
                large.compare(spans, large.when_ended(spans, ended), order, (jobs, jobs // 50, 0)[number % 3])
                for spans in batches
                for number, order in enumerate(large.ORDERS)
            ]
            errors = [[both[which] for both in (one.errors for one in seen)] for which in (0, 1)]
            table.append(
                {
                    "jobs": jobs,
                    "ended": ended,
                    "difference": round(quantile([one.difference for one in seen], 0.5), 4),
                    "largest_difference": round(max(one.difference for one in seen), 4),
                    "width": round(quantile([one.width for one in seen], 0.5), 3),
                    "largest_width": round(max(one.width for one in seen), 3),
                    "error": round(statistics.fmean(errors[0]), 4),
                    "error_from_all": round(statistics.fmean(errors[1]), 4),
                }
            )
    return table


def show_large(table: Sequence[dict[str, float]]) -> None:
    """Print the table of large batches."""
    print(f"\nLarge batches: {len(INDEPENDENT)} kinds of durations in {len(large.ORDERS)} orders of the ids")
    print("estimates from the tally's sample against those from all durations, and the mean error of both")
    print(f"{'jobs':>8} {'ended':>8} {'difference':>18} {'width of the range':>20} {'error':>8} {'from all':>8}")
    for row in table:
        difference = f"{row['difference']:.1%}, max {row['largest_difference']:.1%}"
        width = f"{row['width']:.2f}, max {row['largest_width']:.2f}"
        errors = f"{row['error']:8.1%} {row['error_from_all']:8.1%}"
        print(f"{row['jobs']:8,} {row['ended']:8,} {difference:>18} {width:>20} {errors}")


def show(title: str, found: dict[str, object]) -> None:
    """Print the tables."""
    print(f"\n{title}: {found['pools']} pools, {found['looks']} snapshots")
    print(f"{'error':14} {'median':>8} {'p90':>8} {'of run':>8}   (of the time left; mean, of the whole run)")
    for name, row in found["all"].items():  # type: ignore[attr-defined]
        print(f"{name:14} {row['median']:8.3f} {row['p90']:8.3f} {row['of_run']:8.3f}")
    print(f"the 80% interval covers {found['covers']}; by share of the run {found['covers_by_share']}")
    print(f"{'median error':24} " + " ".join(f"{name:>13}" for name in RULES) + f" {'covers':>8}")
    for family, table in sorted(found["families"].items()):  # type: ignore[attr-defined]
        cells = " ".join(f"{table[name]['median']:13.3f}" for name in RULES)
        print(f"{family:24} {cells} {table['covers']['80%']:8.3f}")


def draw(report: dict[str, dict[str, object]], path: Path) -> None:
    """Draw the median error by elapsed share of the run."""
    import matplotlib as mpl  # noqa: PLC0415  # slow

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415

    colours = dict(zip(RULES, ("#0b6e4f", "#c2410c", "#7c3aed", "#2563eb", "#6b7280"), strict=True))
    titles = {"synthetic": "Synthetic batches", "recorded": "Recorded durations"}
    kinds = [kind for kind in titles if kind in report]
    figure, axes = plt.subplots(1, len(kinds), figsize=(5.2 * len(kinds), 4.2), sharey=True, squeeze=False, dpi=150)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for name, curve in report[kind]["median_by_share"].items():  # type: ignore[attr-defined]
            shares = [float(share) for share in curve]
            ours = name == "forecast"
            axis.plot(shares, list(curve.values()), label=name, color=colours[name], lw=2.6 if ours else 1.5,
                      zorder=3 if ours else 2, marker="o" if ours else None, ms=3.5)  # fmt: skip
        axis.set_title(f"{titles[kind]} ({report[kind]['pools']} pools)", fontsize=11)
        axis.set_xlabel("share of the run passed")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 0.7)
        axis.xaxis.set_major_formatter(PercentFormatter(1))
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.grid(color="#e5e7eb", lw=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("median error of the time left")
    axes[0][0].legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durations", type=Path, default=os.environ.get("DURATIONS") or None)
    options = parser.parse_args()
    results = ROOT / "benchmarks" / "forecast.json"
    report = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    begun = time.perf_counter()
    report["synthetic"] = measure(synthetic_pools())
    show("Synthetic batches", report["synthetic"])
    if options.durations:
        report["recorded"] = measure(read_pools(Path(options.durations)))
        show("Recorded durations", report["recorded"])
    report["large"] = measure_large()
    show_large(report["large"])
    results.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(report, ROOT / "docs" / "forecast.png")
    print(f"\n{time.perf_counter() - begun:.0f} s; written: {results.relative_to(ROOT)}, docs/forecast.png")


if __name__ == "__main__":
    main()
