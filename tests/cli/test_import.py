"""`import` as a team with meters uses it: everything is taken over, and nothing is changed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.manifest.test_adopt import SAMPLE, recorded_meters
from tests.support.build import identifier, meter
from tests.support.command import Workspace
from tests.support.organization import Organization
from tests.support.served_polar import Answer, Served, answer_json, scripted


def clause(name: str, operator: str, value: Any) -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def clicked(number: int) -> dict[str, Any]:
    """A meter as Polar's dashboard makes it: its form wraps the clauses in groups, and knows no metadata."""
    clauses = [clause("name", "eq", f"event-{number // 2}")]
    if number % 3 == 0:
        clauses.append(clause("status", "lt", 500))
    functions: list[dict[str, Any]] = [{"func": "count"}, {"func": "sum", "property": "metadata.tokens"}]
    return {
        "name": f"Meter {number // 2}",  # of each name there are two
        "filter": {"conjunction": "and", "clauses": [{"conjunction": "or", "clauses": clauses}]},
        "aggregation": functions[number % 2],
    }


class TestTakingOver:
    @pytest.mark.skipif(not SAMPLE.exists(), reason="no recorded exchanges here")
    @pytest.mark.unmeasured
    @pytest.mark.slow
    def test_a_whole_organization_is_taken_over_without_a_change(
        self, workspace: Workspace, polar: Served, organization: Organization
    ) -> None:
        for number in range(60):
            organization.make(clicked(number))
        for recorded in recorded_meters():
            if recorded.marker is None and recorded.spec:
                body = recorded.spec.declared()
                created = {"name": "Any", "filter": body["filter"], "aggregation": body["aggregation"]}
                made = organization.make(created)
                # By a change, since some are what a change left of a meter, and none is created so.
                organization.change(made, **body)
        before = organization.metadata()
        lists = math.ceil(len(before) / 100)

        polar.tape.clear()
        assert f"Imported {len(before)} meters" in workspace.ok(
            "import", "-e", "sandbox", "--all", "--project", "acme", POLAR_ACCESS_TOKEN="polar_oat_ro_x"
        )
        assert [e.method for e in polar.tape.exchanges] == ["GET"] * lists
        assert f"{len(before)} meters are valid, with " in workspace.ok("validate")
        plan = workspace.ok("plan", "-e", "sandbox", "--format", "json")
        counts = json.loads(plan)["summary"]
        assert {action: count for action, count in counts.items() if count} == {"mark": len(before)}

        polar.tape.clear()
        workspace.ok("apply", "-e", "sandbox", "-y")
        asked = [e.method for e in polar.tape.exchanges]
        assert (asked.count("PATCH"), asked.count("POST")) == (len(before), 0)
        # One GET for each marker; the lists are the two before and after the lock is taken, or one.
        assert sum(e.method == "GET" and e.path != "/v1/meters/" for e in polar.tape.exchanges) == len(before)
        assert all(set(e.body) == {"metadata"} for e in polar.tape.exchanges if e.method == "PATCH")
        assert organization.metadata() == before
        last = json.loads(workspace.ok("plan", "-e", "sandbox", "--format", "json"))
        assert (last["changes"], last["summary"]["unchanged"]) == ([], len(before))

    def test_a_second_environment_gets_the_same_keys(
        self, workspace: Workspace, organization: Organization
    ) -> None:
        organization.make(meter(name="API calls", metadata={"team": "ai"}))
        workspace.ok("import", "-e", "production", "--all", "--project", "acme")
        first = (workspace.path / "meters.yaml").read_text()
        assert "Imported 1 meter under a declared key:\n  api-calls  " in workspace.ok(
            "import", "-e", "sandbox", "--all"
        )
        second = (workspace.path / "meters.yaml").read_text()
        assert second.partition("meters:")[2] == first.partition("meters:")[2]
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")

    def test_meters_are_named_by_id_or_name_and_archived_ones_only_so(
        self, workspace: Workspace, organization: Organization
    ) -> None:
        old = organization.make(meter(name="Old one"))
        organization.change(old, is_archived=True)
        organization.make(meter(name="New one"))
        organization.make(meter(name="Another"))
        assert "Imported 2 meters" in workspace.ok("import", "-e", "sandbox", "--all", "--project", "acme")
        assert "old-one" not in (workspace.path / "meters.yaml").read_text()
        assert "Imported 1 meter" in workspace.ok("import", "-e", "sandbox", old.upper(), "--key", "gone")
        assert "  gone:\n    archived: true\n" in (workspace.path / "meters.yaml").read_text()
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")

    def test_every_byte_of_the_manifest_stays(self, workspace: Workspace, organization: Organization) -> None:
        file = workspace.path / "meters.yaml"
        text = (
            "\ufeffversion: 1 # ours\r\nproject: acme\r\nx-a: &a {func: count}\r\n\r\nmeters:\r\n"
            "    one: {name: One, filter: {conjunction: and, clauses: []}, aggregation: *a} # the first\r\n"
        )
        file.write_bytes(text.encode())
        made = organization.make(meter(name="API calls"))
        workspace.ok("import", "-e", "sandbox", "API calls")
        entry = f"import:\r\n  - {{to: api-calls, id: {{sandbox: {made}}}}}\r\n"
        lines = (
            "\n    api-calls:\n      name: API calls\n      filter:\n        conjunction: and\n"
            "        clauses:\n          - {property: name, operator: eq, value: call}\n"
            "      aggregation: {func: count}\n"
        )
        assert file.read_bytes().decode() == (
            text.replace("{func: count}\r\n\r\n", f"{{func: count}}\r\n\r\n{entry}\r\n")
            + lines.replace("\n", "\r\n")
        )


