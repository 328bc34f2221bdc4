"""Plans as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from click import style

from polar_iac.plan.model import SHORT_DIGEST, Bookkeeping, Change, FieldChange, Note, Plan
from polar_iac.report.comment.risks import RISKS, risk, risk_counts, risks
from polar_iac.report.filters import aggregation, expression, field_value, filter_diff, outline
from polar_iac.report.layout import (
    SIGNS,
    VALUE_COLUMN,
    display_width,
    filter_lines,
    in_columns,
    labeled,
    paint,
    warning,
    wrapped,
)
from polar_iac.report.wording import (
    MARKER,
    NO_LONGER_COUNTED,
    ORIGINS,
    TERMS,
    WIDTH,
    RefusalPart,
    action_counts,
    bookkeeping,
    field_label,
    labeled_groups,
    marker_or_none,
    marker_remarks,
    metadata_of,
    meters_match,
    refusal,
    settled,
    terms,
    value,
)
from polar_iac.sanitize import printable

MAX_INLINE_FILTER = 74
"""Longest filter, or change of a filter, that is shown on one line, in characters."""
_SEVERITIES = {"warning": "warning", "info": "note"}
"""Words for the severity of a note. What is blocked says so itself."""


def plan_text(plan: Plan, manifest_file: str, width: int = WIDTH) -> str:
    """Return the whole plan and its summary. Prose and notes fit in `width` columns."""
    return "".join(f"{line}\n" for line in _plan(plan, manifest_file, width))


def _plan(plan: Plan, manifest_file: str, width: int) -> Iterator[str]:
    organization = f" · organization {plan.organization_id[:8]}" if plan.organization_id else ""
    offline = "" if plan.refreshed else " · offline, against the lockfile"
    only = f" · only {printable(', '.join(plan.targets))}" if plan.targets else ""
    yield f"{printable(manifest_file)} → {plan.environment}{organization}{offline}{only}"
    if plan.changes:
        yield from (style(line, bold=True) for line in wrapped(_headline(plan), "", width))
    yield ""
    for change in sorted(plan.changes, key=_urgency):
        yield from _change(change, width)
        yield ""
    for note in plan.notes:
        yield from _note(note, "  ", width)
    for entry in plan.bookkeeping:
        yield _bookkeeping(entry)
    if plan.bookkeeping or plan.notes:
        yield ""
    if used := terms(plan.changes):
        for term in used:
            yield from wrapped(f"{term}: {TERMS[term]}", "  ", width)
        yield ""
    actions = {change.action for change in plan.changes} | ({"bookkeeping"} if plan.bookkeeping else set())
    if actions:
        yield "  ".join(paint(action, f"{SIGNS[action]} {action}") for action in SIGNS if action in actions)
    yield summary(plan)
    if plan.changes:
        yield f"Digest: {plan.digest[:SHORT_DIGEST]}"


def _headline(plan: Plan) -> str:
    """Sum up the plan for a reviewer, the risks first: `1 archives a meter, 2 to create`."""
    counts = Counter(change.action for change in plan.changes)
    others = Counter(change.action for change in plan.changes if "billing" not in risks(change))
    parts = risk_counts(map(risks, plan.changes))
    parts += action_counts({name: counts[name] for name in ("create", "mark")}).values()
    if others["update"]:
        other = " other" if others["update"] < counts["update"] else ""
        parts.append(f"{others['update']:,}{other} to update")
    return ", ".join(parts)


def _urgency(change: Change) -> int:
    """Return the sort key that puts the most serious risk first. Changes of one risk keep their order."""
    most_serious = risk(change)
    return RISKS.index(most_serious) if most_serious else len(RISKS)


def summary(plan: Plan) -> str:
    """Sum up the plan in one line."""
    if not plan.changes:
        return f"No changes. {meters_match([plan.unchanged])} the manifest."
    counts = action_counts(plan.summary, always=("create", "update", "archive"))
    if "blocked" in counts:
        counts["blocked"] = paint("blocked", counts["blocked"])
    return f"Plan: {', '.join(counts.values())}. {plan.unchanged:,} unchanged."


def refusal_text(plan: Plan) -> str:
    """Explain why apply would refuse the whole plan, with the lines to paste to permit it."""
    if plan.refusal is None:
        return ""
    return "\n".join(map(_refusal_part, refusal([plan], printable)))


def _refusal_part(part: RefusalPart) -> str:
    """Return a sentence of a refusal, and below it the lines to paste."""
    if part.snippet is None:
        return part.sentence
    lines = "".join(f"{line}\n" for line in part.snippet.lines())
    return f"{part.sentence}:\n\n{lines}"


def _change(change: Change, width: int) -> Iterator[str]:
    """Yield the lines of one change: its title and place, its fields, its marker and its notes."""
    title = f'{printable(change.key)} "{printable(change.name)}"'
    place = [f"{printable(change.source.file)}:{change.source.line}"] if change.source else []
    yield in_columns(f"  {SIGNS[change.action]} {title}", place, width, change.action)
    if change.action == "blocked":
        yield from wrapped("blocked: " + printable(change.reason or ""), "      ", width)
    if change.action == "create":
        yield from _created({field.path: field.after for field in change.fields}, width)
    else:
        for field in change.fields:
            yield from _field(field, width)
        if change.action == "archive" and change.before:
            yield from _no_longer_counted(change.before.canonical, width)
        yield from _marker(change, width)
    for note in change.notes:
        yield from _note(note, "      ", width)


def _note(note: Note, indent: str, width: int) -> Iterator[str]:
    """Yield the lines of a note: its severity and its text."""
    lines = wrapped(printable(note.text), f"{indent}{_SEVERITIES[note.severity]}: ", width)
    yield from map(warning, lines) if note.severity == "warning" else lines


def _no_longer_counted(spec: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the aggregation and the filter of a meter that is archived."""
    counted = f"      {NO_LONGER_COUNTED}: {aggregation(spec['aggregation'])} over"
    short = f"{counted} {expression(spec['filter'])}"
    if display_width(short) <= width:
        yield style(short, fg="red")
        return
    yield style(counted, fg="red")
    yield from filter_lines(outline(spec["filter"], "-"))


