"""Markdown for one key of a comment: what each plan would do with its meter.

A change that is the same in all plans appears once; changes that differ appear side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from polar_iac.meter import canonical_json, reading_order
from polar_iac.plan import Change, Evidence, FieldChange, MarkerChange, Plan
from polar_iac.render.fitting import Lines, level
from polar_iac.render.markup import Links, code, linked, prose, size
from polar_iac.render.words import aggregation, expression, filter_diff, outline, settled, value

Risk = Literal["billing", "archive", "blocked", "outside", "warning"]
RISKS: tuple[Risk, ...] = ("billing", "archive", "blocked", "outside", "warning")

_UNITS = {"unit": "unit", "custom_label": "label", "custom_multiplier": "multiplier"}
_LABELS = {"custom_label": "unit label", "custom_multiplier": "unit multiplier"}
_ORIGINS = {"manifest": "", "outside": "**changed outside**", "both": "**changed here and outside**"}
_SHORT = 100
"""Longest filter shown on one line, in characters."""
_CLIP = 100
_BRIEF = 60
"""Longest remark that is repeated instead of numbered as a note, in characters."""
_ANY = 1_000_000_000


def risk(change: Change) -> Risk | None:
    """Return why a reviewer must look at a change, or None.

    A create is not a billing risk: a new meter bills nothing until a price points at it.
    """
    if change.action in ("archive", "settle"):
        return "archive"
    if change.action == "blocked":
        return "blocked"
    if change.action == "unarchive":
        return "billing"
    fields = () if change.action == "create" else change.fields
    if any(field.impact == "billing" for field in fields):
        return "billing"
    if any(field.origin != "manifest" for field in fields):
        return "outside"
    return "warning" if any(fact.severity == "warning" for fact in change.evidence) else None


def labels(plans: Sequence[Plan]) -> list[str]:
    """Name each plan by its environment, adding the project and a number if needed to tell plans apart."""
    told = [plan.environment for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{plan.environment} {plan.project}" for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{label} {number}" for number, label in enumerate(told, 1)]
    return told


def listed(words: Sequence[str]) -> str:
    """Join words as in `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def clipped(text: str) -> str:
    return text if len(text) <= _CLIP else text[:_CLIP] + "…"


@dataclass(frozen=True)
class Note:
    """A remark that several entries share, as Markdown: given once at the top, then cited by first words."""

    number: int
    text: str
    brief: str


@dataclass(frozen=True)
class Scene:
    """Settings that all entries of one comment share."""

    labels: Sequence[str]
    """The plans' names, as Markdown."""
    links: Links | None
    whole: str
    """The place that has the uncut comment, in words."""
    notes: Mapping[str, Note]

    def where(self, indices: Sequence[int]) -> str:
        """Return a prefix that names the plans a line is about, or an empty string for all plans."""
        if len(indices) == len(self.labels):
            return ""
        return f"{listed([self.labels[index] for index in indices])}: "

    def file(self, path: str, line: int | None = None) -> str:
        """Return a file name, linked if its address is known."""
        url = self.links.file(path, line) if self.links else None
        return linked(f"{clipped(path)}:{line}" if line else clipped(path), url)


@dataclass(frozen=True)
class Entry:
    """A key and its change in each plan, or None where a plan has none.

    A duplicate to settle has its own entry, whose `place` is that of its change.
    """

    place: tuple[str, str]
    changes: tuple[Change | None, ...]

    @property
    def key(self) -> str:
        return self.place[0]

    @cached_property
    def present(self) -> list[Change]:
        return [change for change in self.changes if change]

    @cached_property
    def shared(self) -> bool:
        """Tell whether every plan gives the meter the same result by the same action."""
        return None not in self.changes and len({(c.action, c.after) for c in self.present}) == 1

    @cached_property
    def risks(self) -> list[Risk]:
        """List why a reviewer must look at the entry, most serious first. Empty if there is no risk."""
        found = {risk(change) for change in self.present}
        return [kind for kind in RISKS if kind in found]

    def markdown(self, scene: Scene, room: int = _ANY) -> str:
        """Return everything about the key, in at most `room` bytes if possible.

        If it does not fit, lines of fields and filters are left out and a line says how many. The rest is
        never cut, so the result may still exceed a very small `room`.
        """
        parts = [self._title(scene), *(self._shared(scene) if self.shared else self._differing(scene))]
        whole = [part if isinstance(part, str) else part.markdown(_ANY, scene.whole) for part in parts]
        least = [size(part) if isinstance(part, str) else part.least(scene.whole) for part in parts]
        # Each part gets its minimum; they share what is left. Blank lines between parts take 2 bytes each.
        spare = room - sum(least) - 2 * (len(parts) - 1)
        share = level([size(text) - needed for text, needed in zip(whole, least, strict=True)], spare)
        return "\n\n".join(
            part if isinstance(part, str) else part.markdown(needed + share, scene.whole)
            for part, needed in zip(parts, least, strict=True)
        )

    def brief(self, scene: Scene) -> str:
        """Return the key and its action in one line."""
        return f"**{self._verb(scene)}** {code(clipped(self.key))}"

    def _verb(self, scene: Scene) -> str:
        """Return the action, with the plans it applies to if they differ."""
        actions: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change:
                actions.setdefault(change.action, []).append(index)
        if len(self.present) == len(self.changes) and len(actions) == 1:
            (action,) = actions
            return "Blocked, nothing changes" if action == "blocked" else action.capitalize()
        told = [
            f"{action} in {listed([scene.labels[index] for index in indices])}"
            for action, indices in actions.items()
        ]
        verbs = ", ".join(told)
        return verbs[0].upper() + verbs[1:]

    def _title(self, scene: Scene) -> str:
        told = [f"{self.brief(scene)} {code(clipped(value(self.present[0].name)))}"]
        source = next((change.source for change in self.present if change.source), None)
        if source:
            told.append(scene.file(source.file, source.line))
        return " · ".join(told)

    def _shared(self, scene: Scene) -> Iterator[str | Lines]:
        yield from self._reasons(scene)
        action = self.present[0].action
        bullets: list[str] = []
        blocks: list[str | Lines] = []
        if action == "create":
            blocks, bullets = _created({field.path: field.after for field in self.present[0].fields})
        else:
            for group in self._fields():
                more, lines = _told(group, scene)
                blocks += more
                bullets += lines
        if action == "blocked" and (blocks or bullets):
            yield "Wanted:"
        yield from blocks
        yield from _list([*self._counts(scene), *bullets, *self._markers(scene)], self._evidence(scene))

    def _differing(self, scene: Scene) -> Iterator[str | Lines]:
        """Yield a table with a column for each plan, then what is the same in all or too long for a cell."""
        columns = [
            f"{label} (blocked, wanted)" if change and change.action == "blocked" else label
            for label, change in zip(scene.labels, self.changes, strict=True)
        ]
        rows = []
        below: list[str | Lines] = []
        bullets = self._counts(scene)
        creates = [c is not None and c.action == "create" for c in self.changes]
        for group in self._fields():
            field, where = group[0]
            alike = len(where) == len(self.changes) and not any(creates)
            changed = [
                (field, rest) for field, where in group if (rest := [i for i in where if not creates[i]])
            ]
            if alike or field.path == "filter":
                blocks, lines = _told(changed, scene)
                below += blocks
                bullets += lines
            if alike:
                continue
            cells = ["unchanged"] * len(self.changes)
            for field, where in group:
                for index in where:
                    told = _cell(field, created=creates[index])
                    cells[index] = " · ".join(filter(None, [told, _ORIGINS[field.origin]]))
                new = [index for index in where if creates[index]]
                if field.path == "filter" and new and _is_long(field.after):
                    below += [f"{scene.where(new)}filter", _outlined(field.after)]
            label = f"{_label(field.path)} · {_impact(field)}" if changed else _label(field.path)
            rows.append(_row([label, *cells]))
        if rows:
            yield Lines(rows, head=[_row(["", *columns]), _row(["---"] * (len(columns) + 1))])
        yield from below
        yield from self._reasons(scene)
        yield from _list([*bullets, *self._markers(scene)], self._evidence(scene))

    def _counts(self, scene: Scene) -> list[str]:
        """List what each archived meter counts, because its name alone does not tell."""
        counted: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.action == "archive" and change.before:
                was = change.before.canonical
                told = f"{_value('aggregation', was['aggregation'])} over {code(_short(was['filter']))}"
                counted.setdefault(told, []).append(index)
        return [f"- {scene.where(indices)}what it counts: {told}" for told, indices in counted.items()]

    def _markers(self, scene: Scene) -> list[str]:
        """List the changes of ownership markers. A create is left out, because it always writes one."""
        lines: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.marker and change.action not in ("create", "blocked"):
                lines.setdefault(_marker(change, change.marker), []).append(index)
        return [f"- {scene.where(indices)}{line}" for line, indices in lines.items()]

    def _fields(self) -> list[list[tuple[FieldChange, list[int]]]]:
        """Group the changes by field, each with the plans that make it. Equal changes appear once."""
        fields: dict[str, dict[str, tuple[FieldChange, list[int]]]] = {}
        for index, change in enumerate(self.changes):
            for field in change.fields if change else ():
                alike = canonical_json([field.before, field.after, field.origin])
                fields.setdefault(field.path, {}).setdefault(alike, (field, []))[1].append(index)
        return [list(fields[path].values()) for path in sorted(fields, key=reading_order)]

    def _reasons(self, scene: Scene) -> Iterator[str]:
        reasons: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.action == "blocked":
                reasons.setdefault(_reason(change), []).append(index)
        for reason, indices in reasons.items():
            yield _placed(reason, scene, indices)

    def _evidence(self, scene: Scene) -> list[str]:
        facts: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            for fact in change.evidence if change else ():
                facts.setdefault(_fact(fact), []).append(index)
        return [f"- {_placed(text, scene, indices)}" for text, indices in facts.items()]


def shared_notes(entries: Sequence[Entry]) -> dict[str, Note]:
    """Number the remarks that more than two entries share, most frequent first."""
    briefs: dict[str, str] = {}
    counts = Counter[str]()
    for entry in entries:
        found = {_reason(c): _brief("🛑", c.reason or "") for c in entry.present if c.action == "blocked"}
        found |= {_fact(f): _brief(_sign(f), f.text) for change in entry.present for f in change.evidence}
        briefs |= found
        counts.update(found.keys())
    frequent = sorted((-n, text) for text, n in counts.items() if n > 2 and _BRIEF < len(text) < 1_000)
    return {text: Note(number, text, briefs[text]) for number, (_, text) in enumerate(frequent[:9], 1)}


def _brief(sign: str, text: str) -> str:
    """Return the first words of a remark, as Markdown."""
    first = re.split("[:;,.] ", text, maxsplit=1)[0]
    return f"{sign} {prose(first if len(first) <= _CLIP else first[:_CLIP] + '…')}"


def _reason(change: Change) -> str:
    return f"🛑 {prose(change.reason or '')}"


def _fact(fact: Evidence) -> str:
    as_of = f" ({code(fact.source)}, {code(fact.as_of)})" if fact.as_of else ""
    return f"{_sign(fact)} {prose(fact.text)}{as_of}"


def _sign(fact: Evidence) -> str:
    return "⚠️" if fact.severity == "warning" else "ℹ️"


def _placed(remark: str, scene: Scene, indices: Sequence[int]) -> str:
    """Insert the plans after the sign of a remark. A remark that is a note is cut to its first words."""
    if note := scene.notes.get(remark):
        remark = f"{note.brief} (note {note.number})"
    sign, _, text = remark.partition(" ")
    return f"{sign} {scene.where(indices)}{text}"


def _told(
    group: Sequence[tuple[FieldChange, list[int]]], scene: Scene
) -> tuple[list[str | Lines], list[str]]:
    """Return one field before and after, as blocks and as lines of a list."""
    blocks: list[str | Lines] = []
    bullets = []
    for field, indices in group:
        where = scene.where(indices)
        note = " · ".join(filter(None, [_impact(field), _ORIGINS[field.origin]]))
        if field.path == "filter":
            blocks += [f"{where}filter · {note}", _diff(field)]
        else:
            bullets.append(f"- {_label(field.path)}: {where}{_values(field)} · {note}")
    return blocks, bullets


def _marker(change: Change, marker: MarkerChange) -> str:
    if change.action == "settle":
        return prose(settled(change))
    before, after = (code(clipped(side)) if side else "none" for side in (marker.before, marker.after))
    return f"ownership marker: {before} → {after} · internal"


def _row(cells: Sequence[str]) -> str:
    # A `|` ends a cell even inside a code span.
    return "| " + " | ".join(cell.replace("|", "\\u007c") for cell in cells) + " |"


def _list(bullets: Sequence[str], evidence: Sequence[str]) -> Iterator[Lines]:
    """Yield a single list, because GitHub merges two adjacent lists and changes their spacing."""
    if bullets or evidence:
        yield Lines(bullets, tail=evidence)


def _label(path: str) -> str:
    name, dot, key = path.partition(".")
    return f"{name} {code(key)}" if dot else _LABELS.get(name, name)


def _impact(field: FieldChange) -> str:
    return "**billing**" if field.impact == "billing" else prose(field.impact)


def _value(path: str, data: Any) -> str:
    if data is None:
        return "none"
    if path == "filter":
        return code(expression(data))
    return code(aggregation(data) if path == "aggregation" else value(data))


def _values(field: FieldChange) -> str:
    return f"{_value(field.path, field.before)} → {_value(field.path, field.after)}"


def _cell(field: FieldChange, *, created: bool) -> str:
    if field.path == "filter" and not created:
        return "changed, see below"
    if field.path == "filter" and _is_long(field.after):
        return "see below"
    return _value(field.path, field.after) if created else _values(field)


def _short(data: Mapping[str, Any]) -> str:
    """Return a filter on one line, cut if it is long."""
    if _is_long(data):
        return f"{expression(data)[:_SHORT]}…"
    return expression(data)


def _is_long(data: Mapping[str, Any]) -> bool:
    return len(expression(data)) > _SHORT


def _diff(field: FieldChange) -> Lines:
    lines = filter_diff(field.before, field.after)
    return Lines([f"{line.sign} {'  ' * line.depth}{line.text}" for line in lines], language="diff")


def _outlined(data: Mapping[str, Any]) -> Lines:
    return Lines([f"{'  ' * line.depth}{line.text}" for line in outline(data)], language="")


def _created(fields: dict[str, Any]) -> tuple[list[str | Lines], list[str]]:
    """Return a new meter as blocks and as lines of a list. Its name is in the title."""
    blocks: list[str | Lines] = []
    bullets = []
    for path, data in fields.items():
        if path == "filter" and _is_long(data):
            blocks += ["filter", _outlined(data)]
        elif path in ("filter", "aggregation"):
            bullets.append(f"- {path}: {_value(path, data)}")
    units = [f"{label} {_value(path, fields[path])}" for path, label in _UNITS.items() if path in fields]
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
