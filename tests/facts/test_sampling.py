"""Impact from a sample: what is estimated, within which error, and what is not."""

from __future__ import annotations

import itertools
from datetime import date
from typing import Any

import pytest

from polar_iac.facts.bounds import lower_mean
from polar_iac.facts.impact import Impact
from polar_iac.facts.model import Day, EventsRead, Usage, Window
from polar_iac.facts.names import reach
from polar_iac.facts.period import Period
from polar_iac.facts.sampling import Estimate, sampled_impact
from polar_iac.meter.spec import MeterSpec
from tests.support.build import spec
from tests.support.sampling_trials import KINDS, trial

PERIOD = Period.before(date(2026, 11, 25))
CLAUSES: dict[str, list[tuple[str, str, Any]]] = {
    "all": [("name", "eq", "call")],
    "kept": [("name", "eq", "call"), ("kept", "eq", 1)],
    "other": [("name", "eq", "call"), ("kept", "eq", 0)],
}
CALLS_AND_JOBS = spec(
    filter={
        "conjunction": "or",
        "clauses": [{"property": "name", "operator": "eq", "value": name} for name in ("call", "job")],
    }
)
COUNT = {"func": "count"}
SUM = {"func": "sum", "property": "n"}


def meter(which: str, aggregation: Any = SUM) -> MeterSpec:
    parts = [{"property": p, "operator": o, "value": v} for p, o, v in CLAUSES[which]]
    return spec(filter={"conjunction": "and", "clauses": parts}, aggregation=aggregation)


def usage(total: float) -> Usage:
    days = [Day(day, total / 30) for day in PERIOD.days]
    return Usage(None, tuple(days), "2026-11-25T00:00:00Z")


def read(total: int = 10_000, *, windows: int = 20, n: Any = 5, lost_of_10: int = 3) -> EventsRead:
    """Windows of 20 events, in each of which some of ten are lost."""
    events = tuple(
        {
            "name": "call",
            "source": "user",
            "timestamp": "2026-11-01T00:00:00Z",
            "customer_id": "1",
            "metadata": {"n": n, "kept": int(number % 10 >= lost_of_10)},
        }
        for number in range(20)
    )
    window = Window("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", events)
    return EventsRead("call", PERIOD.after, PERIOD.until, total, (window,) * windows, "2026-11-25T00:00:00Z")


def near(*values: float | None) -> Any:
    return pytest.approx(values)


def impact(
    before: MeterSpec | None, after: MeterSpec, *reads: EventsRead, known: float | None = None
) -> Impact:
    names = [reach(read.name, before, after) for read in reads]
    return sampled_impact(before, after, reads, PERIOD, None if known is None else usage(known), names)


@pytest.mark.unmeasured
def test_samples_lie_within_their_stated_errors() -> None:
    """Few of the trials of `python -m tests.soak sampling`. By their seeds none of these is off."""
    outcomes = [trial(kind, number % 3) for number, kind in enumerate(KINDS)]
    assert all(outcome.covered for outcome in outcomes)
    assert sum(outcome.stated for outcome in outcomes) >= 0.8 * len(outcomes)
    assert {outcome.windows for outcome in outcomes} == {50, 25, 11}


@pytest.mark.unmeasured
def test_the_error_of_usual_events_is_of_use() -> None:
    """With 50 windows, a tenth of the usage; 7 % is the least that 50 windows can say."""
    errors = sorted(trial("log-normal, sigma 1", 3 * seed).error for seed in range(3))
    assert 0.05 < errors[1] < 0.12


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e-9, 1e12])
def test_parts_that_are_alike_bound_their_mean_from_below(mean: float) -> None:
    bound = lower_mean([mean] * 50, 0.025)
    assert mean * 0.88 <= bound <= mean * 0.94


def test_one_large_part_of_many_says_little() -> None:
    assert lower_mean([1.0] * 49 + [1e9], 0.025) < 1e9 / 50 / 10
    assert lower_mean([], 0.025) == 0
    assert lower_mean([5e-324] + [0.0] * 49, 0.025) == 0


def test_a_bound_is_seldom_above_the_mean_and_never_of_all_parts() -> None:
    """Of three parts drawn of five, each way is tried: fewer than one in ten may be above."""
    parts = [0.0, 1.0, 1.0, 2.0, 50.0]
    bounds = [lower_mean(drawn, 0.1) for drawn in itertools.permutations(parts, 3)]
    assert sum(bound > 10.8 for bound in bounds) <= len(bounds) * 0.1


