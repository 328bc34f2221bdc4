"""Impact: equal to a brute-force evaluation when all events were read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polar_iac.facts.impact import DayImpact, exact_impact
from polar_iac.facts.model import Day, EventsRead, Usage, Window
from polar_iac.facts.period import Period
from polar_iac.meter.meaning import evaluate
from polar_iac.meter.spec import MeterSpec
from tests.support.build import spec

Json = dict[str, Any]
PERIOD = Period.before(date(2026, 11, 25))


def read(*events: Json, total: int | None = None) -> EventsRead:
    """Events of the name `call`, all of those that there are unless a total is given."""
    whole = [{"name": "call", "source": "user", "timestamp": "2026-11-01T12:00:00Z", **e} for e in events]
    count = len(whole) if total is None else total
    window = Window(PERIOD.after, PERIOD.until, tuple(whole))
    return EventsRead("call", PERIOD.after, PERIOD.until, count, (window,), "2026-11-25T00:00:00Z")


def usage(**days: float) -> Usage:
    """Usage by day: `nov_1=5`. The other days of the period count nothing."""
    months = {"oct": "10", "nov": "11"}
    counted = {f"2026-{months[d[:3]]}-{int(d[4:]):02}": quantity for d, quantity in days.items()}
    return Usage(None, tuple(Day(d, counted.get(d, 0.0)) for d in PERIOD.days), "2026-11-25T00:00:00Z")


def of(*clauses: tuple[str, str, Any], func: str = "count", name: str | None = None) -> MeterSpec:
    """A meter of a few clauses, all of which must hold."""
    parts = [{"property": p, "operator": o, "value": v} for p, o, v in clauses]
    aggregation = {"func": func} if name is None else {"func": func, "property": name}
    return spec(filter={"conjunction": "and", "clauses": parts}, aggregation=aggregation)


def test_a_period_is_thirty_whole_days_that_end_yesterday() -> None:
    assert (str(PERIOD.first), str(PERIOD.last), len(PERIOD.days)) == ("2026-10-26", "2026-11-24", 30)
    assert (PERIOD.after, PERIOD.until) == ("2026-10-25T23:59:59.999Z", "2026-11-25T00:00:00Z")


def test_a_narrower_filter_loses_events_and_names_no_customer() -> None:
    events = [
        {"customer_id": "1", "metadata": {"tokens": 150, "model": "a"}},
        {"customer_id": "1", "metadata": {"tokens": 50, "model": "b"}, "timestamp": "2026-11-02T00:00:00Z"},
        {"customer_id": "2", "metadata": {"tokens": 7, "model": "a"}},
        {"customer_id": "3", "metadata": {"model": "b"}},
    ]
    impact = exact_impact(
        of(func="sum", name="tokens"),
        of(("model", "eq", "a"), func="sum", name="tokens"),
        [read(*events)],
        PERIOD,
    )
    assert impact is not None
    assert (impact.both, impact.only_before, impact.only_after) == (2, 1, 0)
    assert (impact.before, impact.after) == (207.0, 157.0)
    assert (impact.customers, impact.customers_total) == (1, 2)
    assert (impact.read, impact.of, impact.is_exact, impact.estimated, impact.error) == (
        4,
        4,
        True,
        False,
        None,
    )
    daily = {day.date: day for day in impact.daily}
    assert daily["2026-11-01"] == DayImpact("2026-11-01", 157.0, 157.0)
    assert daily["2026-11-02"] == DayImpact("2026-11-02", 50.0, 0.0)
    assert daily["2026-11-24"] == DayImpact("2026-11-24", 0.0, 0.0)


def test_a_maximum_is_taken_per_customer_and_calendar_month() -> None:
    events = [
        {"customer_id": "1", "metadata": {"gb": 5}, "timestamp": "2026-10-30T00:00:00Z"},
        {"customer_id": "1", "metadata": {"gb": 9}, "timestamp": "2026-10-31T23:59:59Z"},
        {"customer_id": "1", "metadata": {"gb": 4}, "timestamp": "2026-11-01T00:00:00Z"},
        {"customer_id": "2", "metadata": {"gb": 1}, "timestamp": "2026-11-01T00:00:00Z"},
    ]
    impact = exact_impact(None, of(func="max", name="gb"), [read(*events)], PERIOD)
    assert impact is not None
    assert (impact.before, impact.after) == (None, 9.0 + 4.0 + 1.0)
    assert [(d.date, d.before, d.after) for d in impact.daily if d.after] == [
        ("2026-10-30", None, 5.0),
        ("2026-10-31", None, 9.0),
        ("2026-11-01", None, 5.0),
    ]


def test_system_events_are_not_matched_usage_although_quantities_count_them() -> None:
    events = [{"metadata": {}, "customer_id": "1"}, {"metadata": {}, "source": "system"}]
    events[1]["name"] = "order.paid"
    impact = exact_impact(of(), of(("name", "eq", "call")), [read(*events)], PERIOD, usage(nov_1=2))
    assert impact is not None
    assert (impact.before, impact.after, impact.unlike) == (1.0, 1.0, ())


def test_days_on_which_polar_counts_otherwise_are_named() -> None:
    event = {"metadata": {}, "customer_id": "1"}
    impact = exact_impact(of(), of(("x", "eq", 1)), [read(event)], PERIOD, usage(nov_1=1, nov_2=3))
    assert impact is not None
    assert impact.unlike == ("2026-11-02",)


def test_a_sum_beyond_a_double_is_no_impact() -> None:
    event = {"metadata": {"n": 10**400}, "customer_id": "1"}
    assert exact_impact(of(), of(func="sum", name="n"), [read(event)], PERIOD) is None
    large = [{"metadata": {"n": 1e308}, "customer_id": str(number)} for number in range(2)]
    assert exact_impact(of(), of(func="max", name="n"), [read(*large)], PERIOD) is None


TIMES = (
    "2026-10-26T00:00:00Z",
    "2026-10-31T23:59:59.999Z",
    "2026-11-01T00:00:00+00:00",
    "2026-11-24T12:00:00Z",
)
EVENTS = st.builds(
    lambda source, customer, time, metadata: {
        "name": "call" if source == "user" else "order.paid",
        "source": source,
        "customer_id": customer,
        "timestamp": time,
        "metadata": metadata,
    },
    st.sampled_from(["user", "user", "user", "system"]),
    st.sampled_from(["1", "2", "3"]),
    st.sampled_from(TIMES),
    st.fixed_dictionaries(
        {}, optional={"n": st.sampled_from([0, 1, 2.5, -3, "x", True]), "m": st.integers(0, 2)}
    ),
)
SPECS = st.builds(
    lambda value, func: of(("m", "gte", value), func=func, name=None if func == "count" else "n"),
    st.integers(0, 2),
    st.sampled_from(["count", "sum", "max", "min", "avg", "unique"]),
)


def brute_force(meter: MeterSpec, events: Sequence[Json]) -> dict[tuple[str, str], float]:
    """The quantity of each invoice: of one customer in one month, from the recorded form of events."""
    invoices = {}
    for customer in "123":
        for month in ("2026-10", "2026-11"):
            mine = [e for e in events if e["customer_id"] == customer and e["timestamp"].startswith(month)]
            charged = evaluate(
                meter.canonical["filter"], meter.canonical["aggregation"], mine
            ).charged_quantity
            assert charged is not None
            invoices[customer, month] = charged
    return invoices


@given(st.lists(EVENTS, max_size=12), SPECS, SPECS)
def test_impact_is_what_all_invoices_would_say(
    events: list[Json], before: MeterSpec, after: MeterSpec
) -> None:
    impact = exact_impact(before, after, [read(*events)], PERIOD)
    assert impact is not None
    old, new = brute_force(before, events), brute_force(after, events)
    assert (impact.before, impact.after) == (sum(old.values()), sum(new.values()))
    assert impact.customers == len(
        {customer for customer, month in old if old[customer, month] != new[customer, month]}
    )
    for day in impact.daily:
        that_day = [e for e in events if e["timestamp"].startswith(day.date)]
        assert day.before == sum(brute_force(before, that_day).values())
        assert day.after == sum(brute_force(after, that_day).values())
