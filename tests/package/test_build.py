"""The build runs with only the packages of Lambda's runtime after it on the path."""

import importlib.util
import inspect
import json
import marshal
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import CodeType
from typing import Any

import aws_lambda_powertools
import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from local_cloud import lambda_context
from local_cloud.template import tables, timeout_seconds

ROOT = Path(__file__).resolve().parents[2]
SAM = ROOT / ".venv-sam/bin/sam"
# The packages of Lambda's runtime, and the oldest dependencies that pyproject.toml allows.
RUNTIME = ROOT / ".venv-runtime/lib/python3.13/site-packages"
OLDEST = ROOT / ".venv-oldest/lib/python3.13/site-packages"
HOST = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = {"arm64": "x86_64", "x86_64": "arm64"}[HOST]
MACHINES = {"arm64": 183, "x86_64": 62}  # ELF's e_machine

# Replaces the runtime. The function logs to stdout, too, so the answer is the last line.
INVOKE = f"""{inspect.getsource(lambda_context)}
import json, sys
from importlib import import_module
handler = import_module(sys.argv[1]).handler
print(json.dumps([handler(json.load(sys.stdin), LambdaContext({timeout_seconds("ProgressFunction")})),
    sorted(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None))]))
"""
# A worker: it calls services through boto3 and prints where its packages are.
WORKER = """
import json, sys
import boto3, botocore, jmespath, urllib3
for service, operation in json.loads(sys.argv[1]).items():
    getattr(boto3.client(service), operation)()
boto3.resource("s3").meta.client.get_paginator("list_objects_v2")
print(json.dumps({module.__name__: module.__file__ for module in (boto3, botocore, jmespath, urllib3)}))
"""
# Records a batch: one job succeeds, one fails, one is cancelled. Calls are repeated, so that conditions fail too.
RECORD = """
import sys
from batch_progress.errors import IllegalTransition
from batch_progress.recorder import BatchRecorder
recorder = BatchRecorder("JobsTable")
batch_id = sys.argv[-1]
for _ in range(2):
    done, failed, cancelled = recorder.create(batch_id, "demo", [f"https://example.com/{url}" for url in range(3)])
assert [1, 2] == [recorder.start(batch_id, done) for _ in range(2)]
recorder.report(batch_id, done, 7, attempt=2)
for _ in range(2):
    recorder.complete(batch_id, done, 25)
try:
    with recorder.job(batch_id, failed):
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert [1, 0] == [recorder.cancel_batch(batch_id) for _ in range(2)]
try:
    recorder.start(batch_id, done)
except IllegalTransition:
    pass
else:
    sys.exit("a completed job starts")
"""
# Prints each name that Powertools' packages export, with where its value is from.
NAMES = """
import json, sys
from contextlib import suppress
from importlib import import_module
names = {}
for package in sys.argv[1:]:
    module = import_module(package)
    for name in module.__all__:
        with suppress(ModuleNotFoundError):
            import_module(f"{package}.{name}")  # a submodule must not take the place of the function of its name
        value = getattr(module, name)
        names[f"{package}.{name}"] = [value.__module__, value.__qualname__]
    exec(f"from {package} import *", {})
    assert set(module.__all__) <= set(dir(module))
print(json.dumps(names))
"""
POWERTOOLS = ("event_handler", "event_handler.openapi", "utilities.data_classes")
# Calls that need no argument, of services that workers use.
CALLS = {
    "dynamodb": "list_tables",
    "events": "list_event_buses",
    "lambda": "list_functions",
    "s3": "list_buckets",
    "secretsmanager": "list_secrets",
    "sns": "list_topics",
    "sqs": "list_queues",
    "ssm": "describe_parameters",
    "sts": "get_caller_identity",
}
# Prints the function versions that SAM publishes for a layer hash and parameters.
VERSIONS = """
import json, os, sys
os.environ["AWS_DEFAULT_REGION"] = "eu-central-1"
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
template = yaml_parse(open("template.yaml", encoding="utf-8").read())
for name in ("ProgressFunction", "RevisionFunction", "SupervisorFunction"):
    template["Resources"][name]["Properties"]["CodeUri"] = "s3://bucket/" + name
template["Resources"]["BatchProgressLayer"]["Properties"]["ContentUri"] = "s3://bucket/" + sys.argv[1]
loader = type("Loader", (), {"load": lambda self: {}})()
resources = transform(template, {"Arch": "arm64"}, loader)["Resources"]
versions = {name: body["Properties"] for name, body in resources.items() if body["Type"] == "AWS::Lambda::Version"}
print(json.dumps(versions))
"""


