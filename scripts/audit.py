"""Ask what is known to be wrong with the packages that the layer carries, in the versions that are pinned.

Exit status 0: nothing is. 1: something is, and it is printed. 69: no service answered for all of them, so nobody knows;
pip-audit alone takes a package that its service does not know for a good one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "layers" / "batch_progress" / "requirements.txt"
SERVICES: Final = ("pypi", "osv")


def ask(service: str) -> list[dict[str, Any]] | None:
    """Return what a service says of each package; `None` unless it said something of every one."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "--vulnerability-service", service, "--format", "json"]
    options = ["--progress-spinner", "off", "--require-hashes", "--disable-pip", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run([*command, *options], capture_output=True, check=False)  # noqa: S603  # the project's own tool
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None
    return packages if packages and all("vulns" in package for package in packages) else None


def main() -> int:
    """Ask one service after the other until one has answered."""
    for service in SERVICES:
        packages = ask(service)
        if packages is None:
            continue
        for package in packages:
            for found in package["vulns"]:
                mended = ", ".join(found["fix_versions"]) or "no version yet"
                print(f"audit: {package['name']} {package['version']}: {found['id']}, mended in {mended}")
        bad = sum(bool(package["vulns"]) for package in packages)
        print(f"audit: {len(packages)} packages, {bad} with known vulnerabilities ({service})")
        return 1 if bad else 0
    print(f"audit: not done, for no service answered ({', '.join(SERVICES)}); it needs a network", file=sys.stderr)
    return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
