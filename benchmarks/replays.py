"""Replays of batches: what a reader sees at a moment, and when the batch really ended.

A pool is the durations of one finished batch. A replay shuffles its jobs, schedules them
first come, first served on some workers, and takes snapshots. Durations may be recorded;
schedules are always simulated.
"""

import heapq
import json
import math
import random
import statistics
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90)  # of a run's time: when snapshots are taken
WORKERS = (1, 3, 10, 25)
TIMEOUT = 60.0  # seconds; longer jobs are cut off, see `looks`
LARGEST = 400  # jobs of a pool that are replayed
# Draws of durations that depend on nothing else.
INDEPENDENT: dict[str, Callable[[random.Random], float]] = {
    "exponential": lambda rng: rng.expovariate(1),
    "log-normal": lambda rng: rng.lognormvariate(0, 0.8),
    "Pareto": lambda rng: rng.paretovariate(1.5),
    "bimodal": lambda rng: rng.lognormvariate(0, 0.2) * (6 if rng.random() < 1 / 4 else 1),
    "steady": lambda rng: rng.lognormvariate(0, 0.15),
}


@dataclass(frozen=True)
class Pool:
    """The durations of one finished batch, and the irregularities of its run."""

    source: str
    family: str
    durations: Sequence[float]
    slow: float = 1.0
    """The first worker is slower by this factor."""
    ramp: float = 0.0
    """Each worker starts this many median jobs after the previous one."""
    stall: float = 0.0
    """Everything pauses once for this many median jobs, at a random point of the middle half."""


@dataclass(frozen=True)
class Look:
    """A snapshot of a running batch, and how long it really took from there."""

    pool: Pool
    share: float
    elapsed: float
    ends: Sequence[float]
    """When jobs ended, in seconds after the start, sorted."""
    finished: Sequence[float]
    running: Sequence[float]
    pending: int
    slots: int
    workers: int | None
    timeout: float | None
    left: float
    """Seconds until the last job ended."""

    @property
    def total(self) -> int:
        """Jobs in the batch."""
        return len(self.finished) + len(self.running) + self.pending

    @property
    def end(self) -> float:
        """Seconds from start to end."""
        return self.elapsed + self.left


def family_of(source: str) -> str:
    """Return the family of a source: its first two parts."""
    return "/".join(source.split("/")[:2])


def read_pools(path: Path) -> list[Pool]:
    """Read pools from a file of JSON lines, `{"source": "kind/name/…", "durations": [seconds, …]}`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Pool(row["source"], family_of(row["source"]), row["durations"]) for row in rows]


def synthetic_pools(each: int = 12) -> list[Pool]:
    """Return `each` pools of every kind that a scraper meets; the same ones each time."""
    draws = INDEPENDENT | {
        "slow host": lambda rng: rng.lognormvariate(0, 0.3),
        "ramp-up": lambda rng: rng.lognormvariate(0, 0.3),
        "stall": lambda rng: rng.lognormvariate(0, 0.3),
    }
    course = {"slow host": {"slow": 4.0}, "ramp-up": {"ramp": 1.0}, "stall": {"stall": 6.0}}
    pools = []
    for family, draw in draws.items():
        for number in range(each):
            rng = random.Random(f"{family} {number}")
            durations = [draw(rng) for _ in range(rng.choice((20, 50, 100, 200, 400)))]
            pools.append(Pool(f"{family}/{number}", family, durations, **course.get(family, {})))
    return pools


def schedule(
    pool: Pool, durations: Sequence[float], workers: int, gap: float, rng: random.Random
) -> list[tuple[float, float]]:
    """Schedule jobs first come, first served; return start and end of each, in seconds."""
    job = statistics.median(durations)
    free = [(worker * pool.ramp * job, worker) for worker in range(workers)]
    spans = []
    for duration in durations:
        start, worker = heapq.heappop(free)
        if gap:
            start += rng.expovariate(1 / gap)
        end = start + min(duration * (pool.slow if worker == 0 and workers > 1 else 1.0), TIMEOUT)
        spans.append((start, end))
        heapq.heappush(free, (end, worker))
    if pool.stall:
        stop = rng.uniform(0.25, 0.75) * max(end for _, end in spans)
        still = pool.stall * job
        spans = [(s + still * (s > stop), e + still * (e > stop)) for s, e in spans]
    return spans


def looks(
    pools: Sequence[Pool], seed: str = "", shares: Sequence[float] = SHARES, workers: Sequence[int] = WORKERS
) -> Iterator[Look]:
    """Replay each pool with each number of workers; yield a snapshot at each share of its run.

    A pool is scaled so that its median job takes 2 to 12 seconds. Jobs are cut off after 60
    seconds. Half of the runs have a pause before each job, on average 8% of the median job.
    Half declare their workers and timeout. Snapshots before the first end are left out:
    there, the forecast is only its prior.
    """
    for pool in pools:
        for slots in workers:
            rng = random.Random(zlib.crc32(f"{seed}/{pool.source}/{slots}".encode()))
            median = math.exp(rng.uniform(math.log(2), math.log(12)))
            scale = median / max(statistics.median(pool.durations), 1e-9)
            durations = [min(duration * scale, TIMEOUT) for duration in pool.durations]
            rng.shuffle(durations)
            durations = durations[:LARGEST]
            if slots > len(durations) // 2:
                continue
            gap = 0.08 * median if rng.random() < 1 / 2 else 0.0
            declared = rng.random() < 1 / 2
            spans = schedule(pool, durations, slots, gap, rng)
            end = max(stop for _, stop in spans)
            for share in shares:
                now = share * end
                look = Look(
                    pool=pool,
                    share=share,
                    elapsed=now,
                    ends=sorted(stop for _, stop in spans if stop <= now),
                    finished=[stop - start for start, stop in spans if stop <= now],
                    running=[now - start for start, stop in spans if start <= now < stop],
                    pending=sum(start > now for start, _ in spans),
                    slots=slots,
                    workers=slots if declared else None,
                    timeout=TIMEOUT if declared else None,
                    left=end - now,
                )
                if look.finished:
                    yield look
