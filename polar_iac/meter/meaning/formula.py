"""Filters as formulas over atoms: a comparison of one property, with a sign, joined by `and` and `or`.

A formula says "this filter matches", or its opposite, without "not": the sign of each atom carries it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polar_iac.meter.canonical import canonical_value
from polar_iac.meter.meaning.comparing import LIKE, Engine, Test, compile_test, fits
from polar_iac.meter.meaning.events import bare


@dataclass(frozen=True)
class Atom:
    """A comparison of one property with a value, as an engine makes it."""

    operation: str
    value: Any
    test: Test


@dataclass(frozen=True)
class Literal:
    """The claim that an atom of a property holds, or that it does not."""

    name: str
    atom: int
    """Its place among the atoms of the property."""
    holds: bool


@dataclass(frozen=True)
class Joined:
    """Parts of which all hold (`every`), or at least one. Without parts: true for `every`, else false."""

    every: bool
    parts: tuple[Formula, ...]


Formula = Literal | Joined
TRUE, FALSE = Joined(True, ()), Joined(False, ())


@dataclass
class Vocabulary:
    """The atoms of filters, by bare property, as one engine reads them."""

    engine: Engine
    atoms: dict[str, list[Atom]] = field(default_factory=dict)
    _places: dict[tuple[str, str, type, Any], int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Estimate how many truths of an atom in a cell have to be found out before a search begins."""
        return sum(_size(atoms) for atoms in self.atoms.values())

    def formula(self, filter_: Mapping[str, Any], *, matches: bool) -> Formula:
        """Return the formula that holds for the events that a filter matches, or for those that it does not.

        Raises KeyError when it is not a filter.
        """
        return self._formula(filter_, matches)

    def _formula(self, part: Mapping[str, Any], matches: bool) -> Formula:
        if "clauses" not in part:
            return self._clause(part, matches)
        inside = part["clauses"]
        if not inside:  # every event
            return TRUE if matches else FALSE
        return _joined((part["conjunction"] == "and") == matches, [self._formula(p, matches) for p in inside])

    def _clause(self, clause: Mapping[str, Any], matches: bool) -> Formula:
        name, operation = bare(clause["property"]), clause["operator"]
        value = canonical_value(clause["value"])
        test = compile_test(self.engine, name, operation, value)
        if not fits(name, value) or (not name and self.engine == "billing"):
            return FALSE if matches else TRUE
        known = self.atoms.setdefault(name, [])
        place = self._places.setdefault((name, operation, type(value), value), len(known))
        if place == len(known):
            known.append(Atom(operation, value, test))
        return Literal(name, place, matches)


def _size(atoms: Sequence[Atom]) -> int:
    asked = sum(atom.operation not in ("eq", "ne") for atom in atoms)
    return len(atoms) + asked * (10 + 4 * sum(atom.operation not in LIKE for atom in atoms))


def _joined(every: bool, parts: list[Formula]) -> Formula:
    """Join parts, and open those that are joined the same way."""
    flat: dict[Formula, None] = {}
    for part in parts:
        if isinstance(part, Joined) and not part.parts and part.every != every:
            return part  # false in an `and`, true in an `or`
        if isinstance(part, Joined) and part.every == every:
            flat |= dict.fromkeys(part.parts)
        else:
            flat[part] = None
    if len(flat) == 1:
        return next(iter(flat))
    return Joined(every, tuple(flat))
