"""Facts for a check: the ones it needs, and how they are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from polar_iac.facts.gaps import Gaps
from polar_iac.facts.model import Facts, Gap, Source, Usage
from polar_iac.facts.silence import DAYS, counts_nothing, needs_hours
from polar_iac.meter.live import LiveMeter
from polar_iac.plan.check import Observed, Watched

if TYPE_CHECKING:
    from polar_iac.polar.facts import FactsReader

REQUESTS = 300
"""Most requests for the facts of one check: one for most meters, two for a meter that may have stopped."""
SECONDS = 120
"""Seconds that the facts of one check may take."""


def observe(watched: Sequence[Watched], live: Sequence[LiveMeter], reader: FactsReader) -> Observed:
    """Read the facts of a check: prices and event names first, then what our active meters count.

    Meters on a live price come first, since the budget may not suffice for all. `watched` are those that must
    not be idle; `live` is every meter of the organization.
    """
    gaps = Gaps()
    prices = gaps.fact_or_none(reader.prices())
    names = gaps.fact_or_none(reader.names())
    priced = {price.meter_id for price in prices or () if not price.product_archived}
    active = [one for one in watched if not one.meter.archived]
    active.sort(key=lambda one: one.meter.id not in priced)
    may_stop = priced if prices is not None else {one.meter.id for one in active}
    usage, quiet = _usage(active, may_stop, reader, gaps)
    facts = Facts(usage, names, prices=prices, requests=reader.requests, as_of=reader.as_of())
    facts = _of_this_organization(facts, gaps)
    facts = _all_known(facts, live, gaps)
    return Observed(replace(facts, gaps=gaps.joined()), reader.as_of(), quiet)


def _usage(
    meters: Sequence[Watched], may_stop: Collection[str], reader: FactsReader, gaps: Gaps
) -> tuple[dict[str, Usage], frozenset[str]]:
    """Return the usage of meters, and the ids of those without usage since yesterday.

    `may_stop` holds the ids of those whose silence matters.
    """
    usage: dict[str, Usage] = {}
    quiet = set[str]()
    for one in meters:
        counted = gaps.fact_or_none(reader.recent_usage(one.meter.id, DAYS), one.key)
        if counted is None:
            continue
        if counts_nothing(counted.days):
            counted = replace(counted, life=gaps.fact_or_none(reader.life(one.meter.id), one.key))
        elif one.meter.id in may_stop and needs_hours(counted.days, reader.as_of()[:10]):
            quiet |= {one.meter.id} if gaps.fact_or_none(reader.is_quiet(one.meter.id), one.key) else set()
        usage[one.meter.id] = counted
    return usage, frozenset(quiet)


def _of_this_organization(facts: Facts, gaps: Gaps) -> Facts:
    """Drop the facts if they are another organization's: it has no event names, although our meters counted.

    Otherwise a meter would seem to have no price, and its silence would not be reported.
    """
    has_counted = any(not counts_nothing(usage.days) for usage in facts.usage.values())
    if facts.names is None or facts.names or not has_counted:
        return facts
    text = "the facts token shows no event, although meters counted: it is of another organization"
    sources: tuple[Source, ...] = ("names",) if facts.prices is None else ("products", "names")
    gaps.add(*(Gap(source, "failed", text) for source in sources))
    return replace(facts, names=None, prices=None)


def _all_known(facts: Facts, live: Sequence[LiveMeter], gaps: Gaps) -> Facts:
    """Drop the event names where a meter has parts that this version does not know: it may count any."""
    unknown = [meter.id for meter in live if meter.spec is None and not meter.archived]
    if facts.names is None or not unknown:
        return facts
    text = f"{unknown[0]} has parts that this version does not know, and may count any event"
    gaps.add(Gap("names", "failed", text))
    return replace(facts, names=None)
