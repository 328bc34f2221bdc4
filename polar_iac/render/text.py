"""Plans, diagnostics and results as text for a person. Colors are ANSI codes, which a caller may strip."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from click import style, unstyle

from polar_iac.errors import Diagnostic
from polar_iac.meter import MeterSpec, canonical_json
from polar_iac.plan import (
    SHORT_DIGEST,
    UNKNOWN_HERE,
    Bookkeeping,
    Change,
    Difference,
    Done,
    Event,
    Evidence,
    Failed,
    FieldChange,
    Left,
    Plan,
    Unconfirmed,
    Unsure,
)
from polar_iac.render import WIDTH
from polar_iac.render.words import (
    HOUSEKEEPING,
    Line,
    aggregation,
    expression,
    filter_diff,
    outline,
    permitting,
    printable,
    printable_lines,
    settled,
    value,
)

SIGNS = {
    "create": "+",
    "update": "~",
    "archive": "-",
    "unarchive": "^",
    "mark": "@",
    "settle": "x",
    "bookkeeping": "=",
    "blocked": "!",
}
COLOURS = {
    "create": "green",
    "update": "yellow",
    "archive": "red",
    "unarchive": "cyan",
    "mark": "blue",
    "settle": "red",
    "bookkeeping": "bright_black",
    "blocked": "red",
}
_NAMED = 5
"""Most keys that are listed when many share one result."""
_COLUMN = 66
"""Column at which the right-hand notes begin."""
_SHORT = 74
"""Longest filter, or change of a filter, that is shown on one line, in characters."""
_VALUES = 19
"""Column at which the values of a meter begin, after the field names."""


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
        yield "  ".join(_paint(a, f"{SIGNS[a]} {a}") for a in SIGNS if a in occurring)
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
        told.append(_paint("blocked", f"{counts['blocked']} blocked"))
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
    moved, blocks = permitting([plan])
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


def _paint(action: str, text: str) -> str:
    return style(text, fg=COLOURS[action], bold=action == "blocked")


def _change(change: Change, width: int) -> Iterator[str]:
    title = f'{printable(change.key)} "{printable(change.name)}"'
    note = f"{printable(change.source.file)}:{change.source.line}" if change.source else ""
    yield _columns(f"  {SIGNS[change.action]} {title}", note, width, change.action)
    if change.action == "blocked":
        yield from _wrapped("blocked: " + printable(change.reason or ""), "      ", width)
    if change.action == "create":
        yield from _created({field.path: field.after for field in change.fields}, width)
    else:
        for field in change.fields:
            yield from _field(field, width)
        yield from _marker(change, width)
    for fact in change.evidence:
        yield from _noted(fact, "      ", width)


def _noted(fact: Evidence, indent: str, width: int) -> Iterator[str]:
    sign = "! " if fact.severity == "warning" else "· "
    yield from _wrapped(printable(fact.text), indent + sign, width)


def _marker(change: Change, width: int) -> Iterator[str]:
    """Yield the ownership marker before and after. For a duplicate, say which meter stays."""
    if change.action == "settle":
        yield from _wrapped(settled(change), "      ", width)
    elif change.marker and change.action != "blocked":
        written = f"{_owner(change.marker.before)} → {_owner(change.marker.after)}"
        why = f", {change.reason}" if change.action == "mark" and change.reason else ""
        yield _columns(_labelled("marker", written), f"internal{why}", width)


def _owner(marker: str | None) -> str:
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
        if len(short) <= _SHORT:
            yield _columns(_labelled("filter", short), note, width)
        else:
            yield _columns(_labelled("filter", ""), note, width)
            yield from _outlined(filter_diff(field.before, field.after))
        return
    write = aggregation if name == "aggregation" else value
    told = f"{write(field.before)} → {write(field.after)}"
    yield _columns(_labelled(name, f"{printable(key)}: {told}" if key else told), note, width)


def _created(fields: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the fields of a new meter. Its name is in the title."""
    short = expression(fields["filter"])
    if len(short) <= _SHORT:
        yield _labelled("filter", short)
    else:
        yield _labelled("filter", "")
        yield from _outlined(outline(fields["filter"]))
    yield _labelled("aggregation", aggregation(fields["aggregation"]))
    unit = [printable(str(fields["unit"]))] if "unit" in fields else []
    custom = (name for name in ("custom_label", "custom_multiplier") if name in fields)
    unit += [f"{name[7:]} {value(fields[name])}" for name in custom]
    if unit:
        yield _labelled("unit", ", ".join(unit))
    metadata = [
        f"{printable(path.partition('.')[2])}: {value(data)}"
        for path, data in fields.items()
        if path.startswith("metadata.")
    ]
    if metadata:
        yield from _wrapped(", ".join(metadata), _labelled("metadata", "").ljust(_VALUES), width)


