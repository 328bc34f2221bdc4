"""The command on a terminal: its width, the prompt, the bar, one line instead of thousands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from polar_iac.apply.events import Skipped
from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.layout import display_width
from polar_iac.report.results import skipped_text
from polar_iac.report.text import plan_text
from tests.support.build import desired, live, meter, plan, record
from tests.support.command import COMMAND, Workspace, clean_environment, on_terminal
from tests.support.served_polar import Served

pytestmark = pytest.mark.unmeasured  # real processes, through lines that the prompts of test_commands measure


class TestAtAPrompt:
    def test_ctrl_c_at_the_prompt_exits_as_interrupted(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        code, output = on_terminal(workspace, "apply", "-e", "sandbox", answer="\x03")
        assert code == 130
        assert "interrupted" in output
        assert polar.tape.count("POST") == 0

    def test_the_prompt_counts_the_changes(self, workspace: Workspace) -> None:
        workspace.write({f"m{n}": meter() for n in range(3)})
        code, output = on_terminal(workspace, "apply", "-e", "sandbox", answer="n\n")
        assert code == 1
        assert "Apply these 3 changes to sandbox? [y/N]" in output


def test_nothing_is_left_on_the_line_when_there_is_nothing_to_do(workspace: Workspace) -> None:
    workspace.write({"a": meter()})
    workspace.ok("apply", "-e", "sandbox", "-y")
    code, output = on_terminal(workspace, "apply", "-e", "sandbox", "-y")
    assert code == 0
    assert output.endswith("1 meter matches the manifest.\r\n")


def test_a_narrow_terminal_breaks_no_words(workspace: Workspace) -> None:
    workspace.write({"a": meter(metadata={f"key-{n}": "some value" for n in range(9)})})
    code, output = on_terminal(workspace, "plan", "-e", "sandbox", columns=60)
    assert code == 0
    lines = click.unstyle(output).splitlines()
    assert max(map(display_width, lines)) <= 60, max(lines, key=display_width)
    assert sum("key-" in line for line in lines) > 2


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_every_line_fits_the_terminals_width(width: int) -> None:
    clauses = [{"property": "tokens", "operator": "gte", "value": n} for n in (1, 2)]
    recorded = {"calls": record(1, name="Before"), "gone": record(2)}
    planned = plan(
        desired({"calls": meter(name="After", filter={"conjunction": "or", "clauses": clauses})}),
        recorded,
        [live(1, name="Before"), live(2, "gone")],
    )
    longest = max(planned.changes, key=lambda change: len(change.reason or ""))
    lines = click.unstyle(plan_text(planned, "meters.yaml", width)).splitlines()
    prose = [line for line in lines if line.startswith("      ") and "→" not in line]
    assert max(map(display_width, prose)) <= max(width, len(max((longest.reason or "").split(), key=len)) + 6)
    assert {line.split()[0] for line in lines if re.match("  [~!+-] ", line)} == {"~", "!"}


def test_the_caret_is_under_the_marked_text_at_any_width() -> None:
    line = "    - {property: tokens, operator: gte, value: 2026-01-01, and: something long after it}"
    start = line.index("2026") + 1
    output = click.unstyle(
        diagnostics_text([Diagnostic(SourceSpan("m.yaml", 7, start, start + 10), "x", line)], 50)
    )
    _, excerpt, caret = output.splitlines()
    assert max(map(len, (excerpt, caret))) <= 50
    assert excerpt[caret.index("^") : caret.rindex("^") + 1] == "2026-01-01"


def test_many_meters_skipped_for_one_reason_share_a_line() -> None:
    output = click.unstyle(skipped_text([Skipped(f"m{n:04}", "create", "SIGINT") for n in range(1678)]))
    assert output == "  ! m0000, m0001, m0002, m0003, m0004 and 1,673 more left as they are: SIGINT\n"


class TestStreams:
    def test_a_full_disk_behind_stdout_is_reported(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        with Path("/dev/full").open("w") as full:
            import subprocess

            done = subprocess.run(
                [*COMMAND, "plan", "-e", "sandbox"],
                cwd=workspace.path,
                env=clean_environment(**workspace.environ),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert "error: cannot write to stdout: No space left on device" in done.stderr
        assert "itself failed" not in done.stderr

    def test_a_saved_plan_is_announced(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "sandbox", "--out", "p.json")
        assert "Saved as p.json: `polar-iac apply p.json` does exactly this, or nothing." in done.stderr
        assert "Saved" not in workspace.run("plan", "-e", "sandbox", "--out", "p.json", "-q").stderr

    def test_the_digest_that_the_text_shows_is_taken(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        digest = re.search(r"(?m)^Digest: ([0-9a-f]{32})$", workspace.ok("plan", "-e", "sandbox"))
        assert digest is not None
        workspace.ok("apply", "-e", "sandbox", "-y", "--digest", digest[1])
        assert polar.tape.count("POST") == 1


class TestUsage:
    def test_an_apply_takes_one_environment(self, workspace: Workspace, polar: Served) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("apply", "-e", "sandbox", "-e", "local", "-y")
        assert done.returncode == 1
        assert "this takes one environment" in done.stderr
        assert not polar.tape.exchanges
        workspace.ok("apply", "-e", "sandbox", "-e", "sandbox", "-y")

    @pytest.mark.parametrize(
        ("target", "message"),
        [("old", "this key was moved to calls: use --target calls"), ("cals", "did you mean calls?")],
    )
    def test_an_unknown_target_is_refused(self, workspace: Workspace, target: str, message: str) -> None:
        workspace.write({"calls": meter()}, moved=[{"from": "old", "to": "calls"}])
        done = workspace.run("plan", "-e", "sandbox", "--target", target)
        assert done.returncode == 1
        assert message in done.stderr

    def test_a_lockfile_in_a_missing_directory_is_refused(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "local", "--lockfile", "none/x.json")
        assert done.returncode == 1
        assert "there is no directory none" in done.stderr

    def test_a_token_of_another_service_is_refused(self, workspace: Workspace) -> None:
        workspace.write({"a": meter()})
        done = workspace.run("plan", "-e", "sandbox", POLAR_ACCESS_TOKEN="s3cret")
        assert done.returncode == 1
        assert "not an organization access token (polar_oat_…)" in done.stderr
        assert "s3cret" not in done.stderr
