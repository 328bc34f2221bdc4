"""Facts for a check: which ones it needs, and how they are gathered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from polar_iac.facts.model import Facts, Gap, Lack, Source, Usage
from polar_iac.facts.silence import DAYS, counts_nothing, needs_hours
from polar_iac.meter.live import LiveMeter
from polar_iac.plan.check import Observed, Watched

if TYPE_CHECKING:
    from polar_iac.polar.facts import FactsReader

REQUESTS = 300
"""Requests that the facts of one check may send: one for most meters, two for one that may have stopped."""
SECONDS = 120
"""Seconds that the facts of one check may take."""
T = TypeVar("T")


def observe(watched: Sequence[Watched], live: Sequence[LiveMeter], reader: FactsReader) -> Observed:
    """Read the facts of a check: prices and event names first, then what our active meters count.

    Meters on a live price come first, since the budget may not suffice for all. `watched` are those that must
    not be idle; `live` is every meter of the organization.
    """
    gaps: list[Gap] = []
    prices = _kept(reader.prices(), gaps)
    names = _kept(reader.names(), gaps)
    priced = {price.meter_id for price in prices or () if not price.product_archived}
    active = [one for one in watched if not one.meter.archived]
    active.sort(key=lambda one: one.meter.id not in priced)
    may_stop = priced if prices is not None else {one.meter.id for one in active}
    usage, quiet = _usage(active, may_stop, reader, gaps)
    facts = Facts(usage, names, prices=prices, requests=reader.requests, as_of=reader.as_of())
    facts = _of_this_organization(facts, gaps)
    facts = _all_known(facts, live, gaps)
    return Observed(replace(facts, gaps=_joined(gaps)), reader.as_of(), quiet)


def _kept(read: T | Gap, gaps: list[Gap], one: Watched | None = None) -> T | None:
    """Return what was read, or keep the gap."""
    if not isinstance(read, Gap):
        return read
    gaps.append(read if one is None else replace(read, keys=(one.key,)))
    return None


def _usage(
    meters: Sequence[Watched], may_stop: Collection[str], reader: FactsReader, gaps: list[Gap]
) -> tuple[dict[str, Usage], frozenset[str]]:
    """Return the usage of meters, and the ids of those that are quiet since yesterday.

    `may_stop` holds the ids of those whose silence matters.
    """
    usage: dict[str, Usage] = {}
    quiet = set[str]()
    for one in meters:
        counted = _kept(reader.recent_usage(one.meter.id, DAYS), gaps, one)
        if counted is None:
            continue
        if counts_nothing(counted.days):
            counted = replace(counted, life=_kept(reader.life(one.meter.id), gaps, one))
        elif one.meter.id in may_stop and needs_hours(counted.days, reader.as_of()[:10]):
            quiet |= {one.meter.id} if _kept(reader.is_quiet(one.meter.id), gaps, one) else set()
        usage[one.meter.id] = counted
    return usage, frozenset(quiet)


def _of_this_organization(facts: Facts, gaps: list[Gap]) -> Facts:
    """Drop facts of another organization: no event name is there, although meters counted.

    Else a meter would seem to have no price, and its silence would be none.
    """
    has_counted = any(not counts_nothing(usage.days) for usage in facts.usage.values())
    if facts.names is None or facts.names or not has_counted:
        return facts
    text = "the facts token shows no event, although meters counted: it is of another organization"
    sources: tuple[Source, ...] = ("names",) if facts.prices is None else ("products", "names")
    gaps += (Gap(source, "failed", text) for source in sources)
    return replace(facts, names=None, prices=None)


def _all_known(facts: Facts, live: Sequence[LiveMeter], gaps: list[Gap]) -> Facts:
    """Drop the event names where a meter has parts that this version does not know: it may count any."""
    unknown = [meter.id for meter in live if meter.spec is None and not meter.archived]
    if facts.names is None or not unknown:
        return facts
    text = f"{unknown[0]} has parts that this version does not know, and may count any event"
    gaps.append(Gap("names", "failed", text))
    return replace(facts, names=None)


def _joined(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Return the gaps, those of one kind as one, with all of their keys."""
    keys: dict[tuple[Source, Lack, str], list[str]] = {}
    for gap in gaps:
        keys.setdefault((gap.source, gap.lack, gap.text), []).extend(gap.keys)
    return tuple(Gap(source, lack, text, tuple(found)) for (source, lack, text), found in keys.items())
