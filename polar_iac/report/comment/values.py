"""Fields of one meter as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polar_iac.plan.model import Change, FieldChange, MarkerChange
from polar_iac.report.comment.budget import TruncatableBlock
from polar_iac.report.comment.escape import code, prose
from polar_iac.report.comment.remarks import CommentContext, clipped
from polar_iac.report.filters import aggregation, expression, filter_diff, outline
from polar_iac.report.wording import settled, value

_UNITS = {"unit": "unit", "custom_label": "label", "custom_multiplier": "multiplier"}
_LABELS = {"custom_label": "unit label", "custom_multiplier": "unit multiplier"}
ORIGINS = {"manifest": "", "outside": "**changed outside**", "both": "**changed here and outside**"}
_SHORT = 100
"""Longest filter shown on one line, in characters."""


def field_parts(
    group: Sequence[tuple[FieldChange, list[int]]], context: CommentContext
) -> tuple[list[str | TruncatableBlock], list[str]]:
    """Return one field before and after, as blocks and as lines of a list."""
    blocks: list[str | TruncatableBlock] = []
    bullets = []
    for field, indices in group:
        where = context.where(indices)
        note = " · ".join(filter(None, [impact_of(field), ORIGINS[field.origin]]))
        if field.path == "filter":
            blocks += [f"{where}filter · {note}", _diff(field)]
        else:
            bullets.append(f"- {label_of(field.path)}: {where}{_values(field)} · {note}")
    return blocks, bullets


def marker_line(change: Change, marker: MarkerChange) -> str:
    if change.action == "settle":
        return prose(settled(change))
    before, after = (code(clipped(side)) if side else "none" for side in (marker.before, marker.after))
    return f"ownership marker: {before} → {after} · internal"


def table_row(cells: Sequence[str]) -> str:
    # A `|` ends a cell even inside a code span.
    return "| " + " | ".join(cell.replace("|", "\\u007c") for cell in cells) + " |"


def bullet_list(bullets: Sequence[str], notes: Sequence[str]) -> Iterator[TruncatableBlock]:
    """Yield a single list, because GitHub merges two adjacent lists and changes their spacing."""
    if bullets or notes:
        yield TruncatableBlock(bullets, tail=notes)


def label_of(path: str) -> str:
    name, dot, key = path.partition(".")
    return f"{name} {code(key)}" if dot else _LABELS.get(name, name)


def impact_of(field: FieldChange) -> str:
    return "**billing**" if field.impact == "billing" else prose(field.impact)


def value_of(path: str, data: Any) -> str:
    if data is None:
        return "none"
    if path == "filter":
        return code(expression(data))
    return code(aggregation(data) if path == "aggregation" else value(data))


def _values(field: FieldChange) -> str:
    return f"{value_of(field.path, field.before)} → {value_of(field.path, field.after)}"


def cell_of(field: FieldChange, *, created: bool) -> str:
    if field.path == "filter" and not created:
        return "changed, see below"
    if field.path == "filter" and is_long(field.after):
        return "see below"
    return value_of(field.path, field.after) if created else _values(field)


def short_filter(data: Mapping[str, Any]) -> str:
    """Return a filter on one line, cut if it is long."""
    if is_long(data):
        return f"{expression(data)[:_SHORT]}…"
    return expression(data)


def is_long(data: Mapping[str, Any]) -> bool:
    return len(expression(data)) > _SHORT


def _diff(field: FieldChange) -> TruncatableBlock:
    lines = filter_diff(field.before, field.after)
    return TruncatableBlock(
        [f"{line.sign} {'  ' * line.depth}{line.text}" for line in lines], language="diff"
    )


def outline_block(data: Mapping[str, Any]) -> TruncatableBlock:
    return TruncatableBlock([f"{'  ' * line.depth}{line.text}" for line in outline(data)], language="")


def created_parts(fields: dict[str, Any]) -> tuple[list[str | TruncatableBlock], list[str]]:
    """Return a new meter as blocks and as lines of a list. Its name is in the title."""
    blocks: list[str | TruncatableBlock] = []
    bullets = []
    for path, data in fields.items():
        if path == "filter" and is_long(data):
            blocks += ["filter", outline_block(data)]
        elif path in ("filter", "aggregation"):
            bullets.append(f"- {path}: {value_of(path, data)}")
    units = [f"{label} {value_of(path, fields[path])}" for path, label in _UNITS.items() if path in fields]
    if units:
        bullets.append(f"- {', '.join(units)}")
    metadata = [
        f"{code(path.partition('.')[2])} {code(value(data))}"
        for path, data in fields.items()
        if path.startswith("metadata.")
    ]
    if metadata:
        bullets.append(f"- metadata: {', '.join(metadata)}")
    return blocks, bullets
