"""The command `probe`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_iac.apply.probe import Left, Probed, Refused, Subject, probe_meters, subjects_of
from polar_iac.apply.resume import RESEND_AFTER
from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import Inputs, Selection, read_inputs
from polar_iac.cli.output import print_result
from polar_iac.cli.session import open_session
from polar_iac.cli.terminal import (
    STOPPED,
    Progress,
    columns,
    confirm_probe,
    stopped_by_deadline,
    stopped_by_signals,
)
from polar_iac.clock import Stop, SystemClock
from polar_iac.errors import ExitCode, PolarIacError, RefusedError
from polar_iac.report.probe import ProbeReport, probe_json, probe_text
from polar_iac.report.text import refusal_text
from polar_iac.state.machine_lock import machine_lock
from polar_iac.yaml.scalars import nearest

if TYPE_CHECKING:
    from polar_iac.apply.session import ApplySession
    from polar_iac.polar.client import PolarClient


@command
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@options.environment
@options.lockfile
@options.connection
@options.auto_approve
@options.lock_timeout
@options.deadline
@click.option("--format", "format_", type=click.Choice(("text", "json")), default="text", show_default=True)
def probe(
    common: options.Options,
    keys: tuple[str, ...],
    environment: str | None,
    lockfile_path: Path | None,
    connection: options.Connection,
    auto_approve: bool,
    lock_timeout: float,
    deadline: float | None,
    format_: str,
) -> ExitCode:
    """Ask Polar, by writes without effect, which meters are frozen.

    It writes: one PATCH for each recorded meter of the manifest, or for each KEY, with a filter of null.
    Polar refuses it for a frozen meter, and changes nothing of any other. What is frozen is recorded in the
    lockfile. Needs the scope meters:write. No other command does this.
    """
    stop = Stop()
    selection = Selection(common.file, environment, lockfile_path, (), allow_archive=False)
    inputs = read_inputs(selection)
    _check_keys(keys, inputs)
    with (
        machine_lock(inputs.lockfile_path, lock_timeout, lambda holder: common.say(f"waiting for {holder}")),
        Progress("probing", common.quiet) as progress,
        stopped_by_deadline(stop, deadline),
    ):
        inputs = read_inputs(selection)  # again under the lock: the run that held it may have written
        with open_session(
            inputs,
            selection,
            connection,
            parallelism=1,
            resend_after=RESEND_AFTER,
            clock=SystemClock(stop),
            progress=progress,
        ) as (session, client):
            organization_id, subjects, left = _subjects(session, client, keys)
            if subjects and not auto_approve:
                name = inputs.lockfile.environment
                confirm_probe(name, inputs.manifest.server(name), len(subjects))
            answers = _ask(session, client, subjects, stop, progress) if subjects else []
    report = ProbeReport(
        inputs.lockfile.environment,
        organization_id,
        inputs.manifest.project,
        str(common.file),
        str(inputs.lockfile_path),
        answers,
        left,
        [subject.key for subject in subjects[len(answers) :]],
    )
    print_result(probe_json(report) if format_ == "json" else probe_text(report, columns(sys.stdout)))
    return _exit_code(common, report, stop)


def _check_keys(keys: Collection[str], inputs: Inputs) -> None:
    """Raise click.UsageError for a key that the manifest does not declare in this environment."""
    environment = inputs.lockfile.environment
    declared = inputs.manifest.in_environment(environment).meters
    for key in keys:
        if key not in declared:
            guess = nearest(key, tuple(sorted(declared)))
            hint = f": did you mean {guess}?" if guess else ""
            raise click.UsageError(f"{key}: the manifest declares no such key for {environment}{hint}")


def _subjects(
    session: ApplySession, client: PolarClient, keys: Collection[str]
) -> tuple[str | None, list[Subject], list[Left]]:
    """Read every meter, and return the organization, the meters to ask about, and those that are left out.

    Raises RefusedError for another organization's lockfile, and PolarIacError for a KEY without a record.
    """
    live = session.read_live(client)
    plan = session.plan(live)
    if plan.refusal and plan.refusal.cause == "unknown-id":
        raise RefusedError(refusal_text(plan))
    declared = session.manifest.in_environment(plan.environment).meters
    subjects, left = subjects_of(plan, declared, session.state.meters, live, keys)
    there = {subject.key for subject in subjects} | {entry.key for entry in left}
    for key in keys:
        if key not in there:
            raise PolarIacError(f"{key} is not recorded for {plan.environment}: apply it first")
    return plan.organization_id, subjects, left


def _ask(
    session: ApplySession, client: PolarClient, subjects: Sequence[Subject], stop: Stop, progress: Progress
) -> list[Probed | Refused]:
    answers = []
    progress.expect(len(subjects))
    with stopped_by_signals(stop, progress.quiet):
        for answer in probe_meters(session, subjects, client):
            answers.append(answer)
            progress.reach(len(answers), len(subjects))
    return answers


def _exit_code(common: options.Options, report: ProbeReport, stop: Stop) -> ExitCode:
    """Return the exit code. Raises PolarIacError when Polar gave an answer that is not known."""
    if refused := report.refused:
        raise PolarIacError(
            f"`{refused.key}` ({refused.id}): {refused.error}. Nothing was asked after that; what Polar had "
            "answered before is recorded"
        )
    if stop.reason is not None and report.unasked:
        common.say(f"stopped: {stop.reason}. What Polar had answered is recorded.")
        return STOPPED.get(stop.reason, ExitCode.ERROR)
    return ExitCode.ERROR if report.left else ExitCode.OK
