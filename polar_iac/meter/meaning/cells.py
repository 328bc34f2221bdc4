"""Cells: parts of a property's values that no atom tells apart, and the demands that their values may meet.

A cell is a single value, or all values of one sort between two constants ("texts other than the
constants", "numbers between 5 and 10"). A demand is what some values of a cell keep and others break: that
its text contains a part (`like`), and in SQL that a text comes after another one (which depends on the
database's collation).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from typing import Literal as OneOf

from polar_iac.meter.meaning import samples
from polar_iac.meter.meaning.events import OWN_FIELDS

_DIGITS = re.compile(r"[0-9]+")
MAX_TRIED = 1000
"""Values of a cell that are tried one by one."""
LONGEST_TEXT = 500
"""Characters of a value in metadata, as ingestion accepts it (observed)."""
LONGEST_NAME = 128

Kind = OneOf["absent", "point", "text", "number", "list", "object", "seconds"]
Demand = tuple[OneOf["part", "after"], str]
Demands = frozenset[Demand]


@dataclass(frozen=True)
class Cell:
    """Values that the atoms do not tell apart. `value` is that of a point; the bounds do not belong to it."""

    kind: Kind
    value: Any = None
    low: Any = None
    high: Any = None

    @property
    def is_text(self) -> bool:
        return self.kind == "text" or (self.kind == "point" and isinstance(self.value, str))

    @property
    def is_number(self) -> bool:
        if self.kind == "point":
            return isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.kind in ("number", "seconds")


def is_open(cell: Cell, demand: Demand) -> bool:
    """Tell whether some values of a cell may keep a demand while others break it."""
    if demand[0] == "part":
        return cell.kind not in ("absent", "point")
    return cell.is_text and (cell.kind == "text" or _is_after(cell.value, demand[1]) is None)


def _is_after(text: str, other: str) -> bool | None:
    """Tell whether a text comes after another one; None where that depends on the collation.

    Texts of digits are ordered digit by digit, whatever the locale: "10" comes before "9".
    """
    if text == other:
        return False
    return text > other if _DIGITS.fullmatch(text) and _DIGITS.fullmatch(other) else None


def lacks(cell: Cell, part: str) -> bool:
    """Tell whether no value of a cell contains a part."""
    if cell.kind == "number":
        # Above 1 there is neither a sign nor an exponent that has one.
        unsigned = cell.low is not None and cell.low >= 1
        return (unsigned and "-" in part) or samples.NUMBER_PART.fullmatch(part) is None
    if cell.kind != "seconds":
        return False
    return (cell.low >= 0 and "-" in part) or samples.SECONDS_PART.fullmatch(part) is None


def is_short(cell: Cell) -> bool:
    """Tell whether a cell has so few values that all of them are tried."""
    return cell.kind == "seconds" and bool(cell.high - cell.low <= MAX_TRIED)


def is_closed(cell: Cell, broken: Demands) -> bool:
    """Tell whether every value of a cell keeps a demand that is to be broken: a list has brackets."""
    if cell.kind == "text":
        start = _common_start(cell.low, cell.high)
        return any(kind == "part" and part in start for kind, part in broken)
    always = {"list": "[]", "object": "{}"}.get(cell.kind, "")
    return any(kind == "part" and part in tuple(always) for kind, part in broken)


def _common_start(low: str | None, high: str | None) -> str:
    """Return how all texts between two begin: those between `llm.` and `llm/` begin with `llm.`."""
    if low is None or high is None:
        return ""
    start = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
    below, above = low[len(start) :], high[len(start) :]
    follows = len(above) == 1 and below and ord(above) == ord(below[0]) + 1
    return start + below[0] if follows else start


def contradict(demand: Demand, kept: Demands, broken: Demands) -> bool:
    """Tell whether a demand and the others contradict each other: a text that contains `ab` contains `a`."""
    kind, text = demand
    if kind == "after":
        # What comes after "20" comes after "10": one cannot be kept and the other one broken.
        above = demand in kept and any(k == "after" and _is_after(t, text) is False for k, t in broken)
        return above or (
            demand in broken and any(k == "after" and _is_after(text, t) is False for k, t in kept)
        )
    too_much = demand in kept and any(other[0] == "part" and other[1] in text for other in broken)
    return too_much or (demand in broken and any(other[0] == "part" and text in other[1] for other in kept))


def number_in(cell: Cell) -> int | float:
    """Return a number of a cell."""
    if cell.kind == "seconds":
        return int(cell.low // 1) + 1
    if cell.low is None or cell.high is None:
        return 0.5 if cell.low is cell.high else cell.high - 1 if cell.low is None else cell.low + 1
    middle: float = (cell.low + cell.high) / 2
    return middle


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold a text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def is_ingestible_cell(name: str, cell: Cell) -> bool:
    """Tell whether ingestion could accept some value of a cell for a property (observed)."""
    if name == "source":
        return bool(cell.value == "user")
    if name in OWN_FIELDS:
        return not (cell.kind == "point" and isinstance(cell.value, str) and len(cell.value) > LONGEST_NAME)
    group, dot, member = name.partition(".")
    if cell.kind == "absent":
        return True
    if not dot and group in ("_cost", "_llm"):
        return cell.kind == "object"
    is_number = cell.kind == "number" or (cell.kind == "point" and not cell.is_text)
    if dot:
        as_number = is_number and not isinstance(cell.value, bool)
        if group == "_cost":
            return as_number if member == "amount" else member == "currency" and cell.value == "usd"
        if group == "_llm" and member.endswith("_tokens"):
            return as_number and not isinstance(cell.value, float)
        return group == "_llm" and member in ("vendor", "model", "prompt", "response") and cell.is_text
    if cell.kind == "point" and isinstance(cell.value, str):
        return 0 < len(cell.value) <= LONGEST_TEXT
    return cell.kind not in ("list", "object")
