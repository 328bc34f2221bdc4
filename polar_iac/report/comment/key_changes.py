"""Markdown for one key of a comment: what each plan would do with its meter.

A change that is the same in all plans appears once; changes that differ appear side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FieldPath
from polar_iac.plan.model import Change, FieldChange
from polar_iac.report.comment.budget import TruncatableBlock, fair_cap
from polar_iac.report.comment.escape import code, size
from polar_iac.report.comment.remarks import (
    BRIEF,
    CommentContext,
    NumberedNote,
    brief_of,
    clipped,
    listed,
    note_of,
    placed,
    reason_of,
    sign_of,
)
from polar_iac.report.comment.risks import RISKS, Risk, risk
from polar_iac.report.comment.values import (
    ORIGINS,
    bullet_list,
    cell_of,
    created_parts,
    field_parts,
    impact_of,
    is_long,
    label_of,
    marker_line,
    outline_block,
    short_filter,
    table_row,
    value_of,
)
from polar_iac.report.wording import value

_ANY = 1_000_000_000


@dataclass(frozen=True)
class KeyChanges:
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

    def markdown(self, context: CommentContext, room: int = _ANY) -> str:
        """Return everything about the key, in at most `room` bytes if possible.

        If it does not fit, lines of fields and filters are left out and a line says how many. The rest is
        never cut, so the result may still exceed a very small `room`.
        """
        parts = [self._title(context), *(self._shared(context) if self.shared else self._differing(context))]
        whole = [part if isinstance(part, str) else part.markdown(_ANY, context.whole) for part in parts]
        least = [size(part) if isinstance(part, str) else part.least(context.whole) for part in parts]
        # Each part gets its minimum; they share what is left. Blank lines between parts take 2 bytes each.
        spare = room - sum(least) - 2 * (len(parts) - 1)
        share = fair_cap([size(text) - needed for text, needed in zip(whole, least, strict=True)], spare)
        return "\n\n".join(
            part if isinstance(part, str) else part.markdown(needed + share, context.whole)
            for part, needed in zip(parts, least, strict=True)
        )

    def brief(self, context: CommentContext) -> str:
        """Return the key and its action in one line."""
        return f"**{self._verb(context)}** {code(clipped(self.key))}"

    def _verb(self, context: CommentContext) -> str:
        """Return the action, with the plans it applies to if they differ."""
        actions: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change:
                actions.setdefault(change.action, []).append(index)
        if len(self.present) == len(self.changes) and len(actions) == 1:
            (action,) = actions
            return "Blocked, nothing changes" if action == "blocked" else action.capitalize()
        told = [
            f"{action} in {listed([context.labels[index] for index in indices])}"
            for action, indices in actions.items()
        ]
        verbs = ", ".join(told)
        return verbs[0].upper() + verbs[1:]

    def _title(self, context: CommentContext) -> str:
        told = [f"{self.brief(context)} {code(clipped(value(self.present[0].name)))}"]
        source = next((change.source for change in self.present if change.source), None)
        if source:
            told.append(context.file(source.file, source.line))
        return " · ".join(told)

    def _shared(self, context: CommentContext) -> Iterator[str | TruncatableBlock]:
        yield from self._reasons(context)
        action = self.present[0].action
        bullets: list[str] = []
        blocks: list[str | TruncatableBlock] = []
        if action == "create":
            blocks, bullets = created_parts({field.path: field.after for field in self.present[0].fields})
        else:
            for group in self._fields():
                more, lines = field_parts(group, context)
                blocks += more
                bullets += lines
        if action == "blocked" and (blocks or bullets):
            yield "Wanted:"
        yield from blocks
        yield from bullet_list(
            [*self._counts(context), *bullets, *self._markers(context)], self._evidence(context)
        )

    def _differing(self, context: CommentContext) -> Iterator[str | TruncatableBlock]:
        """Yield a table with a column for each plan, then what is the same in all or too long for a cell."""
        columns = [
            f"{label} (blocked, wanted)" if change and change.action == "blocked" else label
            for label, change in zip(context.labels, self.changes, strict=True)
        ]
        rows = []
        below: list[str | TruncatableBlock] = []
        bullets = self._counts(context)
        creates = [c is not None and c.action == "create" for c in self.changes]
        for group in self._fields():
            field, where = group[0]
            alike = len(where) == len(self.changes) and not any(creates)
            changed = [
                (field, rest) for field, where in group if (rest := [i for i in where if not creates[i]])
            ]
            if alike or field.path == "filter":
                blocks, lines = field_parts(changed, context)
                below += blocks
                bullets += lines
            if alike:
                continue
            cells = ["unchanged"] * len(self.changes)
            for field, where in group:
                for index in where:
                    told = cell_of(field, created=creates[index])
                    cells[index] = " · ".join(filter(None, [told, ORIGINS[field.origin]]))
                new = [index for index in where if creates[index]]
                if field.path == "filter" and new and is_long(field.after):
                    below += [f"{context.where(new)}filter", outline_block(field.after)]
            label = f"{label_of(field.path)} · {impact_of(field)}" if changed else label_of(field.path)
            rows.append(table_row([label, *cells]))
        if rows:
            yield TruncatableBlock(
                rows, head=[table_row(["", *columns]), table_row(["---"] * (len(columns) + 1))]
            )
        yield from below
        yield from self._reasons(context)
        yield from bullet_list([*bullets, *self._markers(context)], self._evidence(context))

    def _counts(self, context: CommentContext) -> list[str]:
        """List what each archived meter counts, because its name alone does not tell."""
        counted: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.action == "archive" and change.before:
                was = change.before.canonical
                told = (
                    f"{value_of('aggregation', was['aggregation'])} over {code(short_filter(was['filter']))}"
                )
                counted.setdefault(told, []).append(index)
        return [f"- {context.where(indices)}what it counts: {told}" for told, indices in counted.items()]

    def _markers(self, context: CommentContext) -> list[str]:
        """List the changes of ownership markers. A create is left out, because it always writes one."""
        lines: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.marker and change.action not in ("create", "blocked"):
                lines.setdefault(marker_line(change, change.marker), []).append(index)
        return [f"- {context.where(indices)}{line}" for line, indices in lines.items()]

    def _fields(self) -> list[list[tuple[FieldChange, list[int]]]]:
        """Group the changes by field, each with the plans that make it. Equal changes appear once."""
        fields: dict[str, dict[str, tuple[FieldChange, list[int]]]] = {}
        for index, change in enumerate(self.changes):
            for field in change.fields if change else ():
                alike = canonical_json([field.before, field.after, field.origin])
                fields.setdefault(field.path, {}).setdefault(alike, (field, []))[1].append(index)
        return [list(fields[path].values()) for path in sorted(fields, key=FieldPath.parse)]

    def _reasons(self, context: CommentContext) -> Iterator[str]:
        reasons: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            if change and change.action == "blocked":
                reasons.setdefault(reason_of(change), []).append(index)
        for reason, indices in reasons.items():
            yield placed(reason, context, indices)

    def _evidence(self, context: CommentContext) -> list[str]:
        facts: dict[str, list[int]] = {}
        for index, change in enumerate(self.changes):
            for fact in change.notes if change else ():
                facts.setdefault(note_of(fact), []).append(index)
        return [f"- {placed(text, context, indices)}" for text, indices in facts.items()]


def shared_notes(entries: Sequence[KeyChanges]) -> dict[str, NumberedNote]:
    """Number the remarks that more than two entries share, most frequent first."""
    briefs: dict[str, str] = {}
    counts = Counter[str]()
    for entry in entries:
        found = {reason_of(c): brief_of("🛑", c.reason or "") for c in entry.present if c.action == "blocked"}
        found |= {note_of(f): brief_of(sign_of(f), f.text) for change in entry.present for f in change.notes}
        briefs |= found
        counts.update(found.keys())
    frequent = sorted((-n, text) for text, n in counts.items() if n > 2 and BRIEF < len(text) < 1_000)
    return {
        text: NumberedNote(number, text, briefs[text]) for number, (_, text) in enumerate(frequent[:9], 1)
    }
