"""Aggregations, compiled for Polar's two engines: which events they take, and the number that those make.

Numbers come from SQL in both: an invoice sums in the database, over the events that billing matched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from polar_iac.meter.meaning.events import ABSENT, TEXT_FIELDS, Event, QueryError, bare, double, lookup
from polar_iac.meter.meaning.filters import BILLING_FIELDS, BillingTest, always, never

SYSTEM_EVENTS = frozenset(
    f"{subject}.{happened}"
    for subject, happenings in {
        "balance": "credit_order dispute dispute_reversal order refund refund_reversal",
        "benefit": "cycled granted revoked updated",
        "checkout": "created",
        "customer": "created deleted updated",
        "meter": "credited reset",
        "order": "paid refunded voided",
        "subscription": "billing_period_updated canceled created cycled past_due product_updated reactivated"
        " revoked seats_updated uncanceled update_cleared updated",
    }.items()
    for happened in happenings.split()
)
"""The names under which Polar itself makes events (read)."""

_NUMBER = re.compile(r"[ \t\n\r\f\v]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\r\f\v]*")


@dataclass(frozen=True)
class Measure:
    """A compiled aggregation."""

    billing: BillingTest
    """The events that it takes when they are ingested."""
    sql: BillingTest
    """The events that it takes in SQL."""
    charged: BillingTest
    """The events, of those that billing matched, that an invoice takes."""
    quantity: Callable[[Sequence[Event]], float]
    """The number that events make. Raises QueryError."""


def is_users(event: Event) -> bool:
    """Tell whether a user sent an event; the others are of the system."""
    return event.source == "user"


def is_counted_on_an_invoice(event: Event) -> bool:
    """Tell whether an invoice counts an event, for `count`: those of users, and any that Polar did not make.

    The recordings hold system events under names that Polar never gives to its own, and `count` charges for
    those (observed: `e` and `custom.thing` are counted, `order.paid` is not). On a real server the two sorts
    are the same, since only Polar makes system events.
    """
    return event.source == "user" or event.name not in SYSTEM_EVENTS


def compile_aggregation(aggregation: Mapping[str, Any]) -> Measure:
    """Compile an aggregation, given as JSON. Raises KeyError when it is none.

    `unique` looks in the metadata for `name`, `source` and `timestamp` too (observed).
    """
    func = aggregation["func"]
    if func == "count":
        return Measure(always, always, is_counted_on_an_invoice, len)
    name = bare(aggregation["property"])
    if func == "unique":
        read = lookup(name, ABSENT)
        return Measure(always, always, is_users, lambda events: _distinct(map(read, events)))
    total = _TOTALS[func]
    if name == "timestamp":
        seconds = lambda events: total([float(event.seconds_rounded) for event in events])  # noqa: E731
        return Measure(always, always, is_users, seconds)
    if name in TEXT_FIELDS:
        # Billing takes them, SQL does not: an invoice charges 0. Only the bare sum over what billing took
        # casts their text.
        text = BILLING_FIELDS[name]
        return Measure(
            always, never, never, lambda events: total([_number_in(text(event)) for event in events])
        )
    return _number_measure(name, total)


def _number_measure(name: str, total: Callable[[Sequence[float]], float]) -> Measure:
    read = lookup(name)

    def is_number(event: Event) -> bool:
        value = read(event)
        return isinstance(value, int | float) and not isinstance(value, bool)

    return Measure(
        is_number if name else never,
        is_number,
        is_users,
        lambda events: total([double(read(event)) for event in events]),
    )


def _number_in(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise QueryError(f"no double: {text!r}")
    return _finite(float(text))


def _distinct(values: Iterable[Any]) -> float:
    return len({_identity(value) for value in values if value is not ABSENT})


def _identity(value: Any) -> Any:
    """Return what is equal for equal JSON values: 1 and 1.0 are one, `true` and `"1"` are others."""
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, Mapping):
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
