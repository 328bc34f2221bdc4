"""Output formats of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from polar_iac.plan.check import Check
from polar_iac.report.check import check_json, check_text
from polar_iac.report.comment.check import check_markdown
from polar_iac.report.formats import RenderContext


def _text(checks: Sequence[Check], context: RenderContext) -> str:
    return "\n".join(check_text(check, context.manifest_file) for check in checks)


def _json(checks: Sequence[Check], _context: RenderContext) -> str:
    return check_json(checks)


def _markdown(checks: Sequence[Check], context: RenderContext) -> str:
    return check_markdown(checks, manifest_file=context.manifest_file, links=context.links)


CHECK_RENDERERS: Mapping[str, Callable[[Sequence[Check], RenderContext], str]] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
}
"""The formats of a check, under the same names as those of a plan."""
