"""Polar's 422 answers, as messages by field of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polar_iac.manifest.meters import CLAUSE_KEYS, FILTER_KEYS
from polar_iac.meter.filter import FUNCS

_BRANCHES = {"Filter": FILTER_KEYS, "FilterClause": CLAUSE_KEYS}


def problems_of(detail: Iterable[Mapping[str, Any]]) -> dict[tuple[str | int, ...], str]:
    """Convert Polar's 422 `detail` to messages by path below the meter, for `Manifest.diagnose`.

    Polar tries each clause both as a clause and as a filter, and each value as every allowed type. Entries
    from a branch that was not meant are dropped, and the messages for one path are joined.
    """
    entries = [(tuple(entry.get("loc", ())), entry) for entry in detail]
    missing = {loc for loc, entry in entries if entry.get("type") == "missing"}
    tried: dict[tuple[Any, ...], set[str]] = {}
    for loc, _ in entries:
        for i in range(1, len(loc)):
            if loc[i] in _BRANCHES and isinstance(loc[i - 1], int):
                tried.setdefault(loc[:i], set()).add(loc[i])
    unmeant = set()
    for item, branches in tried.items():
        # Example: a clause with a bad operator also fails as a filter, where `conjunction` and `clauses` are
        # both missing. A branch that is missing every one of its fields was not meant.
        empty = [b for b in branches if all((*item, b, name) in missing for name in _BRANCHES[b])]
        if len(empty) == 1 and len(branches) > 1:
            unmeant.add((*item, empty[0]))
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for loc, entry in entries:
        if not any(loc[:i] in unmeant for i in range(2, len(loc))):
            found = messages.setdefault(_plain(loc), [])
            message = str(entry.get("msg", "refused"))
            if message not in found:
                found.append(message)
    return {path: "; ".join(found) for path, found in messages.items()}


def _plain(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return `loc` without "body" and without the parts that name a union member instead of a field."""
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
