"""Batches replayed: what a client could have seen of them, and when they really ended.

A pool is the durations of one finished batch. Its jobs are shuffled and played first come,
first served over some workers, and looked at while they run. The durations may be real;
the schedule never is.
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

SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90)  # of the run passed when it is looked at
WORKERS = (1, 3, 10, 25)
TIMEOUT = 60.0  # seconds; pools are scaled to it, see `played`
LARGEST = 400  # jobs of a pool that are played


@dataclass(frozen=True)
class Pool:
    """The durations of one finished batch, and how it was run."""

    source: str
    family: str
    durations: Sequence[float]
    slow: float = 1.0
    """How many times longer than the others the first worker takes."""
    ramp: float = 0.0
    """How many jobs later each worker starts than the one before."""
    stall: float = 0.0
    """For how many jobs' time nothing moves, from somewhere in the middle half."""


@dataclass(frozen=True)
class Look:
    """What is known of a running batch at one moment, and what became of it."""

    pool: Pool
    share: float
    elapsed: float
    ends: Sequence[float]
    """Seconds after the start at which jobs ended, in order."""
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
    """Name what a pool's relatives share: the first two parts of its source."""
    return "/".join(source.split("/")[:2])


def read_pools(path: Path) -> list[Pool]:
    """Read pools from a file of JSON lines, `{"source": "kind/name/…", "durations": [seconds, …]}`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Pool(row["source"], family_of(row["source"]), row["durations"]) for row in rows]


def synthetic_pools(each: int = 12) -> list[Pool]:
    """Make pools of the kinds that a scraper meets, `each` of a kind, always the same ones."""
    draws: dict[str, Callable[[random.Random], float]] = {
        "exponential": lambda rng: rng.expovariate(1),
        "log-normal": lambda rng: rng.lognormvariate(0, 0.8),
        "Pareto": lambda rng: rng.paretovariate(1.5),
        "bimodal": lambda rng: rng.lognormvariate(0, 0.2) * (6 if rng.random() < 1 / 4 else 1),
        "steady": lambda rng: rng.lognormvariate(0, 0.15),
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
    """Play durations first come, first served: start and end of each job, in seconds."""
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
    """Replay each pool with each number of workers, and look at it at each share of its run.

    A pool is scaled so that its median job takes 2 to 12 seconds, and jobs are cut off
    after 60. Half of the runs have a pause before each job, 8% of the median job on
    average; half declare their workers and their timeout. A look before any job has ended
    is left out: there, the prior is all there is.
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
