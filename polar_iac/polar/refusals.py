"""Polar's 422 answers, as messages by field of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polar_iac.meter.filter import CLAUSE_KEYS, FILTER_KEYS, FUNCS

_BRANCHES = {"Filter": FILTER_KEYS, "FilterClause": CLAUSE_KEYS}


def problems_of(detail: Iterable[Mapping[str, Any]]) -> dict[tuple[str | int, ...], str]:
    """Convert Polar's 422 `detail` to messages by path below the meter, for `Manifest.diagnose`.

    Polar tries each clause both as a clause and as a filter, and each value as every allowed type. Entries
    from a branch that was not meant are dropped, and the messages for one path are joined.
    """
    entries = [(tuple(entry.get("loc", ())), entry) for entry in detail]
    unmeant = _unmeant_branches(entries)
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for loc, entry in entries:
        if not any(loc[:i] in unmeant for i in range(2, len(loc))):
            path_messages = messages.setdefault(_path_of(loc), [])
            message = str(entry.get("msg", "refused"))
            if message not in path_messages:
                path_messages.append(message)
    return {path: "; ".join(path_messages) for path, path_messages in messages.items()}


def _unmeant_branches(entries: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> set[tuple[Any, ...]]:
    """Return the `loc` of each union branch that Polar tried, but that the clause was not meant to be.

    Example: a clause with a bad operator is refused three times. The first is the real problem; the others
    come from the branch `("body", "filter", "clauses", 0, "Filter")`, which was not meant:

        ("body", "filter", "clauses", 0, "FilterClause", "operator")   not a known operator
        ("body", "filter", "clauses", 0, "Filter", "conjunction")      missing
        ("body", "filter", "clauses", 0, "Filter", "clauses")          missing
    """
    missing = {loc for loc, entry in entries if entry.get("type") == "missing"}
    tried: dict[tuple[Any, ...], set[str]] = {}
    for loc, _ in entries:
        for i in range(1, len(loc)):
            # A branch follows the number of a clause. A metadata key may have the same name, elsewhere.
            if loc[i] in _BRANCHES and isinstance(loc[i - 1], int):
                tried.setdefault(loc[:i], set()).add(loc[i])
    unmeant = set()
    for clause, branches in tried.items():
        # A branch that misses every one of its fields was not meant, if the other one fits better.
        empty = [b for b in branches if all((*clause, b, name) in missing for name in _BRANCHES[b])]
        if len(empty) == 1 and len(branches) > 1:
            unmeant.add((*clause, empty[0]))
    return unmeant


def _path_of(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return the path below the meter: `loc` without the parts that do not name a field.

    Examples: ("body", "filter", "clauses", 0, "FilterClause", "value", "int") becomes
    ("filter", "clauses", 0, "value"), and ("body", "aggregation", "sum", "property") becomes
    ("aggregation", "property").
    """
    parts = loc[1:] if loc[:1] == ("body",) else loc
    path: list[str | int] = []
    for i, part in enumerate(parts):
        before = parts[i - 1] if i else None
        branch = part in _BRANCHES and isinstance(before, int)
        if branch or (i == 1 and before == "aggregation" and part in FUNCS):
            continue
        path.append(part)
        if (path[0] == "filter" and part == "value") or (path[0] == "metadata" and len(path) == 2):
            break  # The rest names the types that were tried.
    return tuple(path)
