"""The command `check`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polar_iac.apply.check import REQUESTS, SECONDS, observe
from polar_iac.ci.host import host_for
from polar_iac.cli import options
from polar_iac.cli.each_environment import check_files, look_at_each
from polar_iac.cli.error_boundary import command
from polar_iac.cli.inputs import Selection, manifest_name, read_inputs
from polar_iac.cli.output import print_error, print_message, print_result
from polar_iac.cli.plan_output import render_context
from polar_iac.cli.session import drift_of, open_reader
from polar_iac.cli.terminal import Progress, columns
from polar_iac.clock import SystemClock
from polar_iac.errors import ExitCode
from polar_iac.files import state_directory
from polar_iac.plan.check import Check, find_problems, watched_meters
from polar_iac.plan.facts import with_facts
from polar_iac.polar.facts_access import Place, open_facts
from polar_iac.report.check_formats import CHECK_RENDERERS
from polar_iac.report.formats import write_rendered
from polar_iac.report.wording import listed


@command
@options.environments
@options.lockfile
@options.connection
@options.facts_budget(requests=REQUESTS, seconds=SECONDS)
@options.format_
def check(
    common: options.Options,
    environments: tuple[str, ...],
    lockfile_path: Path | None,
    connection: options.Connection,
    facts_requests: int,
    facts_timeout: float,
    format_: str,
    reports: tuple[str, ...],
) -> ExitCode:
    """Show what goes wrong while no manifest changes.

    Meters that stopped or never counted, event names that no meter counts, archived meters under a live
    price, blocked keys, and drift. Exits 3 if anything is wrong. POLAR_FACTS_TOKEN_ENV reads event names and
    prices; the output says what could not be read.
    """
    check_files(lockfile_path, environments, reports)

    def look(environment: str | None) -> Check:
        selection = Selection(common.file, environment, lockfile_path, (), allow_archive=False)
        return _look(selection, connection, (facts_requests, facts_timeout), quiet=common.quiet)

    checks, unread = look_at_each(environments, look, debug=common.debug)
    if checks:
        _output(checks, format_, reports, manifest_name(common.file))
    if unread and checks:
        print_message(f"Not read: {listed(unread)}.")
    if unread:
        return ExitCode.ERROR
    return ExitCode.CHECK_FAILED if any(found.findings for found in checks) else ExitCode.OK


def _look(
    selection: Selection, connection: options.Connection, budget: tuple[int, float], *, quiet: bool
) -> Check:
    """Read one environment, and judge it. Writes nothing, neither to Polar nor to disk."""
    inputs, clock = read_inputs(selection), SystemClock()
    environment = inputs.lockfile.environment
    manifest = inputs.manifest.in_environment(environment)
    with (
        Progress("reading", quiet) as progress,
        open_reader(inputs, selection, connection, clock, progress) as (session, live, client),
        open_facts(
            Place(
                environment,
                inputs.manifest.server(environment),
                live.organization_id,
                lambda: state_directory(inputs.lockfile_path),
                connection.allow_http,
            ),
            os.environ,
            *budget,
            clock=clock,
            now=client.now,
        ) as reader,
    ):
        recorded, made = session.state.meters, session.state.made(live.meters)
        plan, drift = session.plan(live), drift_of(inputs, session, live)
        watched = watched_meters(inputs.manifest, recorded, live.meters, environment=environment, made=made)
        busy = [one for one in watched if one.key not in manifest.checks.idle]
        observed = observe(busy, live.meters, reader)
    plan = with_facts(plan, observed.facts)  # in which an archive that Polar will refuse is blocked
    findings = find_problems(manifest, watched, live.meters, plan, drift, observed)
    facts = observed.facts
    return Check(drift, findings, tuple(facts.gaps), observed.now, facts.requests, len(watched))


def _output(checks: Sequence[Check], format_: str, reports: Sequence[str], manifest_file: str) -> None:
    """Print the findings in a format, write the report files, and publish the findings in CI."""
    host = host_for(os.environ)
    context = render_context(host, manifest_file, several=len(checks) > 1)
    write_rendered(reports, lambda name: CHECK_RENDERERS[name](checks, context))
    print_result(CHECK_RENDERERS[format_](checks, replace(context, width=columns(sys.stdout))))
    print_error(host.publish_check(checks, manifest_file))
