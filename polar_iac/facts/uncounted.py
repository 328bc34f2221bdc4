"""Names of events that no meter counts, and the names that meters ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from polar_iac.facts.model import EventName
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.filter import Clause, Filter
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.meaning import compile_meter, ingestible_witness
from polar_iac.meter.meaning.events import Event
from polar_iac.yaml.scalars import nearest

DAYS = 30
"""Days within which an event name must have been seen."""
_COUNT = {"func": "count"}


class NamesOfFilter:
    """The event names that a filter can match, of events that ingestion accepts.

    A name is decided once for all that no clause of the filter tells apart: of a filter for `a` there are
    two answers, one for `a` and one for every other name.
    """

    def __init__(self, filter_: Filter) -> None:
        self._filter = filter_.wire()
        # Each clause about the name, by the meaning that it has in a filter of its own.
        self._tests = [compile_meter(_all_of(clause.wire()), _COUNT) for clause in _about_name(filter_)]
        self._answers: dict[tuple[bool, ...], bool] = {}

    def may_match(self, name: str) -> bool:
        """Tell whether some event of this name may match. What is not decided may."""
        event = Event(name, "user", "2025-01-01T00:00:00Z", {})
        told = tuple(test.counts(event) for test in self._tests)
        if told not in self._answers:
            is_named = {"property": "name", "operator": "eq", "value": name}
            finding = ingestible_witness(_all_of(is_named, self._filter))
            self._answers[told] = finding.status != "none"
        return self._answers[told]


def _all_of(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"conjunction": "and", "clauses": list(parts)}


def _about_name(part: Filter) -> Iterator[Clause]:
    for inner in part.clauses:
        if isinstance(inner, Filter):
            yield from _about_name(inner)
        elif canonical_property(inner.property) == "name":
            yield inner


def uncounted(
    names: Sequence[EventName], meters: Sequence[LiveMeter], now: str, ignored: Collection[str] = ()
) -> list[EventName]:
    """Return the names of recent events that no active meter can count, those with most events first.

    Names of Polar's own events are left out. A meter with parts that this version does not know may count
    anything. `now` is RFC 3339.
    """
    since = datetime.fromisoformat(now) - timedelta(days=DAYS)
    recent = [
        name
        for name in names
        if name.source == "user"
        and name.name not in ignored
        and datetime.fromisoformat(name.last_seen) >= since
    ]
    active = [meter for meter in meters if not meter.archived]
    if any(meter.spec is None for meter in active):
        return []
    filters = [NamesOfFilter(meter.spec.filter) for meter in active if meter.spec]
    left = [name for name in recent if not any(filter_.may_match(name.name) for filter_ in filters)]
    return sorted(left, key=lambda name: (-name.occurrences, name.name))


def asked_names(meters: Sequence[LiveMeter]) -> dict[str, LiveMeter]:
    """Return each event name that an active meter asks for by `eq`, and the oldest such meter."""
    asked: dict[str, LiveMeter] = {}
    for meter in sorted(meters, key=lambda meter: (meter.created_at, meter.id)):
        for clause in _about_name(meter.spec.filter) if meter.spec and not meter.archived else ():
            if clause.operator == "eq" and isinstance(clause.value, str):
                asked.setdefault(clause.value, meter)
    return asked


def unseen_name(meter: LiveMeter, names: Sequence[EventName]) -> tuple[str, str | None] | None:
    """Return a name that a meter asks for, if no event has any that it asks for, and the nearest there is."""
    asked, seen = tuple(asked_names([meter])), tuple(name.name for name in names)
    if not asked or set(asked) & set(seen):
        return None
    return asked[0], nearest(asked[0], seen)


def nearest_asked(name: str, asked: Mapping[str, LiveMeter]) -> tuple[str, LiveMeter] | None:
    """Return the name that a meter asks for and that is probably meant, with the meter."""
    word = nearest(name, tuple(asked))
    return (word, asked[word]) if word is not None else None
