"""The command `drift`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polar_iac.ci.host import host_for
from polar_iac.cli import options
from polar_iac.cli.each_environment import check_files, look_at_each
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import Selection, manifest_name, read_inputs
from polar_iac.cli.output import print_error, print_message, print_result
from polar_iac.cli.plan_output import render_context
from polar_iac.cli.session import drift_once
from polar_iac.cli.terminal import Progress, columns
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode
from polar_iac.plan.drift import Drift
from polar_iac.report.drift_formats import DRIFT_RENDERERS
from polar_iac.report.formats import write_rendered
from polar_iac.report.wording import listed


@command
@options.environments
@options.lockfile
@options.connection
@options.format_
def drift(
    common: options.Options,
    environments: tuple[str, ...],
    lockfile_path: Path | None,
    connection: options.Connection,
    format_: str,
    reports: tuple[str, ...],
) -> ExitCode:
    """Show what someone changed at Polar since the last apply.

    Changes that are not applied yet are not shown: `plan` shows them. Exits 2 if there is drift.
    """
    check_files(lockfile_path, environments, reports)

    def look(environment: str | None) -> Drift:
        selection = Selection(common.file, environment, lockfile_path, (), allow_archive=False)
        return _look(selection, connection, quiet=common.quiet)

    drifts, unread = look_at_each(environments, look, debug=common.debug)
    if drifts:
        _output(drifts, format_, reports, manifest_name(common.file))
    if unread and drifts:
        print_message(f"Not read: {listed(unread)}.")
    if unread:
        return ExitCode.ERROR
    return ExitCode.CHANGES if any(found.meters for found in drifts) else ExitCode.OK


def _look(selection: Selection, connection: options.Connection, *, quiet: bool) -> Drift:
    inputs = read_inputs(selection)
    with Progress("reading", quiet) as progress:
        return drift_once(inputs, selection, connection, SystemClock(), progress)


def _output(drifts: Sequence[Drift], format_: str, reports: Sequence[str], manifest_file: str) -> None:
    """Print drift in a format, write the report files, and publish it in CI."""
    host = host_for(os.environ)
    context = render_context(host, manifest_file, several=len(drifts) > 1)
    write_rendered(reports, lambda name: DRIFT_RENDERERS[name](drifts, context))
    print_result(DRIFT_RENDERERS[format_](drifts, replace(context, width=columns(sys.stdout))))
    print_error(host.publish_drift(drifts, manifest_file))
