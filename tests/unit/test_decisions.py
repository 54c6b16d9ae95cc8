"""The index of decisions lists every decision with its own title and date."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"


def test_the_index_is_complete() -> None:
    rows = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+\.md)\) \| (\S+) \| .+ \|$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE
    )
    written = []
    for path in sorted(FOLDER.glob("0*.md")):
        heading, _, date = path.read_text("utf-8").splitlines()[:3]
        number, title = heading.removeprefix("# ").split(". ", 1)
        assert int(path.name[:4]) == int(number)
        written.append((number, title, path.name, date))
    assert written
    assert rows == written
