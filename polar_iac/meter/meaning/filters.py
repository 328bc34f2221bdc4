"""Filters, compiled for Polar's two engines: once, into functions that are called for each event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.canonical import canonical_value
from polar_iac.meter.meaning.comparing import ORDER, billing_test, compile_test, fits
from polar_iac.meter.meaning.events import Event, QueryError, bare, lookup

BillingTest = Callable[[Event], bool]
SqlTest = Callable[[Event], bool | None]
"""True, False, or None for NULL. Raises QueryError."""

BILLING_FIELDS: Mapping[str, Callable[[Event], Any]] = {
    "name": lambda event: event.name,
    "source": lambda event: event.source,
    "timestamp": lambda event: event.seconds_cut,
}
SQL_FIELDS: Mapping[str, Callable[[Event], Any]] = {
    **BILLING_FIELDS,
    "timestamp": lambda event: event.seconds_rounded,
}


def always(_: Event) -> bool:
    """Match every event."""
    return True


def never(_: Event) -> bool:
    """Match no event."""
    return False


@dataclass(frozen=True)
class Matcher:
    """A compiled filter."""

    billing: BillingTest
    sql: Callable[[Event], bool]
    """Raises QueryError."""
    sql_fails: bool
    """True if the query fails for any data: only by clauses that the manifest refuses."""


def compile_filter(filter_: Mapping[str, Any]) -> Matcher:
    """Compile a filter, given as JSON, for both engines. Raises KeyError when it is not a filter.

    NULL does not match, and texts are ordered by code point in both. SQL orders texts by the database's
    collation instead: see `orders_text`. Clauses are asked from left to right until one decides; the database
    may ask the cheap ones first, which shows only where a number beyond a double fails the query.
    """
    try:
        sql = _sql(filter_)
    except QueryError:
        sql = _Sql(never, refused=True)

    def matches(event: Event) -> bool:
        if sql.refused:
            raise QueryError("the database refuses the query, whatever the data")
        return sql.test(event) is True

    return Matcher(_billing(filter_), matches, sql.refused)


# Billing


def _billing_clause(name: str, operation: str, value: Any) -> BillingTest:
    test = billing_test(operation, value)
    if not name or not fits(name, value):
        return never
    if (own := BILLING_FIELDS.get(name)) is not None:
        return lambda event: bool(test(own(event)))
    if "." not in name:
        return lambda event: bool(test(event.metadata.get(name)))
    read = lookup(name)
    return lambda event: bool(test(read(event)))


def _all(tests: Sequence[BillingTest]) -> BillingTest:
    def matches(event: Event) -> bool:
        for test in tests:  # noqa: SIM110  a generator takes twice as long
            if not test(event):
                return False
        return True

    return matches


def _any(tests: Sequence[BillingTest]) -> BillingTest:
    def matches(event: Event) -> bool:
        for test in tests:  # noqa: SIM110
            if test(event):
                return True
        return False

    return matches


def _billing(part: Mapping[str, Any]) -> BillingTest:
    if "clauses" not in part:
        return _billing_clause(bare(part["property"]), part["operator"], canonical_value(part["value"]))
    tests = [_billing(inner) for inner in part["clauses"]]
    if not tests:
        return always
    if len(tests) == 1:
        return tests[0]
    return _all(tests) if part["conjunction"] == "and" else _any(tests)


# SQL


@dataclass(frozen=True)
class _Sql:
    """A part of the WHERE clause.

    `constant` is what the query builder knows before it asks; `refused` means that PostgreSQL does not take
    the text, whatever the data.
    """

    test: SqlTest
    constant: bool | None = None
    refused: bool = False


def _constant(value: bool) -> _Sql:
    return _Sql(lambda _: value, constant=value)


def _sql_clause(name: str, operation: str, value: Any) -> _Sql:
    if not fits(name, value):
        return _constant(False)
    test = compile_test("quantities", name, operation, value)
    if isinstance(value, bool) and operation in ORDER:
        raise QueryError("the query builder orders nothing by a bool")
    read = SQL_FIELDS.get(name) or lookup(name)
    # PostgreSQL compares no int with a bool, but it finds its text in the text of one.
    refused = name == "timestamp" and isinstance(value, bool) and operation in ("eq", "ne")
    return _Sql(lambda event: test(read(event)), refused=refused)


def _sql_group(conjunction: str, parts: Sequence[_Sql]) -> _Sql:
    """Join parts as the query builder does: a constant that decides leaves nothing else in the query (read).

    So `or[and[], timestamp eq true]` is every event, although its second clause alone would fail.
    """
    if not parts:
        return _constant(True)
    deciding = conjunction == "or"
    if any(part.constant is deciding for part in parts):
        return _constant(deciding)
    asked = [part for part in parts if part.constant is None]
    if not asked:
        return _constant(not deciding)
    tests = [part.test for part in asked]

    def matches(event: Event) -> bool | None:
        unknown = False
        for test in tests:
            truth = test(event)
            if truth is deciding:
                return deciding
            unknown = unknown or truth is None
        return None if unknown else not deciding

    return _Sql(matches, refused=any(part.refused for part in asked))


def _sql(part: Mapping[str, Any]) -> _Sql:
    if "clauses" in part:
        return _sql_group(part["conjunction"], [_sql(inner) for inner in part["clauses"]])
    return _sql_clause(bare(part["property"]), part["operator"], canonical_value(part["value"]))


def orders_text(filter_: Mapping[str, Any]) -> bool:
    """Tell whether a filter may order texts, so that SQL's answer depends on the database's collation."""
    if "clauses" in filter_:
        return any(orders_text(part) for part in filter_["clauses"])
    name, value = bare(filter_["property"]), filter_["value"]
    as_text = name != "timestamp" and not isinstance(value, bool) and fits(name, value)
    return as_text and filter_["operator"] in ORDER
