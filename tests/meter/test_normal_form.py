"""Filters that mean the same are equal: the properties of the normal form that `Filter.canonical` returns.

A group of one is its member. A group inside one of the same conjunction is part of it. A repeat counts once.
An empty group, which is every event, drops out of `and` and turns `or` into every event. The root stays a
group: `and` around a single clause, and around nothing for every event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.meter.filter import Filter
from polar_iac.meter.meaning.events import Event, QueryError
from polar_iac.meter.meaning.filters import Matcher, compile_filter
from tests.support.strategies_meaning import Json, clauses, events, filters, group

CONJUNCTIONS = ("and", "or")


def canonical(filter_: Json) -> Json:
    return Filter.from_json(filter_).canonical()


def text(part: Json) -> str:
    """The JSON of a part: Python takes `1` and `true` for equal, which two clauses are not."""
    return json.dumps(part, sort_keys=True)


def assert_same_form(one: Json, other: Json) -> None:
    assert text(canonical(one)) == text(canonical(other))


def groups(part: Json) -> Iterator[Json]:
    if "clauses" in part:
        yield part
        for inner in part["clauses"]:
            yield from groups(inner)


# (a) The form means what the filter means.


def by_sql(matcher: Matcher, event: Event) -> bool | None:
    """The answer of SQL, or None if the query fails."""
    try:
        return matcher.sql(event)
    except QueryError:
        return None


@given(filters(refused=True), st.lists(events(), min_size=1, max_size=4))
def test_both_engines_read_the_form_as_they_read_the_filter(filter_: Json, happened: list[Json]) -> None:
    given_, form = compile_filter(filter_), compile_filter(canonical(filter_))
    for event in map(Event.from_json, happened):
        assert form.billing(event) == given_.billing(event)
        answers = {by_sql(given_, event), by_sql(form, event)} - {None}
        # A query fails by a clause that the manifest refuses, or by a number beyond a double: then by which
        # clause comes first.
        assert len(answers) < 2


@given(filters())
def test_the_form_of_what_the_manifest_accepts_never_fails(filter_: Json) -> None:
    assert not compile_filter(canonical(filter_)).sql_fails


# (b) The form is a form.


@given(filters(refused=True))
def test_the_form_of_a_form_is_itself(filter_: Json) -> None:
    form = canonical(filter_)
    assert text(canonical(form)) == text(form)


@given(filters(refused=True))
def test_nothing_is_left_to_simplify(filter_: Json) -> None:
    root = canonical(filter_)
    for part in groups(root):
        members = part["clauses"]
        if part is root:
            assert len(members) > 1 or part["conjunction"] == "and"
            assert len(members) != 1 or "clauses" not in members[0]
        else:
            assert len(members) > 1
        assert all(member.get("conjunction") != part["conjunction"] for member in members)
        assert len({text(member) for member in members}) == len(members)


# (c) A rewrite that keeps the meaning keeps the form.


def _wrapped(draw: st.DrawFn, part: Json) -> Json:
    """A part in groups of one."""
    for conjunction in draw(st.lists(st.sampled_from(CONJUNCTIONS), max_size=2)):
        part = group(conjunction, part)
    return part


def _flattened(conjunction: str, parts: list[Json]) -> list[Json]:
    """Parts with the groups of the same conjunction opened. An empty one of `or` is not: it decides."""
    flat: list[Json] = []
    for part in parts:
        opens = part.get("conjunction") == conjunction and (part["clauses"] or conjunction == "and")
        flat += part["clauses"] if opens else [part]
    return flat


def _nested(draw: st.DrawFn, conjunction: str, parts: list[Json]) -> list[Json]:
    """Parts with some of them in a group of the same conjunction."""
    if not parts:
        return parts
    start = draw(st.integers(0, len(parts) - 1))
    end = draw(st.integers(start + 1, len(parts)))
    return [*parts[:start], group(conjunction, *parts[start:end]), *parts[end:]]


def _padded(draw: st.DrawFn, conjunction: str, parts: list[Json]) -> list[Json]:
    """Parts with one that changes nothing: one of them again, every event in an `and`, or anything at all in
    an `or` that is every event already.
    """
    neutral = list(parts)
    if conjunction == "and":
        neutral += [group("and"), group("or")]
    elif any(part.get("clauses") == [] for part in parts):
        neutral.append(draw(clauses()))
    return [*parts, draw(st.sampled_from(neutral))] if neutral else parts


@st.composite
def rewritten(draw: st.DrawFn, part: Json) -> Json:
    """The same filter in another form."""
    if "clauses" not in part:
        return _wrapped(draw, part)
    conjunction = part["conjunction"]
    parts = [draw(rewritten(inner)) for inner in part["clauses"]]
    if not parts:
        # A group that is empty means every event; one of the other conjunction does too.
        return _wrapped(draw, group(draw(st.sampled_from(CONJUNCTIONS))))
    for step in draw(st.lists(st.sampled_from(["nest", "flatten", "pad", "shuffle"]), max_size=3)):
        if step == "nest":
            parts = _nested(draw, conjunction, parts)
        elif step == "flatten":
            parts = _flattened(conjunction, parts) or parts
        elif step == "pad":
            parts = _padded(draw, conjunction, parts)
        else:
            parts = draw(st.permutations(parts))
    return _wrapped(draw, group(conjunction, *parts))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Json, Json]:
    filter_ = draw(filters())
    return filter_, draw(rewritten(filter_))


@given(pairs(), st.lists(events(accepted=True), min_size=1, max_size=3))
def test_the_rewrites_keep_the_meaning(pair: tuple[Json, Json], happened: list[Json]) -> None:
    """Holds the generator, not the product."""
    before, after = map(compile_filter, pair)
    for event in map(Event.from_json, happened):
        assert before.billing(event) == after.billing(event)
        assert before.sql(event) == after.sql(event)


@given(pairs())
def test_a_rewrite_keeps_the_form(pair: tuple[Json, Json]) -> None:
    assert_same_form(*pair)


# (d) By hand.


A: Json = {"property": "a", "operator": "eq", "value": 1}
B: Json = {"property": "b", "operator": "eq", "value": 2}
C: Json = {"property": "c", "operator": "eq", "value": 3}
EVERY: Json = {"conjunction": "and", "clauses": []}

EXAMPLES: dict[str, tuple[Json, Json]] = {
    "what the dashboard writes": (group("and", group("or", A)), group("and", A)),
    "a root of one is an and": (group("or", A), group("and", A)),
    "a root of one group is that group": (group("and", group("or", A, B)), group("or", A, B)),
    "many groups of one": (group("or", group("and", group("or", group("and", A)))), group("and", A)),
    "a group of the same conjunction": (group("and", A, group("and", B, C)), group("and", A, B, C)),
    "seen only once groups of one are gone": (
        group("and", A, group("or", group("and", B, C))),
        group("and", A, B, C),
    ),
    "a repeat": (group("or", A, A), group("and", A)),
    "a repeat in another order": (
        group("or", group("and", A, B), group("and", B, A), C),
        group("or", C, group("and", A, B)),
    ),
    "a repeat in another form": (group("and", A, group("or", A), B), group("and", A, B)),
    "a repeat by the prefix": (group("or", A, {**A, "property": "metadata.a"}), group("and", A)),
    "a repeat by a whole float": (group("or", A, {**A, "value": 1.0}), group("and", A)),
    "every event": (group("or"), EVERY),
    "every event, nested": (group("or", group("and", group("or"))), EVERY),
    "every event drops out of and": (group("and", A, group("or")), group("and", A)),
    "and turns or into every event": (group("or", A, group("and")), EVERY),
    "a group that becomes every event": (group("and", A, group("or", B, group("or"))), group("and", A)),
    "a group that loses a member": (
        group("or", A, group("and", B, group("and"))),
        group("or", A, B),
    ),
}


@pytest.mark.parametrize(("filter_", "form"), EXAMPLES.values(), ids=EXAMPLES)
def test_each_example_has_the_expected_form(filter_: Json, form: Json) -> None:
    assert text(canonical(filter_)) == text(form)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (group("and", A, B), group("or", A, B)),
        (group("and", A), EVERY),
        (group("and", A), group("and", {**A, "value": True})),
        (group("and", A), group("and", {**A, "value": "1"})),
        (group("or", A, {**A, "value": True}), group("and", A)),
        (group("and", A, group("or", B, C)), group("or", group("and", A, B), C)),
        (group("and", A, group("or", B, C)), group("and", A, B, C)),
        (group("and", {**A, "property": ""}), group("and", {**A, "property": "."})),
    ],
)
def test_filters_that_differ_in_meaning_stay_apart(one: Json, other: Json) -> None:
    assert text(canonical(one)) != text(canonical(other))
