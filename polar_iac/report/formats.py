"""Output formats of a plan, and files of reports."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from click import unstyle

from polar_iac.errors import PolarIacError
from polar_iac.files import is_replaced, read_file, write_file
from polar_iac.plan.document import plan_json, plans_json
from polar_iac.plan.model import Plan
from polar_iac.report.text import plan_text
from polar_iac.report.wording import WIDTH

if TYPE_CHECKING:
    from polar_iac.report.comment.escape import Links


@dataclass(frozen=True)
class RenderContext:
    """Facts about a run that a format needs in addition to the plans."""

    manifest_file: str
    several: bool
    """True if plans of several environments were asked for, however many there are."""
    links: Links | None
    """Links into the repository and to the run, where their addresses are known."""
    summary_room: int
    """Number of bytes that the summary of the run can still take; 0 if there is none."""
    summary_name: str
    log_name: str
    """Name of the place that has the whole plan if the summary does not."""
    width: int = WIDTH
    """Columns of text."""


def _text(plans: Sequence[Plan], context: RenderContext) -> str:
    return "\n".join(plan_text(plan, context.manifest_file, context.width) for plan in plans)


def _json(plans: Sequence[Plan], context: RenderContext) -> str:
    """Return a plan as an object. Where several were asked for, return one object that contains all."""
    return plans_json(plans) if context.several else plan_json(plans[0])


def _markdown(plans: Sequence[Plan], context: RenderContext) -> str:
    # Here, so that a plan as text or JSON does not wait for the modules of the comment.
    from polar_iac.report.comment.document import plan_markdown

    comment = functools.partial(
        plan_markdown, plans, manifest_file=context.manifest_file, links=context.links
    )
    room = context.summary_room
    # A comment that is cut says where the whole plan is: the summary has it only if there is room for it.
    in_summary = room > 0 and len(comment(limit=sys.maxsize).encode()) <= room
    return comment(whole=context.summary_name if in_summary else context.log_name)


RENDERERS: Mapping[str, Callable[[Sequence[Plan], RenderContext], str]] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
}
"""The table of formats. Each renders the plans of one run, one per environment."""


def write_reports(reports: Sequence[str], plans: Sequence[Plan], context: RenderContext) -> None:
    """Write each FORMAT=FILE. Raises PolarIacError for an invalid one, or one that cannot be written."""
    context = replace(context, width=WIDTH)
    write_rendered(reports, lambda format_: RENDERERS[format_](plans, context))


def write_rendered(reports: Sequence[str], render: Callable[[str], str]) -> None:
    """Write each FORMAT=FILE, with the text of its format. Raises what `write_reports` raises."""
    for report in reports:
        format_, file = report_file(report)
        check_replaceable(file)
        write_file(file, unstyle(render(format_)))


def report_file(report: str) -> tuple[str, Path]:
    """Return the format and the file of FORMAT=FILE. Raises PolarIacError for an invalid one."""
    format_, equals, file = report.partition("=")
    if not equals or not file or format_ not in RENDERERS:
        raise PolarIacError(
            f"--report {report}: expected FORMAT=FILE, where FORMAT is one of {', '.join(RENDERERS)}"
        )
    return format_, Path(file)


_REPORT = re.compile(
    r"^(?:Digest: [0-9a-f]+|Plan: |No changes\.|Check: |Drift: |No drift\.|<!-- polar-iac.* -->"
    r"|(?:[\d,]+ of )?[\d,]+ tests? (?:passed|failed)\.$)",
    re.MULTILINE,
)
"""A line that every report as text or Markdown has."""


def check_replaceable(file: Path) -> None:
    """Raise PolarIacError when a file is neither a plan nor a report. Example: the manifest, by a slip.

    What is no file, such as `/dev/stdout`, is written to and loses nothing. What cannot be read is left to
    the attempt to write it.
    """
    try:
        data = read_file(file) if file.exists() and is_replaced(file) else b""
    except OSError:
        return
    if data and not _is_plan_or_report(data):
        raise PolarIacError(
            f"{file} is neither a plan nor a report, so it is not overwritten: name another file"
        )


def _is_plan_or_report(data: bytes) -> bool:
    if _REPORT.search(data.decode("utf-8", errors="replace")):
        return True
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "format_version" in document