def _labelled(label: str, text: str) -> str:
    return (f"      {label}".ljust(_VALUES) + text).rstrip()


def _outlined(lines: Iterator[Line]) -> Iterator[str]:
    for line in lines:
        text = f"        {line.sign} {'  ' * line.depth}{line.text}"
        yield style(text, fg={"-": "red", "+": "green"}.get(line.sign))


def _bookkeeping(entry: Bookkeeping) -> str:
    told = HOUSEKEEPING[entry.action] + (f" (was {printable(entry.was)})" if entry.was else "")
    return _paint("bookkeeping", f"  = {printable(entry.key)} {entry.id[:8]}  {told}")


def _columns(left: str, right: str, width: int, action: str | None = None) -> str:
    """Put a note after a line: in its column if there is room, else at the right edge, or below."""
    taken, needed = display_width(left), display_width(right)
    gap = " " * max(2, min(_COLUMN, width - needed) - taken)
    if taken + len(gap) + needed > max(width, _COLUMN):
        # Keep the note off the left edge, where a file name could look like a line of our own output.
        gap = "\n" + " " * max(6, min(_COLUMN, width - needed))
    painted = _paint(action, left) if action else left
    return painted + gap + style(right, dim=True) if right else painted


def _wrapped(text: str, indent: str, width: int) -> Iterator[str]:
    """Wrap prose to `width` columns. The first line starts with `indent`, the others align with its text."""
    line, rest = indent, " " * len(indent)
    for word in text.split(" "):
        if display_width(line) + display_width(word) > width and line.strip():
            yield line.rstrip()
            line = rest
        line += word + " "
    yield line.rstrip()


