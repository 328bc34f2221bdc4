"""Plans as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from click import style

from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import SHORT_DIGEST, Bookkeeping, Change, FieldChange, Plan
from polar_iac.report.evidence import evidence
from polar_iac.report.filters import (
    aggregation,
    expression,
    field_value,
    filter_diff,
    filter_of,
    outline,
    shown_fields,
)
from polar_iac.report.headlines import (
    Headline,
    headline,
    marks,
    marks_only,
    says_kept,
    says_reason,
    stake_words,
)
from polar_iac.report.layout import (
    SIGNS,
    VALUE_COLUMN,
    display_width,
    emphasized,
    filter_lines,
    in_columns,
    labeled,
    paint,
    warning,
    wrapped,
)
from polar_iac.report.replacement import CHECKLIST, NEW_RULE, WHAT_MOVES, replacements, steps
from polar_iac.report.risks import RISKS, change_counts, grade, risk, risk_counts, stake
from polar_iac.report.usage import Markup, incomplete
from polar_iac.report.wording import (
    MARKER,
    NO_LONGER_COUNTED,
    ORIGINS,
    SAME_REFUSALS,
    TERMS,
    WIDTH,
    RefusalPart,
    action_counts,
    asked,
    bookkeeping,
    field_label,
    labeled_groups,
    marker_or_none,
    marker_remarks,
    metadata_of,
    meters_match,
    outcome_line,
    quantity,
    refusal,
    same_refusals,
    settled,
    terms,
    unowned,
    value,
)
from polar_iac.sanitize import printable

MAX_INLINE_FILTER = 74
"""Longest filter, or change of a filter, that is shown on one line, in characters."""
_Said = tuple[str, str]
"""A severity, or `blocked`, and the text of a note or reason."""
_MARKUP = Markup(lambda text: f"`{printable(text)}`", printable, value, minus="-")
"""Ways to quote a value in a sentence. A terminal may not have the typographic minus."""
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
    yield from _changes(plan, width)
    for note in plan.notes:
        yield from _note(_SEVERITIES[note.severity], note.text, "  ", width)
    for entry in plan.bookkeeping:
        yield _bookkeeping(entry)
    if plan.bookkeeping or plan.notes:
        yield ""
    if missing := incomplete(plan.facts_gaps, printable, printable):
        yield from wrapped(missing, "  ", width)
        yield ""
    if used := terms(plan.changes):
        for term in used:
            yield from wrapped(TERMS[term], f"  {term}: ", width)
        yield ""
    actions = {change.action for change in plan.changes} | ({"bookkeeping"} if plan.bookkeeping else set())
    if actions:
        yield "  ".join(paint(action, f"{SIGNS[action]} {action}") for action in SIGNS if action in actions)
    yield summary(plan)
    if plan.tests:
        text = outcome_line(plan.tests)
        yield f"Tests: {text if plan.tests.is_good else paint('blocked', text)}."
    if plan.changes:
        yield f"Digest: {plan.digest[:SHORT_DIGEST]}"
    if plan.unowned:
        yield unowned(plan, lambda command: f"`{command}`")


@dataclass(frozen=True)
class _Context:
    """Settings that all changes of a plan share. `shared` numbers the notes that several of them have."""

    width: int
    environment: str
    blocks: Mapping[str, str]
    says_kept: bool
    only_marks: bool
    shared: Mapping[_Said, int]


def _changes(plan: Plan, width: int) -> Iterator[str]:
    """Yield the lines of all changes, the risky ones first, and then once what several of them share."""
    changes = sorted(plan.changes, key=_urgency)
    alike = same_refusals(changes) | _same_marks(changes)
    blocks = replacements(changes, {change.key for change in changes})
    only_marks = all(change.action == "mark" for change in changes)
    context = _Context(width, plan.environment, blocks, says_kept(changes), only_marks, {})
    shared = _shared_notes([change for change in changes if change.key not in alike], context)
    context = replace(context, shared=shared)
    for change in changes:
        same = alike.get(change.key, [change])
        if change is same[0]:
            if len(same) == 1:
                yield from _change(change, context)
                yield from _replacement(change, blocks.get(change.key), width)
            elif change.action == "mark":
                yield from _marks(same, context)
            else:
                yield from _same_refusal(same, plan.environment, context)
            yield ""
    for said, number in shared.items():
        yield from _note(*said, f"  [{number}] ", width)
    if shared:
        yield ""
    if blocks:
        yield f"  {WHAT_MOVES}:"
        for line in CHECKLIST:
            yield from wrapped(line, "    - ", width)
        yield ""


def _same_marks(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Map each key that only gets a marker to all keys that get one for the same reason."""
    by_reason: dict[str | None, list[Change]] = {}
    for change in changes:
        if marks_only(change):
            by_reason.setdefault(change.reason, []).append(change)
    return {change.key: same for same in by_reason.values() if len(same) > 1 for change in same}


