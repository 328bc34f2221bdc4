"""Plans as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polar_iac.plan.model import SHORT_DIGEST, UNKNOWN_HERE, Bookkeeping, Change, FieldChange, Note, Plan
from polar_iac.report.filters import aggregation, expression, filter_diff, outline
from polar_iac.report.layout import _VALUES, SIGNS, in_columns, labelled, outlined_lines, paint, wrapped
from polar_iac.report.wording import HOUSEKEEPING, WIDTH, settled, snippets_to_allow, value
from polar_iac.sanitize import printable

MAX_INLINE_FILTER = 74
"""Longest filter, or change of a filter, that is shown on one line, in characters."""


def plan_text(plan: Plan, manifest_file: str, width: int = WIDTH) -> str:
    """Return the whole plan and its summary. Prose and notes fit in `width` columns."""
    return "".join(f"{line}\n" for line in _plan(plan, manifest_file, width))


def _plan(plan: Plan, manifest_file: str, width: int) -> Iterator[str]:
    organization = f" · organization {plan.organization_id[:8]}" if plan.organization_id else ""
    offline = "" if plan.refreshed else " · offline, against the lockfile"
    only = f" · only {printable(', '.join(plan.targets))}" if plan.targets else ""
    yield f"{printable(manifest_file)} → {plan.environment}{organization}{offline}{only}"
    yield ""
    for change in plan.changes:
        yield from _change(change, width)
        yield ""
    for note in plan.notes:
        yield from _noted(note, "  ", width)
    for entry in plan.bookkeeping:
        yield _bookkeeping(entry)
    if plan.bookkeeping or plan.notes:
        yield ""
    occurring = [a for a in SIGNS if any(c.action == a for c in plan.changes)]
    if plan.bookkeeping:
        occurring.append("bookkeeping")
    if occurring:
        yield "  ".join(paint(a, f"{SIGNS[a]} {a}") for a in SIGNS if a in occurring)
    yield summary(plan)
    if plan.changes:
        yield f"Digest: {plan.digest[:SHORT_DIGEST]}"


def summary(plan: Plan) -> str:
    """Sum up the plan in one line."""
    counts = plan.summary
    if not plan.changes:
        return f"No changes. {_meters(plan.unchanged)} the manifest."
    told = [
        f"{counts['create']} to create",
        f"{counts['update']} to update",
        f"{counts['archive']} to archive",
    ]
    told += [f"{counts[a]} to {a}" for a in ("unarchive", "mark", "settle") if counts[a]]
    if counts["blocked"]:
        told.append(paint("blocked", f"{counts['blocked']} blocked"))
    return f"Plan: {', '.join(told)}. {plan.unchanged} unchanged."


def refusal_text(plan: Plan) -> str:
    """Explain why apply would refuse the whole plan, with the lines to paste to permit it."""
    if plan.refusal is None:
        return ""
    refused = [change for change in plan.changes if change.key in plan.refusal.keys]
    if plan.refusal.cause == "unknown-id":
        named = ", ".join(f"{change.key} ({change.id})" for change in refused[:5])
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        return f"Polar knows none of the ids in the lockfile: {named}{more}. This is {UNKNOWN_HERE}."
    moved, blocks = snippets_to_allow([plan])
    one = len(refused) == 1
    gone = "1 meter is" if one else f"{len(refused)} meters are"
    parts = [f"{gone} gone from the manifest and still active."]
    if moved:
        lines = "\n".join(moved)
        new = "it only has a new key" if one else "they only have new keys"
        parts.append(f"If {new}, say so, and nothing is archived:\n\n{lines}\n")
    more = f"  # and {len(refused) - len(blocks)} more\n" if len(refused) > len(blocks) else ""
    back = "it, put its block" if one else "them, put their blocks"
    parts.append(f"To archive {back} back, with `archived: true`:\n\nmeters:\n{''.join(blocks)}{more}")
    return "\n".join([*parts, "Or allow it this once with --allow-archive."])


def _meters(count: int) -> str:
    return "1 meter matches" if count == 1 else f"{count} meters match"


def _change(change: Change, width: int) -> Iterator[str]:
    title = f'{printable(change.key)} "{printable(change.name)}"'
    note = f"{printable(change.source.file)}:{change.source.line}" if change.source else ""
    yield in_columns(f"  {SIGNS[change.action]} {title}", note, width, change.action)
    if change.action == "blocked":
        yield from wrapped("blocked: " + printable(change.reason or ""), "      ", width)
    if change.action == "create":
        yield from _created({field.path: field.after for field in change.fields}, width)
    else:
        for field in change.fields:
            yield from _field(field, width)
        yield from _marker(change, width)
    for fact in change.notes:
        yield from _noted(fact, "      ", width)


def _noted(fact: Note, indent: str, width: int) -> Iterator[str]:
    sign = "! " if fact.severity == "warning" else "· "
    yield from wrapped(printable(fact.text), indent + sign, width)


def _marker(change: Change, width: int) -> Iterator[str]:
    """Yield the ownership marker before and after. For a duplicate, say which meter stays."""
    if change.action == "settle":
        yield from wrapped(settled(change), "      ", width)
    elif change.marker and change.action != "blocked":
        written = f"{owner(change.marker.before)} → {owner(change.marker.after)}"
        why = f", {change.reason}" if change.action == "mark" and change.reason else ""
        yield in_columns(labelled("marker", written), f"internal{why}", width)


def owner(marker: str | None) -> str:
    return printable(marker) if marker else "none"


def _field(field: FieldChange, width: int) -> Iterator[str]:
    """Yield the old and new value of a field, its impact, and its origin if changed outside."""
    note: str = field.impact
    if field.origin != "manifest":
        note += ", changed outside" if field.origin == "outside" else ", changed here and outside"
    name, _, key = field.path.partition(".")
    if name.startswith("custom_"):
        name, key = "unit", name.removeprefix("custom_")
    if name == "filter":
        short = f"{expression(field.before)} → {expression(field.after)}"
        if len(short) <= MAX_INLINE_FILTER:
            yield in_columns(labelled("filter", short), note, width)
        else:
            yield in_columns(labelled("filter", ""), note, width)
            yield from outlined_lines(filter_diff(field.before, field.after))
        return
    write = aggregation if name == "aggregation" else value
    told = f"{write(field.before)} → {write(field.after)}"
    yield in_columns(labelled(name, f"{printable(key)}: {told}" if key else told), note, width)


def _created(fields: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the fields of a new meter. Its name is in the title."""
    short = expression(fields["filter"])
    if len(short) <= MAX_INLINE_FILTER:
        yield labelled("filter", short)
    else:
        yield labelled("filter", "")
        yield from outlined_lines(outline(fields["filter"]))
    yield labelled("aggregation", aggregation(fields["aggregation"]))
    unit = [printable(str(fields["unit"]))] if "unit" in fields else []
    custom = (name for name in ("custom_label", "custom_multiplier") if name in fields)
    unit += [f"{name[7:]} {value(fields[name])}" for name in custom]
    if unit:
        yield labelled("unit", ", ".join(unit))
    metadata = [
        f"{printable(path.partition('.')[2])}: {value(data)}"
        for path, data in fields.items()
        if path.startswith("metadata.")
    ]
    if metadata:
        yield from wrapped(", ".join(metadata), labelled("metadata", "").ljust(_VALUES), width)


def _bookkeeping(entry: Bookkeeping) -> str:
    told = HOUSEKEEPING[entry.action] + (f" (was {printable(entry.was)})" if entry.was else "")
    return paint("bookkeeping", f"  = {printable(entry.key)} {entry.id[:8]}  {told}")
