"""Words for facts: numbers, days, amounts of money, and the unit that a meter counts."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal, InvalidOperation

from polar_iac.meter.spec import MeterSpec

_DIGITS = 30
"""Most digits of an amount of money, before the point or after it."""

_MOST = 1e18
"""Quantity of which nobody reads the digits any more."""


def number(quantity: float) -> str:
    """Return a quantity as people read it. Examples: `1,284,002`, `0.25`, `1,284,002.5`, `1e+21`."""
    if abs(quantity) >= _MOST:
        return f"{quantity:.3g}"
    if quantity == int(quantity):
        return f"{int(quantity):,}"
    return f"{quantity:,.2f}".rstrip("0") if abs(quantity) >= 1 else f"{quantity:.3g}"


def day(text: str, today: str) -> str:
    """Return a UTC day, as in 2026-11-24 or an RFC 3339 time, as it is said on another one.

    Examples: `today`, `yesterday`, `March 3`, `March 3, 2025`.
    """
    said, now = date.fromisoformat(text[:10]), date.fromisoformat(today[:10])
    if said == now:
        return "today"
    if said == now - timedelta(days=1):
        return "yesterday"
    year = "" if said.year == now.year else f", {said.year}"
    return f"{said:%B} {said.day}{year}"


def money(cents: str, currency: str, units: int = 1) -> str | None:
    """Return a price of so many units, from cents for one as decimal text. None when that is no number.

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
    """Return so many of what a meter counts. Examples: `export`, `1,000 tokens`, `1,000,000 GB`.

    One has no number.
    """
    custom = spec.custom_label if spec.unit == "custom" else None
    word = custom or ("token" if spec.unit == "token" else "unit")
    if count == 1:
        return word
    # An abbreviation, such as GB, is the same for many.
    return f"{count:,} {word}s" if word.islower() and not word.endswith("s") else f"{count:,} {word}"
