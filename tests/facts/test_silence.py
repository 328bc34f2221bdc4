"""Silence of a meter: when it is reported, and when it is usual."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from polar_iac.facts.model import Day, Usage
from polar_iac.facts.silence import DAYS, Silence, needs_hours, silence

TODAY = date(2026, 11, 26)  # a Thursday


def usage(quantities: dict[int, float]) -> Usage:
    """What a meter counted, by how many days ago."""
    days = (
        Day((TODAY - timedelta(days=n)).isoformat(), quantities.get(n, 0)) for n in range(DAYS - 1, -1, -1)
    )
    return Usage(None, tuple(days), "2026-11-26T12:00:00Z")


def found(quantities: dict[int, float], today: date = TODAY, *, quiet: bool = False) -> Silence | None:
    return silence(usage(quantities), today.isoformat(), quiet_since_yesterday=quiet)


def test_a_meter_that_counted_each_day_and_stopped_two_days_ago() -> None:
    assert found({n: 40_000 + 100 * n for n in range(2, 40)}) == Silence("2026-11-24", 40_600)


def test_the_average_is_of_the_week_before_the_last_day_since_it_began() -> None:
    """The last day ended where the silence began."""
    assert found({2: 1, 3: 20, 4: 30}) == Silence("2026-11-24", 25)
    assert found({2: 7}) == Silence("2026-11-24", 7)
    assert found({2: 7, 6: 8, 40: 1_000}) == Silence("2026-11-24", 2)
    assert found({2: 7, 9: 14, 10: 1_000}) == Silence("2026-11-24", 2)


@pytest.mark.parametrize(
    "quantities", [{}, {0: 5, 9: 5}, {0: 5, 1: 5}, {31: 5}, dict.fromkeys(range(31, 92), 5)]
)
def test_no_silence(quantities: dict[int, float]) -> None:
    """It never counted, counted today, or stopped longer ago than anybody would miss it."""
    assert found(quantities, quiet=True) is None


def test_a_meter_that_counted_yesterday_is_silent_only_by_its_hours() -> None:
    counted = dict.fromkeys(range(1, 30), 5.0)
    assert found(counted) is None
    assert found(counted, quiet=True) == Silence("2026-11-25", 5)
    assert needs_hours(usage(counted).days, TODAY.isoformat())
    assert not needs_hours(usage({**counted, 0: 1}).days, TODAY.isoformat())
    assert not needs_hours(usage({2: 5}).days, TODAY.isoformat())


def test_it_is_reported_for_a_month() -> None:
    assert found(dict.fromkeys(range(30, 60), 5)) == Silence("2026-10-27", 5)


def test_what_pauses_each_weekend_is_reported_when_the_pause_is_longer() -> None:
    workdays = {n: 100.0 for n in range(DAYS) if (TODAY - timedelta(days=n)).weekday() < 5}

    def on(day: date, last: date) -> Silence | None:
        return found({n: q for n, q in workdays.items() if TODAY - timedelta(days=n) <= last}, day)

    friday = date(2026, 11, 20)
    assert on(date(2026, 11, 22), friday) is None  # Sunday
    assert on(date(2026, 11, 23), friday) is None  # Monday, before anybody works
    assert on(date(2026, 11, 24), friday) is not None
    assert on(date(2026, 11, 26), date(2026, 11, 24)) is None  # one day is less than a weekend
    assert on(date(2026, 11, 27), date(2026, 11, 24)) is None
    assert on(date(2026, 11, 28), date(2026, 11, 24)) is not None


def test_what_counts_once_a_month_is_not_missed_in_between() -> None:
    assert found({2: 5, 33: 5, 63: 5, 94: 5}) is None
    assert found({29: 5, 60: 5, 90: 5, 121: 5}) is None
    assert found({29: 5, 60: 5, 90: 5}) is not None  # twice may be chance


def test_a_quantity_below_zero_counts() -> None:
    assert found(dict.fromkeys(range(2, 9), -3)) == Silence("2026-11-24", -3)
