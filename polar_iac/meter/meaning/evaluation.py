"""Evaluate a whole meter over events, as billing, an invoice and `/quantities` do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from polar_iac.meter.meaning.aggregations import Measure, compile_aggregation
from polar_iac.meter.meaning.events import Event, QueryError
from polar_iac.meter.meaning.filters import Matcher, compile_filter

T = TypeVar("T")
FailedName = Literal["billing_quantity", "charged_quantity", "endpoint", "sql_matched", "sql_quantity"]


@dataclass(frozen=True)
class Outcome:
    """The result of a meter over events. A value is None where a query fails; `errors` names it."""

    billing: list[bool]
    """Per event: whether the meter matches it when it is ingested."""
    charged_quantity: float | None
    """The quantity on an invoice: of the events that billing matched, those of users."""
    billing_quantity: float | None
    """The same over system events too."""
    sql_matched: list[bool] | None
    """Per event: whether `/quantities` counts it."""
    sql_quantity: float | None
    """The total of `/quantities`, system events included."""
    errors: tuple[FailedName, ...]
    """The results that fail on the real server, sorted. `endpoint` is `/quantities`."""


@dataclass(frozen=True)
class Meter:
    """A compiled filter and aggregation, for many events."""

    matcher: Matcher
    measure: Measure

    def counts(self, event: Event) -> bool:
        """Tell whether billing matches an event when it is ingested."""
        return self.matcher.billing(event) and self.measure.billing(event)

    def counts_in_quantities(self, events: Iterable[Event]) -> list[bool] | None:
        """Tell of each event whether `/quantities` counts it. None if the query fails."""
        return _attempt(lambda: [self.matcher.sql(event) and self.measure.sql(event) for event in events])

    def charged(self, event: Event) -> bool:
        """Tell whether an invoice takes an event that billing has matched."""
        return self.measure.charged(event)

    def charge(self, matched: Iterable[Event]) -> float | None:
        """Return the quantity on an invoice of events that billing has matched. None if the query fails."""
        charged = [event for event in matched if self.measure.charged(event)]
        return self.quantity(charged)

    def quantity(self, events: Sequence[Event]) -> float | None:
        """Return the number that events make, whoever sent them. None if the query fails."""
        return _attempt(lambda: self.measure.quantity(events))


def compile_meter(filter: Mapping[str, Any], aggregation: Mapping[str, Any]) -> Meter:
    """Compile a filter and an aggregation, given as JSON. Raises KeyError when one is none."""
    return Meter(compile_filter(filter), compile_aggregation(aggregation))


def _attempt(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except QueryError:
        return None


def evaluate(
    filter: Mapping[str, Any], aggregation: Mapping[str, Any], events: Iterable[Mapping[str, Any]]
) -> Outcome:
    """Evaluate a meter over events, as the recordings write them, in the order in which they are added up.

    The events may be any, also those that ingestion would refuse. Raises KeyError or ValueError when an
    argument is no filter, aggregation or event at all.
    """
    meter = compile_meter(filter, aggregation)
    seen = [Event.from_json(event) for event in events]
    billing = [meter.counts(event) for event in seen]
    matched = [event for event, hit in zip(seen, billing, strict=True) if hit]
    sql_matched = meter.counts_in_quantities(seen)
    quantities: dict[FailedName, float | None] = {
        "charged_quantity": meter.charge(matched),
        "billing_quantity": meter.quantity(matched),
        "sql_quantity": None,
    }
    if sql_matched is not None:
        counted = [event for event, hit in zip(seen, sql_matched, strict=True) if hit]
        quantities["sql_quantity"] = meter.quantity(counted)
    errors = {name for name, quantity in quantities.items() if quantity is None}
    errors |= {"sql_matched"} if sql_matched is None else set()
    # The endpoint answers the SQL quantity, and a 500 without it.
    errors |= {"endpoint"} if "sql_quantity" in errors else set()
    return Outcome(billing=billing, sql_matched=sql_matched, errors=tuple(sorted(errors)), **quantities)
