"""Renamed keys: a key that was removed beside a new one that is probably the same meter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change

_MOST = 100
"""Most new keys among which similar meters are looked for: each is compared with each removed key, and nobody
renames more at once."""
_Specs = Mapping[str, MeterSpec]


@dataclass(frozen=True)
class Rename:
    """The new key of a meter, probably, and what it has in common with the old one."""

    key: str
    likeness: Literal["billing", "name", "most"]


def renames(changes: Sequence[Change]) -> Mapping[str, Rename]:
    """Map each removed key whose meter is active to a new key that is probably the same meter.

    Best is one with the same filter and aggregation, then one with the same name, then one in which nearly
    everything is equal. There must not be two such pairs to choose from. The last two are no renames of a
    frozen meter: to create another one is the only way to change what it counts.
    """
    new = {c.key: c.after for c in changes if c.action == "create" and c.after}
    gone = {c.key: c.before for c in changes if c.source is None and c.before and not c.before.archived}
    if not gone:
        return {}
    frozen = {change.key for change in changes if change.freeze == "frozen"}
    found = {old: Rename(key, "billing") for old, key in _same_billing(gone, new)}
    found |= {old: Rename(key, "name") for old, key in _same_name(*_left(gone, new, found, frozen))}
    found |= {old: Rename(key, "most") for old, key in _nearly_equal(*_left(gone, new, found, frozen))}
    return found


def _left(gone: _Specs, new: _Specs, found: Mapping[str, Rename], frozen: set[str]) -> tuple[_Specs, _Specs]:
    """Return the removed keys and the new ones that are in no pair yet."""
    taken = {rename.key for rename in found.values()}
    return (
        {key: spec for key, spec in gone.items() if key not in found and key not in frozen},
        {key: spec for key, spec in new.items() if key not in taken},
    )


def _same_billing(gone: _Specs, new: _Specs) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for key, spec in new.items():
        first.setdefault(spec.billing, key)
    return ((old, first[spec.billing]) for old, spec in gone.items() if spec.billing in first)


def _same_name(gone: _Specs, new: _Specs) -> Iterator[tuple[str, str]]:
    old_keys, new_keys = _by(lambda spec: spec.name, gone), _by(lambda spec: spec.name, new)
    for name in old_keys.keys() & new_keys.keys():
        if len(old_keys[name]) == len(new_keys[name]) == 1:
            yield old_keys[name][0], new_keys[name][0]


def _by(trait: Callable[[MeterSpec], str], specs: _Specs) -> Mapping[str, Sequence[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for key, spec in specs.items():
        keys[trait(spec)].append(key)
    return keys


def _nearly_equal(gone: _Specs, new: _Specs) -> Iterator[tuple[str, str]]:
    if len(new) > _MOST:
        return
    pairs = [(old, key) for old in gone for key in new if _differ_little(gone[old], new[key])]
    counts = Counter(old for old, _ in pairs), Counter(key for _, key in pairs)
    yield from ((old, key) for old, key in pairs if counts[0][old] == counts[1][key] == 1)


def _differ_little(old: MeterSpec, new: MeterSpec) -> bool:
    """Tell whether two meters differ in nothing but their names and fewer than half of their clauses."""
    rests = [{n: v for n, v in spec.canonical.items() if n not in ("name", "filter")} for spec in (old, new)]
    if canonical_json(rests[0]) != canonical_json(rests[1]):
        return False
    before, after = (Counter(_clauses(spec.canonical["filter"])) for spec in (old, new))
    return 2 * (before & after).total() > max(before.total(), after.total())


def _clauses(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the clauses of a filter at any depth, each as text."""
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from _clauses(inner)
        else:
            yield canonical_json(inner)
