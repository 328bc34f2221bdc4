"""Plan files: writes plans in the available formats, and reads saved plans back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from polar_iac import github_run
from polar_iac.errors import PolarIacError
from polar_iac.lockfile import write_atomically
from polar_iac.plan import Plan
from polar_iac.render import WIDTH

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
        from polar_iac.render.document import plan_json, plans_json

        return plan_json(plans[0]) if len(plans) == 1 else plans_json(plans)
    if format_ == "markdown":
        from polar_iac.render.markdown import plan_markdown

        told = functools.partial(
            plan_markdown, plans, manifest_file=manifest_file, links=github_run.links(variables)
        )
        if not github_run.on_github(variables):
            return told(whole="what `plan` prints as text")
        in_summary = len(told(limit=sys.maxsize).encode()) <= github_run.summary_room(variables)
        return told(whole="the summary of the workflow run" if in_summary else "the log of the workflow run")
    from polar_iac.render.text import plan_text

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
            raise PolarIacError(f"--report {report}: write FORMAT=FILE, where FORMAT is {', '.join(FORMATS)}")
        write(Path(file), unstyle(rendered(plans, format_, manifest_file, variables)))


def write(path: Path, text: str) -> None:
    """Write a file that the user named, completely or not at all.

    A device or a pipe (`/dev/stdout`) is written to and not replaced. Raises PolarIacError when the file
    cannot be written.
    """
    if path.exists() and not path.is_file():
        try:
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise PolarIacError(f"cannot write {path}: {error.strerror}") from error
    else:
        write_atomically(path, text)


def read_plan(path: Path) -> Plan:
    """Read a plan that `plan --out` wrote. Raises PolarIacError when the file does not contain one."""
    plans = read_plans(path)
    if len(plans) != 1:
        raise PolarIacError(f"{path}: error: this file holds {len(plans)} plans: save one with `plan --out`")
    return plans[0]


def read_plans(path: Path) -> list[Plan]:
    """Read the plans that `plan` wrote as JSON. Raises PolarIacError when the file contains none."""
    import json

    from polar_iac.render.document import plans_from_document

    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise PolarIacError(f"{path}: error: cannot read the plan: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PolarIacError(f"{path}: error: not a saved plan: make one with `plan --out`") from error
    try:
        return plans_from_document(data)
    except PolarIacError as error:
        raise PolarIacError(f"{path}: error: {error}") from error
