"""Markdown for one key of a comment: what each plan would do with its meter.

A change that is the same in all plans appears once; changes that differ appear side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FieldPath
from polar_iac.plan.model import Change, Note
from polar_iac.report.comment.budget import NO_LIMIT, Budget, TruncatableBlock, WholeBlock
from polar_iac.report.comment.context import (
    CommentContext,
    note_markdown,
    plans_by_text,
    reason_markdown,
)
from polar_iac.report.comment.escape import (
    MARKUP,
    clipped,
    code,
    details,
    fence,
    short_code,
    size,
    strong,
)
from polar_iac.report.comment.fields import (
    Block,
    PlanField,
    bullet_list,
    counted_markdown,
    created_blocks,
    field_blocks,
    impact,
    is_long_filter,
    label,
    marker_markdown,
    outline_block,
    table_cell,
    table_row,
)
from polar_iac.report.evidence import evidence
from polar_iac.report.filters import shown_fields
from polar_iac.report.headlines import BILLS_NOTHING, Headline, headline, marks_only, says_reason, stake_words
from polar_iac.report.replacement import ANOTHER_METER, CHECKLIST, NEW_RULE, WHAT_MOVES, steps
from polar_iac.report.risks import GRADE_SIGNS, RISKS, Grade, Risk, grade, grade_of, risk, risks, stake
from polar_iac.report.usage import bars
from polar_iac.report.wording import asked, listed, quantity, value

_PLAIN_KEY = re.compile("[a-z][a-z0-9-]{0,62}")
_MOST_NOTES = 3
"""Most notes of a key that are not folded."""


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
        kinds = {kind for change in self.present for kind in risks(change)}
        return [kind for kind in RISKS if kind in kinds]

    @cached_property
    def grade(self) -> Grade:
        """Grade of the worst of the changes."""
        return grade_of(self.risks)

    @property
    def quoted_name(self) -> str:
        """The name of the meter, as Markdown."""
        return short_code(value(self.present[0].name))

    @cached_property
    def is_mark(self) -> bool:
        """Tell whether every plan with the key only writes its marker, all for the same reason."""
        return all(map(marks_only, self.present)) and len({change.reason for change in self.present}) == 1

    def markdown(self, context: CommentContext, room: int = NO_LIMIT) -> str:
        """Return everything about the key, in at most `room` bytes if possible.

        If it does not fit, lines of fields and filters are left out and a line says how many. The rest is
        never cut, so the result may still exceed a very small `room`.
        """
        blocks = [self._title(context), *(self._shared(context) if self.shared else self._differing(context))]
        full = [_cut(block, NO_LIMIT, context) for block in blocks]
        shortest = [block if isinstance(block, str) else block.shortest(context.whole) for block in blocks]
        # Each block gets its minimum; they share what is left.
        budget = Budget.joined(room)
        budget.reserve(*shortest)
        share = budget.share([size(text) - size(least) for text, least in zip(full, shortest, strict=True)])
        return "\n\n".join(
            _cut(block, size(least) + share, context) for block, least in zip(blocks, shortest, strict=True)
        )

    def brief(self, context: CommentContext) -> str:
        """Return the grade, the key and its action in one line."""
        return f"{GRADE_SIGNS[self.grade]} {strong(clipped(self.key))} {self._verb(context)}"

    def _verb(self, context: CommentContext) -> str:
        """Return the action, with the plans it applies to if they differ."""
        actions = plans_by_text(self._each(lambda change: change.action))
        if len(self.present) == len(self.changes) and len(actions) == 1:
            return next(iter(actions))
        return ", ".join(
            f"{action} in {listed([context.labels[index] for index in indices])}"
            for action, indices in actions.items()
        )

    def _headlines(self, context: CommentContext) -> list[tuple[int, Headline]]:
        """Return the headline of each plan's change, with the index of the plan."""
        return [
            (
                index,
                headline(
                    change,
                    MARKUP,
                    has_lines=self.key in context.blocks_of(index),
                    says_kept=context.says_kept,
                ),
            )
            for index, change in enumerate(self.changes)
            if change
        ]

    def _title(self, context: CommentContext) -> str:
        """Return what each plan does, then what else is known, the name and the place."""
        key = strong(clipped(self.key))
        texts = plans_by_text(
            (index, (made.lead, GRADE_SIGNS[grade(change)], self._unread(change, made.text), made.more))
            for index, made in self._headlines(context)
            if (change := self.changes[index])
        )
        lines, said = list[str](), set[str]()
        for (lead, sign, words, more), indices in texts.items():
            where = context.where(indices)
            # Sentences that all environments share appear once, with the first one.
            rest = f" {more}" if more and more not in said else ""
            said.add(more)
            lines += [*([where + lead] if lead else []), f"{sign} {where}{key}{words}{rest}"]
        return "<br>\n".join([*lines, *self._details(context)])

    def _unread(self, change: Change, text: str) -> str:
        """Add to a headline that usage was not read, if another plan has it: no line must look cut."""
        counts = change.action == "create" or any(field.impact == "billing" for field in change.fields)
        facts = [evidence(one).impact for one in self.present]
        if change.action == "blocked" or not counts or evidence(change).impact or not any(facts):
            return text
        return f"{text.removesuffix('.')}; its usage here was not read."

    def _details(self, context: CommentContext) -> Iterator[str]:
        """Yield usage by day and what depends on the meter, by plan, then the name and the place."""

        def usage(change: Change) -> str:
            if change.action == "create" and risk(change) == "nothing":
                return BILLS_NOTHING
            impact = evidence(change).impact
            by_day = bars(impact) if impact and change.action != "blocked" else ""
            sides = "per day, before → after" if impact and impact.before is not None else "per day"
            return f"{sides}: {code(by_day)}" if by_day else ""

        def known(change: Change) -> str:
            stakes = stake_words(change, MARKUP) if grade(change) == "billing" else ""
            return f"{stake(change)}: {stakes}" if stakes else ""

        place = [self.quoted_name]
        if source := next((change.source for change in self.present if change.source), None):
            place.append(context.file(source.file, source.line))
        yield from context.by_plan(self._each(usage))
        facts = context.by_plan(self._each(known))
        yield from facts[:-1]
        yield " · ".join([*facts[-1:], *place])

    def _shared(self, context: CommentContext) -> Iterator[Block]:
        """Yield what every plan does alike."""
        yield from self._reasons(context)
        notes = self._notes(context)
        change = self.present[0]
        items: list[str] = []
        blocks: list[Block] = []
        if change.action == "create":
            blocks, items = created_blocks({field.path: field.after for field in shown_fields(change)})
        else:
            for group in self._fields():
                more_blocks, more_items = field_blocks(group, context)
                blocks += more_blocks
                items += more_items
        if change.action == "blocked" and (blocks or items):
            yield "Wanted:"
        yield from blocks
        yield from bullet_list(
            [*self._counted(context), *items, *self._markers(context)],
            notes[:_MOST_NOTES],
        )
        yield from _folded(notes[_MOST_NOTES:])
        yield from self._ways_out(context)

    def _differing(self, context: CommentContext) -> Iterator[Block]:
        """Yield a table with a column for each plan, then what is the same in all or too long for a cell."""
        rows = []
        below: list[Block] = []
        items = self._counted(context)
        for group in self._fields():
            in_all = len(group[0][1]) == len(self.changes) and not any(map(self._creates, group[0][1]))
            updates = [(field, rest) for field, where in group if (rest := self._not_creating(where))]
            if in_all or group[0][0].path == "filter":
                more_blocks, more_items = field_blocks(updates, context)
                below += more_blocks
                items += more_items
            if not in_all:
                rows.append(self._row(group))
                below += self._created_filters(group, context)
        if rows:
            columns = self._columns(context)
            yield TruncatableBlock(
                rows, head=[table_row(["", *columns]), table_row(["---"] * (len(columns) + 1))]
            )
        yield from below
        yield from self._reasons(context)
        notes = self._notes(context)
        yield from bullet_list([*items, *self._markers(context)], notes[:_MOST_NOTES])
        yield from _folded(notes[_MOST_NOTES:])
        yield from self._ways_out(context)

    def _columns(self, context: CommentContext) -> list[str]:
        """Return the heads of the columns, one for each plan."""
        return [
            f"{name} (blocked, wanted)" if change and change.action == "blocked" else name
            for name, change in zip(context.labels, self.changes, strict=True)
        ]

    def _row(self, group: Sequence[PlanField]) -> str:
        """Return the row of one field, with a cell for each plan.

        It names the impact unless the field is only set in new meters, which bill nothing yet.
        """
        cells = ["unchanged"] * len(self.changes)
        for field, where in group:
            for index in where:
                cells[index] = table_cell(field, created=self._creates(index))
        updates = [field for field, where in group if self._not_creating(where)]
        head = label(group[0][0].path)
        return table_row([f"{head} · {impact(updates[-1])}" if updates else head, *cells])

    def _created_filters(self, group: Sequence[PlanField], context: CommentContext) -> Iterator[Block]:
        """Yield the filters of new meters that are too long for a cell."""
        for field, where in group:
            new = [index for index in where if self._creates(index)]
            if field.path == "filter" and new and is_long_filter(field.after):
                yield f"{context.where(new)}filter"
                yield outline_block(field.after)

    def _creates(self, index: int) -> bool:
        change = self.changes[index]
        return change is not None and change.action == "create"

    def _not_creating(self, indices: Sequence[int]) -> list[int]:
        return [index for index in indices if not self._creates(index)]

    def _fields(self) -> list[list[PlanField]]:
        """Group the changes by field, each with the plans that make it. Equal changes appear once."""
        fields: dict[str, dict[str, PlanField]] = {}
        for index, change in enumerate(self.changes):
            for field, shown in zip(change.fields, shown_fields(change), strict=True) if change else ():
                alike = canonical_json([field.before, field.after, field.origin])
                fields.setdefault(field.path, {}).setdefault(alike, (shown, []))[1].append(index)
        return [list(fields[path].values()) for path in sorted(fields, key=FieldPath.parse)]

    def _each(self, text: Callable[[Change], str | None]) -> Iterator[tuple[int, str]]:
        """Yield a text about each change, if there is one, with the index of its plan."""
        for index, change in enumerate(self.changes):
            if change and (words := text(change)):
                yield index, words

    def _counted(self, context: CommentContext) -> list[str]:
        """List what each archived meter counts."""

        def counted(change: Change) -> str | None:
            if change.action != "archive" or change.before is None:
                return None
            return counted_markdown(change.before)

        return [f"- {line}" for line in context.by_plan(self._each(counted))]

    def _markers(self, context: CommentContext) -> list[str]:
        """List the changes of ownership markers. A create is left out, because it always writes one."""

        def marker(change: Change) -> str | None:
            if change.marker is None or change.action in ("create", "blocked"):
                return None
            return marker_markdown(change, change.marker)

        return [f"- {line}" for line in context.by_plan(self._each(marker))]

    def _reasons(self, context: CommentContext) -> list[str]:
        """List why the change is blocked, unless its headline or the refusal at the top says it."""
        reasons = (
            (index, reason_markdown(change))
            for index, change in enumerate(self.changes)
            if change and change.action == "blocked"
            if not says_reason(change) and change.reason not in context.said_above
        )
        return context.cited(reasons)

    def _ways_out(self, context: CommentContext) -> Iterator[Block]:
        """Yield the way out of a frozen meter, folded, once for all plans for which it is the same."""
        blocks_by_plan = (
            (index, blocks[self.key])
            for index, blocks in enumerate(context.replacements)
            if self.key in blocks and self.changes[index] in self.present
        )
        for text, indices in plans_by_text(blocks_by_plan).items():
            where = context.where(indices)
            lines_to_paste = fence(["meters:", *text.rstrip("\n").split("\n")], "yaml")
            moves = "\n".join(f"- {line}" for line in CHECKLIST)
            change = next(change for index in indices if (change := self.changes[index]))
            numbered = "\n".join(f"{n}. {step}" for n, step in enumerate(steps(change, short_code), 1))
            body = [f"{where}{NEW_RULE}:", numbered, lines_to_paste, f"{WHAT_MOVES}:", moves]
            # GitHub renders HTML in a summary, but no Markdown: only a plain key is safe there.
            of = f" for <code>{self.key}</code>" if _PLAIN_KEY.fullmatch(self.key) else ""
            yield WholeBlock(
                details(f"Lines to paste{of}, and what moves", "\n\n".join(body)),
                f"{where}{ANOTHER_METER}; the log has the lines to paste.",
            )

    def _notes(self, context: CommentContext) -> list[str]:
        """List the notes of all plans that no headline covers, warnings first."""
        left = [
            (index, note)
            for index, made in self._headlines(context)
            if (change := self.changes[index])
            for note in made.left(change)
        ]
        left.sort(key=lambda one: one[1].severity != "warning")
        plans = plans_by_text((index, note.text) for index, note in left)

        def markdown(index: int, note: Note) -> str:
            text = note_markdown(note)
            if text in context.notes:
                return text
            environment = context.environments[index] if len(plans[note.text]) == 1 else None
            return note_markdown(replace(note, text=asked(note.text, environment, self.key)))

        return [f"- {line}" for line in context.cited((index, markdown(index, note)) for index, note in left)]


def _folded(notes: Sequence[str]) -> Iterator[Block]:
    """Yield the notes beyond the first ones, folded."""
    if notes:
        yield details(quantity(len(notes), "more note"), "\n".join(notes))


def _cut(block: Block, room: int, context: CommentContext) -> str:
    """Return a block in at most `room` bytes, if it can be cut."""
    return block if isinstance(block, str) else block.markdown(room, context.whole)
