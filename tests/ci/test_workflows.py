"""The actions, workflows and their scripts: held against GitHub's schemas, and against what is unsafe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.rehearsal import ROOT, load

ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".github" / "actions").glob("*/*.sh"))


def check(tool: str, *arguments: str | Path) -> None:
    """Run a tool of the development environment; it has to find nothing."""
    command = [Path(sys.executable).with_name(tool), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_actions_workflows_and_scripts_are_checked() -> None:
    assert [file.parent.name for file in ACTIONS] == ["apply", "drift", "plan"]
    assert {"ci.yml", "drift.yml", "meters.yml"} <= {file.name for file in WORKFLOWS}
    assert [file.name for file in SCRIPTS] == ["apply.sh", "install.sh", "lib.sh", "comment.sh"]


def test_actions_and_workflows_match_their_schemas() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.github-actions", *ACTIONS)
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    check("check-jsonschema", "--builtin-schema", "vendor.dependabot", ROOT / ".github" / "dependabot.yml")


def test_zizmor_finds_nothing() -> None:
    check("zizmor", "--offline", "--no-progress", "--strict-collection", ".github")


def test_shellcheck_finds_nothing() -> None:
    check("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *SCRIPTS)


def steps() -> list[tuple[str, dict[str, Any]]]:
    all_steps = []
    for file in (*ACTIONS, *WORKFLOWS):
        document = load(file)
        jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
        all_steps += [(f"{file.parent.name}/{file.name}", step) for job in jobs for step in job["steps"]]
    return all_steps


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
        # Tokens that can write are an environment's, and so behind its approval.
        assert "environment" in job or "WRITE_TOKEN" not in str(job), name


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_each_job_ends_after_some_minutes(file: Path) -> None:
    """GitHub's own limit is six hours, in which nobody else can apply."""
    for name, job in load(file)["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 30, name


def test_what_a_pull_request_is_checked_for_the_merge_queue_checks_too() -> None:
    """A required check that does not run in the queue keeps everything waiting there."""
    for file in WORKFLOWS:
        events = load(file)["on"]
        assert ("merge_group" in events) == ("pull_request" in events), file.name
    for workflow in (load(ROOT / ".github" / "workflows" / "meters.yml"), documented_workflow("meters")):
        jobs = workflow["jobs"]
        queued = {name for name, job in jobs.items() if "merge_group" in str(job.get("if"))}
        assert queued == {"plan"}


GUIDE = (ROOT / "docs" / "github.md").read_text(encoding="utf-8")
PERMISSIONS = {
    "meters": {
        "plan": {"contents": "read", "pull-requests": "write"},
        "sandbox": {"contents": "write"},
        "review": {"contents": "read"},
        "production": {"contents": "write"},
    },
    "drift": {"drift": {"contents": "read", "issues": "write"}},
}


def documented_workflow(name: str) -> Any:
    """A workflow as the guide shows it."""
    (text,) = re.findall(rf"```yaml\n(name: {name}\n.*?)```", GUIDE, re.DOTALL)
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_each_job_has_the_permissions_it_needs_and_no_more(name: str) -> None:
    for workflow in (load(ROOT / ".github" / "workflows" / f"{name}.yml"), documented_workflow(name)):
        assert workflow["permissions"] == {}
        jobs = {job: about for job, about in workflow["jobs"].items() if job != "off"}
        assert {job: about["permissions"] for job, about in jobs.items()} == PERMISSIONS[name]
        assert all("permissions" not in about for job, about in workflow["jobs"].items() if job == "off")


def condition(job: dict[str, Any]) -> str:
    """The condition of a job, without the switch that this repository's own workflows have."""
    text = re.sub(r"\s+", " ", str(job.get("if", "")))
    switch = r"vars\.POLAR_IAC_ENABLED == 'true'"
    text = re.sub(rf" && \({switch} \|\| [^)]*\)|{switch} && | && {switch}|^{switch}$", "", text)
    return text.strip()


def polar_step(job: dict[str, Any]) -> dict[str, Any]:
    """The step of a job that uses polar-iac, without the source of the action."""
    (step,) = (step for step in job["steps"] if "/.github/actions/" in step["uses"])
    action = re.split(r"[/@]", step["uses"].partition("/.github/actions/")[2])[0]
    return {**step, "uses": action}


@pytest.mark.parametrize("name", PERMISSIONS)
def test_the_guide_shows_the_workflows_of_this_repository(name: str) -> None:
    own, documented = load(ROOT / ".github" / "workflows" / f"{name}.yml"), documented_workflow(name)
    assert own["on"].keys() == documented["on"].keys()
    if name == "meters":
        assert own["concurrency"] == documented["concurrency"]
    own["jobs"].pop("off")
    assert list(own["jobs"]) == list(documented["jobs"])
    for job, about in documented["jobs"].items():
        ours = own["jobs"][job]
        for part in ("runs-on", "timeout-minutes", "environment", "needs", "outputs"):
            assert about.get(part) == ours.get(part), (job, part)
        assert condition(about) == condition(ours), job
        assert polar_step(about) == polar_step(ours), job
        checkout = ours["steps"][0]
        assert about["steps"][0]["with"] == checkout["with"] == {"persist-credentials": False}
        inputs = load(ROOT / ".github" / "actions" / polar_step(about)["uses"] / "action.yml")["inputs"]
        assert polar_step(about)["with"].keys() <= inputs.keys()


def test_the_workflows_in_the_guide_match_the_schema(tmp_path: Path) -> None:
    for name in PERMISSIONS:
        (text,) = re.findall(rf"```yaml\n(name: {name}\n.*?)```", GUIDE, re.DOTALL)
        (tmp_path / f"{name}.yml").write_text(text, encoding="utf-8")
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *sorted(tmp_path.glob("*.yml")))


def test_no_python_takes_modules_from_a_repository() -> None:
    for script in SCRIPTS:
        for line in script.read_text(encoding="utf-8").splitlines():
            if re.search(r'"\$(python|candidate)" ', line):
                assert re.search(r'"\$(python|candidate)" -I ', line), f"{script.name}: {line}"


def test_a_running_apply_is_never_cancelled() -> None:
    concurrency = load(ROOT / ".github" / "workflows" / "meters.yml")["concurrency"]
    assert concurrency["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_each_script_stops_at_the_first_error() -> None:
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert "set -euo pipefail" in text or 'lib.sh"\n' in text, script
