"""The hosted CI runs the make targets of `.ci/run`."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_workflow_runs_the_same_targets_as_ci_run() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    local = set(re.findall(r"^[^#\n]*\bmake ([a-z-]+)", script, re.MULTILINE))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    rows = [row for job in jobs.values() for row in job.get("strategy", {}).get("matrix", {}).get("target", ())]
    matrix = {target for row in rows for target in row.split()}
    named = {
        target
        for job in jobs.values()
        for step in job["steps"]
        for target in re.findall(r"make ([a-z-]+)", step.get("run", ""))
    }
    assert {"check", "test-engines"} <= local
    assert local == matrix | named
