"""The decision procedure: what it claims by hand, and random events that try to refute its claims."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.meter import meaning
from polar_iac.meter.meaning import bill_alike, equivalent, search
from polar_iac.meter.meaning.building import is_ingestible
from tests.support.claim_trials import Claims, refute
from tests.support.examples import examples
from tests.support.strategies_meaning import Json, events, filters, group


def is_(name: str, operation: str, value: Any) -> Json:
    return {"property": name, "operator": operation, "value": value}


def all_of(*parts: Json) -> Json:
    return group("and", *parts)


def any_of(*parts: Json) -> Json:
    return group("or", *parts)


EVERY = all_of()

NEVER: list[Json] = [
    all_of(is_("name", "eq", 5)),
    all_of(is_("source", "ne", True)),
    all_of(is_("timestamp", "ne", "5")),
    all_of(is_("", "ne", 5)),
    all_of(is_("source", "eq", "api")),
    all_of(is_("source", "like", "x")),
    all_of(is_("name", "eq", "a"), is_("metadata.name", "eq", "b")),
    all_of(is_("p", "eq", 1), is_("p", "eq", 2)),
    all_of(is_("p", "eq", "1"), is_("p", "eq", 1)),
    all_of(is_("p", "gt", 5), is_("p", "lt", 5)),
    all_of(is_("p", "gt", 5), is_("p", "gt", "5")),
    all_of(is_("p", "eq", True), is_("p", "gt", 1)),
    all_of(is_("p", "gt", 5), is_("p", "like", "abc")),
    all_of(is_("p", "like", "ab"), is_("p", "not_like", "a")),
    all_of(is_("p", "not_like", "")),
    all_of(is_("p", "lt", "")),
    all_of(is_("p", "not_like", "a"), is_("p", "gt", "a"), is_("p", "lt", "b")),
    all_of(is_("name", "gte", "llm."), is_("name", "lt", "llm/"), is_("name", "not_like", "llm.")),
    all_of(is_("p", "like", "x"), is_("p", "eq", 1)),
    all_of(is_("timestamp", "gt", 5), is_("timestamp", "lt", 6)),
    all_of(is_("timestamp", "like", 5), is_("timestamp", "eq", 6)),
    all_of(is_("timestamp", "gt", 51), is_("timestamp", "lt", 105), is_("timestamp", "like", 15)),
    all_of(is_("timestamp", "gt", 51), is_("timestamp", "like", -1)),
    all_of(is_("p", "gt", 51), is_("p", "like", "-")),
    all_of(is_("o", "not_like", "{"), is_("o.x", "eq", 5)),
    all_of(is_("o", "eq", 5), is_("o.x", "eq", 5)),
    all_of(is_("o.x", "eq", 5), is_("o.x.y", "ne", 5)),
    all_of(is_("p", "eq", 1), any_of(is_("p", "eq", 2), is_("p", "gt", 2))),
    any_of(is_("name", "eq", 1), all_of(is_("p", "eq", 1), is_("p", "ne", 1))),
]
ALWAYS: list[Json] = [
    all_of(),
    any_of(),
    all_of(any_of(), is_("name", "like", "")),
    any_of(is_("name", "eq", "a"), is_("name", "ne", "a")),
    any_of(is_("name", "gte", "m"), is_("name", "lt", "m")),
    any_of(is_("source", "eq", "user"), is_("source", "eq", "system")),
    all_of(is_("source", "ne", "api")),
    any_of(is_("timestamp", "gt", 5), is_("timestamp", "lte", 5)),
    all_of(is_("timestamp", "not_like", True)),
]
SOMETIMES: list[Json] = [
    any_of(is_("p", "eq", 1), is_("p", "ne", 1)),  # not where it is absent
    all_of(is_("p", "ne", 1), is_("p", "ne", 2)),
    all_of(is_("p", "gt", 5), is_("p", "lt", 6)),  # 5.5
    all_of(is_("p", "eq", 1), is_("p", "eq", True)),
    all_of(is_("p", "like", "True"), is_("p", "eq", 1)),  # true
    all_of(is_("p", "like", "."), is_("p", "eq", 5)),  # 5.0
    all_of(is_("p", "not_like", "a"), is_("p", "gt", "a"), is_("p", "lt", "c")),
    all_of(is_("o.x", "eq", 1), is_("o", "ne", "a")),
    all_of(is_("o.x", "eq", 1), is_("o", "like", "zz")),
    all_of(is_("p", "like", "ab"), is_("p", "like", "ba"), is_("p", "not_like", "abba")),
    all_of(is_("p", "gt", True)),
    all_of(is_("metadata.metadata.metadata.name", "eq", "a")),
    all_of(is_("name", "eq", "a" * 200)),
    all_of(is_("usage.tokens", "gt", 5)),
]

DEMANDING: list[Json] = [
    all_of(is_("p", "gt", 5), is_("p", "like", 7)),
    all_of(is_("p", "gt", 100), is_("p", "lt", 200), is_("p", "like", 77)),
    all_of(is_("p", "gt", 100), is_("p", "lt", 200), is_("p", "like", 1), is_("p", "not_like", 10)),
    all_of(is_("p", "lt", 0), is_("p", "like", 5), is_("p", "like", ".")),
    all_of(is_("p", "gt", 0), is_("p", "lt", 1), is_("p", "like", "e-")),
    all_of(is_("p", "gt", 5), is_("p", "lt", 6), is_("p", "like", 7), is_("p", "like", 9)),
    all_of(is_("p", "lt", 5), is_("p", "not_like", 4), is_("p", "not_like", 3)),
    all_of(is_("timestamp", "like", 999), is_("timestamp", "gt", 1_700_000_000)),
    all_of(is_("timestamp", "like", 99), is_("timestamp", "like", 77), is_("timestamp", "not_like", 0)),
    all_of(is_("timestamp", "not_like", 7)),
    all_of(is_("timestamp", "not_like", 1), is_("timestamp", "lt", 1050)),
    all_of(is_("p", "gt", "a"), is_("p", "lt", "b"), is_("p", "like", "x"), is_("p", "like", "yy")),
    all_of(is_("p", "gt", "ab"), is_("p", "lt", "ac"), is_("p", "ne", "abc")),
    all_of(is_("p", "gt", "b"), is_("p", "lt", "d"), is_("p", "not_like", "b")),
    all_of(is_("p", "lt", "b"), is_("p", "not_like", "a"), is_("p", "ne", "")),
    all_of(is_("p", "like", "a b"), is_("p", "like", "b-c"), is_("p", "not_like", "c-"), is_("p", "ne", "x")),
    all_of(is_("p", "like", "["), is_("p", "like", "ab"), is_("p", "like", 5), is_("p", "not_like", "'[")),
    all_of(is_("o.x", "eq", 1), is_("o", "like", "zz"), is_("o", "not_like", "'other'")),
    all_of(*(is_("p", "not_like", word) for word in ("other", "text", "a", "b", "z"))),
]


@pytest.mark.parametrize("filter_", DEMANDING)
def test_a_value_that_meets_several_demands_is_found(filter_: Json) -> None:
    claims = Claims(filter_, EVERY)
    claims.hold_together()
    assert claims.witness is not None


@pytest.mark.parametrize("filter_", NEVER)
def test_a_filter_that_never_matches_is_proven(filter_: Json) -> None:
    assert meaning.never(filter_) is True
    assert meaning.witness(filter_) is None
    assert meaning.always(filter_) is False


@pytest.mark.parametrize("filter_", ALWAYS)
def test_a_filter_that_always_matches_is_proven(filter_: Json) -> None:
    assert meaning.always(filter_) is True
    assert meaning.never(filter_) is False
    assert meaning.difference(EVERY, filter_) is None


@pytest.mark.parametrize("filter_", SOMETIMES)
def test_a_filter_that_matches_sometimes_has_examples_of_both(filter_: Json) -> None:
    claims = Claims(filter_, EVERY)
    claims.hold_together()
    assert (claims.never, claims.always) == (False, False)
    assert claims.witness is not None


ALIKE: list[tuple[Json, Json]] = [
    (all_of(is_("p", "eq", 1), is_("q", "eq", 2)), all_of(is_("q", "eq", 2), is_("metadata.p", "eq", 1.0))),
    (
        any_of(is_("name", "eq", "a"), all_of(is_("name", "eq", "a"), is_("q", "eq", 2))),
        all_of(is_("name", "eq", "a")),
    ),
    (all_of(is_("p", "gt", 5), is_("p", "gt", 3), is_("p", "ne", "x")), all_of(is_("p", "gt", 5))),
    (all_of(is_("p", "like", "ab"), is_("p", "like", "a")), all_of(is_("p", "like", "ab"))),
    (all_of(is_("timestamp", "gte", 5)), all_of(is_("timestamp", "gt", 4))),
    (all_of(is_("source", "ne", "system")), all_of(is_("source", "eq", "user"))),
    (
        all_of(any_of(is_("p", "eq", 1), is_("q", "eq", 2)), any_of(is_("p", "eq", 1), is_("b", "eq", 3))),
        any_of(is_("p", "eq", 1), all_of(is_("q", "eq", 2), is_("b", "eq", 3))),
    ),
    (all_of(is_("p", "gt", "a"), is_("p", "ne", "a")), all_of(is_("p", "gt", "a"))),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_filters_of_one_meaning_are_equivalent(one: Json, other: Json) -> None:
    if one["clauses"][-1].get("value") != "x":
        assert meaning.equivalent(one, other) is True
    assert meaning.bill_alike(one, other) is True
    assert meaning.implies(one, other) is True
    assert meaning.implies(other, one) is True


@pytest.mark.parametrize(
    ("one", "other", "billing", "counting"),
    [
        (all_of(is_("p", "gte", 5)), all_of(is_("p", "gt", 4)), False, False),
        (all_of(is_("p", "eq", 1)), all_of(is_("p", "eq", True)), True, False),  # the text "1", the bool
        (all_of(is_("p", "gt", 5), is_("p", "ne", "x")), all_of(is_("p", "gt", 5)), True, False),
        (all_of(is_("", "eq", 5)), all_of(is_("name", "eq", 5)), True, False),
        (all_of(is_("p", "gt", 5)), all_of(is_("p", "gt", 5), is_("p", "not_like", "x")), True, False),
        (all_of(is_("p", "gt", True)), all_of(is_("p", "gt", 1)), True, False),  # fails in SQL
        (all_of(is_("p", "gt", True)), all_of(is_("p", "gt", True), is_("p", "ne", False)), True, True),
        (all_of(is_("metadata.metadata.metadata.p", "eq", 1)), all_of(is_("p", "eq", 1)), False, False),
        # Which text comes first depends on the database.
        (any_of(is_("p", "gte", "a"), is_("p", "gte", "b")), all_of(is_("p", "gte", "a")), True, None),
    ],
)
def test_billing_and_quantities_are_decided_apart(
    one: Json, other: Json, billing: bool, counting: bool | None
) -> None:
    assert meaning.bill_alike(one, other) is billing
    assert meaning.count_alike(one, other) is counting
    both = False if False in (billing, counting) else None if counting is None else True
    assert meaning.equivalent(one, other) is both


def test_equal_forms_are_not_equivalent_where_the_query_of_one_fails() -> None:
    one = any_of(EVERY, is_("p", "gt", True))
    assert meaning.bill_alike(one, EVERY) is True
    assert meaning.equivalent(one, EVERY) is False


def test_filters_overlap_or_do_not() -> None:
    big, small, other = (all_of(is_("p", "gt", 5)), all_of(is_("p", "lt", 9)), all_of(is_("p", "lt", 3)))
    assert (meaning.overlap(big, small), meaning.overlap(big, other)) == (True, False)


# Examples


LLM = is_("name", "eq", "llm.completion")
AT: Json = {"source": "user", "timestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("one", "other", "name", "metadata"),
    [
        (all_of(LLM, is_("tokens", "gt", 100)), None, "llm.completion", {"tokens": 101}),
        (
            all_of(LLM, is_("tokens", "gt", 100)),
            all_of(LLM, is_("tokens", "gt", 200)),
            "llm.completion",
            {"tokens": 200},
        ),
        (all_of(LLM), all_of(LLM, is_("cached", "ne", True)), "llm.completion", {}),
        (all_of(LLM, is_("cached", "ne", True)), None, "llm.completion", {"cached": False}),
        (
            all_of(is_("model", "like", "gpt-4"), is_("model", "not_like", "4o")),
            None,
            "event",
            {"model": "gpt-4"},
        ),
        (any_of(LLM, is_("name", "eq", "b")), all_of(LLM), "b", {}),
        (EVERY, None, "event", {}),
        (all_of(is_("usage.tokens", "gt", 5)), None, "event", {"usage": {"tokens": 6}}),
        (all_of(is_("_cost.amount", "gte", 2)), None, "event", {"_cost": {"amount": 2, "currency": "usd"}}),
    ],
)
def test_an_example_is_small_and_plausible(one: Json, other: Json | None, name: str, metadata: Json) -> None:
    example = meaning.witness(one) if other is None else meaning.difference(one, other)
    assert example == {"name": name, **AT, "metadata": metadata}


def test_an_example_could_be_ingested_where_possible() -> None:
    for filter_ in (
        all_of(is_("_llm.total_tokens", "gt", 5), is_("p", "ne", 1)),
        all_of(is_("p", "ne", "a"), is_("p", "not_like", "o")),
        all_of(is_("_cost.currency", "like", "s")),
    ):
        example = meaning.witness(filter_)
        assert example is not None
        assert is_ingestible(example)
        assert meaning.ingestible_witness(filter_).status == "found"
    nested = meaning.ingestible_witness(all_of(is_("usage.tokens", "gt", 5)))
    assert nested.status == "none"
    assert meaning.ingestible_witness(all_of(is_("source", "eq", "system"))).status == "none"


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({}, True),
        ({"source": "system"}, False),
        ({"name": "a" * 129}, False),
        ({"metadata": {"a": 1, "b": 1.5, "c": True, "d": "x" * 500, "e.f": 10**400}}, True),
        ({"metadata": {"a": ""}}, False),
        ({"metadata": {"a": "x" * 501}}, False),
        ({"metadata": {"a": None}}, False),
        ({"metadata": {"a": [1]}}, False),
        ({"metadata": {"a": {"b": 1}}}, False),
        ({"metadata": {"_cost": {"amount": 1, "currency": "usd"}}}, True),
        ({"metadata": {"_cost": {"amount": 1, "currency": "eur"}}}, False),
        ({"metadata": {"_cost": {"amount": "1", "currency": "usd"}}}, False),
        ({"metadata": {"_llm": {"vendor": "a"}}}, False),
        ({"metadata": {"_llm": 5}}, False),
    ],
)
def test_what_ingestion_accepts_is_known(changes: Json, accepted: bool) -> None:
    assert is_ingestible({"name": "e", **AT, "metadata": {}, **changes}) is accepted


def test_a_list_or_an_object_is_found_where_nothing_else_will_do() -> None:
    text = any_of(is_("p", "gte", ""), is_("p", "lt", ""))
    contains = all_of(is_("p", "like", "ab"), is_("p", "not_like", "-"))
    example = meaning.difference(contains, text)
    assert example is not None
    assert example["metadata"] == {"p": ["ab"]}
    example = meaning.difference(all_of(*contains["clauses"], is_("p", "not_like", "[")), text)
    assert example is not None
    assert isinstance(example["metadata"]["p"], dict)


# Budget


def test_a_wide_filter_is_decided_within_the_budget() -> None:
    models = [is_("model", "eq", f"m{n}") for n in range(200)]
    assert meaning.implies(any_of(*models), any_of(*reversed(models))) is True
    assert meaning.implies(any_of(*models), any_of(*models[1:])) is False
    pairs = [any_of(is_(f"p{n}", "eq", 1), is_(f"q{n}", "eq", 2)) for n in range(60)]
    assert meaning.never(all_of(*pairs)) is False


def test_a_search_without_steps_left_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "STEPS", 1)
    impossible = all_of(is_("p", "eq", 1), is_("p", "eq", 2))
    assert meaning.never(impossible) is None
    assert meaning.witness(impossible) is None


def test_a_search_too_deep_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "DEPTH", 1)
    pairs = [any_of(is_(f"p{n}", "eq", 1), is_(f"q{n}", "eq", 2)) for n in range(5)]
    assert meaning.never(all_of(*pairs)) is None


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (any_of(is_("p", "gt", 10), is_("p", "gt", 20)), all_of(is_("p", "gt", 10)), True),
        (
            all_of(is_("p", "lt", 20), is_("p", "gt", 10), is_("p", "ne", 5)),
            all_of(is_("p", "gt", 10), is_("p", "lt", 20)),
            True,
        ),
        # As a text, "10" comes before "9".
        (all_of(is_("p", "gte", 10), is_("p", "gt", 9)), all_of(is_("p", "gte", 10)), False),
        # Some collations look at punctuation last.
        (all_of(is_("p", "gte", 1.5), is_("p", "gt", 1)), all_of(is_("p", "gte", 1.5)), None),
    ],
)
def test_digits_are_ordered_in_every_collation(one: Json, other: Json, alike: bool | None) -> None:
    assert bill_alike(one, other) is True
    assert equivalent(one, other) is alike
    assert equivalent(other, one) is alike


def test_a_filter_with_thousands_of_orders_is_left_open() -> None:
    """The work before a search takes as many steps as there are orders, squared."""
    orders = any_of(*(is_("p", "gt", n) for n in range(1000)))
    assert meaning.never(orders) is None
    assert meaning.ingestible_witness(orders).status == "open"
    assert meaning.equivalent(orders, any_of(*reversed(orders["clauses"]))) is True


def test_the_deepest_filter_that_polar_takes_is_decided() -> None:
    deep = is_("p", "gt", 5)
    for level in range(126):
        deep = group("and" if level % 2 else "or", deep, is_("p", "gt", level % 7 - 1))
    assert meaning.never(deep) is False
    assert meaning.always(deep) is False
    assert meaning.equivalent(deep, all_of(deep)) is True


def test_numbers_that_no_double_holds_exactly_are_left_open() -> None:
    assert meaning.never(all_of(is_("p", "gt", 2**60), is_("p", "lt", 2**60))) is None


# Random events


@given(filters(refused=True), filters(refused=True), st.lists(events(), min_size=1, max_size=5))
def test_no_event_refutes_a_claim(one: Json, other: Json, happened: list[Json]) -> None:
    claims = Claims(one, other)
    claims.hold_together()
    for event in happened:
        claims.hold_for(event)


@pytest.mark.unmeasured  # the examples by hand run the same lines
@examples(100)
@given(st.integers(0, 10**9))
def test_no_event_near_the_constants_refutes_a_claim(seed: int) -> None:
    """A sample of the soak `meaning`."""
    refute(seed, events=20)


@pytest.mark.parametrize("seed", [35, 79])
def test_a_wrong_claim_is_refuted(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds the trial: a procedure that claims too much does not pass it."""
    monkeypatch.setattr(meaning, "implies", lambda *_: True)
    monkeypatch.setattr(meaning, "difference", lambda *_: None)
    with pytest.raises(AssertionError, match="implies"):
        refute(seed, events=200)
