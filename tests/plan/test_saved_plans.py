"""Saved plans: shown, applied exactly, or stale."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import polar_iac.plan
from polar_iac.polar.client import PolarClient
from tests.support.build import meter
from tests.support.command import Workspace
from tests.support.served_polar import Served

FILTER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}
SCHEMA = json.loads((Path(polar_iac.plan.__file__).parent / "plan.schema.json").read_text())
TOKEN = "polar_oat_planted_secret"

pytestmark = pytest.mark.unmeasured  # every test plans and applies several times, as those of the command do


@pytest.fixture
def planned(workspace: Workspace, polar: Served) -> Workspace:
    """Two meters are there; a plan to rename one and create another is saved."""
    workspace.environ["POLAR_ACCESS_TOKEN"] = TOKEN
    workspace.write({"a": meter(), "b": meter()})
    workspace.ok("apply", "-e", "sandbox", "-y")
    workspace.write({"a": meter(name="Renamed"), "b": meter(), "c": meter(name="New")})
    workspace.ok("plan", "-e", "sandbox", "--out", "plan.json")
    polar.tape.clear()
    return workspace


def edit(workspace: Workspace, polar: Served, key: str, **fields: Any) -> None:
    """Change a meter, as someone does in the dashboard."""
    with PolarClient(polar.url, "polar_oat_other") as other:
        other.update_meter(workspace.lock()["meters"][key]["id"], fields)
    polar.tape.clear()


def test_a_saved_plan_holds_the_documented_json_and_no_token(planned: Workspace) -> None:
    text = (planned.path / "plan.json").read_text()
    assert json.loads(text) == json.loads(planned.ok("plan", "-e", "sandbox", "--format", "json"))
    assert TOKEN not in text


def test_exactly_what_was_reviewed_is_carried_out(planned: Workspace, polar: Served) -> None:
    result = planned.ok("apply", "plan.json", "-y").splitlines()[-1]
    assert sorted(result.removeprefix("Apply: ").rstrip(".").split(", ")) == ["1 created", "1 updated"]
    assert (polar.tape.count("POST"), polar.tape.sent("PATCH")) == (1, [{"name": "Renamed"}])
    assert "No changes" in planned.ok("plan", "-e", "sandbox")


def stale(workspace: Workspace, polar: Served, *messages: str) -> None:
    done = workspace.reads_only("apply", "plan.json", "-y")
    assert done.returncode == 4
    assert "stale" in done.stderr
    for words in messages:
        assert words in done.stderr
    assert {e.method for e in polar.tape.exchanges} == {"GET"}


def test_a_plan_is_stale_after_an_edit_of_the_manifest(planned: Workspace, polar: Served) -> None:
    planned.write({"a": meter(name="Renamed again"), "b": meter(filter=FILTER)})
    stale(
        planned,
        polar,
        'a is not what was reviewed:\n      name after apply: reviewed "Renamed", now "Renamed again"\n',
        "b is new in the plan: to update",
        "c is no longer in the plan (reviewed: to create)",
    )


def test_a_plan_is_stale_after_an_edit_of_the_lockfile(planned: Workspace, polar: Served) -> None:
    """A key that is recorded no more, and not marked either, would be created."""
    edit(planned, polar, "b", metadata={}, name="By hand")
    path = planned.path / "meters.sandbox.lock.json"
    data = json.loads(path.read_text())
    del data["meters"]["b"]
    path.write_text(json.dumps(data))
    stale(planned, polar, "b is new in the plan: to create")


def test_a_plan_is_stale_after_an_edit_at_polar(planned: Workspace, polar: Served) -> None:
    edit(planned, polar, "a", name="By hand")
    stale(planned, polar, 'name at Polar: reviewed "API calls", now "By hand"')


def test_a_stale_plan_reports_each_difference_in_full(planned: Workspace, polar: Served) -> None:
    """A threshold deep in a filter, somebody's metadata, and what became blocked."""

    def filtered(least: int) -> dict[str, Any]:
        long = [{"property": f"property-{n}", "operator": "eq", "value": "x" * 30} for n in range(5)]
        return {"conjunction": "and", "clauses": [*long, {"property": "t", "operator": "gt", "value": least}]}

    planned.write({"a": meter(filter=filtered(200)), "b": meter(name="Bytes")})
    planned.ok("plan", "-e", "sandbox", "--out", "plan.json")
    planned.write({"a": meter(filter=filtered(2000))})
    edit(planned, polar, "a", metadata={"polar_iac": "acme/a", "theirs": 7})
    done = planned.run("apply", "plan.json", "-y")
    assert done.returncode == 4
    assert done.stderr.count("t > 200\n") == done.stderr.count("t > 2000\n") == 1
    assert "metadata.theirs at Polar: reviewed none, now 7" in done.stderr
    assert "reviewed: to update\n      now:      blocked, `b` is gone from the manifest" in done.stderr


