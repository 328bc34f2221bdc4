"""Plans as a pull request comment, for a reviewer who has never seen this tool.

The first line sums up the plans. The risky changes follow in full, then the other changes. A comment that
is too long is cut between changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from polar_iac.plan.model import SHORT_DIGEST, Action, Plan
from polar_iac.report.comment.body import changes_blocks
from polar_iac.report.comment.budget import Budget, TruncatableBlock
from polar_iac.report.comment.context import CommentContext, note_sign, plans_by_text
from polar_iac.report.comment.escape import Links, code, details, prose, short_code
from polar_iac.report.comment.key_changes import KeyChanges
from polar_iac.report.comment.numbered import numbered_notes
from polar_iac.report.comment.refusals import refusal_blocks
from polar_iac.report.evidence import evidence
from polar_iac.report.headlines import says_kept
from polar_iac.report.replacement import replacements
from polar_iac.report.risks import GRADE_SIGNS, Grade, adopts_only, change_counts, grade, will_refuse
from polar_iac.report.usage import incomplete
from polar_iac.report.wording import (
    TERMS,
    all_blocked,
    bookkeeping,
    labels,
    listed,
    meters_match,
    outcome_line,
    production_first,
    quantity,
    says_the_usual,
    terms,
    unowned,
)

_LISTED = 20
"""Most notes, and most changes of the lockfile, that are listed."""
_TARGETS = 10
_STANDING = frozenset({"unknown-here", "unmarked"})
"""Kinds of notes about things that the pull request does not change. The text of a plan has them."""
_LEGEND: Mapping[Action, str] = {
    "create": "a new meter. It bills nothing until a price uses it.",
    "archive": "the meter stops counting. Polar deletes nothing.",
    "unarchive": "the meter counts again, and so bills again.",
    "mark": (
        "writes only the marker, which says to which project and key the meter belongs. Nothing that is "
        "counted or billed changes."
    ),
    "settle": (
        "an interrupted run created a meter twice. The duplicate is archived, and the other one stays."
    ),
    "release": "takes the marker off. The meter stays at Polar as it is.",
}
"""Meanings of actions. An update and a blocked change show theirs."""
_GRADES: Mapping[Grade, str] = {
    "billing": "changes what is billed, or may: no live price is known where it says so.",
    "blocked": "is not carried out.",
    "invoice": "customers read it on invoices, or no event of these days would have been counted otherwise.",
    "internal": "neither billed nor on invoices, or a new meter.",
}
_MATCHED = (
    "what the filter matched, which is not what was billed: an event bills only through a subscription with "
    "a price, after trials, credits, caps and discounts."
)
_CHANGED_OUTSIDE = "someone changed it at Polar. `apply` puts back the value of the manifest."
_DIGEST = "identifies exactly these changes. `apply --digest DIGEST` makes exactly these, or none."


def plan_markdown(
    plans: Sequence[Plan],
    *,
    manifest_file: str,
    links: Links | None = None,
    limit: int = 60_000,
    whole: str = "the summary of the workflow run",
) -> str:
    """Return the plans as one comment of at most `limit` bytes, which must be at least 4,000.

    GitHub takes 65,536 characters. `whole` names the place that has the uncut comment.
    """
    plans = production_first(plans)
    entries = _entries(plans)
    context = _context(plans, entries, links, whole)
    manifest = context.file(manifest_file)
    kept = [*_notes_and_bookkeeping(plans, context)]
    marker = comment_marker(plans)
    if not entries:
        return _joined([_no_changes(plans, manifest), *_tests(plans), *kept, marker])

    head = [_introduction(plans, context, manifest), *_tests(plans), *_incomplete(plans, context)]
    head += refusal_blocks(plans, context, limit // 4)
    unowned = "\n".join(_unowned(plans, context))
    foot = [_digests(plans, context), *filter(None, [unowned])]
    foot += [details("How to read this", _legend(plans)), marker]
    budget = Budget(limit)
    budget.reserve(_title(plans), *head, *foot)
    cut, changes = changes_blocks(entries, context, kept, budget)
    return _joined([_title(plans), *([cut] if cut else []), *head, *changes, *foot])


def result_markdown(
    plan: Plan,
    counts: str,
    lines: Sequence[str],
    *,
    links: Links | None = None,
    limit: int,
    whole: str,
) -> str:
    """Return the result of an apply, in at most `limit` bytes.

    It has `counts` in the title, a line for each effect, and the plan that was carried out, folded.
    """
    entries = _entries([plan])
    context = _context([plan], entries, links, whole)
    blocks = [f"### Polar meters: applied to {prose(plan.environment)}: {prose(counts)}"]
    if lines:
        blocks.append(TruncatableBlock(lines, language="").markdown(limit // 2, whole))
    if entries:
        title, foot = "The plan that was carried out", _digests([plan], context)
        budget = Budget(limit)
        budget.reserve(*blocks, details(title, foot))
        kept = [*_notes_and_bookkeeping([plan], context)]
        cut, changes = changes_blocks(entries, context, kept, budget)
        blocks.append(details(title, "\n\n".join([*([cut] if cut else []), *changes, foot])))
    return _joined(blocks)


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _entries(plans: Sequence[Plan]) -> list[KeyChanges]:
    """Return the changes of all plans by key, and one entry more for each duplicate to settle."""
    by_place = [{change.place: change for change in plan.changes} for plan in plans]
    places = sorted({place for changes in by_place for place in changes})
    return [KeyChanges(place, tuple(changes.get(place) for changes in by_place)) for place in places]


def _context(
    plans: Sequence[Plan], entries: Sequence[KeyChanges], links: Links | None, whole: str
) -> CommentContext:
    names = [prose(label) or code(label) for label in labels(plans)]
    said_above = frozenset(
        change.reason or ""
        for plan in plans
        if plan.refusal
        for change in plan.changes
        if change.key in plan.refusal.keys and says_the_usual(change)
    )
    keys = {entry.key for entry in entries}
    ways_out = [replacements(plan.changes, keys) for plan in plans]
    changes = [change for plan in plans for change in plan.changes]
    return CommentContext(
        names,
        links,
        whole,
        numbered_notes(entries),
        said_above,
        ways_out,
        says_kept=says_kept(changes),
        environments=[plan.environment for plan in plans],
        only_marks=all(change.action == "mark" for change in changes),
    )


def comment_marker(plans: Sequence[Plan]) -> str:
    """Return the hidden line that identifies this comment on later runs.

    It names the project and the environments: a job for sandbox and a job for production must not overwrite
    each other's comments.
    """
    return hidden_line({plan.project for plan in plans}, {plan.environment for plan in plans})


def hidden_line(projects: Set[str], environments: Set[str]) -> str:
    """Return an HTML comment that names projects and environments."""
    names = f"polar-iac:{'+'.join(sorted(projects))}:{'+'.join(sorted(environments))}"
    # Replace every character that could end an HTML comment.
    return f"<!-- {re.sub('[^A-Za-z0-9_.:+/-]', '_', names)[:500]} -->"


def headline(plans: Sequence[Plan]) -> str:
    """Sum up the plans in one line, as in `2 to create, 1 to archive · sandbox`."""
    return "; ".join(_headlines(production_first(plans)))


def _headlines(plans: Sequence[Plan]) -> list[str]:
    """Sum up the plans, with one line for each distinct result."""
    names = labels(plans)
    results = [", ".join(change_counts(plan.changes)) or "no changes" for plan in plans]
    places = {
        result: listed([names[index] for index in indices])
        for result, indices in plans_by_text(enumerate(results)).items()
    }
    if len(places) == 1:
        return [f"{result} · {place}" for result, place in places.items()]
    return [f"{place}: {result}" for result, place in places.items()]


def _title(plans: Sequence[Plan]) -> str:
    lines = _headlines(plans)
    separator = ": " if len(lines) == 1 else "<br>"
    return "### Polar meters" + "".join(f"{separator}{prose(line)}" for line in lines)


def _no_changes(plans: Sequence[Plan], manifest: str) -> str:
    offline = "" if all(plan.refreshed for plan in plans) else " Planned offline, against the lockfile."
    match = meters_match(sorted({plan.unchanged for plan in plans}))
    return f"Polar meters: {prose(headline(plans))}. {match} {manifest}.{offline}"


def _introduction(plans: Sequence[Plan], context: CommentContext, manifest: str) -> str:
    """Say what the comment is about: environments, manifest, targets, and that a plan was made offline."""
    places = [
        f"**{label}**" + (f" (organization {code(plan.organization_id[:8])})" if plan.organization_id else "")
        for plan, label in zip(plans, context.labels, strict=True)
    ]
    changes = [change for plan in plans for change in plan.changes]
    blocked, count = sum(change.action == "blocked" for change in changes), len(changes)
    tries = "try to change" if any(map(will_refuse, changes)) else "change"
    text = f"This is what `apply` would {tries} in Polar's {listed(places)} to match {manifest}."
    text += " Nothing has been changed yet."
    if blocked == count:
        text = f"`apply` would change nothing in Polar's {listed(places)}: {all_blocked(count)}."
    if 0 < blocked < count and not any(plan.refusal for plan in plans):
        text += " Blocked changes are skipped; `apply` makes the others and exits 1."
    if targets := sorted({key for plan in plans for key in plan.targets}):
        only = listed([short_code(key) for key in targets], _TARGETS)
        text += f" **Only {only} (`--target`)**: all other meters are left alone."
    offline = [label for plan, label in zip(plans, context.labels, strict=True) if not plan.refreshed]
    if offline:
        where = f" for {listed(offline)}" if len(offline) < len(plans) else ""
        text += (
            f" **Planned offline{where}**, against the lockfile: changes that someone made at Polar do not "
            "appear here."
        )
    return text


def _tests(plans: Sequence[Plan]) -> Iterator[str]:
    """Yield what came of the tests beside the manifest, which all plans share."""
    for tested in [plan.tests for plan in plans if plan.tests][:1]:
        text = outcome_line(tested)
        yield f"{text}." if tested.is_good else f"🛑 **{text}** (`polar-iac test` shows why)."


def _incomplete(plans: Sequence[Plan], context: CommentContext) -> Iterator[str]:
    """Yield which facts are missing, in one line for each plan that lacks some."""
    lines = ((index, incomplete(plan.facts_gaps, short_code, prose)) for index, plan in enumerate(plans))
    yield from context.after_signs((index, f"ℹ️ {line}") for index, line in lines if line)


def _digests(plans: Sequence[Plan], context: CommentContext) -> str:
    # Not a list: GitHub would merge it with a list at the end of the last change.
    return "\n\n".join(
        f"{label}: {f'{plan.unchanged:,} unchanged · ' if plan.unchanged else ''}"
        f"digest {code(plan.digest[:SHORT_DIGEST])}"
        for plan, label in zip(plans, context.labels, strict=True)
    )


def _unowned(plans: Sequence[Plan], context: CommentContext) -> Iterator[str]:
    """Yield how many meters could be taken over instead of created, for each plan with creates."""
    for plan, label in zip(plans, context.labels, strict=True):
        if plan.unowned:
            where = f"{label}: " if len(plans) > 1 else ""
            yield where + unowned(plan, lambda command: f"`{command}`")


def _legend(plans: Sequence[Plan]) -> str:
    """Explain the words that occur in this comment, and no others."""
    changes = [change for plan in plans for change in plan.changes]
    actions = {change.action for change in changes}
    grades = {grade(change) for change in changes}
    signs = {GRADE_SIGNS[grade_]: text for grade_, text in _GRADES.items() if grade_ in grades}
    meanings = {term: f"{TERMS[term]}." for term in terms(changes)}
    adopts = adopts_only(changes)
    meanings |= {
        "adopt" if action == "mark" and adopts else action: text
        for action, text in _LEGEND.items()
        if action in actions
    }
    if "blocked" in actions:
        others = "" if any(plan.refusal for plan in plans) else "; the others are carried out"
        meanings["blocked"] = f"this change is refused for the reason given{others}."
    if any(field.origin != "manifest" for change in changes for field in change.fields):
        meanings["changed outside"] = _CHANGED_OUTSIDE
    if any(evidence(change).impact for change in changes):
        meanings["matched"] = _MATCHED
    meanings["digest"] = _DIGEST
    lines = [f"- {sign} {text}" for sign, text in signs.items()]
    return "\n".join([*lines, *(f"- **{word}**: {text}" for word, text in meanings.items())])


def _notes_and_bookkeeping(plans: Sequence[Plan], context: CommentContext) -> Iterator[str]:
    """Yield the folded lists of notes about meters without a change, and of changes of the lockfile."""
    notes = context.by_plan(
        (index, f"{note_sign(note)} {prose(note.text)}")
        for index, plan in enumerate(plans)
        for note in plan.notes
        if note.kind not in _STANDING
    )
    if notes:
        yield _folded_list(f"Notes: {len(notes):,}", notes)
    entries = context.by_plan(
        (index, f"{short_code(entry.key)} {code(entry.id[:8])} {bookkeeping(entry, short_code)}")
        for index, plan in enumerate(plans)
        for entry in plan.bookkeeping
    )
    if entries:
        yield _folded_list(f"Bookkeeping: {quantity(len(entries), 'change')} of the lockfile only", entries)


def _folded_list(title: str, lines: Sequence[str]) -> str:
    """Return a folded list of at most `_LISTED` lines."""
    more = [f"and {len(lines) - _LISTED:,} more"] if len(lines) > _LISTED else []
    return details(title, "\n".join(f"- {line}" for line in [*lines[:_LISTED], *more]))
