"""Notes on filters that hardly mean what they say: the documented table, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.meter.matching import aggregation_notes, filter_notes
from tests.support.build import desired, live, meter, plan, record


def remarks(name: str, operator: str, value: Any) -> list[tuple[str, str]]:
    clause = {"property": name, "operator": operator, "value": value}
    nested = {"conjunction": "or", "clauses": [{"conjunction": "and", "clauses": [clause]}]}
    return list(filter_notes(Filter.from_json(nested)))


@pytest.mark.parametrize(
    ("name", "operator", "value", "message"),
    [
        ("name", "eq", 5, "an event's name is text"),
        ("metadata.source", "ne", True, "an event's source is text"),
        ("timestamp", "gte", "2026-01-01", "a timestamp is a number"),
        ("metadata.timestamp", "like", "5", "a timestamp is a number"),
        ("", "eq", "x", "it names no property"),
        ("tokens", "gte", "100", "compares texts, letter by letter"),
        ("metadata.tokens", "lt", "1_000", "compares texts, letter by letter"),
        ("tokens", "gt", "1.5e3", "compares texts, letter by letter"),
    ],
)
def test_what_never_matches_is_a_warning(name: str, operator: str, value: Any, message: str) -> None:
    ((severity, text),) = remarks(name, operator, value)
    assert severity == "warning"
    assert message in text


@pytest.mark.parametrize(
    ("operator", "message"),
    [("eq", "matches the text only, never a number"), ("ne", "matches every number too")],
)
def test_a_number_in_quotes_gets_a_note(operator: str, message: str) -> None:
    ((severity, text),) = remarks("tokens", operator, "100")
    assert severity == "info"
    assert message in text


@pytest.mark.parametrize(
    ("name", "operator", "value"),
    [
        ("name", "eq", "5"),
        ("name", "gte", "100"),
        ("timestamp", "gte", 1_700_000_000),
        ("tokens", "gte", 100),
        ("day", "gte", "2026-01-01"),
        ("model", "eq", "gpt-4"),
        ("model", "like", "4"),
        ("version", "eq", "1.2.3"),
        ("done", "eq", True),
    ],
)
def test_a_clear_clause_gets_no_note(name: str, operator: str, value: Any) -> None:
    assert remarks(name, operator, value) == []


@pytest.mark.parametrize(
    ("func", "name", "message"),
    [
        ("sum", "name", "is always 0"),
        ("avg", "metadata.source", "is always 0"),
        ("unique", "timestamp", "counts a metadata property of that name"),
        ("unique", "name", "counts a metadata property of that name"),
    ],
)
def test_a_misleading_aggregation_gets_a_warning(func: str, name: str, message: str) -> None:
    ((severity, text),) = aggregation_notes(Aggregation(func, name))
    assert severity == "warning"
    assert message in text


@pytest.mark.parametrize(("func", "name"), [("count", None), ("sum", "timestamp"), ("unique", "user.id")])
def test_a_clear_aggregation_gets_no_warning(func: str, name: str | None) -> None:
    assert list(aggregation_notes(Aggregation(func, name))) == []


class TestInThePlan:
    QUOTED = meter(
        filter={
            "conjunction": "and",
            "clauses": [{"property": f"p{n}", "operator": "gt", "value": "5"} for n in range(8)],
        }
    )

    def note_texts(self, *meters: Any) -> list[str]:
        (change,) = plan(desired({"calls": self.QUOTED}), {"calls": record(1)}, meters).changes
        return [fact.text for fact in change.notes if fact.kind == "meaning"]

    def test_similar_notes_are_summed_up_after_the_first_four(self) -> None:
        note_texts = self.note_texts(live(1))
        assert len(note_texts) == 5
        assert note_texts[-1] == "4 more clauses with similar warnings"

    def test_a_plan_notes_only_fields_that_change(self) -> None:
        renamed = {**self.QUOTED, "name": "Before"}
        assert self.note_texts(live(1, **renamed)) == []
