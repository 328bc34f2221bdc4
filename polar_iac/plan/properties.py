"""Properties that the events of a month lack, or have in a type that a meter does not expect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polar_iac.facts.model import EventsRead
from polar_iac.facts.names import NameReach
from polar_iac.meter.meaning.events import ABSENT, OWN_FIELDS, Event, bare, lookup
from polar_iac.meter.meaning.filters import compile_filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Note
from polar_iac.yaml.scalars import nearest

_NEARLY_ALL = 0.95
"""Fraction of events without a property from which a warning is given."""
_MOST_KEYS = 200
"""Most keys of metadata that are searched for a property's nearest, the frequent ones first."""


@dataclass(frozen=True)
class _Asked:
    """A property that a meter reads, and the types of values that it can count."""

    name: str
    types: frozenset[str]
    matched: bool
    """True for the aggregated property: only events that the filter matches are examined."""


def unseen_properties(
    change: Change, after: MeterSpec, reads: Sequence[EventsRead], named: Sequence[NameReach], as_of: str
) -> Iterator[Note]:
    """Yield a warning for each property that events lack, or have in a type that is not counted."""
    counted = {name.name for name in named if name.after}
    events = [
        Event.from_json(data)
        for read in reads
        if read.name in counted
        for window in read.windows
        for data in window.events
    ]
    matches = compile_filter(after.canonical["filter"]).billing
    matched = [event for event in events if matches(event)]
    for asked in _asked(change, after):
        looked = matched if asked.matched else events
        which = "read" if len(looked) == len(events) else "read that the filter matches"
        if looked and (note := _property_note(asked, looked, which, as_of)):
            yield note


def _asked(change: Change, after: MeterSpec) -> Iterator[_Asked]:
    """Yield the properties of the metadata that a new or changed filter or aggregation reads."""
    touched = {field.path for field in change.fields}
    if change.action == "create" or "filter" in touched:
        types: dict[str, set[str]] = {}
        for clause in _clauses(after.canonical["filter"]):
            types.setdefault(bare(clause["property"]), set()).update(_types(clause))
        for name, wanted in types.items():
            if name not in OWN_FIELDS:
                yield _Asked(name, frozenset(wanted), matched=False)
    aggregation = after.canonical["aggregation"]
    name = bare(aggregation.get("property") or "")
    if name and name not in OWN_FIELDS and (change.action == "create" or "aggregation" in touched):
        any_type = aggregation["func"] == "unique"
        yield _Asked(name, _EVERY if any_type else frozenset({"a number"}), matched=True)


def _clauses(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for clause in part["clauses"]:
        if "clauses" in clause:
            yield from _clauses(clause)
        else:
            yield clause


_EVERY = frozenset({"text", "a number", "true or false", "a list", "an object", "null"})


def _types(clause: Mapping[str, Any]) -> frozenset[str]:
    """Return the types that a clause expects.

    `ne` also matches values of other types, and billing takes a bool for 1 or 0, but nobody intends that.
    """
    if clause["operator"] in ("like", "not_like"):  # the text of any value is looked at
        return _EVERY
    return frozenset({_type(clause["value"])})


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def _property_note(asked: _Asked, events: Sequence[Event], which: str, as_of: str) -> Note | None:
    read = lookup(asked.name, ABSENT)
    values = [read(event) for event in events]
    missing = sum(value is ABSENT for value in values)
    others = Counter(
        kind for value in values if value is not ABSENT and (kind := _type(value)) not in asked.types
    )
    count = f"{len(values):,} {'event' if len(values) == 1 else 'events'} {which}"
    like = None
    if missing >= _NEARLY_ALL * len(values):
        like = _nearest(asked.name, events)
        lack = "none has a" if missing == len(values) else f"{missing:,} have no"
        text = f"of {count}, {lack} property `{asked.name}`"
        text += f"; seen: `{like['name']}` ({like['occurrences']:,})" if like else ""
    elif others:
        (kind, number), *_ = others.most_common(1)
        wanted = " or ".join(sorted(asked.types))
        text = f"`{asked.name}` is {kind} in {number:,} of {count}, where the meter needs {wanted}"
    else:
        return None
    data = {
        "property": asked.name,
        "seen": len(values) - missing,
        "missing": missing,
        "other_type": others.total(),
        "of": len(values),
        "nearest": like,
    }
    return Note("unseen", "warning", text, "events", as_of, data)


def _nearest(name: str, events: Sequence[Event]) -> dict[str, Any] | None:
    """Return the key of the metadata that was probably meant, in the form used for event names."""
    keys = Counter(key for event in events for key in event.metadata if key != name)
    like = nearest(name, tuple(sorted(key for key, _ in keys.most_common(_MOST_KEYS))))
    return None if like is None else {"name": like, "occurrences": keys[like], "last": None}
