"""Facts for a plan: the ones it needs, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from polar_iac.apply.matched import read_matched
from polar_iac.facts.gaps import Gaps
from polar_iac.facts.model import EventsRead, Facts, Usage
from polar_iac.plan.facts import changes_counting, impact_changes, is_read_by_customers
from polar_iac.plan.model import Change, Plan
from polar_iac.polar.facts_budget import MAX_DAYS

if TYPE_CHECKING:
    from polar_iac.polar.facts import FactsReader

Level = Literal["none", "usage", "all"]
"""Facts that are wanted: none, those of the plan's own token, or all that the tokens allow."""


@dataclass(frozen=True)
class Needs:
    """Facts that a plan needs. `usage` and `recent_usage` hold the keys of meters by their ids."""

    usage: dict[str, str] = field(default_factory=dict)
    recent_usage: dict[str, str] = field(default_factory=dict)
    names: bool = False
    attached: bool = False
    """Prices and credits are needed."""
    impact: tuple[Change, ...] = ()
    """Changes whose impact is computed, from events."""

    @property
    def any(self) -> bool:
        return bool(self.usage or self.recent_usage or self.names or self.attached)


def needs_of(plan: Plan, level: Level) -> Needs:
    """Return the facts that the notes of a plan need: none of a plan without changes, or an offline one."""
    if level == "none" or not plan.refreshed:
        return Needs()
    usage = {change.id: change.key for change in plan.changes if change.id and changes_counting(change)}
    archived = {change.id: change.key for change in plan.changes if change.id and change.action == "archive"}
    if level == "usage":
        return Needs(usage, archived)
    return Needs(
        usage,
        archived,
        names=any(c.action == "create" or changes_counting(c) for c in plan.changes),
        attached=any(c.action == "archive" or is_read_by_customers(c) for c in plan.changes),
        impact=impact_changes(plan.changes),
    )


def needs_to_archive(plan: Plan, level: Level) -> Needs:
    """Return the facts that an apply of a reviewed plan needs: those that block an archive."""
    archives = any(change.action == "archive" for change in plan.changes)
    return Needs(attached=level == "all" and archives)


def gather(needs: Needs, reader: FactsReader) -> Facts:
    """Read the facts, the cheapest first: three requests in most organizations, then two for each meter.

    Events get the requests that are left.
    """
    gaps = Gaps()
    prices = gaps.fact_or_none(reader.prices()) if needs.attached else None
    credits_ = gaps.fact_or_none(reader.credits()) if needs.attached else None
    names = gaps.fact_or_none(reader.names()) if needs.names else None
    usage: dict[str, Usage] = {}
    for meter_id, key in needs.usage.items():
        if (counted := gaps.fact_or_none(reader.usage(meter_id, MAX_DAYS), key)) is not None:
            usage[meter_id] = counted
    for meter_id, key in needs.recent_usage.items():
        if (counted := gaps.fact_or_none(reader.recent_usage(meter_id), key)) is not None:
            usage[meter_id] = counted
    events: Mapping[str, EventsRead] = {}
    if needs.impact and names is not None:
        events, lacking = read_matched(needs.impact, names, reader)
        gaps.add(*lacking)
    return Facts(
        usage=usage,
        names=names,
        events=events,
        prices=prices,
        credits=credits_,
        gaps=gaps.joined(),
        requests=reader.requests,
        as_of=reader.as_of(),
    )
