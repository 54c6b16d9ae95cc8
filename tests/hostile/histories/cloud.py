"""The functions' environments on one clock: every call to DynamoDB hands over to a scheduler, and may fail.

An invocation is a task, which runs in a greenlet. It pauses before and after each of its calls; the scheduler goes on
with any other. All of it is repeatable: one source of random numbers decides.
"""

import importlib.util
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Final
from unittest import mock

import msgspec
from botocore.exceptions import ClientError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from batch_progress import dynamodb, messages, settings, store
from batch_progress.dynamodb import Reason, RequestFailed, RequestRefused, RetryQuota
from batch_progress.supervisor import Supervisor
from functions.progress import app as progress_app
from functions.progress import request_log
from functions.revision import app as revision_app
from functions.supervisor import app as supervisor_app
from tests.hostile.histories.engine import Engine, Refused, Served

JOBS_TABLE: Final = "jobs"
TOKENS_TABLE: Final = "tokens"
QUEUE_URL: Final = "https://sqs.eu-central-1.amazonaws.com/123456789012/checks"
_SETTINGS: Final = {
    "BATCH_PROGRESS_CHECKS_QUEUE_URL": QUEUE_URL,
    "BATCH_PROGRESS_EVENT_BUS": "default",
    "BATCH_PROGRESS_JOBS_TABLE": JOBS_TABLE,
    "BATCH_PROGRESS_TOKENS_TABLE": TOKENS_TABLE,
    "AWS_LAMBDA_FUNCTION_NAME": "histories",
}
# Modules of these packages get the simulated clock.
_PACKAGES: Final = ("batch_progress", "functions", "environment_")
# Lambda's timeouts, in seconds.
TIMEOUT: Final = 10.0
SUPERVISOR_TIMEOUT: Final = 60.0
# Of the queue: the visibility timeout of a message, and how often it is received at most.
VISIBILITY_SECONDS: Final = 360.0
MOST_RECEIVES: Final = 5


class Died(BaseException):
    """The process of a function ends: no handler may catch it."""


@dataclass
class Faults:
    """What may go wrong at a call, each with a probability.

    Attributes:
        death: The process ends before or after the call.
        throttled: DynamoDB throttles an attempt.
        error: DynamoDB answers with a server error, and does nothing.
        lost_request: The request does not arrive in time.
        lost_response: The request is carried out, but the response does not arrive in time.
        refused: EventBridge takes the call but not the event.
    """

    death: float = 0.0
    throttled: float = 0.0
    error: float = 0.0
    lost_request: float = 0.0
    lost_response: float = 0.0
    refused: float = 0.0


@dataclass
class Call:
    """A call of a task.

    Attributes:
        served: What it read or wrote.
        asked: When the task continued after its previous call, or began.
        resumed: When the task continued after this call, in epoch seconds, or ended.
        lost: Whether the task never saw the response.
    """

    served: Served
    asked: float
    resumed: float = float("inf")
    lost: bool = False


@dataclass
class Message:
    """A message of the queue of checks.

    Attributes:
        body: The check.
        visible: From when it can be received, in epoch seconds.
        number: Messages are numbered in the order in which they were sent.
        receives: How often it has been received.
    """

    body: str
    visible: float
    number: int
    receives: int = 0


@dataclass(frozen=True)
class Told:
    """An event that was put on the bus.

    Attributes:
        kind: Its `detail-type`.
        detail: Its `detail`.
        at: When, in epoch seconds.
        task: The invocation that put it.
    """

    kind: str
    detail: dict[str, Any]
    at: float
    task: "Task"


@dataclass
class Task:
    """One invocation.

    Attributes:
        name: For messages.
        offset: The seconds by which its clock is ahead.
        began: When it began, in epoch seconds.
        ended: When it ended, infinity while it runs.
        calls: Its successful calls to DynamoDB.
        faults: The number of failures that were injected.
        died: Whether its process ended.
        result: What it returned.
        error: What it raised.
        wakes: It sleeps until then.
    """

    name: str
    offset: float
    began: float
    ended: float = float("inf")
    calls: list[Call] = field(default_factory=list)
    faults: int = 0
    died: bool = False
    result: Any = None
    error: Exception | None = None
    wakes: float = 0.0
    thread: Any = None

    @property
    def running(self) -> bool:
        return self.ended == float("inf")


