"""Facts that the notes of a change hold, read back from their data.

A plan file may hold anything there: a note whose data has another shape is shown by its text alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from polar_iac.plan.model import Change, Note

_T = TypeVar("_T")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")
"""Cents as Polar writes them. Anything else is shown as no price."""


@dataclass(frozen=True)
class Freeze:
    """The forecast for a change of filter or aggregation. `on` is the day of Polar's refusal, if known."""

    state: str
    on: date | None


@dataclass(frozen=True)
class Counted:
    """Quantities of one UTC day, before and after a change."""

    day: date
    before: float
    after: float


@dataclass(frozen=True)
class Late:
    """Recent usage of a meter that the plan archives. The quantity is None if it is not known."""

    days: int
    quantity: float | None
    last: date | None
    as_of: date


@dataclass(frozen=True)
class Impact:
    """Matched usage before and after a change, between two UTC days, both included.

    `changed` is the number of events that only one side counts, `counted` the number that the new side
    counts. A quantity is None if it was not estimated; `before` is also None for a create. `read` of `of`
    events were read.
    """

    start: date
    end: date
    changed: int
    counted: int
    before: float | None
    after: float | None
    customers: int | None
    customers_total: int | None
    read: int
    of: int
    error: float | None
    at_least: float | None
    """Lower bound of a quantity that is not estimated."""
    unlike: int
    """Number of days on which Polar's own quantity differs from that of its events."""
    daily: tuple[Counted, ...]

    @property
    def days(self) -> int:
        return (self.end - self.start).days + 1

    @property
    def is_exact(self) -> bool:
        return self.read == self.of

    def is_nothing(self, *, created: bool) -> bool:
        """Tell whether a new meter counts no event, or a changed one counts no event differently.

        Return False if Polar's own quantities differ: its list of events is then incomplete.
        """
        if not self.is_exact or self.unlike:
            return False
        return self.counted == 0 if created else self.changed == 0 and self.before == self.after


@dataclass(frozen=True)
class Unseen:
    """An event name that no event has, and the nearest that events have, with the day it was last seen."""

    event_name: str
    nearest: str | None
    occurrences: int
    last: date | None
    as_of: date


@dataclass(frozen=True)
class Product:
    """A product with a live price. `unit_amount` is in cents, as decimal text."""

    name: str
    unit_amount: str | None
    currency: str
    is_archived: bool


@dataclass(frozen=True)
class Attached:
    """Dependents of a meter: products with a live price by it, and the benefits that credit it.

    None where they were not read.
    """

    products: tuple[Product, ...] | None
    benefits: tuple[str, ...] | None

    @property
    def blocking(self) -> tuple[Product, ...]:
        """The products that make Polar refuse to archive the meter."""
        return tuple(product for product in self.products or () if not product.is_archived)


@dataclass(frozen=True)
class Example:
    """Example events that the change counts differently, or that a new meter counts. Each may be missing."""

    relation: str
    no_longer: Mapping[str, Any] | None
    now: Mapping[str, Any] | None
    counted: Mapping[str, Any] | None
    balances: Mapping[str, Any] | None
    units: float | None


@dataclass(frozen=True)
class Evidence:
    """All facts of a change that could be read, and the notes that they come from, by kind."""

    freeze: Freeze | None
    usage: Late | None
    impact: Impact | None
    unseen: Unseen | None
    attached: Attached | None
    example: Example | None
    notes: Mapping[str, Note]


def evidence(change: Change) -> Evidence:
    """Read the facts of a change. Of several notes of a kind, the first that can be read counts."""
    notes: dict[str, Note] = {}
    facts: dict[str, Any] = {}
    for note in change.notes:
        if note.kind in _READERS and note.kind not in facts:
            try:
                facts[note.kind] = _READERS[note.kind](note)
            except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
                continue
            notes[note.kind] = note
        elif note.kind in _CONSTANT:
            notes.setdefault(note.kind, note)
    return Evidence(**{kind: facts.get(kind) for kind in _READERS}, notes=notes)


def _freeze(note: Note) -> Freeze:
    refused = note.data["state"] == "frozen" and note.as_of
    return Freeze(_text(note.data["state"]), _day(note.as_of) if refused else None)


