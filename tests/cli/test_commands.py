"""The command as people and scripts use it: a subprocess against a served Polar."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import polar_iac.plan
from polar_iac.local import LocalPolar, RateLimit
from tests.support import openapi
from tests.support.build import ORGANIZATION, identifier, meter, spec_of
from tests.support.command import (
    COMMAND,
    Workspace,
    clean_environment,
    measured,
    on_terminal,
    serve_command,
)
from tests.support.served_polar import Answer, Served, answer_json, scripted, served_polar

SCHEMA = json.loads((Path(polar_iac.plan.__file__).parent / "plan.schema.json").read_text())
FILTER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


class TestTheMainJob:
    def test_create_then_nothing_to_do(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"calls": meter(), "tokens": meter(name="Tokens", metadata={"team": "ai"})})
        plan = workspace.ok("plan", "-e", "sandbox")
        assert "Plan: 2 to create, 0 to update, 0 to archive. 0 unchanged." in plan
        assert polar.tape.count("POST") == 0
        assert "Apply: 2 created." in workspace.ok("apply", "-e", "sandbox", "-y")
        assert "No changes. 2 meters match the manifest." in workspace.ok("plan", "-e", "sandbox")
        assert "No changes. 2 meters match the manifest." in workspace.ok(
            "plan", "-e", "sandbox", "--offline"
        )
        lock = workspace.lock()
        assert set(lock) == {"version", "environment", "organization_id", "project", "meters"}
        assert lock["organization_id"] == polar.polar.organization_id
        assert lock["meters"]["calls"]["spec"]["archived"] is False
        polar.tape.clear()
        assert "No changes" in workspace.ok("apply", "-e", "sandbox", "-y")
        assert {e.method for e in polar.tape.exchanges} == {"GET"}

    def test_local_needs_no_account_and_no_network(self, tmp_path: Path) -> None:
        workspace = Workspace(
            tmp_path, {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        )
        workspace.write({"calls": meter()})
        assert "1 created" in workspace.ok("apply", "-e", "local", "-y")
        assert "No changes. 1 meter matches the manifest." in workspace.ok("plan", "-e", "local")
        assert (tmp_path / ".polar-iac" / ".gitignore").read_text() == "*\n"

    def test_the_example_manifest_is_applied_and_then_unchanged(self, tmp_path: Path) -> None:
        example = Path(__file__).parents[2] / "meters.yaml"
        (tmp_path / "meters.yaml").write_bytes(example.read_bytes())
        workspace = Workspace(tmp_path, {})
        assert "8 meters are fine" in workspace.ok("validate")
        workspace.ok("apply", "-e", "local", "-y")
        assert "No changes" in workspace.ok("plan", "-e", "local")

    @pytest.mark.parametrize(
        "documented",
        [
            {
                "name": "<value>",
                "filter": {
                    "conjunction": "or",
                    "clauses": [{"property": "<value>", "operator": "ne", "value": "<value>"}],
                },
                "aggregation": {"func": "sum", "property": "<value>"},
            },
            {
                "name": "<value>",
                "filter": {"conjunction": "or", "clauses": []},
                "aggregation": {"func": "count"},
            },
        ],
    )
    def test_the_documentations_own_bodies_are_sent(self, tmp_path: Path, documented: dict[str, Any]) -> None:
        """An answer as the documentation shows it, without unit or archived_at, is accepted."""

        def answer(method: str, _path: str, _body: bytes) -> Answer:
            if method == "GET":
                return answer_json(200, {"items": [], "pagination": {"total_count": 0, "max_page": 0}})
            response = {
                "metadata": {},
                "created_at": "2023-11-07T05:31:56Z",
                "modified_at": "2023-11-07T05:31:56Z",
                "id": identifier(1),
                "organization_id": ORGANIZATION,
            }
            return answer_json(201, {**documented, **response})

        with scripted(answer) as (url, tape):
            workspace = Workspace(tmp_path, {"POLAR_BASE_URL": url, "POLAR_ACCESS_TOKEN": "polar_oat_x"})
            workspace.write({"k": documented})
            workspace.ok("apply", "-e", "sandbox", "-y", "--lookup-timeout", "0.1", "--resend-after", "0.1")
        assert tape.sent("POST") == [{**documented, "metadata": {"polar_iac": "acme/k"}}]
        assert workspace.lock()["meters"]["k"]["id"] == identifier(1)
        openapi.check([("POST", tape.sent("POST")[0])])

    @openapi.needed
    def test_every_body_that_is_sent_fits_the_openapi_document(
        self, workspace: Workspace, polar: Served
    ) -> None:
        custom = {"unit": "custom", "custom_label": "call", "custom_multiplier": 10}
        workspace.write({"a": meter(**custom, metadata={"x": 1.5, "y": True}), "b": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter(metadata={"x": 2}, filter=FILTER), "b": meter(archived=True)})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter(), "b": meter(name="Back again")})
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert (polar.tape.count("POST"), polar.tape.count("PATCH")) == (2, 4)
        openapi.check((e.method, e.body) for e in polar.tape.exchanges)

    @pytest.mark.unmeasured
    def test_a_thousand_meters_take_few_requests(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({f"m{n}": meter(name=f"Meter {n}") for n in range(1000)})
        workspace.ok("apply", "-e", "sandbox", "-y", "-q")
        assert polar.tape.count("POST") == 1000
        assert len(polar.tape.exchanges) - 1000 <= 30
        polar.tape.clear()
        assert "1,000 meters match" in workspace.ok("plan", "-e", "sandbox")
        assert [e.method for e in polar.tape.exchanges] == ["GET"] * 10


class TestFrozen:
    def test_a_billed_meter_can_be_renamed(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"calls": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        polar.polar.freeze(workspace.lock()["meters"]["calls"]["id"])
        workspace.write({"calls": meter(name="Renamed")})
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert polar.tape.sent("PATCH") == [{"name": "Renamed"}]

    def test_leaving_custom_sends_explicit_nulls(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"calls": meter(unit="custom", custom_label="call", custom_multiplier=10)})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"calls": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert polar.tape.sent("PATCH") == [
            {"unit": "scalar", "custom_label": None, "custom_multiplier": None}
        ]
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")

    def test_a_refused_filter_is_reported_at_its_line_and_remembered(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({"calls": meter(), "other": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        polar.polar.freeze(workspace.lock()["meters"]["calls"]["id"])
        workspace.write({"calls": meter(filter=FILTER, name="Renamed"), "other": meter(name="Renamed too")})
        done = workspace.run("apply", "-e", "sandbox", "-y")
        assert done.returncode == 1
        text = (workspace.path / "meters.yaml").read_text().split("\n")
        line = next(n for n, content in enumerate(text, 1) if '"filter"' in content)
        assert re.search(
            rf"meters\.yaml:{line}:\d+: error: Polar refused `calls`: .*already aggregating", done.stdout
        )
        assert "other updated" in done.stdout
        assert workspace.lock()["meters"]["calls"]["frozen"] is True
        assert workspace.lock()["meters"]["calls"]["spec"]["name"] == "API calls"
        polar.tape.clear()
        for options in ([], ["--offline"]):
            again = workspace.run("plan", "-e", "sandbox", "--detailed-exitcode", *options)
            assert again.returncode == 2
            assert "1 blocked" in again.stdout
            assert "Polar refuses a filter change (frozen)" in again.stdout
        blocked = workspace.run("apply", "-e", "sandbox", "-y")
        assert blocked.returncode == 1
        assert re.search(
            rf"^meters\.yaml:{line}:\d+: error: `calls` is blocked: filter differs, but Polar has frozen",
            blocked.stdout,
            re.MULTILINE,
        )
        assert polar.tape.count("PATCH") == 0
        workspace.write({"calls": meter(name="Renamed"), "other": meter(name="Renamed too")})
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert polar.tape.sent("PATCH") == [{"name": "Renamed"}]
        assert workspace.lock()["meters"]["calls"]["frozen"] is True


class TestJson:
    def test_the_plan_json_matches_its_schema(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter(), "b": meter(), "c": meter(), "d": meter(), "e": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        polar.polar.freeze(workspace.lock()["meters"]["d"]["id"])
        workspace.write(
            {"a": meter(name="Renamed", filter=FILTER), "b": meter(archived=True), "d": meter(filter=FILTER)}
        )
        workspace.run("apply", "-e", "sandbox", "-y", "--target", "d")
        workspace.write(
            {
                "a": meter(name="Renamed", filter=FILTER, metadata={"a": 1}),
                "b": meter(archived=True),
                "d": meter(filter=FILTER),
                "f": meter(unit="custom", custom_label="x", metadata={"b": True}),
                "g": meter(),
            },
            moved=[{"from": "c", "to": "g"}],
        )
        documents = [
            json.loads(workspace.run("plan", "-e", "sandbox", "--format", "json", *more).stdout)
            for more in ([], ["--offline"])
        ]
        for document in documents:
            jsonschema.validate(document, SCHEMA, format_checker=jsonschema.FormatChecker())
        live, _ = documents
        assert {c["key"]: c["action"] for c in live["changes"]} == {
            "a": "update", "b": "archive", "d": "blocked", "e": "blocked", "f": "create", "g": "mark",
        }  # fmt: skip
        assert live["bookkeeping"] == [
            {"key": "g", "action": "moved", "id": workspace.lock()["meters"]["c"]["id"], "was": "c"}
        ]
        assert live["summary"] == {
            "create": 1, "update": 1, "archive": 1, "unarchive": 0, "mark": 1, "settle": 0, "blocked": 2,
            "unchanged": 0,
        }  # fmt: skip
        assert live["refreshed"] is True
        update = live["changes"][0]
        assert [f["path"] for f in update["fields"]] == ["filter", "name", "metadata.a"]
        assert update["fields"][0]["source"]["file"] == "meters.yaml"

    def test_the_schema_refuses_an_incomplete_plan(self) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"format_version": 1}, SCHEMA)


class TestRefusals:
    def test_an_unlisted_removal_refuses_the_whole_apply(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter(), "b": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter(name="Renamed")})
        polar.tape.clear()
        done = workspace.run("apply", "-e", "sandbox", "-y")
        assert done.returncode == 5
        assert "archived: true" in done.stderr
        assert "--allow-archive" in done.stderr
        assert polar.tape.count("PATCH") == 0
        workspace.ok("apply", "-e", "sandbox", "-y", "--allow-archive")
        assert "No changes. 1 meter matches" in workspace.ok("plan", "-e", "sandbox")
        assert set(workspace.lock()["meters"]) == {"a"}

    def test_max_changes_does_not_count_blocked_meters(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter(), "b": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        polar.polar.freeze(workspace.lock()["meters"]["a"]["id"])
        workspace.write({"a": meter(filter=FILTER), "b": meter()})
        assert workspace.run("apply", "-e", "sandbox", "-y").returncode == 1
        workspace.write({"a": meter(filter=FILTER), "b": meter(name="Renamed")})
        refused = workspace.run("apply", "-e", "sandbox", "-y", "--max-changes", "0")
        assert refused.returncode == 5
        assert "the plan has 1 change, and --max-changes allows 0" in refused.stderr
        done = workspace.run("apply", "-e", "sandbox", "-y", "--max-changes", "1")
        assert done.returncode == 1
        assert "1 updated" in done.stdout

    def test_an_apply_that_only_adopts_writes_the_organization(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        (workspace.path / "meters.sandbox.lock.json").unlink()
        assert "1 adopted" in workspace.ok("apply", "-e", "sandbox")
        assert workspace.lock()["organization_id"] == polar.polar.organization_id

    def test_a_pin_of_another_organization_than_the_lockfiles_is_refused(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter()}, environments={"sandbox": {"organization_id": ORGANIZATION}})
        polar.tape.clear()
        for command in (["plan"], ["apply", "-y"]):
            done = workspace.run(*command, "-e", "sandbox")
            assert done.returncode == 5
            assert f"the manifest pins organization {ORGANIZATION}" in done.stderr
        assert polar.tape.exchanges == []

    def test_a_token_that_sees_two_organizations_needs_a_pin(self, tmp_path: Path) -> None:
        def answer(_method: str, _path: str, _body: bytes) -> Answer:
            common: dict[str, Any] = {
                "metadata": {},
                "created_at": "2023-11-07T05:31:56Z",
                "modified_at": None,
            }
            items = [
                {**meter(), **common, "id": identifier(n), "organization_id": identifier(n)} for n in (1, 2)
            ]
            return answer_json(200, {"items": items, "pagination": {"total_count": 2, "max_page": 1}})

        with scripted(answer) as (url, tape):
            workspace = Workspace(
                tmp_path, {"POLAR_BASE_URL": url, "POLAR_ACCESS_TOKEN": "polar_oat_x"}, tape=tape
            )
            workspace.write({"a": meter()})
            assert workspace.reads_only("apply", "-e", "sandbox", "-y").returncode == 5
        assert {e.method for e in tape.exchanges} == {"GET"}

    def test_a_token_of_another_organization_is_refused(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        with served_polar() as other:
            workspace.environ, workspace.tape = other.environ(), other.tape
            with_meters = Workspace(workspace.path / "x", other.environ())
            with_meters.path.mkdir()
            with_meters.write({"theirs": meter()}, project="theirs")
            with_meters.ok("apply", "-e", "sandbox", "-y")
            other.tape.clear()
            for command in ("plan", "apply"):
                done = workspace.run(command, "-e", "sandbox", *(["-y"] if command == "apply" else []))
                assert done.returncode == 5
                assert other.polar.organization_id in done.stderr
            assert {e.method for e in other.tape.exchanges} == {"GET"}

    def test_an_empty_organization_that_is_not_the_pinned_one_is_refused(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write(
            {"a": meter(), "b": meter()}, environments={"sandbox": {"organization_id": ORGANIZATION}}
        )
        done = workspace.run("apply", "-e", "sandbox", "-y")
        assert done.returncode == 1
        assert "is archived" in done.stderr
        assert polar.tape.count("POST") == 1
        assert polar.tape.sent("PATCH") == [{"is_archived": True}]

    def test_recorded_ids_that_polar_does_not_know_are_refused(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        with served_polar(LocalPolar(organization_id=workspace.lock()["organization_id"])) as other:
            workspace.environ, workspace.tape = other.environ(), other.tape
            done = workspace.reads_only(
                "apply", "-e", "sandbox", "-y", "--lookup-timeout", "0.2", "--resend-after", "0.2"
            )
            assert done.returncode == 5
            assert "wrong organization, environment or token" in done.stderr
            assert {e.method for e in other.tape.exchanges} == {"GET"}

    def test_without_a_terminal_y_is_required(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("apply", "-e", "sandbox")
        assert done.returncode == 1
        assert "-y" in done.stderr
        assert polar.tape.count("POST") == 0


class TestAsking:
    @pytest.mark.parametrize(
        ("environment", "answer", "created"),
        [
            ("sandbox", "y", True),
            pytest.param("sandbox", "n", False, marks=pytest.mark.unmeasured),
            pytest.param("sandbox", "", False, marks=pytest.mark.unmeasured),
            pytest.param("production", "y", False, marks=pytest.mark.unmeasured),
            pytest.param("production", "production", True, marks=pytest.mark.unmeasured),
        ],
    )
    def test_the_answer_at_the_prompt_decides(
        self, workspace: Workspace, polar: Served, environment: str, answer: str, created: bool
    ) -> None:
        workspace.write({"a": meter()})
        code, output = on_terminal(workspace, "apply", "-e", environment, answer=f"{answer}\n")
        assert polar.tape.count("POST") == created
        assert code == (0 if created else 1), output
        assert "\x1b[32m" in output

    @pytest.mark.unmeasured
    def test_no_color_turns_colors_off(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        assert "\x1b[" not in on_terminal(workspace, "plan", "-e", "sandbox", "--no-color")[1]
        workspace.environ["NO_COLOR"] = "1"
        assert "\x1b[" not in on_terminal(workspace, "plan", "-e", "sandbox")[1]


class TestExitCodesAndWords:
    def test_detailed_exitcode_is_2_only_with_changes(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        assert workspace.run("plan", "-e", "sandbox").returncode == 0
        assert workspace.run("plan", "-e", "sandbox", "--detailed-exitcode").returncode == 2
        workspace.ok("apply", "-e", "sandbox", "-y")
        assert workspace.run("plan", "-e", "sandbox", "--detailed-exitcode").returncode == 0

    def test_a_plan_that_apply_would_refuse_exits_5_and_is_shown_and_saved(
        self, workspace: Workspace
    ) -> None:
        workspace.write({"a": meter(), "b": meter(name="Second", metadata={"key": "b"})})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter()})
        for options in ([], ["--detailed-exitcode"]):
            refused = workspace.run("plan", "-e", "sandbox", "--out", "plan.json", *options)
            assert refused.returncode == 5
            assert "No changes" not in refused.stdout
            assert "archived: true" in refused.stderr
            assert json.loads((workspace.path / "plan.json").read_text())["refusal"]["keys"] == ["b"]
        assert workspace.run("apply", "plan.json", "-y").returncode == 5
        # A refusal counts more than another environment's changes.
        both = workspace.run("plan", "-e", "local", "-e", "sandbox", "--detailed-exitcode")
        assert both.returncode == 5
        assert "→ local" in both.stdout
        assert workspace.run("plan", "-e", "sandbox", "--allow-archive").returncode == 0

    def test_an_environment_that_cannot_be_planned_hides_no_other(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        down = {"POLAR_BASE_URL_PRODUCTION": "http://127.0.0.1:1"}
        for variables, cause in (
            ({"POLAR_ACCESS_TOKEN_PRODUCTION": "no token"}, "POLAR_ACCESS_TOKEN_PRODUCTION"),
            (down, "127.0.0.1:1"),
        ):
            done = workspace.run(
                "plan", "-e", "production", "-e", "sandbox", "--out", "{env}.json", "--detailed-exitcode",
                "--report", "json=plans.json", **variables,
            )  # fmt: skip
            assert done.returncode == 1
            assert "→ sandbox" in done.stdout
            assert cause in done.stderr
            assert "Not planned: production." in done.stderr
            assert (workspace.path / "sandbox.json").exists()
            assert not (workspace.path / "production.json").exists()
            # The shape is that of what was asked for, also where the file is shown again.
            document = json.loads((workspace.path / "plans.json").read_text())
            jsonschema.validate(document, SCHEMA)
            assert [plan["environment"] for plan in document["plans"]] == ["sandbox"]
            assert json.loads(workspace.ok("show", "plans.json", "--format", "json")) == document
        twice = json.loads(workspace.ok("plan", "-e", "sandbox", "-e", "sandbox", "--format", "json"))
        assert twice["environment"] == "sandbox"

    def test_an_error_counts_more_than_a_refusal(self, workspace: Workspace) -> None:
        workspace.write({"a": meter(), "b": meter(name="Second", metadata={"key": "b"})})
        workspace.ok("apply", "-e", "sandbox", "-y")
        workspace.write({"a": meter()})
        both = ["-e", "sandbox", "-e", "production"]
        assert workspace.run("plan", *both, POLAR_ACCESS_TOKEN_PRODUCTION="no token").returncode == 1
        assert workspace.run("plan", *both[:2], "-e", "local").returncode == 5

    def test_an_error_of_the_manifest_is_reported_once(self, workspace: Workspace) -> None:
        workspace.write({"a": meter(aggregation={"func": "sum"})})
        done = workspace.run("plan", "-e", "sandbox", "-e", "local")
        assert done.returncode == 1
        assert done.stderr.count("error:") == 1
        assert "Not planned" not in done.stderr

    def test_blocked_meters_are_changes_and_no_refusal(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        lockfile = workspace.path / "meters.sandbox.lock.json"
        document = json.loads(lockfile.read_text())
        document["meters"]["a"]["frozen"] = True
        lockfile.write_text(json.dumps(document))
        workspace.write({"a": meter(aggregation={"func": "sum", "property": "tokens"})})
        assert "blocked" in workspace.ok("plan", "-e", "sandbox")
        assert workspace.run("plan", "-e", "sandbox", "--detailed-exitcode").returncode == 2

    def test_bookkeeping_is_not_a_change(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        workspace.ok("apply", "-e", "sandbox", "-y")
        (workspace.path / "meters.sandbox.lock.json").unlink()
        done = workspace.run("plan", "-e", "sandbox", "--detailed-exitcode")
        assert done.returncode == 0
        assert "adopted" in done.stdout
        # Without -y: only the lockfile is written, so there is no prompt.
        assert "1 adopted" in workspace.ok("apply", "-e", "sandbox")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["plan"], "choose an environment"),
            (["plan", "-e", "staging"], "staging"),
            (["plan", "-e", "local", "--nonsense"], "--nonsense"),
            (["nonsense"], "nonsense"),
            (["plan", "-e", "local", "--target", "nobody"], "nobody"),
            (["plan", "-e", "local", "-f", "missing.yaml"], "missing.yaml"),
        ],
    )
    def test_usage_errors_exit_1(self, workspace: Workspace, arguments: list[str], message: str) -> None:
        workspace.write({"a": meter()})
        done = workspace.run(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert not done.stdout
        assert "Traceback" not in done.stderr

    def test_the_environment_variable_chooses_the_environment(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        assert "→ local" in workspace.ok("plan", POLAR_ENVIRONMENT="local")

    def test_the_token_of_the_environment_wins_and_is_never_printed(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="")
        assert done.returncode == 1
        assert "POLAR_ACCESS_TOKEN_SANDBOX" in done.stderr
        workspace.ok(
            "plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="bad", POLAR_ACCESS_TOKEN_SANDBOX="polar_oat_a"
        )
        assert polar.tape.exchanges[-1].headers["authorization"] == "Bearer polar_oat_a"
        done = workspace.run("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="polar_oat_expired_s3cret")
        assert done.returncode == 1
        assert "does not accept the token" in done.stderr
        assert "s3cret" not in done.stderr
        done = workspace.run("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="polar_oat_s3\ncret")
        assert done.returncode == 1
        assert "cret" not in done.stderr

    def test_a_personal_token_wants_the_organization_named(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="polar_pat_x")
        assert done.returncode == 1
        assert "organization_id" in done.stderr
        workspace.write(
            {"a": meter()}, environments={"sandbox": {"organization_id": polar.polar.organization_id}}
        )
        workspace.ok("apply", "-e", "sandbox", "-y", POLAR_ACCESS_TOKEN="polar_pat_x")

    def test_a_read_only_token_plans_and_its_apply_names_the_scope(
        self, workspace: Workspace, polar: Served
    ) -> None:
        workspace.write({f"m{n}": meter() for n in range(20)})
        workspace.ok("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="polar_oat_ro_x")
        done = workspace.run("apply", "-e", "sandbox", "-y", POLAR_ACCESS_TOKEN="polar_oat_ro_x")
        assert done.returncode == 1
        assert "meters:write" in done.stdout
        assert polar.tape.count("POST") <= 5

    def test_quiet_and_verbose_change_how_much_is_printed(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "sandbox", "-v")
        assert "GET http" in done.stderr
        assert "polar_oat" not in done.stderr
        out = ["plan", "-e", "sandbox", "--out", "a.plan"]
        assert "Saved as a.plan" in workspace.run(*out).stderr
        quiet = workspace.run(*out, "-q")
        assert quiet.stderr == ""
        assert "1 to create" in quiet.stdout

    def test_debug_shows_a_traceback_and_no_token(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        done = workspace.run(
            "plan", "-e", "sandbox", "--debug", POLAR_ACCESS_TOKEN="polar_oat_expired_s3cret"
        )
        assert "Traceback" in done.stderr
        assert "s3cret" not in done.stderr

    def test_a_broken_lockfile_is_reported_at_its_line(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        path = workspace.path / "meters.sandbox.lock.json"
        path.write_text("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n")
        done = workspace.run("plan", "-e", "sandbox")
        assert done.returncode == 1
        assert done.stderr.startswith("meters.sandbox.lock.json:1:1: error: a git conflict marker")

    def test_a_wait_for_the_rate_limit_is_shown(self, workspace: Workspace) -> None:
        limited = LocalPolar(rate_limit=RateLimit(3, 1.0))
        with served_polar(limited) as polar:
            workspace.environ = polar.environ()
            workspace.write({f"m{n}": meter() for n in range(5)})
            done = workspace.run("apply", "-e", "sandbox", "-y")
            assert done.returncode == 0
            assert re.search(r"rate limited, continuing in \d+ s", done.stderr)
            assert "rate limited" not in workspace.run("plan", "-e", "sandbox", "-q").stderr

    def test_a_closed_pipe_does_not_stop_an_apply(self, workspace: Workspace, polar: Served) -> None:
        """`polar-iac apply -y | head -1` must not leave billing half changed."""
        workspace.write({f"m{n}": meter() for n in range(5)})
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*COMMAND, "apply", "-e", "sandbox", "-y"],
            cwd=workspace.path,
            env=clean_environment(**workspace.environ, **measured()),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        advice = "Commit meters.sandbox.lock.json: it remembers which Polar meter each key became.\n"
        assert (done.returncode, done.stderr) == (0, advice)
        assert polar.tape.count("POST") == len(workspace.lock()["meters"]) == 5


class TestWhatPolarAdds:
    def test_metadata_that_others_add_is_kept(self, workspace: Workspace, polar: Served) -> None:
        """A key that someone adds between the plan and the PATCH is read just before, and sent back."""
        workspace.write({"a": meter(metadata={"ours": 1})})
        workspace.ok("apply", "-e", "sandbox", "-y")
        meter_id = workspace.lock()["meters"]["a"]["id"]
        from polar_iac.polar.client import PolarClient

        with PolarClient(polar.url, "polar_oat_other") as other:
            metadata = {"ours": 1, "theirs": 1.0, "polar_iac": "acme/a"}
            other.update_meter(meter_id, {"metadata": metadata})
            workspace.write({"a": meter(metadata={"ours": 2})})
            workspace.ok("apply", "-e", "sandbox", "-y")
            assert spec_of(other.get_meter(meter_id)).metadata == {"ours": 2, "theirs": 1.0}
        assert "No changes" in workspace.ok("plan", "-e", "sandbox")


def test_serve_and_the_local_environment_share_one_polar(workspace: Workspace) -> None:
    """`serve` and `-e local` are the same Polar."""
    workspace.write({"a": meter()})
    workspace.ok("apply", "-e", "local", "-y")
    with serve_command(workspace.path) as running:
        environ = {"POLAR_BASE_URL": running.url, "POLAR_ACCESS_TOKEN": "polar_oat_x"}
        listed = json.loads(workspace.ok("plan", "-e", "sandbox", "--format", "json", **environ))
        assert listed["bookkeeping"] == [
            {"key": "a", "action": "adopt", "id": workspace.lock("local")["meters"]["a"]["id"], "was": None}
        ]
    assert running.code == 130
    assert "Traceback" not in running.errors


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["validate"]])
def test_help_and_validate_load_neither_httpx_nor_deepdiff(
    workspace: Workspace, arguments: list[str]
) -> None:
    workspace.write({"a": meter()})
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from polar_iac.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'httpx', 'deepdiff', 'pydantic', 'tenacity'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=workspace.path,
        env=clean_environment(**measured()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("polar")
class TestNextStep:
    def test_a_plan_ends_with_the_command_that_makes_it(self, workspace: Workspace) -> None:
        workspace.write({"calls": meter()})
        assert "Next: `polar-iac apply -e sandbox`\n" in workspace.run("plan", "-e", "sandbox").stderr
        options = ["--lockfile", "a b.json", "--target", "calls", "--allow-archive"]
        planned = workspace.run("plan", "-e", "sandbox", *options)
        assert (
            "Next: `polar-iac apply -e sandbox --lockfile 'a b.json' --target calls --allow-archive`\n"
            in (planned.stderr)
        )
        assert "Next" not in workspace.run("plan", "-e", "sandbox", "-q").stderr
        assert "Next" not in workspace.run("plan", "-e", "sandbox", "--out", "p.json").stderr

    def test_the_first_apply_says_what_to_commit(self, workspace: Workspace) -> None:
        workspace.write({"calls": meter()})
        first = workspace.run("apply", "-e", "sandbox", "-y")
        assert "Commit meters.sandbox.lock.json: it remembers" in first.stderr
        assert "Next" not in workspace.run("plan", "-e", "sandbox").stderr
        workspace.write({"calls": meter(name="New")})
        assert "Commit" not in workspace.run("apply", "-e", "sandbox", "-y").stderr
