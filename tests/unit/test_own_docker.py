"""What `make test-sam-local` says in one line where Docker cannot run; nothing is skipped for it."""

from pathlib import Path

import pytest

from tests.sam_local.docker import DockerFailed, bring, dockerd


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs, for root: empty."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def stand_in(programs: Path, *names: str, saying: str = "", status: int = 0) -> None:
    """Put programs there that say something and end."""
    for name in names:
        program = programs / name
        program.write_text(f"#!/bin/sh\necho '{saying}'\nexit {status}\n")
        program.chmod(0o700)


def test_whoever_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(DockerFailed, match=r"^a Docker of its own needs root$"):
        bring()


def test_where_there_is_no_apt_it_says_what_to_install(programs: Path) -> None:
    """What is missing, no more."""
    stand_in(programs, "busybox")
    with pytest.raises(DockerFailed, match=r"^no dockerd on the path; install: docker\.io$"):
        bring()


def test_what_cannot_be_installed_is_said_by_its_last_line(programs: Path) -> None:
    stand_in(programs, "apt-get", saying="E: Unable to locate package", status=100)
    with pytest.raises(DockerFailed, match=r"^updating the package lists failed: E: Unable to locate package$"):
        bring()


def test_a_machine_that_grants_no_namespaces_is_told_so(programs: Path) -> None:
    """A container without privileges, mostly."""
    stand_in(programs, "dockerd", "busybox")
    stand_in(programs, "unshare", saying="unshare failed: Operation not permitted", status=1)
    with pytest.raises(DockerFailed, match=r"^making namespaces .+ failed: unshare failed: Operation not permitted$"):
        bring()


def test_a_program_that_is_not_there_is_named(programs: Path) -> None:
    stand_in(programs, "dockerd", "busybox")
    with pytest.raises(DockerFailed, match=r"failed: unshare: No such file or directory$"):
        bring()


def test_a_docker_that_does_not_start_is_said_by_its_last_line(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "mount", "busybox")
    stand_in(programs, "dockerd", saying="failed to mount cgroups", status=1)
    with (
        pytest.raises(DockerFailed, match=r"^dockerd does not start: failed to mount cgroups$"),
        dockerd(tmp_path),
    ):
        pass
