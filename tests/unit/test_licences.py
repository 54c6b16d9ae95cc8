"""docs/licences.md lists the packages that the build installs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text("utf-8")
REQUIREMENTS = (ROOT / "layers" / "batch_progress" / "requirements.txt").read_text("utf-8")


def test_every_pinned_package_is_listed_with_its_version_and_licence() -> None:
    pinned = re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS, re.MULTILINE)
    listed = re.findall(r"^\| ([\w.-]+) \| (\d\S*) \| \S.* \|$", PAGE, re.MULTILINE)
    assert pinned
    assert sorted(pinned) == sorted((re.sub("[-_.]+", "-", name).lower(), version) for name, version in listed)
