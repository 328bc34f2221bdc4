"""Evaluate a meter over events the way Polar's two engines do.

*Billing* matches an event in Python when it is ingested, and invoices are made from what it matched. *SQL*
is what `/quantities` asks the database. The two read one filter differently in one case of seven (observed),
so each has its own rules here. Numbers come from SQL in both: an invoice sums in the database, over the
events that billing matched.

The functions are pure, over JSON data. A filter and an aggregation are compiled once, into functions that
are called for each event. Every rule was observed on recorded cases; `tests/meter/semantics` holds a sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeVar

from tests.support.engine_events import ABSENT, TEXT_FIELDS, Event, QueryError, bare, double, lookup
from tests.support.engine_filters import BILLING_FIELDS, BillingTest, always, compile_filter, never

T = TypeVar("T")
FailedName = Literal["billing_quantity", "charged_quantity", "endpoint", "sql_matched", "sql_quantity"]

NUMBER = re.compile(r"[ \t\n\r\f\v]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\f\v]*")


# Aggregations


@dataclass(frozen=True)
class Measure:
    """A compiled aggregation: which events it takes, by each engine, and the number that they make."""

    billing: BillingTest
    sql: BillingTest
    quantity: Callable[[Sequence[Event]], float]
    """Raises QueryError."""


def compile_aggregation(aggregation: Mapping[str, Any]) -> Measure:
    """Compile an aggregation. `unique` looks in the metadata for `name`, `source` and `timestamp` too."""
    func = aggregation["func"]
    if func == "count":
        return Measure(always, always, len)
    name = bare(aggregation["property"])
    if func == "unique":
        read = lookup(name, ABSENT)
        return Measure(always, always, lambda events: _distinct(map(read, events)))
    total = _TOTALS[func]
    if name == "timestamp":
        return Measure(always, always, lambda events: total([float(e.seconds_rounded) for e in events]))
    if name in TEXT_FIELDS:
        # Billing takes them, SQL does not: an invoice charges 0. Only the bare sum over what billing took
        # casts their text.
        text = BILLING_FIELDS[name]
        return Measure(always, never, lambda events: total([_number_in(text(event)) for event in events]))
    return _number_measure(name, total)


def _number_measure(name: str, total: Callable[[Sequence[float]], float]) -> Measure:
    read = lookup(name)

    def is_number(event: Event) -> bool:
        value = read(event)
        return isinstance(value, int | float) and not isinstance(value, bool)

    return Measure(
        is_number if name else never,
        is_number,
        lambda events: total([double(read(event)) for event in events]),
    )


def _number_in(text: str) -> float:
    if not NUMBER.fullmatch(text):
        raise QueryError(f"no double: {text!r}")
    return float(text)


def _distinct(values: Iterable[Any]) -> float:
    return len({_identity(value) for value in values if value is not ABSENT})


def _identity(value: Any) -> Any:
    """Return what is equal for equal JSON values: 1 and 1.0 are one, `true` and `"1"` are others."""
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, dict):
        return ("object", *((key, _identity(item)) for key, item in sorted(value.items())))
    if isinstance(value, bool | str) or value is None:
        return type(value).__name__, value
    return "number", Decimal(repr(value))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise QueryError("a double overflows")
    return number


def _sum(numbers: Sequence[float]) -> float:
    total = 0.0
    for number in numbers:
        total = _finite(total + number)
    return total


def _avg(numbers: Sequence[float]) -> float:
    """Average as PostgreSQL does, which keeps the sum of squares too and fails when that overflows.

    Numbers that differ by more than about 1e154 have no average (observed with 1e200 and -1e200).
    """
    total = squares = 0.0
    for count, number in enumerate(numbers, start=1):
        total = _finite(total + number)
        if count > 1:
            off = _finite(number * count - total)
            squares = _finite(squares + off * off / (count * (count - 1)))
    return total / len(numbers) if numbers else 0.0


_TOTALS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": _sum,
    "avg": _avg,
    "max": lambda numbers: max(numbers, default=0.0),
    "min": lambda numbers: min(numbers, default=0.0),
}


# A whole meter


@dataclass(frozen=True)
class Outcome:
    """The result of a meter over events. A value is None where a query fails; `errors` names it."""

    billing: list[bool]
    charged_quantity: float | None
    """The quantity on an invoice: of the events that billing matched, those of users.

    The recordings of `count` disagree where a system event matches: see `tests/meter/semantics/README.md`.
    """
    billing_quantity: float | None
    """The same over system events too."""
    sql_matched: list[bool] | None
    sql_quantity: float | None
    """The total of `/quantities`, system events included."""
    errors: tuple[FailedName, ...]


def _attempt(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except QueryError:
        return None


def evaluate(
    filter_: Mapping[str, Any], aggregation: Mapping[str, Any], events: Iterable[Mapping[str, Any]]
) -> Outcome:
    """Evaluate a meter over events, in the order in which the database is to add them up."""
    matcher, measure = compile_filter(filter_), compile_aggregation(aggregation)
    seen = [Event.from_json(event) for event in events]
    billing = [matcher.billing(event) and measure.billing(event) for event in seen]
    matched = [event for event, hit in zip(seen, billing, strict=True) if hit]
    charged = [event for event in matched if event.source == "user" and measure.sql(event)]
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