def _marks(changes: Sequence[Change], context: _Context) -> Iterator[str]:
    """Yield one sentence about changes that only write a marker, and their keys."""
    words = marks(changes[0].reason or "", len(changes), only=context.only_marks)
    yield from (paint("mark", line) for line in wrapped(words, f"  {SIGNS['mark']} ", context.width))
    for change in changes:
        title = f'      {printable(change.key)} "{printable(change.name)}"'
        place = [f"{printable(change.source.file)}:{change.source.line}"] if change.source else []
        yield in_columns(title, [*place, (change.id or "")[:8]], context.width)


def _replacement(change: Change, lines: str | None, width: int) -> Iterator[str]:
    """Yield the way out of a frozen meter: the block to paste, indented as it belongs under `meters:`."""
    if lines:
        yield from wrapped(f"{NEW_RULE}:", "      ", width)
        for number, step in enumerate(steps(change, _MARKUP.code), 1):
            yield from wrapped(step, f"      {number}. ", width)
        yield from lines.rstrip("\n").split("\n")


def _headline(plan: Plan) -> str:
    """Sum up the plan for a reviewer, the risks first: `1 archives a meter, 2 to create`."""
    counts = Counter(change.action for change in plan.changes)
    others = sum(change.action == "update" and grade(change) == "internal" for change in plan.changes)
    parts = risk_counts(plan.changes)
    parts += change_counts([one for one in plan.changes if one.action in ("create", "mark", "release")])
    if others:
        other = " other" if others < counts["update"] else ""
        parts.append(f"{others:,}{other} to update")
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


def _shared_notes(changes: Sequence[Change], context: _Context) -> dict[_Said, int]:
    """Number the notes and reasons that several changes share. They are shown once, under the plan."""
    counts = Counter(said for change in changes for said in dict.fromkeys(_said(change, context)))
    return {said: number for number, said in enumerate((s for s in counts if counts[s] > 1), 1)}


def _said(change: Change, context: _Context) -> list[_Said]:
    """List what is said of a change besides its headline: its severity, and a text."""
    made = _headline_of(change, context)
    blocked = change.action == "blocked" and not made
    reasons = [("blocked", change.reason or "")] if blocked else []
    notes = made.left(change) if made else change.notes
    return reasons + [(_SEVERITIES[note.severity], note.text) for note in notes]


def _headline_of(change: Change, context: _Context) -> Headline | None:
    """Return the headline of a change, or None if its title, fields and notes already say it."""
    if change.action == "blocked":
        has_one = says_reason(change)
    elif change.action == "create":
        facts = evidence(change)
        has_one = bool(facts.impact or facts.unseen)
    else:
        has_one = change.action != "settle" and grade(change) != "internal"
    if not has_one:
        return None
    return headline(change, _MARKUP, has_lines=change.key in context.blocks, says_kept=context.says_kept)


