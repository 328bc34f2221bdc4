"""Facts joined to a plan: notes about freezing, event names and prices, and archives that Polar will refuse.

Nothing here is in a digest: the facts of a review and those of its apply may differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from polar_iac.facts import words
from polar_iac.facts.model import Credit, EventName, Facts, Gap, Price, Usage
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.fields import FROZEN_FIELDS
from polar_iac.meter.filter import Filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.impact import impact_notes
from polar_iac.plan.model import Change, Note, Plan
from polar_iac.yaml.scalars import nearest

MAX_IMPACTS = 20
"""Most changes of a plan that show an impact. More would share too few requests."""
_ADDITIVE = ("count", "sum")
"""Functions whose daily quantities add up to the total quantity."""
_MOST = 5
"""Most products, and most benefits, that a text names."""
_SHOWN = ("unit", "custom_label", "custom_multiplier")
"""Fields that decide how a price is shown, and never what is charged."""
_REFUTED = "Polar counted usage, and lists no event that makes it"
REPLACED = "Replaced prices, by which subscriptions may still pay, cannot be seen"


def with_facts(plan: Plan, facts: Facts) -> Plan:
    """Return the plan with notes of the facts. Archives that Polar will refuse are blocked.

    The digest of a blocked archive does not change.
    """
    counted = {change.place for change in impact_changes(plan.changes)}
    changes, refuted = [], list[str]()
    for change in plan.changes:
        joined = _joined(change, plan.environment, facts)
        notes = impact_notes(joined, facts) if change.place in counted else ()
        refuted += [change.key] if notes is None else []
        changes.append(_added(_matched(joined, notes or ()), *(notes or ())))
    gaps = [*facts.gaps, *([Gap("events", "failed", _REFUTED, tuple(refuted))] if refuted else [])]
    return replace(plan, changes=tuple(changes), facts_requests=facts.requests, facts_gaps=tuple(gaps))


def with_shown_blocks(plan: Plan, shown: Plan) -> Plan:
    """Return the plan, and block the archives that another plan showed as blocked under the same digest."""
    blocked = {change.digest: change for change in shown.changes if change.cause == "attached"}
    return replace(
        plan,
        changes=tuple(
            _blocked(change, blocked[change.digest].reason)
            if change.action == "archive" and change.digest in blocked
            else change
            for change in plan.changes
        ),
    )


def changes_counting(change: Change) -> bool:
    """Tell whether a change gives a meter that exists another filter or aggregation."""
    return change.action in ("update", "unarchive") and any(f.path in FROZEN_FIELDS for f in change.fields)


def impact_changes(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Return the changes that get an impact: changed filters and aggregations, then new meters."""
    changed = [change for change in changes if changes_counting(change)]
    created = [change for change in changes if change.action == "create"]
    return tuple([*changed, *created][:MAX_IMPACTS])


def is_read_by_customers(change: Change) -> bool:
    """Tell whether a change of an existing meter affects the bill, or what invoices show."""
    impacts = {field.impact for field in change.fields}
    return change.action in ("update", "unarchive") and bool(impacts & {"billing", "invoice"})


def named_events(change: Change) -> tuple[str, ...]:
    """Return the event names that a change newly asks for, by clauses `name eq …`, in order."""
    if change.after is None or not (change.action == "create" or changes_counting(change)):
        return ()
    known = set(_names(change.before.filter)) if change.before else set()
    return tuple(name for name in dict.fromkeys(_names(change.after.filter)) if name not in known)


def _names(part: Filter) -> Iterator[str]:
    for clause in part.clauses:
        if isinstance(clause, Filter):
            yield from _names(clause)
        elif (canonical_property(clause.property), clause.operator) == ("name", "eq"):
            yield from [clause.value] if isinstance(clause.value, str) else ()


def _joined(change: Change, environment: str, facts: Facts) -> Change:
    usage = facts.usage.get(change.id or "")
    if usage and usage.life is not None and changes_counting(change) and change.before:
        credits_ = [credit for credit in facts.credits or () if credit.meter_id == change.id]
        asked = f"`polar-iac probe -e {environment} {change.key}` tells"
        change = _replaced(change, _forecast(usage, change.before, credits_, asked))
    if facts.names and change.action == "create":
        change = _added(change, _frozen_at_once(change, facts.names, facts.as_of))
    if facts.names:
        change = _added(change, *_unseen(change, facts.names, facts.as_of))
    if usage and change.action == "archive" and change.before:
        change = _added(change, _still_used(usage, change.before))
    if change.action == "archive" or is_read_by_customers(change):
        return _with_attached(change, facts)
    return change


def _added(change: Change, *notes: Note | None) -> Change:
    return replace(change, notes=(*change.notes, *filter(None, notes)))


def _replaced(change: Change, note: Note) -> Change:
    """Return the change with this note in place of the one of the same kind."""
    notes = tuple(note if old.kind == note.kind else old for old in change.notes)
    return replace(change, notes=notes)


# Freezing


