"""Plans as a comment on a pull request, for a reviewer who has never seen this tool.

The first line says it all; then come the risky changes in full, then the rest, cut at whole changes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from polar_iac.plan import ACTIONS, Bookkeeping, Change, Plan
from polar_iac.render.entry import RISKS, Entry, Scene, clipped, labels, listed, shared_notes
from polar_iac.render.markup import Links, code, details, prose
from polar_iac.render.words import HOUSEKEEPING

__all__ = ["Links", "comment_marker", "headline", "plan_markdown"]

_RISKY_OPEN = 15
_REST_OPEN = 5
"""How many changes stand open; more are folded."""
_BOOKKEEPING = 20
_TARGETS = 10
_RISKY_TOLD = {
    "billing": ("changes what is billed", "change what is billed"),
    "archive": ("archives a meter", "archive meters"),
    "blocked": ("is blocked", "are blocked"),
    "warning": ("has a warning", "have warnings"),
}
_LEGEND = """\
- **billing**: what is counted, so what customers pay. **invoice**: what they read. **internal**: neither.
- **create**: a new meter. It bills nothing until a price points at it.
- **archive**: the meter stops counting. Polar deletes nothing.
- **blocked**: this change is refused, for the reason given; the others are carried out.
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
    """The plans as one comment of at most `limit` characters (GitHub takes 65,536; 4,000 is the least).

    `marker` names the comment in its last line, hidden; without one, `comment_marker` does. `whole` says
    where a comment that was cut is to be had whole.
    """
    by_key = [{change.key: change for change in plan.changes} for plan in plans]
    keys = sorted({key for changes in by_key for key in changes})
    entries = [Entry(key, tuple(changes.get(key) for changes in by_key)) for key in keys]
    scene = Scene(
        [prose(label) or code(label) for label in labels(plans)],
        links,
        min(12_000, limit // 4),
        shared_notes(entries),
    )
    last = f"<!-- {_hidden(marker)} -->" if marker else comment_marker(plans)
    manifest = scene.file(clipped(manifest_file))
    if not entries:
        return _joined([_nothing(plans, manifest), *_bookkeeping(plans, scene), last])

    head = [f"### Polar meters: {prose(headline(plans))}", _introduction(plans, scene, manifest)]
    head += _refused(entries)
    if scene.notes:
        head.append("\n".join(f"- Note {number}: {text}" for text, number in scene.notes.items()))
    foot = [*_bookkeeping(plans, scene), _digests(plans, scene), details("How to read this", _LEGEND), last]
    note = _cut(entries, entries, whole, links)
    room = limit - _size(_joined([*head, note, *foot]))
    body, shown = _body(entries, scene, room)
    left = [entry for entry in entries if entry.key not in shown]
    if left:
        body.append(_cut(left, entries, whole, links))
    return _joined([*head, *body, *foot])


def comment_marker(plans: Sequence[Plan]) -> str:
    """The hidden line by which this comment is found again. It names the project and the environments, so
    that jobs that plan one environment each do not overwrite each other's comments."""
    projects = "+".join(dict.fromkeys(plan.project for plan in plans))
    environments = "+".join(dict.fromkeys(plan.environment for plan in plans))
    return f"<!-- {_hidden(f'polar-iac:{projects}:{environments}')} -->"


def _hidden(text: str) -> str:
    """Without anything that could end an HTML comment."""
    return re.sub("[^A-Za-z0-9_.:+/-]", "_", text)[:500]


def headline(plans: Sequence[Plan]) -> str:
    """What the plans come to, in one line: `2 to create, 1 to archive · sandbox`."""
    told: dict[str, list[str]] = {}
    for plan, label in zip(plans, labels(plans), strict=True):
        told.setdefault(_counts(change.action for change in plan.changes), []).append(label)
    return "; ".join(f"{counts} · {listed(where)}" for counts, where in told.items())


def _counts(actions: Iterable[str]) -> str:
    counts = Counter(actions)
    told = [f"{counts[a]} {a if a == 'blocked' else f'to {a}'}" for a in ACTIONS if counts[a]]
    return ", ".join(told) or "no changes"


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _size(text: str) -> int:
    """UTF-16 units: the strictest of the ways in which GitHub may count characters."""
    return len(text) + sum(char > "\uffff" for char in text)


def _nothing(plans: Sequence[Plan], manifest: str) -> str:
    counts = sorted({plan.unchanged for plan in plans})
    match = "meter matches" if counts == [1] else "meters match"
    offline = "" if all(plan.refreshed for plan in plans) else " Planned offline, against the lockfile."
    told = " and ".join(map(str, counts))
    return f"Polar meters: {prose(headline(plans))}. {told} {match} {manifest}.{offline}"


def _introduction(plans: Sequence[Plan], scene: Scene, manifest: str) -> str:
    places = [
        f"**{label}**" + (f" (organisation {code(plan.organization_id[:8])})" if plan.organization_id else "")
        for plan, label in zip(plans, scene.labels, strict=True)
    ]
    told = f"What `apply` would change in Polar's {listed(places)}, so that it matches {manifest}."
    told += " Nothing is changed yet."
    if only := sorted({key for plan in plans for key in plan.targets}):
        told += f" **Only {listed([code(clipped(key)) for key in only[:_TARGETS]])}"
        told += f" and {len(only) - _TARGETS:,} more" if len(only) > _TARGETS else ""
        told += " (`--target`)**: all other meters are left alone."
    offline = [label for plan, label in zip(plans, scene.labels, strict=True) if not plan.refreshed]
    if offline:
        where = f" for {listed(offline)}" if len(offline) < len(plans) else ""
        told += (
            f" **Planned offline{where}**, against the lockfile: what someone changed at Polar is not seen."
        )
    return told


def _refused(entries: Sequence[Entry]) -> Iterator[str]:
    """That `apply` would refuse the whole plan. Told from the changes: a saved plan has nothing else."""
    gone = [entry for entry in entries if any(map(_is_unlisted, entry.present))]
    if gone:
        told = (
            "1 meter is gone from the manifest and still bills"
            if len(gone) == 1
            else f"{len(gone)} meters are gone from the manifest and still bill"
        )
        yield (
            f"🛑 **`apply` will refuse this plan as a whole:** {told}. Archiving is written down: keep the "
            "block, with `archived: true`. Or allow it once with `--allow-archive`."
        )


def _is_unlisted(change: Change) -> bool:
    before, after = change.before, change.after
    return bool(change.action == "blocked" and before and after and after.archived and not before.archived)


def _body(entries: Sequence[Entry], scene: Scene, room: int) -> tuple[list[str], set[str]]:
    """The blocks of as many changes as there is room for, and the keys of those."""
    risky = sorted((e for e in entries if e.risks), key=lambda e: (RISKS.index(e.risks[0]), e.key))
    rest = [entry for entry in entries if not entry.risks]
    counts = Counter(kind for entry in risky for kind in entry.risks)
    look = ", ".join(f"{counts[r]} {_RISKY_TOLD[r][counts[r] > 1]}" for r in RISKS if counts[r])
    sections = (
        (f"Look closely: {look}", risky[:_RISKY_OPEN], False),
        (f"{len(risky) - _RISKY_OPEN} more to look at closely", risky[_RISKY_OPEN:], True),
        (f"Not risky: {_rest(rest)}", rest, len(rest) > _REST_OPEN),
    )
    blocks: list[str] = []
    shown: set[str] = set()
    for title, members, fold in sections:
        left = room - _size(details(title, "")) - 2
        texts = []
        for entry in members:
            text = entry.markdown(scene)
            left -= _size(text) + 2
            if left < 0:
                break
            texts.append(text)
            shown.add(entry.key)
        if texts:
            body = "\n\n".join(texts)
            blocks.append(details(title, body) if fold else f"#### {title}\n\n{body}")
            room -= _size(blocks[-1]) + 2
        if len(texts) < len(members):
            break
    return blocks, shown


def _rest(entries: Sequence[Entry]) -> str:
    differ = sum(not entry.shared for entry in entries)
    shared = _counts(entry.present[0].action for entry in entries if entry.shared)
    told = [shared] if differ < len(entries) else []
    return ", ".join([*told, f"{differ} that differ" if differ > 1 else "1 that differs"] if differ else told)


def _cut(left: Sequence[Entry], entries: Sequence[Entry], whole: str, links: Links | None) -> str:
    risky = sum(bool(entry.risks) for entry in left)
    told = f"**Cut here: {len(left):,} of {len(entries):,} changes are not shown, {risky:,} of them risky.**"
    run = links and links.run
    return f"{told} All of them are in {f'[{whole}]({run})' if run else whole}."


def _digests(plans: Sequence[Plan], scene: Scene) -> str:
    # Not a list: one would become part of a list that ends the last change.
    return "\n\n".join(
        f"{label}: {plan.unchanged:,} unchanged · digest {code(plan.digest[:12])}"
        for plan, label in zip(plans, scene.labels, strict=True)
    )


def _bookkeeping(plans: Sequence[Plan], scene: Scene) -> Iterator[str]:
    lines: dict[str, list[int]] = {}
    for index, plan in enumerate(plans):
        for entry in plan.bookkeeping:
            lines.setdefault(_kept(entry), []).append(index)
    if lines:
        shown = [f"- {scene.where(indices)}{line}" for line, indices in lines.items()][:_BOOKKEEPING]
        if len(lines) > len(shown):
            shown.append(f"- and {len(lines) - len(shown):,} more")
        title = f"Bookkeeping: {len(lines):,} for the lockfile or the ownership markers only"
        yield details(title, "\n".join(shown))


def _kept(entry: Bookkeeping) -> str:
    return f"{code(clipped(entry.key))} {code(entry.id[:8])} {HOUSEKEEPING[entry.action]}"
