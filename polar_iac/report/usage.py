"""Usage, prices and days in words, and usage by day as a line of small bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from polar_iac.facts import words
from polar_iac.facts.model import Gap
from polar_iac.meter.spec import MeterSpec
from polar_iac.report.evidence import Impact, Product
from polar_iac.report.filters import aggregation
from polar_iac.report.wording import Quote, agree, listed

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 31
"""Most days on one side of the bars."""
_MOST_NAMES = 5
_REASON = 200
"""Longest reason for missing facts, in characters."""
_CLIP = 60
"""Longest name of a product, a benefit or an event that is shown, in characters."""


@dataclass(frozen=True)
class Markup:
    """Ways to quote foreign text in a sentence, safely for the output."""

    code: Quote
    strong: Quote
    quoted: Quote
    """Quotes a name, in quotation marks."""
    minus: str
    own: Quote = str
    """Emphasizes a sentence of our own, which quotes nothing."""


def span(impact: Impact) -> str:
    """Return the days of an impact, as in `Oct 26 – Nov 24 UTC`."""
    return words.span(impact.start, impact.end)


def matched(spec: MeterSpec, markup: Markup) -> str:
    """Return the noun of a meter's usage, as in `matched tokens`."""
    return words.matched(spec, markup.code(clipped(aggregation(spec.canonical["aggregation"]))))


def difference(impact: Impact, markup: Markup) -> str:
    """Return how much the quantity changes, in parentheses, with its error if it is estimated."""
    error = None if impact.is_exact else impact.error
    return words.difference(impact.before, impact.after, error, markup.minus)


def not_estimated(impact: Impact) -> str:
    """Say that a quantity is not known, and how many events were read."""
    return f"not estimated: {words.read_of(impact.read, impact.of)}"


def customers(impact: Impact, *, created: bool = False) -> str:
    """Return how many customers are affected, as in `; 211 of 230 customers with usage`.

    For an estimate, return the number of events read.
    """
    total = impact.customers_total
    if not total or (impact.customers is None and not created):
        return "" if impact.is_exact else f"; {words.read_of(impact.read, impact.of)}"
    return f"; {'' if created else f'{impact.customers:,} of '}{words.customers(total)}"


def doubt(impact: Impact) -> str:
    """Say that Polar's quantities differ from ours, if they do."""
    if not impact.unlike:
        return ""
    return f" Polar's own quantities differ on {impact.unlike:,} of these days."


def bars(impact: Impact) -> str:
    """Return usage by day as `▆█▆ → ▃▄▃`, or of a new meter as `▆█▆`. Empty without daily numbers.

    The height of a bar is in proportion to its number, so that a third less looks like a third less.
    """
    daily = impact.daily[-_MOST_BARS:]
    top = max((max(one.before, one.after) for one in daily), default=0)
    if top <= 0:
        return ""
    sides = [[one.after for one in daily]]
    if impact.before is not None:
        sides.insert(0, [one.before for one in daily])
    return " → ".join("".join(_bar(number / top) for number in side) for side in sides)


def _bar(part: float) -> str:
    return _BARS[max(0, min(len(_BARS) - 1, round(part * (len(_BARS) - 1))))]


def users(
    products: Sequence[Product], benefits: Sequence[str], spec: MeterSpec | None, markup: Markup
) -> str:
    """Return what uses a meter, as in `product **Pro** ($0.50 / export), and benefit **Free**`."""
    groups = [
        f"{agree(len(names), noun, f'{noun}s')} {listed(names, _MOST_NAMES)}"
        for noun, names in (
            ("product", _products(products, spec, markup)),
            ("benefit", [markup.strong(clipped(text)) for text in benefits]),
        )
        if names
    ]
    return ", and ".join(groups)


def _products(products: Sequence[Product], spec: MeterSpec | None, markup: Markup) -> list[str]:
    """Name products. A price equal to that of the product before is left out."""
    names, said = [], ""
    for product in products:
        amount = words.money(product.unit_amount or "", product.currency)
        price = f"{amount} / {clipped(words.units(spec))}" if amount and spec else ""
        remarks = [markup.code(price)] if price and price != said else []
        remarks += ["archived"] if product.is_archived else []
        names.append(markup.strong(clipped(product.name)) + (f" ({', '.join(remarks)})" if remarks else ""))
        said = price
    return names


_SOURCES = {
    "usage": "usage",
    "names": "event names",
    "events": "events",
    "products": "products",
    "benefits": "benefits",
}


def incomplete(gaps: Iterable[Gap], quote: Quote, reason: Quote) -> str:
    """Say in one line which facts are missing, and why. Empty if none is missing.

    A missing scope is not reported: facts depend on the tokens provided.
    """
    parts = []
    for gap in gaps:
        if gap.lack != "scope":
            of = f" of {listed([quote(key) for key in gap.keys], _MOST_NAMES)}" if gap.keys else ""
            parts.append(f"no {_SOURCES[gap.source]}{of}: {reason(clipped(gap.text, _REASON))}")
    return f"Facts are incomplete: {'; '.join(parts)}." if parts else ""


def clipped(text: str, length: int = _CLIP) -> str:
    """Return a text, cut after some characters."""
    return text if len(text) <= length else f"{text[:length]}…"
