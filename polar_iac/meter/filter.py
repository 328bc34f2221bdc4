"""Filters and aggregations, and the normal form in which they are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.canonical import (
    canonical_json,
    canonical_property,
    canonical_value,
    expect_text,
    expect_type,
)

Scalar = str | int | bool
CLAUSE_KEYS = ("property", "operator", "value")
FILTER_KEYS = ("conjunction", "clauses")
CONJUNCTIONS = ("and", "or")
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "like", "not_like")
OPERATOR_SIGNS = {
    "eq": "=",
    "ne": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "contains",
    "not_like": "does not contain",
}
"""The notation of operators in all texts for people."""
ORDER_OPERATORS = ("gt", "gte", "lt", "lte")
FUNCS = ("count", "sum", "max", "min", "avg", "unique")
INT32 = range(-(2**31), 2**31)
"""Numbers that a clause can compare with."""
MAX_VALUE_TEXT = 1_000
"""Maximum length of a text that a clause compares with, in characters."""
EVENT_FIELDS = ("name", "source", "timestamp")
"""Properties that are the event's own. All others are its metadata."""


@dataclass(frozen=True, eq=False)
class Clause:
    """A comparison of one event property with a value."""

    property: str
    operator: str
    value: Scalar

    def wire(self) -> dict[str, Any]:
        return {
            "property": canonical_property(self.property),
            "operator": self.operator,
            "value": canonical_value(self.value),
        }

    canonical = wire


@dataclass(frozen=True, eq=False)
class Filter:
    """A conjunction ("and" or "or") of clauses and filters. Without clauses it matches every event."""

    conjunction: str
    clauses: tuple[Clause | Filter, ...] = ()

    def wire(self) -> dict[str, Any]:
        """Return the filter as it is sent to Polar, in the author's order."""
        return {"conjunction": self.conjunction, "clauses": [c.wire() for c in self.clauses]}

    def canonical(self) -> dict[str, Any]:
        """Return the normal form, which is equal for filters that differ only in form.

        Both of Polar's engines treat such filters the same (observed). A group of one is replaced by its
        member, a group inside one of the same conjunction is flattened, duplicates are removed, and order is
        ignored. An empty group matches every event: it drops out of an `and`, and makes an `or` match every
        event. The root is always a filter: `or[x]` becomes `and[x]`, and "every event" is `and[]`.
        """
        return _as_root(_normal_form(self).data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Filter:
        """Parse the output of `wire` or `canonical`, or an answer from Polar.

        Raises KeyError, TypeError, or AttributeError when `data` is not a filter.
        """
        clauses = (
            cls.from_json(c)
            if "clauses" in c
            else Clause(
                expect_text(c["property"]),
                expect_text(c["operator"]),
                expect_type(c["value"], str, int, float),
            )
            for c in expect_type(data["clauses"], list)
        )
        return cls(expect_text(data["conjunction"]), tuple(clauses))


@dataclass(frozen=True)
class _Normal:
    """A clause or a group in normal form. `text` is its canonical JSON, so equal parts have equal texts."""

    data: Mapping[str, Any]
    text: str
    members: tuple[_Normal, ...] | None = None
    """Members of a group, or None for a clause. A group without members matches every event."""

    @property
    def order(self) -> tuple[bool, str]:
        """Sort key: clauses by property, then groups. Any total order would do; this one is easy to read."""
        if self.members is not None:
            return True, self.text
        return False, canonical_json([self.data[name] for name in ("property", "operator", "value")])


_EVERY_EVENT = _Normal({"conjunction": "and", "clauses": []}, '{"clauses":[],"conjunction":"and"}', ())


def _normal_form(part: Clause | Filter) -> _Normal:
    if isinstance(part, Clause):
        data = part.canonical()
        return _Normal(data, canonical_json(data))
    members: dict[str, _Normal] = {}
    for inner in map(_normal_form, part.clauses):
        # `or[x, and[]]` matches every event, so the other members do not matter.
        if inner.members == () and part.conjunction == "or":
            return _EVERY_EVENT
        # `and[a, and[b, c]]` becomes `and[a, b, c]`. An empty group is also an `and`, with no members to add.
        same = inner.members is not None and inner.data["conjunction"] == part.conjunction
        for member in inner.members or () if same else (inner,):
            members.setdefault(member.text, member)
    if len(members) == 1:
        return next(iter(members.values()))
    ordered = tuple(sorted(members.values(), key=lambda member: member.order))
    if not ordered:
        return _EVERY_EVENT
    data = {"conjunction": part.conjunction, "clauses": [member.data for member in ordered]}
    # Join the members' texts: serializing again at each level would be slow for a deep filter.
    texts = ",".join(member.text for member in ordered)
    return _Normal(data, f'{{"clauses":[{texts}],"conjunction":{json.dumps(part.conjunction)}}}', ordered)


def _as_root(data: Mapping[str, Any]) -> dict[str, Any]:
    return dict(data) if "clauses" in data else {"conjunction": "and", "clauses": [data]}


@dataclass(frozen=True, eq=False)
class Aggregation:
    """Function that turns the matching events into a number. `count` has no property."""

    func: str
    property: str | None = None

    def wire(self) -> dict[str, Any]:
        if self.property is None or self.func == "count":
            return {"func": self.func}
        return {"func": self.func, "property": canonical_property(self.property)}

    canonical = wire

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Aggregation:
        """Parse the output of `wire`, or an answer from Polar. Raises like `Filter.from_json`."""
        return cls(expect_text(data["func"]), expect_type(data.get("property"), str, type(None)))


def is_known(filter_: Any, aggregation: Any) -> bool:
    """Tell whether this version knows every part of a filter and an aggregation from Polar.

    A part that a later Polar added (an operator, a function, a field inside a clause) affects billing. A
    meter with such a part cannot be compared, so it must never be treated as equal.
    """
    unread = [filter_]
    while unread:
        part = unread.pop()
        if not isinstance(part, Mapping):
            return False
        if "clauses" not in part:
            if not _is_known_clause(part):
                return False
        elif part.keys() == {"conjunction", "clauses"} and isinstance(part["clauses"], list):
            if part["conjunction"] not in CONJUNCTIONS:
                return False
            unread += part["clauses"]
        else:
            return False
    return (
        isinstance(aggregation, Mapping)
        and aggregation.keys() <= {"func", "property"}
        and aggregation.get("func") in FUNCS
        and isinstance(aggregation.get("property"), str if aggregation["func"] != "count" else str | None)
    )


def _is_known_clause(clause: Mapping[str, Any]) -> bool:
    return (
        clause.keys() == {"property", "operator", "value"}
        and isinstance(clause["property"], str)
        and clause["operator"] in OPERATORS
        and isinstance(canonical_value(clause["value"]), str | int)
    )
