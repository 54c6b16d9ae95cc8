"""How long until a batch is done: seconds in, seconds out."""

from collections.abc import Sequence
from typing import NamedTuple


class Forecast(NamedTuple):
    """Seconds until the last job of a batch has ended.

    Attributes:
        median: The end is as likely before as after it.
        low: With `high` an interval that holds the end in 80% of cases.
        high: See `low`.
    """

    median: float
    low: float
    high: float


# The platform's own limit on one job in seconds, where a batch declares none.
_DEFAULT_TIMEOUT = 30.0


def time_left(
    finished: Sequence[float],
    running: Sequence[float],
    pending: int,
    *,
    workers: int | None,
    timeout: float | None,
) -> Forecast:
    """Forecast when the last job ends, as mean work over the workers.

    Args:
        finished: Durations of ended jobs in seconds.
        running: Ages of running jobs in seconds.
        pending: How many jobs have not started.
        workers: Declared parallelism, `None` where not declared.
        timeout: Declared limit on one job in seconds, `None` where not declared.
    """
    if not running and not pending:
        return Forecast(0.0, 0.0, 0.0)
    limit = timeout or _DEFAULT_TIMEOUT
    mean = sum(max(duration, 0.0) for duration in finished) / len(finished) if finished else limit / 2
    slots = max(workers or 1, len(running))
    work = mean * pending + sum(max(mean - max(age, 0.0), 0.0) for age in running)
    median = work / slots
    return Forecast(median, median / 2, median * 2 + mean)