def test_what_is_left_of_a_known_sum_is_estimated() -> None:
    found = impact(meter("all"), meter("kept"), read(), known=50_000)
    assert (found.before, found.after) == near(50_000, 35_000)
    assert found.estimated
    assert found.error is not None
    assert 4_000 < found.error < 15_000
    assert (found.read, found.of, found.is_exact) == (400, 10_000, False)
    assert (found.both, found.only_before, found.only_after) == (280, 120, 0)
    assert (found.customers, found.customers_total) == (None, None)
    assert found.daily == ()


def test_a_new_meter_that_counts_is_estimated_of_all_events() -> None:
    found = impact(None, meter("kept", COUNT), read(windows=50))
    assert (found.before, found.after) == near(None, 7_000)
    assert found.error is not None
    assert found.error < 1_500


def test_a_filter_that_moves_both_ways_is_estimated_where_it_counts() -> None:
    found = impact(meter("kept", COUNT), meter("other", COUNT), read(windows=50), known=7_000)
    assert (found.before, found.after) == near(7_000, 3_000)


def test_a_count_of_names_that_were_not_all_read_is_not_estimated() -> None:
    """What the others count is part of it, although the change makes no difference to them."""
    before, after = meter("all", COUNT), meter("kept", COUNT)
    names = [reach("call", before, after), reach("job", CALLS_AND_JOBS, CALLS_AND_JOBS)]
    found = sampled_impact(before, after, [read()], PERIOD, None, names)
    assert (found.after, found.estimated) == (None, False)
    assert sampled_impact(before, after, [read()], PERIOD, usage(12_000), names).estimated


def test_a_sum_without_a_known_total_comes_to_a_certain_amount_at_least() -> None:
    found = impact(None, meter("all"), read(windows=50))
    assert found.after is None
    assert found.at_least is not None
    assert 44_000 < found.at_least < 50_000
    assert impact(None, meter("all"), read(n=-1)).at_least is None
    for nothing in (0, 5e-324, 1e308):  # too small, or too large, for a digit of it to be a double
        assert impact(None, meter("all"), read(n=nothing)).at_least is None


def test_an_estimate_has_two_digits_of_its_error_which_still_holds() -> None:
    assert Estimate(1_375_993.85, 266_012).rounded() == Estimate(1_380_000, 280_000)
    assert Estimate(0.12345, 0.0301).rounded() == Estimate(0.123, 0.031)
    assert Estimate(5.0, 0.0).rounded() == Estimate(5.0, 0.0)
    assert Estimate(1.0, 5e-324).rounded() == Estimate(1.0, 5e-324)
    assert Estimate(100, 9.96).rounded() == Estimate(100, 10.0)


NOT_ESTIMATED = {
    "a sum that gains": (meter("kept"), meter("all"), read(), 35_000),
    "a new sum": (None, meter("all"), read(), None),
    "a sum whose total is not known": (meter("all"), meter("kept"), read(), None),
    "values below zero": (meter("all"), meter("kept"), read(n=-1), -10_000),
    "a total below what was read": (meter("all"), meter("kept"), read(), 1_000),
    "another aggregation": (meter("all", COUNT), meter("kept"), read(), 10_000),
    "a maximum": (
        meter("all", {"func": "max", "property": "n"}),
        meter("kept", {"func": "max", "property": "n"}),
        read(),
        5,
    ),
    "too few windows": (meter("all"), meter("kept"), read(windows=4), 50_000),
    "a total that was hardly read": (meter("all"), meter("kept"), read(), 5_000_000),
}


@pytest.mark.parametrize("case", NOT_ESTIMATED)
def test_what_cannot_be_said_is_not_estimated(case: str) -> None:
    before, after, events, known = NOT_ESTIMATED[case]
    found = impact(before, after, events, known=known)
    assert (found.after, found.error, found.estimated) == (None, None, False)
    assert (found.read, found.of) == (events.read, 10_000)


def test_engines_that_disagree_about_an_event_leave_the_total_unknown() -> None:
    """Billing takes `true` for 1, quantities do not."""
    wide = spec(
        filter={"conjunction": "or", "clauses": [{"property": "b", "operator": "eq", "value": 1}]},
        aggregation=SUM,
    )
    events = read()
    changed = tuple(
        Window(w.start, w.end, tuple({**e, "metadata": {**e["metadata"], "b": True}} for e in w.events))
        for w in events.windows
    )
    both = EventsRead("call", events.start, events.end, 10_000, changed, events.as_of)
    assert impact(wide, wide, both, known=50_000).before is None


def test_names_that_lose_nothing_need_not_be_read_whole() -> None:
    """The change is about one name, whose events were all read; the meter counts others, too."""
    before = meter("all")
    lost = read(total=20, windows=1)
    found = impact(before, meter("kept"), lost, known=1_000)
    assert (found.before, found.after) == near(1_000, 970)
    assert (found.estimated, found.error) == (False, None)
