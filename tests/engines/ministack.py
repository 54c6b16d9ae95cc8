"""An AWS emulator on loopback, and the SAM command line that deploys to it.

ministack is installed into an environment of its own, `.venv-ministack`. It loses all data when it ends.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3

from tests.engines.starting import EngineFailed, free_ports, until_it_listens

ROOT: Final = Path(__file__).resolve().parents[2]
MINISTACK: Final = ROOT / ".venv-ministack/bin/ministack"
SAM: Final = ROOT / ".venv-sam/bin/sam"
# Each command of the AWS command line takes a second, and several on a busy machine.
SHELL_SECONDS: Final = 240
REGION: Final = "eu-central-1"


@dataclass(frozen=True)
class Aws:
    """An empty AWS account.

    Attributes:
        port: The port of all services.
    """

    port: int

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    def client(self, service: str) -> Any:  # noqa: ANN401  # boto3 ships no types
        """Return a client of a service."""
        return boto3.client(
            service, REGION, endpoint_url=self.address, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def sam(self, *arguments: str) -> str:
        """Run a SAM command in this account; return what it printed.

        Raises:
            EngineFailed: It is not installed, or it failed; the message has its output.
        """
        if not SAM.exists():
            raise EngineFailed(f"no {SAM.relative_to(ROOT)}; run: python3 scripts/setup.py sam")
        done = subprocess.run(  # noqa: S603  # the command above
            [str(SAM), *arguments],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise EngineFailed(f"sam {arguments[0]} failed:\n{done.stdout}")
        return done.stdout

    def shell(self, commands: str) -> str:
        """Run shell commands that call AWS's own command line in this account; return what they printed.

        Raises:
            EngineFailed: They failed; the message has what they wrote.
        """
        environment = self._environment()
        environment["PATH"] = f"{MINISTACK.parent}:{environment['PATH']}"
        # Without the option, the command line sends requests for SQS to an address of its own.
        here = 'aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }\n'
        done = subprocess.run(  # noqa: S603  # the documents' own
            ["/bin/sh", "-euc", here + commands],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SHELL_SECONDS,
        )
        if done.returncode or done.stderr:
            raise EngineFailed(f"{commands}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return _without_aws() | {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PAGER": "",
            "SAM_CLI_TELEMETRY": "0",
        }


@contextlib.contextmanager
def ministack() -> Iterator[Aws]:
    """Run ministack until the block ends.

    Raises:
        EngineFailed: It is not installed, or does not start.
    """
    if not MINISTACK.exists():
        raise EngineFailed(f"no {MINISTACK.relative_to(ROOT)}; run: python3 scripts/setup.py ministack")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as home:
        log = Path(home, "log")
        environment = _without_aws() | {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "localhost",
            "GATEWAY_PORT": str(port),
            "MINISTACK_REGION": REGION,
            "LOG_LEVEL": "WARNING",
            # Each function has only the rights of its role.
            "AUTH": "true",
            # It contains the functions' code, the locks and the data.
            "TMPDIR": home,
            "STATE_DIR": f"{home}/state",
            "S3_DATA_DIR": f"{home}/s3",
        }
        with (
            log.open("wb") as output,
            # A process group, so that the functions end with it.
            subprocess.Popen(  # noqa: S603  # the command above
                [MINISTACK], cwd=home, env=environment, stdout=output, stderr=output, process_group=0
            ) as process,
        ):
            try:
                until_it_listens("ministack", process, port, log)
                yield Aws(port)
            finally:
                # It has no data to save.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _without_aws() -> dict[str, str]:
    """Return this process's environment without variables that name an account or another engine."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BATCH_PROGRESS_"))}
