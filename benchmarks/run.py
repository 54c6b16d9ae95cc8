"""Compare this handler with a straightforward one and with a lower limit, in one run: `make bench`.

The measure is CPU time of the handler's process; DynamoDB is another process. The contenders take turns, each ratio is
computed within a round, and the median over the rounds is reported. The cold start runs what `sam build` produced.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from importlib.metadata import distribution, version
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

from benchmarks import report, workload
from benchmarks.invocation import environment, event
from local_cloud.template import read

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / ".aws-sam" / "bench"
# The packages of Lambda's runtime.
RUNTIME: Final = ROOT / ".venv-runtime/lib/python3.13/site-packages"
ARCH: Final = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
CONTENDERS: Final = ("this", "straightforward", "limit")
# Number of jobs in the batch -> (rounds, answers per round).
WARM: Final = {10: (40, 10), 50: (40, 10), 1_000: (30, 3), 10_000: (17, 1), 50_000: (11, 1)}
SMALL, LARGE = 50, 50_000
COLD_JOBS: Final = 10
COLD_ROUNDS: Final = 11
POLL_ROUNDS: Final = 30
TOKEN_REQUESTS: Final = 500
MEMORY_ROUNDS: Final = 3
# Number of jobs in the batch -> (finished, running, pending jobs) of the forecast that is measured.
FORECASTS: Final = {50: (25, 3, 22), 10_000: (5_000, 25, 5_000)}
# After this time the batch is rebuilt: older jobs would make it look stalled.
FRESH_SECONDS: Final = 15
# The packages of the straightforward handler, copied from this environment.
REQUIREMENTS: Final = (
    *("boto3", "s3transfer", "botocore", "jmespath", "python-dateutil", "six", "urllib3"),
    *(
        "aws-lambda-powertools",
        "pydantic",
        "pydantic-core",
        "annotated-types",
        "typing-extensions",
        "typing-inspection",
    ),
)
GZIP: Final = {"Accept-Encoding": "gzip"}


class Database:
    """The canned DynamoDB process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.dynamodb"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        self._address = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self._made: dict[int, float] = {}
        self.environment = {"PATH": os.environ["PATH"], **environment(f"http://{self._address}")}

    def freshen(self, jobs: int) -> None:
        """Rebuild a batch unless its jobs are recent."""
        if time.monotonic() - self._made.get(jobs, -FRESH_SECONDS) >= FRESH_SECONDS:
            self._get(f"/refresh/{jobs}")
            self._made[jobs] = time.monotonic()

    def asked(self) -> dict[str, int]:
        """Return the counts of calls since the last call of this method."""
        counts: dict[str, int] = self._get("/asked")
        return counts

    def _get(self, path: str) -> Any:  # noqa: ANN401  # any JSON
        connection = HTTPConnection(self._address)
        connection.request("GET", path)
        told = json.loads(connection.getresponse().read())
        connection.close()
        return told

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def allocator() -> dict[str, str]:
    """Return the settings of glibc's allocator that the template gives the function."""
    variables: dict[str, str] = read()["Resources"]["ProgressFunction"]["Properties"]["Environment"]["Variables"]
    return {name: value for name, value in variables.items() if name.startswith("MALLOC_")}


