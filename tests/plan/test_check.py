"""What a check finds: rows of pure inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest

from polar_iac.facts.model import Day, EventName, Facts, Price, Usage
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.plan.check import (
    Archived,
    BlockedKey,
    Drifted,
    Finding,
    NeverCounted,
    Observed,
    Stopped,
    Uncounted,
    find_problems,
    watched_meters,
)
from polar_iac.plan.drift import Drift, find_drift
from tests.support.build import ORGANIZATION, PROJECT, desired, identifier, live, meter, plan, record

NOW = "2026-11-26T12:00:00Z"
PRICES = (
    Price("p2", identifier(1), "prod2", "Team", product_archived=False, unit_amount="0.5"),
    Price("p1", identifier(1), "prod1", "Pro", product_archived=False, unit_amount="0.5"),
    Price("p3", identifier(1), "prod3", "Gone", product_archived=True, unit_amount="0.5"),
)


def usage(days_ago: Sequence[int], quantity: float = 100, life: float | None = None) -> Usage:
    today = date(2026, 11, 26)
    days = [
        Day((today - timedelta(days=n)).isoformat(), quantity if n in days_ago else 0)
        for n in range(60, -1, -1)
    ]
    return Usage(life, tuple(days), NOW)


STOPPED = usage(range(2, 30))
SILENT = usage((), life=0)


def problems(
    facts: Facts,
    live_meters: Sequence[LiveMeter] = (live(1),),
    recorded: dict[str, Record] | None = None,
    meters: dict[str, Any] | None = None,
    quiet: frozenset[str] = frozenset(),
    **top: Any,
) -> tuple[Finding, ...]:
    manifest = desired({"calls": meter()} if meters is None else meters, **top)
    records = {"calls": record(1)} if recorded is None else recorded
    drifted = find_drift(manifest, records, live_meters, environment="sandbox")
    drift = Drift("sandbox", ORGANIZATION, PROJECT, drifted, len(records))
    watched = watched_meters(manifest, records, live_meters, environment="sandbox")
    planned = plan(manifest, records, live_meters)
    return find_problems(manifest, watched, live_meters, planned, drift, Observed(facts, NOW, quiet))


def test_nothing_is_wrong() -> None:
    counted = usage(range(30))
    assert problems(Facts(usage={identifier(1): counted}, names=(), prices=PRICES)) == ()
    assert problems(Facts()) == ()


def test_a_meter_on_a_live_price_has_stopped() -> None:
    (found,) = problems(Facts(usage={identifier(1): STOPPED}, prices=PRICES))
    assert isinstance(found, Stopped)
    assert (found.watched.key, found.last, found.daily) == ("calls", "2026-11-24", 100)
    assert found.watched.source is not None
    assert [price.product for price in found.prices or ()] == ["Pro", "Team"]


def test_without_a_live_price_a_stop_is_none_and_unread_prices_do_not_hide_it() -> None:
    stopped = {identifier(1): STOPPED}
    assert problems(Facts(usage=stopped, prices=())) == ()
    assert problems(Facts(usage=stopped, prices=PRICES[2:])) == ()
    (found,) = problems(Facts(usage=stopped))
    assert isinstance(found, Stopped)
    assert found.prices is None


def test_hours_show_a_stop_since_yesterday() -> None:
    facts = Facts(usage={identifier(1): usage(range(1, 30))}, prices=PRICES)
    assert problems(facts) == ()
    (found,) = problems(facts, quiet=frozenset({identifier(1)}))
    assert isinstance(found, Stopped)


@pytest.mark.parametrize(("func", "daily"), [("sum", 100), ("unique", 100), ("max", None), ("avg", None)])
def test_only_what_is_counted_is_so_many_a_day(func: str, daily: float | None) -> None:
    block = meter(aggregation={"func": func, "property": "x"})
    (found,) = problems(
        Facts(usage={identifier(1): STOPPED}),
        [live(1, aggregation=block["aggregation"])],
        {"calls": record(1, aggregation=block["aggregation"])},
        {"calls": block},
    )
    assert isinstance(found, Stopped)
    assert found.daily == daily


def test_a_meter_that_never_counted() -> None:
    facts = Facts(usage={identifier(1): SILENT}, prices=())
    (found,) = problems(facts)
    assert isinstance(found, NeverCounted)
    assert found.prices == ()
    assert found.unseen is None  # event names were not read
    (named,) = problems(Facts(usage={identifier(1): SILENT}, names=()))
    assert isinstance(named, NeverCounted)
    assert (named.unseen, named.nearest) == ("call", None)
    assert problems(Facts(usage={identifier(1): usage((), life=5)})) == ()
    assert problems(Facts(usage={identifier(1): usage(())})) == ()  # its life is not known
    for created, count in (("2026-11-25T12:00:00.000001Z", 0), ("2026-11-25T12:00:00.000000Z", 1)):
        assert len(problems(facts, [live(1, created_at=created)])) == count


def test_a_meter_may_count_nothing_where_the_manifest_says_so() -> None:
    ignore = {"idle": {"ignore": ["calls"]}}
    for counted in (SILENT, STOPPED):
        assert problems(Facts(usage={identifier(1): counted}), checks=ignore) == ()


def test_an_archived_meter_under_a_live_price_is_found_and_no_other() -> None:
    block = {"calls": meter(archived=True)}
    records = {"calls": record(1, archived=True)}
    dead = [live(1, archived_at="2026-11-03T00:00:00.000000Z")]
    (found,) = problems(Facts(usage={identifier(1): SILENT}, prices=PRICES), dead, records, block)
    assert isinstance(found, Archived)
    assert [price.product for price in found.prices] == ["Pro", "Team"]
    assert problems(Facts(prices=PRICES[2:]), dead, records, block) == ()
    assert problems(Facts(prices=PRICES)) == ()


def test_an_event_name_that_no_meter_of_anybody_counts() -> None:
    names = [EventName(text, "user", 5, NOW, NOW) for text in ("calls", "call", "export", "page.view")]
    other = live(7, "exports", project="other", name="Exports", filter=_named("export"))
    near, far = problems(Facts(names=names), [live(1), other])
    assert isinstance(near, Uncounted)
    assert isinstance(far, Uncounted)
    assert (near.name.name, near.nearest, near.key) == ("calls", "call", "calls")
    assert (far.name.name, far.nearest) == ("page.view", None)
    (third,) = problems(Facts(names=names[2:3]))
    assert isinstance(third, Uncounted)
    ignored = {"uncounted": {"ignore": ["page.view", "calls"]}}
    assert problems(Facts(names=names), [live(1), other], checks=ignored) == ()


def test_the_nearest_name_may_be_of_a_meter_that_is_not_ours() -> None:
    names = [EventName("exports", "user", 5, NOW, NOW)]
    other = live(7, "exports", project="other", name="Exports", filter=_named("export"))
    (found,) = problems(Facts(names=names), [live(1), other])
    assert isinstance(found, Uncounted)
    assert found.meter is other
    assert found.key is None


def _named(name: str) -> dict[str, Any]:
    return {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": name}]}


def test_a_frozen_key_is_found_and_its_meter_is_looked_at_all_the_same() -> None:
    frozen = {"calls": record(1, frozen=True)}
    block = {"calls": meter(filter=_named("other"))}
    facts = Facts(usage={identifier(1): STOPPED})
    stopped, blocked = problems(facts, [live(1)], frozen, block)
    assert isinstance(stopped, Stopped)
    assert isinstance(blocked, BlockedKey)
    assert blocked.change.cause == "frozen"


def test_a_key_whose_meter_is_not_certain_is_blocked_and_said_once() -> None:
    """Its drift has the same reason, and nobody knows whose usage is whose."""
    facts = Facts(usage={identifier(1): STOPPED, identifier(2): STOPPED})
    (found,) = problems(facts, [live(1, "other"), live(2, "calls")])
    assert isinstance(found, BlockedKey)
    assert found.change.cause == "mismatch"


def test_drift_is_found_and_what_waits_to_be_applied_is_not() -> None:
    (found,) = problems(Facts(), [live(1, name="Changed")])
    assert isinstance(found, Drifted)
    assert [field.path for field in found.meter.fields] == ["name"]
    assert problems(Facts(), meters={"calls": meter(name="Waiting"), "new": meter(name="New")}) == ()


def test_what_is_removed_or_of_others_is_not_watched() -> None:
    manifest = desired({}, removed=[{"from": "calls"}])
    others = [live(1), live(2, None), live(3, "calls", project="other")]
    assert watched_meters(manifest, {"calls": record(1)}, others, environment="sandbox") == ()
    gone = watched_meters(desired({}), {"calls": record(1)}, others, environment="sandbox")
    assert [(one.key, one.source) for one in gone] == [("calls", None)]


def test_the_worst_kind_comes_first() -> None:
    names = [EventName("calls", "user", 5, NOW, NOW)]
    meters = {"calls": meter(), "idle": meter(name="Idle"), "old": meter(name="Old")}
    records = {"calls": record(1), "idle": record(2, name="Idle"), "old": record(3, name="Older")}
    found = problems(
        Facts({identifier(1): STOPPED, identifier(2): SILENT}, names, prices=PRICES),
        [live(1), live(2, "idle", name="Idle"), live(3, "old", name="Someone's")],
        records,
        meters,
    )
    assert list(map(type, found)) == [Stopped, Uncounted, NeverCounted, Drifted]
