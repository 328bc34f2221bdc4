"""`test`: the real command."""

from __future__ import annotations

import json

from tests.support.build import meter
from tests.support.command import Workspace

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
