"""Hosts: which one a run has, and what each of them offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from polar_iac.ci.github import GitHub
from polar_iac.ci.host import HOSTS, Host, host_for
from polar_iac.ci.none import NoHost
from polar_iac.errors import Diagnostic, ExitCode, SourceSpan
from tests.support.build import desired, meter, plan
from tests.support.comments import read_commands, read_outputs

PROBLEM = Diagnostic(SourceSpan("meters.yaml", 3, 5, 9), "unknown key `x`", "    x: 1")


@pytest.mark.parametrize("variable", HOSTS)
def test_each_host_of_the_table_is_found_by_its_variable(variable: str) -> None:
    host = host_for({variable: "true"})
    assert not isinstance(host, NoHost)
    assert f"{type(host).__module__}.{type(host).__name__}" == HOSTS[variable]
    assert isinstance(host_for({variable: "false"}), NoHost)


def test_outside_ci_nothing_is_published() -> None:
    host = host_for({})
    assert isinstance(host, NoHost)
    plans = [plan(desired({"calls": meter()}), {}, [])]
    assert host.escape("::error::x") == "::error::x"
    assert host.summary_room() == 0
    assert host.publish_plans(plans, "meters.yaml", several=False) == ""
    assert host.publish_results(plans[0], []) == ""
    assert host.publish_error(ExitCode.ERROR, "x", [PROBLEM], "x") == ""


def test_github_gets_summary_and_outputs(tmp_path: Path) -> None:
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    host: Host = GitHub({"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)})
    planned = plan(desired({"calls": meter()}), {}, [])
    assert host.publish_plans([planned], "meters.yaml", several=False) == ""
    assert "1 to create" in summary.read_text(encoding="utf-8")
    assert read_outputs(output.read_text(encoding="utf-8"))["digest"] == planned.digest
    assert host.summary_room() == 1_000_000 - summary.stat().st_size


def test_github_takes_no_summary_without_a_summary_file() -> None:
    host = GitHub({})
    assert host.summary_room() == 0
    assert host.publish_error(ExitCode.ERROR, "no token", [], "error: no token\n") == (
        "::error title=polar-iac::no token\n"
    )


def test_errors_are_annotated_at_their_lines(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    host = GitHub({"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_WORKSPACE": str(Path.cwd())})
    (command,) = read_commands(host.publish_error(ExitCode.REFUSED, "all", [PROBLEM], "the text\n"))
    assert command.message == "unknown key `x`"
    assert command.properties["line"] == "3"
    assert "### 🛑 Polar meters: refused, and nothing was done" in summary.read_text(encoding="utf-8")
    assert "the text" in summary.read_text(encoding="utf-8")
