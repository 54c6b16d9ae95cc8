"""The progress and revision functions as `sam build` made them, under AWS's own runtime: no other code or packages.

Only these tests show an import that the layer lacks, the runtime's own JSON, its limit of 6 MB, its timeout, and a cold
start compared with a warm one.
"""

import json
import os
import random
import signal
import string
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.engines.lambda_runtime import RUNTIME, Emulator, emulator
from tests.hostile.misbehaving import Reply
from tests.integration.faulty import serving
from tests.integration.moto_engine import moto_engine
from tests.integration.test_events import EVENTS
from tests.integration.test_operations import CRASH
from tests.integration.test_revision import number, record, revision
from tests.integration.world import Context, World, event, progress_path, unique

pytestmark = pytest.mark.timeout(300)

CANNED = {"JobsTable": "JobsTable", "TokensTable": "TokensTable"}
NOWHERE = "http://127.0.0.1:1"
# The largest response in bytes, from Lambda's own error message.
LIMIT = 6_291_556
JOBS = 24

# A handler that imports the function and returns the file of each module.
MODULES = """
import importlib, sys

def handler(event, context):
    for name in event:
        importlib.import_module(name)
    return sorted(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None))
"""
# The event is a number of bytes; the handler returns a string of that size, including quotes.
LONG = """
def handler(event, context):
    return "x" * (event - 2)
"""


@dataclass(frozen=True)
class BuiltWorld(World):
    """The same tables with the built function."""

    emulator: Emulator | None = None

    def invoke(self, event: object, context: Context | None = None) -> dict[str, Any]:
        """Invoke the function with any JSON. The emulator has the timeout."""
        assert context is None
        assert self.emulator
        answer = self.emulator.invoke(event)
        assert isinstance(answer, dict)
        assert "errorMessage" not in answer, answer
        return answer


@pytest.fixture(scope="module")
def progress(build: Path, world: World, dynamodb_endpoint: str) -> Iterator[BuiltWorld]:
    """The progress function on the tables of these tests."""
    tables = {"JobsTable": world.jobs_table, "TokensTable": world.tokens_table}
    with emulator(build, "ProgressFunction", dynamodb_endpoint, tables) as running:
        yield BuiltWorld(world.dynamodb, world.jobs_table, world.tokens_table, world.tokens, running)


@pytest.mark.parametrize("given", [[{"batch_id": "b"}], "batch_xyz789", 7, None, True, {}])
def test_an_invalid_event_is_a_clean_error(progress: BuiltWorld, given: object) -> None:
    """The answer to any JSON is the envelope, not the runtime's error."""
    error = progress.invoke(given)["error"]
    assert (422, "VALIDATION_ERROR") == (error["status"], error["code"])


def test_invalid_json_does_not_reach_the_function(progress: BuiltWorld) -> None:
    """The runtime refuses it, and the next event is answered."""
    assert progress.emulator
    assert "Runtime.UnmarshalError" == progress.emulator.send(b"{batch_id").json()["errorType"]
    assert "BATCH_NOT_FOUND" == progress.invoke({"batch_id": unique("batch")})["error"]["code"]


@pytest.mark.parametrize(
    ("imports", "botocore"), [((), {"__init__"}), (("batch_progress.recorder",), None)], ids=["alone", "recorder"]
)
@pytest.mark.parametrize("function", ["Progress", "Revision"])
def test_nothing_is_imported_from_elsewhere(
    build: Path, tmp_path: Path, function: str, imports: tuple[str, ...], botocore: set[str] | None
) -> None:
    """Every module is the function's, the layer's, Python's own or the runtime's; botocore is left to the recorder."""
    (tmp_path / "modules.py").write_text(MODULES)
    with emulator(
        build, f"{function}Function", NOWHERE, CANNED, handler="modules.handler", path=(tmp_path,)
    ) as running:
        files = running.invoke([f"functions.{function.lower()}.app", *imports])
    packages = f"{build}/BatchProgressLayer/python/"
    ours = (f"{build}/{function}Function/", packages, f"{sysconfig.get_path('stdlib')}/", str(tmp_path))
    runtime = Path(f"{RUNTIME}/lib/python3.13/site-packages")
    others = [Path(file).relative_to(runtime).with_suffix("") for file in files if not file.startswith(ours)]
    # Allowed: the runtime's own packages, botocore (the last line limits which files), and botocore's dependencies when
    # the recorder is imported.
    allowed = {"awslambdaric", "simplejson", "snapshot_restore_py", "runtime_client", "_virtualenv"}
    allowed |= {"botocore", *(("dateutil", "jmespath", "six") if imports else ())}
    assert set() == {file.parts[0].partition(".")[0] for file in others} - allowed
    if botocore is not None:
        assert botocore == {file.name for file in others if file.parts[0] == "botocore"}