def _headline_lines(change: Change, made: Headline, width: int) -> Iterator[str]:
    """Yield the headline of a change after its grade in a word, and what is known to use the meter."""
    grade_, stake_ = grade(change), stake(change)
    invoice = "no effect" if risk(change) == "nothing" else "invoice"
    for line in wrapped(made.lead, "      ", width) if made.lead else ():
        yield emphasized(grade_, line)
    words = {"billing": stake_, "blocked": "blocked", "invoice": invoice, "internal": "note"}
    for line in wrapped(made.whole.lstrip(": "), f"      {words[grade_]}: ", width):
        yield emphasized(grade_, line)
    if grade_ == "billing" and (used := stake_words(change, _MARKUP)):
        yield from wrapped(used, "      used by: " if stake_ != "may bill" else "      ", width)


def _same_refusal(changes: Sequence[Change], environment: str, context: _Context) -> Iterator[str]:
    """Yield the lines of changes that are blocked for one reason, which is said once."""
    refusal_, width = SAME_REFUSALS[changes[0].cause or ""], context.width
    title = wrapped(f"{quantity(len(changes), 'meter')}: {refusal_.of_several}", "  ! ", width)
    yield from (paint("blocked", line) for line in title)
    yield from wrapped(refusal_.advice.format(environment=environment), "      ", width)
    for change in changes:
        yield from _title(change, "      ", context)
        for note in change.notes:
            yield from _note(_SEVERITIES[note.severity], note.text, "        ", width)


def _change(change: Change, context: _Context) -> Iterator[str]:
    """Yield the lines of one change: its title, its headline, its fields, its marker and its notes."""
    width = context.width
    said = [one for one in _said(change, context) if one not in context.shared]
    yield from _title(change, f"  {SIGNS[change.action]} ", context, change.action)
    if made := _headline_of(change, context):
        yield from _headline_lines(change, made, width)
    for severity, text in said:
        if severity == "blocked":
            yield from wrapped(f"blocked: {printable(text)}", "      ", width)
    if change.action == "create":
        yield from _created({field.path: field.after for field in shown_fields(change)}, width)
    else:
        for field in shown_fields(change):
            yield from _field(field, width)
        if change.action == "archive" and change.before:
            yield from _no_longer_counted(change.before, width)
        yield from _marker(change, width)
    for severity, text in said:
        if severity != "blocked":
            yield from _note(severity, asked(text, context.environment, change.key), "      ", width)


def _title(change: Change, indent: str, context: _Context, action: str | None = None) -> Iterator[str]:
    """Yield the key and the name of a change, its place, and the numbers of what is said under the plan."""
    title = f'{indent}{printable(change.key)} "{printable(change.name)}"'
    place = f"{printable(change.source.file)}:{change.source.line}" if change.source else ""
    shared = context.shared
    numbers = ", ".join(str(shared[said]) for said in _said(change, context) if said in shared)
    remark = " ".join(filter(None, [place, f"[{numbers}]" if numbers else ""]))
    yield in_columns(title, [remark] if remark else [], context.width, action)


def _note(severity: str, text: str, indent: str, width: int) -> Iterator[str]:
    """Yield the lines of a note: its severity and its text."""
    for line in wrapped(printable(text), f"{indent}{severity}: ", width):
        yield (
            paint("blocked", line)
            if severity == "blocked"
            else warning(line)
            if severity == "warning"
            else line
        )


def _no_longer_counted(spec: MeterSpec, width: int) -> Iterator[str]:
    """Yield the aggregation and the filter of a meter that is archived."""
    counted = f"      {NO_LONGER_COUNTED}: {aggregation(spec.canonical['aggregation'])} over"
    short = f"{counted} {expression(filter_of(spec))}"
    if display_width(short) <= width:
        yield style(short, fg="red")
        return
    yield style(counted, fg="red")
    yield from filter_lines(outline(filter_of(spec), "-"))


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
    yield from field_lines(field.path, field.before, field.after, remarks, width)


def field_lines(path: str, before: Any, after: Any, remarks: Sequence[str], width: int) -> Iterator[str]:
    """Yield two values of a field, and remarks. Two filters that are too long for a line become a diff."""
    label = field_label(path)
    values = f"{field_value(path, before)} → {field_value(path, after)}"
    if path == "filter" and len(values) > MAX_INLINE_FILTER:
        yield in_columns(labeled(label.name, ""), remarks, width)
        yield from filter_lines(filter_diff(before, after))
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
