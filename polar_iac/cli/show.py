"""The command `show`."""

from __future__ import annotations

from pathlib import Path

import click

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.plan_output import output_plans
from polar_iac.errors import ExitCode
from polar_iac.plan.saved import read_plans


@command
@click.argument("files", type=options.File(), nargs=-1, required=True, metavar="PLAN...")
@options.format_
def show(
    common: options.Options, files: tuple[Path, ...], format_: str, reports: tuple[str, ...]
) -> ExitCode:
    """Show saved plans, stale or not."""
    saved = [read_plans(path) for path in files]
    plans = [plan for file in saved for plan in file.plans]
    sources = (change.source for plan in plans for change in plan.changes if change.source)
    manifest_file = next((source.file for source in sources), str(common.file))
    several = len(saved) > 1 or saved[0].several
    output_plans(plans, format_, reports, manifest_file, several=several)
    return ExitCode.OK
