"""The changes of a comment: as many as fit, the risky ones first, and by their keys those that do not fit.

Every kind of risk, and every change of a kind, has its fair share of the room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from polar_iac.plan.model import Change
from polar_iac.report.comment.budget import Budget, TruncatableBlock, fair_cap
from polar_iac.report.comment.context import CommentContext
from polar_iac.report.comment.escape import details, prose, short_code, size
from polar_iac.report.comment.key_changes import KeyChanges
from polar_iac.report.headlines import marks
from polar_iac.report.risks import GRADE_SIGNS, RISKS, graded_counts, prospect, risks
from polar_iac.report.wording import action_counts, agree

Place = tuple[str, str]
"""The identity of an entry, equal to the `Change.place` of its changes."""
_RISKY_OPEN = 15
"""Most risky changes that are shown unfolded."""
_REST_OPEN = 5
"""Most other changes that are shown unfolded."""
_FAIR = 3_000
"""Bytes that a change may take before it must leave room for others."""
_FOR_KEYS = 5
"""If not everything fits, one part in this many is for the changes that are only listed by key."""


def changes_blocks(
    entries: Sequence[KeyChanges], context: CommentContext, kept: Sequence[str], budget: Budget
) -> tuple[str, list[str]]:
    """Return how many changes are left out, or an empty string, and the blocks that fit.

    The blocks are the numbered notes, the changes, how many are left out once more, and `kept`.
    """
    notes = "\n".join(f"- Note {note.number}: {note.text}" for note in context.notes.values())
    head = [notes] if notes else []
    longest_cut = _left_out(entries, entries, context)
    budget.reserve(*head, *kept, longest_cut, longest_cut)
    groups = [[entry for entry in entries if entry.risks[:1] == [kind]] for kind in RISKS]
    blocks, places = _risky_blocks(groups, context, budget)
    rest = [entry for entry in entries if not entry.risks]
    if rest and len(places) == sum(map(len, groups)):
        more_blocks, more_places = _rest_blocks(rest, context, budget)
        blocks, places = blocks + more_blocks, places | more_places
    left_out = [entry for entry in entries if entry.place not in places]
    cut = _left_out(left_out, entries, context) if left_out else ""
    return cut, [*head, *blocks, *([cut] if cut else []), *kept]


def _risky_blocks(
    groups: Sequence[Sequence[KeyChanges]], context: CommentContext, budget: Budget
) -> tuple[list[str], set[Place]]:
    """Return blocks for as many risky changes as fit, and the places of those that are shown in full.

    There is one group for each kind of risk.
    """
    entries = [entry for group in groups for entry in group]
    if not entries:
        return [], set()
    title = _look_closely(entries, context)
    inside = budget.part(budget.available)
    inside.reserve(title, _folded_more(len(entries), []))
    texts = _in_shares(groups, context, inside)
    opened = fair_cap([len(group) for group in texts], _RISKY_OPEN)
    first = [text for group in texts for text in [*group.values()][:opened]]
    folded = [text for group in texts for text in [*group.values()][opened:]]
    blocks = ["\n\n".join([title, *first])] if first else []
    if folded:
        blocks.append(_folded_more(len(folded), folded))
    budget.reserve(*blocks)
    places = {place for group in texts for place in group}
    lines = [
        [f"- {entry.brief(context)}" for entry in group if entry.place not in places] for group in groups
    ]
    if by_key := _by_key(lines, budget):
        budget.reserve(by_key)
        blocks.append(by_key)
    return blocks, places


def _folded_more(count: int, texts: Sequence[str]) -> str:
    return details(f"{count:,} more to look at closely", "\n\n".join(texts))


def _rest_blocks(
    entries: Sequence[KeyChanges], context: CommentContext, budget: Budget
) -> tuple[list[str], set[Place]]:
    """Return blocks for as many changes without a risk as fit, and the places of those that are shown.

    Meters that only get a marker share one line.
    """
    marked = _marked(entries)
    blocks = []
    places = {entry.place for group in marked for entry in group}
    for group in marked:
        share = budget.room // (2 * len(marked))
        blocks.append(_marks_block(group, context, share))
    budget.reserve(*blocks)
    others = [entry for entry in entries if entry.place not in places]
    if not others:
        return blocks, places
    title = f"Other changes: {_counts(others)}"
    budget.reserve(details(title, ""))
    (texts,) = _in_shares([others], context, budget)
    body = "\n\n".join(texts.values())
    if not texts:
        return blocks, places
    block = details(title, body) if len(others) > _REST_OPEN else f"#### {title}\n\n{body}"
    return [*blocks, block], places | set(texts)


def _marked(entries: Sequence[KeyChanges]) -> list[list[KeyChanges]]:
    """Group the changes that only write a marker, by reason and by plan."""
    groups: dict[tuple[str | None, tuple[bool, ...]], list[KeyChanges]] = {}
    for entry in entries:
        if entry.is_mark:
            plans = tuple(change is not None for change in entry.changes)
            groups.setdefault((entry.present[0].reason, plans), []).append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _marks_block(entries: Sequence[KeyChanges], context: CommentContext, room: int) -> str:
    """Return one line about meters that only get a marker, and their folded keys."""
    first = entries[0]
    where = context.where([index for index, change in enumerate(first.changes) if change])
    words = marks(first.present[0].reason or "", len(entries), only=context.only_marks)
    line = f"{GRADE_SIGNS[first.grade]} {where}{words}"
    keys = TruncatableBlock([f"- {short_code(entry.key)} {entry.quoted_name}" for entry in entries])
    title = f"{len(entries):,} keys"
    return f"{line}\n\n{details(title, keys.markdown(room - size(details(title, line)), context.whole))}"


def _in_shares(
    groups: Sequence[Sequence[KeyChanges]], context: CommentContext, budget: Budget
) -> list[dict[Place, str]]:
    """Return the texts of the first entries of each group, by place.

    Groups and entries get fair shares: none takes the room that others need.
    """
    uncut = [_uncut(group, context, budget) for group in groups]
    costs = [[budget.cost(text) for text in group] for group in uncut]
    if sum(map(sum, costs)) > budget.available:
        budget = budget.part(budget.available - budget.available // _FOR_KEYS)
    share = budget.share([sum(group) for group in costs])
    texts = []
    for group, group_uncut, group_costs in zip(groups, uncut, costs, strict=True):
        part = budget.part(min(share, sum(group_costs)))
        texts.append(_first_texts(group, context, group_uncut, part))
    return texts


def _first_texts(
    entries: Sequence[KeyChanges], context: CommentContext, uncut: Sequence[str], budget: Budget
) -> dict[Place, str]:
    """Return the texts of the first entries that fit, by place. Long ones leave room for others."""
    longest = max(_FAIR, budget.share([budget.cost(text) for text in uncut]))
    texts: dict[Place, str] = {}
    for entry, whole in zip(entries, uncut, strict=False):
        # The first is cut to fit, rather than left out.
        room = longest if texts else min(longest, budget.room)
        text = whole if size(whole) <= room else entry.markdown(context, room)
        if not budget.take(text):
            break
        texts[entry.place] = text
    return texts


def _uncut(entries: Sequence[KeyChanges], context: CommentContext, budget: Budget) -> list[str]:
    """List the texts of the entries, up to the first that does not fit even when shortened."""
    texts, room = [], budget.available
    for entry in entries:
        texts.append(entry.markdown(context))
        room -= min(budget.cost(texts[-1]), _FAIR)
        if room < 0:
            break
    return texts


def _by_key(groups: Sequence[Sequence[str]], budget: Budget) -> str:
    """Return a folded list of changes by their keys, as many as fit, or an empty string."""
    title = f"{sum(map(len, groups)):,} more to look at closely, listed by key"
    lines = Budget(budget.room - size(details(title, "")), separator="\n")
    share = lines.share([lines.cost(*group) for group in groups])
    fitting = []
    for group in groups:
        group_budget = lines.part(share)
        fitting += list(takewhile(group_budget.take, group))
    return details(title, "\n".join(fitting)) if fitting else ""


def _look_closely(entries: Sequence[KeyChanges], context: CommentContext) -> str:
    """Return a title that counts the changes by risk, separately for each plan if the plans differ."""
    by_plan = [[entry.changes[index] for entry in entries] for index in range(len(context.labels))]
    kinds = {
        tuple((*risks(change), prospect(change)) if change else None for change in changes)
        for changes in by_plan
    }
    counts = [_signed_counts([change for change in changes if change]) for changes in by_plan]
    if len(kinds) == 1:
        return f"#### Look closely: {counts[0]}"
    counted = zip(context.labels, counts, strict=True)
    return "#### " + "<br>".join(f"Look closely, {label}: {text}" for label, text in counted if text)


def _signed_counts(changes: Sequence[Change]) -> str:
    """Count changes by risk, and show the grade before the first count that has it."""
    return " · ".join(f"{sign} {', '.join(counts)}" for sign, counts in graded_counts(changes))


def _counts(entries: Sequence[KeyChanges]) -> str:
    """Count the changes by action, and those that differ between the plans."""
    shared = Counter[str](entry.present[0].action for entry in entries if entry.shared)
    differ = sum(not entry.shared for entry in entries)
    differing = [f"{differ:,} that {agree(differ, 'differs', 'differ')} by environment"] if differ else []
    return ", ".join([*action_counts(shared).values(), *differing])


def _left_out(left_out: Sequence[KeyChanges], entries: Sequence[KeyChanges], context: CommentContext) -> str:
    """Say how many entries are left out, and where all of them are."""
    risky = sum(bool(entry.risks) for entry in left_out)
    counts = f"{len(left_out):,} of {len(entries):,} changes are not shown here, {risky:,} of them risky"
    run = context.links and context.links.run
    place = f"[{context.whole}]({run})" if run else prose(context.whole)
    return f"**Cut: {counts}.** All of them are in {place}."
