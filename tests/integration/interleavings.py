"""Random interleavings of everything that can happen to one job, compared call by call with a model of the table.

Every call of the recorder changes a job by one atomic write. So the calls of any number of processes are some sequence,
and one thread makes it: it picks one of the actors at random, lets it make its next call, and compares.
"""

import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from batch_progress import recorder as recorder_module
from batch_progress import table
from batch_progress.errors import IllegalTransition
from batch_progress.recorder import BatchRecorder, RunningJob
from batch_progress.table import JOB_PREFIX, WORKER_LOST, timestamp
from tests.integration.job_model import Job, Refused

LOST = "The worker has shown no sign of life for longer than the batch allows."
# Shares of the actors that die after a call, before they notice its result.
DEATHS = 0.08
# Shares of calls that are made twice: the response was lost.
TWICE = 0.08


class ScrapeFailed(Exception):
    """Raised in a block."""


class Call(NamedTuple):
    """A call of the recorder.

    Attributes:
        text: Describes it.
        make: Makes it.
        change: Makes the model's change, given the time.
        repeatable: Whether it can be made twice.
    """

    text: str
    make: Callable[[], object]
    change: Callable[[Job, int], Job]
    repeatable: bool = True


# Yields calls and gets the number of a start, `None`, or the exception of a call that is refused.
type Actor = Generator[Call, Any]


