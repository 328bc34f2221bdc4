"""Filters and aggregations in words, and the difference of two filters."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from polar_iac.meter.canonical import canonical_json
from polar_iac.report.wording import value
from polar_iac.sanitize import printable

OPERATORS = {
    "eq": "=",
    "ne": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "contains",
    "not_like": "does not contain",
}
EVERY_EVENT = "every event"
_PLAIN_PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_RESERVED = frozenset({"and", "or", "contains", "does", "not", "every", "event"})
Sign = Literal[" ", "-", "+"]


def property_name(name: str) -> str:
    """Return a property's name, in backticks unless it is a plain word."""
    plain = _PLAIN_PROPERTY.fullmatch(name) and name not in _RESERVED
    return name if plain else "`" + printable(name).replace("`", "\\`") + "`"


def aggregation(data: Mapping[str, Any]) -> str:
    """Return an aggregation as in `count` or `sum(tokens)`."""
    func = printable(data["func"])
    return func if "property" not in data else f"{func}({property_name(data['property'])})"


def clause(data: Mapping[str, Any]) -> str:
    """Return a clause as in `model = "gpt"`."""
    operator = OPERATORS.get(data["operator"]) or printable(data["operator"])
    return f"{property_name(data['property'])} {operator} {value(data['value'])}"


def expression(data: Mapping[str, Any]) -> str:
    """Return a whole filter, given in canonical form, on one line."""
    if not data["clauses"]:
        return EVERY_EVENT
    parts = (f"({expression(part)})" if "clauses" in part else clause(part) for part in data["clauses"])
    return f" {printable(data['conjunction'])} ".join(parts)


def field_value(path: str, data: Any) -> str:
    """Return the value of a field of any path on one line. None becomes `none`."""
    if data is None:
        return "none"
    if path == "filter":
        return expression(data)
    return aggregation(data) if path == "aggregation" else value(data)


@dataclass(frozen=True)
class Line:
    """A line of a filter or of its diff, `depth` levels deep."""

    sign: Sign
    depth: int
    text: str


def outline(data: Mapping[str, Any], sign: Sign = " ", depth: int = 0) -> Iterator[Line]:
    """Yield a filter as an indented list, one clause per line."""
    yield Line(sign, depth, _head(data))
    for part in data["clauses"]:
        if "clauses" in part:
            yield from outline(part, sign, depth + 1)
        else:
            yield Line(sign, depth + 1, clause(part))


def filter_diff(before: Mapping[str, Any], after: Mapping[str, Any], depth: int = 0) -> Iterator[Line]:
    """Yield the differences of two canonical filters, with their parents. Equal clauses are only counted.

    Nested filters that share the most are compared recursively. A changed clause follows the old clause
    about the same property.
    """
    heads = _head(before), _head(after)
    if heads[0] != heads[1]:
        yield Line("-", depth, heads[0])
        yield Line("+", depth, heads[1])
    elif before["conjunction"] != after["conjunction"]:  # both match every event
        yield Line("-", depth, f"{heads[0]} ({printable(before['conjunction'])})")
        yield Line("+", depth, f"{heads[1]} ({printable(after['conjunction'])})")
    else:
        yield Line(" ", depth, heads[0])
    same, gone, new = _partition(before["clauses"], after["clauses"])
    if same:
        yield Line(" ", depth + 1, f"… {same:,} unchanged")
    for old, added in _pairs(gone, new):
        if old and added and "clauses" in old and "clauses" in added:
            yield from filter_diff(old, added, depth + 1)
        else:
            yield from _whole(old, "-", depth + 1) if old else ()
            yield from _whole(added, "+", depth + 1) if added else ()


def _whole(part: Mapping[str, Any], sign: Sign, depth: int) -> Iterator[Line]:
    if "clauses" in part:
        yield from outline(part, sign, depth)
    else:
        yield Line(sign, depth, clause(part))


def _head(data: Mapping[str, Any]) -> str:
    if not data["clauses"]:
        return EVERY_EVENT
    return {"and": "all of", "or": "any of"}.get(data["conjunction"]) or printable(data["conjunction"])


Part = Mapping[str, Any]


def _partition(before: Sequence[Part], after: Sequence[Part]) -> tuple[int, list[Part], list[Part]]:
    """Return the number of clauses on both sides, and the clauses on one side only: before, then after."""
    old, new = (Counter(map(canonical_json, side)) for side in (before, after))
    common = old & new
    return (
        common.total(),
        [json.loads(text) for text in (old - common).elements()],
        [json.loads(text) for text in (new - common).elements()],
    )


def _pairs(gone: Sequence[Part], new: Sequence[Part]) -> Iterator[tuple[Part | None, Part | None]]:
    """Pair each removed part with the most similar added part, if any. Other added parts come last."""
    unpaired = list(new)
    for old in gone:
        best = max(unpaired, key=lambda candidate: _likeness(old, candidate), default=None)
        if best is not None and _likeness(old, best) > 0:
            unpaired.remove(best)
            yield old, best
        else:
            yield old, None
    for added in unpaired:
        yield None, added


def _likeness(old: Part, new: Part) -> float:
    """Return how similar two parts are: for filters the common share of their properties, 0 to 1.

    Clauses about one property have 1, or 2 with the same operator. Anything else has 0.
    """
    if ("clauses" in old) != ("clauses" in new):
        return 0
    if "clauses" in old:
        before, after = Counter(_leaves(old)), Counter(_leaves(new))
        return (before & after).total() / max(before.total(), after.total(), 1)
    if old["property"] != new["property"]:
        return 0
    return 2 if old["operator"] == new["operator"] else 1


def _leaves(part: Part) -> Iterator[str]:
    """Yield the properties in a filter, at any depth."""
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from _leaves(inner)
        else:
            yield inner["property"]
