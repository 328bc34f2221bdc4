"""Event names that matter for a change, decided without any event."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from polar_iac.facts.model import EventName
from polar_iac.facts.names import NameReach, counts_system_events, reach, reaches
from polar_iac.facts.period import Period
from polar_iac.meter.spec import MeterSpec
from tests.support.build import spec


def meter(*clauses: tuple[str, str, Any], join: str = "and", **fields: Any) -> MeterSpec:
    parts = [{"property": p, "operator": o, "value": v} for p, o, v in clauses]
    return spec(filter={"conjunction": join, "clauses": parts}, **fields)


def seen(name: str, occurrences: int = 1, source: Any = "user") -> EventName:
    return EventName(name, source, occurrences, "2026-11-01T00:00:00Z", "2026-11-25T00:00:00Z")


PERIOD = Period.before(date(2026, 11, 25))
EVERY = meter()
CALLS = meter(("name", "eq", "call"))


def test_a_renamed_event_loses_one_name_and_gains_another() -> None:
    after = meter(("name", "eq", "job"))
    assert reach("call", CALLS, after) == NameReach("call", True, False, True, True)
    assert reach("job", CALLS, after) == NameReach("job", False, True, True, False)
    assert not reach("other", CALLS, after).matters


def test_a_name_under_which_both_sides_count_the_same_makes_no_difference() -> None:
    either = [("name", "eq", "call"), ("name", "eq", "job")]
    name = reach("call", meter(*either, join="or"), CALLS)
    assert (name.matters, name.differs) == (True, False)


def test_another_aggregation_makes_a_difference_under_every_name() -> None:
    total = meter(("name", "eq", "call"), aggregation={"func": "sum", "property": "n"})
    assert reach("call", CALLS, total).differs


def test_a_narrower_filter_matches_nothing_that_was_not_matched() -> None:
    narrow = meter(("name", "eq", "call"), ("model", "eq", "a"))
    assert reach("call", CALLS, narrow).narrows
    assert not reach("call", narrow, CALLS).narrows


def test_filters_that_do_not_look_at_names_are_alike_for_all() -> None:
    before, after = meter(("model", "eq", "a")), meter(("model", "eq", "b"))
    for name in ("call", "", "event"):
        assert reach(name, before, after) == NameReach(name, True, True, True, False)


def test_one_of_several_names_is_enough() -> None:
    either = {
        "conjunction": "or",
        "clauses": [
            {"property": "metadata.name", "operator": "eq", "value": name} for name in ("call", "job")
        ],
    }
    several = spec(filter={"conjunction": "and", "clauses": [either]})
    assert [reach(name, None, several).after for name in ("call", "job", "other")] == [True, True, False]


def test_what_is_not_decided_counts_as_possible() -> None:
    """A filter that orders one property by a thousand constants is left open."""
    undecided = meter(*[("p", "gt", number) for number in range(1_000)])
    name = reach("call", None, undecided)
    assert (name.after, name.differs, name.narrows) == (True, True, False)


def test_names_that_make_a_difference_come_first_then_frequent_ones() -> None:
    before = meter(*[("name", "eq", name) for name in "abc"], join="or")
    after = meter(*[("name", "eq", name) for name in "bcd"], join="or")
    names = [seen("a", 1), seen("b", 5), seen("c", 9), seen("d", 3), seen("e", 99)]
    assert [r.name for r in reaches(names, before, after, PERIOD)] == ["d", "a", "c", "b"]


def test_a_create_reaches_what_it_can_match() -> None:
    assert [r.name for r in reaches([seen("call"), seen("job")], None, CALLS, PERIOD)] == ["call"]


def test_names_without_events_in_the_period_are_left_out() -> None:
    old = replace(seen("call"), last_seen="2026-10-25T23:59:59Z")
    young = replace(seen("call"), first_seen="2026-11-25T00:00:00Z")
    assert not reaches([old, young], None, CALLS, PERIOD)
    assert reaches([replace(old, last_seen="2026-10-26T00:00:00Z")], None, CALLS, PERIOD)


def test_system_events_do_not_matter_but_quantities_may_count_them() -> None:
    names = [seen("order.paid", source="system"), seen("call")]
    assert [r.name for r in reaches(names, EVERY, CALLS, PERIOD)] == ["call"]
    assert counts_system_events(names, EVERY)
    assert not counts_system_events(names, CALLS)
    assert not counts_system_events(names, meter(("source", "eq", "user")))


def test_names_that_no_clause_tells_apart_are_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An organization may have a thousand names, and a decision takes some milliseconds."""
    decided: list[str] = []

    def counted(name: str, before: MeterSpec | None, after: MeterSpec) -> NameReach:
        decided.append(name)
        return reach(name, before, after)

    monkeypatch.setattr("polar_iac.facts.names.reach", counted)
    before = meter(("name", "like", "call"), ("model", "eq", "a"))
    after = meter(("name", "ne", "call.9"), ("model", "ne", "a"))
    names = [seen(f"{word}.{number}") for word in ("call", "job") for number in range(50)]
    found = reaches(names, before, after, PERIOD)
    assert len(decided) == 3
    assert {r.name: r for r in found} == {n.name: reach(n.name, before, after) for n in names}
