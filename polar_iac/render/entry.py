"""One key of a comment: what each of the plans would do with it, as Markdown.

What would become the same everywhere is said once; what differs stands side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from polar_iac.meter import IMPACT, canonical_json
from polar_iac.plan import Change, Evidence, FieldChange, Plan
from polar_iac.render.markup import Links, code, details, fence, linked, prose
from polar_iac.render.words import aggregation, expression, filter_diff, outline, value

Risk = Literal["billing", "archive", "blocked", "warning"]
RISKS: tuple[Risk, ...] = ("billing", "archive", "blocked", "warning")

_UNITS = {"unit": "unit", "custom_label": "label", "custom_multiplier": "multiplier"}
_LABELS = {"custom_label": "unit label", "custom_multiplier": "unit multiplier"}
_ORIGINS = {"manifest": "", "outside": "**changed outside**", "both": "**changed here and outside**"}
_SHORT = 100
"""The longest filter on one line."""
_LONG = 30
"""Filters of more lines are folded."""
_CLIP = 100


def risk(change: Change) -> Risk | None:
    """Why a reviewer must look at a change, if so. A new meter bills nothing until a price points at it."""
    if change.action == "archive":
        return "archive"
    if change.action == "blocked":
        return "blocked"
    if change.action != "create" and any(field.impact == "billing" for field in change.fields):
        return "billing"
    return "warning" if any(fact.severity == "warning" for fact in change.evidence) else None


def labels(plans: Sequence[Plan]) -> list[str]:
    """What each plan is called: its environment, and its project and number where that is not enough."""
    told = [plan.environment for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{plan.environment} {plan.project}" for plan in plans]
    if len(set(told)) < len(told):
        told = [f"{label} {number}" for number, label in enumerate(told, 1)]
    return told


def listed(words: Sequence[str]) -> str:
    """`a, b and c`"""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def clipped(text: str) -> str:
    return text if len(text) <= _CLIP else text[:_CLIP] + "…"


@dataclass(frozen=True)
class Scene:
    """What the entries of one comment have in common."""

    labels: Sequence[str]
    """The plans' names, as Markdown."""
    links: Links | None
    most: int
    """How long the Markdown of one entry may be."""
    notes: Mapping[str, int]
    """Remarks that several entries share, as Markdown, by number: they are made once, above."""

    def where(self, indices: Sequence[int]) -> str:
        """Which plans a line is about, where it is not all of them."""
        if len(indices) == len(self.labels):
            return ""
        return f"{listed([self.labels[index] for index in indices])}: "

    def file(self, path: str, line: int | None = None) -> str:
        """A file's name, linked where its address is known."""
        url = self.links.file(path, line) if self.links else None
        return linked(f"{path}:{line}" if line else path, url)


@dataclass(frozen=True)
class Entry:
    """A key, and its change in each plan; None where there is none."""

    key: str
    changes: tuple[Change | None, ...]

    @cached_property
    def present(self) -> list[Change]:
        return [change for change in self.changes if change]

    @cached_property
    def shared(self) -> bool:
        """Whether the meter would become the same, by the same action, everywhere."""
        return None not in self.changes and len({(c.action, c.after) for c in self.present}) == 1

    @cached_property
    def risks(self) -> list[Risk]:
        """Why a reviewer must look at it, the gravest first; not at all, if empty."""
        found = {risk(change) for change in self.present}
        return [kind for kind in RISKS if kind in found]

    def markdown(self, scene: Scene) -> str:
        """Everything about the key, unless that is too much for a comment."""
        title, text = self._title(scene), ""
        for part in self._shared(scene) if self.shared else self._differing(scene):
            text += f"\n\n{part}"
        if len(title) + len(text) <= scene.most:
            return title + text
        name = clipped(value(self.present[0].name))
        brief = f"**{self._verb}** {code(clipped(self.key))} {code(name)}"
        return f"{brief}\n\nToo long to show here: {len(text):,} characters."

    @property
    def _verb(self) -> str:
        return self.present[0].action.capitalize() if self.shared else "Differs"

    def _title(self, scene: Scene) -> str:
        told = [f"**{self._verb}** {code(self.key)} {code(value(self.present[0].name))}"]
        source = next((change.source for change in self.present if change.source), None)
        if source:
            told.append(scene.file(source.file, source.line))
        return " · ".join(told)

    def _shared(self, scene: Scene) -> Iterator[str]:
        yield from self._reasons(scene)
        bullets: list[str] = []
        if self.present[0].action == "create":
            blocks, bullets = _created({field.path: field.after for field in self.present[0].fields})
            yield from blocks
        else:
            for group in self._fields():
                blocks, lines = _told(group, scene)
                yield from blocks
                bullets += lines
        yield from _list([*bullets, *self._evidence(scene)])

    def _differing(self, scene: Scene) -> Iterator[str]:
        """A column for each plan, and below it what is the same in all or too long for a cell."""
        rows = [["", *scene.labels], ["---"] * (len(scene.labels) + 1)]
        rows.append(["action", *(f"**{c.action}**" if c else "no change" for c in self.changes)])
        below, bullets = [], []
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
            cells = ["–"] * len(self.changes)
            for field, where in group:
                for index in where:
                    told = _cell(field, created=creates[index])
                    cells[index] = " · ".join(filter(None, [told, _ORIGINS[field.origin]]))
            rows.append([f"{_label(field.path)} · {_impact(field)}", *cells])
        yield "\n".join(map(_row, rows))
        yield from below
        yield from self._reasons(scene)
        yield from _list([*bullets, *self._evidence(scene)])

    def _fields(self) -> list[list[tuple[FieldChange, list[int]]]]:
        """Field by field what would change, and in which plans; what is the same in several stands once."""
        fields: dict[str, dict[str, tuple[FieldChange, list[int]]]] = {}
        for index, change in enumerate(self.changes):
            for field in change.fields if change else ():
                alike = canonical_json([field.before, field.after, field.origin])
                fields.setdefault(field.path, {}).setdefault(alike, (field, []))[1].append(index)
        return [list(fields[path].values()) for path in sorted(fields, key=_reading_order)]

    def _reasons(self, scene: Scene) -> Iterator[str]:
        reasons: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.action == "blocked":
                reasons.setdefault(_reason(change), []).append(index)
        for reason, indices in reasons.items():
            yield _placed(_note([scene.notes[reason]]) if reason in scene.notes else reason, scene, indices)

    def _evidence(self, scene: Scene) -> list[str]:
        facts: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            for fact in change.evidence if change else ():
                facts.setdefault(_fact(fact), []).append(index)
        noted: dict[tuple[int, ...], list[int]] = {}
        lines = []
        for text, indices in facts.items():
            if text in scene.notes:
                noted.setdefault(tuple(indices), []).append(scene.notes[text])
            else:
                lines.append(_placed(text, scene, indices))
        lines += [_placed(_note(sorted(found)), scene, indices) for indices, found in noted.items()]
        return [f"- {line}" for line in lines]


