"""The actions, workflows and their scripts: held against GitHub's schemas, and against what is unsafe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal import ROOT, load

ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".github" / "actions").glob("*/*.sh"))


def check(tool: str, *arguments: str | Path) -> None:
    """Run a tool of the development environment; it has to find nothing."""
    command = [Path(sys.executable).with_name(tool), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_found() -> None:
    assert [file.parent.name for file in ACTIONS] == ["apply", "drift", "plan"]
    assert {"ci.yml", "drift.yml", "meters.yml"} <= {file.name for file in WORKFLOWS}
    assert len(SCRIPTS) > 5


def test_schemas() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.github-actions", *ACTIONS)
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    check("check-jsonschema", "--builtin-schema", "vendor.dependabot", ROOT / ".github" / "dependabot.yml")


def test_zizmor_finds_nothing() -> None:
    check("zizmor", "--offline", "--no-progress", "--strict-collection", ".github")


def test_shellcheck_finds_nothing() -> None:
    check("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *SCRIPTS)


def steps() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for file in (*ACTIONS, *WORKFLOWS):
        document = load(file)
        jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
        found += [(f"{file.parent.name}/{file.name}", step) for job in jobs for step in job["steps"]]
    return found


@pytest.mark.parametrize(("file", "step"), steps())
def test_no_expression_is_part_of_a_script(file: str, step: dict[str, Any]) -> None:
    assert "${{" not in step.get("run", ""), file
    uses = step.get("uses", "$/")
    assert uses.startswith("$/") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses), (
        f"{file}: not pinned: {uses}"
    )


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_no_workflow_gives_a_stranger_more_than_reading(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    assert "workflow_run" not in text
    workflow = load(file)
    assert set(workflow["permissions"].values()) <= {"read"}
    assert "concurrency" in workflow
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job, name
        # Tokens that can write are an environment's, and so behind its approval.
        assert "environment" in job or "WRITE_TOKEN" not in str(job), name


def test_a_running_apply_is_never_cancelled() -> None:
    concurrency = load(ROOT / ".github" / "workflows" / "meters.yml")["concurrency"]
    assert concurrency["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_each_script_stops_at_the_first_error() -> None:
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert "set -euo pipefail" in text or 'lib.sh"\n' in text, script
