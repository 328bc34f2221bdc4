"""Notes that facts become, and archives that they block."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from polar_iac.facts import words
from polar_iac.facts.model import Credit, Day, EventName, Facts, Price, Usage
from polar_iac.plan.facts import REPLACED, named_events, with_facts, with_shown_blocks
from polar_iac.plan.model import Change, Note, Plan, differences
from tests.support.build import desired, identifier, live, meter, plan, record, spec

AS_OF = "2026-11-26T13:30:00Z"
METER = identifier(1)


def clause(value: Any, operator: str = "eq", name: str = "name") -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def every(*clauses: Any) -> dict[str, Any]:
    return {"conjunction": "and", "clauses": list(clauses)}


def changed(**fields: Any) -> Plan:
    """A plan that changes one meter, `calls`."""
    return plan(desired({"calls": meter(**fields)}), {"calls": record(1)}, [live(1)])


def created(**fields: Any) -> Plan:
    return plan(desired({"calls": meter(**fields)}))


def archived() -> Plan:
    return plan(desired({"calls": meter(archived=True)}), {"calls": record(1)}, [live(1)])


def only(planned: Plan) -> Change:
    (change,) = planned.changes
    return change


def notes(planned: Plan, kind: str) -> list[Note]:
    return [note for note in only(planned).notes if note.kind == kind]


def usage(life: float | None, *counted: tuple[str, float]) -> dict[str, Usage]:
    """What the meter counted, on these days of the last year and on no others."""
    quantities, today = dict(counted), date(2026, 11, 26)
    days = [str(today - timedelta(days=ago)) for ago in reversed(range(365))]
    assert quantities.keys() <= set(days)
    return {METER: Usage(life, tuple(Day(day, quantities.get(day, 0.0)) for day in days), AS_OF)}


def name(text: str, occurrences: int = 12_300, last: str = "2026-11-26T08:00:00Z") -> EventName:
    return EventName(text, "user", occurrences, "2026-01-01T00:00:00Z", last)


def price(product: str, cents: str = "50.000000000000", *, archived: bool = False, **fields: Any) -> Price:
    return replace(Price(f"{product}-price", METER, f"{product}-id", product, archived, cents), **fields)


FROZEN = "probably frozen. `polar-iac probe -e sandbox calls` tells (it needs `meters:write`)"


class TestForecast:
    def forecast(self, found: dict[str, Usage], **fields: Any) -> Note:
        planned = with_facts(changed(filter=every(clause("other")), **fields), Facts(usage=found))
        (note,) = notes(planned, "freeze")
        return note

    def test_what_counted_is_almost_certainly_frozen(self) -> None:
        note = self.forecast(usage(1_284_002, ("2026-03-03", 1_284_000), ("2026-11-26", 2)))
        text = f"counted 1,284,002 since March 3, last today: {FROZEN}"
        data = {"state": "likely", "events": 1_284_002, "last": "2026-11-26"}
        assert note == Note("freeze", "warning", text, "usage", AS_OF, data)

    @pytest.mark.parametrize(
        ("life", "counted", "text"),
        [
            (3, [("2025-11-30", 1), ("2026-11-25", 2)], "counted 3 since November 30, 2025, last yesterday"),
            (9, [("2026-11-20", 2)], "counted 9 since before November 27, 2025, last November 20"),
            (9, [], "counted 9, last before November 27, 2025"),
        ],
    )
    def test_days_are_said_as_far_as_they_are_known(
        self, life: float, counted: list[tuple[str, float]], text: str
    ) -> None:
        assert self.forecast(usage(life, *counted)).text.startswith(text + ": ")

    def test_a_sum_is_no_number_of_events(self) -> None:
        total = {"func": "sum", "property": "tokens"}
        planned = plan(
            desired({"calls": meter(aggregation=total, filter=every(clause("other")))}),
            {"calls": record(1, aggregation=total)},
            [live(1, aggregation=total)],
        )
        (note,) = notes(with_facts(planned, Facts(usage=usage(1.5, ("2026-11-26", 1.5)))), "freeze")
        assert note.text.startswith("counted 1.5 since today, last today: ")
        assert note.data == {"state": "likely", "events": None, "last": "2026-11-26"}

    def test_a_largest_number_says_only_when(self) -> None:
        """The quantities of days do not add up to that of a life."""
        largest = {"func": "max", "property": "seats"}
        planned = plan(
            desired({"calls": meter(aggregation=largest, filter=every(clause("other")))}),
            {"calls": record(1, aggregation=largest)},
            [live(1, aggregation=largest)],
        )
        (note,) = notes(with_facts(planned, Facts(usage=usage(7, ("2026-11-26", 7)))), "freeze")
        assert note.text == f"has counted events, last today: {FROZEN}"

    def test_what_counted_nothing_is_probably_open(self) -> None:
        note = self.forecast(usage(0))
        text = (
            "counted 0 since 2023: Polar will probably accept this, unless a credit has frozen the meter; "
            "`polar-iac probe -e sandbox calls` tells"
        )
        data = {"state": "open", "events": 0, "last": None}
        assert note == Note("freeze", "info", text, "usage", AS_OF, data)

    def test_what_a_benefit_credits_may_be_frozen_without_usage(self) -> None:
        credits_ = [Credit("c", METER, "Free calls"), Credit("d", identifier(2), "Other")]
        facts = Facts(usage=usage(0), credits=credits_)
        (note,) = notes(with_facts(changed(filter=every(clause("other"))), facts), "freeze")
        assert note.text == (
            "counted 0 since 2023, but benefit Free calls credits this meter, and a credit freezes it, too; "
            "`polar-iac probe -e sandbox calls` tells"
        )
        assert (note.severity, note.data["state"]) == ("warning", "unknown")

    @pytest.mark.parametrize("found", [{}, usage(None)])
    def test_without_usage_it_stays_unknown(self, found: dict[str, Usage]) -> None:
        note = self.forecast(found)
        assert note.text == "freeze unknown: `polar-iac probe -e ENV KEY` tells if Polar refuses this"
        assert (note.severity, note.data["state"]) == ("warning", "unknown")

    def test_another_name_is_no_matter_of_freezing(self) -> None:
        planned = with_facts(changed(name="Renamed"), Facts(usage=usage(5, ("2026-11-26", 5))))
        assert notes(planned, "freeze") == []

    def test_a_new_meter_of_events_that_exist_is_frozen_at_once(self) -> None:
        planned = with_facts(created(), Facts(names=[name("call"), name("other")], as_of=AS_OF))
        text = (
            "likely frozen at once: 12,300 events named `call` exist, and one that matches freezes filter "
            "and aggregation"
        )
        data = {"state": "likely", "events": 12_300, "last": "2026-11-26"}
        assert notes(planned, "freeze") == [Note("freeze", "info", text, "names", AS_OF, data)]


class TestEventNames:
    def test_a_name_that_no_event_has_is_reported_with_the_nearest(self) -> None:
        planned = created(filter=every(clause("llm_call")))
        found = with_facts(planned, Facts(names=[name("llm.call"), name("page.view")], as_of=AS_OF))
        data = {
            "event_name": "llm_call",
            "seen": 0,
            "nearest": {"name": "llm.call", "occurrences": 12_300, "last": "2026-11-26"},
        }
        text = "no event is named `llm_call`; seen: `llm.call`, 12,300, last today"
        assert notes(found, "unseen") == [Note("unseen", "warning", text, "names", AS_OF, data)]
        assert notes(found, "freeze") == []

    def test_without_one_like_it_only_the_name_is_said(self) -> None:
        planned = with_facts(
            created(filter=every(clause("llm_call"))), Facts(names=[name("page.view")], as_of=AS_OF)
        )
        (note,) = notes(planned, "unseen")
        assert (note.text, note.data["nearest"]) == ("no event is named `llm_call`", None)

    def test_only_names_that_a_change_newly_asks_for_count(self) -> None:
        """A name that the meter asked for before is a matter of `check`."""
        either = {"conjunction": "or", "clauses": [clause("call"), clause("new"), clause("x", "ne")]}
        planned = with_facts(changed(filter=either), Facts(names=[name("page.view")], as_of=AS_OF))
        assert [note.data["event_name"] for note in notes(planned, "unseen")] == ["new"]

    def test_an_organization_without_events_shows_nothing(self) -> None:
        """Every name would be unseen, and a token of another organization shows none either."""
        assert notes(with_facts(created(), Facts(names=[], as_of=AS_OF)), "unseen") == []

    def test_names_are_found_in_nested_filters_and_behind_a_prefix(self) -> None:
        nested = every({"conjunction": "or", "clauses": [clause("a", name="metadata.name"), clause(5)]})
        assert named_events(only(created(filter=nested))) == ("a",)


class TestWhatIsAttached:
    def test_an_archive_that_polar_will_refuse_is_blocked_and_keeps_its_digest(self) -> None:
        planned = archived()
        facts = Facts(
            prices=[price("Pro"), price("Team"), price("Old", archived=True)],
            credits=[Credit("credit", METER, "Free exports")],
            as_of=AS_OF,
        )
        blocked = with_facts(planned, facts)
        assert only(blocked).reason == (
            "cannot be archived: products Pro ($0.50 / unit) and Team, and benefit Free exports use it; "
            f"remove them first. {REPLACED}."
        )
        assert (only(blocked).action, only(blocked).cause, blocked.wanted) == ("blocked", "attached", 0)
        assert [notes(planned_, "archive") == [] for planned_ in (planned, blocked)] == [False, True]
        assert (blocked.digest, differences(planned, blocked)) == (planned.digest, ())
        (note,) = notes(blocked, "attached")
        assert (note.severity, note.source, note.as_of) == ("warning", "products", AS_OF)
        assert note.data == {
            "products": [
                {
                    "id": f"{product}-id",
                    "name": product,
                    "price_id": f"{product}-price",
                    "unit_amount": "50.000000000000",
                    "currency": "usd",
                    "is_archived": product == "Old",
                }
                for product in ("Pro", "Team", "Old")
            ],
            "benefits": [{"id": "credit", "description": "Free exports"}],
        }

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            (Facts(prices=[price("Pro")]), "product Pro ($0.50 / unit) uses it; remove it first"),
            (Facts(credits=[Credit("c", METER, "Free")]), "benefit Free uses it; remove it first"),
            (
                Facts(prices=[price("Pro"), price("Team", "0.5")], credits=[]),
                "products Pro ($0.50 / unit) and Team ($0.005 / unit) use it; remove them first",
            ),
            (
                Facts(prices=[price(str(n), "1000", currency="eur") for n in range(7)]),
                "products 0 (10.00 EUR / unit), 1, 2, 3, 4 and 2 more use it; remove them first",
            ),
        ],
    )
    def test_the_reason_names_what_is_in_the_way(self, facts: Facts, reason: str) -> None:
        assert only(with_facts(archived(), facts)).reason == f"cannot be archived: {reason}. {REPLACED}."

    def test_an_archived_product_stops_no_archive(self) -> None:
        facts = Facts(prices=[price("Old", archived=True)], credits=[])
        planned = with_facts(archived(), facts)
        assert only(planned).action == "archive"
        assert [note.text for note in notes(planned, "attached")] == [
            f"product Old ($0.50 / unit, archived) uses this meter. {REPLACED}"
        ]

    @pytest.mark.parametrize(
        ("facts", "text"),
        [
            (Facts(prices=[], credits=[]), "no live price and no credit benefit uses this meter. "),
            (Facts(prices=[]), "no live price uses this meter. Benefits were not read. "),
            (Facts(credits=[]), "no credit benefit uses this meter. Products were not read"),
        ],
    )
    def test_what_was_not_read_is_not_said_to_be_nothing(self, facts: Facts, text: str) -> None:
        planned = with_facts(archived(), facts)
        (note,) = notes(planned, "attached")
        assert note.text == (text + REPLACED if text.endswith(" ") else text)
        assert (note.data["products"] is None, note.data["benefits"] is None) == (
            facts.prices is None,
            facts.credits is None,
        )
        assert only(planned).action == "archive"

    def test_what_customers_read_differently_says_what_they_are_charged(self) -> None:
        unit = {"unit": "custom", "custom_label": "token", "custom_multiplier": 1000}
        planned = with_facts(changed(**unit), Facts(prices=[price("Pro", "0.5")], credits=[], as_of=AS_OF))
        assert [note.text for note in notes(planned, "attached")] == [
            "product Pro ($0.005 / token) uses this meter. Shown as $5.00 per 1,000 tokens; charged $0.005 a "
            "token, as before"
        ]
        assert only(planned).action == "update"

    def test_an_amount_that_is_no_number_is_not_shown(self) -> None:
        unit = {"unit": "custom", "custom_label": "token", "custom_multiplier": 1000}
        planned = with_facts(changed(**unit), Facts(prices=[price("Pro", "much")], credits=[]))
        assert [note.text for note in notes(planned, "attached")] == ["product Pro uses this meter"]

    def test_a_change_of_metadata_is_no_matter_of_prices(self) -> None:
        planned = with_facts(changed(metadata={"owner": "kim"}), Facts(prices=[price("Pro")], credits=[]))
        assert notes(planned, "attached") == []

    def test_prices_of_other_meters_do_not_count(self) -> None:
        other = replace(price("Pro"), meter_id=identifier(2))
        assert only(with_facts(archived(), Facts(prices=[other], credits=[]))).action == "archive"


class TestArchivesInUse:
    def test_what_is_archived_says_what_it_counted_of_late(self) -> None:
        days = usage(None, ("2026-11-01", 40_000), ("2026-11-26", 1_200))[METER].days[-30:]
        planned = with_facts(archived(), Facts(usage={METER: Usage(None, days, AS_OF)}))
        text = "counted 41,200 in the last 30 days, last today: archived, it counts no more"
        data = {"days": 30, "quantity": 41_200.0, "last": "2026-11-26"}
        assert notes(planned, "usage") == [Note("usage", "warning", text, "usage", AS_OF, data)]

    def test_a_meter_that_nobody_uses_is_no_warning(self) -> None:
        days = usage(None)[METER].days[-30:]
        planned = with_facts(archived(), Facts(usage={METER: Usage(None, days, AS_OF)}))
        (note,) = notes(planned, "usage")
        assert (note.severity, note.text) == ("info", "counted 0 in the last 30 days")

    def test_a_largest_number_does_not_add_up(self) -> None:
        largest = {"func": "max", "property": "seats"}
        planned = plan(
            desired({"calls": meter(aggregation=largest, archived=True)}),
            {"calls": record(1, aggregation=largest)},
            [live(1, aggregation=largest)],
        )
        found = with_facts(planned, Facts(usage=usage(None, ("2026-11-25", 7))))
        (note,) = notes(found, "usage")
        assert note.text.startswith("counted events in the last 365 days, last yesterday: ")
        assert note.data["quantity"] is None


class TestShownBlocks:
    def test_what_a_review_showed_as_blocked_is_blocked(self) -> None:
        """The apply's token may see less than the review's."""
        shown = with_facts(archived(), Facts(prices=[price("Pro")]))
        again = with_shown_blocks(archived(), shown)
        assert (only(again).action, only(again).reason) == ("blocked", only(shown).reason)
        assert again.digest == shown.digest

    def test_another_archive_is_not_blocked(self) -> None:
        shown = with_facts(archived(), Facts(prices=[price("Pro")]))
        other = plan(desired({"new": meter(archived=True)}), {"new": record(2)}, [live(2, "new")])
        assert with_shown_blocks(other, shown) == other


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (0, "0"),
        (1_284_002.0, "1,284,002"),
        (1234.5, "1,234.5"),
        (0.25, "0.25"),
        (-2.5, "-2.5"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_written_as_people_read_them(quantity: float, text: str) -> None:
    assert words.number(quantity) == text


@pytest.mark.parametrize(
    ("cents", "text"),
    [
        ("50", "$0.50"),
        ("0.5", "$0.005"),
        ("100000.000000000000", "$1,000.00"),
        ("x", None),
        ("NaN", None),
        ("1e99", None),
    ],
)
def test_money_is_written_from_cents(cents: str, text: str | None) -> None:
    assert words.money(cents, "usd") == text


@pytest.mark.parametrize(
    ("fields", "one", "many"),
    [
        ({}, "unit", "1,000 units"),
        ({"unit": "token"}, "token", "1,000 tokens"),
        ({"unit": "custom", "custom_label": "export"}, "export", "1,000 exports"),
        ({"unit": "custom", "custom_label": "GB"}, "GB", "1,000 GB"),
    ],
)
def test_units_are_named_as_the_meter_does(fields: dict[str, Any], one: str, many: str) -> None:
    assert (words.units(spec(**fields)), words.units(spec(**fields), 1000)) == (one, many)
