"""Single comparisons, as each engine makes them of a property's value and a clause's value.

A comparison is compiled into a function of the property's value alone, so that evaluating, explaining and
deciding all use the same rules. Every rule was observed on recorded cases.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

from polar_iac.meter.meaning.events import OWN_FIELDS, TEXT_FIELDS, double, json_text

Engine = Literal["billing", "quantities"]
"""`billing` matches an event in Python when it is ingested; `quantities` is the SQL of `/quantities`."""

Test = Callable[[Any], bool | None]
"""A compiled comparison. None is SQL's NULL, which matches nothing. Raises QueryError for SQL."""

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


def fits(name: str, value: Any) -> bool:
    """Tell whether an event's own field can be compared with a value: text with text, seconds with ints.

    If not, the clause matches nothing, whatever its operator. A bool counts as an int here.
    """
    return name not in OWN_FIELDS or isinstance(value, str) == (name in TEXT_FIELDS)


def text_in_sql(value: Any) -> str:
    """Return a clause's value as the query compares it with text: a bool is `t` or `f`."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)


def part_of(engine: Engine, value: Any) -> str:
    """Return the text that `like` and `not_like` look for."""
    return str(value) if engine == "billing" else text_in_sql(value)


def printed(engine: Engine, actual: Any) -> str:
    """Return the text in which `like` and `not_like` look: `True` for billing, `true` for SQL."""
    if isinstance(actual, str):
        return actual
    return str(actual) if engine == "billing" else json_text(actual)


def billing_test(operation: str, value: Any) -> Test:
    """Compile a comparison as Python makes it when an event is ingested. Null and absent match nothing."""
    test = TESTS[operation]
    if operation in LIKE:
        part = str(value)  # `True` and `['a']`, as Python prints them
        return lambda actual: actual is not None and test(str(actual), part)
    # A bool is an int to Python, so that `true` equals 1 on both sides.
    comparable = str if isinstance(value, str) else (int, float)

    def matches(actual: Any) -> bool:
        if isinstance(actual, comparable):
            return test(actual, value)
        return operation == "ne" and actual is not None

    return matches


def sql_test(operation: str, value: Any) -> Test:
    """Compile a comparison as `/quantities` makes it in SQL.

    Texts are ordered by code point here; the server orders them by the database's collation. Ordering by a
    bool fails for any data, which is not seen here: see `filters`.
    """
    test, text = TESTS[operation], text_in_sql(value)
    if operation in LIKE:

        def matches_text(actual: Any) -> bool | None:
            return None if actual is None else test(printed("quantities", actual), text)

        return matches_text

    def matches(actual: Any) -> bool | None:
        if isinstance(actual, str):
            return test(actual, text)
        if isinstance(actual, bool):
            return isinstance(value, bool) and test(actual, value)
        if isinstance(actual, int | float):
            return isinstance(value, int | float) and test(double(actual), value)
        return None  # null, absent, a list or an object: the CASE has no branch for them

    return matches


def seconds_test(operation: str, value: Any) -> Test:
    """Compile a comparison of the event's timestamp, in seconds, as SQL makes it: with an int as an int."""
    test = TESTS[operation]
    if operation in LIKE:
        part = text_in_sql(value)
        return lambda seconds: test(str(seconds), part)
    return lambda seconds: test(seconds, value)


def compile_test(engine: Engine, name: str, operation: str, value: Any) -> Test:
    """Compile the comparison of a bare property by an engine. Raises KeyError for an unknown operator."""
    if engine == "billing":
        return billing_test(operation, value)
    return seconds_test(operation, value) if name == "timestamp" else sql_test(operation, value)
