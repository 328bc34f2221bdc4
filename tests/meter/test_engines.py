"""Both engines against recorded cases, against the documented rules one by one, and against properties."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.meter.meaning import Outcome, evaluate
from polar_iac.meter.meaning.aggregations import SYSTEM_EVENTS
from polar_iac.meter.meaning.events import Event, QueryError, stored
from polar_iac.meter.meaning.filters import compile_filter, orders_text
from tests.support.strategies_meaning import Json, aggregations, clauses, events, filters, group

SAMPLE = Path(__file__).parent / "semantics" / "sample.jsonl"
CASES: list[Json] = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
COUNT: Json = {"func": "count"}


def event(metadata: Json | None = None, **fields: str) -> Json:
    own = {"name": "e", "source": "user", "timestamp": "2023-11-14T22:13:20Z"}
    return {**own, **fields, "metadata": metadata or {}}


def close(one: float | None, other: float | None) -> bool:
    """True if two quantities are equal; the last bits of a sum depend on the order of rows."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def of(case: Json) -> Outcome:
    return evaluate(case["filter"], case["aggregation"], case["events"])


@pytest.mark.unmeasured  # the rules below run the same lines
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_engines_answer_as_polar_was_recorded_to(case: Json) -> None:
    ours = of(case)
    assert ours.billing == case["billing"]
    assert close(ours.billing_quantity, case["billing_quantity"])
    assert close(ours.charged_quantity, case["charged_quantity"])
    if not case.get("collation"):
        assert ours.sql_matched == case["sql_matched"]
        assert close(ours.sql_quantity, case["sql_quantity"])
    assert "; ".join(ours.errors) == (case["error"] or "")


def test_a_count_charges_system_events_under_names_that_polar_never_gives() -> None:
    """The recordings hold such events; a server does not, so that an invoice counts those of users."""
    names = ("call", "custom.thing", "order.paid", "meter.credited")
    happened = [event(), *(event(name=name, source="system") for name in names)]
    assert {"order.paid", "meter.credited"} <= SYSTEM_EVENTS
    assert evaluate(group("and"), COUNT, happened).charged_quantity == 3
    unique = {"func": "unique", "property": "p"}
    others = [event({"p": 1}), event({"p": 2}, name="call", source="system")]
    assert evaluate(group("and"), unique, others).charged_quantity == 1


def test_an_answer_that_depends_on_the_collation_is_foreseen() -> None:
    assert all(orders_text(case["filter"]) for case in CASES if case.get("collation"))


# The documented rules, one by one: a clause, an event's metadata, billing, SQL


FAILS = "fails"
RULES: list[tuple[str, str, Any, Json, bool, bool | str]] = [
    ("name", "ne", 5, {}, False, False),
    ("source", "not_like", True, {}, False, False),
    ("timestamp", "ne", "17", {}, False, False),
    ("timestamp", "gt", True, {}, True, FAILS),
    ("timestamp", "eq", True, {}, False, FAILS),
    ("timestamp", "not_like", True, {}, True, True),
    ("metadata.name", "eq", "e", {"name": "x"}, True, True),
    ("metadata.metadata.name", "eq", "e", {"name": "x"}, True, True),
    ("p", "ne", 5, {}, False, False),
    ("p", "not_like", "x", {"p": None}, False, False),
    ("p.x", "ne", 5, {"p": 5}, False, False),
    ("p.0", "eq", 5, {"p": [5]}, False, False),
    ("p.x", "eq", 5, {"p.x": 5}, False, False),
    ("p.x", "eq", 5, {"p": {"x": 5}}, True, True),
    ("p..x", "eq", 5, {"p": {"": {"x": 5}}}, True, True),
    ("metadata.metadata.p", "eq", 5, {"p": 5}, True, True),
    ("metadata.metadata.metadata.p", "eq", 5, {"p": 5}, False, False),
    ("metadata.metadata.metadata.p", "eq", 5, {"metadata": {"p": 5}}, True, True),
    ("", "eq", 5, {"": 5}, False, True),
    ("", "not_like", "x", {"": 5}, False, True),
    ("p", "eq", 5, {"p": "5"}, False, True),
    ("p", "ne", 5, {"p": "5"}, True, False),
    ("p", "gte", 5, {"p": "5"}, False, True),
    ("p", "eq", True, {"p": "t"}, False, True),
    ("p", "ne", False, {"p": "f"}, True, False),
    ("p", "ne", "5", {"p": 5}, True, False),
    ("p", "eq", True, {"p": 1.0}, True, True),
    ("p", "ne", False, {"p": 2}, True, True),
    ("p", "eq", 1, {"p": True}, True, False),
    ("p", "gt", 0, {"p": True}, True, False),
    ("p", "ne", "true", {"p": True}, True, False),
    ("p", "eq", True, {"p": True}, True, True),
    ("p", "ne", 5, {"p": [5]}, True, False),
    ("p", "eq", "{}", {"p": {}}, False, False),
    ("p", "gt", False, {}, False, FAILS),
    ("p", "lt", True, {"p": False}, True, FAILS),
    ("p", "gt", 5, {"p": 10**400}, True, FAILS),
    ("p", "gt", "5", {"p": 10**400}, False, False),
    ("p", "eq", 5, {"p": 5.0}, True, True),
    ("p", "eq", 5.0, {"p": 5}, True, True),
    ("p", "like", 1.0, {"p": "1"}, True, True),
    ("p", "like", "True", {"p": True}, True, False),
    ("p", "like", "true", {"p": True}, False, True),
    ("p", "like", True, {"p": True}, True, True),
    ("p", "like", True, {"p": False}, False, False),
    ("p", "like", False, {"p": "f"}, False, True),
    ("p", "like", "e-07", {"p": 1e-07}, True, False),
    ("p", "like", "0.0000001", {"p": 1e-07}, False, True),
    ("p", "like", "00000", {"p": 1e16}, True, True),
    ("p", "like", "-", {"p": -0.0}, False, False),
    ("p", "like", "['a', None]", {"p": ["a", None]}, True, False),
    ("p", "like", '["a", null]', {"p": ["a", None]}, False, True),
    ("p", "like", "{'b': 1, 'aa': 2}", {"p": {"aa": 2, "b": 1}}, True, False),
    ("p", "like", '{"b": 1, "aa": 2}', {"p": {"aa": 2, "b": 1}}, False, True),
    ("p", "like", "", {"p": ""}, True, True),
    ("p", "like", "%", {"p": "a"}, False, False),
    ("p", "like", "A", {"p": "a"}, False, False),
]


