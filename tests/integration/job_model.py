"""A model of a job, after the table in docs/recording.md ("What the calls do"). It shares no code with the recorder."""

from typing import NamedTuple


class Refused(Exception):
    """The recorder raises `IllegalTransition` here."""


class Job(NamedTuple):
    """What a job's item records.

    Attributes:
        status: Its status.
        attempt: The number of its latest attempt, 0 if it has had none.
        items: The number of items.
        failure: Error code and message of a failed job.
        alive: The worker's last sign of life, as a number that grows: the latest start or report.
    """

    status: str = "pending"
    attempt: int = 0
    items: int = 0
    failure: tuple[str, str] | None = None
    alive: int | None = None

    def start(self, now: int, *, retry: bool = False) -> "Job":
        """Begin the next attempt."""
        lost = self.failure is not None and self.failure[0] == "WORKER_LOST"
        if self.status in {"completed", "cancelled"} or (self.status == "failed" and not retry and not lost):
            raise Refused
        return Job("processing", self.attempt + 1, 0, None, now)

    def report(self, now: int, items: int, attempt: int) -> "Job":
        """Show that the latest attempt is alive."""
        if self.status != "processing" or attempt != self.attempt:
            raise Refused
        return self._replace(items=items, alive=now)

    def complete(self, items: int) -> "Job":
        """Success wins, and the first success stands."""
        match self.status:
            case "completed":
                return self
            case "cancelled":
                raise Refused
            case _:
                return self._replace(status="completed", items=items, failure=None)

    def fail(self, code: str, message: str, items: int, attempt: int | None = None) -> "Job":
        """Only the latest attempt, or nobody in particular, can fail a job."""
        failed = self._replace(status="failed", items=items, failure=(code, message))
        if attempt is not None and (self.status == "pending" or attempt > self.attempt):
            raise Refused
        match self.status:
            case "cancelled":
                raise Refused
            case "completed":
                return self
            case _ if attempt is not None and attempt < self.attempt:
                return self
            case "failed" if failed != self:
                raise Refused
            case _:
                return failed

    def cancel(self) -> "Job":
        """Cancel what has not ended."""
        match self.status:
            case "pending" | "processing" | "cancelled":
                return self._replace(status="cancelled")
            case _:
                raise Refused

    def lose(self, read: "Job", message: str) -> "Job":
        """Fail the job unless it has changed since the supervisor read it."""
        same = self.status == "processing" and (self.attempt, self.alive) == (read.attempt, read.alive)
        return self._replace(status="failed", failure=("WORKER_LOST", message)) if same else self