def sam_build(to: Path, arch: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
    """Build the stack for `arch`; `told` is the caller's ARCH."""
    environment = {name: value for name, value in os.environ.items() if name not in {"ARCH", "MAKEFLAGS", "MFLAGS"}}
    environment |= {"SAM_CLI_TELEMETRY": "0", "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    if told:
        environment["ARCH"] = told
    command = [str(SAM), "build", "--build-dir", str(to), "--parameter-overrides", f"Arch={arch}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stack built for each architecture, without a container."""
    found = {}
    for arch in (HOST, OTHER):
        found[arch] = tmp_path_factory.mktemp(arch) / "build"
        done = sam_build(found[arch], arch)
        assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="session")
def layer(builds: dict[str, Path]) -> Path:
    """The layer's package folder for this machine."""
    return builds[HOST] / "BatchProgressLayer/python"


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A DynamoDB with the template's tables and a small batch of the owner `demo`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    dynamodb = botocore.session.Session().create_client(
        "dynamodb", "eu-central-1", endpoint_url=address, aws_access_key_id="none", aws_secret_access_key="none"
    )
    for table in tables():
        dynamodb.create_table(**table)
    batch, owner = {"S": "batch_xyz789"}, {"S": "demo"}
    items: list[dict[str, Any]] = [{"sk": {"S": "BATCH"}, "owner_id": owner, "total_urls": {"N": "2"}}]
    items += [
        {"sk": {"S": f"JOB#job_{number}"}, "url": {"S": f"https://example.com/{number}"}, "status": {"S": status}}
        for number, status in enumerate(("completed", "pending"), 1)
    ]
    for item in items:
        dynamodb.put_item(TableName="JobsTable", Item={"batch_id": batch, **item})
    for token, expiry in (("demo-token", time.time() + 3600), ("demo-expired-token", time.time() - 3600)):
        digest = {"S": sha256(token.encode()).hexdigest()}
        item = {"token_hash": digest, "owner_id": owner, "expires_at": {"N": str(int(expiry))}}
        dynamodb.put_item(TableName="TokensTable", Item=item)
    yield address
    server.stop()


def invoke(build: Path, engine: str, event: str) -> tuple[dict[str, Any], list[str]]:
    """Send one of `events/` to the function; return the answer and the files of all loaded modules."""
    tables = {"BATCH_PROGRESS_JOBS_TABLE": "JobsTable", "BATCH_PROGRESS_TOKENS_TABLE": "TokensTable"}
    return run("Progress", build, engine, (ROOT / "events" / f"{event}.json").read_text(), tables)


def run(function: str, build: Path, engine: str, event: str, settings: dict[str, str]) -> tuple[Any, list[str]]:
    """Run a function as Lambda does; return the answer and the files of all loaded modules."""
    path = [build / f"{function}Function", build / "BatchProgressLayer/python", RUNTIME]
    output = python(path, INVOKE, f"functions.{function.lower()}.app", engine=engine, settings=settings, text=event)
    answer, modules = json.loads(output.splitlines()[-1])
    return answer, modules


def python(
    path: list[Path],
    program: str,
    *arguments: str,
    engine: str = "http://127.0.0.1:1",
    settings: dict[str, str] | None = None,
    text: str = "",
) -> str:
    """Run a program with nothing but `path` and the standard library to import from; return its output."""
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "AWS_ENDPOINT_URL": engine,
        "AWS_ENDPOINT_URL_DYNAMODB": engine,
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        **(settings or {}),
    }
    assert [] == [folder for folder in path if not folder.exists()], "run make test-package"
    # -S: without this interpreter's site-packages.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-S", "-s", "-P", "-c", program, *arguments],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("event", "status"), [("bearer", 200), ("key", 200), ("none", 401), ("expired", 401), ("unknown_batch", 404)]
)
def test_the_built_function_answers_http(builds: dict[str, Path], engine: str, event: str, status: int) -> None:
    """It imports only from the function and the built layer."""
    answer, _ = invoke(builds[HOST], engine, event)
    assert status == answer["statusCode"]
    assert (status == 200) == json.loads(answer["body"])["success"]


