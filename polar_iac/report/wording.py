"""Wording that the text report and the comment share: numbers, lists, labels, sentences and refusals.

A function that quotes values takes `quote`, which makes one value safe where the sentence is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polar_iac.manifest.write import block
from polar_iac.meter.fields import FIELDS, FieldPath
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.annotate import PROBE
from polar_iac.plan.model import ACTIONS, UNKNOWN_HERE, UNKNOWN_IMPORT, Bookkeeping, Change, MeterTests, Plan
from polar_iac.plan.renames import renames
from polar_iac.sanitize import printable

Quote = Callable[[str], str]

WIDTH = 100
"""Columns of text, unless the terminal has fewer."""
HOUSEKEEPING = {
    "adopt": "adopted: found by marker or `import`, will be recorded in the lockfile",
    "forget": "forgotten: no longer managed here, its record will be removed from the lockfile",
    "moved": "moved: the same meter under a new key",
    "marker": "its ownership marker will be restored",
    "refresh": "its record in the lockfile will be brought up to date",
}
"""Descriptions of changes that affect the lockfile only."""
ORIGINS = {"manifest": "", "outside": "changed outside", "both": "also changed outside"}
"""Descriptions of who moved a field away from what was last applied. The manifest is the normal case."""
MARKER = "marker"
"""Label of an ownership marker's change."""
NO_LONGER_COUNTED = "no longer counted"
"""Label of an archived meter's aggregation and filter."""
TERMS = {
    "billing": "decides what is counted, and so what customers pay",
    "invoice": "what customers read on invoices",
    "internal": "neither billed nor on invoices",
    "frozen": "the meter has counted events, and Polar refuses to change its filter and aggregation",
}
"""Words that reports use of changes, and what they mean."""
_SHOWN_APART = ("name", "filter", "aggregation", "metadata")
"""Fields of a new meter that reports show each in its own way. The others are listed by their labels."""
_BLOCKS = 20
"""Most manifest blocks that a refusal prints."""
_IDS = 5
"""Most unknown ids that a refusal lists."""


def value(data: Any) -> str:
    """Return a value as both YAML and JSON write it. None becomes `none`."""
    return "none" if data is None else printable(json.dumps(data, ensure_ascii=False))


# Numbers and lists


def agree(count: int, one: str, many: str) -> str:
    """Return the word that agrees with a count."""
    return one if count == 1 else many


def quantity(count: int, noun: str) -> str:
    """Return a count with its noun, as in `1 meter` or `1,000 meters`."""
    return f"{count:,} {agree(count, noun, f'{noun}s')}"


