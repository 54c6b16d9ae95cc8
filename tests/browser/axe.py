"""axe-core, which looks for barriers; `make test-browser` brings it from npm into a folder that git ignores."""

from pathlib import Path

from playwright.sync_api import Page

SCRIPT = Path(__file__).resolve().parents[2] / ".browser/node_modules/axe-core/axe.min.js"


def barriers(tab: Page) -> list[str]:
    """Return the serious and critical findings on a page as it stands."""
    tab.evaluate(SCRIPT.read_text(encoding="utf-8") + "; 0")
    found = tab.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
