"""Matched usage before and after a change: computed from events that were read, all or a sample.

An event is *matched* where billing matches it and an invoice would take it: system events, which
`/quantities` counts too, are left out. Matched usage is not what is billed: an event bills only through a
subscription with a price, after trials, credits, caps and discounts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from polar_iac.facts.model import EventsRead, Usage
from polar_iac.facts.period import Period, day_of, moment_of
from polar_iac.meter.meaning import Meter, compile_meter
from polar_iac.meter.meaning.events import Event
from polar_iac.meter.spec import MeterSpec

ADDITIVE = ("count", "sum")
"""Functions whose quantity is the same however events are grouped. The others are taken per customer and
calendar month, as an invoice takes them per customer and period, and then added up."""
TOLERANCE = 1e-9
"""Relative difference of two sums that rounding explains: Polar adds in another order (observed)."""


@dataclass(frozen=True)
class DayImpact:
    """Matched usage of one UTC day, as in 2026-11-24. None where it is not known."""

    date: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Impact:
    """Matched usage of a period, before and after a change.

    `both`, `only_before` and `only_after` count the events that were read and that each of the two matches.
    `before` is None for a create. If not all events were read, `estimated` says that `after` is an
    estimate. The true quantity is within `error` of it in 95 of 100 samples. A quantity that is not
    estimated is None; so are the customers, and there are no days. A sum may then have `at_least`, a lower
    bound that holds in 95 of 100 samples. `customers` is the number of customers whose quantity differs in
    some month, out of the `customers_total` with an event that is matched before or after. `unlike` holds
    the days on which Polar's own quantity differs from that of the events.
    """

    period: Period
    both: int
    only_before: int
    only_after: int
    before: float | None
    after: float | None
    read: int
    of: int
    customers: int | None = None
    customers_total: int | None = None
    error: float | None = None
    daily: tuple[DayImpact, ...] = ()
    estimated: bool = False
    unlike: tuple[str, ...] = ()
    at_least: float | None = None

    @property
    def is_exact(self) -> bool:
        """Tell whether every event was read."""
        return self.read == self.of

    @property
    def is_refuted(self) -> bool:
        """Tell whether Polar counted usage of the current meter but lists no event that the meter matches."""
        return bool(self.unlike) and not (self.both or self.only_before)


@dataclass(frozen=True)
class Seen:
    """An event that was read, and whether it is matched before and after a change."""

    event: Event
    customer: str | None
    day: str
    before: bool
    after: bool


@dataclass(frozen=True)
class Side:
    """A compiled meter, and whether its quantity is additive."""

    meter: Meter
    is_additive: bool

    @classmethod
    def of(cls, spec: MeterSpec) -> Side:
        """Compile a spec, once for many events."""
        compiled = compile_meter(spec.canonical["filter"], spec.canonical["aggregation"])
        return cls(compiled, spec.aggregation.func in ADDITIVE)

    def matches(self, event: Event) -> bool:
        """Tell whether billing matches an event and an invoice would take it."""
        return self.meter.counts(event) and self.meter.charged(event)


@dataclass(frozen=True)
class Sides:
    """The meter before a change, None for a create, and after it."""

    before: Side | None
    after: Side

    @classmethod
    def of(cls, before: MeterSpec | None, after: MeterSpec) -> Sides:
        """Compile both specs."""
        return cls(None if before is None else Side.of(before), Side.of(after))

    def see(self, events: Iterable[Mapping[str, Any]]) -> list[Seen]:
        """Evaluate both meters over events."""
        return [self._seen(Event.from_json(data), data) for data in events]

    def _seen(self, event: Event, data: Mapping[str, Any]) -> Seen:
        before = self.before is not None and self.before.matches(event)
        return Seen(event, data.get("customer_id"), day_of(data), before, self.after.matches(event))


def ordered(reads: Iterable[EventsRead]) -> list[Mapping[str, Any]]:
    """Return all events that were read, oldest first: sums of floats depend on the order."""
    events = [event for read in reads for window in read.windows for event in window.events]
    return sorted(events, key=moment_of)


def exact_impact(
    before: MeterSpec | None,
    after: MeterSpec,
    reads: Sequence[EventsRead],
    period: Period,
    usage: Usage | None = None,
) -> Impact | None:
    """Compute the impact from all events of the names that either side can match.

    `usage` is what Polar counts by day for the current meter, to compare with. Return None if a number is
    too large for Polar to add up.
    """
    sides = Sides.of(before, after)
    seen = sides.see(ordered(reads))
    old = None if sides.before is None else _Quantities.of(sides.before, [s for s in seen if s.before])
    new = _Quantities.of(sides.after, [s for s in seen if s.after])
    if new.total is None or (old is not None and old.total is None):
        return None
    changed, everyone = _customers(seen, old, new)
    return Impact(
        period,
        both=sum(s.before and s.after for s in seen),
        only_before=sum(s.before and not s.after for s in seen),
        only_after=sum(s.after and not s.before for s in seen),
        before=None if old is None else old.total,
        after=new.total,
        read=len(seen),
        of=sum(read.total for read in reads),
        customers=changed,
        customers_total=everyone,
        daily=tuple(
            DayImpact(day, None if old is None else old.daily.get(day, 0.0), new.daily.get(day, 0.0))
            for day in period.days
        ),
        unlike=_unlike(sides.before.meter, seen, period, usage) if sides.before and usage else (),
    )


Group = tuple[str | None, str]
"""A customer, and a day or a calendar month."""


@dataclass(frozen=True)
class _Quantities:
    """Quantities of matched events: in all, by UTC day, and by customer and calendar month.

    The total is None, and a day is missing, where Polar would fail to add it up.
    """

    total: float | None
    daily: Mapping[str, float]
    monthly: Mapping[Group, float | None]

    @classmethod
    def of(cls, side: Side, matched: Sequence[Seen]) -> _Quantities:
        quantity = side.meter.quantity
        months = _grouped(matched, lambda s: (s.customer, s.day[:7]))
        monthly = {month: quantity(events) for month, events in months.items()}
        daily: dict[str, float | None]
        if side.is_additive:
            total = quantity([s.event for s in matched])
            daily = {day: quantity(events) for day, events in _grouped(matched, lambda s: s.day).items()}
        else:
            total = _added(monthly.values())
            days: dict[str, list[float | None]] = defaultdict(list)
            for (_, day), events in _grouped(matched, lambda s: (s.customer, s.day)).items():
                days[day].append(quantity(events))
            daily = {day: _added(quantities) for day, quantities in days.items()}
        known = {day: float(quantity) for day, quantity in daily.items() if quantity is not None}
        return cls(None if total is None else float(total), known, monthly)


K = TypeVar("K", bound=Hashable)


def _grouped(matched: Iterable[Seen], key: Callable[[Seen], K]) -> dict[K, list[Event]]:
    groups: dict[K, list[Event]] = defaultdict(list)
    for seen in matched:
        groups[key(seen)].append(seen.event)
    return groups


def _added(quantities: Iterable[float | None]) -> float | None:
    total = 0.0
    for quantity in quantities:
        if quantity is None:
            return None
        total += quantity
    return total if math.isfinite(total) else None


def _customers(seen: Sequence[Seen], old: _Quantities | None, new: _Quantities) -> tuple[int, int]:
    """Count the customers whose quantity differs in some month, and those with a matched event."""
    before = {} if old is None else old.monthly
    everyone = {s.customer for s in seen if s.before or s.after} - {None}
    changed = {
        customer
        for customer, month in {*before, *new.monthly}
        if before.get((customer, month), 0.0) != new.monthly.get((customer, month), 0.0)
    }
    return len(changed & everyone), len(everyone)


def _unlike(meter: Meter, seen: Sequence[Seen], period: Period, usage: Usage) -> tuple[str, ...]:
    """Return the days on which Polar's quantity differs from that of the events, evaluated as in SQL."""
    counted = {day.date: day.quantity for day in usage.days}
    events = _grouped(seen, lambda s: s.day)
    return tuple(
        day for day in period.days if day in counted and not _agrees(meter, events.get(day, []), counted[day])
    )


def _agrees(meter: Meter, events: Sequence[Event], counted: float) -> bool:
    hits = meter.counts_in_quantities(events)
    if hits is None:
        return False
    quantity = meter.quantity([event for event, hit in zip(events, hits, strict=True) if hit])
    return quantity is not None and abs(quantity - counted) <= TOLERANCE * max(1.0, abs(counted))
