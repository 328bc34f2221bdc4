"""The command `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.error_report import report_error
from polar_iac.cli.inputs import Selection, manifest_name, read_inputs
from polar_iac.cli.output import print_message
from polar_iac.cli.plan_output import gap_text, next_command, output_plans
from polar_iac.cli.terminal import Progress, stopped_by_deadline
from polar_iac.clock import Stop, SystemClock
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.files import write_file
from polar_iac.manifest.model import Manifest
from polar_iac.plan.document import plan_json
from polar_iac.plan.model import MeterTests, Plan
from polar_iac.report.formats import check_replaceable, report_file
from polar_iac.report.text import refusal_text
from polar_iac.report.wording import listed


@command
@options.environments
@options.lockfile
@options.target
@options.allow_archive
@options.connection
@options.facts
@click.option("--offline", is_flag=True, help="Plan against the lockfile alone: no token, no network.")
@options.deadline
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes or blocked meters.")
@click.option(
    "--out", metavar="FILE", help="Save the plan for `apply FILE`; {env} stands for the environment."
)
@options.format_
def plan(
    common: options.Options,
    environments: tuple[str, ...],
    lockfile_path: Path | None,
    targets: tuple[str, ...],
    allow_archive: bool,
    connection: options.Connection,
    facts: options.Facts,
    offline: bool,
    deadline: float | None,
    detailed_exitcode: bool,
    out: str | None,
    format_: str,
    reports: tuple[str, ...],
) -> ExitCode:
    """Show what an apply would change, and why."""
    if len(environments) > 1:
        _check_files_of_several(lockfile_path, out)
    # Now, so that nobody waits for a plan that is not written. It is checked again when it is.
    for file in (*_plan_files(out, environments), *(report_file(report)[1] for report in reports)):
        check_replaceable(file)
    stop = Stop()
    plans = []
    failures: dict[str, ExitCode] = {}
    unplanned = []
    tested: dict[Path, MeterTests | None] = {}
    asked = tuple(dict.fromkeys(environments)) or (None,)
    for environment in asked:
        selection = Selection(common.source, environment, lockfile_path, targets, allow_archive)
        try:
            connected = None if offline else connection
            made = _plan_one(selection, connected, facts, deadline, stop, tested, quiet=common.quiet)
        except PolarIacError as error:
            # One environment's token or server must not hide the plan of another one. An error of the
            # manifest is every environment's, and reported once.
            if str(error) not in failures:
                failures[str(error)] = report_error(error, debug=common.debug)
            unplanned.append(str(environment))
            continue
        plans.append(made)
        if out:
            (file,) = _plan_files(out, [made.environment])
            check_replaceable(file)
            write_file(file, plan_json(made))
            common.say(f"Saved as {file}: `polar-iac apply {file}` does exactly this, or nothing.")
    if plans:
        several = len(asked) > 1
        output_plans(plans, format_, reports, manifest_name(common.source), several=several)
    _say_more(common, plans, lockfile_path, saved=bool(out))
    if unplanned and plans:
        print_message(f"Not planned: {listed(unplanned)}.")
    return _exit_code(plans, [*failures.values()], detailed=detailed_exitcode)


def _say_more(
    common: options.Options, plans: Sequence[Plan], lockfile_path: Path | None, *, saved: bool
) -> None:
    """Say which facts are missing, with -v, and for each plan what comes next."""
    for gap in [gap for made in plans for gap in made.facts_gaps] if common.verbose else ():
        common.say(gap_text(gap))
    for made in plans:
        if made.refusal:
            common.say("`apply` would refuse this plan: " + refusal_text(made))
        elif not saved and (command := next_command(made, str(common.source), lockfile_path)):
            common.say(f"Next: `{command}`")


def _exit_code(plans: Sequence[Plan], failures: Sequence[ExitCode], *, detailed: bool) -> ExitCode:
    """Return the exit code of the plans that were shown, and of the failures of other environments.

    An error counts more than a refusal, and a refusal more than changes.
    """
    codes = [*failures, *(ExitCode.REFUSED for made in plans if made.refusal)]
    if codes:
        return min(codes)
    return ExitCode.CHANGES if detailed and any(made.changes for made in plans) else ExitCode.OK


def _check_files_of_several(lockfile_path: Path | None, out: str | None) -> None:
    """Raise click.UsageError when several environments would share one file."""
    if lockfile_path:
        raise click.UsageError("--lockfile names one file: use it with one environment at a time")
    if out and "{env}" not in out:
        raise click.UsageError("--out names one file for several environments: add {env} to its name")


def _plan_files(out: str | None, environments: Sequence[str]) -> list[Path]:
    return [Path(out.replace("{env}", environment)) for environment in environments] if out else []


def _plan_one(
    selection: Selection,
    connection: options.Connection | None,
    facts: options.Facts,
    deadline: float | None,
    stop: Stop,
    tested: dict[Path, MeterTests | None],
    *,
    quiet: bool,
) -> Plan:
    # Here, so that `plan --help` does not wait for the HTTP client.
    from polar_iac.cli.session import plan_once

    inputs = read_inputs(selection)
    if selection.file not in tested:
        tested[selection.file] = _tested(selection.file, inputs.manifest)
    with Progress("reading", quiet) as progress, stopped_by_deadline(stop, deadline):
        made = plan_once(inputs, selection, connection, facts, SystemClock(stop), progress)
    made = replace(made, tests=tested[selection.file])
    # Standard input is gone when a saved plan is applied: that apply reads the manifest that it is given.
    return replace(made, manifest=None) if selection.file == options.STANDARD_INPUT else made


def _tested(source: Path, manifest: Manifest) -> MeterTests | None:
    """Run the tests beside a manifest. All environments have the same."""
    if source == options.STANDARD_INPUT or not any(source.parent.glob("*.test.yaml")):
        return None
    # Here, so that a plan without tests does not wait for it.
    from polar_iac.cli.tests import tested_beside

    return tested_beside(source, manifest)
