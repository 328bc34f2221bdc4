"""Examples for reviewers: events that a new filter counts, or that a changed one counts differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polar_iac.meter.meaning import Finding, bill_alike, evaluate, find, ingestible_witness
from polar_iac.meter.meaning.building import is_ingestible
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Note
from polar_iac.yaml.write import flow

MAX_EXAMPLES = 200
"""Changes of one plan that get an example. A search takes milliseconds, and nobody reads more of them."""
_MAX_LENGTH = 200
"""Characters of an event. A longer one is cut."""

Json = dict[str, Any]


def with_examples(changes: Sequence[Change]) -> list[Change]:
    """Return the changes with an example for each changed filter, then for new meters."""
    ranked = sorted(range(len(changes)), key=lambda place: (changes[place].action == "create", place))
    shown = [place for place in ranked if _counts_differently(changes[place])][:MAX_EXAMPLES]
    notes = {place: _notes(changes[place]) for place in shown}
    return [
        replace(change, notes=(*notes[place], *change.notes)) if notes.get(place) else change
        for place, change in enumerate(changes)
    ]


def _counts_differently(change: Change) -> bool:
    if change.action == "create":
        return True
    return change.action in ("update", "unarchive") and any(field.path == "filter" for field in change.fields)


def _notes(change: Change) -> tuple[Note, ...]:
    if change.after is None:
        return ()
    if change.before is None:
        return _counted(change.after)
    before, after = change.before.canonical, change.after.canonical
    return (_difference(before["filter"], after["filter"], after["aggregation"]),)


def _counted(spec: MeterSpec) -> tuple[Note, ...]:
    """Return an event that a new meter counts, and the units of a customer who has only that one."""
    filter_, aggregation = spec.canonical["filter"], spec.canonical["aggregation"]
    event = _with_a_quantity(filter_, aggregation) or ingestible_witness(filter_).event
    if event is None:
        return ()  # lint says that nothing is counted
    quantity = evaluate(filter_, aggregation, [event]).charged_quantity
    if quantity is None:
        return ()
    units = "1 unit" if quantity == 1 else f"{quantity:,g} units"
    text = f"counts, for example: {event_text(event, filter_, aggregation)} ({units})"
    return (_note(text, counted=event, units=quantity),)


def _with_a_quantity(filter_: Json, aggregation: Json) -> Json | None:
    """Return an event that a filter matches, and that has something to aggregate."""
    name = aggregation.get("property")
    if name is None:
        return None
    # 150 reads as a quantity. Where the filter rules it out, any number above 0 will do.
    asked = [("ne", "")] if aggregation["func"] == "unique" else [("eq", 150), ("gt", 0)]
    for operator, value in asked:
        present = {"property": name, "operator": operator, "value": value}
        event = ingestible_witness({"conjunction": "and", "clauses": [filter_, present]}).event
        if event is not None:
            return event
    return None


def _difference(before: Json, after: Json, aggregation: Json) -> Note:
    """Return an event that a changed filter no longer counts, and one that it counts now."""
    lost, gained = find(before, after), find(after, before)
    no_longer = lost.event and (_typical(before, after, aggregation) or lost.event)
    now = gained.event and (_typical(after, before, aggregation) or gained.event)
    parts = [
        f"{words}, for example: {event_text(event, before, after)}"
        for words, event in (("no longer counted", no_longer), ("now counted", now))
        if event is not None
    ]
    if not parts:
        return _balances(before, after)
    relation = _relation(lost, gained)
    strictly = f"counts strictly {relation}: " if relation in ("less", "more") else ""
    return _note(strictly + "; ".join(parts), relation=relation, no_longer=no_longer, now=now)


_MOST_ASKED = 3
"""Most properties of changed clauses that a typical event must have. With more, no event is typical."""


def _typical(matched: Json, missed: Json, aggregation: Json) -> Json | None:
    """Return an event that one filter alone matches, with the properties that the change is about.

    What a product really sends has them. Example: of `model != "gpt-4o"`, which also leaves out what has no
    `model`, the event of that model.
    """
    one, other = [*_leaves(matched)], [*_leaves(missed)]
    changed: dict[str, list[Any]] = {}
    for clause in [c for c in one if c not in other] + [c for c in other if c not in one]:
        if clause["property"] not in ("name", "source", "timestamp"):
            changed.setdefault(clause["property"], []).append(clause["value"])
    if len(changed) > _MOST_ASKED:
        return None
    present = [_present(name, values) for name, values in changed.items()]
    counted = aggregation.get("property")
    quantity = [{"property": counted, "operator": "eq", "value": 150}] if counted else []
    for clauses in ([*present, *quantity], present) if quantity else (present,):
        event = find({"conjunction": "and", "clauses": [matched, *clauses]}, missed).event
        if event is not None and is_ingestible(event):
            return event
    return None


def _present(name: str, values: Sequence[Any]) -> Json:
    """Return a clause that asks for a property, of the type with which it is compared."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return {"property": name, "operator": "gt", "value": 0}
    return {"property": name, "operator": "ne", "value": ""}


def _leaves(part: Json) -> Iterator[Json]:
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from _leaves(inner)
        else:
            yield inner


def _relation(lost: Finding, gained: Finding) -> str:
    if gained.status == "none":
        return "less"
    if lost.status == "none":
        return "more"
    return "unknown" if "open" in (lost.status, gained.status) else "other"


def _balances(before: Json, after: Json) -> Note:
    """Return what is known of a change if no event was found that billing counts differently."""
    if not bill_alike(before, after):
        return _note("no example was found of an event that is counted differently", relation="unknown")
    sides = ((before, after), (after, before))
    events = (find(one, other, engine="quantities").event for one, other in sides)
    event = next(filter(None, events), None)
    example = f", for example of {event_text(event, before, after)}" if event else ""
    return _note(f"invoices unchanged; balances may differ{example}", relation="invoices", balances=event)


def _note(text: str, **data: Any) -> Note:
    return Note("example", "info", text, "polar", data=data)


def event_text(event: Json, *asking: Json) -> str:
    """Return an event in short, as code: its name, its metadata, and what else is asked of it.

    `asking` are filters and aggregations. Example: `{name: llm.completion, tokens: 150}`.
    """
    text = flow({"name": event["name"], **asked_of(event, *asking)})
    short = f"`{text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + '…'}`"
    return short if is_ingestible(event) else f"{short} (no user can send this event)"


def asked_of(event: Json, *asking: Json) -> Json:
    """Return what an event has besides its name: its metadata, and what else is asked of it."""
    asked = {name.removeprefix("metadata.") for part in asking for name in _properties(part)}
    own = {
        name: event[name]
        for name in ("source", "timestamp")
        if name in event and (name in asked or (name, event[name]) == ("source", "system"))
    }
    return own | {key: _asked_for(key, value, asked) for key, value in event.get("metadata", {}).items()}


def _asked_for(key: str, value: Any, asked: set[str]) -> Any:
    """Return a value without the parts that only ingestion asks for. Example: `_llm` needs a `vendor`."""
    if not isinstance(value, Mapping):
        return value
    return {name: inner for name, inner in value.items() if f"{key}.{name}" in asked} or value


def _properties(part: Json) -> set[str]:
    if "clauses" in part:
        return {name for inner in part["clauses"] for name in _properties(inner)}
    return {part["property"]} if "property" in part else set()