def test_a_comment_or_another_meters_record_is_not_stale(planned: Workspace, polar: Served) -> None:
    manifest = planned.path / "meters.yaml"
    manifest.write_text("# A comment moves every line.\n\n" + manifest.read_text())
    path = planned.path / "meters.sandbox.lock.json"
    data = json.loads(path.read_text())
    data["meters"]["b"]["spec"]["name"] = "What was declared once"
    path.write_text(json.dumps(data))
    planned.ok("apply", "plan.json", "-y")
    assert polar.tape.count("POST") == 1


def test_apply_with_another_digest_is_stale(planned: Workspace, polar: Served) -> None:
    digest = json.loads((planned.path / "plan.json").read_text())["digest"]
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    done = planned.run("apply", "-e", "sandbox", "-y", "--digest", wrong[:32])
    assert done.returncode == 4
    assert digest in done.stderr
    assert polar.tape.count("POST") == 0
    assert planned.run("apply", "-e", "sandbox", "-y", "--digest", digest[:31]).returncode == 1
    planned.ok("apply", "-e", "sandbox", "-y", "--digest", digest[:32])
    assert polar.tape.count("POST") == 1


def test_a_saved_plan_keeps_its_options(planned: Workspace, polar: Served) -> None:
    """A plan of one meter, and of a removal that was allowed, are applied as they were reviewed."""
    planned.write({"a": meter(name="Renamed")})
    planned.ok("plan", "-e", "sandbox", "--out", "a.json", "--target", "a")
    planned.ok("plan", "-e", "sandbox", "--out", "b.json", "--target", "b", "--allow-archive")
    saved = json.loads((planned.path / "b.json").read_text())
    jsonschema.validate(saved, SCHEMA)
    assert saved["options"] == {"targets": ["b"], "allow_archive": True}
    assert "· only a" in planned.ok("show", "a.json").splitlines()[0]
    assert "**Only `a` (`--target`)**" in planned.ok("show", "a.json", "--format", "markdown")
    for name, sent in (("a", {"name": "Renamed"}), ("b", {"is_archived": True})):
        polar.tape.clear()
        planned.ok("apply", f"{name}.json", "-y")
        assert polar.tape.sent("PATCH") == [sent]
    assert "No changes" in planned.ok("plan", "-e", "sandbox")


def test_a_saved_plan_takes_no_other_targets(planned: Workspace, polar: Served) -> None:
    done = planned.run("apply", "plan.json", "-y", "--target", "a")
    assert done.returncode == 1
    assert "remove --target" in done.stderr
    planned.ok("plan", "-e", "sandbox", "--out", "c.json", "--target", "c")
    planned.write({"a": meter(name="Renamed"), "b": meter()})
    done = planned.run("apply", "c.json", "-y", "--target", "c", "--allow-archive")
    assert done.returncode == 4
    assert "c is no longer in the plan" in done.stderr
    assert polar.tape.count("POST") == 0


def test_a_device_is_written_to_and_not_replaced(planned: Workspace) -> None:
    """For root an atomic replace of /dev/stdout would succeed."""
    fifo = planned.path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(reader, encoding="utf-8") as read:
        planned.ok("plan", "-e", "sandbox", "--out", "pipe")
        assert json.load(read)["format_version"] == 2
    assert fifo.is_fifo()


def test_a_saved_plan_takes_no_other_environment(planned: Workspace) -> None:
    done = planned.run("apply", "plan.json", "-e", "production", "-y")
    assert done.returncode == 1
    assert "plan for sandbox" in done.stderr


def test_show_prints_saved_plans_in_every_format(planned: Workspace) -> None:
    planned.write({})
    assert "Plan: 1 to create, 1 to update" in planned.ok("show", "plan.json")
    assert "1 to create, 1 to update · sandbox" in planned.ok("show", "plan.json", "--format", "markdown")
    output = planned.ok("show", "plan.json", "plan.json", "--format", "json")
    saved = json.loads((planned.path / "plan.json").read_text())
    assert json.loads(output) == {"format_version": 2, "plans": [saved, saved]}
    (planned.path / "both.json").write_text(output)
    assert planned.ok("show", "both.json", "--format", "json") == output
    done = planned.run("apply", "both.json", "-y")
    assert done.returncode == 1
    assert "holds 2 plans" in done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 2}', "[" * 100_000, "null"])
def test_a_file_that_is_not_a_plan_is_refused(planned: Workspace, text: str) -> None:
    (planned.path / "plan.json").write_text(text)
    for command in (["show", "plan.json"], ["apply", "plan.json", "-y"], ["show", "none.json"]):
        done = planned.run(*command)
        assert done.returncode == 1
        assert "error: " in done.stderr
        assert "itself failed" not in done.stderr


