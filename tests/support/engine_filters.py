"""Compile a filter for Polar's two engines: billing at ingest, in Python, and `/quantities`, in SQL.

Each clause becomes a function that is called for each event. Every rule was observed on recorded cases;
`tests/meter/semantics` holds a sample.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.engine_events import (
    OWN_FIELDS,
    TEXT_FIELDS,
    Event,
    QueryError,
    bare,
    double,
    json_text,
    lookup,
)

ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
LIKE: Mapping[str, Callable[[str, str], bool]] = {
    "like": lambda text, part: part in text,
    "not_like": lambda text, part: part not in text,
}
TESTS: Mapping[str, Callable[[Any, Any], bool]] = {"eq": operator.eq, "ne": operator.ne, **ORDER, **LIKE}


# Billing


BillingTest = Callable[[Event], bool]
BILLING_FIELDS: Mapping[str, Callable[[Event], Any]] = {
    "name": lambda event: event.name,
    "source": lambda event: event.source,
    "timestamp": lambda event: event.seconds_cut,
}


def always(_: Event) -> bool:
    return True


def never(_: Event) -> bool:
    return False


def _fits(name: str, value: Any) -> bool:
    """True if a field of the event itself can be compared with a value: text with text, seconds with ints."""
    return name not in OWN_FIELDS or isinstance(value, str) == (name in TEXT_FIELDS)


def _billing_clause(name: str, operation: str, value: Any) -> BillingTest:
    if not name or not _fits(name, value):
        return never
    read = BILLING_FIELDS.get(name) or lookup(name)
    test = TESTS[operation]
    if operation in LIKE:
        part = str(value)  # `True` and `['a']`, as Python prints them

        def matches_text(event: Event) -> bool:
            actual = read(event)
            return actual is not None and test(str(actual), part)

        return matches_text

    # A bool is an int to Python, so that `true` equals 1 on both sides.
    comparable = str if isinstance(value, str) else (int, float)

    def matches(event: Event) -> bool:
        actual = read(event)
        if isinstance(actual, comparable):
            return test(actual, value)
        return actual is not None and operation == "ne"

    return matches


def _billing_group(conjunction: str, tests: Sequence[BillingTest]) -> BillingTest:
    if not tests:
        return always
    if conjunction == "and":
        return lambda event: all(test(event) for test in tests)
    return lambda event: any(test(event) for test in tests)


def _billing(part: Mapping[str, Any]) -> BillingTest:
    if "clauses" in part:
        return _billing_group(part["conjunction"], [_billing(inner) for inner in part["clauses"]])
    return _billing_clause(bare(part["property"]), part["operator"], part["value"])


# SQL


SqlTest = Callable[[Event], bool | None]
"""True, False, or None for NULL. Raises QueryError."""


@dataclass(frozen=True)
class _Sql:
    """A part of the WHERE clause. `constant` is what the query builder knows before it asks; `refused`
    means that PostgreSQL does not take the text, whatever the data.
    """

    test: SqlTest
    constant: bool | None = None
    refused: bool = False


def _constant(value: bool) -> _Sql:
    return _Sql(lambda _: value, constant=value)


def _sql_value_text(value: Any) -> str:
    """Return a clause's value as the query compares it with text: a bool is `t` or `f`."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)


def _sql_clause(name: str, operation: str, value: Any) -> _Sql:
    if name not in OWN_FIELDS:
        return _Sql(_sql_metadata(name, operation, value))
    if not _fits(name, value):
        return _constant(False)
    test = TESTS[operation]
    if name == "source":
        return _Sql(lambda event: test(event.source, value))
    if name == "name":
        return _Sql(lambda event: test(event.name, value))
    if operation in LIKE:
        part = _sql_value_text(value)
        return _Sql(lambda event: test(str(event.seconds_rounded), part))
    if isinstance(value, bool) and operation in ORDER:
        raise QueryError("the query builder orders nothing by a bool")
    return _Sql(lambda event: test(event.seconds_rounded, value), refused=isinstance(value, bool))


def _sql_metadata(name: str, operation: str, value: Any) -> SqlTest:
    read, test, text = lookup(name), TESTS[operation], _sql_value_text(value)
    if operation in LIKE:

        def matches_text(event: Event) -> bool | None:
            actual = read(event)
            if actual is None:
                return None
            return test(actual if isinstance(actual, str) else json_text(actual), text)

        return matches_text

    if isinstance(value, bool) and operation in ORDER:
        raise QueryError("the query builder orders nothing by a bool")

    def matches(event: Event) -> bool | None:
        actual = read(event)
        if isinstance(actual, str):
            return test(actual, text)
        if isinstance(actual, bool):
            return isinstance(value, bool) and test(actual, value)
        if isinstance(actual, int | float):
            return isinstance(value, int) and test(double(actual), value)
        return None  # null, absent, a list or an object: the CASE has no branch for them

    return matches


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
    return _sql_clause(bare(part["property"]), part["operator"], part["value"])


# Filters


@dataclass(frozen=True)
class Matcher:
    """A compiled filter."""

    billing: BillingTest
    sql: Callable[[Event], bool]
    """Raises QueryError."""
    sql_fails: bool
    """True if the query fails for any data: only by clauses that the manifest refuses."""


def compile_filter(filter_: Mapping[str, Any]) -> Matcher:
    """Compile a filter for both engines. NULL does not match, and texts are ordered by code point in both.

    SQL orders texts by the database's collation instead: see `orders_text`. Clauses are asked from left to
    right until one decides; the database may ask the cheap ones first, which shows only where a number
    beyond a double fails the query.
    """
    filter_ = _with_whole_ints(filter_)
    try:
        sql = _sql(filter_)
    except QueryError:
        sql = _Sql(never, refused=True)

    def matches(event: Event) -> bool:
        if sql.refused:
            raise QueryError("the database refuses the query, whatever the data")
        return sql.test(event) is True

    return Matcher(_billing(filter_), matches, sql.refused)


def _with_whole_ints(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a filter with `1.0` as `1`, as Polar stores it (observed)."""
    if "clauses" in part:
        return {**part, "clauses": [_with_whole_ints(inner) for inner in part["clauses"]]}
    return {**part, "value": int(part["value"])} if isinstance(part["value"], float) else part


def orders_text(filter_: Mapping[str, Any]) -> bool:
    """True if a filter may order texts, so that SQL's answer depends on the database's collation."""
    if "clauses" in filter_:
        return any(orders_text(part) for part in filter_["clauses"])
    name, value = bare(filter_["property"]), filter_["value"]
    as_text = name != "timestamp" and not isinstance(value, bool) and _fits(name, value)
    return as_text and filter_["operator"] in ORDER
