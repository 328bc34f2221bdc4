"""Filters and aggregations in words, and the difference of two filters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.filter import OPERATOR_SIGNS, Filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, FieldChange
from polar_iac.report.wording import agree, value
from polar_iac.sanitize import printable

EVERY_EVENT = "every event"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN_PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_FOLD = 4
"""Fewest lines of unchanged clauses that are only counted."""
_RESERVED = frozenset({"and", "or", "contains", "does", "not", "every", "event"})
Sign = Literal[" ", "-", "+"]
Part = Mapping[str, Any]
"""A clause or a filter as JSON data."""


def as_written(canonical: Part, written: Filter) -> Part:
    """Return a filter in canonical form, with its clauses in the order in which they were written.

    Only people read that order. Whatever compares filters uses the canonical form as it is.
    """
    if len(canonical["clauses"]) < 2:  # a normal form with one member has only that clause
        return canonical
    places: dict[str, int] = {}
    for leaf in _clauses(written.wire()):
        places.setdefault(canonical_json(leaf), len(places))
    return _in_order(canonical, places)[1]


def _in_order(part: Part, places: Mapping[str, int]) -> tuple[int, Part]:
    """Return the place of the first clause of a part, and the part in order."""
    if "clauses" not in part:
        return places.get(canonical_json(part), len(places)), part
    inner = sorted((_in_order(p, places) for p in part["clauses"]), key=lambda placed: placed[0])
    first = inner[0][0] if inner else len(places)
    return first, {**part, "clauses": [ordered for _, ordered in inner]}


def _clauses(part: Part) -> Iterator[Part]:
    """Yield the clauses of a filter, at any depth."""
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from _clauses(inner)
        else:
            yield inner


def shown_fields(change: Change) -> tuple[FieldChange, ...]:
    """Return the fields of a change, with filters in the order in which they were written."""
    return tuple(_shown(field, change) if field.path == "filter" else field for field in change.fields)


def _shown(field: FieldChange, change: Change) -> FieldChange:
    before, after = (
        as_written(data, spec.filter) if data and spec else data
        for data, spec in ((field.before, change.before), (field.after, change.after))
    )
    return replace(field, before=before, after=after)


def filter_of(spec: MeterSpec) -> Part:
    """Return the filter of a meter in the order in which it was written."""
    return as_written(spec.canonical["filter"], spec.filter)


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
    operator = OPERATOR_SIGNS.get(data["operator"]) or printable(data["operator"])
    return f"{property_name(data['property'])} {operator} {value(data['value'])}{_moment(data)}"


def _moment(data: Mapping[str, Any]) -> str:
    """Return the time that a timestamp is compared with, as people write it: Polar counts seconds."""
    seconds = data["value"]
    if (
        data["property"] != "timestamp"
        or type(seconds) is not int
        or data["operator"] in ("like", "not_like")
    ):
        return ""
    return f" ({(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%d %H:%M:%S')} UTC)"


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
    """Yield the differences of two filters in normal form, whatever their order, with their parents.

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
    yield from _body(before["clauses"], after["clauses"], depth + 1)


def _body(before: Sequence[Part], after: Sequence[Part], depth: int) -> Iterator[Line]:
    """Yield the differences of the clauses of two filters, in the order of `after`.

    What is gone follows what stood before it. Four and more unchanged lines in a row are only counted.
    """
    old, new = ({_identity(part): part for part in side} for side in (before, after))
    pairs = dict(
        _pairs(
            [part for text, part in old.items() if text not in new],
            [part for text, part in new.items() if text not in old],
        )
    )
    gone_after: dict[str | None, list[Part]] = {}
    last: str | None = None
    for text, part in old.items():
        if text in new or text in pairs:
            last = pairs.get(text, text)
        else:
            gone_after.setdefault(last, []).append(part)
    replaced = {added: old[removed] for removed, added in pairs.items()}
    unchanged: list[Part] = []
    for anchor in (None, *new):
        if anchor in old:
            unchanged.append(new[anchor])
        elif anchor is not None:
            yield from _unchanged(unchanged, depth)
            unchanged = []
            yield from _changed(replaced.get(anchor), new[anchor], depth)
        if anchor in gone_after:
            yield from _unchanged(unchanged, depth)
            unchanged = []
            for part in gone_after[anchor]:
                yield from _whole(part, "-", depth)
    yield from _unchanged(unchanged, depth)


def _changed(old: Part | None, added: Part, depth: int) -> Iterator[Line]:
    """Yield a clause or filter that is new, after the one that it replaces, if any."""
    if old and "clauses" in old and "clauses" in added:
        yield from filter_diff(old, added, depth)
        return
    yield from _whole(old, "-", depth) if old else ()
    yield from _whole(added, "+", depth)


def _unchanged(parts: Sequence[Part], depth: int) -> Iterator[Line]:
    """Yield unchanged clauses, or, if they take many lines, only their number."""
    lines = [line for part in parts for line in _whole(part, " ", depth)]
    if len(lines) < _FOLD:
        yield from lines
    else:
        count = sum(len([*_clauses({"clauses": [part]})]) for part in parts)
        yield Line(" ", depth, f"… {count:,} {agree(count, 'clause', 'clauses')} unchanged")


def _whole(part: Mapping[str, Any], sign: Sign, depth: int) -> Iterator[Line]:
    if "clauses" in part:
        yield from outline(part, sign, depth)
    else:
        yield Line(sign, depth, clause(part))


def _head(data: Mapping[str, Any]) -> str:
    if not data["clauses"]:
        return EVERY_EVENT
    return {"and": "all of", "or": "any of"}.get(data["conjunction"]) or printable(data["conjunction"])


def _identity(part: Part) -> str:
    """Return a text that is equal for parts that differ only in the order of their clauses."""
    if "clauses" not in part:
        return canonical_json(part)
    return canonical_json([part["conjunction"], *sorted(map(_identity, part["clauses"]))])


def _pairs(gone: Sequence[Part], new: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """Pair each removed part with the most similar added part, if any. Yield the identities of both."""
    unpaired = list(new)
    for old in gone:
        best = max(unpaired, key=lambda candidate: _likeness(old, candidate), default=None)
        if best is not None and _likeness(old, best) > 0:
            unpaired.remove(best)
            yield _identity(old), _identity(best)


def _likeness(old: Part, new: Part) -> float:
    """Return how similar two parts are: for filters the common share of their properties, 0 to 1.

    Clauses about one property have 1, or 2 with the same operator. Anything else has 0.
    """
    if ("clauses" in old) != ("clauses" in new):
        return 0
    if "clauses" in old:
        before, after = (Counter(leaf["property"] for leaf in _clauses(part)) for part in (old, new))
        return (before & after).total() / max(before.total(), after.total(), 1)
    if old["property"] != new["property"]:
        return 0
    return 2 if old["operator"] == new["operator"] else 1