class History:
    """One job, and everything that happens to it.

    `where` names the table and the job's key, for a client that puts and gets the item.

    Attributes:
        log: Each call and its outcome.
        kinds: How often each kind of outcome occurred, for a test that all of them do.
    """

    def __init__(self, recorder: BatchRecorder, client: Any, where: dict[str, Any], seed: int) -> None:  # noqa: ANN401  # botocore ships no types
        self._recorder = recorder
        self._client = client
        self._where = where
        self._ids = where["Key"]["batch_id"]["S"], where["Key"]["sk"]["S"].removeprefix(JOB_PREFIX)
        self._chance = random.Random(seed)  # noqa: S311  # a test
        self._now = 1
        self._job = Job()
        self.log: list[str] = []
        self.kinds: set[str] = set()

    def run(self) -> None:
        """Let two to four workers and some others act until none is left."""
        chance = self._chance
        first: dict[str, dict[str, str]] = chance.choice(
            [{"status": {"S": "pending"}, "items_extracted": {"N": "0"}}, {"status": {"S": "pending"}}, {}]
        )
        self._client.put_item(TableName=self._where["TableName"], Item=self._where["Key"] | first)
        actors: list[Actor] = [self._worker() for _ in range(chance.randint(2, 4))]
        others = [(0.6, self._supervisor), (0.3, self._dead_letters), (0.2, self._operator), (0.25, self._canceller)]
        actors += [other() for share, other in others if chance.random() < share]
        calls = [(actor, next(actor)) for actor in actors]
        while calls:
            actor, call = calls.pop(chance.randrange(len(calls)))
            outcome = self._compared(call)
            if call.repeatable and chance.random() < TWICE:
                outcome = self._compared(call)
            if chance.random() < DEATHS:
                self.kinds.add("died")
                continue
            try:
                calls.append((actor, actor.send(outcome)))
            except StopIteration:
                continue

    def _compared(self, call: Call) -> object:
        """Make a call and the model's change, and compare outcome and item."""
        self._now += 1
        self.log.append(call.text)
        before = self._job
        refused = False
        try:
            self._job = call.change(before, self._now)
        except Refused:
            refused = True
        outcome: object
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(recorder_module, "_now", partial(_time, self._now))
            try:
                outcome = call.make()
            except IllegalTransition as error:
                outcome = error
        self.log[-1] += f" -> {outcome!r}"
        assert refused == isinstance(outcome, IllegalTransition), self._story(before)
        if call.text.startswith("start") and not refused:
            assert before.attempt + 1 == outcome, self._story(before)
        if call.text.startswith("lose"):
            assert (before != self._job) == outcome, self._story(before)
        assert self._job == self._stored(), self._story(before)
        name = call.text.partition(" ")[0]
        self.kinds.add(f"{before.status} {name} {'refused' if refused else self._job.status}")
        return outcome

    def _stored(self) -> Job:
        item = self._client.get_item(**self._where, ConsistentRead=True)["Item"]
        values = {name: next(iter(value.values())) for name, value in item.items()}
        code = values.get("error_code")
        assert (code is None) == ("error_message" not in values)
        return Job(
            values.get("status", "pending"),
            int(values.get("attempt", 0)),
            int(values.get("items_extracted", 0)),
            None if code is None else (code, values["error_message"]),
            *(_number(values.get(name)) for name in ("started_at", "seen_at", "finished_at")),
        )

    def _story(self, before: Job) -> str:
        return "\n".join([*self.log, f"before: {before}", f"expected: {self._job}", f"stored: {self._stored()}"])

    # Actors

    def _worker(self) -> Actor:
        """Handle a message, and its redeliveries, in a block or call by call."""
        for _ in range(self._chance.randint(1, 3)):
            handled = self._in_a_block if self._chance.random() < 0.4 else self._call_by_call
            if (yield from handled(retry=self._chance.random() < 0.5)):
                return

    def _call_by_call(self, *, retry: bool) -> Generator[Call, Any, bool]:
        chance = self._chance
        attempt = yield self._start(retry=retry)
        if isinstance(attempt, IllegalTransition):
            return True
        for _ in range(chance.randint(0, 2)):
            if isinstance((yield self._report(attempt)), IllegalTransition) and chance.random() < 0.5:
                return True
        match chance.choice(["complete", "complete", "fail", "fail", "fail by nobody", "killed", "wrong number"]):
            case "complete":
                return not isinstance((yield self._complete()), IllegalTransition)
            case "fail":
                yield self._fail(attempt)
            case "fail by nobody":
                yield self._fail(None)
            case "wrong number":
                yield self._fail(max(1, attempt + chance.randint(-2, 2)))
        return False

    def _in_a_block(self, *, retry: bool) -> Generator[Call, Any, bool]:
        chance = self._chance
        entered: list[tuple[AbstractContextManager[RunningJob], RunningJob]] = []

        def enter() -> int:
            block = self._recorder.job(*self._ids, retry=retry)
            running = block.__enter__()  # the block spans several steps
            entered.append((block, running))
            return running.attempt

        start = self._start(retry=retry)
        if isinstance((yield start._replace(text=f"{start.text}, block", make=enter)), IllegalTransition):
            return True
        block, running = entered[-1]
        for _ in range(chance.randint(0, 2)):
            running.items_extracted += chance.randint(0, 2)
            report = self._report(running.attempt, running.items_extracted)
            if isinstance((yield report._replace(make=running.report)), IllegalTransition):
                break
        if chance.random() < 0.5:
            complete = self._complete(running.items_extracted)
            yield complete._replace(make=partial(block.__exit__, None, None, None), repeatable=False)
            return True
        error = ScrapeFailed(chance.choice("ab"))
        fail = self._fail(running.attempt, ("ScrapeFailed", str(error)), running.items_extracted)
        yield fail._replace(make=partial(self._raise_in, block, error), repeatable=False)
        return False

    def _raise_in(self, block: AbstractContextManager[RunningJob], error: ScrapeFailed) -> None:
        """Raise an error in a block. What its failure could not be recorded for is in a note."""
        assert not block.__exit__(type(error), error, None)
        if hasattr(error, "__notes__"):
            raise IllegalTransition(*self._ids, "; ".join(error.__notes__), "failed")

    def _dead_letters(self) -> Actor:
        """Fail what was given up, whichever attempt was at it; or wrongly with a number."""
        yield self._fail(self._chance.choice([None, 1]), ("GAVE_UP", "delivered too often"), 0)

    def _canceller(self) -> Actor:
        yield Call("cancel", partial(self._recorder.cancel, *self._ids), Job.cancel)

    def _operator(self) -> Actor:
        """Start the job again by hand, and leave it to a worker; or end it in one call, which needs no start."""
        yield self._complete() if self._chance.random() < 0.3 else self._start(retry=True)

    def _supervisor(self) -> Actor:
        """Read the job, and fail it as lost some time later unless it has changed, as the supervisor does."""
        for _ in range(self._chance.randint(1, 3)):
            read: list[Job] = []
            yield Call("read", partial(self._read, read), lambda job, _: job)
            found = read[-1]
            if found.status == "processing":
                lose = partial(Job.lose, read=found, message=LOST)
                yield Call(f"lose {found.attempt}", partial(self._lose, found), lose)

    def _read(self, into: list[Job]) -> None:
        into.append(self._stored())

    def _lose(self, found: Job) -> bool:
        read = table.item(attempt=found.attempt, started_at=_maybe_time(found.started), seen_at=_maybe_time(found.seen))
        same = [f"#{name} = :{name}_read" for name in read]
        same += [f"attribute_not_exists(#{name})" for name in ("seen_at",) if name not in read]
        values = table.item(status="failed", error_code=WORKER_LOST, error_message=LOST, finished_at=_time(self._now))
        update = {
            "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in values),
            "ConditionExpression": " AND ".join(["#status = :processing", *same]),
            "ExpressionAttributeNames": {f"#{name}": name for name in (*values, *read, "seen_at")},
            "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}
            | {f":{name}_read": value for name, value in read.items()}
            | {":processing": {"S": "processing"}},
        }
        try:
            self._client.update_item(**self._where, **update)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True

    # Calls

    def _start(self, *, retry: bool) -> Call:
        make = partial(self._recorder.start, *self._ids, retry=retry)
        return Call(f"start{', retry' if retry else ''}", make, lambda job, now: job.start(now, retry=retry))

    def _report(self, attempt: int, items: int | None = None) -> Call:
        items = self._chance.randint(0, 3) if items is None else items
        make = partial(self._recorder.report, *self._ids, items, attempt=attempt)
        return Call(f"report {items} by {attempt}", make, lambda job, now: job.report(now, items, attempt))

    def _complete(self, items: int | None = None) -> Call:
        items = self._chance.randint(0, 3) if items is None else items
        make = partial(self._recorder.complete, *self._ids, items)
        return Call(f"complete {items}", make, lambda job, now: job.complete(now, items))

    def _fail(self, attempt: int | None, failure: tuple[str, str] | None = None, items: int | None = None) -> Call:
        failure = failure or (self._chance.choice(["A", "B", "WORKER_LOST"]), "why")
        items = self._chance.randint(0, 1) if items is None else items
        make = partial(self._recorder.fail, *self._ids, *failure, items_extracted=items, attempt=attempt)
        text = f"fail {failure[0]} {items} by {attempt or 'nobody'}"
        return Call(text, make, lambda job, now: job.fail(now, failure, items, attempt))


def _time(number: int) -> str:
    return timestamp(datetime.fromtimestamp(number, UTC))


def _maybe_time(number: int | None) -> str | None:
    return None if number is None else _time(number)


def _number(time: str | None) -> int | None:
    return None if time is None else int(datetime.fromisoformat(time).timestamp())
