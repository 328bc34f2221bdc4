"""Impact over HTTP: events are ingested, read within the budget, evaluated, and said in exact words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import parse_qs

from polar_iac.apply.facts import gather, needs_of
from polar_iac.clock import SystemClock
from polar_iac.facts.model import Facts, Gap
from polar_iac.local import LocalPolar, RateLimit
from polar_iac.plan.facts import with_facts
from polar_iac.plan.model import Change, Note, Plan
from polar_iac.polar.connection import Connection
from polar_iac.polar.facts import Access, FactsReader
from polar_iac.polar.facts_budget import Budget
from tests.support.build import desired, live, meter, plan, record
from tests.support.local_polar import client, create
from tests.support.served_polar import Exchange, Served, served_polar

NOW = datetime(2025, 11, 25, 10, tzinfo=UTC)
"""A day of the past: the embedded Polar takes no event of the future."""
AS_OF = "2025-11-25T10:00:00Z"
COMPLETION = {"property": "name", "operator": "eq", "value": "llm.completion"}
ONLY_4O = {"property": "model", "operator": "eq", "value": "gpt-4o"}
TOKENS = {"func": "sum", "property": "tokens"}


def tokens(*more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A meter that sums the tokens of completions."""
    filter_ = {"conjunction": "and", "clauses": [COMPLETION, *more]}
    return meter(filter=filter_, aggregation=TOKENS, **fields)


def event(customer: int, amount: Any, model: str = "gpt-4o", day: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "name": "llm.completion",
        "external_customer_id": f"cust_{customer}",
        "timestamp": f"2025-11-{day:02}T12:00:00Z",
        "metadata": {"tokens": amount, "model": model},
        **fields,
    }


def ingest(polar: Served, events: Sequence[dict[str, Any]]) -> None:
    answer = client(polar.polar).post("/events/ingest", json={"events": list(events)})
    assert answer.status_code == 200, answer.text


@contextmanager
def reader(polar: Served, requests: int = 60) -> Iterator[FactsReader]:
    with closing(Connection(polar.url, "polar_oat_facts", transport=None, timeout=20)) as connection:
        access = Access(connection, "POLAR_FACTS_TOKEN")
        budget = Budget(requests, 20.0, SystemClock(), None)
        yield FactsReader(access, access, budget, now=lambda: NOW)


def changed(polar: Served, before: dict[str, Any], after: dict[str, Any]) -> Plan:
    """A plan that changes a meter, which exists at Polar too."""
    id_ = create(client(polar.polar), **before)["id"]
    planned = plan(desired({"tokens": after}), {"tokens": record(1, **before)}, [live(1, "tokens", **before)])
    return replace(planned, changes=tuple(replace(change, id=id_) for change in planned.changes))


def facts_of(polar: Served, planned: Plan, requests: int = 60) -> Facts:
    polar.tape.clear()
    with reader(polar, requests) as opened:
        return gather(needs_of(planned, "all"), opened)


def noted(polar: Served, planned: Plan, requests: int = 60) -> Change:
    (change,) = with_facts(planned, facts_of(polar, planned, requests)).changes
    return change


def notes(change: Change, kind: str) -> list[Note]:
    return [note for note in change.notes if note.kind == kind]


def pages(exchanges: Sequence[Exchange]) -> list[dict[str, list[str]]]:
    """The queries of pages of events."""
    return [parse_qs(e.query) for e in exchanges if e.path == "/v1/events/"]


