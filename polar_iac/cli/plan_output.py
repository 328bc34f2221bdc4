"""Plans as a command prints them, writes them to reports, and publishes them in CI."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polar_iac.ci.host import Host, host_for
from polar_iac.cli.options import DEFAULT_FILE, STANDARD_INPUT
from polar_iac.cli.output import print_error, print_result
from polar_iac.cli.terminal import columns
from polar_iac.facts.model import Gap
from polar_iac.plan.model import Plan
from polar_iac.report.formats import RENDERERS, RenderContext, write_reports
from polar_iac.report.wording import listed

_MOST = 5
"""Most keys that a message lists."""


def output_plans(
    plans: Sequence[Plan], format_: str, reports: Sequence[str], manifest_file: str, *, several: bool
) -> None:
    """Print plans in a format, write the report files, and publish the plans where the run is in CI.

    `several` means that several were asked for, although not all of them may be there.
    """
    host = host_for(os.environ)
    context = render_context(host, manifest_file, several=several)
    write_reports(reports, plans, context)
    print_result(RENDERERS[format_](plans, replace(context, width=columns(sys.stdout))))
    print_error(host.publish_plans(plans, manifest_file, several=several))


def next_command(plan: Plan, manifest_file: str, lockfile_path: Path | None) -> str | None:
    """Return the command that makes the changes of a plan, or None if there are none to make."""
    if plan.refusal or not (plan.wanted or plan.bookkeeping) or manifest_file == str(STANDARD_INPUT):
        return None
    words = ["polar-iac", "apply", "-e", plan.environment]
    if manifest_file != DEFAULT_FILE:
        words += ["-f", manifest_file]
    if lockfile_path:
        words += ["--lockfile", str(lockfile_path)]
    words += [word for key in plan.targets for word in ("--target", key)]
    return shlex.join([*words, *(["--allow-archive"] if plan.allow_archive else [])])


_SOURCES = {
    "usage": "usage",
    "names": "event names",
    "events": "events",
    "products": "products",
    "benefits": "benefits",
}


def gap_text(gap: Gap) -> str:
    """Say which facts are missing, and why. Example: `No usage of seats: Polar limits the rate …`."""
    of = f" of {listed(gap.keys, _MOST)}" if gap.keys else ""
    return f"No {_SOURCES[gap.source]}{of}: {gap.text}."


def render_context(host: Host, manifest_file: str, *, several: bool) -> RenderContext:
    """Return what the output formats need to know of a host."""
    return RenderContext(
        manifest_file,
        several,
        links=host.links(),
        summary_room=host.summary_room(),
        summary_name=host.summary_name,
        log_name=host.log_name,
    )
