"""Output formats of a plan."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from polar_iac.ci import github as github_run
from polar_iac.errors import PolarIacError
from polar_iac.files import write_file
from polar_iac.plan.model import Plan
from polar_iac.report.wording import WIDTH

FORMATS = ("text", "json", "markdown")


def rendered(
    plans: Sequence[Plan],
    format_: str,
    manifest_file: str,
    variables: Mapping[str, str],
    width: int = WIDTH,
) -> str:
    """Render the plans of one run, one per environment, in one of the FORMATS. Text uses `width` columns.

    JSON is one object for a single plan, or one object that contains all of several plans.
    """
    if format_ == "json":
        from polar_iac.plan.document import plan_json, plans_json

        return plan_json(plans[0]) if len(plans) == 1 else plans_json(plans)
    if format_ == "markdown":
        from polar_iac.report.comment.document import plan_markdown

        told = functools.partial(
            plan_markdown, plans, manifest_file=manifest_file, links=github_run.links(variables)
        )
        if not github_run.on_github(variables):
            return told(whole="what `plan` prints as text")
        in_summary = len(told(limit=sys.maxsize).encode()) <= github_run.summary_room(variables)
        return told(whole="the summary of the workflow run" if in_summary else "the log of the workflow run")
    from polar_iac.report.text import plan_text

    return "\n".join(plan_text(plan, manifest_file, width) for plan in plans)


def write_reports(
    reports: Sequence[str],
    plans: Sequence[Plan],
    manifest_file: str,
    variables: Mapping[str, str],
) -> None:
    """Write each FORMAT=FILE. Raises PolarIacError for an invalid one, or one that cannot be written."""
    from click import unstyle

    for report in reports:
        format_, equals, file = report.partition("=")
        if not equals or not file or format_ not in FORMATS:
            raise PolarIacError(
                f"--report {report}: write_file FORMAT=FILE, where FORMAT is {', '.join(FORMATS)}"
            )
        write_file(Path(file), unstyle(rendered(plans, format_, manifest_file, variables)))
