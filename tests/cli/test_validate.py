"""`validate` and `explain` as commands: findings, formats and exit codes."""

from __future__ import annotations

import json

import pytest

from tests.support.build import manifest_text, meter
from tests.support.command import Workspace

QUOTED = meter(
    filter={"conjunction": "and", "clauses": [{"property": "tokens", "operator": "gt", "value": "5"}]}
)


@pytest.fixture
def quoted(workspace: Workspace) -> Workspace:
    workspace.write({"calls": QUOTED})
    return workspace


def test_a_warning_has_its_place_its_rule_and_its_line(quoted: Workspace) -> None:
    done = quoted.run("validate")
    assert (done.returncode, done.stdout) == (0, "meters.yaml: 1 meter is valid, with 1 warning.\n")
    head, line, caret = done.stderr.splitlines()
    assert head.startswith('meters.yaml:13:22: warning: [PI201 quoted-number] `tokens > "5"` compares texts')
    assert line == '   13 |             "value": "5"'
    assert caret == "      |                      ^^^"


def test_strict_fails_for_warnings_and_for_errors(quoted: Workspace) -> None:
    assert quoted.run("validate", "--strict", "-q").returncode == 3
    quoted.write({"calls": QUOTED}, lint={"strict": True})
    assert quoted.run("validate").returncode == 3
    quoted.write({"calls": QUOTED}, lint={"strict": True, "ignore": ["PI201"]})
    assert quoted.run("validate").returncode == 0
    (quoted.path / "meters.yaml").write_text("version: 2\n")
    assert quoted.run("validate").returncode == 1
    assert quoted.run("validate", "--strict").returncode == 3
    assert quoted.run("validate", "--strict", "none.yaml").returncode == 1


def test_infos_are_shown_with_v_alone(workspace: Workspace) -> None:
    workspace.write({"calls": meter(aggregation={"func": "max", "property": "bytes"})})
    assert workspace.run("validate", "--strict").stderr == ""
    verbose = workspace.run("validate", "--strict", "-v")
    assert verbose.returncode == 0
    assert ": info: [PI406 per-customer] max is computed" in verbose.stderr


def test_json_has_every_finding(quoted: Workspace) -> None:
    (quoted.path / "bad.yaml").write_text(manifest_text({"a": meter(name="A\n\0")}))
    done = quoted.run("validate", "meters.yaml", "bad.yaml", "none.yaml", "--format", "json")
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    findings = document.pop("findings")
    assert document == {
        "format_version": 1,
        "errors": 2,
        "warnings": 1,
        "infos": 0,
        "files": [
            {"file": "meters.yaml", "meters": 1},
            {"file": "bad.yaml", "meters": None},
            {"file": "none.yaml", "meters": None},
        ],
    }
    assert [(f["severity"], f["code"], f["name"]) for f in findings] == [
        ("warning", "PI201", "quoted-number"),
        ("error", "PI602", "invisible-character"),
        ("error", None, None),
    ]
    assert findings[0]["source"] == {"file": "meters.yaml", "line": 13, "column": 22}
    assert findings[2]["source"] is None


def test_github_gets_annotations(quoted: Workspace) -> None:
    done = quoted.run("validate", "--format", "github", GITHUB_ACTIONS="true")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "::warning file=meters.yaml,line=13,col=22,title=polar-iac::[PI201 quoted-number] `tokens"
    )


def test_plan_says_the_same_with_the_same_code(quoted: Workspace) -> None:
    assert 'warning: [PI201 quoted-number] `tokens > "5"`' in quoted.ok("plan", "-e", "local")


def test_explain_knows_names_and_codes(workspace: Workspace) -> None:
    page = workspace.ok("explain", "quoted-number")
    assert page.startswith("PI201 quoted-number (warning, types)\n")
    assert workspace.ok("explain", "pi201") == page
    assert "PI201  quoted-number" in workspace.ok("explain")
    wrong = workspace.run("explain", "quoted-nmber")
    assert wrong.returncode == 1
    assert wrong.stderr == "error: there is no rule quoted-nmber: did you mean quoted-number?\n"
