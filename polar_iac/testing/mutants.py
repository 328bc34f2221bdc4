"""Mutants: a meter with one clause, or its aggregation, changed. A test should notice each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.filter import FUNCS, INT32, MAX_VALUE_TEXT, ORDER_OPERATORS
from polar_iac.meter.meaning.events import bare
from polar_iac.meter.spec import MeterSpec
from polar_iac.testing.doubts import Place, clauses
from polar_iac.testing.model import Json
from polar_iac.yaml.data import at, replaced, without
from polar_iac.yaml.scalars import resolve

_OPPOSITE = {"eq": "ne", "gt": "lte", "gte": "lt", "like": "not_like"}
OPPOSITE = _OPPOSITE | {other: one for one, other in _OPPOSITE.items()}
_NOTHING: Json = {"func": "unique", "property": "name"}
"""Adds up to nothing where metadata has no `name`: what a test of a `count` must tell from it."""


@dataclass(frozen=True)
class Mutant:
    """A changed meter. `instead` is what stands in the place of the part; None if the part is removed."""

    filter: Json
    aggregation: Json
    instead: Json | None


@dataclass(frozen=True)
class Part:
    """A clause or the aggregation of a meter, with its place below the meter, and its mutants."""

    place: Place
    data: Json
    mutants: tuple[Mutant, ...]
    """Of a clause the first one lacks it, and the second one has it negated."""

    @property
    def is_aggregation(self) -> bool:
        return "func" in self.data


def parts(spec: MeterSpec) -> Iterator[Part]:
    """Yield the clauses of a meter in the order of its filter, and then its aggregation."""
    filter_, aggregation = spec.wire("filter"), spec.wire("aggregation")
    for place, clause in clauses(filter_, ("filter",)):
        path = place[1:]
        changed = [Mutant(without(filter_, path), aggregation, None)]
        for instead in _clauses_instead(clause):
            changed.append(Mutant(replaced(filter_, path, instead), aggregation, instead))
        yield Part(place, clause, tuple(changed))
    others = tuple(Mutant(filter_, instead, instead) for instead in _aggregations_instead(aggregation))
    yield Part(("aggregation",), aggregation, others)


def _clauses_instead(clause: Json) -> Iterator[Json]:
    """Yield the clause negated, with its constant nudged, and with the constant's type changed."""
    yield {**clause, "operator": OPPOSITE[clause["operator"]]}
    for value in (*_nudged(clause["value"]), *_of_another_type(clause["value"])):
        if not _is_refused(clause, value):
            yield {**clause, "value": value}


def _nudged(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (near for near in (value + 1, value - 1) if near in INT32)
    else:
        if len(value) < MAX_VALUE_TEXT:
            yield f"{value}~"
        if value:
            yield value[:-1]


def _of_another_type(value: Any) -> Iterator[Any]:
    """Yield `"5"` for 5, `"true"` for true, and the other way round. A word is nothing but a text."""
    if not isinstance(value, str):
        yield str(value).lower()
    elif isinstance(other := resolve(value), bool) or (type(other) is int and other in INT32):
        yield other


def _is_refused(clause: Json, value: Any) -> bool:
    """Tell whether Polar stores a clause with this value and then fails: it orders nothing by a boolean."""
    failing = (*ORDER_OPERATORS, "eq", "ne") if bare(clause["property"]) == "timestamp" else ORDER_OPERATORS
    return isinstance(value, bool) and clause["operator"] in failing


def _aggregations_instead(aggregation: Json) -> Iterator[Json]:
    if aggregation["func"] == "count":
        yield _NOTHING
        return
    for func in FUNCS:
        if func != aggregation["func"]:
            yield {"func": func} if func == "count" else {**aggregation, "func": func}


def part_at(spec: MeterSpec, place: Place) -> Json:
    """Return the clause or aggregation at a place of a meter."""
    data: Json = at(spec.wire(str(place[0])), place[1:])
    return data
