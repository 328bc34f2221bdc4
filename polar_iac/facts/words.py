"""Words for facts: numbers, days, amounts of money, and the unit that a meter counts."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation

from polar_iac.meter.spec import MeterSpec

_DIGITS = 30
"""Most digits of an amount of money, before the point or after it."""

_MOST = 1e18
"""Quantity whose digits nobody reads any more."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PLAIN = re.compile(r"(?![0-9a-fA-F]{7,30}$)[A-Za-z]{1,30}")
"""A property that can be a word of a sentence. Hexadecimal letters may look like a commit to GitHub."""


def number(quantity: float) -> str:
    """Return a quantity as people read it. Examples: `1,284,002`, `0.25`, `1,284,002.5`, `1e+21`."""
    if abs(quantity) >= _MOST:
        return f"{quantity:.3g}"
    if quantity == int(quantity):
        return f"{int(quantity):,}"
    return f"{quantity:,.2f}".rstrip("0") if abs(quantity) >= 1 else f"{quantity:.3g}"


def day(text: str, today: str) -> str:
    """Return a UTC day, given as a date or an RFC 3339 time, in words relative to another day.

    Examples: `today`, `yesterday`, `March 3`, `March 3, 2025`.
    """
    said, now = date.fromisoformat(text[:10]), date.fromisoformat(today[:10])
    if said == now:
        return "today"
    if said == now - timedelta(days=1):
        return "yesterday"
    year = "" if said.year == now.year else f", {said.year}"
    return f"{said:%B} {said.day}{year}"


def short_day(date_: date) -> str:
    """Return a day without its year, as in `Nov 24`."""
    return f"{_MONTHS[date_.month - 1]} {date_.day}"


def span(first: date, last: date) -> str:
    """Return a range of UTC days, as in `Oct 26 – Nov 24 UTC`."""
    return f"{short_day(first)} – {short_day(last)} UTC"


def matched(spec: MeterSpec, shown: str) -> str:
    """Return the noun of a meter's usage, as in `matched tokens`. It is not what was billed.

    `shown` is the aggregation, quoted, for a meter that has no simpler noun.
    """
    function, counted = spec.aggregation.func, spec.aggregation.property or ""
    if function == "count":
        return "matched events"
    return f"matched {counted if function == 'sum' and _PLAIN.fullmatch(counted) else shown}"


def difference(before: float | None, after: float | None, error: float | None, minus: str = "−") -> str:
    """Return the change of a quantity in parentheses, as in ` (−34 %)`. Empty if there is nothing to say.

    `error` is that of an estimate, to two digits; None for an exact quantity.
    """
    parts = []
    if before and after is not None:
        percent = 100 * ((after - before) / abs(before))
        digits = f"{abs(percent):,.0f}" if abs(percent) >= 1 or not percent else f"{abs(percent):.1g}"
        parts.append(f"{minus if percent < 0 else '+' if percent else ''}{digits} %")
    if error is not None:
        parts.append(f"estimated, ± {number(float(f'{error:.2g}'))}")
    return f" ({', '.join(parts)})" if parts else ""


def read_of(read: int, of: int) -> str:
    """Return how many events were read, as in `1,000 of 81,233 events read`."""
    return f"{read:,} of {of:,} {'event' if of == 1 else 'events'} read"


def customers(total: int) -> str:
    """Return a number of customers, as in `230 customers with usage`."""
    return f"{total:,} {'customer' if total == 1 else 'customers'} with usage"


def money(cents: str, currency: str, units: int = 1) -> str | None:
    """Return the price of some units, from the cents per unit as decimal text. None if that is no number.

    Examples: `$0.50`, `$0.005`, `0.50 EUR`.
    """
    try:
        amount = Decimal(cents) * units / 100
    except InvalidOperation:
        return None
    if not amount.is_finite() or abs(amount.adjusted()) > _DIGITS:
        return None
    whole, _, rest = f"{amount:,f}".partition(".")
    text = f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
    return f"${text}" if currency == "usd" else f"{text} {currency.upper()}"


def units(spec: MeterSpec, count: int = 1) -> str:
    """Return a number of a meter's units in words. Examples: `export`, `1,000 tokens`, `1,000,000 GB`.

    For one, the number is left out.
    """
    custom = spec.custom_label if spec.unit == "custom" else None
    word = custom or ("token" if spec.unit == "token" else "unit")
    if count == 1:
        return word
    # An abbreviation, such as GB, is the same for many.
    return f"{count:,} {word}s" if word.islower() and not word.endswith("s") else f"{count:,} {word}"
