"""Evaluate a whole meter over events, as billing, an invoice and `/quantities` do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from polar_iac.meter.meaning.aggregations import compile_aggregation
from polar_iac.meter.meaning.events import Event, QueryError
from polar_iac.meter.meaning.filters import compile_filter

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
    matcher, measure = compile_filter(filter), compile_aggregation(aggregation)
    seen = [Event.from_json(event) for event in events]
    billing = [matcher.billing(event) and measure.billing(event) for event in seen]
    matched = [event for event, hit in zip(seen, billing, strict=True) if hit]
    charged = [event for event in matched if measure.charged(event)]
    sql_matched = _attempt(lambda: [matcher.sql(event) and measure.sql(event) for event in seen])
    quantities: dict[FailedName, float | None] = {
        "charged_quantity": _attempt(lambda: measure.quantity(charged)),
        "billing_quantity": _attempt(lambda: measure.quantity(matched)),
        "sql_quantity": None,
    }
    if sql_matched is not None:
        counted = [event for event, hit in zip(seen, sql_matched, strict=True) if hit]
        quantities["sql_quantity"] = _attempt(lambda: measure.quantity(counted))
    errors = {name for name, quantity in quantities.items() if quantity is None}
    errors |= {"sql_matched"} if sql_matched is None else set()
    # The endpoint answers the SQL quantity, and a 500 without it.
    errors |= {"endpoint"} if "sql_quantity" in errors else set()
    return Outcome(billing=billing, sql_matched=sql_matched, errors=tuple(sorted(errors)), **quantities)
