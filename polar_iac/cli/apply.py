"""The command `apply`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_iac.apply.events import Applied, Event, Skipped
from polar_iac.ci.host import host_for
from polar_iac.cli import options
from polar_iac.cli.audit import Audit, audited
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import Inputs, Selection, read_inputs
from polar_iac.cli.output import print_error, print_result
from polar_iac.cli.review import check_project, is_applied, permit, selection_of
from polar_iac.cli.session import open_session
from polar_iac.cli.terminal import (
    STOPPED,
    Progress,
    columns,
    confirm,
    require_terminal,
    stopped_by_deadline,
    stopped_by_signals,
)
from polar_iac.clock import Clock, Stop, SystemClock
from polar_iac.errors import ExitCode
from polar_iac.plan.model import Plan
from polar_iac.plan.saved import read_plan
from polar_iac.report.results import event_text, result_text, skipped_text
from polar_iac.report.text import plan_text
from polar_iac.state.machine_lock import machine_lock

if TYPE_CHECKING:
    from polar_iac.apply.session import ApplySession, LiveMeters
    from polar_iac.cli.facts import KnownFacts
    from polar_iac.polar.client import PolarClient


@command
@click.argument("plan_file", type=options.File(), required=False, metavar="[PLAN]")
@options.environment
@options.lockfile
@options.target
@options.allow_archive
@options.connection
@options.facts
@click.option("--digest", metavar="SHA", help="Apply only if the plan has this digest (32 or more digits).")
@click.option("--max-changes", type=click.IntRange(min=0), help="Refuse a plan with more changes than this.")
@options.auto_approve
@click.option(
    "--parallelism",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Number of requests in flight at a time.",
)
@options.lock_timeout
@click.option(
    "--resend-after",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Seconds to look for the meter of an unanswered create before sending it again.",
)
@options.deadline
@click.option(
    "--report",
    "reports",
    metavar="json=FILE",
    multiple=True,
    help="Write an audit record, however the run ends.",
)
def apply(
    common: options.Options,
    plan_file: Path | None,
    environment: str | None,
    lockfile_path: Path | None,
    targets: tuple[str, ...],
    allow_archive: bool,
    connection: options.Connection,
    facts: options.Facts,
    digest: str | None,
    max_changes: int | None,
    auto_approve: bool,
    parallelism: int,
    lock_timeout: float,
    resend_after: float,
    deadline: float | None,
    reports: tuple[str, ...],
) -> ExitCode:
    """Show the plan, ask, carry it out, and record each effect.

    With PLAN, a file that `plan --out` saved, or --digest: exactly what was reviewed, or nothing.
    """
    stop = Stop()
    with audited(reports, plan_file, stop) as audit:
        given = Selection(common.file, environment, lockfile_path, targets, allow_archive)
        selection, reviewed = _select(given, plan_file, file_given=common.file_given)
        audit.begin(selection.environment, selection.file, digest or (reviewed.digest if reviewed else None))
        _check_options(digest, reviewed, auto_approve=auto_approve)
        lockfile_path = read_inputs(selection).lockfile_path
        with (
            machine_lock(lockfile_path, lock_timeout, lambda holder: common.say(f"waiting for {holder}")),
            Progress("applying", common.quiet) as progress,
            stopped_by_deadline(stop, deadline),
        ):
            # Read again under the lock: the run that held it may have written.
            inputs = read_inputs(selection)
            is_first = not inputs.lockfile_path.exists()
            if reviewed:
                check_project(reviewed, inputs.manifest.project)
            with open_session(
                inputs,
                selection,
                connection,
                parallelism=parallelism,
                resend_after=resend_after,
                clock=SystemClock(stop),
                progress=progress,
            ) as (session, client):
                live = session.read_live(client)
                plan = session.plan(live)
                source = inputs, connection, facts, client, session.clock, reviewed
                known = _known_facts(plan, *source, is_asked=not (auto_approve or reviewed or digest))
                plan = audit.record.plan = known.joined(plan)
                print_result(plan_text(plan, str(selection.file), columns(sys.stdout)))
                _permit(plan, live, inputs, reviewed, digest=digest, max_changes=max_changes)
                if plan.wanted and not auto_approve:
                    plan, live = _confirm(session, client, plan, known)
                _execute(session, client, plan, live, audit, stop, progress)
        print_error(host_for(os.environ).publish_results(plan, audit.record.events))
        return _end(common, plan, inputs, audit, stop, is_first=is_first)


def _end(
    common: options.Options, plan: Plan, inputs: Inputs, audit: Audit, stop: Stop, *, is_first: bool
) -> ExitCode:
    """Say what is left to do after an apply, record its exit code, and return that."""
    _say_commit(common, plan, inputs.lockfile_path, is_first=is_first)
    audit.record.exit_code = _exit_code(common, audit.record.events, stop)
    return audit.record.exit_code


def _known_facts(
    plan: Plan,
    inputs: Inputs,
    connection: options.Connection,
    facts: options.Facts,
    client: PolarClient,
    clock: Clock,
    reviewed: Plan | None,
    *,
    is_asked: bool,
) -> KnownFacts:
    """Read the facts of an apply. `is_asked` is true if somebody is asked for approval."""
    # Here, so that `apply --help` does not wait for the HTTP client.
    from polar_iac.cli.facts import FactsSource, KnownFacts

    source = FactsSource(inputs, connection, facts, client, clock)
    return KnownFacts.of(plan, source, reviewed, is_asked=is_asked)


def _execute(
    session: ApplySession,
    client: PolarClient,
    plan: Plan,
    live: LiveMeters,
    audit: Audit,
    stop: Stop,
    progress: Progress,
) -> None:
    audit.execute(plan)
    steps = session.execute(plan, live, client, stop=stop)
    try:
        _report_steps(steps, plan, audit.record.events, stop, progress)
    finally:
        audit.record.organization_id = session.state.organization_id


def _select(given: Selection, plan_file: Path | None, *, file_given: bool) -> tuple[Selection, Plan | None]:
    """Return what is to be applied, and the saved plan that was reviewed, if there is one."""
    if plan_file is None:
        return given, None
    reviewed = read_plan(plan_file)
    return selection_of(reviewed, plan_file, given, file_given=file_given), reviewed


def _permit(
    plan: Plan,
    live: LiveMeters,
    inputs: Inputs,
    reviewed: Plan | None,
    *,
    digest: str | None,
    max_changes: int | None,
) -> None:
    """Check the plan, unless the reviewed one has been carried out already."""
    if reviewed and is_applied(reviewed, plan, inputs.lockfile, live.meters):
        print_result("Already applied: Polar is as the saved plan leaves it.\n")
    else:
        permit(plan, reviewed, digest=digest, max_changes=max_changes)


def _say_commit(common: options.Options, plan: Plan, lockfile_path: Path, *, is_first: bool) -> None:
    if is_first and plan.environment != "local" and lockfile_path.exists():
        common.say(f"Commit {lockfile_path}: it remembers which Polar meter each key became.")


def _check_options(digest: str | None, reviewed: Plan | None, *, auto_approve: bool) -> None:
    """Raise click.UsageError, before anything is read from Polar, for what can never work."""
    if reviewed and reviewed.wanted and not auto_approve:
        require_terminal()
    if digest is not None and not re.fullmatch("[0-9a-f]{32,64}", digest):
        raise click.UsageError("--digest takes 32 to 64 hexadecimal digits, as the plan shows them")


def _confirm(
    session: ApplySession, client: PolarClient, plan: Plan, known: KnownFacts
) -> tuple[Plan, LiveMeters]:
    """Ask, then plan again, because someone may have changed something while the prompt was open.

    Raises click.Abort on a no, and StalePlanError when the plan is not the one that was shown.
    """
    bills = any(change.action not in ("mark", "release", "blocked") for change in plan.changes)
    confirm(plan.environment, session.manifest.server(plan.environment), plan.wanted, bills=bills)
    live = session.read_live(client)
    fresh = known.joined(session.plan(live))
    permit(fresh, plan)
    return fresh, live


def _report_steps(
    steps: Iterator[Event], plan: Plan, events: list[Event], stop: Stop, progress: Progress
) -> None:
    """Run the steps of an apply. Print each event, then what was skipped, then the counts.

    Appends the events to `events`, also when it ends early.
    """
    progress.expect(len({c.order for c in plan.changes} | {b.key for b in plan.bookkeeping}))
    try:
        with stopped_by_signals(stop, progress.quiet):
            for event in steps:
                events.append(event)
                if not isinstance(event, Skipped):
                    progress.print(event_text(event))
    finally:  # also when it ends early
        if skipped := [event for event in events if isinstance(event, Skipped)]:
            print_result(skipped_text(skipped))
        if events:
            print_result(result_text(events) + "\n")


def _exit_code(common: options.Options, events: list[Event], stop: Stop) -> ExitCode:
    if stop.reason is not None:
        common.say(f"stopped: {stop.reason}. The next apply continues from here.")
        return STOPPED.get(stop.reason, ExitCode.ERROR)
    done = all(isinstance(event, Applied) for event in events)
    return ExitCode.OK if done else ExitCode.ERROR