class Cloud:
    """One clock, one DynamoDB, and the tasks.

    Attributes:
        random: The source of all that is random.
        now: The true time, in epoch seconds.
        engine: The tables.
        faults: What may go wrong.
        tasks: The running ones.
        queue: The messages that have not been deleted.
        bus: The events that were put.
        tracebacks: Of what the functions logged as errors.
        watch: Is called after each call's effect.
    """

    def __init__(self, seed: str, now: float) -> None:
        self.random = random.Random(seed)
        self.now = now
        self.began = now
        self.engine = Engine(lambda: self.now, self.random)
        self.engine.create_table(JOBS_TABLE, "batch_id", "sk")
        self.engine.create_table(TOKENS_TABLE, "token_hash")
        self.faults = Faults()
        self.latency = 0.005
        self.tasks: list[Task] = []
        self.queue: list[Message] = []
        self.bus: list[Told] = []
        self.tracebacks: list[str] = []
        self.sent = 0
        self.watch: Callable[[Task, Served], None] = lambda _task, _served: None
        self._scheduler = getcurrent()
        self._current: Task | None = None

    # The clock

    def time(self) -> float:
        """Return what the current task's clock shows."""
        return self.now + (self._current.offset if self._current else 0.0)

    def monotonic(self) -> float:
        """Return seconds that no step of a clock changes."""
        return self.now - self.began + 1_000.0

    def sleep(self, seconds: float) -> None:
        """Pause the current task."""
        assert self._current is not None
        self._current.wakes = self.now + seconds
        self.pause()

    # Tasks

    def start(self, name: str, function: Callable[[], Any], offset: float = 0.0) -> Task:
        """Make a task that will call `function`."""
        task = Task(name, offset, self.now)

        def run() -> None:
            try:
                task.result = function()
            except Died:
                task.died = True
            except Exception as error:  # noqa: BLE001  # the oracle judges it
                task.error = error
            task.ended = self.now
            for call in task.calls:
                call.resumed = min(call.resumed, self.now)

        task.thread = greenlet(run, self._scheduler)
        self.tasks.append(task)
        return task

    def step(self, task: Task) -> None:
        """Let a task run until its next pause."""
        self.now = max(self.now, task.wakes) + self.random.expovariate(1 / self.latency)
        self._current = task
        try:
            task.thread.switch()
        finally:
            self._current = None
        if not task.running:
            self.tasks.remove(task)

    def run(self, task: Task) -> Task:
        """Let a task run to its end, alone."""
        while task.running:
            self.step(task)
        return task

    def pause(self) -> None:
        """Hand over to the scheduler; the task may die here."""
        task = self._current
        assert task is not None
        self._scheduler.switch()
        if self.random.random() < self.faults.death:
            task.faults += 1
            raise Died

    # DynamoDB

    def call(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out a call of the current task.

        Raises:
            Refused: DynamoDB refuses the request.
            RequestFailed: A failure was injected.
        """
        task = self._current
        assert task is not None
        self.pause()
        self._fail_before(task)
        response, served = self.engine.call(operation, arguments)
        self.watch(task, served)
        call = Call(served, max([before.resumed for before in task.calls if not before.lost], default=task.began))
        task.calls.append(call)
        self.pause()
        call.resumed = self.now
        if self.random.random() < self.faults.lost_response:
            task.faults += 1
            call.lost = True
            raise RequestFailed(Reason.SILENT, "TimeoutError")
        return response

    def other(self, operation: str, effect: Callable[[Task], dict[str, Any]]) -> dict[str, Any]:
        """Carry out a call of the current task to another service.

        Raises:
            ClientError: It is throttled, or fails inside.
            ReadTimeoutError: Its response does not arrive.
        """
        task = self._current
        assert task is not None
        self.pause()
        try:
            self._fail_before(task)
        except RequestFailed as error:
            if error.status is None:
                raise ReadTimeoutError(endpoint_url="") from error
            raise ClientError({"Error": {"Code": error.code}}, operation) from error
        response = effect(task)
        self.pause()
        if self.random.random() < self.faults.lost_response:
            task.faults += 1
            raise ReadTimeoutError(endpoint_url="")
        return response

    def send(self, body: str, delay: float) -> None:
        """Put a message into the queue."""
        self.sent += 1
        self.queue.append(Message(body, self.now + delay, self.sent))

    def _fail_before(self, task: Task) -> None:
        chance = self.random.random()
        for probability, failure in (
            (self.faults.throttled, RequestFailed(Reason.THROTTLED, "ThrottlingException", 400)),
            (self.faults.error, RequestFailed(Reason.SERVER_ERROR, "InternalServerError", 500)),
            (self.faults.lost_request, RequestFailed(Reason.SILENT, "TimeoutError")),
        ):
            if chance < probability:
                task.faults += 1
                raise failure
            chance -= probability


class Line(dynamodb.Client):
    """The project's client with its retries and its decoding; only the connection is replaced."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._quota = RetryQuota()
        self._idle = []

    def _attempt(self, operation: str, body: bytes, until: float) -> bytes:
        del until  # a simulated call takes no longer
        try:
            return msgspec.json.encode(self._cloud.call(operation, msgspec.json.decode(body)))
        except Refused as error:
            raise RequestRefused(Reason.REFUSED, error.code, 400, error.message) from error


class Services:
    """botocore's clients of the queue and of the bus."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def send_message(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # SQS's
        """Send a message."""
        assert arguments["QueueUrl"] == QUEUE_URL
        assert 0 <= arguments["DelaySeconds"] <= 900

        def sent(_task: Task) -> dict[str, Any]:
            self._cloud.send(arguments["MessageBody"], arguments["DelaySeconds"])
            return {}

        return self._cloud.other("SendMessage", sent)

    def put_events(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  # EventBridge's
        """Put one event."""
        [entry] = arguments["Entries"]

        def put(task: Task) -> dict[str, Any]:
            if self._cloud.random.random() < self._cloud.faults.refused:
                task.faults += 1
                refusal = {"ErrorCode": "InternalFailure", "ErrorMessage": "try again"}
                return {"FailedEntryCount": 1, "Entries": [refusal]}
            detail = msgspec.json.decode(entry["Detail"])
            self._cloud.bus.append(Told(entry["DetailType"], detail, self._cloud.now, task))
            return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}

        return self._cloud.other("PutEvents", put)


class Context:
    """Lambda's context."""

    function_name = "histories"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:histories"
    aws_request_id = "00000000-0000-4000-8000-000000000000"
    tenant_id = None

    def __init__(self, cloud: Cloud, timeout: float = TIMEOUT) -> None:
        self._cloud = cloud
        self._ends = cloud.monotonic() + timeout

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the timeout, 0 after it."""
        return max(0, int((self._ends - self._cloud.monotonic()) * 1_000))


class Environment:
    """An execution environment of the progress function: it has one invocation at a time.

    Attributes:
        offset: The seconds by which its clock is ahead.
        task: Its last invocation.
    """

    def __init__(self, cloud: Cloud, module: ModuleType) -> None:
        self._cloud = cloud
        self._module = module
        self.offset = 0.0
        self.task: Task | None = None
        self.restart()

    @property
    def busy(self) -> bool:
        return self.task is not None and self.task.running

    def restart(self) -> None:
        """Forget everything, as a new process does."""
        forget(self._module)

    def invoke(self, event: object, name: str) -> Task:
        """Start an invocation. After a death the environment is a new one."""
        if self.task is not None and self.task.died:
            self.restart()
        context = Context(self._cloud)
        self.task = self._cloud.start(name, lambda: self._module.handler(event, context), self.offset)
        return self.task


def forget(module: ModuleType) -> None:
    """Clear the caches that a module defines."""
    for value in vars(module).values():
        if hasattr(value, "cache_clear") and value.__module__ == module.__name__:
            value.cache_clear()


def _copy(number: int) -> ModuleType:
    """Import the progress function's handler once more: an environment has its own global state."""
    name = f"environment_{number}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, progress_app.__file__)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


# The factories of the modules as they are when no test has replaced them.
_FACTORIES: Final = [
    (module, name, value)
    for module in (revision_app, supervisor_app)
    for name, value in vars(module).items()
    if hasattr(value, "cache_clear") and value.__module__ == module.__name__
]


def _silence(cloud: Cloud, stack: ExitStack, module: Any) -> None:  # noqa: ANN401  # a module with a logger
    """Write no log lines, but keep tracebacks."""

    def silent(*_args: object, **_kwargs: object) -> None:
        return

    def failed(*args: object, **_kwargs: object) -> None:
        cloud.tracebacks.append("\n".join([*map(str, args), traceback.format_exc()]))

    stack.enter_context(mock.patch.object(request_log, "print", silent, create=True))
    for level, log in {"info": silent, "warning": silent, "error": failed, "exception": failed}.items():
        stack.enter_context(mock.patch.object(module.logger, level, log))


@contextmanager
def environments(cloud: Cloud, count: int, first_page: int) -> Iterator[list[Environment]]:
    """Give the project's code the simulated clock and DynamoDB; yield environments of the progress function.

    Args:
        cloud: The cloud that they are in.
        count: How many environments.
        first_page: The largest number of items on the first page of a batch.
    """
    modules = [_copy(number) for number in range(count)]
    clock = SimpleNamespace(
        time=cloud.time,
        monotonic=cloud.monotonic,
        sleep=cloud.sleep,
        perf_counter=time.perf_counter,
        strftime=time.strftime,
        gmtime=time.gmtime,
    )
    fakes: dict[object, object] = {
        time: clock,
        time.time: cloud.time,
        time.monotonic: cloud.monotonic,
        time.sleep: cloud.sleep,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, _SETTINGS))
        stack.enter_context(mock.patch.object(dynamodb, "client", partial(Line, cloud)))
        # The default was evaluated when the class was defined.
        stack.enter_context(mock.patch.object(Supervisor.__init__, "__defaults__", (cloud.time,)))
        stack.enter_context(mock.patch.object(store, "FIRST_PAGE_ITEMS", first_page))
        for name, module in list(sys.modules.items()):
            if name.startswith(_PACKAGES):
                for attribute, value in list(vars(module).items()):
                    if attribute in ("time", "monotonic", "sleep") and value in fakes:
                        stack.enter_context(mock.patch.object(module, attribute, fakes[value]))
        stack.enter_context(mock.patch.object(messages, "_client", return_value=Services(cloud)))
        for module, name, factory in _FACTORIES:
            stack.enter_context(mock.patch.object(module, name, factory))
        for module in (*modules, revision_app, supervisor_app):
            _silence(cloud, stack, module)
        for clear in (partial(forget, module) for module in (settings, revision_app, supervisor_app)):
            clear()
            stack.callback(clear)
        before = random.getstate()
        stack.callback(random.setstate, before)
        random.seed(cloud.random.random())  # the jitter of the project's code
        yield [Environment(cloud, module) for module in modules]
