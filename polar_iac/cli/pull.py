"""The command `pull`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.error_report import report_error
from polar_iac.cli.inputs import Inputs, Selection, inputs_for
from polar_iac.cli.manifest_file import command_line, read_source, write_source
from polar_iac.cli.output import print_result
from polar_iac.cli.session import open_reader
from polar_iac.cli.terminal import Progress
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode, PolarIacError, RefusedError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record
from polar_iac.plan.model import Plan
from polar_iac.plan.pull import take
from polar_iac.report.edits import edits_text
from polar_iac.report.pull import left_text
from polar_iac.report.text import refusal_text
from polar_iac.report.wording import quantity
from polar_iac.state import lockfile
from polar_iac.yaml.scalars import nearest

if TYPE_CHECKING:
    from polar_iac.apply.session import LiveMeters, Session


@command
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@options.environment
@options.lockfile
@click.option("--check", is_flag=True, help="Write nothing, and exit 2 when someone changed something.")
@options.dry_run
@options.connection
def pull(
    common: options.Options,
    keys: tuple[str, ...],
    environment: str | None,
    lockfile_path: Path | None,
    check: bool,
    dry_run: bool,
    connection: options.Connection,
) -> ExitCode:
    """Write what someone changed at Polar into the manifest.

    The difference is shown. With KEYs, only these, and also what is otherwise left alone: values that another
    environment or the manifest has changed, and archiving. Nothing is changed at Polar.
    """
    source = read_source(common.file)
    if source is None:
        raise PolarIacError(f"{common.file} not found (use -f FILE)")
    selection = Selection(common.file, environment, lockfile_path, (), allow_archive=False)
    inputs = inputs_for(selection, manifest.load(source, str(common.file)))
    _check_keys(keys, inputs)
    with (
        Progress("reading", common.quiet) as progress,
        open_reader(inputs, replace(selection, targets=keys), connection, SystemClock(), progress) as (
            session,
            live,
            _,
        ),
    ):
        elsewhere = _other_records(common.file, inputs)
        pulled = take(source, str(common.file), _planner(session, live), elsewhere, keys)
    print_result(edits_text(source, pulled.text, str(common.file)))
    again = command_line("pull", inputs.lockfile.environment, common.file, lockfile_path)
    print_result(left_text(pulled.left, again))
    for error in pulled.errors:
        report_error(error, debug=common.debug)
    if pulled.text == source and not pulled.left and not pulled.errors:
        common.say("Nothing was changed at Polar since the last apply.")
    elif pulled.text != source and not (check or dry_run):
        write_source(common.file, source, pulled.text)
        common.say(f"Wrote {quantity(pulled.count, 'change')} into {common.file}.")
    if check and (pulled.text != source or pulled.left or pulled.errors):
        return ExitCode.CHANGES
    return ExitCode.ERROR if pulled.errors else ExitCode.OK


def _planner(session: Session, live: LiveMeters) -> Callable[[Manifest], Plan]:
    """Return what plans an edited manifest. It raises RefusedError for another organization's lockfile."""

    def plan(desired: Manifest) -> Plan:
        made = replace(session, manifest=desired).plan(live)
        if made.refusal and made.refusal.cause == "unknown-id":
            raise RefusedError(refusal_text(made))
        return made

    return plan


def _check_keys(keys: Sequence[str], inputs: Inputs) -> None:
    for key in keys:
        if key not in inputs.manifest.meters:
            guess = nearest(key, tuple(sorted(inputs.manifest.meters)))
            hint = f": did you mean {guess}?" if guess else ""
            raise click.UsageError(f"{key}: the manifest has no such key{hint}")


def _other_records(file: Path, inputs: Inputs) -> Mapping[str, Mapping[str, Record]]:
    """Return the records of the other environments that have a lockfile, under the keys of the manifest.

    The one of `local` does not count: it is of this machine only.
    """
    renamed = {move.source: move.target for move in inputs.manifest.moved}
    found = {}
    for environment in inputs.manifest.environments:
        path = lockfile.default_path(file, environment)
        if environment in ("local", inputs.lockfile.environment) or not path.exists():
            continue
        records = lockfile.read(path, environment, inputs.manifest.project).meters
        found[environment] = {renamed.get(key, key): record for key, record in records.items()}
    return found
