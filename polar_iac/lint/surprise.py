"""Rules about what is right, and yet surprises most people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from polar_iac.lint.deciding import implies, joined, meaning
from polar_iac.lint.rule import Finding
from polar_iac.lint.subject import Checks, Subject
from polar_iac.meter.declared import TYPES
from polar_iac.meter.filter import EVENT_FIELDS, Clause

_NEGATIVE = ("ne", "not_like")


def system_source(subject: Subject) -> Iterator[Finding]:
    """Find clauses that only events of the system pass."""
    for place in subject.places:
        if place.name == "source" and isinstance(place.clause.value, str):
            clause = place.clause
            is_system = clause.operator == "eq" and clause.value == "system"
            if is_system or _passes_only_system(clause):
                message = f"{place.text} takes events that Polar makes itself: no invoice ever has them"
                yield place.finding("system-source", message)


def _passes_only_system(clause: Clause) -> bool:
    system, user = (joined("and", Clause("source", "eq", source)) for source in ("system", "user"))
    return implies(system, joined("and", clause)) and not implies(user, joined("and", clause))


def negative_clause(subject: Subject) -> Iterator[Finding]:
    """Find clauses that leave out the events without the property."""
    for place in subject.places:
        if place.clause.operator in _NEGATIVE and place.name not in EVENT_FIELDS:
            message = f"{place.text} leaves out events that have no `{place.name}`"
            yield place.finding("negative-clause", message, "operator")


def negative_alone(subject: Subject) -> Iterator[Finding]:
    """Find filters of nothing but negative clauses."""
    operators = {place.clause.operator for place in subject.places}
    if operators and operators <= {*_NEGATIVE}:
        message = "this filter only says what events are not: every other event is billed, future ones too"
        yield Finding("negative-alone", ("filter",), message)


def engines_disagree(subject: Subject) -> Iterator[Finding]:
    """Find clauses that both engines read differently, for a value that an event may have."""
    for place in subject.places:
        if place.name and place.name not in EVENT_FIELDS and "." not in place.name:
            types = _types(subject, place.name)
            clause = place.clause
            if example := _disagreement(clause.operator, isinstance(clause.value, bool), clause.value, types):
                value, billed = example
                read = (
                    ("billing counts", "balances do not")
                    if billed
                    else ("balances count", "billing does not")
                )
                shown = value if isinstance(value, str) else str(value).lower()
                kind = "text" if isinstance(value, str) else "value"
                yield place.finding(
                    "engines-disagree",
                    f"{place.text}: {read[0]} an event whose `{place.name}` is the {kind} {shown}, and "
                    f"{read[1]}",
                )


def _types(subject: Subject, name: str) -> tuple[str, ...]:
    """Return the declared types of a property, or all where it is not declared."""
    declared = {properties[name].type for properties in subject.declared.values() if name in properties}
    return tuple(sorted(declared or TYPES))


@lru_cache(maxsize=10_000)
def _disagreement(
    operator: str, _is_bool: bool, value: str | int | bool, types: Sequence[str]
) -> tuple[Any, bool] | None:
    """Return a value that the engines read differently, and if billing counts it.

    `_is_bool` tells 1 and true apart for the cache.
    """
    clause = {"property": "p", "operator": operator, "value": value}
    events: list[dict[str, Any]] = [
        {"name": "e", "source": "user", "timestamp": "2026-01-01T00:00:00Z", "metadata": {"p": candidate}}
        for candidate in _candidates(value)
        if any(type(candidate) in TYPES[name] for name in types)
    ]
    if not events:
        return None
    outcome = meaning().evaluate({"conjunction": "and", "clauses": [clause]}, {"func": "count"}, events)
    for event, billed, counted in zip(events, outcome.billing, outcome.sql_matched or (), strict=False):
        if billed is not counted:
            return event["metadata"]["p"], bool(billed)
    return None


def _candidates(value: str | int | bool) -> Iterator[str | int | float | bool]:
    """Yield values near one of a clause, in every type that ingestion takes."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield from (str(value), str(value + 1), str(value - 1), value, value + 1, value - 1)
    yield from (str(value) or "a", "true", "True", "t", "f", "150")
    yield from (1, 0, 0.0000001, True, False)


def display_multiplier(subject: Subject) -> Iterator[Finding]:
    """Find multipliers, which are for display."""
    if subject.spec.custom_multiplier is not None:
        message = "custom_multiplier changes what customers read; prices stay per single unit"
        yield Finding("display-multiplier", ("custom_multiplier",), message)


def per_customer(subject: Subject) -> Iterator[Finding]:
    """Find aggregations that do not add up."""
    func = subject.spec.aggregation.func
    if func in ("avg", "max", "unique"):
        message = f"{func} is computed for each customer and each period: two periods do not add up"
        yield Finding("per-customer", ("aggregation", "func"), message)


CHECKS: Checks = {
    "system-source": system_source,
    "negative-clause": negative_clause,
    "negative-alone": negative_alone,
    "engines-disagree": engines_disagree,
    "display-multiplier": display_multiplier,
    "per-customer": per_customer,
}