def test_a_narrower_filter_counts_less(polar: Served) -> None:
    """230 customers, of whom 19 use nothing else than what is still counted."""
    events = [event(n, 3_455) for n in range(229)] + [event(229, 3_663)]
    events += [event(n, 1_940, "gpt-5", day=24) for n in range(210)] + [event(210, 2_073, "gpt-5", day=24)]
    ingest(polar, events)
    (note,) = notes(noted(polar, changed(polar, tokens(), tokens(ONLY_4O))), "impact")
    assert note.text == (
        "counts less: 1,204,331 → 794,858 matched tokens (−34 %) over Oct 26 – Nov 24 UTC; "
        "211 of 230 customers with usage"
    )
    assert (note.severity, note.source, note.as_of) == ("info", "events", AS_OF)
    daily = {day["date"]: day for day in note.data["daily"]}
    assert len(daily) == 30
    assert daily["2025-11-01"] == {"date": "2025-11-01", "before": 794_858.0, "after": 794_858.0}
    assert daily["2025-11-24"] == {"date": "2025-11-24", "before": 409_473.0, "after": 0.0}
    assert {key: value for key, value in note.data.items() if key != "daily"} == {
        "start": "2025-10-26",
        "end": "2025-11-24",
        "events": {"both": 230, "only_before": 211, "only_after": 0},
        "quantity": {"before": 1_204_331.0, "after": 794_858.0},
        "customers": 211,
        "customers_total": 230,
        "read": 441,
        "of": 441,
        "error": None,
        "estimated": False,
        "at_least": None,
        "unlike": 0,
    }


def test_a_new_meter_says_what_it_would_have_counted(polar: Served) -> None:
    ingest(polar, [event(1, 100), event(1, 50), event(2, 7.5), event(3, 9, "gpt-5")])
    planned = plan(desired({"tokens": tokens(ONLY_4O)}))
    (note,) = notes(noted(polar, planned), "impact")
    assert note.text == (
        "would have counted 157.5 matched tokens over Oct 26 – Nov 24 UTC; 2 customers with usage"
    )
    assert note.data["quantity"] == {"before": None, "after": 157.5}


def test_a_misspelled_name_would_have_counted_nothing(polar: Served) -> None:
    """Another event is of the day itself, which is no part of the period."""
    ingest(polar, [event(1, 5, name="audio.call"), event(1, 5, name="audio.call", day=25)])
    filter_ = {"conjunction": "and", "clauses": [{**COMPLETION, "value": "audio_call"}]}
    planned = plan(desired({"calls": meter(filter=filter_)}))
    (note,) = notes(noted(polar, planned), "impact")
    assert note.text == (
        "would have counted 0 events in 30 days: no event is named `audio_call`; "
        "seen: `audio.call` (2, last today)"
    )
    assert note.severity == "warning"
    assert not pages(polar.tape.exchanges)


def test_another_aggregation_counts_otherwise(polar: Served) -> None:
    ingest(polar, [event(1, 100), event(1, 50, day=2)])
    before = tokens()
    after = {**before, "aggregation": {"func": "max", "property": "tokens"}}
    (note,) = notes(noted(polar, changed(polar, before, after)), "impact")
    assert note.text == (
        "counts differently: 150 matched tokens → 100 matched `max(tokens)` over Oct 26 – Nov 24 UTC; "
        "1 of 1 customer with usage"
    )


def test_a_change_that_nobody_would_have_noticed_counts_the_same(polar: Served) -> None:
    ingest(polar, [event(1, 100)])
    (note,) = notes(noted(polar, changed(polar, tokens(), tokens(ONLY_4O))), "impact")
    assert note.text == "would have counted the same: 100 matched tokens over Oct 26 – Nov 24 UTC"


def many(count: int) -> list[dict[str, Any]]:
    """Events spread over the period, a third of another model."""
    random, start = Random(1), datetime(2025, 10, 26, tzinfo=UTC)
    step = timedelta(days=30) / count
    return [
        event(
            random.randrange(50),
            round(random.lognormvariate(5, 1)),
            random.choice(["gpt-4o", "gpt-4o", "gpt-5"]),
            timestamp=(start + number * step).isoformat(),
        )
        for number in range(count)
    ]


