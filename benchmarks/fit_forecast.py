"""Fit the constants of the forecast to finished batches: prints the table to paste.

    python -m benchmarks.fit_forecast [--durations FILE] [--held-out] [--rounds N]

FILE has one finished batch per line, `{"source": "kind/name", "durations": [seconds, …]}`.
Use your own batches if you have about a hundred. Without FILE, synthetic batches are used:
they test the script and are not a basis for constants. `--held-out` measures how well the
constants generalize: it leaves out one family of sources, fits to the others and measures
on that family, for each family in turn.

First, the constants of the median are fitted by coordinate descent on its error. Then the
three doubts are fitted so that the interval covers 80% of the snapshots, as evenly as
possible over the run. The ratio of the expected duration to the timeout (`typical_…`) is
a judgement: replays are scaled, so they cannot measure it.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from batch_progress import forecast
from batch_progress.forecast import Constants
from benchmarks.forecast import RULES, quantile
from benchmarks.replays import SHARES, Look, Pool, looks, read_pools, synthetic_pools

MEDIAN = (
    "power", "spread", "spread_jobs", "prior_jobs", "prior_width", "beyond", "beyond_jobs", "gap", "gap_workers",
)  # fmt: skip
DOUBTS = ("doubt", "doubt_mean", "doubt_later")
CONFIDENCE = 0.8
FEW = 10  # families with fewer pools are held out together


def answers(seen: Sequence[Look], constants: Constants) -> list[forecast.Forecast]:
    """Forecast each snapshot with these constants."""
    kept = forecast.FITTED
    forecast.FITTED = constants  # type: ignore[misc]  # final elsewhere
    try:
        return [
            forecast.time_left(look.finished, look.running, look.pending, workers=look.workers, timeout=look.timeout)
            for look in seen
        ]
    finally:
        forecast.FITTED = kept  # type: ignore[misc]


def errors(seen: Sequence[Look], guesses: Sequence[float]) -> tuple[float, float, float]:
    """Return the errors: median and 90th percentile relative to the time left, mean relative to the whole run."""
    relative = [abs(guess - look.left) / look.left for look, guess in zip(seen, guesses, strict=True)]
    of_run = [abs(guess - look.left) / look.end for look, guess in zip(seen, guesses, strict=True)]
    return quantile(relative, 0.5), quantile(relative, 0.9), statistics.fmean(of_run)


def ratios(seen: Sequence[Look], guesses: Sequence[float]) -> tuple[float, float, float]:
    """Return each error divided by the lowest such error of the progress bars' rules."""
    bars = [errors(seen, [rule(look) for look in seen]) for name, rule in RULES.items() if name != "forecast"]
    ours = errors(seen, guesses)
    median, tail, mean = (own / min(best) for own, best in zip(ours, zip(*bars, strict=True), strict=True))
    return median, tail, mean


def coverage(seen: Sequence[Look], made: Sequence[forecast.Forecast]) -> dict[float, float]:
    """Return how often the interval contained the true time left, by elapsed share of the run."""
    inside: dict[float, list[bool]] = {}
    for look, guess in zip(seen, made, strict=True):
        inside.setdefault(look.share, []).append(guess.low <= look.left <= guess.high)
    return {share: statistics.fmean(held) for share, held in sorted(inside.items())}


