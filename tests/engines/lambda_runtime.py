"""A built function under AWS's runtime interface emulator and runtime client.

The emulator comes with the SAM command line. `.venv-runtime` contains what Lambda's runtime contains: its client, boto3
and urllib3. Every other package that a function imports must come from the layer.
"""

import contextlib
import json
import os
import platform
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from local_cloud.template import read
from tests.engines.starting import EngineFailed, free_ports, until_it_listens

ROOT: Final = Path(__file__).resolve().parents[2]
EMULATORS: Final = ROOT / ".venv-sam/lib/python3.13/site-packages/samcli/local/rapid"
ARCHITECTURE: Final = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
RUNTIME: Final = ROOT / ".venv-runtime"
ANSWERS_WITHIN: Final = 120.0
# Lambda's environment variables, and those that the client reads.
RUNTIME_VARIABLES: Final = {
    "PATH": "/usr/bin:/bin",
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
    "AWS_LAMBDA_FUNCTION_VERSION": "1",
    "AWS_LAMBDA_LOG_FORMAT": "JSON",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "fake",
    "AWS_SECRET_ACCESS_KEY": "fake",
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
}


@dataclass(frozen=True)
class Emulator:
    """One function's emulator.

    Attributes:
        address: Its URL.
        pid: Its process id.
        log: The output of the function and of the emulator.
    """

    address: str
    pid: int
    log: Path

    def invoke(self, event: object) -> Any:  # noqa: ANN401  # whatever JSON comes back
        """Send an event and return the answer. The runtime's own errors have an `errorMessage`."""
        return self.send(json.dumps(event).encode()).json()

    def send(self, body: bytes) -> httpx.Response:
        """Send an event as bytes."""
        url = f"{self.address}/2015-03-31/functions/function/invocations"
        return httpx.post(url, content=body, timeout=ANSWERS_WITHIN)

    def function_pid(self) -> int:
        """Return the process of the function, which starts with the first event."""
        # Any of the emulator's threads may be its parent.
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        (pid,) = (pid for thread in threads for pid in (thread / "children").read_text().split())
        return int(pid)


@contextlib.contextmanager
def emulator(  # noqa: PLR0913  # each has a default but the first four
    build: Path,
    function: str,
    dynamodb: str,
    tables: Mapping[str, str],
    *,
    timeout: int | None = None,
    handler: str | None = None,
    path: tuple[Path, ...] = (),
    sqs: str | None = None,
) -> Iterator[Emulator]:
    """Run a function of the stack until the block ends.

    Args:
        build: The folder of `sam build`.
        function: The function's logical id.
        dynamodb: The address of the engine.
        tables: The name of each table there, by its logical id, and the URLs of queues.
        timeout: Seconds; the template's by default.
        handler: The handler; the template's by default.
        path: Further folders to import from, after the function's and the layer's.
        sqs: The address of the queues' engine.

    Raises:
        EngineFailed: Something is not installed, or does not start.
    """
    program, python = EMULATORS / f"aws-lambda-rie-{ARCHITECTURE}", RUNTIME / "bin/python"
    for needed in (program, python):
        if not needed.exists():
            raise EngineFailed(f"no {needed.relative_to(ROOT)}; run: python3 scripts/setup.py sam runtime")
    template = read(build / "template.yaml")
    properties = template["Resources"][function]["Properties"]
    task_root = build / function
    port, api_port = free_ports(2)
    command = [str(program), "--log-level", "error"]
    command += ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{api_port}"]
    command += [str(python), "-m", "awslambdaric", handler or properties["Handler"]]
    environment = RUNTIME_VARIABLES | {
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout or properties["Timeout"]),
        "LAMBDA_TASK_ROOT": str(task_root),
        "PYTHONPATH": os.pathsep.join(map(str, (task_root, build / "BatchProgressLayer/python", *path))),
        **_variables(template, function, tables),
        # These must be last, because the template sets the variables to an empty string.
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb,
        **({} if sqs is None else {"AWS_ENDPOINT_URL_SQS": sqs}),
    }
    with (
        tempfile.NamedTemporaryFile() as log,
        # A process group, so that the function ends with its emulator.
        subprocess.Popen(  # noqa: S603  # the command above
            command, cwd=task_root, env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0
        ) as process,
    ):
        try:
            until_it_listens("the runtime interface emulator", process, port, Path(log.name))
            yield Emulator(f"http://127.0.0.1:{port}", process.pid, Path(log.name))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _variables(template: dict[str, Any], function: str, tables: Mapping[str, str]) -> dict[str, str]:
    """Return a function's environment with the template's default parameters, without conditional values."""
    defaults = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()}
    known = {**defaults, **tables}
    declared = template["Resources"][function]["Properties"]["Environment"]["Variables"]
    plain = {}
    for name, value in declared.items():
        # By default the tables are the stack's own.
        one = value["Fn::If"][1] if isinstance(value, dict) and "Fn::If" in value else value
        plain[name] = one if isinstance(one, str) else known.get(one.get("Ref"))
    return {name: value for name, value in plain.items() if value is not None}
