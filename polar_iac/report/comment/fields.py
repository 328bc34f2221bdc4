"""Fields of one meter as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, FieldChange, MarkerChange
from polar_iac.report.comment.budget import TruncatableBlock, WholeBlock
from polar_iac.report.comment.context import CommentContext
from polar_iac.report.comment.escape import clipped, code, prose, short_code
from polar_iac.report.filters import expression, field_value, filter_diff, filter_of, outline
from polar_iac.report.wording import (
    MARKER,
    NO_LONGER_COUNTED,
    ORIGINS,
    field_label,
    labeled_groups,
    marker_or_none,
    marker_remarks,
    metadata_of,
    settled,
    value,
)

Block = str | TruncatableBlock | WholeBlock
PlanField = tuple[FieldChange, list[int]]
"""A change of a field, and the indices of the plans that make it."""
_INLINE_FILTER = 100
"""Longest filter shown on one line, in characters."""


def field_blocks(changes: Sequence[PlanField], context: CommentContext) -> tuple[list[Block], list[str]]:
    """Return the blocks and the list items that show one field before and after.

    A filter becomes a block, anything else an item.
    """
    blocks: list[Block] = []
    items = []
    for field, indices in changes:
        where = context.where(indices)
        remarks = " · ".join(filter(None, [impact(field), origin(field)]))
        if field.path == "filter":
            blocks += [f"{where}filter · {remarks}", filter_diff_block(field.before, field.after)]
        else:
            items.append(f"- {label(field.path)}: {where}{_before_and_after(field)} · {remarks}")
    return blocks, items


def created_blocks(fields: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """Return the blocks and the list items that show a new meter. Its name is in the title.

    A long filter becomes a block, anything else an item.
    """
    blocks: list[Block] = []
    items = []
    for path in ("filter", "aggregation"):
        if path == "filter" and is_long_filter(fields[path]):
            blocks += ["filter", outline_block(fields[path])]
        else:
            items.append(f"- {path}: {value_code(path, fields[path])}")
    for parts in labeled_groups(fields).values():
        items.append("- " + ", ".join(f"{name} {code(value(data))}" for name, data in parts))
    if metadata := [f"{code(key)} {code(value(data))}" for key, data in metadata_of(fields).items()]:
        items.append(f"- metadata: {', '.join(metadata)}")
    return blocks, items


def table_cell(field: FieldChange, *, created: bool) -> str:
    """Return the cell of one plan: a field before and after, or its value in a new meter.

    A filter that does not fit in a cell is only referred to.
    """
    if field.path == "filter" and not created:
        return "changed, see below"
    if field.path == "filter" and is_long_filter(field.after):
        return "see below"
    text = value_code(field.path, field.after) if created else _before_and_after(field)
    return " · ".join(filter(None, [text, origin(field)]))


def marker_markdown(change: Change, marker: MarkerChange) -> str:
    """Return the ownership marker before and after. For a duplicate, say which meter stays."""
    if change.action == "settle":
        return prose(settled(change))
    before, after = (marker_or_none(side, short_code) for side in (marker.before, marker.after))
    return " · ".join([f"{MARKER}: {before} → {after}", *marker_remarks(change)])


def counted_markdown(spec: MeterSpec) -> str:
    """Return the aggregation and the filter of a meter, because its name alone does not tell them."""
    short = clipped(expression(filter_of(spec)), _INLINE_FILTER)
    return (
        f"{NO_LONGER_COUNTED}: {value_code('aggregation', spec.canonical['aggregation'])} over {code(short)}"
    )


def label(path: str) -> str:
    """Return the name of a field, with the part of the unit or the metadata key that is meant."""
    field = field_label(path)
    part = code(field.part) if field.is_key else field.part
    return f"{field.name} {part}" if part else field.name


def impact(field: FieldChange) -> str:
    """Return what a change of a field affects. Billing stands out."""
    return "**billing**" if field.impact == "billing" else prose(field.impact)


def origin(field: FieldChange) -> str:
    """Return who else changed a field, or an empty string if only the manifest did."""
    return f"**{ORIGINS[field.origin]}**" if ORIGINS[field.origin] else ""


def value_code(path: str, data: Any) -> str:
    """Return the value of a field as a code span. None becomes a plain `none`."""
    return "none" if data is None else code(field_value(path, data))


def _before_and_after(field: FieldChange) -> str:
    return f"{value_code(field.path, field.before)} → {value_code(field.path, field.after)}"


def is_long_filter(data: Mapping[str, Any]) -> bool:
    """Tell whether a filter is too long for one line."""
    return len(expression(data)) > _INLINE_FILTER


def filter_diff_block(before: Mapping[str, Any], after: Mapping[str, Any]) -> TruncatableBlock:
    """Return the difference of two filters as a block."""
    lines = filter_diff(before, after)
    return TruncatableBlock(
        [f"{line.sign} {'  ' * line.depth}{line.text}" for line in lines], language="diff"
    )


def outline_block(data: Mapping[str, Any]) -> TruncatableBlock:
    """Return a filter as a block, one clause a line."""
    return TruncatableBlock([f"{'  ' * line.depth}{line.text}" for line in outline(data)], language="")


def table_row(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    # A `|` ends a cell even inside a code span.
    return "| " + " | ".join(cell.replace("|", "\\u007c") for cell in cells) + " |"


def bullet_list(items: Sequence[str], notes: Sequence[str]) -> Iterator[TruncatableBlock]:
    """Yield a single list, because GitHub merges two adjacent lists and changes their spacing.

    Items can be cut to fit, notes cannot.
    """
    if items or notes:
        yield TruncatableBlock(items, tail=notes)
