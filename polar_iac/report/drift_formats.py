"""Output formats of drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from polar_iac.plan.drift import Drift
from polar_iac.report.comment.drift import drift_markdown
from polar_iac.report.drift import drift_json, drift_text
from polar_iac.report.formats import RenderContext


def _text(drifts: Sequence[Drift], context: RenderContext) -> str:
    return "\n".join(drift_text(drift, context.manifest_file, context.width) for drift in drifts)


def _json(drifts: Sequence[Drift], _context: RenderContext) -> str:
    return drift_json(drifts)


def _markdown(drifts: Sequence[Drift], context: RenderContext) -> str:
    return drift_markdown(drifts, manifest_file=context.manifest_file, links=context.links)


DRIFT_RENDERERS: Mapping[str, Callable[[Sequence[Drift], RenderContext], str]] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
}
"""The formats of drift, under the same names as those of a plan."""
