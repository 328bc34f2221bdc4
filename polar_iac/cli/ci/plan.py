"""The steps of the action `plan`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from polar_iac.ci.blocked import base_manifest, blocked_keys
from polar_iac.ci.checkout import Checkout, catch_up, merge_base, read_state
from polar_iac.ci.git import GitError
from polar_iac.ci.github_api import GitHubApi
from polar_iac.ci.inputs import read_fail_on, read_inputs, verdict, verdict_on_tests
from polar_iac.ci.plan_outputs import plan_step_outputs
from polar_iac.ci.pull_request import without_secrets
from polar_iac.cli.ci.step import enter, run_command, scratch_directory, step, summarize, tell, write_outputs
from polar_iac.cli.plan import plan as plan_command
from polar_iac.errors import ExitCode
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.plan.model import Plan
from polar_iac.plan.saved import read_plan


@step
def plan() -> int:
    """Plan each environment, and say what it means to later steps."""
    variables = os.environ
    inputs = read_inputs(variables)
    read_fail_on(variables)
    checkout = enter(inputs)
    reports = scratch_directory("plan")
    arguments = ["--file", inputs.file, "--detailed-exitcode"]
    arguments += ["--out", str(reports / "{env}.json"), "--report", f"markdown={reports / 'comment.md'}"]
    arguments += [word for environment in inputs.environments for word in ("--env", environment)]
    arguments += ["--allow-archive"] if variables["INPUT_ALLOW_ARCHIVE"] == "true" else []
    if reason := without_secrets(variables):
        arguments.append("--offline")
        _say_offline(reason)
    # Where a branch is planned, what an apply on it would do now counts: with the lockfiles that were
    # committed since this run began. An old commit may be planned all the same.
    if not variables["PULL_REQUEST"] and variables["GITHUB_REF"] == f"refs/heads/{inputs.branch}":
        with suppress(GitError):
            catch_up(checkout)
    read_state(checkout, GitHubApi(variables))
    code = run_command(plan_command, arguments)
    plans = [read_plan(file) for e in inputs.environments if (file := reports / f"{e}.json").exists()]
    if not plans:
        return code
    head = manifest.read(Path(inputs.file))
    outputs = plan_step_outputs(plans, inputs.environments, head, _manifest_before(checkout, plans))
    files = {"report": str(reports / "comment.md"), "plans": str(reports / "{env}.json")}
    write_outputs({**outputs, **files})
    # A refused plan fails the check after the comment, which says why.
    return ExitCode.OK if code in (ExitCode.CHANGES, ExitCode.REFUSED) else code


def _say_offline(reason: str) -> None:
    text = (
        f"{reason}, so there is no token of Polar: it is planned offline, against the lockfile. What someone "
        "changed at Polar is not seen, and there is no comment."
    )
    tell("notice", text)
    summarize(f"> {text}")


def _manifest_before(checkout: Checkout, plans: Sequence[Plan]) -> Manifest | None:
    """Return the manifest without the pull request, where that is known and matters.

    A meter that somebody else has blocked is no reason to stop this change. On a branch each one counts.
    """
    base, head = os.environ["BASE_SHA"], os.environ["HEAD_SHA"]
    if not base or not blocked_keys(plans):
        return None
    commit = merge_base(checkout.git, base, head)
    if commit is None:
        tell("notice", "what this pull request changes could not be found out, so each blocked meter counts")
        return None
    return base_manifest(checkout.text_at(commit, checkout.manifest_in_repository), checkout.inputs.file)


@step
def judge() -> int:
    """Fail the check of a plan whose merge, or tests, would fail."""
    variables = os.environ
    fail_on = read_fail_on(variables)
    found = [
        verdict(fail_on, refused=variables["REFUSED"] == "true", blocked=variables["BLOCKED"]),
        verdict_on_tests(fail_on, variables["TESTS"]),
    ]
    failed = [one for one in found if one is not None]
    for message, _ in failed:
        tell("error", message)
    return failed[0][1] if failed else ExitCode.OK