def median_loss(seen: Sequence[Look], constants: Constants) -> float:
    """Return a weighted sum of the three errors; the median has the largest weight, the tail the smallest."""
    guesses = [guess.median for guess in answers(seen, constants)]
    relative = sorted(abs(guess - look.left) / look.left for look, guess in zip(seen, guesses, strict=True))
    # The mean of the middle tenth is smoother than the median.
    middle = statistics.fmean(relative[len(relative) * 9 // 20 : len(relative) * 11 // 20 + 1])
    _, tail, mean = errors(seen, guesses)
    return 9 * middle + 0.4 * tail + 5 * mean


def interval_loss(seen: Sequence[Look], constants: Constants) -> float:
    """Return the squared error of coverage: at each share of the run, and overall."""
    by_share = coverage(seen, answers(seen, constants))
    return sum((held - CONFIDENCE) ** 2 for held in by_share.values()) + (
        statistics.fmean(by_share.values()) - CONFIDENCE
    ) ** 2 * len(by_share)


def descend(
    names: Sequence[str], loss: Callable[[Constants], float], start: Constants, rounds: int, step: float
) -> Constants:
    """Coordinate descent: scale one constant at a time by a factor that shrinks, and keep improvements."""
    best, lowest = start, loss(start)
    for _ in range(rounds):
        for name in names:
            for factor in (math.exp(step), math.exp(-step)):
                tried = best._replace(**{name: getattr(best, name) * factor})
                if (value := loss(tried)) < lowest * (1 - 2e-4):
                    best, lowest = tried, value
                    break
        step /= 2
    return best


def fit(seen: Sequence[Look], rounds: int, start: Constants = forecast.FITTED) -> Constants:
    """Fit the constants of the median, then those of the interval."""
    found = descend(MEDIAN, lambda constants: median_loss(seen, constants), start, rounds, 0.3)
    found = descend(DOUBTS, lambda constants: interval_loss(seen, constants), found, rounds + 1, 0.3)
    return Constants(*(float(f"{value:.2g}") for value in found))


def held_out(pools: Sequence[Pool], rounds: int, every: int) -> None:
    """Hold out each family in turn, fit to the others, and print the errors on the held-out family."""
    sizes = {family: sum(pool.family == family for pool in pools) for family in {pool.family for pool in pools}}
    group = {family: family if size >= FEW else "the rest" for family, size in sizes.items()}
    seen: list[Look] = []
    made: list[forecast.Forecast] = []
    print(f"{'held out':28} {'seen':>6} {'median':>7} {'p90':>6} {'mean':>6} {'covers':>7}")
    for name in sorted(set(group.values())):
        others = list(looks([pool for pool in pools if group[pool.family] != name], "fit"))[::every]
        unseen = list(looks([pool for pool in pools if group[pool.family] == name], "test"))
        guesses = answers(unseen, fit(others, rounds))
        row(name, unseen, guesses)
        seen += unseen
        made += guesses
    row("all, each held out", seen, made)
    print("coverage by share of the run:", {share: round(held, 3) for share, held in coverage(seen, made).items()})


def row(name: str, seen: Sequence[Look], made: Sequence[forecast.Forecast]) -> None:
    """Print the ratios to the best progress bar, and the coverage."""
    median, tail, mean = ratios(seen, [guess.median for guess in made])
    inside = statistics.fmean(guess.low <= look.left <= guess.high for look, guess in zip(seen, made, strict=True))
    print(f"{name:28} {len(seen):6} {median:7.3f} {tail:6.3f} {mean:6.3f} {inside:7.3f}", flush=True)


def main() -> None:
    """Read pools, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--durations", type=Path)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of coordinate descent")
    parser.add_argument("--every", type=int, default=2, help="fit to every N-th snapshot")
    options = parser.parse_args()
    pools = read_pools(options.durations) if options.durations else synthetic_pools()
    if options.held_out:
        held_out(pools, options.rounds, options.every)
        return
    constants = fit(list(looks(pools, "fit", SHARES))[:: options.every], options.rounds)
    seen = list(looks(pools, "test"))
    made = answers(seen, constants)
    print("FITTED: Final = Constants(")
    for name, value in constants._asdict().items():
        print(f"    {name}={value},")
    print(")")
    print(
        f"\n{'':28} {'seen':>6} {'median':>7} {'p90':>6} {'mean':>6} {'covers':>7}   (other replays of the same pools)"
    )
    row("fitted", seen, made)
    row("as shipped", seen, answers(seen, forecast.FITTED))
    print("coverage by share of the run:", {share: round(held, 3) for share, held in coverage(seen, made).items()})


if __name__ == "__main__":
    main()
