"""A Docker for `sam local`, separate from any other on this machine, installed when first used.

`python -m tests.sam_local.docker COMMAND …` starts it in new namespaces, loads the image of tests/sam_local/image.py,
runs the command, stops both, and exits with the command's status. The namespaces have only loopback and Docker's
bridge. The machine's network, mounts and Docker stay untouched. It needs root.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from tests.sam_local import image

BRIDGE: Final = "172.30.77.1"
STARTS_WITHIN: Final = 60.0
# command: Debian's package that contains it
NEEDS: Final = {"dockerd": "docker.io", "busybox": "busybox-static"}
# Folders that the machine's own Docker uses; the test hides them.
OTHERS: Final = ("/run", "/etc/docker")
# `--kill-child`: all processes in the namespaces end with the first one.
UNSHARE: Final = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class DockerFailed(Exception):
    """Docker cannot run here; the message says why."""


def bring() -> None:
    """Install what is missing, and check that namespaces can be made.

    Raises:
        DockerFailed: Not root, or something is missing that cannot be installed.
    """
    if os.geteuid() != 0:
        raise DockerFailed("a Docker of its own needs root")
    if missing := [command for command in NEEDS if shutil.which(command) is None]:
        packages = [NEEDS[command] for command in missing]
        if shutil.which("apt-get") is None:
            raise DockerFailed(f"no {', '.join(missing)} on the path; install: {' '.join(packages)}")
        _run("updating the package lists", "apt-get", "update")
        _run("installing packages", "apt-get", "install", "-y", "--no-install-recommends", *packages)
    _run("making namespaces (an unprivileged container may not)", *UNSHARE, "true")


def _run(step: str, *command: str) -> None:
    # RUNLEVEL=1 keeps Debian's packages from starting a service.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        done = subprocess.run(  # noqa: S603  # the commands above
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise DockerFailed(f"{step} failed: {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise DockerFailed(f"{step} failed: {lines[-1].strip()}")


@contextlib.contextmanager
def dockerd(home: Path) -> Iterator[str]:
    """Run Docker with its data under `home` until the block ends; yield its address.

    Raises:
        DockerFailed: It does not start.
    """
    for folder in filter(os.path.isdir, OTHERS):
        _run("hiding the machine's Docker", "mount", "-t", "tmpfs", "tmpfs", folder)
    _run("starting the loopback interface", "busybox", "ip", "link", "set", "lo", "up")
    address, log = f"unix://{home}/socket", home / "log"
    command = ["dockerd", "--host", address, "--pidfile", f"{home}/pid"]
    command += ["--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--bip", f"{BRIDGE}/24"]
    command += [
        "--ip",
        "127.0.0.1",
        *(f"--{name}=false" for name in ("iptables", "ip6tables", "ip-forward", "ip-masq")),
    ]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as daemon,  # noqa: S603  # the command above
    ):
        try:
            _wait(daemon, home / "socket", log)
            yield address
        finally:
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=20)
            daemon.kill()


def _wait(daemon: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    """Wait until it answers."""
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        if socket.exists():
            with contextlib.suppress(httpx.TransportError), _client(socket) as client:
                client.get("/_ping").raise_for_status()
                return
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise DockerFailed(f"dockerd does not start: {lines[-1]}")
        time.sleep(0.1)


def _client(socket: Path) -> httpx.Client:
    return httpx.Client(base_url="http://docker", transport=httpx.HTTPTransport(uds=str(socket)), timeout=STARTS_WITHIN)


def load(socket: Path) -> None:
    """Load the image that replaces AWS's, under the same name.

    Raises:
        DockerFailed: Docker refuses it.
    """
    with tempfile.TemporaryFile() as archive, _client(socket) as client:
        image.write(archive)
        archive.seek(0)
        source = {"fromSrc": "-", "repo": image.REPOSITORY, "tag": image.TAG, "changes": image.CONFIGURATION}
        answer = client.post("/images/create", params=source, content=archive)
        # Errors during the load are in the body of a 200.
        if answer.is_error or "error" in answer.text:
            raise DockerFailed(f"loading the image failed: {answer.text.strip()}")


def inside(home: Path, command: list[str]) -> int:
    """In the new namespaces: run a command while Docker runs; return its exit status."""
    with dockerd(home) as address:
        load(home / "socket")
        return subprocess.run(command, env=os.environ | {"DOCKER_HOST": address}, check=False).returncode  # noqa: S603  # the user's own


def main() -> int:
    """Run the given command while Docker runs; return its exit status."""
    if sys.argv[1:2] == ["--inside"]:
        return inside(Path(sys.argv[2]), sys.argv[3:])
    bring()
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="docker-", dir="/tmp") as home:  # its own folder
        again = [*UNSHARE, sys.executable, "-m", "tests.sam_local.docker", "--inside", home, *sys.argv[1:]]
        return subprocess.run(again, check=False).returncode  # noqa: S603  # the same


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DockerFailed as error:
        sys.exit(f"sam-local: {error}")
