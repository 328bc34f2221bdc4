"""Event names that matter for a change: decided from the filters alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from polar_iac.facts.model import EventName
from polar_iac.facts.name_classes import Json, NameClasses, all_of, name_is
from polar_iac.facts.period import Period
from polar_iac.meter.meaning import bill_alike, implies, never
from polar_iac.meter.meaning.building import USUAL_NAME, build
from polar_iac.meter.meaning.events import Event, bare
from polar_iac.meter.meaning.filters import compile_filter
from polar_iac.meter.spec import MeterSpec


@dataclass(frozen=True)
class NameReach:
    """Effects that a change can have on the users' events of a name. Undecided effects count as possible.

    `differs`: some event may be matched on one side only, or add a different quantity. Events of a name that
    does not differ are part of the total, not of the difference. `narrows`: every event
    matched after the change is also matched before it.
    """

    name: str
    before: bool
    after: bool
    differs: bool
    narrows: bool

    @property
    def matters(self) -> bool:
        """Tell whether an event of the name can be matched at all."""
        return self.before or self.after


def reach(name: str, before: MeterSpec | None, after: MeterSpec) -> NameReach:
    """Return the effects that a change can have on a name. `before` is None for a create."""
    specs = [after] if before is None else [before, after]
    if any("name" in _properties(spec.canonical["filter"]) for spec in specs):
        return _reach(name, before, after)
    # If no filter looks at names, the answer for one name holds for all.
    return replace(_reach(USUAL_NAME, before, after), name=name)


@lru_cache(maxsize=10_000)
def _reach(name: str, before: MeterSpec | None, after: MeterSpec) -> NameReach:
    new = _of_name(after, name, "user")
    is_after = _may_match(after, name, "user")
    if before is None:
        return NameReach(name, before=False, after=is_after, differs=is_after, narrows=not is_after)
    old = _of_name(before, name, "user")
    is_before = _may_match(before, name, "user")
    same = before.canonical["aggregation"] == after.canonical["aggregation"]
    differs = (is_before or is_after) and not (same and bill_alike(old, new) is True)
    narrows = not is_after or (is_before and implies(new, old) is True)
    return NameReach(name, is_before, is_after, differs, narrows)


def reaches(
    names: Iterable[EventName], before: MeterSpec | None, after: MeterSpec, period: Period
) -> tuple[NameReach, ...]:
    """Return the names that matter for a change: those that make a difference first, then the most frequent.

    Names without events in the period are left out, as are names of system events, which no invoice takes.
    """
    users = sorted(
        (n for n in names if n.source == "user" and _within(n, period)),
        key=lambda n: (-n.occurrences, n.name),
    )
    filters = [spec.canonical["filter"] for spec in (before, after) if spec]
    classes = NameClasses(filters, lambda name: reach(name, before, after))
    found = [replace(classes.answer(n.name), name=n.name) for n in users]
    return tuple(sorted((r for r in found if r.matters), key=lambda r: not r.differs))


def counts_system_events(names: Iterable[EventName], spec: MeterSpec) -> bool:
    """Tell whether `/quantities` may include system events, which invoices leave out."""
    return any(n.source == "system" and _may_match(spec, n.name, "system") for n in names)


def _within(name: EventName, period: Period) -> bool:
    """Tell whether a name may have events in the period. Its first and last times are in Polar's format."""
    return name.last_seen[:10] >= str(period.first) and name.first_seen[:10] <= str(period.last)


@lru_cache(maxsize=10_000)
def _may_match(spec: MeterSpec, name: str, source: str) -> bool:
    """Tell whether a filter may match an event of a name. For most filters, a required clause decides it."""
    filter_ = spec.canonical["filter"]
    if filter_["conjunction"] == "and":
        own = [part for part in filter_["clauses"] if _properties(part) <= {"name", "source"}]
        event = Event.from_json(build({"name": name, "source": source}))
        if not compile_filter(all_of(*own)).billing(event):
            return False
    return never(_of_name(spec, name, source)) is not True


def _properties(part: Json) -> set[str]:
    """Return the properties that a filter looks at, without `metadata.`, as both engines read them."""
    if "clauses" in part:
        return set().union(*map(_properties, part["clauses"]))
    return {bare(part["property"])}


def _of_name(spec: MeterSpec, name: str, source: str) -> Json:
    of_source = {"property": "source", "operator": "eq", "value": source}
    return all_of(spec.canonical["filter"], name_is(name), of_source)
