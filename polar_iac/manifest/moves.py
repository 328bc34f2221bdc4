"""Renamed keys: reads `moved`, and reports entries that contradict each other or the meters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polar_iac.manifest.model import Move
from polar_iac.manifest.node_reader import NodeReader
from polar_iac.yaml import tree
from polar_iac.yaml.scalars import clip


def read_moves(reader: NodeReader, node: tree.Node, meters: tree.Node | None) -> tuple[Move, ...]:
    """Return the entries of `moved`. Reports faults to the reader."""
    moves: list[tuple[str, str, tree.Map]] = []
    for item in reader.list(node, "moved", "[{from: old-key, to: new-key}]"):
        entry = reader.map(item, "an entry of moved", "{from: old-key, to: new-key}")
        if entry is None:
            continue
        reader.keys(entry, ("from", "to"), ("from", "to"), entry)
        ends = [reader.slug(entry.entries[end], end) for end in ("from", "to") if end in entry.entries]
        if len(ends) == 2 and all(ends):
            moves.append((ends[0], ends[1], entry))
    _check_moves(reader, moves, meters.entries if isinstance(meters, tree.Map) else {})
    return tuple(Move(old, new, reader.document.span_of(entry)) for old, new, entry in moves)


def _check_moves(
    reader: NodeReader, moves: Sequence[tuple[str, str, tree.Map]], declared: Mapping[str, Any]
) -> None:
    """Report moves that contradict one another or the meters.

    A move whose target is gone is only outdated.
    """
    target: dict[str, str] = {}
    by_old: dict[str, tree.Map] = {}
    by_new: dict[str, tree.Map] = {}
    for old, new, entry in moves:
        old_node, new_node = entry.entries["from"], entry.entries["to"]
        if old == new:
            reader.fault(new_node, f"`{old}` is moved to itself: remove this entry")
            continue
        # Example: `moved: [{from: a, to: b}]` while `a` is still under `meters`: `a` would be both renamed
        # and kept.
        if old in declared:
            reader.fault(
                old_node, f"`{old}` is still declared under meters: rename it there, or remove this entry"
            )
        if old in by_old:
            line = reader.document.span_of(by_old[old]).line
            reader.fault(old_node, f"`{old}` is moved twice: the first time on line {line}")
            continue
        if new in by_new:
            line = reader.document.span_of(by_new[new]).line
            reader.fault(new_node, f"two keys are moved to `{new}`: the other one on line {line}")
        by_new.setdefault(new, entry)
        by_old[old] = entry
        target[old] = new
    # Follow each chain once. Example: `a → b`, `b → a` is a cycle; `a → b`, `b → c` is a valid chain.
    seen: set[str] = set()
    for start in target:
        path = [start]
        while path[-1] in target and path[-1] not in seen:
            seen.add(path[-1])
            path.append(target[path[-1]])
        if path[-1] in path[:-1]:
            circle = path[path.index(path[-1]) :]
            reader.fault(by_old[circle[0]], f"these moves go in a circle: {clip(' → '.join(circle), 200)}")