def _marker(change: Change, width: int) -> Iterator[str]:
    """Yield the ownership marker before and after. For a duplicate, say which meter stays."""
    if change.action == "settle":
        yield from wrapped(settled(change), "      ", width)
    elif change.marker and change.action != "blocked":
        before, after = (
            marker_or_none(side, printable) for side in (change.marker.before, change.marker.after)
        )
        yield in_columns(labeled(MARKER, f"{before} → {after}"), marker_remarks(change), width)


def _field(field: FieldChange, width: int) -> Iterator[str]:
    """Yield the old and new value of a field, its impact, and its origin if changed outside."""
    remarks = [*filter(None, [field.impact, ORIGINS[field.origin]])]
    label = field_label(field.path)
    values = f"{field_value(field.path, field.before)} → {field_value(field.path, field.after)}"
    if field.path == "filter" and len(values) > MAX_INLINE_FILTER:
        yield in_columns(labeled(label.name, ""), remarks, width)
        yield from filter_lines(filter_diff(field.before, field.after))
        return
    part = f"{printable(label.part)}: " if label.part else ""
    yield in_columns(labeled(label.name, part + values), remarks, width)


def _created(fields: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the fields of a new meter. Its name is in the title."""
    short = expression(fields["filter"])
    if len(short) <= MAX_INLINE_FILTER:
        yield labeled("filter", short)
    else:
        yield labeled("filter", "")
        yield from filter_lines(outline(fields["filter"]))
    yield labeled("aggregation", aggregation(fields["aggregation"]))
    for group, parts in labeled_groups(fields).items():
        values = [value(data) if label == group else f"{label} {value(data)}" for label, data in parts]
        yield labeled(group, ", ".join(values))
    metadata = [f"{printable(key)}: {value(data)}" for key, data in metadata_of(fields).items()]
    if metadata:
        yield from wrapped(", ".join(metadata), labeled("metadata", "").ljust(VALUE_COLUMN), width)


def _bookkeeping(entry: Bookkeeping) -> str:
    text = bookkeeping(entry, printable)
    return paint("bookkeeping", f"  = {printable(entry.key)} {entry.id[:8]}  {text}")
