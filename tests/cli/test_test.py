"""`test`: the real command."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

import polar_iac.plan
from tests.support.build import meter
from tests.support.command import Workspace
from tests.support.served_polar import Served

SCHEMA = json.loads((Path(polar_iac.plan.__file__).parent / "plan.schema.json").read_text())

TESTS = """\
version: 1
tests:
  - {name: one, meter: calls, given: [{name: call}], expect: {total: %d}}
  - {name: two, meter: calls, given: [{name: call, counted: true}]}
"""


def test_it_exits_0_3_or_1_and_writes_what_was_asked_for(workspace: Workspace) -> None:
    workspace.write({"calls": meter()})
    nothing = workspace.run("test")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "there is no *.test.yaml beside meters.yaml" in nothing.stderr
    (workspace.path / "a.test.yaml").write_text(TESTS % 1)
    assert workspace.ok("test") == "2 tests passed.\n"
    (workspace.path / "b.test.yaml").write_text(TESTS % 2)
    failed = workspace.run("test", "--report", "json=out.json", "--report", "text=out.txt")
    assert failed.returncode == 3
    assert failed.stdout.startswith("b.test.yaml:3:5: failed: calls: one\n")
    assert failed.stdout.endswith("1 of 4 tests failed.\n")
    assert (workspace.path / "out.txt").read_text() == failed.stdout
    document = json.loads((workspace.path / "out.json").read_text())
    assert (document["passed"], document["failed"]) == (3, 1)
    # The reports may be written again, and other files are not.
    assert workspace.run("test", "--report", "text=out.txt").returncode == 3
    assert workspace.run("test", "--report", "text=meters.yaml").returncode == 1
    annotated = workspace.run("test", "--format", "json", "-k", "one", GITHUB_ACTIONS="true")
    assert len(json.loads(annotated.stdout)["tests"]) == 2
    assert "::error file=b.test.yaml,line=3,col=5,title=Polar meters%3A a test failed::calls: one" in (
        annotated.stderr
    )


def test_mistakes_of_all_files_are_shown_and_nothing_is_run(workspace: Workspace) -> None:
    workspace.write({"calls": meter()})
    for name in ("a", "b"):
        (workspace.path / f"{name}.test.yaml").write_text(TESTS.replace("meter: calls", "meter: cals") % 1)
    done = workspace.run("test", "a.test.yaml", "b.test.yaml", "none.test.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    for place in ("a.test.yaml:3:24", "a.test.yaml:4:24", "b.test.yaml:3:24", "b.test.yaml:4:24"):
        assert f"{place}: error: meters.yaml has no meter `cals`: did you mean `calls`?" in done.stderr
    assert "none.test.yaml not found" in done.stderr


def test_a_choice_of_nothing_is_no_success(workspace: Workspace) -> None:
    workspace.write({"calls": meter(), "other": meter(name="Other")})
    (workspace.path / "a.test.yaml").write_text(TESTS % 1)
    assert "there is no test of other: nothing was tested" in workspace.run("test", "--meter", "other").stderr
    assert "did you mean calls?" in workspace.run("test", "--meter", "call").stderr
    assert workspace.run("test", "-k", "three").returncode == 1
    assert workspace.ok("test", "-k", "tw", "--meter", "calls") == "1 test passed.\n"
    assert "text or json" in workspace.run("test", "--report", "markdown=x.md").stderr


def test_coverage_fails_under_a_share_and_generated_tests_reach_it(workspace: Workspace) -> None:
    workspace.write({"calls": meter(), "other": meter(name="Other")})
    (workspace.path / "a.test.yaml").write_text(TESTS % 1)
    assert workspace.ok("test", "--coverage").endswith(" clauses and aggregations (25%).\n")
    low = workspace.run("test", "--fail-under", "50")
    assert low.returncode == 3
    assert "Tests must hold 50% of them (--fail-under)." in low.stderr
    annotated = workspace.run("test", "--coverage", "--format", "json", GITHUB_ACTIONS="true")
    assert json.loads(annotated.stdout)["coverage"]["held"] == 1
    assert "::warning file=meters.yaml,line=" in annotated.stderr
    done = workspace.run("test", "--generate", "calls", "--generate", "other")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Wrote 4 tests to meters.test.yaml. They expect what the meters do today" in done.stderr
    assert workspace.ok("test", "--fail-under", "100").endswith(" (100%).\n")
    assert workspace.ok("test", "meters.test.yaml", "--coverage", "--meter", "calls").endswith(
        "2 of 2 clauses and aggregations (100%).\n"
    )


def test_a_file_is_not_generated_into_where_it_would_mean_something_else(workspace: Workspace) -> None:
    workspace.write({"calls": meter()})
    text = "version: 1\ndefaults: {source: system}\ntests: []\n"
    (workspace.path / "meters.test.yaml").write_text(text)
    done = workspace.run("test", "--generate", "calls")
    assert done.returncode == 1
    assert "meters.test.yaml has `defaults`" in done.stderr
    assert (workspace.path / "meters.test.yaml").read_text() == text
    assert "did you mean calls" in workspace.run("test", "--generate", "call").stderr
    assert "names one file" not in workspace.run("test", "--generate", "calls", "new.test.yaml").stderr
    assert (workspace.path / "new.test.yaml").exists()


def test_a_plan_says_in_one_line_what_came_of_the_tests(workspace: Workspace, polar: Served) -> None:
    workspace.write({"calls": meter()})
    assert "test" not in workspace.ok("plan", "-e", "sandbox").lower()
    (workspace.path / "a.test.yaml").write_text(TESTS % 1)
    assert "\nTests: 2 tests passed.\n" in workspace.ok("plan", "-e", "sandbox")
    (workspace.path / "a.test.yaml").write_text(TESTS % 2)
    reports = ("--report", "markdown=p.md", "--report", "json=p.json", "--out", "saved.json")
    done = workspace.run("plan", "-e", "sandbox", *reports, GITHUB_ACTIONS="true")
    assert done.returncode == 0
    assert "\nTests: 1 of 2 tests failed.\n" in done.stdout
    assert "::error file=a.test.yaml,line=3,col=5,title=Polar meters%3A a test failed::" in done.stderr
    assert "🛑 **1 of 2 tests failed** (`polar-iac test` shows why)." in (workspace.path / "p.md").read_text()
    document = json.loads((workspace.path / "p.json").read_text())
    jsonschema.validate(document, SCHEMA)
    assert document["tests"] == {"passed": 1, "failed": 1, "errors": 0}
    # A saved plan is shown as it was, and applied: tests are in no digest.
    assert "\nTests: 1 of 2 tests failed.\n" in workspace.ok("show", "saved.json")
    (workspace.path / "a.test.yaml").write_text("tests: {}")
    assert "1 created" in workspace.ok("apply", "saved.json", "-y")
    broken = workspace.ok("plan", "-e", "sandbox")
    assert "\nTests: no test was run: the files of tests have 2 errors.\n" in broken
    assert polar.tape.count("POST") == 1
