"""Rules about declared events: properties and values that no event of the filter's names has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polar_iac.lint.rule import Finding, Path
from polar_iac.lint.subject import AGGREGATED, Checks, Place, Subject
from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.declared import MODEL_OBJECTS, DeclaredProperty
from polar_iac.meter.filter import EVENT_FIELDS, Clause, Filter
from polar_iac.yaml.scalars import nearest

Names = frozenset[str] | None
"""Names that an event can have there. None: any."""


def pinned(group: Filter) -> Names:
    """Return the names of events that a filter can match; None if it does not say."""
    named = [_name_of(part) for part in group.clauses]
    if group.conjunction == "and":
        known = [names for names in named if names is not None]
        return frozenset.intersection(*known) if known else None
    if not named or None in named:
        return None
    return frozenset().union(*(names for names in named if names is not None))


def _name_of(part: Clause | Filter) -> Names:
    if isinstance(part, Filter):
        return pinned(part)
    if canonical_property(part.property) == "name" and part.operator == "eq" and isinstance(part.value, str):
        return frozenset({part.value})
    return None


def _placed(group: Filter, path: Path, outer: Names) -> Iterator[tuple[Place, Names]]:
    """Yield each clause, with the names of the events that reach it."""
    names = outer
    if group.conjunction == "and" and (own := pinned(group)) is not None:
        names = own if outer is None else own & outer
    for index, part in enumerate(group.clauses):
        inner = (*path, "clauses", index)
        if isinstance(part, Filter):
            yield from _placed(part, inner, names)
        else:
            yield Place(part, inner, canonical_property(part.property)), names


def _candidates(subject: Subject, names: Names, name: str) -> Sequence[str] | None:
    """Return the declared events that reach a property; None where its events or it are not declared."""
    if not names or name in EVENT_FIELDS or not name or name.partition(".")[0] in MODEL_OBJECTS:
        return None
    events = sorted(names)
    return events if all(event in subject.declared for event in events) else None


def _known(subject: Subject, events: Sequence[str], name: str) -> list[DeclaredProperty]:
    return [subject.declared[event][name] for event in events if name in subject.declared[event]]


def undeclared_property(subject: Subject) -> Iterator[Finding]:
    """Find properties that none of the declared events has which a filter can match."""
    if not subject.declared:
        return
    wanted = [
        (place.name, (*place.path, "property"), names)
        for place, names in _placed(subject.spec.filter, ("filter",), None)
    ]
    if subject.aggregated is not None:
        wanted.append((subject.aggregated, AGGREGATED, pinned(subject.spec.filter)))
    for name, path, names in wanted:
        events = _candidates(subject, names, name)
        if events and not _known(subject, events, name):
            there = tuple(dict.fromkeys(key for event in events for key in subject.declared[event]))
            guess = nearest(name, there)
            hint = f"did you mean `{guess}`?" if guess else f"it has {', '.join(there) or 'none'}"
            verb = "is" if len(events) == 1 else "are"
            which = " and ".join(f"`{event}`" for event in events)
            yield Finding("undeclared-property", path, f"{which} {verb} declared without `{name}`: {hint}")


def wrong_type(subject: Subject) -> Iterator[Finding]:
    """Find values of another type than the declared one. `like` looks into the text of any value."""
    if not subject.declared:
        return
    for place, names in _placed(subject.spec.filter, ("filter",), None):
        events = _candidates(subject, names, place.name)
        known = _known(subject, events, place.name) if events else []
        if place.clause.operator in ("like", "not_like") or not known:
            continue
        if not any(property_.takes(place.clause.value) for property_ in known):
            types = " or ".join(dict.fromkeys(property_.type for property_ in known))
            yield place.finding("wrong-type", f"{place.text}: `{place.name}` is declared as {types}")


def aggregated_type(subject: Subject) -> Iterator[Finding]:
    """Find sums of what is declared as text, or as true and false."""
    func, name = subject.spec.aggregation.func, subject.aggregated
    if name is None or func not in ("sum", "max", "min", "avg"):
        return
    events = _candidates(subject, pinned(subject.spec.filter), name)
    known = _known(subject, events, name) if events else []
    if known and all(property_.type in ("string", "boolean") for property_ in known):
        message = f"{func} of {name} is always 0: it is declared as {known[0].type}"
        yield Finding("aggregated-text", AGGREGATED, message)


def undeclared_event(subject: Subject) -> Iterator[Finding]:
    """Find names that nearly are those of a declared event."""
    for place in subject.places:
        value = place.clause.value
        if place.name == "name" and place.clause.operator == "eq" and isinstance(value, str):
            if not subject.declared or value in subject.declared:
                continue
            if guess := nearest(value, tuple(subject.declared), 0.8):
                message = f"{place.text}: no such event is declared. Did you mean `{guess}`?"
                yield place.finding("undeclared-event", message)


CHECKS: Checks = {
    "undeclared-property": undeclared_property,
    "wrong-type": wrong_type,
    "undeclared-event": undeclared_event,
}