def test_a_warm_start_goes_on_where_the_cold_one_ended(build: Path) -> None:
    """The same process answers, with its cached token."""
    question = json.loads((EVENTS / "bearer.json").read_text())
    with serving() as faulty, emulator(build, "ProgressFunction", faulty.address, CANNED) as running:
        answers = [(running.invoke(question)["statusCode"], running.function_pid()) for _ in range(21)]
        assert [(200, running.function_pid())] * 21 == answers
        assert (1, 21) == (faulty.calls["token"], faulty.calls["first page"])


def test_a_process_that_dies_takes_nothing_with_it(build: Path) -> None:
    """The next event starts a new process and is answered."""
    question = json.loads((EVENTS / "bearer.json").read_text())
    with serving() as faulty, emulator(build, "ProgressFunction", faulty.address, CANNED) as running:
        assert 200 == running.invoke(question)["statusCode"]
        os.kill(running.function_pid(), signal.SIGKILL)
        statuses = [running.invoke(question).get("statusCode") for _ in range(2)]
        assert (200, 2) == (statuses[-1], faulty.calls["token"])


@pytest.mark.parametrize(
    "reply", [Reply(silent=60), Reply(body=b" " * 1_000, pause=0.1, piece=1)], ids=["says nothing", "never finishes"]
)
def test_a_database_that_does_not_answer_in_time_is_a_clean_503(build: Path, reply: Reply) -> None:
    """Within the template's timeout; the next event is answered.

    Silence ends with the read timeouts of three attempts. A body that trickles in ends with the deadline alone.
    """
    question, without_token = (json.loads((EVENTS / name).read_text()) for name in ("bearer.json", "none.json"))
    with serving() as faulty, emulator(build, "ProgressFunction", faulty.address, CANNED) as running:
        # The emulator counts a cold start as part of the first event's time.
        assert 401 == running.invoke(without_token)["statusCode"]
        faulty.forever["token"] = reply
        answer = running.invoke(question)
        assert 503 == answer["statusCode"]
        (wait,) = answer["multiValueHeaders"]["Retry-After"]
        assert 1 <= int(wait) <= 5
        faulty.forget()
        assert 200 == running.invoke(question)["statusCode"]


def test_a_function_that_stands_still_is_timed_out(build: Path) -> None:
    """The runtime ends it at the timeout and starts a new one for the next event."""
    question = json.loads((EVENTS / "none.json").read_text())
    # The emulator counts a cold start as part of the event's time, so the timeout leaves room for a busy machine.
    with emulator(build, "ProgressFunction", NOWHERE, CANNED, timeout=20) as running:
        assert 401 == running.invoke(question)["statusCode"]
        os.kill(running.function_pid(), signal.SIGSTOP)
        assert "Task timed out after 20.00 seconds" in running.send(json.dumps(question).encode()).text
        assert 401 == running.invoke(question)["statusCode"]


def test_the_runtime_holds_to_its_limit(build: Path, tmp_path: Path) -> None:
    """An answer of exactly the limit passes, and one byte more fails. The next tests rely on it."""
    (tmp_path / "long.py").write_text(LONG)
    with emulator(build, "ProgressFunction", NOWHERE, CANNED, handler="long.handler", path=(tmp_path,)) as running:
        assert LIMIT == len(running.send(str(LIMIT).encode()).content)
        refused = running.invoke(LIMIT + 1)
    assert "Function.ResponseSizeTooLarge" == refused["errorType"]


def dense(length: int) -> str:
    """Return text that is no smaller once compressed and base64-encoded."""
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))  # noqa: S311  # no secret