def listed(words: Sequence[str], most: int | None = None) -> str:
    """Join words as in `a, b and c`. More than `most` become `a, b and 4 more`."""
    if most is not None and len(words) > most:
        words = [*words[:most], f"{len(words) - most:,} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def labels(plans: Sequence[Plan]) -> list[str]:
    """Name each plan by its environment, adding the project and a number if needed to tell plans apart."""
    names = [plan.environment for plan in plans]
    if len(set(names)) < len(names):
        names = [f"{plan.environment} {plan.project}" for plan in plans]
    if len(set(names)) < len(names):
        names = [f"{name} {number}" for number, name in enumerate(names, 1)]
    return names


def production_first(plans: Sequence[Plan]) -> list[Plan]:
    """Return plans with those of Polar's production server before the others, else as they were given.

    Of a saved plan only the name of its environment is known.
    """
    return sorted(plans, key=lambda plan: not plan.on_production and plan.environment != "production")


def all_blocked(count: int) -> str:
    """Say that no change is carried out."""
    changes = {1: "the only change is", 2: "both changes are"}.get(count, f"all {count:,} changes are")
    return f"{changes} blocked"


def action_counts(counts: Mapping[str, int], always: Sequence[str] = ()) -> dict[str, str]:
    """Return for each action that occurs, or is one of `always`, how often: `2 to create`, `1 blocked`."""
    return {
        action: f"{counts.get(action, 0):,} {action if action == 'blocked' else f'to {action}'}"
        for action in ACTIONS
        if counts.get(action) or action in always
    }


def meters_match(counts: Sequence[int]) -> str:
    """Say how many meters match, as in `1 meter matches` or, for two plans, `2 and 3 meters match`."""
    numbers = listed([f"{count:,}" for count in counts])
    return f"{numbers} {'meter matches' if list(counts) == [1] else 'meters match'}"


# Fields


@dataclass(frozen=True)
class FieldLabel:
    """Name of a field for readers. `part` is the part of the unit, or the metadata key, that is meant."""

    name: str
    part: str = ""
    is_key: bool = False
    """The part is a metadata key, which can be any text."""


def field_label(path: str) -> FieldLabel:
    """Return the label of a field name or `metadata.KEY`."""
    parsed = FieldPath.parse(path)
    if parsed.key is not None:
        return FieldLabel(parsed.name, parsed.key, is_key=True)
    field = parsed.field
    return FieldLabel(field.group, field.short_label if field.group != field.name else "")


def labeled_groups(fields: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """Return the remaining fields of a new meter by group, each value after its short label.

    Example: `{"unit": [("unit", "custom"), ("label", "request")]}`.
    """
    groups: dict[str, list[tuple[str, Any]]] = {}
    for field in FIELDS.values():
        if field.name in fields and field.name not in _SHOWN_APART:
            groups.setdefault(field.group, []).append((field.short_label, fields[field.name]))
    return groups


def metadata_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a new meter by key."""
    paths = {path: FieldPath.parse(path).key for path in fields}
    return {key: fields[path] for path, key in paths.items() if key is not None}


def terms(changes: Iterable[Change]) -> list[str]:
    """Return those of `TERMS` that the report of these changes uses."""
    used: set[str] = set()
    for change in changes:
        if change.action != "create":  # a new meter shows its fields without their impact
            used |= {field.impact for field in change.fields}
        if change.marker and change.action not in ("blocked", "create", "settle"):
            used.add("internal")
        if change.cause == "frozen" or any(note.kind == "freeze" for note in change.notes):
            used.add("frozen")
    return [term for term in TERMS if term in used]


# Ownership markers and bookkeeping


def marker_or_none(marker: str | None, quote: Quote) -> str:
    """Return a marker, quoted, or `none`."""
    return quote(marker) if marker else "none"


def marker_remarks(change: Change) -> list[str]:
    """Return the impact of a change of the ownership marker, and the reason if it is the only change."""
    return ["internal", *([change.reason] if change.action == "mark" and change.reason else [])]


def settled(change: Change) -> str:
    """Describe the effect of settling a duplicate."""
    return (
        f"archives the duplicate {change.id}, which an earlier run on this machine created, and removes its "
        f"marker; {change.duplicate_of} stays"
    )


def bookkeeping(entry: Bookkeeping, quote: Quote) -> str:
    """Describe a change that affects the lockfile only."""
    return HOUSEKEEPING[entry.action] + (f" (was {quote(entry.was)})" if entry.was is not None else "")


def outcome_line(tested: MeterTests) -> str:
    """Return what came of the tests: `14 tests passed`, `1 of 14 tests failed`."""
    if tested.errors:
        return f"no test was run: the files of tests have {quantity(tested.errors, 'error')}"
    tests = quantity(tested.passed + tested.failed, "test")
    return f"{tested.failed:,} of {tests} failed" if tested.failed else f"{tests} passed"


def unowned(plan: Plan, quote: Quote) -> str:
    """Say how many meters no manifest manages, and which command lists them."""
    one = plan.unowned == 1
    meters = f"{quantity(plan.unowned, 'active meter')} here {'has' if one else 'have'} no owner"
    lists = quote(f"polar-iac import -e {plan.environment}")
    return f"{meters}: {lists} lists {'it' if one else 'them'}."


def asked(text: str, environment: str | None, key: str) -> str:
    """Return the text of a note in which the command names one key, and one environment if it is known."""
    return text.replace(PROBE, f"polar-iac probe -e {environment or 'ENV'} {key}")


# Refusals


@dataclass(frozen=True)
class SameRefusal:
    """Words for several keys that are blocked for one reason."""

    of_several: str
    """Predicate, after `8 meters:`."""
    advice: str
    """The way on. `{environment}` stands for the plan's."""
    usual_end: str
    """End of the reason of one key. A reason that ends otherwise says more, and is shown by itself."""


SAME_REFUSALS: Mapping[str, SameRefusal] = {
    "unknown-id": SameRefusal(
        "Polar does not know their ids", f"This is {UNKNOWN_HERE}.", f": {UNKNOWN_HERE}."
    ),
    "unlisted": SameRefusal(
        "gone from the manifest and still active",
        "Keep their blocks with `archived: true` to archive them, name them under `removed` to manage them "
        "no more, or allow this once with --allow-archive.",
        "with `archived: true` to archive it, name it under `removed` to manage it no more, or allow this "
        "once with --allow-archive.",
    ),
    "import": SameRefusal(
        "Polar does not know the ids that `import` names for them",
        "They are mistyped, or of another organization or environment. Correct the entries, or remove them.",
        f": {UNKNOWN_IMPORT}. Correct the entry, or remove it.",
    ),
    "elsewhere": SameRefusal(
        "declared for other environments only, and still active here",
        "Archive them once with --allow-archive -e {environment}, or add {environment} to their "
        "`environments`.",
        " to its `environments`.",
    ),
}
"""Words by the cause of a blocked change."""


def same_refusals(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Map each key that is blocked for the same reason as another to all that are, in their order."""
    by_cause: dict[str, list[Change]] = {}
    for change in changes:
        if says_the_usual(change):
            by_cause.setdefault(change.cause or "", []).append(change)
    return {change.key: same for same in by_cause.values() if len(same) > 1 for change in same}


def says_the_usual(change: Change) -> bool:
    """Tell whether the reason of a blocked change says no more than the words for several."""
    same = SAME_REFUSALS.get(change.cause or "")
    return same is not None and (change.reason or "").endswith(same.usual_end)


@dataclass(frozen=True)
class Snippet:
    """Lines to paste into the manifest: a heading, and the first of `total` items of one or more lines."""

    heading: str
    items: Sequence[str]
    total: int

    def lines(self, count: int | None = None) -> list[str]:
        """Return the first `count` items as lines, and a comment that says how many are left out."""
        items = self.items[:count]
        rest = self.total - len(items)
        more = [f"  # and {rest:,} more"] if rest else []
        return [self.heading, *(line for item in items for line in item.rstrip("\n").split("\n")), *more]


@dataclass(frozen=True)
class RefusalPart:
    """One sentence of a refusal. It ends with a period, or introduces the snippet."""

    sentence: str
    snippet: Snippet | None = None


def _unknown_records(refused: Sequence[Change], quote: Quote) -> Iterator[RefusalPart]:
    if keys := {change.id: change.key for change in refused if change.cause == "unknown-id"}:
        unknown = listed([f"{quote(key)} ({quote(str(id_))})" for id_, key in keys.items()], _IDS)
        yield RefusalPart(f"Polar knows none of the ids in the lockfile: {unknown}. This is {UNKNOWN_HERE}.")


def _unknown_imports(refused: Sequence[Change], quote: Quote) -> Iterator[RefusalPart]:
    if keys := list(dict.fromkeys(quote(change.key) for change in refused if change.cause == "import")):
        yield RefusalPart(
            f"Polar knows none of the ids that `import` names here, for {listed(keys, _IDS)}. The token is "
            "probably of another organization or environment; otherwise correct the entries, or remove them."
        )


def refusal(plans: Sequence[Plan], quote: Quote) -> list[RefusalPart]:
    """Explain why an apply would refuse plans as a whole, and what to add to the manifest to permit them.

    All of the plans must be refused for the same cause.
    """
    causes = {plan.refusal.cause for plan in plans if plan.refusal}
    refused = [change for plan in plans for change in plan.changes if change.key in _refused_keys(plan)]
    if causes == {"unknown-id"}:
        return [*_unknown_records(refused, quote), *_unknown_imports(refused, quote)]
    count = len({change.key for change in refused})
    meters = f"{quantity(count, 'meter')} {agree(count, 'is', 'are')}"
    parts = [RefusalPart(f"{meters} gone from the manifest and still active.")]
    moves, blocks = _moves(plans), _archived_blocks(plans)
    if moves:
        renamed = agree(count, "it is the same meter under a new key", "some are the same under new keys")
        kept = agree(count, "it is", "those are")
        parts.append(
            RefusalPart(
                f"If {renamed}, say so in the manifest, and {kept} not archived",
                Snippet("moved:", moves, len(moves)),
            )
        )
    back = agree(count, "it, put its block", "them, put their blocks")
    parts.append(
        RefusalPart(
            f"To archive {back} back into the manifest, with `archived: true`",
            Snippet("meters:", blocks, count),
        )
    )
    flag, action_input = quote("--allow-archive"), "`allow-archive`"
    them = agree(count, "it", "them")
    this_once = (
        f"Or let go of {them} with {quote('removed')}, or archive {them} this once with {flag} (the actions' "
        f"input {action_input})."
    )
    return [*parts, RefusalPart(this_once)]


def _refused_keys(plan: Plan) -> Sequence[str]:
    return plan.refusal.keys if plan.refusal else ()


def _moves(plans: Sequence[Plan]) -> list[str]:
    """Return the lines of `moved` for the keys that seem to be renamed."""
    moves: dict[str, str] = {}
    for plan in plans:
        refused = _refused_keys(plan)
        # What only differs in little is said in a note. These lines are pasted without much thought.
        pairs = {old: new.key for old, new in renames(plan.changes).items() if new.likeness != "most"}
        moves |= {old: new for old, new in pairs.items() if old in refused}
    return [f"  - {{from: {old}, to: {new}}}\n" for old, new in sorted(moves.items())]


def _archived_blocks(plans: Sequence[Plan]) -> list[str]:
    """Return the manifest blocks that would archive the removed meters, at most `_BLOCKS`."""
    removed: dict[str, MeterSpec] = {}
    for plan in plans:
        refused = _refused_keys(plan)
        removed = {c.key: c.before for c in plan.changes if c.key in refused and c.before} | removed
    # Use the canonical form, so that a saved plan prints the same.
    specs = ((key, MeterSpec.from_json(spec.canonical)) for key, spec in sorted(removed.items())[:_BLOCKS])
    return [block(key, replace(spec, archived=True)) for key, spec in specs]
