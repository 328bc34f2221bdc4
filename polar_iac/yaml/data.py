"""The values of a YAML tree as plain data: maps, lists and scalars, wherever they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polar_iac.yaml import tree, write

Path = Sequence[str | int]
"""Keys and list indexes that lead from the root to a value."""


def values(node: tree.Node) -> Any:
    """Return a tree as plain data, with aliases and merge keys resolved."""
    made: dict[int, Any] = {}

    def of(node: tree.Node) -> Any:
        if isinstance(node, tree.Scalar):
            return node.value
        # An alias leads to the same node again: its data is made once.
        if id(node) not in made:
            made[id(node)] = (
                {key.text: of(node.entries[key.text]) for key in node.keys}
                if isinstance(node, tree.Map)
                else [of(child) for child in node.children]
            )
        return made[id(node)]

    return of(node)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal in YAML: `1`, `1.0`, `true` and `"1"` are all different."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if write.is_list(left) and write.is_list(right):
        return len(left) == len(right) and all(map(same, left, right))
    # By their texts, since NaN is unequal to itself, and -0.0 equals 0.0.
    return type(left) is type(right) and repr(left) == repr(right)


def differing(found: Any, meant: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of the values that are not as they are meant, as far down as the keys are the same."""
    if same(found, meant):
        return
    if isinstance(found, Mapping) and isinstance(meant, Mapping) and found.keys() == meant.keys():
        for key in meant:
            yield from differing(found[key], meant[key], (*path, key))
    elif write.is_list(found) and write.is_list(meant) and len(found) == len(meant):
        for number, item in enumerate(meant):
            yield from differing(found[number], item, (*path, number))
    else:
        yield path


def at(data: Any, path: Path) -> Any:
    """Return the value at a path of plain data."""
    for step in path:
        data = data[step]
    return data


def replaced(data: Any, path: Path, value: Any) -> Any:
    """Return plain data with another value at a path. Maps that are missing on the way are added."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, int):
        return [*data[:step], replaced(data[step], rest, value), *data[step + 1 :]]
    inner = data if isinstance(data, Mapping) else {}
    return {**inner, step: replaced(inner.get(step), rest, value)}


def without(data: Any, path: Path) -> Any:
    """Return plain data without the value at a path."""
    *above, step = path
    inner = at(data, above)
    if isinstance(step, int):
        return replaced(data, above, [*inner[:step], *inner[step + 1 :]])
    return replaced(data, above, {key: value for key, value in inner.items() if key != step})
