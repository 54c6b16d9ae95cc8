"""Look up known vulnerabilities of the layer's pinned packages.

Exit status 0: none is known. 1: at least one is known and printed. 69: no service answered for every package. pip-audit
itself counts a package that its service does not know as free of vulnerabilities.
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
    """Return a service's answer for each package, or `None` if it did not answer for all."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "--vulnerability-service", service, "--format", "json"]
    options = ["--progress-spinner", "off", "--require-hashes", "--disable-pip", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run([*command, *options], capture_output=True, check=False)  # noqa: S603  # the project's own tool
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None
    return packages if packages and all("vulns" in package for package in packages) else None


def main() -> int:
    """Query the services in order until one has answered."""
    for service in SERVICES:
        packages = ask(service)
        if packages is None:
            continue
        for package in packages:
            for found in package["vulns"]:
                fixed = ", ".join(found["fix_versions"]) or "no version yet"
                print(f"audit: {package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
        bad = sum(bool(package["vulns"]) for package in packages)
        print(f"audit: {len(packages)} packages, {bad} with known vulnerabilities ({service})")
        return 1 if bad else 0
    print(f"audit: no service answered ({', '.join(SERVICES)}); is the network available?", file=sys.stderr)
    return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
