"""Meters in words: escaped names, values, aggregations, filters, and the differences of two filters."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from polar_iac.manifest import block
from polar_iac.meter import MeterSpec, canonical_json
from polar_iac.plan import Change, Plan, renames

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
HOUSEKEEPING = {
    "adopt": "adopted: found by its marker, recorded in the lockfile",
    "forget": "forgotten: gone from the manifest, and archived or unknown",
    "moved": "moved: the same meter under a new key",
    "marker": "its ownership marker will be restored",
    "refresh": "the lockfile is brought up to date",
}
"""Descriptions of changes that affect the lockfile only."""
_PLAIN_PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_BLOCKS = 20
"""Most manifest blocks that a refusal prints."""
_RESERVED = frozenset({"and", "or", "contains", "does", "not", "every", "event"})
_ZERO_WIDTH_JOINER = "\u200d"  # joins emoji, cannot move a cursor
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

Sign = Literal[" ", "-", "+"]


def printable(text: str) -> str:
    """Escape everything in `text` that could control a terminal.

    That is: move the cursor, change colors, reverse the writing direction, or start a new line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _unsafe(char) else char for char in text)


_STYLE = re.compile("(\x1b\\[[0-9;]*m)")


def printable_lines(text: str) -> str:
    """Escape each line of `text` and keep the line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable_styled(text: str) -> str:
    """Escape text of our own renderers, but keep its line breaks and the color codes of `click.style`."""
    return "".join(p if _STYLE.fullmatch(p) else printable_lines(p) for p in _STYLE.split(text))


def _unsafe(char: str) -> bool:
    return char != _ZERO_WIDTH_JOINER and unicodedata.category(char) in _UNSAFE


def _escaped(char: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(char)
    return named.get(char) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")


def value(data: Any) -> str:
    """Return a value as both YAML and JSON write it. None becomes `none`."""
    return "none" if data is None else printable(json.dumps(data, ensure_ascii=False))


def settled(change: Change) -> str:
    """Describe the effect of settling a duplicate."""
    return (
        f"archives the duplicate {change.id}, which an earlier run of this machine made, and takes its "
        f"marker off; {change.duplicate_of} stays"
    )


def property_name(name: str) -> str:
    plain = _PLAIN_PROPERTY.fullmatch(name) and name not in _RESERVED
    return name if plain else "`" + printable(name).replace("`", "\\`") + "`"


def aggregation(data: Mapping[str, Any]) -> str:
    """Return an aggregation as in `count` or `sum(tokens)`."""
    func = printable(data["func"])
    return func if "property" not in data else f"{func}({property_name(data['property'])})"


def clause(data: Mapping[str, Any]) -> str:
    operator = OPERATORS.get(data["operator"]) or printable(data["operator"])
    return f"{property_name(data['property'])} {operator} {value(data['value'])}"


def expression(data: Mapping[str, Any]) -> str:
    """Return a whole filter, given in canonical form, on one line."""
    if not data["clauses"]:
        return EVERY_EVENT
    parts = (f"({expression(part)})" if "clauses" in part else clause(part) for part in data["clauses"])
    return f" {printable(data['conjunction'])} ".join(parts)


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
        yield Line(" ", depth + 1, f"… {same} unchanged")
    for left, right in _pairs(gone, new):
        if left and right and "clauses" in left and "clauses" in right:
            yield from filter_diff(left, right, depth + 1)
        else:
            for side, sign in ((left, "-"), (right, "+")):
                if side:
                    yield from _whole(side, "-" if sign == "-" else "+", depth + 1)


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
    left, right = (Counter(map(canonical_json, side)) for side in (before, after))
    common = left & right
    return (
        common.total(),
        [json.loads(text) for text in (left - common).elements()],
        [json.loads(text) for text in (right - common).elements()],
    )


def _pairs(gone: Sequence[Part], new: Sequence[Part]) -> Iterator[tuple[Part | None, Part | None]]:
    """Pair each removed part with the most similar added part, if any. Other added parts come last."""
    left = list(new)
    for old in gone:
        best = max(left, key=lambda candidate: _likeness(old, candidate), default=None)
        if best is not None and _likeness(old, best) > 0:
            left.remove(best)
            yield old, best
        else:
            yield old, None
    for added in left:
        yield None, added


def _likeness(old: Part, new: Part) -> float:
    if ("clauses" in old) != ("clauses" in new):
        return 0
    if "clauses" in old:
        left, right = Counter(_leaves(old)), Counter(_leaves(new))
        return (left & right).total() / max(left.total(), right.total(), 1)
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


def permitting(plans: Sequence[Plan]) -> tuple[list[str], list[str]]:
    """Return what a manifest needs to permit plans that are refused for unlisted removals.

    These are the lines of `moved`, if keys seem to be renamed, and the blocks of the meters to archive, at
    most `_BLOCKS`.
    """
    moved: dict[str, str] = {}
    removed: dict[str, MeterSpec] = {}
    for plan in plans:
        gone = plan.refusal.keys if plan.refusal else ()
        moved |= {old: new for old, new in renames(plan.changes).items() if old in gone}
        removed = {c.key: c.before for c in plan.changes if c.key in gone and c.before} | removed
    lines = [f"  - {{from: {old}, to: {new}}}" for old, new in sorted(moved.items())]
    # Use the canonical form, so that a saved plan prints the same.
    specs = ((key, MeterSpec.from_json(spec.canonical)) for key, spec in sorted(removed.items())[:_BLOCKS])
    blocks = [block(key, replace(spec, archived=True)) for key, spec in specs]
    return ["moved:", *lines] if lines else [], blocks