def test_of_many_events_a_sample_is_read_within_the_budget(polar: Served) -> None:
    """Of 1,200 events 1,000 are read, with 16 requests in all: 10 pages, and the first to count them."""
    events = many(1_200)
    ingest(polar, events)
    planned = changed(polar, tokens(), tokens(ONLY_4O))
    (note,) = notes(noted(polar, planned, requests=16), "impact")
    before = sum(e["metadata"]["tokens"] for e in events)
    after = sum(e["metadata"]["tokens"] for e in events if e["metadata"]["model"] == "gpt-4o")
    quantity, error = note.data["quantity"], note.data["error"]
    assert quantity["before"] == before
    assert 0 < abs(quantity["after"] - after) <= error < 0.2 * before
    assert (note.data["read"], note.data["of"], note.data["estimated"]) == (1_000, 1_200, True)
    assert note.text.startswith(f"counts less: {before:,} → ")
    assert f" → {quantity['after']:,.0f} matched tokens (" in note.text
    assert f"estimated, ± {error:,.0f})" in note.text
    assert note.text.endswith("; 1,000 of 1,200 events read")
    assert len(polar.tape.exchanges) <= 16
    # The same events once more, and a quantity that is not estimated of a sample.
    largest = {"func": "max", "property": "tokens"}
    wide, narrow = ({**tokens(*more), "aggregation": largest} for more in ((), (ONLY_4O,)))
    (note,) = notes(noted(polar, changed(polar, wide, narrow), requests=16), "impact")
    assert note.text == ("matched usage over Oct 26 – Nov 24 UTC not estimated: 1,000 of 1,200 events read")
    assert note.data["quantity"] == {"before": None, "after": None}
    # Of the sum of a new meter no total is known.
    (note,) = notes(noted(polar, plan(desired({"tokens": tokens(ONLY_4O)})), requests=12), "impact")
    least = note.data["at_least"]
    assert 0.5 * after < least < after
    assert note.text == (
        f"would have counted at least {least:,.0f} matched tokens over Oct 26 – Nov 24 UTC; "
        "more is not estimated: 1,000 of 1,200 events read"
    )


def test_events_that_add_nothing_freeze_as_well(polar: Served) -> None:
    ingest(polar, [event(1, 0), event(2, 0)])
    planned = changed(polar, tokens(), tokens(ONLY_4O))
    facts = facts_of(polar, planned)
    (note,) = notes(with_facts(planned, facts).changes[0], "freeze")
    assert note.text == (
        "counted 0 since 2023, but events match it, and one that does freezes it: Polar will almost "
        "certainly refuse this"
    )
    assert (note.severity, note.source, note.data["state"]) == ("warning", "events", "likely")
    # As where nobody could read what it counted.
    (note,) = notes(with_facts(planned, replace(facts, usage={})).changes[0], "freeze")
    assert note.text.startswith("events match it, and one that does freezes it")
    # Without events, nothing is known of them.
    (note,) = notes(with_facts(planned, replace(facts, names=None)).changes[0], "freeze")
    assert note.data["state"] == "open"


def test_usage_that_no_listed_event_makes_is_a_gap_and_not_without_effect(polar: Served) -> None:
    """Polar's list of events lags behind, or is cut. What it counted is what it bills."""
    ingest(polar, [event(1, 100)])
    planned = changed(polar, tokens(), tokens(ONLY_4O))
    facts = facts_of(polar, planned)
    (read,) = facts.events.values()
    for lost in (
        replace(facts, events={read.name: replace(read, total=0, windows=())}),
        replace(facts, names=(), events={}),
    ):
        joined = with_facts(planned, lost)
        text = "Polar counted usage, and lists no event that makes it"
        assert joined.facts_gaps == (Gap("events", "failed", text, ("tokens",)),)
        assert not notes(joined.changes[0], "impact")


def test_where_no_request_is_left_the_gap_says_so(polar: Served) -> None:
    ingest(polar, many(201))
    planned = changed(polar, tokens(), tokens(ONLY_4O))
    facts = facts_of(polar, planned, requests=5)
    assert [(gap.source, gap.lack, gap.keys) for gap in facts.gaps] == [("events", "budget", ("tokens",))]
    (change,) = with_facts(planned, facts).changes
    assert not notes(change, "impact")
    assert len(polar.tape.exchanges) == 5


