"""The reasons why an event is billed or not, in plain words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from polar_iac.meter.meaning import evaluate, explain
from tests.support.strategies_meaning import Json, clauses, events, filters, group

EVENT: Json = {
    "name": "llm",
    "source": "user",
    "timestamp": "2026-01-01T00:00:00.7Z",
    "metadata": {
        "tokens": "150",
        "n": 150,
        "cached": True,
        "usage.tokens": 4,
        "model": "gpt-4o",
        "z": None,
        "l": [1, "a"],
        "o": {"k": 1},
        "long": "x" * 100,
    },
}


@pytest.mark.parametrize(
    ("name", "operator", "value", "matched", "text"),
    [
        (
            "tokens",
            "gt",
            100,
            False,
            '`tokens` is the string "150", compared with the number 100: a string is never greater',
        ),
        (
            "tokens",
            "eq",
            150,
            False,
            '`tokens` is the string "150", compared with the number 150: a string never equals a number',
        ),
        (
            "n",
            "ne",
            "150",
            True,
            '`n` is the number 150, compared with the string "150": a number never equals a string,'
            " and so it differs",
        ),
        ("n", "gte", 100, True, "`n` is the number 150, which is at least the number 100"),
        ("n", "lt", 100, False, "`n` is the number 150, which is not less than the number 100"),
        ("metadata.n", "eq", 150, True, "`n` is the number 150, which equals the number 150"),
        ("n", "ne", 150, False, "`n` is the number 150, which equals the number 150"),
        ("cached", "ne", True, False, "`cached` is true, which equals true"),
        ("cached", "eq", False, False, "`cached` is true, which is not false"),
        ("cached", "eq", 1, True, "`cached` is true (counts as 1), which equals the number 1"),
        ("n", "lte", True, False, "`n` is the number 150, which is not at most true (counts as 1)"),
        (
            "cached",
            "eq",
            "true",
            False,
            '`cached` is true, compared with the string "true": a boolean never equals a string',
        ),
        ("cached", "like", "true", False, '`cached` is true, as text "True", which does not contain "true"'),
        ("model", "like", "gpt-4", True, '`model` is the string "gpt-4o", which contains "gpt-4"'),
        ("model", "not_like", "gpt-4", False, '`model` is the string "gpt-4o", which contains "gpt-4"'),
        ("n", "like", 15, True, '`n` is the number 150, as text "150", which contains "15"'),
        (
            "name",
            "lt",
            "m",
            True,
            '`name` is the string "llm", which is less than the string "m" in the order of characters',
        ),
        ("gone", "ne", 1, False, "the event has no `gone`: no clause matches an absent property"),
        ("z", "ne", 1, False, "`z` is null: no clause matches null"),
        (
            "usage.tokens",
            "gt",
            1,
            False,
            "the event has a key `usage.tokens`, which no filter can reach, since dots lead into objects:"
            " no clause matches an absent property",
        ),
        (
            "model.x",
            "eq",
            1,
            False,
            '`model` is the string "gpt-4o" and no object, so there is no `model.x`:'
            " no clause matches an absent property",
        ),
        ("o.k", "eq", 1, True, "`o.k` is the number 1, which equals the number 1"),
        (
            "o",
            "gt",
            1,
            False,
            '`o` is the object {"k": 1}, compared with the number 1: an object is never greater',
        ),
        (
            "l",
            "ne",
            "a",
            True,
            '`l` is the list [1, "a"], compared with the string "a": a list never equals a string,'
            " and so it differs",
        ),
        (
            "name",
            "ne",
            5,
            False,
            "`name` of an event is text, compared with the number 5: that never matches",
        ),
        (
            "timestamp",
            "gt",
            "2025",
            False,
            "`timestamp` of an event is the number of seconds since 1970, compared with the string"
            ' "2025": that never matches',
        ),
        (
            "timestamp",
            "lte",
            1767225600,
            True,
            "`timestamp` is the number 1767225600, which is at most the number 1767225600",
        ),
        ("", "eq", 1, False, "the clause names no property, and so it never matches"),
        ("long", "like", "y", False, f'`long` is the string "{"x" * 60}…", which does not contain "y"'),
    ],
)
def test_a_clause_says_why_it_matches_or_not(
    name: str, operator: str, value: Any, matched: bool, text: str
) -> None:
    clause = {"property": name, "operator": operator, "value": value}
    (reading,) = explain(group("and", clause), EVENT).clauses
    assert (reading.matched, reading.text) == (matched, text)
    assert (reading.property, reading.operator, reading.value) == (name, operator, value)


def test_each_clause_knows_its_place() -> None:
    one = {"property": "n", "operator": "gt", "value": 1}
    other = {"property": "tokens", "operator": "gt", "value": 1}
    reading = explain(group("and", one, group("or", other, group("and", one))), EVENT)
    assert [clause.place for clause in reading.clauses] == [(0,), (1, 0), (1, 1, 0)]
    assert [clause.matched for clause in reading.clauses] == [True, False, True]
    assert reading.matched


def test_quantities_are_told_apart() -> None:
    """The text "150" is after "100" to SQL, which fails on an order by a boolean."""
    reading = explain(group("and", {"property": "tokens", "operator": "gt", "value": 100}), EVENT)
    assert (reading.matched, reading.in_quantities) == (False, True)
    assert reading.clauses[0].in_quantities is True
    failing = explain(group("and", {"property": "n", "operator": "gt", "value": True}), EVENT)
    assert (failing.matched, failing.in_quantities, failing.clauses[0].in_quantities) == (True, None, None)


@given(filters(refused=True), clauses(refused=True), events())
def test_an_explanation_agrees_with_the_evaluation(filter_: Json, clause: Json, happened: Json) -> None:
    whole = group("and", filter_, clause)
    reading = explain(whole, happened)
    assert reading.matched == evaluate(whole, {"func": "count"}, [happened]).billing[0]
    alone = evaluate(group("and", clause), {"func": "count"}, [happened]).billing[0]
    assert reading.clauses[-1].matched == alone
    assert all(part.text and "\n" not in part.text for part in reading.clauses)
