"""docs/security.md agrees with the measurements and names existing tests."""

import re
from pathlib import Path

from tests.hostile import figures

ROOT = Path(__file__).parents[2]
WRITTEN = figures.PAGE.read_text(encoding="utf-8")


def test_the_figures_are_those_that_were_measured() -> None:
    """`make performance` writes them."""
    assert figures.page(WRITTEN) == WRITTEN


def test_nothing_was_wrong_when_they_were_measured() -> None:
    assert "findings: 0." in WRITTEN
    assert re.findall(r"(\d+) (?:wrong|`5xx`|changes lost)", WRITTEN) == ["0", "0", "0", "0"]


def test_each_threat_names_a_test_that_is_there() -> None:
    """A row names a test by its path, or by its file name if the previous one is in the same folder."""
    rows = re.findall(r"^\|(?! ---)(?! Threat)[^|]+\|[^|]+\|([^|]+)\|$", WRITTEN, re.MULTILINE)
    assert len(rows) > 15
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for row in rows:
        folder = ROOT
        named = re.findall(r"`([^`]+)`", row)
        assert named or row.strip() == "the same"
        for name in named:
            if name.startswith("make "):
                assert f"\n{name.removeprefix('make ')}:" in makefile, name
            else:
                path = ROOT / name if "/" in name else folder / name
                folder = path.parent
                assert path.is_file(), name
