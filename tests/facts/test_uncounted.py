"""Event names that no meter counts."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given

from polar_iac.facts.model import EventName
from polar_iac.facts.uncounted import asked_names, matchable, nearest_asked, uncounted, unseen_name
from polar_iac.meter.filter import Filter
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.meaning import compile_meter, ingestible_witness
from polar_iac.meter.meaning.events import Event
from tests.support.build import live
from tests.support.strategies_meaning import Json, events, filters

NOW = "2026-11-26T12:00:00Z"


def name(
    text: str, occurrences: int = 1, last: str = NOW, source: Literal["user", "system"] = "user"
) -> EventName:
    return EventName(text, source, occurrences, "2026-01-01T00:00:00Z", last)


def clause(name: str, value: Any, operator: str = "eq") -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def counting(number: int, *clauses: dict[str, Any], conjunction: str = "and", **fields: Any) -> LiveMeter:
    return live(number, filter={"conjunction": conjunction, "clauses": [*clauses]}, **fields)


def left(names: list[str], *meters: LiveMeter) -> list[str]:
    return [found.name for found in uncounted([name(text) for text in names], meters, NOW)]


def test_names_that_a_filter_can_match_are_counted() -> None:
    names = ["a", "b", "ab"]
    assert left(names) == ["a", "ab", "b"]
    assert left(names, counting(1, clause("name", "a"), clause("tokens", 5, "gt"))) == ["ab", "b"]
    assert left(names, counting(1, clause("metadata.name", "a", "like"))) == ["b"]
    assert left(names, counting(1, clause("name", "a", "ne"))) == ["a"]
    assert left(names, counting(1, clause("name", "b", "gte"))) == ["a", "ab"]
    assert left(names, counting(1)) == []
    assert left(names, counting(1, clause("tokens", 5))) == []
    either = counting(1, clause("name", "a"), clause("name", "b"), conjunction="or")
    assert left(names, either) == ["ab"]
    assert left(names, counting(1, clause("name", "a")), counting(2, clause("name", "ab"))) == ["b"]


def test_a_filter_that_no_event_of_a_user_matches_counts_nothing() -> None:
    assert left(["a"], counting(1, clause("name", "a"), clause("usage.tokens", 5, "gt"))) == ["a"]
    assert left(["a"], counting(1, clause("name", "a"), clause("name", "b"))) == ["a"]
    assert left(["a"], counting(1, clause("source", "system"))) == ["a"]


def test_an_archived_meter_counts_nothing_and_an_unknown_one_may_count_all() -> None:
    assert left(["a"], counting(1, archived_at=NOW)) == ["a"]
    unknown = LiveMeter("1", "2", "2026-01-01T00:00:00.000000Z", None, None, None)
    assert left(["a"], unknown) == []


def test_old_names_ignored_ones_and_those_of_polar_are_left_out() -> None:
    names = [
        name("few", 2),
        name("many", 200),
        name("page.view", 3_000),
        name("old", last="2026-10-27T11:59:59Z"),
        name("just", last="2026-10-27T12:00:00Z"),
        name("meter.credited", source="system"),
    ]
    found = uncounted(names, [], NOW, {"page.view"})
    assert [one.name for one in found] == ["many", "few", "just"]


def test_the_nearest_name_is_one_that_an_active_meter_asks_for() -> None:
    meters = [
        counting(3, clause("name", "llm.completion")),
        counting(2, clause("name", "llm.completion"), conjunction="or"),
        counting(1, clause("name", "llm.completions"), archived_at=NOW),
        counting(4, clause("name", "export", "like"), clause("name", 5), clause("model", "llm.completionz")),
    ]
    asked = asked_names(meters)
    assert {text: meter.id[:8] for text, meter in asked.items()} == {"llm.completion": "00000002"}
    near = nearest_asked("llm.completions", asked)
    assert near is not None
    assert near[0] == "llm.completion"
    assert nearest_asked("zebra", asked) is None


def test_a_meter_may_ask_for_a_name_that_no_event_has() -> None:
    seen = [name("audio.call"), name("export")]
    assert unseen_name(counting(1, clause("name", "audio_call")), seen) == ("audio_call", "audio.call")
    assert unseen_name(counting(1, clause("name", "zebra")), seen) == ("zebra", None)
    both = counting(1, clause("name", "zebra"), clause("name", "export"), conjunction="or")
    assert unseen_name(both, seen) is None
    assert unseen_name(counting(1, clause("name", "call", "like")), seen) is None


@pytest.mark.unmeasured
@given(filters(), events(accepted=True))
def test_a_name_that_is_not_counted_has_no_event_that_matches(filter_: Json, event: Json) -> None:
    """One answer for all names that no clause tells apart is the answer for each of them."""
    names_of = matchable(Filter.from_json(filter_))
    counted = compile_meter(filter_, {"func": "count"})
    for text in ("a", "zebra", event["name"]):
        named = {"conjunction": "and", "clauses": [clause("name", text), filter_]}
        may = names_of.answer(text)
        assert may == (ingestible_witness(named).status != "none")
        assert may or not counted.counts(Event.from_json({**event, "name": text}))