def test_a_429_ends_the_reading_and_what_was_read_is_a_sample() -> None:
    """The limit is reached at the last of 7 pages."""
    with served_polar(LocalPolar(rate_limit=RateLimit(13))) as polar:
        planned = changed(polar, tokens(), tokens(ONLY_4O))
        events = many(601)
        ingest(polar, events)
        facts = facts_of(polar, planned)
        assert [exchange.status for exchange in polar.tape.exchanges][-2:] == [200, 429]
    assert [(gap.source, gap.lack) for gap in facts.gaps] == [("events", "limited")]
    (change,) = with_facts(planned, facts).changes
    (note,) = notes(change, "impact")
    truth = sum(e["metadata"]["tokens"] for e in events if e["metadata"]["model"] == "gpt-4o")
    assert 400 <= note.data["read"] < 601
    assert abs(note.data["quantity"]["after"] - truth) <= note.data["error"]


def test_a_plan_without_changes_reads_no_event() -> None:
    same = tokens()
    planned = plan(desired({"tokens": same}), {"tokens": record(1, **same)}, [live(1, "tokens", **same)])
    assert not needs_of(planned, "all").any


def test_two_meters_share_the_pages_of_a_name(polar: Served) -> None:
    ingest(polar, many(201))
    planned = plan(desired({"a": tokens(), "b": tokens(ONLY_4O)}))
    facts_of(polar, planned)
    assert len(pages(polar.tape.exchanges)) == 3


def test_properties_that_events_lack_or_have_as_text_are_said(polar: Served) -> None:
    events = [event(1, "150") for _ in range(34)] + [event(1, 150) for _ in range(66)]
    ingest(polar, [{**e, "metadata": {**e["metadata"], "status": 200}} for e in events])
    cached = {"property": "cached", "operator": "eq", "value": True}
    planned = plan(desired({"tokens": tokens(), "cached": tokens(cached)}))
    first, second = with_facts(planned, facts_of(polar, planned)).changes
    assert [note.text for note in notes(first, "unseen")] == [
        "of 100 events read, none has a property `cached`"
    ]
    (note,) = notes(second, "unseen")
    assert note.text == "`tokens` is text in 34 of 100 events read, where the meter needs a number"
    assert (note.severity, note.source) == ("warning", "events")
    assert note.data == {
        "property": "tokens",
        "seen": 100,
        "missing": 0,
        "other_type": 34,
        "of": 100,
        "nearest": None,
    }


def test_a_property_that_nearly_all_events_lack_has_a_nearest(polar: Served) -> None:
    events = [event(1, 5) for _ in range(98)]
    odd = [{**event(1, 5), "metadata": {"token": 5}} for _ in range(2)]
    ingest(polar, [*events, *odd])
    total = {"func": "sum", "property": "token"}
    planned = plan(desired({"tokens": {**tokens(), "aggregation": total}}))
    (note,) = notes(noted(polar, planned), "unseen")
    assert note.text == "of 100 events read, 98 have no property `token`; seen: `tokens` (98)"
    assert note.data["nearest"] == {"name": "tokens", "occurrences": 98, "last": None}


def test_days_on_which_polar_counts_otherwise_are_said(polar: Served) -> None:
    ingest(polar, [event(1, 5), event(1, 5, "gpt-5", day=2)])
    planned = changed(polar, tokens(), tokens(ONLY_4O))
    facts = facts_of(polar, planned)
    ((id_, usage),) = facts.usage.items()
    days = tuple(replace(day, quantity=day.quantity * 2) for day in usage.days)
    (change,) = with_facts(planned, replace(facts, usage={id_: replace(usage, days=days)})).changes
    (note,) = notes(change, "impact")
    assert note.text.endswith("; Polar's own quantities differ on 2 of these days")
