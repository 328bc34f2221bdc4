"""Names of events that no meter counts, and the names that meters ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from polar_iac.facts.model import EventName
from polar_iac.facts.name_classes import NameClasses, all_of, name_clauses, name_is
from polar_iac.meter.filter import Filter
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.meaning import ingestible_witness
from polar_iac.yaml.scalars import nearest

DAYS = 30
"""Days within which an event name must have been seen."""


def matchable(filter_: Filter) -> NameClasses[bool]:
    """Return which event names a filter can match, of events that ingestion accepts. Undecided ones count."""
    whole = filter_.wire()

    def may_match(name: str) -> bool:
        return ingestible_witness(all_of(name_is(name), whole)).status != "none"

    return NameClasses([whole], may_match)


def uncounted(
    names: Sequence[EventName], meters: Sequence[LiveMeter], now: str, ignored: Collection[str] = ()
) -> list[EventName]:
    """Return the names of recent events that no active meter can count, the most frequent first.

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
    filters = [matchable(meter.spec.filter) for meter in active if meter.spec]
    left = [name for name in recent if not any(filter_.answer(name.name) for filter_ in filters)]
    return sorted(left, key=lambda name: (-name.occurrences, name.name))


def asked_names(meters: Sequence[LiveMeter]) -> dict[str, LiveMeter]:
    """Return each event name that an active meter asks for by `eq`, and the oldest such meter."""
    asked: dict[str, LiveMeter] = {}
    for meter in sorted(meters, key=lambda meter: (meter.created_at, meter.id)):
        for clause in name_clauses(meter.spec.filter.wire()) if meter.spec and not meter.archived else ():
            if clause["operator"] == "eq" and isinstance(clause["value"], str):
                asked.setdefault(clause["value"], meter)
    return asked


def unseen_name(meter: LiveMeter, names: Sequence[EventName]) -> tuple[str, str | None] | None:
    """Return a name that a meter asks for, and the nearest one seen. None if a name it asks for was seen."""
    asked, seen = tuple(asked_names([meter])), tuple(name.name for name in names)
    if not asked or set(asked) & set(seen):
        return None
    return asked[0], nearest(asked[0], seen)


def nearest_asked(name: str, asked: Mapping[str, LiveMeter]) -> tuple[str, LiveMeter] | None:
    """Return the nearest name that a meter asks for, with the meter."""
    word = nearest(name, tuple(asked))
    return (word, asked[word]) if word is not None else None
