"""Headlines: what a change does, how bad it is and what to do, in one sentence or two after its key.

Text and comment show the same words. Each quotes names and other foreign text in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.facts import words
from polar_iac.meter.fields import FieldPath
from polar_iac.meter.meaning.building import is_ingestible
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.examples import asked_of
from polar_iac.plan.model import Change, Note
from polar_iac.report.evidence import Attached, Evidence, Impact, Unseen, evidence
from polar_iac.report.filters import aggregation
from polar_iac.report.replacement import frozen_words
from polar_iac.report.risks import risk, stake, will_refuse
from polar_iac.report.usage import (
    Markup,
    clipped,
    customers,
    difference,
    doubt,
    matched,
    not_estimated,
    span,
    users,
)
from polar_iac.report.wording import agree, listed, quantity
from polar_iac.yaml.write import flow

KEPT = "Invoices keep what already matched; balances recompute the current period."
BILLS_NOTHING = "Bills nothing until a price uses it."
_REFUSED = "Polar will almost certainly refuse this change; the meter then stays as it is."
_IF_TAKEN = "If Polar accepts it"
MOST_KEPT = 2
"""Most keys of a report that each say `KEPT`. With more keys, a shared note says it once."""
_EVENT = 200
"""Longest event that is shown, in characters."""
_BLOCKED: Mapping[str, str] = {
    "mismatch": "cannot change: lockfile and marker do not agree on its meter",
    "duplicates": "cannot change: several active meters bear its marker",
    "unknown-id": "cannot change: Polar does not know its id",
    "unknown-parts": "cannot change: it has parts that this version does not know",
    "import": "cannot be taken over as `import` says",
    "unowned": "is not created: a meter without an owner is like it",
    "unlisted": "is gone from the manifest, and still active",
    "elsewhere": "is declared for other environments only, and still active here",
    "limits": "cannot change: Polar takes no such meter",
    "metadata-limit": "cannot change: it would have too many metadata keys",
    "attached": "cannot be archived: it is in use",
}
"""Predicates of blocked changes, by cause. The reason follows. Other causes have their own sentences."""
_WITHOUT_EXAMPLE = {
    "invoices": "Invoices unchanged; balances may differ.",
    "unknown": "No example was found of an event that is counted differently.",
}
_MARKED = {
    "adopted": "is adopted: writes only the ownership marker",
    "moved": "has a new key: writes only the ownership marker",
    "restored": "gets its ownership marker back: writes nothing else",
}
_MARKS = {
    "adopted": "Adopts {}: writes only the ownership marker to each",
    "moved": "Renames {}: writes only the ownership marker of each",
    "restored": "Restores {}: writes only the ownership marker to each",
}
"""Sentences about several meters that only get a marker, by reason."""


@dataclass(frozen=True)
class Headline:
    """Words that follow the key of a change, with the space or colon between, and the notes they cover."""

    text: str
    said: tuple[Note, ...] = ()
    more: str = ""
    """Sentences that follow, such as examples. They rarely differ between environments."""
    lead: str = ""
    """Sentences on a line before the key. They qualify all that follow."""

    @property
    def whole(self) -> str:
        return f"{self.text} {self.more}" if self.more else self.text

    def left(self, change: Change) -> list[Note]:
        """Return the notes that are still to be shown, warnings first."""
        notes = [note for note in change.notes if note not in self.said]
        return sorted(notes, key=lambda note: note.severity != "warning")


def headline(change: Change, markup: Markup, *, has_lines: bool, says_kept: bool) -> Headline:
    """Return the headline of a change.

    `has_lines` means that the block of a replacement meter is shown. `says_kept` means that the headline says
    what happens to earlier usage.
    """
    sentences = _Sentences(change, evidence(change), markup)
    match change.action:
        case "blocked" if change.cause == "frozen":
            return sentences.headline(sentences.frozen(has_lines=has_lines), "freeze")
        case "blocked" if attached := _in_use(change):
            return sentences.headline(sentences.in_use(attached), "attached", "archive")
        case "blocked":
            return Headline(f" {_BLOCKED.get(change.cause or '', 'cannot change')}.")
        case "create":
            return sentences.created()
        case "archive":
            return sentences.archived()
        case "settle":
            return Headline(" was created twice: the duplicate is archived.")
        case "release":
            return Headline(" is let go: its marker is taken off, and the meter stays as it is.")
        case "mark":
            return Headline(f" {_MARKED.get(change.reason or '', _MARKED['restored'])}.")
        case _:
            return sentences.updated(says_kept=says_kept)


def says_reason(change: Change) -> bool:
    """Tell whether the headline of a blocked change says the reason."""
    return change.cause == "frozen" or _in_use(change) is not None


def _in_use(change: Change) -> Attached | None:
    """Return what uses a meter that therefore cannot be archived, if it is known."""
    attached = evidence(change).attached if change.cause == "attached" else None
    return attached if attached and (attached.blocking or attached.benefits) else None


def says_kept(changes: Iterable[Change]) -> bool:
    """Tell whether each headline says that invoices keep earlier usage: only if few keys do."""
    keys = {change.key for change in changes if any(note.kind == "rematch" for note in change.notes)}
    return len(keys) <= MOST_KEPT


def marks(reason: str, count: int, *, only: bool) -> str:
    """Return one sentence about several meters that only get a marker.

    `only` means that the plan does nothing else.
    """
    nothing_else = "; 0 created, 0 definitions changed" if only else ""
    return f"{_MARKS[reason].format(quantity(count, 'meter'))}{nothing_else}."


def marks_only(change: Change) -> bool:
    """Tell whether a change can be grouped with others: it only writes a marker, and has no warning."""
    warned = any(note.severity == "warning" for note in change.notes)
    return change.action == "mark" and change.reason in _MARKS and not warned


def stake_words(change: Change, markup: Markup) -> str:
    """Return what is known to use a meter whose billing changes, as in `product **Pro** ($0.50 / export)`.

    Empty where nothing was read.
    """
    attached = evidence(change).attached
    if attached is None:
        return ""
    if stake(change) != "may bill":
        spec = change.before or change.after
        return users(attached.products or (), attached.benefits or (), spec, markup)
    if attached.products is None:
        return "products were not read"
    return "no live price uses it, and replaced ones cannot be seen"


@dataclass(frozen=True)
class _Sentences:
    change: Change
    facts: Evidence
    markup: Markup

    def headline(self, text: str, *kinds: str, more: str = "", lead: str = "") -> Headline:
        """Return a headline that covers the notes of some kinds."""
        notes = self.facts.notes
        return Headline(text, tuple(notes[kind] for kind in kinds if kind in notes), more, lead)

    def frozen(self, *, has_lines: bool) -> str:
        what = frozen_words(self.change)
        on = self.facts.freeze and self.facts.freeze.on
        change = f"{'an' if what.startswith('a') else 'a'} {what} change"
        refused = f"refused {change} on {words.short_day(on)}" if on else f"refuses {change}"
        before, after = self.change.before, self.change.after
        archived = " It stays archived." if before and after and before.archived > after.archived else ""
        lines = " (lines below)" if has_lines else ""
        return (
            f" cannot change: Polar {refused} (frozen). Restore the {what}, or replace the meter{lines}."
            f"{archived}"
        )

    def in_use(self, attached: Attached) -> str:
        benefits = attached.benefits or ()
        count = len(attached.blocking) + len(benefits)
        return (
            f" cannot be archived: {users(attached.blocking, benefits, self.change.before, self.markup)} "
            f"{agree(count, 'uses', 'use')} it; remove {agree(count, 'it', 'them')} first."
        )

    def archived(self) -> Headline:
        late, spec = self.facts.usage, self.change.before
        text = " stops counting: it is archived."
        if late is None or spec is None:
            return self.headline(text, "attached")
        counted = "0"
        if late.last:
            noun = matched(spec, self.markup)
            counted = noun if late.quantity is None else f"{words.number(late.quantity)} {noun}"
            counted += f", last {words.day(str(late.last), str(late.as_of))}"
        days = quantity(late.days, "day")
        return self.headline(f"{text} In the last {days} it counted {counted}.", "attached", "usage")

    def created(self) -> Headline:
        impact, unseen, example = self.facts.impact, self.facts.unseen, self.facts.example
        seen = self._seen(unseen) if unseen else ""
        if impact and impact.is_nothing(created=True):
            colon = f": {seen}" if seen else ""
            text = f" would have counted 0 events in {quantity(impact.days, 'day')}{colon}."
            return self.headline(text, "impact", "unseen", "example")
        text = " is new."
        if impact:
            text = f" is new: {self._would_have_counted(impact)}.{doubt(impact)}"
        parts = [f"{seen[0].upper()}{seen[1:]}."] if seen else []
        parts.append(BILLS_NOTHING)
        counted = []
        if example and example.counted and example.units is not None:
            counted = ["example"]
            units = f"{words.number(example.units)} {agree(example.units == 1, 'unit', 'units')}"
            parts.append(f"Counts, for example: {self._event(example.counted)} ({units}).")
        return self.headline(text, "impact", "unseen", *counted, more=" ".join(parts))

    def _would_have_counted(self, impact: Impact) -> str:
        if self.change.after is None:
            return f"usage over {span(impact)} {not_estimated(impact)}"
        noun = matched(self.change.after, self.markup)
        if impact.after is None and impact.at_least is not None:
            least = f"{words.number(impact.at_least)} {noun}"
            return f"would have counted at least {least} over {span(impact)}; more is {not_estimated(impact)}"
        if impact.after is None:
            return f"usage over {span(impact)} {not_estimated(impact)}"
        return (
            f"would have counted {words.number(impact.after)} {noun}{difference(impact, self.markup)} over "
            f"{span(impact)}{customers(impact, created=True)}"
        )

    def updated(self, *, says_kept: bool) -> Headline:
        impacts = {field.impact for field in self.change.fields}
        unarchived = self.change.action == "unarchive"
        if "billing" in impacts:
            kept = ["rematch"] if says_kept and "rematch" in self.facts.notes else []
            examples = self._examples()
            more = " ".join([*examples, *([KEPT] if kept else [])])
            others = ["unseen"] if risk(self.change) == "nothing" else ["attached"]
            others += ["example"] if examples else []
            start = " counts again, and " if unarchived else " "
            lead = f"{self.markup.own(_REFUSED)} {_IF_TAKEN}:" if will_refuse(self.change) else ""
            return self.headline(start + self._counts(), "impact", *others, *kept, more=more, lead=lead)
        if unarchived:
            return self.headline(" counts again.", "attached")
        if "invoice" in impacts:
            return self.headline(self._invoice())
        paths = [FieldPath.parse(field.path) for field in self.change.fields]
        keys = listed([self.markup.code(clipped(path.key or path.name)) for path in paths], 3)
        return Headline(f" changes metadata {keys}: neither billed nor on invoices.")

    def _counts(self) -> str:
        """Return the words for how much more or less is counted."""
        impact, before, after = self.facts.impact, self.change.before, self.change.after
        if impact is None or before is None or after is None:
            return f"counts {self._relation()}."
        if risk(self.change) == "nothing":
            return self._counts_alike(impact, after)
        if impact.before is None or impact.after is None:
            return f"counts {self._relation()}; over {span(impact)} {not_estimated(impact)}."
        nouns = [matched(spec, self.markup) for spec in (before, after)]
        where = f"over {span(impact)}{customers(impact)}"
        if nouns[0] != nouns[1]:  # two quantities that no percentage compares
            was, now = f"{words.number(impact.before)} {nouns[0]}", f"{words.number(impact.after)} {nouns[1]}"
            return f"counts differently: {was} → {now} {where}.{doubt(impact)}"
        way = (impact.after > impact.before) - (impact.after < impact.before)
        return (
            f"counts {('other events', 'more', 'less')[way]}: {words.number(impact.before)} → "
            f"{words.number(impact.after)} {nouns[1]}{difference(impact, self.markup)} {where}."
            f"{doubt(impact)}"
        )

    def _counts_alike(self, impact: Impact, after: MeterSpec) -> str:
        days = quantity(impact.days, "day")
        if not impact.counted:
            seen = f": {self._seen(self.facts.unseen)}" if self.facts.unseen else ""
            return f"would have counted 0 events in {days}, as before{seen}."
        return (
            f"would have counted the same in {days}: {words.number(impact.after or 0)} "
            f"{matched(after, self.markup)} over {span(impact)}."
        )

    def _relation(self) -> str:
        """Return how a changed meter counts, if its usage is not known."""
        paths = {field.path: field for field in self.change.fields}
        example = self.facts.example
        if function := paths.get("aggregation"):
            before, after = (
                self.markup.code(clipped(aggregation(side))) for side in (function.before, function.after)
            )
            return f"{'other events, and ' if 'filter' in paths else ''}{after} instead of {before}"
        relations = {"less": "less", "more": "more", "other": "other events", "invoices": "the same"}
        return relations.get(example.relation, "otherwise") if example else "otherwise"

    def _examples(self) -> list[str]:
        """List examples of what is counted differently, one sentence each."""
        example = self.facts.example
        if example is None:
            return []
        found = [
            f"{start}, for example: {self._event(event)}."
            for start, event in (
                ("No longer counted", example.no_longer),
                ("Now counted", example.now),
                ("Only balances may differ", example.balances),
            )
            if event is not None
        ]
        without = _WITHOUT_EXAMPLE.get(example.relation)
        return found or ([without] if without else [])

    def _event(self, event: Mapping[str, Any]) -> str:
        """Return an event as in `llm.completion {model: gpt-4o, tokens: 150}`."""
        specs = [spec.canonical for spec in (self.change.before, self.change.after) if spec]
        asking = [part for spec in specs for part in (spec["filter"], spec["aggregation"])]
        others = asked_of(dict(event), *asking)
        text = f"{event['name']} {flow(others)}" if others else str(event["name"])
        doubt = "" if is_ingestible(event) else " (no user can send this event)"
        return self.markup.code(clipped(text, _EVENT)) + doubt

    def _seen(self, unseen: Unseen) -> str:
        code = self.markup.code
        text = f"no event is named {code(clipped(unseen.event_name))}"
        if unseen.nearest is None:
            return text
        last = f", last {words.day(str(unseen.last), str(unseen.as_of))}" if unseen.last else ""
        return f"{text}; seen: {code(clipped(unseen.nearest))} ({unseen.occurrences:,}{last})"

    def _invoice(self) -> str:
        """Return what customers read instead."""
        before, after = self.change.before, self.change.after
        paths = {field.path for field in self.change.fields}
        quoted, seen = self.markup.quoted, []
        if before is None or after is None:
            return ": customers will see other words on invoices issued from now on."
        if "name" in paths:
            seen.append(f"{quoted(clipped(after.name))} instead of {quoted(clipped(before.name))}")
        units = [clipped(words.units(spec)) for spec in (before, after)]
        if units[0] != units[1]:
            seen.append(f"the unit {quoted(units[1])} instead of {quoted(units[0])}")
        elif before.custom_multiplier != after.custom_multiplier:
            one, other = (f"{spec.custom_multiplier or 1:,}" for spec in (after, before))
            seen.append(f"amounts in units of {one} instead of {other}")
        instead = listed(seen) or "another unit"
        return f": customers will see {instead} on invoices issued from now on. Nothing counted changes."
