"""A model of a job, after the table in docs/recording.md ("What the calls do"). It shares no code with the recorder."""

from typing import NamedTuple


class Refused(Exception):
    """The recorder raises `IllegalTransition` here."""


class Job(NamedTuple):
    """What a job's item records. Times are numbers.

    Attributes:
        status: Its status.
        attempt: The number of its latest attempt, 0 if it has had none.
        items: The number of items.
        failure: Error code and message of a failed job.
        started: When the latest attempt began.
        seen: When the latest attempt last reported.
        ended: When the job ended.
    """

    status: str = "pending"
    attempt: int = 0
    items: int = 0
    failure: tuple[str, str] | None = None
    started: int | None = None
    seen: int | None = None
    ended: int | None = None

    def start(self, now: int, *, retry: bool = False) -> "Job":
        """Begin the next attempt."""
        lost = self.failure is not None and self.failure[0] == "WORKER_LOST"
        if self.status in {"completed", "cancelled"} or (self.status == "failed" and not retry and not lost):
            raise Refused
        return Job("processing", self.attempt + 1, started=now)

    def report(self, now: int, items: int, attempt: int) -> "Job":
        """Show that the latest attempt is alive."""
        if self.status != "processing" or attempt != self.attempt:
            raise Refused
        return self._replace(items=items, seen=now)

    def complete(self, now: int, items: int) -> "Job":
        """Success wins, and the first success stands."""
        match self.status:
            case "completed":
                return self
            case "cancelled":
                raise Refused
            case _:
                return self._replace(status="completed", items=items, failure=None, ended=now)

    def fail(self, now: int, failure: tuple[str, str], items: int, attempt: int | None = None) -> "Job":
        """Only the latest attempt, or a caller that names none, can fail a job."""
        if self.status == "cancelled":
            raise Refused
        if attempt is not None and (self.status == "pending" or attempt > self.attempt):
            raise Refused
        if self.status == "completed" or (attempt is not None and attempt < self.attempt):
            return self
        if self.status == "failed":
            if (self.failure, self.items) != (failure, items):
                raise Refused
            return self
        return self._replace(status="failed", items=items, failure=failure, ended=now)

    def cancel(self, now: int) -> "Job":
        """Cancel what has not ended."""
        match self.status:
            case "pending" | "processing":
                return self._replace(status="cancelled", ended=now)
            case "cancelled":
                return self
            case _:
                raise Refused

    def lose(self, now: int, read: "Job", message: str) -> "Job":
        """Fail a running job unless an attempt has begun or reported since it was read."""
        unchanged = (self.attempt, self.started, self.seen) == (read.attempt, read.started, read.seen)
        if self.status != "processing" or not unchanged:
            return self
        return self._replace(status="failed", failure=("WORKER_LOST", message), ended=now)