class TestTheList:
    def test_it_shows_what_no_manifest_owns_and_how_to_go_on(
        self, workspace: Workspace, organization: Organization
    ) -> None:
        made = organization.make(meter(name="API calls"))
        organization.make(meter(name="Ours", metadata={"polar_iac": "other/x"}))
        done = workspace.reads_only("import", "-e", "sandbox")
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, f'{made}  "API calls"')
        assert "Ours" not in done.stdout
        assert "1 meter of sandbox without an owner" in done.stderr
        assert "`polar-iac import -e sandbox --all`" in done.stderr
        assert not (workspace.path / "meters.yaml").exists()

    def test_usage_is_asked_once_for_each(self, tmp_path: Path) -> None:
        created = {
            **meter(name="API calls"),
            "metadata": {},
            "id": "7fcc0b52-1111-4111-8111-111111111111",
            "organization_id": "1dbfc517-0bbf-4301-9ba8-555ca42b9737",
            "created_at": "2026-01-02T00:00:00Z",
        }

        def answer(_method: str, path: str, _body: bytes) -> Answer:
            if "quantities" in path:
                return answer_json(200, {"quantities": [], "total": 1234.0})
            return answer_json(200, {"items": [created], "pagination": {"total_count": 1, "max_page": 1}})

        with scripted(answer) as (url, tape):
            workspace = Workspace(tmp_path, {"POLAR_BASE_URL": url, "POLAR_ACCESS_TOKEN": "polar_oat_x"})
            output = workspace.ok("import", "-e", "sandbox", "--usage")
        assert "usage in the last 30 days: 1,234" in output
        (asked,) = [e for e in tape.exchanges if "quantities" in e.path]
        assert "interval=day" in f"{asked.path}?{asked.query}"

    def test_a_dry_run_writes_nothing(self, workspace: Workspace, organization: Organization) -> None:
        organization.make(meter(name="API calls"))
        output = workspace.ok("import", "-e", "sandbox", "--all", "--dry-run")
        assert "+++ meters.yaml\n" in output
        assert "+  api-calls:\n" in output
        assert "Would import 1 meter" in output
        assert not (workspace.path / "meters.yaml").exists()


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["API call"], "did you mean 'API calls'?"),
            (["their"], "did you mean 'Theirs'?"),
            (["Twice"], "2 meters are called 'Twice', so name an id: "),
            (["Theirs"], "has an owner: it bears the marker other/x"),
            (["API calls", "--key", "My key"], "--key takes 1 to 63 of a-z, 0-9, _ and -"),
            (["API calls", "--key", "ours"], "--key ours: this key has a meter here already"),
            (["API calls", "--key", "theirs"], "--key theirs: it is declared for other environments only"),
            (["--all", "--key", "a"], "name one METER with it"),
            (["--all", "--usage"], "--usage is for the list"),
            (["--all", "API calls"], "name some, or write --all"),
            (["--all", "--project", "other"], "meters.yaml is of the project acme already"),
        ],
    )
    def test_each_is_told_and_nothing_is_written(
        self, workspace: Workspace, organization: Organization, arguments: list[str], message: str
    ) -> None:
        for name in ("API calls", "Twice", "Twice"):
            organization.make(meter(name=name))
        organization.make(meter(name="Theirs", metadata={"polar_iac": "other/x"}))
        organization.make(meter(name="Ours", metadata={"polar_iac": "acme/ours"}))
        workspace.write({"ours": meter(name="Ours"), "theirs": meter(environments=["production"])})
        before = (workspace.path / "meters.yaml").read_bytes()
        done = workspace.reads_only("import", "-e", "sandbox", *arguments)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
        assert (workspace.path / "meters.yaml").read_bytes() == before

    @pytest.mark.parametrize("arguments", [[], ["--all"], ["API calls"]])
    def test_with_the_token_of_another_organization_nothing_is_imported(
        self, workspace: Workspace, organization: Organization, arguments: list[str]
    ) -> None:
        """Each meter of sandbox would get a second key, for production."""
        organization.make(meter(name="API calls"))
        workspace.write(
            {"calls": meter(name="API calls")},
            **{"import": [{"to": "calls", "id": {"production": identifier(1)}}]},
        )
        before = (workspace.path / "meters.yaml").read_bytes()
        done = workspace.reads_only("import", "-e", "production", *arguments)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith(
            "error: Polar knows none of the ids that `import` and the lockfile have"
        )
        assert (workspace.path / "meters.yaml").read_bytes() == before

    def test_a_near_miss_that_was_named_is_no_success(
        self, workspace: Workspace, organization: Organization
    ) -> None:
        made = organization.make(meter(name="API calls", aggregation={"func": "sum", "property": "n"}))
        workspace.write({"calls": meter(name="API calls")})
        done = workspace.reads_only("import", "-e", "sandbox", made)
        assert done.returncode == 1
        assert f"polar-iac import -e sandbox {made} --key calls\n" in done.stdout
        assert "Nothing is imported." in done.stderr
        assert workspace.run("import", "-e", "sandbox", "--all").returncode == 0
        assert "Imported 1 meter" in workspace.ok("import", "-e", "sandbox", made, "--key", "calls")

    def test_a_manifest_that_is_wrong_is_not_edited(
        self, workspace: Workspace, organization: Organization
    ) -> None:
        organization.make(meter())
        (workspace.path / "meters.yaml").write_text("version: 1\nproject: acme\nmeters: {a: {}}\n")
        done = workspace.reads_only("import", "-e", "sandbox", "--all")
        assert (done.returncode, "meters.yaml:3:10: error: " in done.stderr) == (1, True)