@pytest.mark.parametrize(("name", "operation", "value", "metadata", "billing", "sql"), RULES)
def test_the_engines_follow_each_documented_rule(
    name: str, operation: str, value: Any, metadata: Json, billing: bool, sql: bool | str
) -> None:
    matcher = compile_filter(group("and", {"property": name, "operator": operation, "value": value}))
    one = Event.from_json(event(metadata))
    assert matcher.billing(one) is billing
    if isinstance(sql, bool):
        assert matcher.sql(one) is sql
    else:
        with pytest.raises(QueryError):
            matcher.sql(one)


@pytest.mark.parametrize(
    ("moment", "cut", "rounded"),
    [
        ("2023-11-14T22:13:20.499999Z", 1_700_000_000, 1_700_000_000),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000, 1_700_000_001),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000, 1_700_000_001),
        ("1969-12-31T23:59:59.6Z", 0, 0),
        ("1969-12-31T23:59:59.5Z", 0, -1),
        ("1969-12-31T23:59:58.5Z", -1, -2),
    ],
)
def test_billing_cuts_a_time_to_seconds_and_sql_rounds_it(moment: str, cut: int, rounded: int) -> None:
    read = Event.from_json(event(timestamp=moment))
    assert (read.seconds_cut, read.seconds_rounded) == (cut, rounded)


TRUE: Json = group("and")
TIMESTAMP_IS_TRUE: Json = {"property": "timestamp", "operator": "eq", "value": True}
ORDERED_BY_BOOL: Json = {"property": "p", "operator": "gt", "value": True}
NAME_IS_A_NUMBER: Json = {"property": "name", "operator": "eq", "value": 5}


@pytest.mark.parametrize(
    ("filter_", "fails"),
    [
        (group("and", TRUE, TIMESTAMP_IS_TRUE), True),
        (group("or", TRUE, TIMESTAMP_IS_TRUE), False),
        (group("and", NAME_IS_A_NUMBER, group("or", TIMESTAMP_IS_TRUE)), False),
        (group("or", NAME_IS_A_NUMBER, TIMESTAMP_IS_TRUE), True),
        (group("or", TRUE, ORDERED_BY_BOOL), True),
    ],
)
def test_a_query_fails_unless_a_constant_decides_before(filter_: Json, fails: bool) -> None:
    assert compile_filter(filter_).sql_fails is fails


@pytest.mark.parametrize("conjunction", ["and", "or"])
def test_an_empty_group_matches_every_event(conjunction: str) -> None:
    assert evaluate(group(conjunction), COUNT, [event(), event()]).billing == [True, True]
    assert evaluate(group("and", group(conjunction)), COUNT, [event()]).sql_matched == [True]


# Aggregations


def quantities(func: str, *values: Any, name: str = "p") -> tuple[float | None, float | None]:
    """The charged quantity and that of `/quantities`, over events with these values."""
    outcome = evaluate(TRUE, {"func": func, "property": name}, [event({"p": value}) for value in values])
    return outcome.charged_quantity, outcome.sql_quantity


