"""The bill of materials that is checked in is of what the build installs."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BILL: dict[str, Any] = json.loads((ROOT / "docs" / "sbom.json").read_text("utf-8"))
REQUIREMENTS = (ROOT / "layers" / "batch_progress" / "requirements.txt").read_text("utf-8")


def test_every_pinned_package_is_in_it_with_its_hashes() -> None:
    """And nothing else: the build installs these and no more."""
    pinned = {}
    for requirement in re.split(r"\n(?=\w)", REQUIREMENTS.strip()):
        name, version = requirement.split(maxsplit=1)[0].split("==")
        pinned[name, version] = sorted(re.findall(r"sha256:(\w+)", requirement))
    listed = {
        (re.sub("[-_.]+", "-", one["name"]).lower(), one["version"]): sorted(
            digest["content"] for where in one["externalReferences"] for digest in where["hashes"]
        )
        for one in BILL["components"]
    }
    assert pinned == listed


def test_everything_in_it_has_a_licence() -> None:
    """What a package is compiled from too."""
    parts = [part for one in BILL["components"] for part in (one, *one.get("components", ()))]
    assert [] == [part["purl"] for part in parts if not part["licenses"]]


def test_it_does_not_say_where_anything_was_fetched() -> None:
    """Package URLs name packages wherever they come from; the one address is that of the format."""
    assert [BILL["$schema"]] == re.findall(r"https?://[^\"]+", json.dumps(BILL))
