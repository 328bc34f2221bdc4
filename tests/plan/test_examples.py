"""Examples of what a new filter counts, and of what a changed one counts differently."""

from __future__ import annotations

from typing import Any

import pytest

from polar_iac.meter.meaning import evaluate
from polar_iac.plan.examples import MAX_EXAMPLES
from polar_iac.plan.model import Change, Note
from tests.support.build import desired, live, meter, plan, record

Json = dict[str, Any]


def clause(name: str, operator: str, value: Any) -> Json:
    return {"property": name, "operator": operator, "value": value}


def every(*clauses: Json) -> Json:
    return {"conjunction": "and", "clauses": [*clauses]}


LLM = clause("name", "eq", "llm.completion")


def example(change: Change) -> Note:
    (note,) = (note for note in change.notes if note.kind == "example")
    return note


def changed(before: Json, after: Json) -> Note:
    manifest = desired({"calls": meter(filter=after)})
    (change,) = plan(manifest, {"calls": record(1, filter=before)}, [live(1, filter=before)]).changes
    return example(change)


def created(filter_: Json, **aggregation: Any) -> tuple[Note, ...]:
    (change,) = plan(desired({"calls": meter(filter=filter_, aggregation=aggregation)})).changes
    return tuple(note for note in change.notes if note.kind == "example")


class TestAChangedFilter:
    def test_what_is_counted_no_longer(self) -> None:
        note = changed(every(LLM), every(LLM, clause("tokens", "gte", 150)))
        assert note.text == (
            "counts strictly less: no longer counted, for example: `{name: llm.completion, tokens: 1}`"
        )
        assert note.data["relation"] == "less"

    def test_a_typical_event_has_what_is_asked_for_and_a_quantity(self) -> None:
        """`!=` leaves out an event without `model` as well, and few products send one."""
        before = meter(filter=every(LLM), aggregation={"func": "sum", "property": "tokens"})
        after = before | {"filter": every(LLM, clause("model", "ne", "gpt-4o"))}
        manifest, recorded = desired({"calls": after}), {"calls": record(1, **before)}
        (change,) = plan(manifest, recorded, [live(1, **before)]).changes
        assert example(change).text.endswith(
            "for example: `{name: llm.completion, model: gpt-4o, tokens: 150}`"
        )

    def test_what_is_counted_now(self) -> None:
        note = changed(every(LLM, clause("tokens", "eq", 150)), every(LLM, clause("tokens", "gte", 150)))
        assert note.text.startswith(
            "counts strictly more: now counted, for example: `{name: llm.completion, tokens: "
        )

    def test_both(self) -> None:
        note = changed(every(clause("name", "eq", "a")), every(clause("name", "eq", "b")))
        assert (
            note.text == "no longer counted, for example: `{name: a}`; now counted, for example: `{name: b}`"
        )
        assert note.data["relation"] == "other"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (every(LLM), every(LLM, clause("model", "like", "gpt"))),
            (
                every(clause("tokens", "lt", 5)),
                every(clause("tokens", "lt", 50), clause("cached", "ne", True)),
            ),
            (every(clause("source", "eq", "user")), every(clause("timestamp", "gt", 1_700_000_000))),
        ],
    )
    def test_the_examples_are_what_they_say(self, before: Json, after: Json) -> None:
        data = changed(before, after).data
        assert data["no_longer"] or data["now"]
        for event, counts_it, other in ((data["no_longer"], before, after), (data["now"], after, before)):
            if event:
                assert evaluate(counts_it, {"func": "count"}, [event]).billing == [True]
                assert evaluate(other, {"func": "count"}, [event]).billing == [False]

    def test_where_only_billing_agrees_balances_may_differ(self) -> None:
        """Billing takes `tokens > 10` of a number only, and the database of the text "150" as well."""
        number = every(clause("tokens", "gt", 10))
        either = {"conjunction": "or", "clauses": [clause("tokens", "gt", 10), clause("tokens", "gt", "150")]}
        note = changed(number, either)
        assert note.data["relation"] in ("more", "invoices")

    def test_an_event_that_no_user_can_send_is_marked(self) -> None:
        note = changed(every(clause("usage.tokens", "gt", 5)), every(clause("usage.tokens", "gt", 50)))
        assert "(no user can send this event)" in note.text


class TestANewMeter:
    def test_an_event_that_it_counts_and_its_units(self) -> None:
        (note,) = created(every(LLM, clause("cached", "eq", False)), func="sum", property="tokens")
        assert note.text == (
            "counts, for example: `{name: llm.completion, cached: false, tokens: 150}` (150 units)"
        )
        assert note.data["units"] == 150

    def test_of_objects_only_what_is_asked_for_is_shown(self) -> None:
        (note,) = created(every(LLM), func="sum", property="_llm.input_tokens")
        assert "`{name: llm.completion, _llm: {input_tokens: 150}}`" in note.text

    def test_one_event_is_one_unit_where_events_are_counted(self) -> None:
        (note,) = created(every(LLM), func="count")
        assert note.text == "counts, for example: `{name: llm.completion}` (1 unit)"

    def test_a_number_that_the_filter_rules_out_is_not_shown(self) -> None:
        (note,) = created(every(clause("tokens", "lt", 10)), func="max", property="tokens")
        assert 0 < note.data["units"] < 10

    def test_one_that_counts_nothing_has_no_example(self) -> None:
        assert created(every(clause("tokens", "gt", 5), clause("tokens", "lt", 5)), func="count") == ()

    def test_a_long_event_is_cut(self) -> None:
        (note,) = created(every(clause("text", "eq", "x" * 400)), func="count")
        assert len(note.text) < 260


@pytest.mark.unmeasured
def test_changed_filters_come_before_new_meters_and_there_are_not_too_many() -> None:
    new = {f"a{n:03}": meter(filter=every(clause("tier", "eq", n))) for n in range(MAX_EXAMPLES + 5)}
    manifest = desired({**new, "z": meter(filter=every(LLM))})
    planned = plan(manifest, {"z": record(1)}, [live(1, "z")])
    with_one = [c.key for c in planned.changes if any(note.kind == "example" for note in c.notes)]
    assert len(with_one) == MAX_EXAMPLES
    assert with_one[-1] == "z"
