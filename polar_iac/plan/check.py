"""Check: what goes wrong while no manifest changes, as values.

Pure, like the planner: the same plan, drift, meters and facts give the same findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polar_iac.errors import SourceSpan
from polar_iac.facts.model import EventName, Facts, Gap, Price
from polar_iac.facts.silence import counts_nothing, is_older, silence
from polar_iac.facts.uncounted import asked_names, nearest_asked, uncounted, unseen_name
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.plan.drift import Drift, MeterDrift
from polar_iac.plan.identify import identify
from polar_iac.plan.index import index_state
from polar_iac.plan.model import Change, Plan

_NEW = 24
"""Hours for which a meter that never counted is new."""
_COUNTING = ("count", "sum", "unique")
"""Functions whose daily quantity is an amount counted that day. The others are a level, such as `max`."""


@dataclass(frozen=True)
class Watched:
    """A meter of ours, known beyond doubt. `source` is its place in the manifest, if it is still there."""

    key: str
    meter: LiveMeter
    source: SourceSpan | None


@dataclass(frozen=True)
class Stopped:
    """A meter that counted, and counted nothing in the last 24 hours.

    `last` is the last day that counted, in UTC. `daily` is its daily average before that, or None for a
    function whose quantity is a level. `prices` are the live ones, None where they could not be read.
    """

    watched: Watched
    last: str
    daily: float | None
    prices: tuple[Price, ...] | None


@dataclass(frozen=True)
class NeverCounted:
    """A meter that is older than a day and has never counted anything.

    `unseen` is an event name that it asks for, if no event has any of the names that it asks for. `nearest`
    is the nearest name that events have.
    """

    watched: Watched
    prices: tuple[Price, ...] | None
    unseen: str | None = None
    nearest: str | None = None


@dataclass(frozen=True)
class Uncounted:
    """An event name that no meter counts. `nearest` is a name that a meter asks for, with the meter.

    `key` is that meter's, if it is ours.
    """

    name: EventName
    nearest: str | None = None
    meter: LiveMeter | None = None
    key: str | None = None


@dataclass(frozen=True)
class Archived:
    """An archived meter under a live price: it counts nothing, and bills nothing."""

    watched: Watched
    prices: tuple[Price, ...]


@dataclass(frozen=True)
class BlockedKey:
    """A key for which an apply would do nothing until someone acts."""

    change: Change


@dataclass(frozen=True)
class Drifted:
    """A meter that someone changed at Polar since the last apply."""

    meter: MeterDrift


Finding = Stopped | Uncounted | Archived | NeverCounted | BlockedKey | Drifted
"""One thing that is wrong. The kinds are shown in this order."""


@dataclass(frozen=True)
class Check:
    """Findings in one environment. `gaps` are facts that could not be read: more may be wrong.

    `as_of` is RFC 3339. `requests` is the number of requests for facts, `watched` that of meters checked.
    """

    drift: Drift
    findings: tuple[Finding, ...]
    gaps: tuple[Gap, ...]
    as_of: str
    requests: int
    watched: int


@dataclass(frozen=True)
class Observed:
    """Facts of one moment: `now`, as RFC 3339 in UTC.

    `quiet` are the ids of meters that counted yesterday, and nothing in the last 24 hours.
    """

    facts: Facts
    now: str
    quiet: frozenset[str] = frozenset()


def watched_meters(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter],
    *,
    environment: str,
    made: Made = NOTHING_MADE,
) -> tuple[Watched, ...]:
    """Return our meters by key, except those that are not known beyond doubt, which are blocked.

    The arguments are those of `make_plan`.
    """
    manifest = manifest.in_environment(environment)
    state = index_state(manifest, recorded, live, made, environment)
    watched = []
    for key in sorted({*state.recorded, *manifest.meters} - state.removed.keys()):
        desired = manifest.meters.get(key)
        identity = identify(key, desired is not None, state)
        if identity.meter is not None and identity.blocked is None and identity.ours:
            watched.append(Watched(key, identity.meter, desired.span if desired else None))
    return tuple(watched)


def find_problems(
    manifest: Manifest,
    watched: Sequence[Watched],
    live: Sequence[LiveMeter],
    plan: Plan,
    drift: Drift,
    observed: Observed,
) -> tuple[Finding, ...]:
    """Return what is wrong, the worst kind first.

    `live` is every meter of the organization: another project's may count an event as well as ours.
    """
    facts, now = observed.facts, observed.now
    prices = None if facts.prices is None else _by_meter(facts.prices)
    silent = [one for one in watched if one.key not in manifest.checks.idle and not one.meter.archived]
    found: list[Finding] = [*_stopped(silent, observed, prices)]
    if facts.names is not None:
        found += _uncounted(facts.names, watched, live, manifest, now)
    if prices is not None:
        archived = [one for one in watched if one.meter.archived and one.meter.id in prices]
        found += [Archived(one, prices[one.meter.id]) for one in archived]
    found += _never_counted(silent, facts, prices, now)
    blocked = [change for change in plan.changes if change.action == "blocked"]
    found += map(BlockedKey, blocked)
    keys = {change.key for change in blocked}
    # A meter that cannot be compared is also blocked, for the same reason. Report it once.
    found += [Drifted(meter) for meter in drift.meters if not (meter.reason and meter.key in keys)]
    return tuple(found)


_Prices = Mapping[str, tuple[Price, ...]]


def _by_meter(prices: Sequence[Price]) -> _Prices:
    """Return the prices of active products, by meter id."""
    found: dict[str, tuple[Price, ...]] = {}
    for price in sorted(prices, key=lambda price: (price.product, price.id)):
        if not price.product_archived:
            found[price.meter_id] = (*found.get(price.meter_id, ()), price)
    return found


def _stopped(watched: Sequence[Watched], observed: Observed, prices: _Prices | None) -> Iterator[Stopped]:
    """Yield the meters that have stopped, except those that are known to have no live price."""
    for one in watched:
        usage, spec = observed.facts.usage.get(one.meter.id), one.meter.spec
        if usage is None or (prices is not None and one.meter.id not in prices):
            continue
        found = silence(usage, observed.now[:10], quiet_since_yesterday=one.meter.id in observed.quiet)
        if found is not None:
            daily = found.daily if spec and spec.aggregation.func in _COUNTING else None
            yield Stopped(one, found.last, daily, _of(one, prices))


def _never_counted(
    watched: Sequence[Watched], facts: Facts, prices: _Prices | None, now: str
) -> Iterator[NeverCounted]:
    for one in watched:
        usage = facts.usage.get(one.meter.id)
        if usage is None or usage.life or usage.life is None or not counts_nothing(usage.days):
            continue
        if is_older(one.meter.created_at, now, hours=_NEW):
            unseen = unseen_name(one.meter, facts.names) if facts.names is not None else None
            yield NeverCounted(one, _of(one, prices), *(unseen or ()))


def _of(one: Watched, prices: _Prices | None) -> tuple[Price, ...] | None:
    return None if prices is None else prices.get(one.meter.id, ())


def _uncounted(
    names: Sequence[EventName],
    watched: Sequence[Watched],
    live: Sequence[LiveMeter],
    manifest: Manifest,
    now: str,
) -> Iterator[Uncounted]:
    keys, asked = {one.meter.id: one.key for one in watched}, asked_names(live)
    for name in uncounted(names, live, now, manifest.checks.uncounted):
        near = nearest_asked(name.name, asked)
        if near is None:
            yield Uncounted(name)
        else:
            yield Uncounted(name, near[0], near[1], keys.get(near[1].id))