def test_the_built_function_has_the_page(builds: dict[str, Path], engine: str) -> None:
    """The package has the built page, which is not a Python module, and none of its sources."""
    event = json.loads((ROOT / "events/key.json").read_text()) | {"path": "/watch/batch_xyz789"}
    answer, _ = run("Progress", builds[HOST], engine, json.dumps(event), {})
    assert (200, True) == (answer["statusCode"], "<title>Batch progress" in answer["body"])
    package = builds[HOST] / "ProgressFunction"
    assert {"built.html"} == {file.name for file in package.rglob("*") if file.suffix in {".html", ".css", ".js"}}


def test_the_built_function_answers_a_direct_call(builds: dict[str, Path], engine: str) -> None:
    """The answer is a plain object with the whole batch."""
    answer, _ = invoke(builds[HOST], engine, "direct")
    assert (2, 1, 0, 1) == tuple(answer["data"][field] for field in ("total_urls", "completed", "failed", "pending"))


def test_the_built_revision_function_counts(builds: dict[str, Path], engine: str) -> None:
    """It needs only two settings. The batch has an owner, and so a check is asked for: by the runtime's botocore."""
    keys = {"batch_id": {"S": "batch_xyz789"}, "sk": {"S": "JOB#job_1"}}
    event = {
        "Records": [{"eventName": "MODIFY", "dynamodb": {"Keys": keys, "SequenceNumber": "100000000000000000001"}}]
    }
    settings = {"BATCH_PROGRESS_JOBS_TABLE": "JobsTable", **_queue(engine)}
    counts = [run("Revision", builds[HOST], engine, json.dumps(event), settings)[0] for _ in range(2)]
    assert [{"batchItemFailures": []}] * 2 == counts


def _queue(engine: str) -> dict[str, str]:
    """Create a queue of checks, and return the settings for it."""
    sqs = botocore.session.Session().create_client(
        "sqs", "eu-central-1", endpoint_url=engine, aws_access_key_id="none", aws_secret_access_key="none"
    )
    url = sqs.create_queue(QueueName="checks")["QueueUrl"]
    return {
        "BATCH_PROGRESS_CHECKS_QUEUE_URL": url,
        "BATCH_PROGRESS_EVENT_BUS": "default",
        "AWS_ENDPOINT_URL_SQS": engine,
        "AWS_ENDPOINT_URL_EVENTBRIDGE": engine,
    }


def test_the_built_supervisor_checks(builds: dict[str, Path], engine: str) -> None:
    """It reads, counts, and asks for the next check."""
    body = json.dumps({"batch_id": "batch_xyz789", "number": 1})
    event = {"Records": [{"messageId": "1", "body": body}]}
    settings = {"BATCH_PROGRESS_JOBS_TABLE": "JobsTable", **_queue(engine)}
    answer, _ = run("Supervisor", builds[HOST], engine, json.dumps(event), settings)
    assert {"batchItemFailures": []} == answer


@pytest.mark.parametrize("function", ["Progress", "Revision", "Supervisor"])
def test_nothing_comes_from_outside_the_build(builds: dict[str, Path], engine: str, function: str) -> None:
    """Every module is the function's, the layer's or the standard library's, except one of botocore.

    Powertools checks whether botocore exists, to set the user agent of botocore. The function does not use it.
    """
    build = builds[HOST]
    if function == "Progress":
        _, modules = invoke(build, engine, "bearer")
    else:
        settings = {"BATCH_PROGRESS_JOBS_TABLE": "JobsTable", **_queue(engine)}
        _, modules = run(function, build, engine, json.dumps({"Records": []}), settings)
    standard = str(Path(os.__file__).parent)
    outside = [file for file in modules if not file.startswith((str(build), standard)) or "site-packages" in file]
    assert [str(RUNTIME / "botocore/__init__.py")] == outside


