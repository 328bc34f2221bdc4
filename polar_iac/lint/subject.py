"""A meter as the rules see it: its clauses with their paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from polar_iac.lint.characters import shown
from polar_iac.lint.rule import Finding, Path
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.declared import DeclaredEvents
from polar_iac.meter.filter import OPERATOR_SIGNS, Clause, Filter
from polar_iac.meter.spec import MeterSpec

TEXT_FIELDS = ("name", "source")
"""The event's own fields that are text. `timestamp` is a number; all other properties are metadata."""


@dataclass(frozen=True)
class Place:
    """A clause, its path below the meter, and the property that it looks up."""

    clause: Clause
    path: Path
    name: str

    @property
    def text(self) -> str:
        """The clause as code. Example: `tokens > 5`."""
        return clause_text(self.clause)

    def finding(self, rule: str, message: str, at: str = "value") -> Finding:
        """Return a finding at the value of the clause, or at another key of it."""
        return Finding(rule, (*self.path, at) if at else self.path, message)


def clause_text(clause: Clause) -> str:
    """Return a clause as code. Example: `tokens > 5`."""
    sign = OPERATOR_SIGNS.get(clause.operator, clause.operator)
    value = shown(clause.value) if isinstance(clause.value, str) else str(clause.value).lower()
    name = canonical_property(clause.property) or '""'
    return f"`{name} {sign} {value}`"


@dataclass(frozen=True)
class Subject:
    """A meter, and the events that its manifest declares."""

    spec: MeterSpec
    declared: DeclaredEvents = field(default_factory=dict)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """All clauses, from left to right."""
        return tuple(_places(self.spec.filter, ("filter",)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The property of each clause."""
        return tuple(place.name for place in self.places)

    @cached_property
    def aggregated(self) -> str | None:
        """The property that is aggregated."""
        name = self.spec.aggregation.property
        return None if name is None else canonical_property(name)


Check = Callable[[Subject], Iterator[Finding]]
Checks = Mapping[str, Check]
"""The check of each rule, by the rule's name. A check yields findings of its rule alone."""

AGGREGATED: Path = ("aggregation", "property")


def _places(group: Filter, path: Path) -> Iterator[Place]:
    for index, part in enumerate(group.clauses):
        inner = (*path, "clauses", index)
        if isinstance(part, Filter):
            yield from _places(part, inner)
        else:
            yield Place(part, inner, canonical_property(part.property))


def groups(group: Filter, path: Path = ("filter",)) -> Iterator[tuple[Filter, Path]]:
    """Yield a filter and all groups in it, the inner ones first."""
    for index, part in enumerate(group.clauses):
        if isinstance(part, Filter):
            yield from groups(part, (*path, "clauses", index))
    yield group, path