def test_a_plan_file_that_was_changed_is_refused(planned: Workspace, polar: Served) -> None:
    path = planned.path / "plan.json"
    path.write_text(path.read_text().replace('"Renamed"', '"Changed"'))
    assert planned.run("show", "plan.json").returncode == 1
    assert planned.run("apply", "plan.json", "-y").returncode == 1
    assert polar.tape.count("PATCH") == 0


def test_more_changes_than_max_changes_are_refused(planned: Workspace, polar: Served) -> None:
    done = planned.run("apply", "-e", "sandbox", "-y", "--max-changes", "1")
    assert done.returncode == 5
    assert "--max-changes 2" in done.stderr
    assert polar.tape.count("POST") == 0
    planned.ok("apply", "-e", "sandbox", "-y", "--max-changes", "2")


def test_a_plan_writes_several_reports(planned: Workspace) -> None:
    reports = ["text=a.txt", "json=a.json", "markdown=a.md"]
    text = planned.ok("plan", "-e", "sandbox", *[part for r in reports for part in ("--report", r)])
    assert (planned.path / "a.txt").read_text() == text
    assert json.loads((planned.path / "a.json").read_text())["environment"] == "sandbox"
    assert "1 to create" in (planned.path / "a.md").read_text().split("\n")[0]
    assert planned.run("plan", "-e", "sandbox", "--report", "pdf=a.pdf").returncode == 1


def test_one_plan_can_cover_several_environments(planned: Workspace) -> None:
    environments = ("-e", "sandbox", "-e", "local")
    text = planned.ok("plan", *environments)
    assert "→ sandbox" in text
    assert "→ local" in text
    documents = json.loads(planned.ok("plan", *environments, "--format", "json", "--out", "{env}.json"))
    jsonschema.validate(documents, SCHEMA)
    assert [document["environment"] for document in documents["plans"]] == ["sandbox", "local"]
    assert (planned.path / "local.json").exists()
    assert planned.run("plan", *environments, "--out", "plan.json").returncode == 1
    assert planned.run("plan", *environments, "--detailed-exitcode").returncode == 2
    assert "→ local" in planned.ok("plan", POLAR_ENVIRONMENT="sandbox local")


class TestOnGitHub:
    @pytest.fixture
    def github(self, planned: Workspace) -> Workspace:
        event = {"pull_request": {"head": {"sha": "a" * 40}}}
        (planned.path / "event.json").write_text(json.dumps(event))
        planned.environ |= {
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(planned.path.parent),
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "acme/billing",
            "GITHUB_SHA": "b" * 40,
            "GITHUB_EVENT_PATH": str(planned.path / "event.json"),
            "GITHUB_STEP_SUMMARY": str(planned.path / "summary.md"),
            "GITHUB_OUTPUT": str(planned.path / "output"),
        }
        return planned

    def outputs(self, workspace: Workspace) -> dict[str, str]:
        lines = (workspace.path / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def test_a_plan_writes_annotations_summary_and_outputs(self, github: Workspace, polar: Served) -> None:
        github.write({"a": meter(name="Renamed", filter=FILTER), "b": meter(), "c": meter(name="New")})
        done = github.run("plan", "-e", "sandbox")
        assert "::warning " in done.stderr
        directory = github.path.name
        assert f"file={directory}/meters.yaml,line=" in done.stderr
        assert "::" not in done.stdout
        summary = (github.path / "summary.md").read_text()
        assert f"https://github.com/acme/billing/blob/{'a' * 40}/{directory}/meters.yaml#L" in summary
        outputs = self.outputs(github)
        assert outputs["changes"] == "2"
        assert (
            outputs["digest"] == json.loads(github.ok("plan", "-e", "sandbox", "--format", "json"))["digest"]
        )
        assert "1 to create, 1 to update" in outputs["summary"]
        assert polar.tape.count("POST") == 0

    def test_errors_are_annotated(self, github: Workspace) -> None:
        (github.path / "meters.yaml").write_text("version: 1\nproject: acme\nmeters: {a: {nome: x}}\n")
        done = github.run("plan", "-e", "sandbox")
        assert f"::error file={github.path.name}/meters.yaml,line=3,col=" in done.stderr

    def test_an_apply_reports_its_results(self, github: Workspace, polar: Served) -> None:
        polar.polar.freeze(github.lock()["meters"]["b"]["id"])
        github.write({"a": meter(name="Renamed"), "b": meter(filter=FILTER), "c": meter(name="New")})
        done = github.run("apply", "-e", "sandbox", "-y")
        assert done.returncode == 1
        assert "::error file=" in done.stderr
        summary = (github.path / "summary.md").read_text()
        assert "c created" in summary
        assert "1 failed" in summary


def test_a_report_replaces_a_link_and_does_not_follow_it(planned: Workspace, tmp_path: Path) -> None:
    (planned.path / "a.md").symlink_to(tmp_path / "outside")
    planned.ok("plan", "-e", "sandbox", "--report", "markdown=a.md")
    assert not (tmp_path / "outside").exists()
    assert not (planned.path / "a.md").is_symlink()