def test_a_cold_start_imports_nothing_heavy(builds: dict[str, Path], engine: str) -> None:
    """Each of these modules would take a noticeable part of a cold start."""
    _, files = invoke(builds[HOST], engine, "bearer")
    heavy = ("asyncio", "xml", "jmespath", "pydantic", "urllib3", "jwt", "cryptography", "zipfile")
    assert [] == [file for file in files if {*Path(file).with_suffix("").parts} & {*heavy}]


def test_the_layer_has_no_client(layer: Path) -> None:
    """Nothing in Lambda polls (docs/decisions/0017-client.md)."""
    assert (layer / "batch_progress/recorder.py").exists()
    assert [] == [*layer.glob("httpx*"), *layer.rglob("batch_progress/client*")]


def test_the_layer_hides_nothing_of_the_runtime(layer: Path) -> None:
    """A worker uses the runtime's boto3. Only urllib3 is from the layer (docs/decisions/0007-dependencies.md)."""
    ours, theirs = ({file.name.partition(".")[0] for file in folder.iterdir()} for folder in (layer, RUNTIME))
    assert {"botocore", "boto3", "dateutil", "jmespath", "s3transfer", "six", "urllib3"} <= theirs
    assert {"urllib3"} == ours & theirs - {"__pycache__"}


def test_a_worker_with_the_layer_has_all_services(layer: Path, engine: str) -> None:
    """The path is as in Lambda: the layer's packages before the runtime's."""
    output = python([layer, RUNTIME], WORKER, json.dumps(CALLS), engine=engine)
    found = {name: Path(file).parents[1] for name, file in json.loads(output).items()}
    assert {"boto3": RUNTIME, "botocore": RUNTIME, "jmespath": RUNTIME, "urllib3": layer} == found


@pytest.mark.parametrize("behind", [RUNTIME, OLDEST], ids=["runtime", "oldest"])
def test_the_recorder_writes_with_any_botocore(layer: Path, engine: str, behind: Path) -> None:
    """It works with the runtime's botocore and the layer, and with the oldest versions that pyproject.toml allows."""
    batch_id = f"batch_{behind.parents[2].name.removeprefix('.venv-')}"
    path = [layer, RUNTIME] if behind == RUNTIME else [ROOT / "layers/batch_progress", OLDEST]
    python(path, RECORD, batch_id, engine=engine)

    client = botocore.session.Session().create_client(
        "dynamodb", "eu-central-1", endpoint_url=engine, aws_access_key_id="none", aws_secret_access_key="none"
    )
    jobs = client.query(
        TableName="JobsTable",
        KeyConditionExpression="batch_id = :id AND begins_with(sk, :job)",
        ExpressionAttributeValues={":id": {"S": batch_id}, ":job": {"S": "JOB#"}},
    )["Items"]
    assert [("completed", "25", None), ("failed", "0", "ZeroDivisionError"), ("cancelled", "0", None)] == [
        (job["status"]["S"], job["items_extracted"]["N"], job.get("error_code", {}).get("S")) for job in jobs
    ]


