"""An image that replaces AWS's `public.ecr.aws/lambda/python:3.13` on a machine without an image registry.

It consists of this machine's files: busybox for the shell, this interpreter's CPython under `/var/lang`, the shared
libraries that it loads, and in `/var/runtime` AWS's runtime client, its start program and boto3. Its C
library is this machine's, not Amazon's.
"""

import io
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

ROOT: Final = Path(__file__).resolve().parents[2]
RUNTIME: Final = ROOT / ".venv-runtime/lib/python3.13/site-packages"
ARCHITECTURE: Final = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
REPOSITORY: Final = "public.ecr.aws/lambda/python"
TAG: Final = f"3.13-{ARCHITECTURE}"
CONFIGURATION: Final = [
    "ENV LANG=en_US.UTF-8 LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime",
    "ENV PATH=/var/lang/bin:/bin LD_LIBRARY_PATH=/var/lang/lib:/var/task:/var/task/lib:/opt/lib",
    "WORKDIR /var/task",
]
BOOTSTRAP: Final = """\
#!/bin/sh
export PYTHONPATH=/opt/python:/var/runtime
exec /var/lang/bin/python3.13 -m awslambdaric "$_HANDLER"
"""
# These are large, or belong to another interpreter.
LEFT_OUT: Final = re.compile(r"test|idlelib|site-packages|dist-packages|ensurepip|config-.*|_tkinter\..*")
# Libraries of Amazon Linux that compiled packages need and the interpreter does not load.
LIBRARIES: Final = ("libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libstdc++.so.6")


def write(to: BinaryIO) -> None:
    """Write the image's files as a tar archive."""
    standard = Path(sysconfig.get_path("stdlib"))
    python, busybox = Path(sys.executable).resolve(), Path(shutil.which("busybox") or "/bin/busybox").resolve()
    with tarfile.open(fileobj=to, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("opt", 0o755), ("tmp", 0o1777), ("var/task", 0o755)):
            _add(archive, folder, mode, tarfile.DIRTYPE)
        archive.add(busybox, "bin/busybox")
        for command in ("sh", "mv", "chmod", "cp", "rm"):  # what `sam local` runs when it adds the layer
            _add(archive, f"bin/{command}", 0o777, tarfile.SYMTYPE, target="busybox")
        archive.add(python, "var/lang/bin/python3.13")
        archive.add(standard, "var/lang/lib/python3.13", filter=_wanted)
        loaded = _libraries([python, busybox, *standard.rglob("*.so"), *RUNTIME.rglob("*.so")])
        for library in loaded:
            # The loader is found by its path, the others by LD_LIBRARY_PATH.
            home = str(library.parent) if library.name.startswith("ld-") else "var/lang/lib"
            archive.add(library.resolve(), f"{home}/{library.name}")
        archive.add(RUNTIME, "var/runtime")
        _add(archive, "var/runtime/bootstrap", 0o755, content=BOOTSTRAP)
        _add(archive, "etc/passwd", 0o644, content="root:x:0:0:root:/root:/bin/sh\n")


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """Return the paths of the shared libraries that programs load, and of the loader."""
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
    found = {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.MULTILINE)}
    (libc,) = (path for path in found if path.name == "libc.so.6")
    return found | {path for name in LIBRARIES if (path := libc.with_name(name)).exists()}


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if LEFT_OUT.fullmatch(Path(member.name).name) else member


def _add(  # the parameters are the fields of a tar header
    archive: tarfile.TarFile,
    name: str,
    mode: int,
    kind: bytes = tarfile.REGTYPE,
    content: str = "",
    target: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.type, member.linkname, member.size = mode, kind, target, len(content)
    archive.addfile(member, io.BytesIO(content.encode()))