def _forecast(usage: Usage, spec: MeterSpec, credits_: Sequence[Credit], probe: str) -> Note:
    """Return the forecast for a change of filter or aggregation. Only Polar's own answer is certain."""
    counted = [day.date for day in usage.days if day.quantity]
    if not (usage.life or counted):
        events = 0 if spec.aggregation.func == "count" else None
        data = {"state": "unknown" if credits_ else "open", "events": events, "last": None}
        if credits_:
            users, one = _users((), credits_, spec)
            text = (
                f"counted 0 since 2023, but {users} {'credits' if one else 'credit'} this meter, and a credit"
            )
            return Note("freeze", "warning", f"{text} freezes it, too; {probe}", "usage", usage.as_of, data)
        text = "counted 0 since 2023: Polar will probably accept this, unless a credit has frozen the meter"
        return Note("freeze", "info", f"{text}; {probe}", "usage", usage.as_of, data)
    last = counted[-1] if counted else None
    data = {
        "state": "likely",
        "events": int(usage.life or 0) if spec.aggregation.func == "count" else None,
        "last": last,
    }
    text = f"{_counted(usage, spec)}: probably frozen. {probe} (it needs `meters:write`)"
    return Note("freeze", "warning", text, "usage", usage.as_of, data)


def _matched(change: Change, notes: Sequence[Note]) -> Change:
    """Return the change with another forecast if the meter matches events that add nothing.

    Example: a sum of zeros. Billing has seen these events, and that freezes the meter.
    """
    impact = next((note for note in notes if note.kind == "impact"), None)
    old = next((note for note in change.notes if note.kind == "freeze"), None)
    if impact is None or old is None or old.data.get("state") not in ("open", "unknown"):
        return change
    if not (impact.data["events"]["both"] or impact.data["events"]["only_before"]):
        return change
    but = "counted 0 since 2023, but events" if old.source == "usage" else "events"
    text = f"{but} match it, and one that does freezes it: Polar will almost certainly refuse this"
    data = {"state": "likely", "events": None, "last": None}
    return _replaced(change, Note("freeze", "warning", text, "events", impact.as_of, data))


def _counted(usage: Usage, spec: MeterSpec) -> str:
    """Say what a meter counted, and when. Example: `counted 1,284,002 since March 3, last today`."""
    counted = [day for day in usage.days if day.quantity]
    if not counted:
        return f"counted {words.number(usage.life or 0)}, last before {_first_day(usage)}"
    last = f"last {words.day(counted[-1].date, usage.as_of)}"
    if spec.aggregation.func not in _ADDITIVE:
        return f"has counted events, {last}"
    life = usage.life or 0.0
    is_all = math.isclose(life, math.fsum(day.quantity for day in counted))
    first = words.day(counted[0].date, usage.as_of) if is_all else f"before {_first_day(usage)}"
    return f"counted {words.number(life)} since {first}, {last}"


def _still_used(usage: Usage, spec: MeterSpec) -> Note:
    """Return the recent usage of a meter that the plan archives. Once archived, it counts nothing."""
    counted = [day for day in usage.days if day.quantity]
    last, total = None, None
    text = f"counted 0 in the last {len(usage.days)} days"
    if spec.aggregation.func in _ADDITIVE:
        total = math.fsum(day.quantity for day in counted)
    if counted:
        last = counted[-1].date
        how_much = "events" if total is None else words.number(total)
        said = words.day(last, usage.as_of)
        text = (
            f"counted {how_much} in the last {len(usage.days)} days, last {said}: archived, it counts no more"
        )
    data = {"days": len(usage.days), "quantity": total, "last": last}
    return Note("usage", "warning" if counted else "info", text, "usage", usage.as_of, data)


def _first_day(usage: Usage) -> str:
    return words.day(usage.days[0].date, usage.as_of) if usage.days else "today"


def _frozen_at_once(change: Change, names: Sequence[EventName], as_of: str) -> Note | None:
    """Return a note if events that a new meter asks for already exist: one that matches freezes it."""
    asked = named_events(change)
    found = [name for name in names if name.name in asked]
    if not found:
        return None
    events = sum(name.occurrences for name in found)
    listed = _joined_words([f"`{name.name}`" for name in found], "or")
    verb, noun = ("exists", "event") if events == 1 else ("exist", "events")
    text = (
        f"likely frozen at once: {events:,} {noun} named {listed} {verb}, and one that matches freezes "
        "filter and aggregation"
    )
    last = max(name.last_seen for name in found)[:10]
    data = {"state": "likely", "events": events, "last": last}
    return Note("freeze", "info", text, "names", as_of, data)


# Event names