class Contender:
    """The process of a contender; a context manager that ends it."""

    def __init__(self, name: str, database: Database) -> None:
        command = [sys.executable, "-m", "benchmarks.contender", name]
        variables = database.environment | (allocator() if name == "this" else {})
        self._process = subprocess.Popen(  # noqa: S603  # our own
            command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.communicate()

    def ask(self, jobs: int, **command: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Ask for the batch with this number of jobs; see `contender.py`."""
        return self.tell(batch_id=workload.batch_id(jobs), **command)

    def tell(self, **command: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Send a command; return its result."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe
        assert self._process.stdout is not None  # noqa: S101  # a pipe
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def database() -> Iterator[Database]:
    """Run the canned DynamoDB while the block runs."""
    running = Database()
    try:
        yield running
    finally:
        running.end()


def say(what: str) -> None:
    """Report progress on stderr."""
    print(what, file=sys.stderr, flush=True)


def milliseconds(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return round(median(seconds) * 1_000, 4)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return round(median(one / other for one, other in zip(ours, theirs, strict=True)), 4)


def agree(contenders: dict[str, Contender], jobs: int) -> dict[str, Any]:
    """Check that all contenders give the same answer; return how many jobs it lists.

    Raises:
        SystemExit: The answers differ.
    """
    bodies = {}
    for name, contender in contenders.items():
        told = contender.ask(jobs, show=True)
        if told["status"] != 200:  # noqa: PLR2004  # HTTP's OK
            sys.exit(f"bench: {name} answered {told['status']}: {told['body'][:300]}")
        bodies[name] = json.loads(told["body"])["data"]
    listed = len(bodies["this"]["jobs"])
    for name, body in bodies.items():
        body["jobs"] = body["jobs"][:listed]
        for own in ("estimated_completion", "next_cursor"):
            body.pop(own, None)
        if body != bodies["this"]:
            sys.exit(f"bench: {name} gives another answer than this handler for {jobs} jobs")
    return {"jobs_listed": listed}


def warm(database: Database, contenders: dict[str, Contender], jobs: int) -> dict[str, Any]:
    """Measure answers from warm processes."""
    rounds, repeat = WARM[jobs]
    database.freshen(jobs)
    result = agree(contenders, jobs)
    database.asked()
    answers = {name: contender.ask(jobs) for name, contender in contenders.items() if name != "limit"}
    compressed = contenders["this"].ask(jobs, headers=GZIP)
    database.asked()
    contenders["this"].ask(jobs)
    asked = database.asked()
    seconds: dict[str, list[float]] = {name: [] for name in (*contenders, "gzip")}
    orders = cycle([CONTENDERS[turn:] + CONTENDERS[:turn] for turn in range(len(CONTENDERS))])
    for order in islice(orders, rounds):
        database.freshen(jobs)
        for name in order:
            seconds[name].append(contenders[name].ask(jobs, repeat=repeat)["seconds"])
    for _ in range(rounds // 3):
        seconds["gzip"].append(contenders["this"].ask(jobs, repeat=repeat, headers=GZIP)["seconds"])
    return result | {
        **{f"{name}_ms": milliseconds(each) for name, each in seconds.items()},
        "to_straightforward": ratio(seconds["this"], seconds["straightforward"]),
        "to_limit": ratio(seconds["this"], seconds["limit"]),
        "bytes": answers["this"]["bytes"],
        "gzip_bytes": compressed["bytes"],
        "queries": asked["Query jobs"],
        "dynamodb_bytes": asked["jobs bytes"],
    }


def flat(database: Database, this: Contender) -> float:
    """Return CPU per job of the largest batch, divided by CPU per job of one with 1,000 jobs."""
    per_job: dict[int, list[float]] = {1_000: [], LARGE: []}
    for _ in range(WARM[LARGE][0]):
        for jobs, each in per_job.items():
            database.freshen(jobs)
            each.append(this.ask(jobs, repeat=LARGE // jobs // 5 or 1)["seconds"] / jobs)
    return ratio(per_job[LARGE], per_job[1_000])


def unchanged(database: Database, this: Contender) -> dict[str, Any]:
    """Measure polls whose ETag matches."""
    seconds: dict[int, list[float]] = {SMALL: [], LARGE: []}
    held: dict[int, str] = {}
    asked: dict[str, int] = {}
    for turn in range(POLL_ROUNDS):
        for jobs, each in seconds.items():
            if turn % 10 == 0:
                database.freshen(jobs)
                held[jobs] = this.ask(jobs, show=True)["headers"]["ETag"][0]
            database.asked()
            told = this.ask(jobs, headers={"If-None-Match": held[jobs]}, repeat=10)
            if told["status"] != 304:  # noqa: PLR2004  # HTTP's Not Modified
                sys.exit(f"bench: an unchanged poll was answered {told['status']}")
            asked = database.asked()
            each.append(told["seconds"])
    return {
        "small_ms": milliseconds(seconds[SMALL]),
        "large_ms": milliseconds(seconds[LARGE]),
        "large_to_small": ratio(seconds[LARGE], seconds[SMALL]),
        "reads": (asked.get("GetItem jobs", 0) + asked.get("Query jobs", 0)) / 10,
        "jobs_pages": asked.get("Query jobs", 0),
        "dynamodb_bytes": asked["jobs bytes"] // 10,
    }


def kept(database: Database, this: Contender) -> dict[str, Any]:
    """Measure polls with `limit=0` that get the kept count of a large batch, beside unchanged polls of it."""
    seconds: dict[str, list[float]] = {"kept": [], "unchanged": []}
    asked: dict[str, int] = {}
    query = {"limit": "0", "include": "summary,estimate"}
    for turn in range(POLL_ROUNDS):
        if turn % 10 == 0:
            database.freshen(LARGE)
            held = this.ask(LARGE, show=True, query=query)["headers"]["ETag"][0]
        seconds["unchanged"].append(this.ask(LARGE, headers={"If-None-Match": held}, query=query, repeat=10)["seconds"])
        database.asked()
        seconds["kept"].append(this.ask(LARGE, query=query, repeat=10)["seconds"])
        asked = database.asked()
    return {
        "ms": milliseconds(seconds["kept"]),
        "unchanged_ms": milliseconds(seconds["unchanged"]),
        "to_unchanged": ratio(seconds["kept"], seconds["unchanged"]),
        "reads": (asked.get("GetItem jobs", 0) + asked.get("Query jobs", 0)) / 10,
    }


def token(database: Database) -> dict[str, Any]:
    """Count look-ups of one token in a warm environment."""
    with Contender("this", database) as this:
        database.freshen(COLD_JOBS)
        database.asked()
        began = time.monotonic()
        this.ask(COLD_JOBS, repeat=TOKEN_REQUESTS)
        lookups = database.asked().get("GetItem tokens", 0)
        return {"requests": TOKEN_REQUESTS, "seconds": round(time.monotonic() - began, 1), "lookups": lookups}


def memory(database: Database) -> dict[str, Any]:
    """Measure how much a large answer adds to the peak memory of a fresh process."""
    growth: dict[str, list[float]] = {"this": [], "straightforward": []}
    for _ in range(MEMORY_ROUNDS):
        database.freshen(COLD_JOBS)
        database.freshen(LARGE)
        for name, each in growth.items():
            with Contender(name, database) as contender:
                before = contender.ask(COLD_JOBS, repeat=3)["peak_bytes"]
                each.append((contender.ask(LARGE)["peak_bytes"] - before) / 1e6)
    return {
        "this_mb": round(median(growth["this"]), 1),
        "straightforward_mb": round(median(growth["straightforward"]), 1),
        "to_straightforward": ratio(growth["this"], growth["straightforward"]),
    }


def forecasts(this: Contender, straightforward_ms: dict[int, float]) -> dict[str, Any]:
    """Measure the forecast alone, relative to the whole answer of the straightforward handler."""
    result = {}
    for jobs, shape in FORECASTS.items():
        ms = milliseconds([this.tell(jobs=shape, repeat=20)["seconds"] for _ in range(10)])
        result[str(jobs)] = {"jobs": shape, "ms": ms, "share": round(ms / straightforward_ms[jobs], 4)}
    return result


def built() -> list[Path]:
    """Build the stack for this machine; return the folders on Lambda's Python path.

    Raises:
        SystemExit: The build failed.
    """
    to = WORK / "build"
    variables = {name: value for name, value in os.environ.items() if name not in {"ARCH", "MAKEFLAGS", "MFLAGS"}}
    variables |= {"SAM_CLI_TELEMETRY": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    sam = str(ROOT / ".venv-sam/bin/sam")
    command = [sam, "build", "--build-dir", str(to), "--parameter-overrides", f"Arch={ARCH}"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"bench: sam build failed\n{done.stderr}")
    return [to / "ProgressFunction", to / "BatchProgressLayer" / "python", RUNTIME]


def straightforward_built(*, compiled: bool) -> list[Path]:
    """Copy the straightforward handler and its packages into a folder, sources only, as `sam build` does."""
    to = WORK / ("straightforward-compiled" if compiled else "straightforward")
    shutil.rmtree(to, ignore_errors=True)
    for file in chain.from_iterable(distribution(name).files or () for name in REQUIREMENTS):
        if ".." not in file.parts and file.suffix != ".pyc":
            (to / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), to / file)
    shutil.copy(ROOT / "benchmarks" / "straightforward.py", to)
    if compiled:
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(to)]
        subprocess.run(command, check=True)  # noqa: S603  # our own
    return [to]


def cold(database: Database) -> dict[str, Any]:
    """Measure the CPU time of new processes from start to first answer."""
    started = {
        "this": ("functions.progress.app", built()),
        "compiled": ("straightforward", straightforward_built(compiled=True)),
        "as_built": ("straightforward", straightforward_built(compiled=False)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in started}
    # The first round only fills the disk cache.
    for turn in range(COLD_ROUNDS + 1):
        database.freshen(COLD_JOBS)
        for name, (module, path) in started.items():
            took = _cold(module, path, database, allocator() if name == "this" else {})
            if turn:
                seconds[name].append(took)
    return {
        **{f"{name}_ms": milliseconds(each) for name, each in seconds.items()},
        "to_compiled": ratio(seconds["this"], seconds["compiled"]),
        "to_as_built": ratio(seconds["this"], seconds["as_built"]),
    }


def _cold(module: str, path: list[Path], database: Database, settings: dict[str, str]) -> float:
    """Return the CPU seconds, user and system, of one process that has only `path` on its Python path."""
    variables = database.environment | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        # Lambda's code folders are read-only.
        "PYTHONDONTWRITEBYTECODE": "1",
        **settings,
    }
    interpreter = os.path.realpath(sys.executable)
    script = str(ROOT / "benchmarks" / "cold_start.py")
    command = [interpreter, "-S", "-s", "-P", script, module]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as asked:
        json.dump(event(workload.batch_id(COLD_JOBS), {}), asked)
        asked.seek(0)
        process = subprocess.Popen(  # noqa: S603  # our own
            command, env=variables, stdin=asked, stdout=subprocess.DEVNULL
        )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: the cold start of {module} failed")
    return used.ru_utime + used.ru_stime


def machine() -> dict[str, Any]:
    """Describe this machine."""
    try:
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        model = None
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": os.process_cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> None:
    """Measure everything, write the results, print the table."""
    began = time.monotonic()
    with database() as running:
        say("cold start (builds first)")
        results: dict[str, Any] = {"cold": cold(running)}
        say("memory")
        results["memory"] = memory(running)
        with (
            Contender("this", running) as this,
            Contender("straightforward", running) as straightforward,
            Contender("limit", running) as limit,
        ):
            contenders = {"this": this, "straightforward": straightforward, "limit": limit}
            results["warm"] = {}
            for jobs in WARM:
                say(f"warm, {jobs:,} jobs")
                results["warm"][str(jobs)] = warm(running, contenders, jobs)
            say("flatness, unchanged polls, forecast, token")
            results["flat"] = flat(running, this)
            results["unchanged"] = unchanged(running, this)
            results["kept"] = kept(running, this)
            whole = {jobs: results["warm"][str(jobs)]["straightforward_ms"] for jobs in FORECASTS}
            results["forecast"] = forecasts(this, whole)
        results["token"] = token(running)
    packages = ("botocore", "boto3", "msgspec", "aws-lambda-powertools", "pydantic", "isal")
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        # The time of every contender includes the runtime's encoding of the proxy response.
        "response_encoder": "json.dumps",
        **results,
    }
    results["targets"] = report.targets(results)
    report.RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(report.text(results))


if __name__ == "__main__":
    main()
