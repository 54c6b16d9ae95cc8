"""The examples of docs/client.md, of the README and of the notebook, with what they print."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs/client.md"
README: Final = ROOT / "README.md"
NOTEBOOK: Final = ROOT / "docs/progress-bar.ipynb"
ADDRESS: Final = "http://127.0.0.1:3000"


@dataclass(frozen=True)
class Example:
    """An example.

    Attributes:
        code: As it is written.
        output: What it printed.
    """

    code: str
    output: str

    def at(self, address: str) -> str:
        """Return the code with another address of the API; nothing else is changed."""
        assert 1 == self.code.count(ADDRESS)
        return self.code.replace(ADDRESS, address)

    def printed_like(self, output: str) -> bool:
        """Tell whether an output differs from this one in values only, and perhaps in failed jobs."""
        expected, actual = _shapes(self.output), _shapes(output)
        return actual <= expected and {shape for shape in expected - actual if "CODE" not in shape} <= {"..."}


def _shapes(output: str) -> set[str]:
    for pattern, name in (
        (r"https?://\S+", "URL"),
        (r"\b[A-Z][A-Z0-9_]+\b(?<!URL)", "CODE"),
        ("[█░]{40}", "BAR"),
        (r" *\d[\d:]*", " 0"),
    ):
        output = re.sub(pattern, name, output)
    return {line for line in re.split("[\r\n]+", output) if line}


def python_examples() -> dict[str, Example]:
    """Return the examples of both pages by the heading that they are under, and the notebook's cells as one."""
    found = re.findall(
        r"^##+ ([^\n]*)\n(?:(?!^#).)*?^```python\n(.*?)^```\n\n(?:[^\n`]*\n\n)?```\n(.*?)^```",
        PAGE.read_text(encoding="utf-8") + README.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    output = "".join("".join(part["text"]) for cell in cells for part in cell["outputs"])
    return {heading: Example(code, output) for heading, code, output in found} | {NOTEBOOK.name: Example(code, output)}


def javascript_example() -> tuple[str, Example]:
    """Return the function, and its use."""
    function, use = re.findall(r"^```js\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (output,) = re.findall(
        re.escape(use) + r"```\n\n```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return function, Example(use, output)
