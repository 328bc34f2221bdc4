"""Rules about two meters: of one meaning, of one name, or of which one counts what the other one counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

from polar_iac.lint.deciding import equivalent, implies, names_of
from polar_iac.lint.declarations import pinned
from polar_iac.lint.rule import Finding
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.filter import Clause, Filter
from polar_iac.meter.spec import MeterSpec

MOST_PAIRS = 200
"""Most pairs of meters that the decision procedure is asked about."""
_MOST_CLAUSES = 20
"""Most clauses of a filter that it is asked about."""
Pair = tuple["Declared", "Declared"]


@dataclass(frozen=True)
class Declared:
    """A meter of the manifest. `environments` are those in which it exists; None means all."""

    key: str
    spec: MeterSpec
    environments: tuple[str, ...] | None = None

    def meets(self, other: Declared) -> bool:
        """Tell whether both exist in some environment."""
        if self.environments is None or other.environments is None:
            return True
        return not set(self.environments).isdisjoint(other.environments)

    @cached_property
    def aggregation(self) -> tuple[str, str]:
        return self.spec.aggregation.func, canonical_property(self.spec.aggregation.property or "")

    @cached_property
    def atoms(self) -> Hashable:
        """Key that is equal for two meters of one normal form, and cheaper: all clauses, in any place."""
        filter_ = self.spec.filter
        if _has_empty_group(filter_):  # It may make all others drop out of the normal form.
            filter_ = Filter.from_json(filter_.canonical())
        return self.aggregation, frozenset(_atoms(filter_))


def same_name(meters: Sequence[Declared]) -> Iterator[tuple[str, Finding]]:
    """Find meters with the name of an earlier one. Those of equal meaning have a rule of their own."""
    for group in _groups({meter.key: meter.spec.name for meter in meters}, meters):
        first = group[0]
        for other in group[1:]:
            if other.meets(first) and other.spec.billing != first.spec.billing:
                yield other.key, Finding("same-name", ("name",), f"`{first.key}` has this name already")


def equal_meters(
    meters: Sequence[Declared], changed: Collection[str] | None
) -> Iterator[tuple[str, Finding]]:
    """Find meters that count what an earlier one counts: by their normal form, or proven."""
    for alike in _groups({meter.key: meter.atoms for meter in meters}, meters):
        for group in _groups({meter.key: meter.spec.billing for meter in alike}, alike):
            for other in group[1:]:
                if other.meets(group[0]):
                    yield other.key, _equal(group[0])
    for one, other in _related(meters, changed):
        if equivalent(one.spec.filter.wire(), other.spec.filter.wire()):
            yield other.key, _equal(one)


def _equal(first: Declared) -> Finding:
    return Finding(
        "equal-meters",
        ("filter",),
        f"`{first.key}` counts the same: with a price on each, usage is billed twice",
    )


def implied_meter(
    meters: Sequence[Declared], changed: Collection[str] | None
) -> Iterator[tuple[str, Finding]]:
    """Find meters whose events another one counts too."""
    for one, other in _related(meters, changed):
        forth, back = (
            implies(a.spec.filter.wire(), b.spec.filter.wire()) for a, b in ((one, other), (other, one))
        )
        if forth is not back:
            small, large = (one, other) if forth else (other, one)
            message = f"every event that this counts is counted by `{large.key}` too"
            yield small.key, Finding("implied-meter", ("filter",), message)


def _atoms(group: Filter) -> Iterator[Hashable]:
    for part in group.clauses:
        if isinstance(part, Clause):
            yield canonical_property(part.property), part.operator, type(part.value), part.value
        else:
            yield from _atoms(part)


def _has_empty_group(group: Filter) -> bool:
    return any(
        isinstance(part, Filter) and (not part.clauses or _has_empty_group(part)) for part in group.clauses
    )


def _groups(values: Mapping[str, Hashable], meters: Sequence[Declared]) -> Iterator[Sequence[Declared]]:
    """Yield the meters that share a value, two or more, in the order of the manifest."""
    groups: dict[Hashable, list[Declared]] = defaultdict(list)
    for meter in meters:
        groups[values[meter.key]].append(meter)
    yield from (group for group in groups.values() if len(group) > 1)


def _related(meters: Sequence[Declared], changed: Collection[str] | None) -> Iterator[Pair]:
    """Yield pairs that may count common events: with a changed meter in each, or the first ones.

    Two meters of different event names have none in common, and are never compared. So a manifest of
    thousands of meters has few pairs.
    """
    pairs = (
        pair
        for group in _by_event(meters)
        for pair in combinations(group, 2)
        if (changed is None or pair[0].key in changed or pair[1].key in changed)
    )
    bounded = islice(pairs, MOST_PAIRS * 10)
    wanted = (pair for pair in bounded if _may_relate(*pair))
    return islice(wanted, MOST_PAIRS)


def _by_event(meters: Sequence[Declared]) -> Iterator[Sequence[Declared]]:
    """Yield the meters that can count events of one name, and have one aggregation."""
    groups: dict[Hashable, list[Declared]] = defaultdict(list)
    for meter in meters:
        names = pinned(meter.spec.filter)
        for name in [None] if names is None else sorted(names):
            groups[meter.aggregation, name].append(meter)
    seen = set[tuple[str, ...]]()
    for group in groups.values():
        keys = tuple(meter.key for meter in group)
        if len(group) > 1 and keys not in seen:
            seen.add(keys)
            yield group


def _may_relate(one: Declared, other: Declared) -> bool:
    if not one.meets(other) or one.spec.billing == other.spec.billing:
        return False
    mine, theirs = names_of(one.spec.filter), names_of(other.spec.filter)
    return max(len(mine), len(theirs)) <= _MOST_CLAUSES and bool({*mine} & {*theirs})