@pytest.fixture(
    scope="module", params=[dense(300_000), '"' * 240_000, "\U0001f600" * 60_000], ids=["dense", "quotes", "emoji"]
)
def large(request: pytest.FixtureRequest, world: World) -> str:
    """A batch of 24 jobs whose answer would exceed the limit."""
    batch_id = world.put_batch(total_urls=JOBS)
    for place in range(JOBS):
        # One at a time: together they exceed the limit of a batch write.
        world.put_job(batch_id, f"job_{place:02}", url=request.param, status="completed", items_extracted=1)
    return batch_id


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_what_is_too_large_ends_early_with_a_cursor(progress: BuiltWorld, large: str, coding: str) -> None:
    """Each page has the counts of the whole batch. Following the cursors returns every job exactly once."""
    query: dict[str, str] = {}
    seen: list[str] = []
    pages = 0
    while pages < JOBS:
        answer = progress.ask(large, query, headers={"Accept-Encoding": coding})
        pages += 1
        assert [JOBS, JOBS, 0, 0, JOBS] == list(answer.data.values())[1:6]
        seen += [job["job_id"] for job in answer.data["jobs"]]
        if not answer.data.get("next_cursor"):
            break
        assert answer.headers["Link"].endswith('>; rel="next"')
        query = {"cursor": answer.data["next_cursor"]}
    assert [f"job_{place:02}" for place in range(JOBS)] == seen
    # Repetitions compress very well.
    assert (pages > 1) == (coding == "identity" or len(set(answer.data["jobs"][0]["url"])) > 1)


def test_a_direct_answer_that_is_too_large_ends_early(progress: BuiltWorld, large: str) -> None:
    """It ends at the same limit and continues with the cursor."""
    page = progress.invoke({"batch_id": large})["data"]
    seen = [job["job_id"] for job in page["jobs"]]
    assert 0 < len(seen) < JOBS
    while page.get("next_cursor"):
        page = progress.invoke({"batch_id": large, "cursor": page["next_cursor"]})["data"]
        assert JOBS == page["completed"]
        seen += [job["job_id"] for job in page["jobs"]]
    assert [f"job_{place:02}" for place in range(JOBS)] == seen


def test_the_revision_function_counts(build: Path, world: World, dynamodb_endpoint: str) -> None:
    """It counts each changed job of a delivery once, reports nothing as failed, and asks for a check of each batch."""
    batch_ids = [world.put_batch() for _ in range(2)]
    records = [record(batch_id, sk) for sk in ("JOB#a", "JOB#b") for batch_id in batch_ids]
    with moto_engine() as address:
        sqs = boto3.client("sqs", endpoint_url=address)
        queue = sqs.create_queue(QueueName=unique("checks"))["QueueUrl"]
        names = {"JobsTable": world.jobs_table, "ChecksQueue": queue}
        with emulator(build, "RevisionFunction", dynamodb_endpoint, names, sqs=address) as running:
            answers = [running.invoke({"Records": records}) for _ in range(3)]
        attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        sqs.close()
    assert [{"batchItemFailures": []}] * 3 == answers
    assert [6, 6] == [revision(world, batch_id) for batch_id in batch_ids]
    waiting = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
    assert 2 == sum(int(attributes[name]) for name in waiting)


def test_the_revision_function_reports_what_it_could_not_count(build: Path) -> None:
    """Without a database the last record of each batch is reported as failed."""
    records = [record(batch_id) for batch_id in ("one", "two", "one")]
    with emulator(build, "RevisionFunction", NOWHERE, CANNED | {"ChecksQueue": f"{NOWHERE}/1/checks"}) as running:
        answer = running.invoke({"Records": records})
    assert [number(records[2]), number(records[1])] == [
        failure["itemIdentifier"] for failure in answer["batchItemFailures"]
    ]


def test_a_setting_that_is_missing_is_an_error_of_ours(build: Path) -> None:
    """Without its tables' names the function answers with the envelope."""
    with emulator(build, "ProgressFunction", NOWHERE, {}) as running:
        answer = running.invoke(event("GET", progress_path("b"), [("X-API-Key", "demo-token")]))
    assert (500, "INTERNAL_ERROR") == (answer["statusCode"], json.loads(answer["body"])["error"]["code"])


@pytest.mark.parametrize(
    ("handler", "error"), [(None, "ConfigurationError"), ("functions.nothing.app.handler", "Runtime.ImportModuleError")]
)
def test_a_crash_leaves_the_line_that_the_runbook_looks_for(build: Path, handler: str | None, error: str) -> None:
    """Lambda's client writes it, with names of its own."""
    with emulator(build, "SupervisorFunction", NOWHERE, {}, handler=handler) as running:
        running.invoke({"Records": []})
        written = running.log.read_text(encoding="utf-8")
    (line,) = (json.loads(one) for one in written.splitlines() if '"errorType"' in one)
    assert CRASH == line.keys()
    assert ("ERROR", error) == (line["level"], line["errorType"])
