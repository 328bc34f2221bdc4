"""Events that tell two meters apart in a test, and proofs that there are none.

A test can hold what ingestion accepts of users, and anything of the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.meaning.claims import find, implies, ingestible_difference, ingestible_witness, never
from polar_iac.meter.meaning.events import OWN_FIELDS, TEXT_FIELDS, bare
from polar_iac.meter.meaning.search import NONE, OPEN, Finding
from polar_iac.testing.doubts import clauses
from polar_iac.testing.model import Json
from polar_iac.testing.mutants import Mutant

NUMERIC = ("sum", "max", "min", "avg")


def every(*parts: Json) -> dict[str, Any]:
    """Return the filter that matches what all parts match."""
    return {"conjunction": "and", "clauses": list(parts)}


def clause(name: str, operator: str, value: Any) -> dict[str, Any]:
    """Return a clause as JSON."""
    return {"property": name, "operator": operator, "value": value}


_OF_THE_SYSTEM = clause("source", "eq", "system")


def counted_by(filter_: Json, aggregation: Json) -> dict[str, Any]:
    """Return the filter of what a meter counts: what its own one matches and its aggregation takes."""
    return every(filter_, *_taken(aggregation))


def _taken(aggregation: Json) -> Iterator[Json]:
    """Yield the conditions of an aggregation: a number, and no boolean, which Python prints as `True`."""
    name = aggregation.get("property", "")
    if aggregation["func"] not in NUMERIC or bare(name) in OWN_FIELDS:
        return
    either = [clause(name, "gte", 0), clause(name, "lt", 0)]
    yield {"conjunction": "or", "clauses": either}
    yield clause(name, "not_like", "True")
    yield clause(name, "not_like", "False")


def difference(one: Json, other: Json | None) -> Finding:
    """Search for an event that can be in a test, which one filter matches and the other one does not."""
    of_users = ingestible_difference(one, other)
    if of_users.status == "found":
        return of_users
    of_the_system = find(every(one, _OF_THE_SYSTEM), other, plausible=False)
    if of_the_system.status == "found":
        return of_the_system
    return NONE if of_users.status == of_the_system.status == "none" else OPEN


@dataclass(frozen=True)
class Comparison:
    """The comparison of a meter with a mutant.

    `alike` is True if it is proven that no test can tell them apart, None if that stayed open, else False.
    Without an event, False says no more than that two aggregations of the same events are not proven alike.
    """

    alike: bool | None
    event: Json | None = None
    """An event that one of them counts, and the other one does not."""
    counted: bool = False
    """True if the meter counts the event, and the mutant does not."""


def compare(filter_: Json, aggregation: Json, mutant: Mutant) -> Comparison:
    """Compare a meter with a mutant, as far as tests can."""
    statuses = []
    for one, other, counted in _directions(filter_, aggregation, mutant):
        finding = difference(one, other)
        if finding.event:
            return Comparison(False, finding.event, counted)
        statuses.append(finding.status)
    if aggregation != mutant.aggregation and not _sums_alike(filter_, aggregation, mutant.aggregation):
        return Comparison(False)
    return Comparison(True if statuses == ["none", "none"] else None)


def told_apart(filter_: Json, aggregation: Json, mutant: Mutant) -> Iterator[tuple[Json, bool]]:
    """Yield an event that the meter alone counts, with True, and one that the mutant alone counts."""
    for one, other, counted in _directions(filter_, aggregation, mutant):
        if event := difference(one, other).event:
            yield event, counted


def _directions(filter_: Json, aggregation: Json, mutant: Mutant) -> Iterator[tuple[Json, Json, bool]]:
    one, other = counted_by(filter_, aggregation), counted_by(mutant.filter, mutant.aggregation)
    yield one, other, True
    yield other, one, False


def _sums_alike(filter_: Json, one: Json, other: Json) -> bool:
    """Tell whether two aggregations of the same events are proven to come to the same."""
    counted = counted_by(filter_, one)
    if never(counted):
        return True
    funcs = {one["func"], other["func"]}
    if "count" not in funcs and ingestible_witness(counted).status == "none":
        return True  # nothing is of a user, and so all quantities are 0
    name = one.get("property") or other.get("property", "")
    if bare(name) in TEXT_FIELDS:
        return funcs <= {*NUMERIC}  # an invoice adds up no text
    return any(
        _on_equal(one["func"], value) == _on_equal(other["func"], value) and _is_always(counted, name, value)
        for value in _constants(filter_, name)
    )


def _on_equal(func: str, value: int) -> tuple[int, int]:
    """Return what one and what two events with one value come to. That says it for any number of them."""
    if func in ("sum", "count"):
        each = value if func == "sum" else 1
        return each, 2 * each
    each = 1 if func == "unique" else value
    return each, each


def _is_always(counted: Json, name: str, value: int) -> bool:
    """Tell whether a property of counted events always has a value, as a number."""
    numbers = every(clause(name, "eq", value), clause(name, "not_like", "True"))
    return implies(counted, numbers) is True


def _constants(filter_: Json, name: str) -> set[int]:
    return {
        found["value"]
        for _, found in clauses(filter_, ())
        if found["operator"] == "eq" and bare(found["property"]) == bare(name) and type(found["value"]) is int
    }
