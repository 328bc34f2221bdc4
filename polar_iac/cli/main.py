"""Commands: parse, call, print, exit. Other modules are imported late, so that `--help` is fast."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import click

from polar_iac import ENVIRONMENTS
from polar_iac.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from polar_iac.manifest.model import Manifest
    from polar_iac.plan.model import Plan
    from polar_iac.state.lockfile import Lockfile


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="polar-iac")
def cli() -> None:
    """Polar meters as code: plan in the pull request, apply on merge."""


@cli.add_command
@options.command
def validate(common: options.Options) -> int:
    """Check the manifest, offline; needs no environment."""
    from polar_iac.errors import ExitCode
    from polar_iac.manifest import read as manifest

    found = manifest.read(common.file)
    click.echo(f"{common.file}: {_count(len(found.meters), 'meter')} fine.")
    return ExitCode.OK


def _count(count: int, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


@cli.add_command
@options.command
@click.option(
    "-e",
    "--env",
    "environments",
    type=click.Choice(ENVIRONMENTS),
    envvar="POLAR_ENVIRONMENT",
    multiple=True,
    help="Which Polar (repeatable; also POLAR_ENVIRONMENT); never chosen for you.",
)
@options.lockfile
@options.target
@options.allow_archive
@options.connection
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
    offline: bool,
    deadline: float | None,
    detailed_exitcode: bool,
    out: str | None,
    format_: str,
    reports: tuple[str, ...],
) -> int:
    """Show what an apply would change, and why."""
    from pathlib import Path

    from polar_iac.apply.executor import Limits
    from polar_iac.apply.session import plan_for, read_live
    from polar_iac.cli.terminal import Progress, stopped_by_deadline
    from polar_iac.clock import Stop, SystemClock
    from polar_iac.errors import ExitCode
    from polar_iac.files import write_file
    from polar_iac.plan.document import plan_json
    from polar_iac.polar.environments import pinned_organization
    from polar_iac.report.text import refusal_text
    from polar_iac.state import journal

    several = len(environments) > 1
    if several and lockfile_path:
        raise click.UsageError("--lockfile names one file: plan one environment at a time with it")
    if several and out and "{env}" not in out:
        raise click.UsageError("--out names one file for several environments: put {env} into it")
    plans, stop = [], Stop()
    for environment in dict.fromkeys(environments) or (None,):
        manifest, path, recorded = _read(common, environment, lockfile_path, targets)
        story = journal.read(journal.path_for(path), recorded)
        observed = None
        if not offline:
            clock = SystemClock(stop)
            with (
                Progress("reading", common.quiet) as progress,
                stopped_by_deadline(stop, deadline),
                connection.open(
                    recorded.environment, pinned_organization(manifest, recorded), path, clock, progress
                ) as client,
            ):
                observed = read_live(
                    manifest,
                    recorded,
                    story,
                    client,
                    limits=Limits(lookup_timeout=connection.lookup_timeout),
                    clock=clock,
                    on_page=progress.reach,
                )
        found = plan_for(
            manifest, recorded, story, observed, lockfile=path, targets=targets, allow_archive=allow_archive
        )
        plans.append(found)
        if out:
            file = Path(out.replace("{env}", found.environment))
            write_file(file, plan_json(found))
            common.say(f"Saved as {file}: `polar-iac apply {file}` does exactly this, or nothing.")
    _publish(plans, format_, reports, str(common.file))
    for found in plans:
        if found.refusal:
            common.say("An apply of this would be refused: " + refusal_text(found))
    differs = detailed_exitcode and any(found.changes for found in plans)
    return ExitCode.CHANGES if differs else ExitCode.OK


@cli.add_command
@options.command
@click.argument("files", type=options.File(), nargs=-1, required=True, metavar="PLAN...")
@options.format_
def show(common: options.Options, files: tuple[Path, ...], format_: str, reports: tuple[str, ...]) -> int:
    """Show saved plans, stale or not."""
    from polar_iac.errors import ExitCode
    from polar_iac.plan.saved import read_plans

    plans = [plan for path in files for plan in read_plans(path)]
    source = next((c.source.file for p in plans for c in p.changes if c.source), str(common.file))
    _publish(plans, format_, reports, source)
    return ExitCode.OK


def _publish(plans: Sequence[Plan], format_: str, reports: Sequence[str], manifest_file: str) -> None:
    from polar_iac.ci.github import on_github, publish_plans
    from polar_iac.cli.output import print_result
    from polar_iac.report.formats import rendered, write_reports

    write_reports(reports, plans, manifest_file, os.environ)
    print_result(rendered(plans, format_, manifest_file, os.environ, options.width(sys.stdout)))
    if on_github(os.environ):
        click.echo(publish_plans(plans, manifest_file, os.environ), err=True, nl=False)


@cli.add_command
@options.command
@click.argument("plan_file", type=options.File(), required=False, metavar="[PLAN]")
@options.environment
@options.lockfile
@options.target
@options.allow_archive
@options.connection
@click.option("--digest", metavar="SHA", help="Apply only if the plan has this digest (32 or more digits).")
@click.option("--max-changes", type=click.IntRange(min=0), help="Refuse a plan of more changes.")
@click.option("-y", "--auto-approve", is_flag=True, help="Do not ask. Required without a terminal.")
@click.option(
    "--parallelism", type=click.IntRange(1, 32), default=4, show_default=True, help="Requests at a time."
)
@click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Seconds to wait for another run on this machine.",
)
@options.resend_after
@options.deadline
def apply(
    common: options.Options,
    plan_file: Path | None,
    environment: str | None,
    lockfile_path: Path | None,
    targets: tuple[str, ...],
    allow_archive: bool,
    connection: options.Connection,
    digest: str | None,
    max_changes: int | None,
    auto_approve: bool,
    parallelism: int,
    lock_timeout: float,
    resend_after: float,
    deadline: float | None,
) -> int:
    """Show the plan, ask, carry it out, and record each effect.

    With PLAN, a file that `plan --out` saved, or --digest: exactly what was reviewed, or nothing.
    """
    from polar_iac.apply.events import Applied, Event, Skipped
    from polar_iac.apply.executor import Limits
    from polar_iac.apply.session import Session
    from polar_iac.ci.github import on_github, publish_results
    from polar_iac.cli import terminal
    from polar_iac.cli.output import print_result
    from polar_iac.clock import Stop, SystemClock
    from polar_iac.errors import ExitCode
    from polar_iac.plan.saved import read_plan
    from polar_iac.polar.environments import pinned_organization
    from polar_iac.report.results import event_text, left_text, result_text
    from polar_iac.report.text import plan_text
    from polar_iac.state.journal import Journal, path_for
    from polar_iac.state.machine_lock import machine_lock

    reviewed = read_plan(plan_file) if plan_file else None
    if reviewed:
        if environment not in (None, reviewed.environment):
            raise click.UsageError(f"{plan_file} is a plan for {reviewed.environment}, not for {environment}")
        if targets and set(targets) != set(reviewed.targets):
            raise click.UsageError(f"{plan_file} has its own targets: remove --target")
        common, lockfile_path = _as_planned(common, lockfile_path, reviewed)
        environment, targets = reviewed.environment, reviewed.targets
        allow_archive = allow_archive or reviewed.allow_archive
    if digest is not None and not re.fullmatch("[0-9a-f]{32,64}", digest):
        raise click.UsageError("--digest takes 32 to 64 hexadecimal digits, as the plan shows them")
    # The reviewed meters may be gone. That makes the plan stale, and is not a command-line error.
    asked = () if reviewed else targets
    _, path, _ = _read(common, environment, lockfile_path, asked)
    stop, events = Stop(), list[Event]()
    clock = SystemClock(stop)
    with (
        machine_lock(path, lock_timeout, lambda holder: common.say(f"{holder} is at work: waiting for it")),
        terminal.Progress("applying", common.quiet) as progress,
        terminal.stopped_by_deadline(stop, deadline),
        ExitStack() as stack,
    ):
        # Read again under the lock: the run that held it may have written.
        manifest, path, recorded = _read(common, environment, lockfile_path, asked)
        if reviewed and reviewed.project != manifest.project:
            raise _refused_plan(f"the project {reviewed.project}", f"of {manifest.project}")
        pinned = pinned_organization(manifest, recorded)
        client = stack.enter_context(connection.open(recorded.environment, pinned, path, clock, progress))
        journal = stack.enter_context(Journal(path_for(path), recorded))
        limits = Limits(parallelism, connection.lookup_timeout, resend_after)
        run = Session(manifest, recorded, path, client, journal, limits, clock)
        observed = run.read_live()
        found = run.plan(observed, targets=targets, allow_archive=allow_archive)
        print_result(plan_text(found, str(common.file), options.width(sys.stdout)))
        _permit(found, reviewed, digest, max_changes)
        if found.wanted and not auto_approve:
            terminal.confirm(recorded.environment, found.wanted)
            # Someone may have changed something while the prompt was open.
            observed = run.read_live()
            shown, found = found, run.plan(observed, targets=targets, allow_archive=allow_archive)
            _permit(found, shown, None, None)
        progress.expect(len({c.order for c in found.changes} | {b.key for b in found.bookkeeping}))
        try:
            with terminal.stopped_by_signals(stop, common.quiet):
                for event in run.carry_out(found, observed, stop=stop):
                    events.append(event)
                    if not isinstance(event, Skipped):
                        progress.print(event_text(event))
        finally:  # also when it ends early
            if left := [event for event in events if isinstance(event, Skipped)]:
                print_result(left_text(left))
            if events:
                print_result(result_text(events) + "\n")
    if on_github(os.environ):
        click.echo(publish_results(found, events, os.environ), err=True, nl=False)
    if stop.reason is not None:
        common.say(f"stopped: {stop.reason}. The next apply goes on from here.")
        return terminal.STOPPED.get(stop.reason, ExitCode.ERROR)
    done = all(isinstance(event, Applied) for event in events)
    return ExitCode.OK if done else ExitCode.ERROR


def _as_planned(
    common: options.Options, lockfile_path: Path | None, reviewed: Plan
) -> tuple[options.Options, Path | None]:
    """Return the manifest and the lockfile that a saved plan is about. Raises RefusedError for others."""
    from dataclasses import replace
    from pathlib import Path

    if reviewed.manifest is not None:
        manifest = Path(reviewed.manifest)
        if common.file_given and common.file.resolve() != manifest.resolve():
            raise _refused_plan(f"the manifest {manifest}", f"of {common.file}")
        common = replace(common, file=manifest)
    if reviewed.lockfile is not None:
        planned = Path(reviewed.lockfile)
        if lockfile_path and lockfile_path.resolve() != planned.resolve():
            raise _refused_plan(f"the lockfile {planned}", f"of {lockfile_path}")
        lockfile_path = planned
    return common, lockfile_path


def _refused_plan(planned: str, given: str) -> Exception:
    from polar_iac.errors import RefusedError

    return RefusedError(f"the plan is of {planned}, not {given}: plan again, or leave the option out")


def _permit(found: Plan, reviewed: Plan | None, digest: str | None, max_changes: int | None) -> None:
    """Raise, before any effect, when the plan is not the reviewed one or is refused as a whole."""
    from polar_iac.errors import RefusedError, StalePlanError
    from polar_iac.plan.model import differences
    from polar_iac.report.stale import stale_text
    from polar_iac.report.text import refusal_text

    stale = "the plan is stale, and nothing of it was done. Plan and review again:\n"
    if reviewed and reviewed.outdated:
        raise StalePlanError(
            "the plan was saved by an earlier version of polar-iac, which planned less: plan again"
        )
    if reviewed and found.digest != reviewed.digest:
        raise StalePlanError(stale + stale_text(differences(reviewed, found)))
    if digest and not found.digest.startswith(digest):
        raise StalePlanError(f"{stale}  the digest is {found.digest}\n")
    if found.refusal:
        raise RefusedError(refusal_text(found))
    if max_changes is not None and found.wanted > max_changes:
        has = "1 change" if found.wanted == 1 else f"{found.wanted} changes"
        raise RefusedError(
            f"the plan has {has}, and --max-changes allows {max_changes}: "
            f"permit it with --max-changes {found.wanted}"
        )


@cli.add_command
@options.command
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="0: any free one."
)
def serve(common: options.Options, port: int) -> int:
    """Serve the embedded Polar of the `local` environment on loopback, until interrupted."""
    import threading

    from polar_iac.errors import ExitCode
    from polar_iac.files import state_directory
    from polar_iac.local import LocalPolar, serving
    from polar_iac.polar import environments

    server = LocalPolar(state_directory(common.file) / environments.LOCAL_DATABASE)
    try:
        with serving(server, port) as base_url:
            click.echo(f"Polar, embedded, on {base_url} (Ctrl-C stops it). For example:")
            click.echo(
                f"  POLAR_BASE_URL={base_url} POLAR_ACCESS_TOKEN={environments.LOCAL_TOKEN} "
                "polar-iac plan -e sandbox --lockfile trial.lock.json"
            )
            sys.stdout.flush()
            threading.Event().wait()
    finally:
        server.close()
    return ExitCode.OK


def _read(
    common: options.Options, environment: str | None, lockfile_path: Path | None, targets: tuple[str, ...]
) -> tuple[Manifest, Path, Lockfile]:
    """Return the manifest, the lockfile's path, and the lockfile of the chosen environment."""
    from polar_iac.files import refuse_tracked_state
    from polar_iac.manifest import read as manifest
    from polar_iac.state import lockfile
    from polar_iac.yaml.scalars import nearest

    if environment is None:
        raise click.UsageError(
            "say which environment is meant: -e local, -e sandbox or -e production (or POLAR_ENVIRONMENT)"
        )
    desired = manifest.read(common.file)
    path = lockfile_path or lockfile.default_path(common.file, environment)
    refuse_tracked_state(path)
    recorded = lockfile.read(path, environment, desired.project)
    known = desired.meters.keys() | recorded.meters.keys()
    renamed = {move.source: move.target for move in desired.moved}
    for key in targets:
        if key in renamed:
            raise click.UsageError(f"--target {key}: this key was moved to {renamed[key]}: name that one")
        if key not in known:
            guess = nearest(key, tuple(sorted(known)))
            hint = f": did you mean {guess}?" if guess else ""
            raise click.UsageError(
                f"--target {key}: neither the manifest nor the lockfile has this key{hint}"
            )
    return desired, path, recorded


class _TerminatedError(BaseException):
    """SIGTERM, when nothing needs cleanup first."""


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise _TerminatedError


def main() -> None:
    """Run the command. click's own errors exit 1, because 2 means that a plan has changes.

    The codes are those of `ExitCode`, which is loaded only when a command runs.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 1
    except click.Abort:
        click.echo("Aborted; nothing was changed.", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except _TerminatedError:
        code = 143
    sys.exit(code)
