"""axe-core, which finds accessibility problems. `make setup-browser` installs it from npm."""

from pathlib import Path

from playwright.sync_api import Page

SCRIPT = Path(__file__).resolve().parents[2] / ".npm/axe-core/node_modules/axe-core/axe.min.js"


def problems(tab: Page) -> list[str]:
    """Return the serious and critical accessibility problems in the current state of a page."""
    tab.evaluate(SCRIPT.read_text(encoding="utf-8") + "; 0")
    found = tab.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