def _late(note: Note) -> Late:
    data = note.data
    quantity, last = _optional(_number, data["quantity"]), _optional(_day, data["last"])
    return Late(_count(data["days"]), quantity, last, _day(note.as_of))


def _impact(note: Note) -> Impact:
    data = note.data
    events, quantity = data["events"], data["quantity"]
    both, only_before, only_after = (_count(events[side]) for side in ("both", "only_before", "only_after"))
    daily = [
        Counted(_date(day["date"]), _optional(_number, day["before"]) or 0, _number(day["after"]))
        for day in _list(data.get("daily") or [])
        if day["after"] is not None
    ]
    impact = Impact(
        start=_date(data["start"]),
        end=_date(data["end"]),
        changed=only_before + only_after,
        counted=both + only_after,
        before=_optional(_number, quantity["before"]),
        after=_optional(_number, quantity["after"]),
        customers=_optional(_count, data.get("customers")),
        customers_total=_optional(_count, data.get("customers_total")),
        read=_count(data["read"]),
        of=_count(data["of"]),
        error=_optional(_number, data.get("error")),
        at_least=_optional(_number, data.get("at_least")),
        unlike=_count(data.get("unlike", 0)),
        daily=tuple(daily),
    )
    if impact.days < 1:
        raise ValueError("an impact ends before it starts")
    return impact


def _unseen(note: Note) -> Unseen:
    nearest = note.data.get("nearest") or {}
    return Unseen(
        _text(note.data["event_name"]),
        _optional(_text, nearest.get("name")),
        _count(nearest["occurrences"]) if nearest else 0,
        _optional(_day, nearest.get("last")),
        _day(note.as_of),
    )


def _attached(note: Note) -> Attached:
    return Attached(
        _optional(_products, note.data["products"]), _optional(_descriptions, note.data["benefits"])
    )


def _products(value: Any) -> tuple[Product, ...]:
    # A product with two prices by one meter is named once: both are to be removed there.
    products = {
        _text(data["id"]): Product(
            _text(data["name"]),
            _cents(data["unit_amount"]),
            _text(data.get("currency", "usd")),
            bool(data["is_archived"]),
        )
        for data in reversed(_list(value))
    }
    return tuple(reversed(products.values()))


def _cents(value: Any) -> str | None:
    return value if isinstance(value, str) and _AMOUNT.fullmatch(value) else None


def _descriptions(value: Any) -> tuple[str, ...]:
    return tuple(_text(data["description"]) for data in _list(value))


def _example(note: Note) -> Example:
    data = note.data
    events = {name: _optional(_event, data.get(name)) for name in ("no_longer", "now", "counted", "balances")}
    relation = _text(data.get("relation", "counted"))
    return Example(relation, **events, units=_optional(_number, data.get("units")))


_READERS: Mapping[str, Callable[[Note], Any]] = {
    "freeze": _freeze,
    "usage": _late,
    "impact": _impact,
    "unseen": _unseen,
    "attached": _attached,
    "example": _example,
}
"""Readers by the kind of a note, which is also the field of `Evidence`."""
_CONSTANT = ("archive", "rematch")
"""Kinds of notes whose text is always the same."""


def _optional(read: Callable[[Any], _T], value: Any) -> _T | None:
    return None if value is None else read(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError("not a list")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("not a count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("not a number")
    return float(value)


def _date(value: Any) -> date:
    if not _DATE.fullmatch(_text(value)):
        raise ValueError("not a date")
    return date.fromisoformat(value)


def _day(value: Any) -> date:
    """Return the day of a date or of an RFC 3339 time in UTC."""
    return _date(_text(value)[:10])


def _event(value: Any) -> Mapping[str, Any]:
    """Return an event as `meter.meaning` makes it: with a name, a source, metadata and perhaps a time."""
    metadata = value["metadata"]
    # Of Polar's own objects, such as `_llm`, the members are scalars.
    members = [one for inner in metadata.values() for one in (inner.values() if _is_map(inner) else [inner])]
    scalars = [*members, value.get("timestamp")]
    if not _is_map(metadata) or not all(one is None or isinstance(one, str | int | float) for one in scalars):
        raise TypeError("not an event")
    event = {"name": _text(value["name"]), "source": _text(value["source"]), "metadata": metadata}
    return event | ({"timestamp": value["timestamp"]} if "timestamp" in value else {})


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)