@pytest.mark.parametrize(
    ("func", "values", "expected"),
    [
        ("sum", [1, 2.5, True, "4", None], 3.5),
        ("max", [-1, -2], -1),
        ("min", [1, 2], 1),
        ("avg", [1, 2, "9"], 1.5),
        ("avg", [], 0),
        ("max", ["x"], 0),
        ("unique", [1, 1.0, True, "1", None, None], 4),
        ("unique", [{"a": [1]}, {"a": [1.0]}, {"a": [True]}], 2),
        ("unique", [10**400, 10**400 + 1], 2),
        ("sum", [10**400], None),
        ("sum", [1e308, 1e308], None),
        ("max", [1e308, 1e308], 1e308),
        ("avg", [1e200, -1e200], None),
        ("avg", [1e200, 1e200], 1e200),
    ],
)
def test_an_aggregation_has_the_expected_quantity(
    func: str, values: list[Any], expected: float | None
) -> None:
    charged, total = quantities(func, *values)
    assert close(charged, expected)
    assert close(total, expected)


def test_a_field_of_the_event_can_be_aggregated() -> None:
    times = ["2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20Z"]
    seconds = evaluate(TRUE, {"func": "max", "property": "timestamp"}, [event(timestamp=t) for t in times])
    assert seconds.charged_quantity == seconds.sql_quantity == 1_700_000_001
    names = evaluate(TRUE, {"func": "sum", "property": "name"}, [event(name="5"), event(name="x")])
    assert (names.billing, names.sql_matched) == ([True, True], [False, False])
    assert (names.charged_quantity, names.sql_quantity) == (0, 0)
    assert names.errors == ("billing_quantity",)
    looked_up = evaluate(TRUE, {"func": "unique", "property": "name"}, [event(), event({"name": 1})])
    assert looked_up.charged_quantity == looked_up.sql_quantity == 1


def test_the_property_of_no_name_is_a_number_to_sql_only() -> None:
    outcome = evaluate(TRUE, {"func": "sum", "property": ""}, [event({"": 5})])
    assert (outcome.billing, outcome.charged_quantity, outcome.sql_quantity) == ([False], 0, 5)


# Properties


@given(filters(refused=True), aggregations(), st.lists(events(), max_size=4))
def test_only_sql_fails_and_says_so(filter_: Json, aggregation: Json, happened: list[Json]) -> None:
    outcome = evaluate(filter_, aggregation, happened)
    assert len(outcome.billing) == len(happened)
    for name in ("billing_quantity", "charged_quantity", "sql_matched", "sql_quantity"):
        assert (getattr(outcome, name) is None) == (name in outcome.errors)
    assert ("endpoint" in outcome.errors) == (outcome.sql_quantity is None)


@given(filters(), st.lists(events(accepted=True), max_size=4))
def test_what_the_manifest_and_ingestion_accept_never_fails(filter_: Json, happened: list[Json]) -> None:
    assert not compile_filter(filter_).sql_fails
    outcome = evaluate(filter_, COUNT, happened)
    assert outcome.errors == ()
    assert outcome.charged_quantity == outcome.billing_quantity == sum(outcome.billing)
    assert outcome.sql_matched is not None
    assert outcome.sql_quantity == sum(outcome.sql_matched)


@given(filters(), aggregations(), st.lists(events(), max_size=4))
def test_an_invoice_charges_no_event_that_polar_makes(
    filter_: Json, aggregation: Json, happened: list[Json]
) -> None:
    happened = [{**e, "name": "order.paid"} if e["source"] == "system" else e for e in happened]
    of_users = [e for e in happened if e["source"] == "user"]
    charged = evaluate(filter_, aggregation, happened).charged_quantity
    assert charged == evaluate(filter_, aggregation, of_users).charged_quantity


@given(clauses(), events(accepted=True))
def test_a_path_matches_no_user_event(clause: Json, happened: Json) -> None:
    """Except `_cost.…` and `_llm.…`, the only objects that ingestion takes; `o.x` is a flat key there."""
    outcome = evaluate(group("and", {**clause, "property": "o.x"}), COUNT, [happened])
    assert (outcome.billing, outcome.sql_matched) == ([False], [False])


@given(filters(), events())
def test_the_stored_filter_means_the_same_as_the_sent_one(filter_: Json, happened: Json) -> None:
    again = {**happened, "metadata": stored(happened["metadata"])}
    assert evaluate(filter_, COUNT, [happened]) == evaluate(filter_, COUNT, [again])
    assert json.dumps(stored(again["metadata"])) == json.dumps(again["metadata"])


@given(filters(), filters(), events())
def test_a_group_joins_its_parts_by_and_or_or(
    first_filter: Json, second_filter: Json, happened: Json
) -> None:
    one = Event.from_json(happened)
    first, second = compile_filter(first_filter), compile_filter(second_filter)
    for conjunction, join in (("and", all), ("or", any)):
        both = compile_filter(group(conjunction, first_filter, second_filter))
        assert both.billing(one) == join([first.billing(one), second.billing(one)])
        try:
            expected = join([first.sql(one), second.sql(one)])
        except QueryError:
            continue
        assert both.sql(one) == expected
