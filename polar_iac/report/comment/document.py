"""Plans as a pull request comment, for a reviewer who has never seen this tool.

The first line sums up the plans. The risky changes follow in full, then the other changes. A comment that
is too long is cut between changes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from polar_iac.plan.model import ACTIONS, SHORT_DIGEST, Bookkeeping, Plan
from polar_iac.report.comment.budget import TruncatableBlock, fair_cap
from polar_iac.report.comment.escape import Links, code, details, prose, size
from polar_iac.report.comment.key_changes import KeyChanges, shared_notes
from polar_iac.report.comment.refusals import refusal_parts
from polar_iac.report.comment.remarks import CommentContext, clipped, labels, listed
from polar_iac.report.comment.risks import RISKS
from polar_iac.report.wording import HOUSEKEEPING

__all__ = ["Links", "comment_marker", "headline", "plan_markdown", "result_markdown"]
Place = tuple[str, str]
"""The identity of an entry, equal to the `Change.place` of its changes."""
_RISKY_OPEN = 15
_REST_OPEN = 5
"""Most other changes that are shown unfolded."""
_FAIR = 3_000
"""Bytes that a change may take before it must leave room for others."""
_BOOKKEEPING = 20
_TARGETS = 10
_RISKY_TOLD = {
    "billing": ("changes what is billed", "change what is billed"),
    "archive": ("archives a meter", "archive meters"),
    "blocked": ("is blocked", "are blocked"),
    "outside": ("overwrites a change made at Polar", "overwrite changes made at Polar"),
    "warning": ("has a warning", "have warnings"),
}
_LEGEND = """\
- **billing**: what is counted, so what customers pay. **invoice**: what they read. **internal**: neither.
- **create**: a new meter. It bills nothing until a price points at it.
- **archive**: the meter stops counting. Polar deletes nothing.
- **unarchive**: the meter counts again, and so bills again.
- **mark**: only the marker that says whose the meter is. Nothing counted or billed changes.
- **settle**: a duplicate that an interrupted run made is archived; the other meter goes on.
- **blocked**: this change is refused, for the reason given{others}.
- **changed outside**: someone changed it at Polar. `apply` puts back what the manifest says.
- **digest**: stands for all of these changes. `apply --digest DIGEST` does exactly them, or nothing."""


def plan_markdown(
    plans: Sequence[Plan],
    *,
    manifest_file: str,
    links: Links | None = None,
    limit: int = 60_000,
    marker: str | None = None,
    whole: str = "the summary of the workflow run",
) -> str:
    """Return the plans as one comment of at most `limit` bytes, which must be at least 4,000.

    GitHub takes 65,536 characters. `marker` identifies the comment in its hidden last line; the default is
    `comment_marker`. `whole` names the place that has the uncut comment.
    """
    entries = _entries(plans)
    context = _scene(plans, entries, links, whole)
    last = f"<!-- {_hidden(marker)} -->" if marker else comment_marker(plans)
    manifest = context.file(manifest_file)
    if not entries:
        return _joined([_nothing(plans, manifest), *_bookkeeping(plans, context), last])

    told = _headlines(plans)
    title = "### Polar meters" + "".join(f"{'<br>' if told[1:] else ': '}{prose(line)}" for line in told)
    head = [_introduction(plans, context, manifest), *refusal_parts(plans, context, limit // 4)]
    refused = any(plan.refusal for plan in plans)
    legend = _LEGEND.format(others="" if refused else "; the others are carried out")
    foot = [_digests(plans, context), details("How to read this", legend), last]
    cut, *body = _changes(plans, entries, context, limit - size(_joined([title, *head, *foot])))
    return _joined([title, *([cut] if cut else []), *head, *body, *foot])


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
    context = _scene([plan], entries, links, whole)
    parts = [f"### Polar meters: applied to {prose(plan.environment)}: {prose(counts)}"]
    if lines:
        parts.append(TruncatableBlock(lines, language="").markdown(limit // 2, whole))
    if entries:
        foot = _digests([plan], context)
        room = limit - size(_joined([*parts, details("The plan that was carried out", foot)]))
        body = [part for part in _changes([plan], entries, context, room) if part]
        parts.append(details("The plan that was carried out", "\n\n".join([*body, foot])))
    return _joined(parts)


def _entries(plans: Sequence[Plan]) -> list[KeyChanges]:
    by_place = [{change.place: change for change in plan.changes} for plan in plans]
    places = sorted({place for changes in by_place for place in changes})
    return [KeyChanges(place, tuple(changes.get(place) for changes in by_place)) for place in places]


def _scene(
    plans: Sequence[Plan], entries: Sequence[KeyChanges], links: Links | None, whole: str
) -> CommentContext:
    names = [prose(label) or code(label) for label in labels(plans)]
    return CommentContext(names, links, whole, shared_notes(entries))


def _changes(
    plans: Sequence[Plan], entries: Sequence[KeyChanges], context: CommentContext, room: int
) -> list[str]:
    """Return the notes, changes and bookkeeping that fit in `room` bytes.

    The first item says how many changes were left out; it is empty if none were.
    """
    notes = "\n".join(f"- Note {note.number}: {note.text}" for note in context.notes.values())
    head, kept = [notes] if notes else [], [*_bookkeeping(plans, context)]
    room -= size(_joined([*head, *kept, *[_cut(entries, entries, context)] * 2])) + 2
    body, shown = _body(entries, context, room)
    left = [entry for entry in entries if entry.place not in shown]
    cut = _cut(left, entries, context) if left else ""
    return [cut, *head, *body, *([cut] if left else []), *kept]


def comment_marker(plans: Sequence[Plan]) -> str:
    """Return the hidden line that identifies this comment on later runs.

    It names the project and the environments: a job for sandbox and a job for production must not overwrite
    each other's comments.
    """
    projects = "+".join(sorted({plan.project for plan in plans}))
    environments = "+".join(sorted({plan.environment for plan in plans}))
    return f"<!-- {_hidden(f'polar-iac:{projects}:{environments}')} -->"


def _hidden(text: str) -> str:
    """Replace every character that could end an HTML comment."""
    return re.sub("[^A-Za-z0-9_.:+/-]", "_", text)[:500]


def headline(plans: Sequence[Plan]) -> str:
    """Sum up the plans in one line, as in `2 to create, 1 to archive · sandbox`."""
    return "; ".join(_headlines(plans))


def _headlines(plans: Sequence[Plan]) -> list[str]:
    """Sum up the plans, with one line for each distinct result."""
    told: dict[str, list[str]] = {}
    for plan, label in zip(plans, labels(plans), strict=True):
        told.setdefault(_counts(change.action for change in plan.changes), []).append(label)
    if len(told) == 1:
        return [f"{counts} · {listed(where)}" for counts, where in told.items()]
    return [f"{listed(where)}: {counts}" for counts, where in told.items()]


def _counts(actions: Iterable[str]) -> str:
    counts = Counter(actions)
    told = [f"{counts[a]} {a if a == 'blocked' else f'to {a}'}" for a in ACTIONS if counts[a]]
    return ", ".join(told) or "no changes"


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _nothing(plans: Sequence[Plan], manifest: str) -> str:
    counts = sorted({plan.unchanged for plan in plans})
    match = "meter matches" if counts == [1] else "meters match"
    offline = "" if all(plan.refreshed for plan in plans) else " Planned offline, against the lockfile."
    told = " and ".join(map(str, counts))
    return f"Polar meters: {prose(headline(plans))}. {told} {match} {manifest}.{offline}"


def _introduction(plans: Sequence[Plan], context: CommentContext, manifest: str) -> str:
    places = [
        f"**{label}**" + (f" (organization {code(plan.organization_id[:8])})" if plan.organization_id else "")
        for plan, label in zip(plans, context.labels, strict=True)
    ]
    told = f"What `apply` would change in Polar's {listed(places)}, so that it matches {manifest}."
    told += " Nothing is changed yet."
    if only := sorted({key for plan in plans for key in plan.targets}):
        told += f" **Only {listed([code(clipped(key)) for key in only[:_TARGETS]])}"
        told += f" and {len(only) - _TARGETS:,} more" if len(only) > _TARGETS else ""
        told += " (`--target`)**: all other meters are left alone."
    offline = [label for plan, label in zip(plans, context.labels, strict=True) if not plan.refreshed]
    if offline:
        where = f" for {listed(offline)}" if len(offline) < len(plans) else ""
        told += (
            f" **Planned offline{where}**, against the lockfile: what someone changed at Polar is not seen."
        )
    return told


def _body(entries: Sequence[KeyChanges], context: CommentContext, room: int) -> tuple[list[str], set[Place]]:
    """Return blocks for as many changes as fit, and the places of the changes that are shown."""
    groups = [[entry for entry in entries if entry.risks[:1] == [kind]] for kind in RISKS]
    rest = [entry for entry in entries if not entry.risks]
    risky = sum(map(len, groups))
    counts = Counter(kind for entry in entries for kind in entry.risks)
    look = ", ".join(f"{counts[r]:,} {_RISKY_TOLD[r][counts[r] > 1]}" for r in RISKS if counts[r])
    title, folded_title = f"#### Look closely: {look}", f"{risky:,} more to look at closely"
    blocks: list[str] = []
    shown: set[Place] = set()
    if risky:
        left = room - size(title) - size(details(folded_title, "")) - 8
        texts = _in_shares(groups, context, left)
        opened = fair_cap([len(group) for group in texts], _RISKY_OPEN)
        shown = {key for group in texts for key in group}
        first = [text for group in texts for text in [*group.values()][:opened]]
        more = [text for group in texts for text in [*group.values()][opened:]]
        blocks += ["\n\n".join([title, *first])] if first else []
        blocks += [details(f"{len(more):,} more to look at closely", "\n\n".join(more))] if more else []
        room -= size("\n\n".join(blocks)) + 2
        if by_key := _by_key(groups, shown, context, room):
            blocks.append(by_key)
            room -= size(by_key) + 2
    title = f"Other changes: {_rest(rest)}"
    if rest and len(shown) == risky:
        (texts_,) = _in_shares([rest], context, room - size(details(title, "")) - 2)
        body = "\n\n".join(texts_.values())
        if texts_:
            blocks.append(details(title, body) if len(rest) > _REST_OPEN else f"#### {title}\n\n{body}")
            shown |= texts_.keys()
    return blocks, shown


def _in_shares(
    groups: Sequence[Sequence[KeyChanges]], context: CommentContext, room: int
) -> list[dict[Place, str]]:
    """Return the texts of the first entries of each group, by place.

    Groups and entries get fair shares: none takes the room that others need.
    """
    sizes = [_sizes(group, context, room) for group in groups]
    if sum(map(sum, sizes)) > room:
        room -= room // 5  # reserved for the entries that are only listed by key
    share = fair_cap([sum(group) for group in sizes], room)
    told = []
    for group, needed in zip(groups, sizes, strict=True):
        left = min(share, sum(needed))
        most = max(_FAIR, fair_cap(needed, left))
        texts: dict[Place, str] = {}
        for entry in group:
            text = entry.markdown(context, most if texts else min(most, left - 2))
            left -= size(text) + 2
            if left < 0:
                break
            texts[entry.place] = text
        told.append(texts)
    return told


def _sizes(entries: Sequence[KeyChanges], context: CommentContext, room: int) -> list[int]:
    """List the bytes of each entry, up to the first that cannot fit in any case."""
    found, left = [], room
    for entry in entries:
        found.append(size(entry.markdown(context)) + 2)
        left -= found[-1]
        if left < 0:
            break
    return found


def _by_key(
    groups: Sequence[Sequence[KeyChanges]], shown: set[Place], context: CommentContext, room: int
) -> str:
    """Return a folded list of the entries that are not shown, as many as fit."""
    lines = [[f"- {entry.brief(context)}" for entry in group if entry.place not in shown] for group in groups]
    count = sum(map(len, lines))
    title = f"{count:,} more to look at closely, by their keys"
    share = fair_cap([size("\n".join(group)) + 1 for group in lines], room - size(details(title, "")) - 2)
    fitting = []
    for group in lines:
        left = share
        for line in group:
            left -= size(line) + 1
            if left < 0:
                break
            fitting.append(line)
    return details(title, "\n".join(fitting)) if fitting else ""


def _rest(entries: Sequence[KeyChanges]) -> str:
    differ = sum(not entry.shared for entry in entries)
    shared = _counts(entry.present[0].action for entry in entries if entry.shared)
    told = [shared] if differ < len(entries) else []
    return ", ".join([*told, f"{differ} that differ" if differ > 1 else "1 that differs"] if differ else told)


def _cut(left: Sequence[KeyChanges], entries: Sequence[KeyChanges], context: CommentContext) -> str:
    risky = sum(bool(entry.risks) for entry in left)
    told = f"**Cut: {len(left):,} of {len(entries):,} changes are not shown here, {risky:,} of them risky.**"
    run = context.links and context.links.run
    return f"{told} All of them are in {f'[{context.whole}]({run})' if run else prose(context.whole)}."


def _digests(plans: Sequence[Plan], context: CommentContext) -> str:
    # Not a list: GitHub would merge it with a list at the end of the last change.
    return "\n\n".join(
        f"{label}: {plan.unchanged:,} unchanged · digest {code(plan.digest[:SHORT_DIGEST])}"
        for plan, label in zip(plans, context.labels, strict=True)
    )


def _bookkeeping(plans: Sequence[Plan], context: CommentContext) -> Iterator[str]:
    lines: dict[str, list[int]] = {}
    noted: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        for note in plan.notes:
            noted.setdefault(f"{'⚠️' if note.severity == 'warning' else 'ℹ️'} {prose(note.text)}", []).append(
                index
            )
        for entry in plan.bookkeeping:
            lines.setdefault(_kept(entry), []).append(index)
    if noted:
        shown = [f"- {context.where(indices)}{line}" for line, indices in noted.items()][:_BOOKKEEPING]
        more = [f"- and {len(noted) - len(shown):,} more"] if len(noted) > len(shown) else []
        yield details(f"Notes: {len(noted):,}", "\n".join([*shown, *more]))
    if lines:
        shown = [f"- {context.where(indices)}{line}" for line, indices in lines.items()][:_BOOKKEEPING]
        if len(lines) > len(shown):
            shown.append(f"- and {len(lines) - len(shown):,} more")
        title = f"Bookkeeping: {len(lines):,} for the lockfile only"
        yield details(title, "\n".join(shown))


def _kept(entry: Bookkeeping) -> str:
    return f"{code(clipped(entry.key))} {code(entry.id[:8])} {HOUSEKEEPING[entry.action]}"
