"""The steps of the action `apply`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from polar_iac.ci.checkout import read_state, require_tip
from polar_iac.ci.github_api import GitHubApi
from polar_iac.ci.inputs import after_apply, apply_arguments, check_apply, check_environments, read_inputs
from polar_iac.ci.keep_lockfiles import Keeper
from polar_iac.cli.ci.step import enter, scratch_directory, step, summarize, tell, write_outputs
from polar_iac.cli.output import print_message
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode
from polar_iac.manifest import read as manifest


@step
@click.argument("directory", type=click.Path(path_type=Path))
def begin(directory: Path) -> int:
    """Check what is to be applied, and say how.

    DIRECTORY gets a file for each environment with the arguments of `polar-iac`, each ended by a zero byte:
    `0-sandbox`, `1-production`. What the lockfiles are now is the base of a merge when others have pushed.
    """
    inputs = read_inputs(os.environ)
    checkout = enter(inputs)
    check_apply(os.environ, inputs)
    check_environments(inputs, manifest.read(Path(inputs.file)).environments)
    require_tip(checkout)
    read_state(checkout, GitHubApi(os.environ))
    base, audit = scratch_directory("base"), scratch_directory("audit")
    for number, environment in enumerate(inputs.environments):
        if checkout.lockfile(environment).exists():
            (base / environment).write_bytes(checkout.lockfile(environment).read_bytes())
        words = apply_arguments(os.environ, inputs, environment, str(audit / f"{environment}.json"))
        data = b"".join(os.fsencode(word) + b"\0" for word in words)
        (directory / f"{number}-{environment}").write_bytes(data)
    # No two artifacts of a workflow run have one name.
    artifact = "-".join(("polar-iac-audit", *inputs.environments, audit.name.rpartition(".")[2]))
    write_outputs({"base": str(base), "audit": str(audit), "artifact": artifact})
    return ExitCode.OK


@step
@click.argument("environment")
@click.argument("code", type=int)
def stopped(environment: str, code: int) -> int:
    """Explain why an apply ended, and what was left."""
    for message in after_apply(code, environment, read_inputs(os.environ).environments):
        tell("error", message)
        summarize(message)
    return ExitCode.OK


@step
def keep() -> int:
    """Push the lockfiles that an apply has written."""
    variables = os.environ
    checkout = enter(read_inputs(variables))
    keeper = Keeper(
        checkout, Path(variables["BASE"]), GitHubApi(variables), SystemClock(), variables, print_message
    )
    sys.stdout.write(keeper.keep())
    return ExitCode.OK
