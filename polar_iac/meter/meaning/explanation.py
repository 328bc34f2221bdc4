"""The reasons why an event is billed, or is not: clause by clause, in plain words.

Billing is explained. Where `/quantities` reads a clause differently, the clause says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.canonical import canonical_value
from polar_iac.meter.filter import ORDER_OPERATORS
from polar_iac.meter.meaning.comparing import LIKE, fits
from polar_iac.meter.meaning.events import ABSENT, TEXT_FIELDS, Event, QueryError, bare, lookup
from polar_iac.meter.meaning.filters import BILLING_FIELDS, compile_filter

_COMPARED = {"gt": "greater than", "gte": "at least", "lt": "less than", "lte": "at most"}
_BEYOND = {"gt": "greater", "gte": "greater or equal", "lt": "less", "lte": "less or equal"}
_LONGEST = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class ClauseReading:
    """The reading of one clause for one event."""

    place: tuple[int, ...]
    """Indices that lead to the clause: (1, 0) is the first clause of the filter that comes second."""
    property: str
    """As it is written."""
    operator: str
    value: Any
    matched: bool
    in_quantities: bool | None
    """True if `/quantities` takes the clause to match; None if the query fails."""
    text: str
    """The reason, as a sentence without a period."""


@dataclass(frozen=True)
class Reading:
    """The reading of a filter for one event."""

    matched: bool
    in_quantities: bool | None
    """True if `/quantities` counts the event; None if the query fails."""
    clauses: tuple[ClauseReading, ...]
    """In the order of the filter."""


def explain(filter: Mapping[str, Any], event: Mapping[str, Any]) -> Reading:
    """Explain why a filter matches an event, or why it does not, both as JSON.

    Raises KeyError or ValueError when an argument is no filter or event.
    """
    read = Event.from_json(event)
    matched, in_quantities = _verdicts(filter, read)
    return Reading(matched, in_quantities, tuple(_clauses(filter, read, ())))


def _verdicts(filter_: Mapping[str, Any], event: Event) -> tuple[bool, bool | None]:
    matcher = compile_filter(filter_)
    try:
        return matcher.billing(event), matcher.sql(event)
    except QueryError:
        return matcher.billing(event), None


def _clauses(part: Mapping[str, Any], event: Event, place: tuple[int, ...]) -> Iterator[ClauseReading]:
    if "clauses" in part:
        for index, inner in enumerate(part["clauses"]):
            yield from _clauses(inner, event, (*place, index))
        return
    matched, in_quantities = _verdicts({"conjunction": "and", "clauses": [part]}, event)
    name, operation, value = part["property"], part["operator"], part["value"]
    text = _reason(bare(name), operation, canonical_value(value), event, matched)
    yield ClauseReading(place, name, operation, value, matched, in_quantities, text)


def _reason(name: str, operation: str, value: Any, event: Event, matched: bool) -> str:
    if not name:
        return "the clause names no property, and so it never matches"
    if not fits(name, value):
        kind = "text" if name in TEXT_FIELDS else "the number of seconds since 1970"
        return f"`{name}` of an event is {kind}, compared with {described(value)}: that never matches"
    own = BILLING_FIELDS.get(name)
    actual = own(event) if own else lookup(name, ABSENT)(event)
    if actual is ABSENT:
        return f"{_absence(name, event)}: no clause matches an absent property"
    if actual is None:
        return f"`{name}` is null: no clause matches null"
    if operation in LIKE:
        return _contained(name, operation, value, actual, matched)
    return _comparison(name, operation, value, actual, matched)


def _absence(name: str, event: Event) -> str:
    """Return how far the path of an absent property leads."""
    keys = name.split(".")
    if len(keys) > 1 and name in event.metadata:
        return f"the event has a key `{name}`, which no filter can reach, since dots lead into objects"
    for length in range(1, len(keys)):
        path = ".".join(keys[:length])
        value = lookup(path, ABSENT)(event)
        if value is not ABSENT and not isinstance(value, Mapping):
            return f"`{path}` is {described(value)} and no object, so there is no `{name}`"
    return f"the event has no `{name}`"


def _contained(name: str, operation: str, value: Any, actual: Any, matched: bool) -> str:
    does = matched == (operation == "like")
    printed = "" if isinstance(actual, str) else f", as text {_quoted(str(actual))}"
    return (
        f"`{name}` is {described(actual)}{printed}, which {'contains' if does else 'does not contain'}"
        f" {_quoted(str(value))}"
    )


def _comparison(name: str, operation: str, value: Any, actual: Any, matched: bool) -> str:
    compared = f"`{name}` is {described(actual)}, compared with {described(value)}"
    if isinstance(value, str) == isinstance(actual, str) and isinstance(actual, int | float | str):
        return _like_with_like(name, operation, value, actual, matched)
    kind = _kind(actual)
    if operation in ORDER_OPERATORS:
        return f"{compared}: {kind} is never {_BEYOND[operation]}"
    differs = ", and so it differs" if operation == "ne" else ""
    return f"{compared}: {kind} never equals {_kind(value)}{differs}"


def _like_with_like(name: str, operation: str, value: Any, actual: Any, matched: bool) -> str:
    """Return the reason where both are text, or both numbers, as which booleans count."""
    mixed = isinstance(actual, bool) is not isinstance(value, bool)
    as_numbers = mixed or operation in ORDER_OPERATORS
    one, other = (
        f"{described(v)} (counts as {int(v)})" if isinstance(v, bool) and as_numbers else described(v)
        for v in (actual, value)
    )
    shown = f"`{name}` is {one}"
    if operation == "eq":
        return f"{shown}, which {'equals' if matched else 'is not'} {other}"
    if operation == "ne":
        return f"{shown}, which {'is not' if matched else 'equals'} {other}"
    order = " in the order of characters" if isinstance(actual, str) else ""
    return f"{shown}, which is {'' if matched else 'not '}{_COMPARED[operation]} {other}{order}"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else "a number"


def described(value: Any) -> str:
    """Return a value with its type: `the string "150"`, `the number 100`, `true`."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the string {_quoted(value)}"
    text = json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return f"the {_kind(value).partition(' ')[2]} {shown}"


def _quoted(text: str) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return json.dumps(shown, ensure_ascii=False)
