"""Notes about matched usage: what a change would have counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polar_iac.facts import words
from polar_iac.facts.impact import Impact, exact_impact
from polar_iac.facts.model import EventsRead, Facts
from polar_iac.facts.names import NameReach, counts_system_events, reaches
from polar_iac.facts.period import Period
from polar_iac.facts.sampling import sampled_impact
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Note
from polar_iac.plan.properties import unseen_properties


def impact_notes(change: Change, facts: Facts) -> tuple[Note, ...] | None:
    """Return the impact as far as it is known: no note if a name that makes a difference was not read.

    None if Polar's list of events is incomplete: Polar counted usage that no listed event explains.
    """
    if facts.names is None or change.after is None:
        return ()
    period = facts_period(facts)
    named = reaches(facts.names, change.before, change.after, period)
    reads = [facts.events[name.name] for name in named if name.name in facts.events]
    missing = {name.name for name in named} - facts.events.keys()
    as_of = reads[0].as_of if reads else facts.as_of
    impact = None
    if not any(name.differs and name.name in missing for name in named):
        impact = _impact(change, change.after, facts, reads, named, is_whole=not missing)
    if impact is not None and impact.is_refuted:
        return None
    # If a name was not read, the total number of events is not known.
    says = impact is not None and (impact.after is not None or not impact.is_exact)
    notes = [_note(change, change.after, impact, as_of)] if impact is not None and says else []
    return (*notes, *unseen_properties(change, change.after, reads, named, as_of))


def facts_period(facts: Facts) -> Period:
    """Return the period of the events that were read, or that would have been."""
    read = next(iter(facts.events.values()), None)
    return Period.before_time(facts.as_of) if read is None else Period.of(read.start, read.end)


def _impact(
    change: Change,
    after: MeterSpec,
    facts: Facts,
    reads: Sequence[EventsRead],
    named: Sequence[NameReach],
    *,
    is_whole: bool,
) -> Impact | None:
    """Compute the impact of all events, or of those that were read."""
    before = change.before
    usage = facts.usage.get(change.id or "")
    if before is None or counts_system_events(facts.names or (), before):
        usage = None
    period = facts_period(facts)
    if is_whole and all(read.read == read.total for read in reads):
        return exact_impact(before, after, reads, period, usage)
    return sampled_impact(before, after, reads, period, usage, named)


def _note(change: Change, after: MeterSpec, impact: Impact, as_of: str) -> Note:
    created = change.before is None
    counts_nothing = impact.is_exact and not impact.both and not impact.only_after
    text = _created(change, after, impact) if created else _updated(change.before, after, impact)
    if impact.unlike:
        days = len(impact.unlike)
        text += f"; Polar's own quantities differ on {days} of these days"
    return Note("impact", "warning" if counts_nothing else "info", text, "events", as_of, _data(impact))


def _data(impact: Impact) -> dict[str, Any]:
    return {
        "start": str(impact.period.first),
        "end": str(impact.period.last),
        "events": {
            "both": impact.both,
            "only_before": impact.only_before,
            "only_after": impact.only_after,
        },
        "quantity": {"before": impact.before, "after": impact.after},
        "customers": impact.customers,
        "customers_total": impact.customers_total,
        "read": impact.read,
        "of": impact.of,
        "error": impact.error,
        "daily": [{"date": day.date, "before": day.before, "after": day.after} for day in impact.daily],
        "estimated": impact.estimated,
        "at_least": impact.at_least,
        "unlike": len(impact.unlike),
    }


def _created(change: Change, after: MeterSpec, impact: Impact) -> str:
    if impact.after is None and impact.at_least is not None:
        least = f"{words.number(impact.at_least)} {_noun(after)}"
        return f"would have counted at least {least} over {_span(impact)}; more is {_not_estimated(impact)}"
    if impact.after is None:
        return f"usage over {_span(impact)} {_not_estimated(impact)}"
    if impact.is_exact and not impact.only_after:
        return f"would have counted 0 events in {len(impact.period.days)} days{_why(change)}"
    counted = f"{words.number(impact.after)} {_noun(after)}{_difference(impact)}"
    return f"would have counted {counted} over {_span(impact)}{_with_usage(impact)}"


def _why(change: Change) -> str:
    """Return the reason that nothing is counted, if no event has a name that the change asks for."""
    for note in change.notes:
        if note.kind == "unseen" and "event_name" in note.data:
            like = note.data["nearest"]
            last = like and words.day(like["last"], note.as_of or like["last"])
            seen = f"; seen: `{like['name']}` ({like['occurrences']:,}, last {last})" if like else ""
            return f": no event is named `{note.data['event_name']}`{seen}"
    return ""


def _updated(before: MeterSpec | None, after: MeterSpec, impact: Impact) -> str:
    if before is None or impact.before is None or impact.after is None:
        return f"matched usage over {_span(impact)} {_not_estimated(impact)}"
    where = f"over {_span(impact)}"
    nouns = _noun(before), _noun(after)
    was, now = words.number(impact.before), words.number(impact.after)
    if nouns[0] != nouns[1]:  # two quantities that a percentage cannot compare
        return f"counts differently: {was} {nouns[0]} → {now} {nouns[1]} {where}{_affected(impact)}"
    if impact.is_exact and not (impact.only_before or impact.only_after) and impact.before == impact.after:
        return f"would have counted the same: {now} {nouns[1]} {where}"
    way = (impact.after > impact.before) - (impact.after < impact.before)
    counts = ("other events", "more", "less")[way]
    return f"counts {counts}: {was} → {now} {nouns[1]}{_difference(impact)} {where}{_affected(impact)}"


def _noun(spec: MeterSpec) -> str:
    return words.matched(spec, f"`{spec.aggregation.func}({spec.aggregation.property or ''})`")


def _span(impact: Impact) -> str:
    return words.span(impact.period.first, impact.period.last)


def _difference(impact: Impact) -> str:
    return words.difference(impact.before, impact.after, impact.error)


def _affected(impact: Impact) -> str:
    """Return how many customers are affected, or how many events an estimate comes from."""
    if impact.customers is None or not impact.customers_total:
        return _of_read(impact)
    return f"; {impact.customers:,} of {words.customers(impact.customers_total)}"


def _with_usage(impact: Impact) -> str:
    """Return how many customers a new meter would have counted."""
    if impact.customers_total is None:
        return _of_read(impact)
    return f"; {words.customers(impact.customers_total)}"


def _of_read(impact: Impact) -> str:
    return f"; {words.read_of(impact.read, impact.of)}" if impact.estimated else ""


def _not_estimated(impact: Impact) -> str:
    return f"not estimated: {words.read_of(impact.read, impact.of)}"