def display_width(text: str) -> int:
    """Return the approximate number of columns that `text` takes in a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def error_text(message: str) -> str:
    """Return an error without a place in a file. A message that starts with its place stays as it is."""
    message = printable_lines(message)
    if re.match(r"\S+: error: ", message):
        return message + "\n"
    return style("error", fg="red", bold=True) + f": {message}\n"


def diagnostics_text(diagnostics: Sequence[Diagnostic], width: int = WIDTH) -> str:
    """Return `FILE:LINE:COL: error: message` for each, with its source line, clipped if long, and a caret."""
    return "".join(_diagnostic(d, width) for d in diagnostics)


def _diagnostic(diagnostic: Diagnostic, width: int) -> str:
    span = diagnostic.span
    head = f"{printable(span.file)}:{span.line}:{span.column}: " + style("error", fg="red", bold=True)
    text = f"{head}: {printable(diagnostic.message)}\n"
    if not diagnostic.excerpt.strip():
        return text
    margin = f"{span.line:>5} | "
    room = max(width - len(margin) - 2, 20)
    before, marked, after = _clipped(diagnostic.excerpt, span.column - 1, span.end_column - 1, room)
    caret = " " * display_width(before) + "^" * max(1, display_width(marked))
    blank = " " * (len(margin) - 2) + "| "
    return f"{text}{margin}{before}{marked}{after}\n{blank}{style(caret, fg='red')}\n"


def _clipped(line: str, start: int, end: int, room: int) -> tuple[str, str, str]:
    """Cut a line to `room` around the marked part. Return before, marked and after, each printable."""
    start = min(start, len(line))
    end = min(max(end, start), len(line), start + room // 2)
    first = max(0, start - room // 2) if len(line) > room else 0
    last = min(len(line), max(end, first + room))
    before, marked, after = (printable(line[a:b]) for a, b in ((first, start), (start, end), (end, last)))
    return ("…" if first else "") + before, marked, after + ("…" if last < len(line) else "")


_PAST = {
    "create": "created",
    "update": "updated",
    "archive": "archived",
    "unarchive": "unarchived",
    "adopt": "adopted",
    "forget": "forgotten",
    "moved": "moved",
    "mark": "marked",
    "refresh": "recorded",
    "settle": "duplicate archived",
}


def event_text(event: Event) -> str:
    """Return what an apply did, or failed to do, with one meter."""
    if isinstance(event, Unsure):
        return _paint("blocked", f"  ! {printable(event.message)}") + "\n"
    sign = event.action if event.action in SIGNS else "bookkeeping"
    head = f"  {SIGNS[sign]} {printable(event.key)}"
    match event:
        case Done():
            return _paint(sign, f"{head} {_PAST[event.action]} {event.id}") + "\n"
        case Left():
            return left_text([event])
        case Unconfirmed():
            head = f"  ! {printable(event.key)} unconfirmed:"
            return _paint("blocked", head) + f"\n    {printable(event.message)}\n"
        case Failed():
            told = diagnostics_text(event.diagnostics) or f"    {printable(event.message)}\n"
            return _paint("blocked", f"  ! {printable(event.key)} failed to {event.action}:") + f"\n{told}"


def left_text(events: Sequence[Left]) -> str:
    """List the meters that an apply left alone. Meters left for the same reason share a line."""
    lines = []
    for reason, told in _by_reason(events).items():
        named = ", ".join(printable(event.key) for event in told[:_NAMED])
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        be = "as it is" if len(told) == 1 else "as they are"
        lines.append(_paint("blocked", f"  ! {named}") + f"{more} left {be}: {printable(reason)}\n")
    return "".join(lines)


def _by_reason(events: Sequence[Left]) -> Mapping[str, Sequence[Left]]:
    told: dict[str, list[Left]] = {}
    for event in events:
        told.setdefault(event.reason, []).append(event)
    return told


def result_text(events: Sequence[Event]) -> str:
    """Sum up an apply in one line."""
    done = Counter(_PAST[event.action] for event in events if isinstance(event, Done))
    failed = sum(isinstance(event, Failed) for event in events)
    unconfirmed = sum(isinstance(event, Unconfirmed) for event in events)
    left = sum(isinstance(event, Left) for event in events)
    told = [f"{count} {verb}" for verb, count in done.items()] or ["nothing done"]
    if failed:
        told.append(_paint("blocked", f"{failed} failed"))
    if unconfirmed:
        told.append(_paint("blocked", f"{unconfirmed} unconfirmed"))
    if any(isinstance(event, Unsure) for event in events):
        told.append(_paint("blocked", "some outcomes are unknown"))
    if left:
        told.append(_paint("blocked", f"{left} not done"))
    return f"Apply: {', '.join(told)}."


def stale_text(found: Sequence[Difference]) -> str:
    """List the changes that were added, removed or altered since a plan was reviewed, and nothing else."""
    lines: list[str] = []
    for difference in found:
        then, now = difference.reviewed, difference.fresh
        key = printable(difference.key)
        if then is None and now is not None:
            lines.append(f"  {SIGNS[now.action]} {key} is new in the plan: {_intent(now)}")
        elif now is None and then is not None:
            lines.append(f"  {SIGNS[then.action]} {key} is not in the plan any more: it was {_intent(then)}")
        elif then is not None and now is not None:
            lines.append(f"  {SIGNS[now.action]} {key} is not what was reviewed:")
            lines += _drifted(then, now)
    return "".join(f"{line}\n" for line in lines)


def _intent(change: Change) -> str:
    return "blocked" if change.action == "blocked" else f"to {change.action}"


def _drifted(then: Change, now: Change) -> Iterator[str]:
    """Yield the differences of two changes of one key: action, meter, marker, values before and after."""
    if then.action != now.action:
        yield f"      reviewed: {_intent(then)}"
        yield f"      now:      {_intent(now)}" + (f", {printable(now.reason)}" if now.reason else "")
    if then.id != now.id:
        yield f"      reviewed: meter {then.id or 'none'}"
        yield f"      now:      meter {now.id or 'none'}"
    if then.marker != now.marker:
        yield f"      marker: reviewed {_marked(then)}, now {_marked(now)}"
    for side in ("before", "after"):
        one, other = (_by_path(getattr(change, side)) for change in (then, now))
        for path in sorted(one.keys() | other.keys()):
            was, is_ = one.get(path), other.get(path)
            if canonical_json(was) == canonical_json(is_):
                continue
            what = f"{printable(path)}, {'as it is at Polar' if side == 'before' else 'as it would be'}"
            if path == "filter" and was and is_ and len(expression(was)) + len(expression(is_)) > _SHORT:
                yield f"      {what}, reviewed (-) and now (+):"
                yield from map(unstyle, _outlined(filter_diff(was, is_)))
            else:
                yield f"      {what}: reviewed {_said(path, was)}, now {_said(path, is_)}"


def _marked(change: Change) -> str:
    marker = change.marker
    return f"{_owner(marker.before)} → {_owner(marker.after)}" if marker else "not written"


def _by_path(spec: MeterSpec | None) -> Mapping[str, Any]:
    return {**spec.by_path, "archived": spec.archived} if spec else {}


def _said(path: str, data: Any) -> str:
    if data is None:
        return "none"
    if path == "filter":
        return expression(data)
    return aggregation(data) if path == "aggregation" else value(data)