def _unseen(change: Change, names: Sequence[EventName], as_of: str) -> Iterator[Note]:
    """Yield a warning for each event name that a change asks for and no event has."""
    seen = {name.name: name for name in names}
    for asked in named_events(change):
        if asked in seen:
            continue
        like = seen.get(nearest(asked, tuple(seen)) or "")
        hint = ""
        if like:
            hint = f"; seen: `{like.name}`, {like.occurrences:,}, last {words.day(like.last_seen, as_of)}"
        data = {
            "event_name": asked,
            "seen": 0,
            "nearest": {"name": like.name, "occurrences": like.occurrences, "last": like.last_seen[:10]}
            if like
            else None,
        }
        yield Note("unseen", "warning", f"no event is named `{asked}`{hint}", "names", as_of, data)


# Prices and credits


def _with_attached(change: Change, facts: Facts) -> Change:
    """Return a change with a note of the meter's dependents. An archive that Polar will refuse is blocked."""
    if facts.prices is None and facts.credits is None:
        return change
    spec = change.after if change.fields else change.before
    prices = None if facts.prices is None else [p for p in facts.prices if p.meter_id == change.id]
    credits_ = None if facts.credits is None else [c for c in facts.credits if c.meter_id == change.id]
    active = [price for price in prices or () if not price.product_archived]
    note = Note(
        "attached",
        "info",
        _hangs(prices, credits_, spec, change),
        "benefits" if facts.prices is None else "products",
        facts.as_of,
        {
            "products": None if prices is None else [_product(price) for price in prices],
            "benefits": None
            if credits_ is None
            else [{"id": credit.id, "description": credit.description} for credit in credits_],
        },
    )
    if change.action != "archive" or not (active or credits_):
        return _added(change, note)
    users, one = _users(active, credits_ or (), spec)
    reason = (
        f"cannot be archived: {users} {'uses it; remove it' if one else 'use it; remove them'} first. "
        f"{REPLACED}."
    )
    return _added(_blocked(change, reason), replace(note, severity="warning"))


def _blocked(change: Change, reason: str | None) -> Change:
    """Return an archive as blocked, without the note about the effect of an archive."""
    notes = tuple(note for note in change.notes if note.kind != "archive")
    return replace(change, action="blocked", cause="attached", reason=reason, notes=notes)


def _product(price: Price) -> dict[str, str | bool]:
    return {
        "id": price.product_id,
        "name": price.product,
        "price_id": price.id,
        "unit_amount": price.unit_amount,
        "currency": price.currency,
        "is_archived": price.product_archived,
    }


def _hangs(
    prices: Sequence[Price] | None, credits_: Sequence[Credit] | None, spec: MeterSpec | None, change: Change
) -> str:
    """Say what uses a meter, what could not be read, and how a price will be shown."""
    if prices or credits_:
        users, one = _users(prices or (), credits_ or (), spec)
        parts = [f"{users} {'uses' if one else 'use'} this meter"]
    else:
        nothing = {
            "no live price": prices is not None,
            "no credit benefit": credits_ is not None,
        }
        parts = [f"{' and '.join(text for text, known in nothing.items() if known)} uses this meter"]
    if prices is None:
        parts.append("Products were not read")
    if credits_ is None:
        parts.append("Benefits were not read")
    if prices and spec and any(field.path in _SHOWN for field in change.fields):
        parts += filter(None, [_shown(prices[0], spec)])
    if prices is not None and (change.action == "archive" or not prices):
        parts.append(REPLACED)
    return ". ".join(parts)


def _users(prices: Sequence[Price], credits_: Sequence[Credit], spec: MeterSpec | None) -> tuple[str, bool]:
    """Name products and benefits, and tell whether there is only one. A repeated price is left out."""
    products, said = [], ""
    for price in prices:
        amount = words.money(price.unit_amount, price.currency)
        text = f"{amount} / {words.units(spec)}" if amount and spec else ""
        remarks = [text] if text and text != said else []
        remarks += ["archived"] if price.product_archived else []
        products.append(f"{price.product} ({', '.join(remarks)})" if remarks else price.product)
        said = text
    benefits = [credit.description for credit in credits_]
    parts = []
    if products:
        parts.append(f"{'product' if len(products) == 1 else 'products'} {_most(products)}")
    if benefits:
        parts.append(f"{'benefit' if len(benefits) == 1 else 'benefits'} {_most(benefits)}")
    return ", and ".join(parts), len(products) + len(benefits) == 1


def _shown(price: Price, spec: MeterSpec) -> str | None:
    """Say how a price is shown after a change of the unit, and that the charge is the same.

    Return None for an amount that is not a number.
    """
    count = spec.custom_multiplier or 1
    shown = words.money(price.unit_amount, price.currency, count)
    charged = words.money(price.unit_amount, price.currency)
    if shown is None or charged is None:
        return None
    return (
        f"Shown as {shown} per {words.units(spec, count)}; charged {charged} a {words.units(spec)}, as before"
    )


def _most(texts: Sequence[str]) -> str:
    """Join some of the texts. Of seven, five are named: `a, b, c, d, e and 2 more`."""
    more = [f"{len(texts) - _MOST:,} more"] if len(texts) > _MOST else []
    return _joined_words([*texts[:_MOST], *more], "and")


def _joined_words(texts: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
