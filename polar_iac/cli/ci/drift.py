"""The steps of the action `drift`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from polar_iac.ci.checkout import catch_up, read_state
from polar_iac.ci.git import GitError
from polar_iac.ci.github_api import GitHubApi, GitHubError
from polar_iac.ci.inputs import read_inputs
from polar_iac.ci.issue import REMEDY, found_outputs, update_issue
from polar_iac.cli.check import check as check_command
from polar_iac.cli.ci.step import enter, run_command, scratch_directory, step, write_outputs
from polar_iac.errors import ExitCode, PolarIacError


@step
def drift() -> int:
    """Look for drift, and for what else is wrong."""
    inputs = read_inputs(os.environ)
    checkout = enter(inputs)
    with suppress(GitError):
        catch_up(checkout)  # a re-run sees what was recorded since
    read_state(checkout, GitHubApi(os.environ))
    reports = scratch_directory("drift")
    found, report = reports / "check.json", reports / "check.md"
    arguments = ["--file", inputs.file, "--report", f"json={found}", "--report", f"markdown={report}"]
    arguments += [word for environment in inputs.environments for word in ("--env", environment)]
    code = run_command(check_command, arguments)
    if not found.exists():
        return code
    write_outputs(found_outputs(json.loads(found.read_bytes())["check"], code, str(report)))
    return ExitCode.OK if code == ExitCode.CHECK_FAILED else code


@step
def issue() -> int:
    """Open, update or close the issue about what is wrong."""
    variables = os.environ
    report = Path(variables["REPORT"]).read_text(encoding="utf-8")
    try:
        sys.stdout.write(
            update_issue(
                variables,
                GitHubApi(variables),
                report,
                drift=variables["DRIFT"] == "true",
                other=variables["FINDINGS"] != "0",
            )
        )
    except GitHubError as error:
        raise PolarIacError(error.explained("the issue", REMEDY)) from error
    return ExitCode.OK
