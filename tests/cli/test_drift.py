"""`drift`: the real command, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.build import manifest_text, meter
from tests.support.command import Workspace
from tests.support.served_polar import Served, served_polar


def change(polar: Served, key: str, **fields: Any) -> None:
    """Change a meter, as someone does in Polar's dashboard."""
    headers = {"Authorization": "Bearer polar_oat_test"}
    listed = httpx.get(f"{polar.url}/v1/meters/", headers=headers).json()["items"]
    (meter_id,) = [item["id"] for item in listed if item["metadata"].get("polar_iac") == f"acme/{key}"]
    httpx.patch(f"{polar.url}/v1/meters/{meter_id}", json=fields, headers=headers).raise_for_status()


@pytest.fixture
def applied(workspace: Workspace) -> Workspace:
    """A directory whose two meters were applied, and whose manifest has changed since."""
    workspace.write({"calls": meter(name="Calls"), "images": meter(name="Images")})
    workspace.ok("apply", "-e", "sandbox", "-y")
    workspace.write({"calls": meter(name="Calls"), "images": meter(name="Waiting"), "new": meter()})
    return workspace


def test_nothing_that_waits_to_be_applied_is_shown(applied: Workspace) -> None:
    done = applied.reads_only("drift", "-e", "sandbox")
    assert done.returncode == 0
    assert "No drift. 2 recorded meters are as they were applied." in done.stdout
    assert "Waiting" not in done.stdout


def test_drift_is_shown_and_exits_2_and_nothing_is_written(applied: Workspace, polar: Served) -> None:
    change(polar, "calls", name="Changed")
    files = {path: path.read_bytes() for path in applied.path.rglob("*") if path.is_file()}
    done = applied.reads_only("drift", "-e", "sandbox", "-q")
    assert done.returncode == 2
    assert '"Calls" → "Changed"' in done.stdout
    assert "images" not in done.stdout
    assert "Drift: 1 of 2 recorded meters is not as it was applied." in done.stdout
    assert done.stderr == ""
    assert {path: path.read_bytes() for path in applied.path.rglob("*") if path.is_file()} == files


def test_formats_and_reports(applied: Workspace, polar: Served) -> None:
    change(polar, "calls", name="Changed")
    done = applied.reads_only(
        "drift", "-e", "sandbox", "--format", "json", "--report", "markdown=drift.md", "--report", "text=t"
    )
    (found,) = json.loads(done.stdout)["drift"]
    assert [meter_["key"] for meter_ in found["meters"]] == ["calls"]
    assert "Changed" in (applied.path / "drift.md").read_text(encoding="utf-8")
    # A second run replaces its reports, and no manifest.
    for file, code in (("drift.md", 2), ("t", 2), ("meters.yaml", 1)):
        assert applied.run("drift", "-e", "sandbox", "--report", f"text={file}").returncode == code


def test_an_environment_that_cannot_be_read_hides_no_other(applied: Workspace, polar: Served) -> None:
    change(polar, "calls", name="Changed")
    wrong = {"POLAR_ACCESS_TOKEN_PRODUCTION": "no token"}
    for order in (("-e", "sandbox", "-e", "production"), ("-e", "production", "-e", "sandbox")):
        done = applied.run("drift", *order, **wrong)
        assert done.returncode == 1
        assert '"Calls" → "Changed"' in done.stdout
        assert "Not read: production." in done.stderr
    with served_polar() as production:
        both = {"POLAR_BASE_URL_PRODUCTION": production.url}
        done = applied.run("drift", "-e", "production", "-e", "sandbox", **both)
    assert done.returncode == 2
    assert "production" in done.stdout.splitlines()[0]


def test_errors_exit_1_and_say_where(applied: Workspace) -> None:
    assert "choose an environment" in applied.run("drift").stderr
    both = applied.run("drift", "-e", "sandbox", "-e", "production", "--lockfile", "x.lock.json")
    assert (both.returncode, "--lockfile names one file" in both.stderr) == (1, True)
    (applied.path / "meters.yaml").write_text(manifest_text({"calls": meter(nam="x")}), encoding="utf-8")
    wrong = applied.run("drift", "-e", "sandbox", "-e", "production")
    assert wrong.returncode == 1
    assert wrong.stderr.count("meters.yaml:20:") == 1
    assert wrong.stdout == ""


def test_in_github_actions_drift_is_in_the_summary_and_annotated(applied: Workspace, polar: Served) -> None:
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(applied.path / "summary.md")}
    change(polar, "calls", name="Changed")
    done = applied.run("drift", "-e", "sandbox", **variables)
    assert "::warning file=meters.yaml,line=5," in done.stderr
    summary = (applied.path / "summary.md").read_text(encoding="utf-8")
    assert "### Polar meters: drift of 1 meter · sandbox" in summary
