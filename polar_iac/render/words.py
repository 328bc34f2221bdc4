"""Meters in words: escaped names, values, aggregations, filters, and what differs between two filters."""

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
"""What becomes of a meter that changes in the lockfile only."""
_PLAIN_PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_BLOCKS = 20
"""The most blocks of a manifest that a refusal prints."""
_RESERVED = frozenset({"and", "or", "contains", "does", "not", "every", "event"})
_ZERO_WIDTH_JOINER = "\u200d"  # holds emoji together, moves nothing
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

Sign = Literal[" ", "-", "+"]


def printable(text: str) -> str:
    """`text` with everything escaped that could move a cursor, colour a screen, turn the direction of
    writing or start a new line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _unsafe(char) else char for char in text)


_STYLE = re.compile("(\x1b\\[[0-9;]*m)")


def printable_lines(text: str) -> str:
    """`text` of several lines, each printable."""
    return "\n".join(map(printable, text.split("\n")))


def printable_styled(text: str) -> str:
    """The same for text of our own renderers, whose colours (codes of `click.style`) stay."""
    return "".join(p if _STYLE.fullmatch(p) else printable_lines(p) for p in _STYLE.split(text))


def _unsafe(char: str) -> bool:
    return char != _ZERO_WIDTH_JOINER and unicodedata.category(char) in _UNSAFE


def _escaped(char: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(char)
    return named.get(char) or (f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")


def value(data: Any) -> str:
    """A value as YAML and JSON both write it; None is `none`."""
    return "none" if data is None else printable(json.dumps(data, ensure_ascii=False))


def settled(change: Change) -> str:
    """What settling a duplicate does."""
    return (
        f"archives the duplicate {change.id}, which an earlier run of this machine made, and takes its "
        f"marker off; {change.duplicate_of} stays"
    )


def property_name(name: str) -> str:
    plain = _PLAIN_PROPERTY.fullmatch(name) and name not in _RESERVED
    return name if plain else "`" + printable(name).replace("`", "\\`") + "`"


def aggregation(data: Mapping[str, Any]) -> str:
    """`count` or `sum(tokens)`."""
    func = printable(data["func"])
    return func if "property" not in data else f"{func}({property_name(data['property'])})"


def clause(data: Mapping[str, Any]) -> str:
    operator = OPERATORS.get(data["operator"]) or printable(data["operator"])
    return f"{property_name(data['property'])} {operator} {value(data['value'])}"


def expression(data: Mapping[str, Any]) -> str:
    """A whole filter on one line, from its canonical form."""
    if not data["clauses"]:
        return EVERY_EVENT
    parts = (f"({expression(part)})" if "clauses" in part else clause(part) for part in data["clauses"])
    return f" {printable(data['conjunction'])} ".join(parts)


@dataclass(frozen=True)
class Line:
    """A line of a filter or of a filter's diff, so many levels deep."""

    sign: Sign
    depth: int
    text: str


def outline(data: Mapping[str, Any], sign: Sign = " ", depth: int = 0) -> Iterator[Line]:
    """A filter as an indented list: what must hold, a clause a line."""
    yield Line(sign, depth, _head(data))
    for part in data["clauses"]:
        if "clauses" in part:
            yield from outline(part, sign, depth + 1)
        else:
            yield Line(sign, depth + 1, clause(part))


def filter_diff(before: Mapping[str, Any], after: Mapping[str, Any], depth: int = 0) -> Iterator[Line]:
    """What differs between two canonical filters, with the way to it; the rest is counted.

    Clauses that are equal are left out, filters that share most are compared inside, and a clause about the
    same property stands beside its former self.
    """
    heads = _head(before), _head(after)
    if heads[0] != heads[1]:
        yield Line("-", depth, heads[0])
        yield Line("+", depth, heads[1])
    elif before["conjunction"] != after["conjunction"]:  # of nothing, in two ways
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
    """How many clauses stand on both sides, and those that stand on one."""
    left, right = (Counter(map(canonical_json, side)) for side in (before, after))
    common = left & right
    return (
        common.total(),
        [json.loads(text) for text in (left - common).elements()],
        [json.loads(text) for text in (right - common).elements()],
    )


def _pairs(gone: Sequence[Part], new: Sequence[Part]) -> Iterator[tuple[Part | None, Part | None]]:
    """Each part that went with the one that took its place, where there is one, most alike first."""
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
    """What the clauses of a filter are about, at any depth."""
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from _leaves(inner)
        else:
            yield inner["property"]


def permitting(plans: Sequence[Plan]) -> tuple[list[str], list[str]]:
    """What a manifest needs for plans that are refused for unlisted removals: the lines of `moved`, if keys
    seem to be renamed, and the blocks of the meters to archive, as many as are printed."""
    moved: dict[str, str] = {}
    removed: dict[str, MeterSpec] = {}
    for plan in plans:
        gone = plan.refusal.keys if plan.refusal else ()
        moved |= {old: new for old, new in renames(plan.changes).items() if old in gone}
        removed = {c.key: c.before for c in plan.changes if c.key in gone and c.before} | removed
    lines = [f"  - {{from: {old}, to: {new}}}" for old, new in sorted(moved.items())]
    # In canonical form, so that a saved plan prints the same.
    specs = ((key, MeterSpec.from_json(spec.canonical)) for key, spec in sorted(removed.items())[:_BLOCKS])
    blocks = [block(key, replace(spec, archived=True)) for key, spec in specs]
    return ["moved:", *lines] if lines else [], blocks