def test_every_name_of_powertools_is_the_same(layer: Path) -> None:
    """Its packages export the same names after lazy.py has changed them."""
    packages = [f"aws_lambda_powertools.{name}" for name in POWERTOOLS]
    lazy, eager = (
        json.loads(python([folder, RUNTIME], NAMES, *packages))
        for folder in (layer, Path(aws_lambda_powertools.__file__).parents[1])
    )
    assert len(eager) > 60
    assert eager == lazy


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("event_handler/__init__.py", "__all__ = [", 'print("imported")\n__all__ = ['),
        ("event_handler/__init__.py", "    CORSConfig,", "    CORSConfig as Other,"),
        ("event_handler/openapi/__init__.py", '    "OpenAPIMerge",', ""),
        ("utilities/data_classes/__init__.py", "from .alb_event import ALBEvent", "import alb_event"),
        ("logging/logger.py", "import jmespath_utils", "import jmespath_utils as jmespath"),
    ],
)
def test_another_powertools_fails_the_build(tmp_path: Path, file: str, before: str, after: str) -> None:
    """The error is one line that names the file. Otherwise the layer could be slow or lack a name."""
    powertools = tmp_path / "aws_lambda_powertools"
    shutil.copytree(Path(aws_lambda_powertools.__file__).parent, powertools)
    text = (powertools / file).read_text()
    assert 1 == text.count(before)
    (powertools / file).write_text(text.replace(before, after))
    command = [sys.executable, str(ROOT / "layers/batch_progress/lazy.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    named = "/".join(("aws_lambda_powertools", *Path(file).parts[-2:]))
    assert (1, f"layer: {named} is not as expected; adapt lazy.py\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("part", "at", "least"),
    [
        ("BatchProgressLayer", "/opt", 250),
        ("ProgressFunction", "/var/task", 12),
        ("RevisionFunction", "/var/task", 3),
        ("SupervisorFunction", "/var/task", 3),
    ],
)
def test_byte_code_is_valid_whatever_a_file_s_time_is(builds: dict[str, Path], part: str, at: str, least: int) -> None:
    """Every module has byte code for this Python.

    Python uses it without checking the source, and its file name is the module's path in Lambda.
    """
    build = builds[HOST] / part
    sources = list(build.rglob("*.py"))
    assert len(sources) >= least
    wrong = []
    for source in sources:
        cached = build / importlib.util.cache_from_source(str(source))
        content = cached.read_bytes() if cached.exists() else b""
        # PEP 552: magic number, flags (1: by hash, not checked), eight bytes of hash, the code.
        valid = content[:4] == importlib.util.MAGIC_NUMBER and content[4:8] == b"\x01\0\0\0"
        code = marshal.loads(content[16:]) if valid else None  # noqa: S302  # made by this build
        if not (isinstance(code, CodeType) and code.co_filename == f"{at}/{source.relative_to(build)}"):
            wrong.append(str(source))
    assert [] == wrong


@pytest.mark.parametrize("arch", MACHINES)
def test_the_layer_is_of_the_architecture_asked_for(builds: dict[str, Path], arch: str) -> None:
    """Every compiled module is for that machine and this Python, whatever machine built it."""
    compiled = list(builds[arch].rglob("*.so"))
    assert compiled
    assert {MACHINES[arch]} == {int.from_bytes(file.read_bytes()[18:20], "little") for file in compiled}
    assert all("cpython-313-" in file.name or "abi3" in file.name for file in compiled)


def test_the_same_files_come_out_of_every_build(builds: dict[str, Path], tmp_path: Path) -> None:
    """SAM uploads by content: a build that differs would publish a needless version."""
    again = tmp_path / "again"
    assert sam_build(again, HOST).returncode == 0

    def contents(build: Path) -> dict[str, str]:
        files = (file for folder in build.iterdir() if folder.is_dir() for file in folder.rglob("*") if file.is_file())
        return {str(file.relative_to(build)): sha256(file.read_bytes()).hexdigest() for file in files}

    assert contents(builds[HOST]) == contents(again)


def test_a_layer_of_another_architecture_than_the_template_s_is_refused(tmp_path: Path) -> None:
    """The error is one line that says how to build it."""
    done = sam_build(tmp_path / "build", HOST, told=OTHER)
    assert done.returncode != 0
    remedy = f"build with: sam build --parameter-overrides Arch={OTHER}"
    assert [f"layer: ARCH is {OTHER} but the template's Arch is {HOST}; {remedy}"] == re.findall(
        "layer: .*", done.stderr
    )


def versions(layer: str) -> dict[str, Any]:
    """Return the versions that SAM publishes for a layer with this content."""
    command = [str(SAM.with_name("python")), "-c", VERSIONS, layer]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    published: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return published


def test_a_change_of_the_layer_alone_publishes_a_new_version() -> None:
    """The layer has the code. Otherwise the alias would stay at the old version."""
    assert versions("one") == versions("one")
    assert versions("one").keys().isdisjoint(versions("two"))
