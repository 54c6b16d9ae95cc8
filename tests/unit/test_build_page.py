"""The build of the page rejects sources that it would break, and notices a stale page."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the script, the sources and the built page."""
    for folder in ("page", "functions/progress/page"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/build_page.py", tmp_path / "scripts")
    return tmp_path


def build(copy: Path, argument: str) -> int:
    """Run the copy of the script; return its status."""
    script: dict[str, Any] = runpy.run_path(str(copy / "scripts/build_page.py"))
    status: int = script["main"]([argument])
    return status


def test_the_built_page_is_current(copy: Path) -> None:
    assert 0 == build(copy, "--check")


@pytest.mark.parametrize(
    ("name", "addition"),
    [("page.css", "b{color:red}"), ("page.js", 'say("x");'), ("page.html", "<b>x</b>")],
)
def test_a_stale_page_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str], name: str, addition: str) -> None:
    """After a change of any source, until the page is built again."""
    with (copy / "page" / name).open("a") as source:
        source.write(f"{addition}\n")
    assert 1 == build(copy, "--check")
    assert "functions/progress/page/built.html is out of date; run `make page`" in capsys.readouterr().err
    assert 0 == build(copy, "--write")
    assert 0 == build(copy, "--check")


@pytest.mark.parametrize(
    ("name", "addition", "reason"),
    [
        ("page.css", 'b::after{content:"</STYLE>"}', "page.css must not contain </style"),
        ("page.js", 'x("</Script>");', "page.js must not contain </script"),
        ("page.js", 'x("<!--");', "page.js must not contain <!--"),
        ("page.js", "x(`a\nb`);", "a template literal must end on the line on which it starts"),
        ("page.js", "x(); // why", "a comment must start with // and have its own line"),
        ("page.js", "x(1 - -1);", "two signs must not be separated by white space alone"),
        ("page.js", "x(1 + +y);", "two signs must not be separated by white space alone"),
        ("page.js", "/* why */", "a comment must start with // and have its own line"),
        ("page.html", "<pre> x </pre>", "page.html must not contain <pre"),
        (
            "page.html",
            '<script src="page.js"></script>',
            'page.html must contain <script src="page.js"></script> exactly',
        ),
    ],
)
def test_what_the_build_would_break(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, addition: str, reason: str
) -> None:
    with (copy / "page" / name).open("a") as source:
        source.write(f"{addition}\n")
    assert 1 == build(copy, "--write")
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "built"),
    [
        ('say("a  b", \'c  "d\', e);', 'say("a  b",\'c  "d\',e);'),
        ("say(/a  [/]  b/u, c / d / e);", "say(/a  [/]  b/u,c/d/e);"),
        ('say(`a  ${b ? `c  ${d}` : "e"}  f`, g);', 'say(`a  ${b ? `c  ${d}` : "e"}  f`,g);'),
        ("if (a in b) {\n  return typeof c;\n} else {\n  d();\n}", "if(a in b){return typeof c;}else{d();}"),
        ("const a =\n  b ??\n  c;", "const a=b??c;"),
    ],
)
def test_white_space_that_the_script_needs_is_kept(copy: Path, source: str, built: str) -> None:
    """That in strings, templates and regular expressions, and that between words."""
    with (copy / "page/page.js").open("a") as file:
        file.write(f"{source}\n")
    assert 0 == build(copy, "--write")
    assert f"{built}</script>" in (copy / "functions/progress/page/built.html").read_text()