def shared_notes(entries: Sequence[Entry]) -> dict[str, int]:
    """What is to be remarked on more than two entries, most often first, numbered."""
    counts = Counter(
        text
        for entry in entries
        for text in {
            *(_reason(change) for change in entry.present if change.action == "blocked"),
            *(_fact(fact) for change in entry.present for fact in change.evidence),
        }
    )
    frequent = sorted((-count, text) for text, count in counts.items() if count > 2 and len(text) < 1_000)
    return {text: number for number, (_, text) in enumerate(frequent[:9], 1)}


def _reason(change: Change) -> str:
    return f"🛑 {prose(change.reason or '')}"


def _fact(fact: Evidence) -> str:
    sign = "⚠️" if fact.severity == "warning" else "ℹ️"
    as_of = f" ({code(fact.source)}, {code(fact.as_of)})" if fact.as_of else ""
    return f"{sign} {prose(fact.text)}{as_of}"


def _note(numbers: Sequence[int]) -> str:
    return f"⚠️ see {'note' if len(numbers) == 1 else 'notes'} {listed([*map(str, numbers)])}"


def _placed(remark: str, scene: Scene, indices: Sequence[int]) -> str:
    """A remark, and after its sign the plans that it is about."""
    sign, _, text = remark.partition(" ")
    return f"{sign} {scene.where(indices)}{text}"


def _reading_order(path: str) -> tuple[int, str]:
    name, _, key = path.partition(".")
    return list(IMPACT).index(name), key


def _told(group: Sequence[tuple[FieldChange, list[int]]], scene: Scene) -> tuple[list[str], list[str]]:
    """One field before and after, as blocks and as lines of a list."""
    blocks, bullets = [], []
    for field, indices in group:
        where = scene.where(indices)
        note = " · ".join(filter(None, [_impact(field), _ORIGINS[field.origin]]))
        if field.path == "filter":
            blocks += [f"{where}filter · {note}", _diff(field)]
        else:
            bullets.append(f"- {_label(field.path)}: {where}{_values(field)} · {note}")
    return blocks, bullets


def _row(cells: Sequence[str]) -> str:
    # The sign that ends cells would end a code span too.
    return "| " + " | ".join(cell.replace("|", "\\u007c") for cell in cells) + " |"


def _list(bullets: Sequence[str]) -> Iterator[str]:
    if bullets:
        yield "\n".join(bullets)


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
    return _value(field.path, field.after) if created else _values(field)


def _diff(field: FieldChange) -> str:
    lines = filter_diff(field.before, field.after)
    return _folded([f"{line.sign} {'  ' * line.depth}{line.text}" for line in lines], "diff")


def _folded(lines: Sequence[str], language: str = "") -> str:
    block = fence(lines, language)
    return details(f"{len(lines)} lines", block) if len(lines) > _LONG else block


def _created(fields: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What a new meter would be, as blocks and as lines of a list; its name stands in the title."""
    blocks, bullets = [], []
    for path, data in fields.items():
        if path == "filter" and len(expression(data)) > _SHORT:
            lines = [f"{'  ' * line.depth}{line.text}" for line in outline(data)]
            blocks += ["filter", _folded(lines)]
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
