"""Rules about filters, groups and clauses that match nothing, everything, or nothing more than others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice

from polar_iac.lint.deciding import (
    always,
    covers_all,
    implies,
    is_plain,
    joined,
    names_of,
    never,
    repeats,
    unreachable,
)
from polar_iac.lint.rule import Finding, Path
from polar_iac.lint.subject import TEXT_FIELDS, Checks, Place, Subject, clause_text, groups
from polar_iac.meter.canonical import canonical_json, canonical_property
from polar_iac.meter.declared import MODEL_PROPERTIES
from polar_iac.meter.filter import Clause, Filter

_MOST_PAIRS = 200
"""Most pairs of clauses of one group that are compared."""
_MOST_CLAUSES = 100
"""Most clauses of a filter that is looked at as a whole."""


def never_matches(subject: Subject) -> Iterator[Finding]:
    """Find clauses that match nothing; groups only where no clause in them explains it."""
    explained: list[Path] = []
    for place in subject.places:
        if not is_plain(place) and (why := _why_never(place)):
            explained.append(place.path)
            yield place.finding("never-matches", why, "value" if place.name else "property")
    if len(subject.places) > _MOST_CLAUSES:
        return
    for group, path in groups(subject.spec.filter):
        if not repeats(names_of(group)):
            continue
        is_explained = any(inner[: len(path)] == path for inner in explained)
        if not is_explained and not (group.clauses and never(group.wire())):
            continue
        finding = _contradiction(group, path, explained)
        if finding is None and not is_explained:
            what = "this filter" if path == ("filter",) else "this group"
            message = f"{what} never matches: its clauses contradict each other"
            finding = Finding("never-matches", path, message)
        if finding:
            explained.append(path)
            yield finding


def _contradiction(group: Filter, path: Path, explained: Sequence[Path]) -> Finding | None:
    """Return the finding of two clauses under `and` that no event matches both, at the second one."""
    if group.conjunction != "and":
        return None
    for (first, one), (second, other) in _pairs(group):
        places = [(*path, "clauses", index) for index in (first, second)]
        if not any(place in explained for place in places) and never(joined("and", one, other)):
            message = f"{clause_text(other)} and {clause_text(one)} never match together: this bills nobody"
            return Finding("never-matches", places[1], message)
    return None


def _pairs(group: Filter) -> Iterator[tuple[tuple[int, Clause], tuple[int, Clause]]]:
    """Yield pairs of a group's own clauses about one property."""
    own: dict[str, list[tuple[int, Clause]]] = {}
    for index, part in enumerate(group.clauses):
        if isinstance(part, Clause):
            own.setdefault(canonical_property(part.property), []).append((index, part))
    pairs = (pair for clauses in own.values() for pair in combinations(clauses, 2))
    return islice(pairs, _MOST_PAIRS)


def _why_never(place: Place) -> str | None:
    """Return why a clause matches no event of a user, or None."""
    clause, text = place.clause, place.text
    if place.name == "":
        return f"{text} never matches: it names no property"
    if place.name in TEXT_FIELDS and not isinstance(clause.value, str):
        return f"{text} never matches: an event's {place.name} is text, so put the value in quotes"
    if place.name == "timestamp" and isinstance(clause.value, str):
        return f"{text} never matches: a timestamp is a number, the seconds since 1970"
    alone = joined("and", clause)
    if never(alone):
        if place.name == "source":
            return f"{text} never matches: an event's source is `user` or `system`"
        return f"{text} never matches any event"
    if place.name in MODEL_PROPERTIES and unreachable(alone):
        return f"{text} never matches: ingestion takes no such value of {place.name}"
    return None


def always_matches(subject: Subject) -> Iterator[Finding]:
    """Find filters and groups that match everything, or everything that has the property."""
    for place in subject.places:
        if (
            place.name in (*TEXT_FIELDS, "timestamp")
            and not is_plain(place)
            and always(joined("and", place.clause))
        ):
            yield place.finding("always-matches", f"{place.text} matches every event: remove it")
    for group, path in groups(subject.spec.filter):
        if not group.clauses and path == ("filter",):
            message = "this filter has no clauses, and matches every event of the organization"
            yield Finding("always-matches", (*path, "clauses"), message)
        elif group.conjunction == "or":
            yield from _always_group(group, path)
        elif path == ("filter",) and not subject.places and not any(map(_is_or, _inside(group))):
            message = "this filter has only empty groups, and matches every event of the organization"
            yield Finding("always-matches", (*path, "clauses"), message)


def _inside(group: Filter) -> Iterator[Filter]:
    return (inner for inner, _ in groups(group))


def _is_or(group: Filter) -> bool:
    return group.conjunction == "or" and bool(group.clauses)


def _always_group(group: Filter, path: Path) -> Iterator[Finding]:
    for index, part in enumerate(group.clauses):
        if isinstance(part, Filter) and not part.clauses:
            message = "an empty group matches every event, and so does the `or` that it is in: remove it"
            yield Finding("always-matches", (*path, "clauses", index), message)
            return
    for (_, one), (index, other) in _pairs(group):
        if covers_all(one, other):
            name = canonical_property(one.property)
            which = "every event" if name in (*TEXT_FIELDS, "timestamp") else f"every event that has `{name}`"
            message = (
                f"{clause_text(one)} or {clause_text(other)} matches {which}: write `and`, or remove one"
            )
            yield Finding("always-matches", (*path, "clauses", index), message)
            return


def redundant_clause(subject: Subject) -> Iterator[Finding]:
    """Find clauses and groups without which a group matches the same events."""
    if len(subject.places) > _MOST_CLAUSES:
        return
    for group, path in groups(subject.spec.filter):
        if len(group.clauses) < 2 or never(group.wire()):
            continue
        for index, part in enumerate(group.clauses):
            if _is_redundant(group, index):
                what = clause_text(part) if isinstance(part, Clause) else "this group"
                message = f"{what} changes nothing: without it the same events match"
                yield Finding("redundant-clause", (*path, "clauses", index), message)
                break  # Of two equal clauses one is redundant, not both.


def _is_redundant(group: Filter, index: int) -> bool:
    part = group.clauses[index]
    others = [other for number, other in enumerate(group.clauses) if number != index]
    if isinstance(part, Filter) and not part.clauses:
        return group.conjunction == "and"
    if any(canonical_json(part.wire()) == canonical_json(other.wire()) for other in others[index:]):
        return True
    if not repeats((*names_of(part), *(name for other in others for name in dict.fromkeys(names_of(other))))):
        return False
    rest, alone = joined(group.conjunction, *others), joined("and", part)
    return implies(rest, alone) if group.conjunction == "and" else implies(alone, rest)


CHECKS: Checks = {
    "never-matches": never_matches,
    "always-matches": always_matches,
    "redundant-clause": redundant_clause,
}
