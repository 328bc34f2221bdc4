"""Rules about types: values that equal no event's value, and aggregations of what is not a number."""

from __future__ import annotations

import re
from collections.abc import Iterator

from polar_iac.lint.rule import Finding
from polar_iac.lint.subject import AGGREGATED, TEXT_FIELDS, Checks, Place, Subject
from polar_iac.meter.filter import EVENT_FIELDS, INT32, ORDER_OPERATORS

_NUMERIC = re.compile(r"[-+]?[0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PLAUSIBLE = range(946_684_800, INT32[-1] + 1)
"""Times of this century that a clause can compare with, in seconds since 1970."""
_NUMBER_FUNCS = ("sum", "max", "min", "avg")
_MATCHING = ("eq", "ne", "gt", "gte", "lt", "lte")


def _declared_types(subject: Subject, name: str) -> set[str]:
    """Return the types that a property has in declared events."""
    return {properties[name].type for properties in subject.declared.values() if name in properties}


def _is_declared_text(subject: Subject, name: str) -> bool:
    """Tell whether each declared event that has a property has it as a text."""
    return _declared_types(subject, name) == {"string"}


def _quoted(subject: Subject) -> Iterator[tuple[Place, str]]:
    """Yield the comparisons of metadata with a text, unless texts is what is declared there."""
    for place in subject.places:
        value = place.clause.value
        if isinstance(value, str) and place.name not in EVENT_FIELDS and place.clause.operator in _MATCHING:
            yield place, value


def quoted_number(subject: Subject) -> Iterator[Finding]:
    """Find numbers in quotes."""
    for place, value in _quoted(subject):
        if _NUMERIC.fullmatch(value) and not _is_declared_text(subject, place.name):
            name = place.name
            if place.clause.operator in ORDER_OPERATORS:
                effect = f"compares texts, letter by letter, and never matches where {name} is a number"
            elif place.clause.operator == "eq":
                effect = "matches the text only, never a number"
            else:
                effect = "matches every number too, since a number is not that text"
            yield place.finding("quoted-number", f"{place.text} {effect}: {_without_quotes(value)}")


def _without_quotes(value: str) -> str:
    """Return how to write a number. A clause takes whole ones alone."""
    number = float(re.sub("[,_]", "", value))
    if INT32[0] <= number <= INT32[-1] and number.is_integer():
        return f"for a number write it without quotes, {int(number)}"
    return "for a number write a whole one without quotes"


def quoted_boolean(subject: Subject) -> Iterator[Finding]:
    """Find true and false in quotes."""
    for place, value in _quoted(subject):
        if value.lower() in ("true", "false") and place.clause.operator not in ORDER_OPERATORS:
            if _is_declared_text(subject, place.name):
                continue
            effect = (
                "matches the text only"
                if place.clause.operator == "eq"
                else "matches every true and false too"
            )
            message = f"{place.text} {effect}: for true or false write it without quotes, {value.lower()}"
            yield place.finding("quoted-boolean", message)


def text_order(subject: Subject) -> Iterator[Finding]:
    """Find order operators with a text. Numbers in quotes and declared types have rules of their own."""
    for place in subject.places:
        value = place.clause.value
        if not isinstance(value, str) or value == "" or place.name == "timestamp":
            continue
        if place.clause.operator not in ORDER_OPERATORS:
            continue
        known = _NUMERIC.fullmatch(value) or _declared_types(subject, place.name)
        if known and place.name not in TEXT_FIELDS:
            continue
        yield place.finding(
            "text-order",
            f'{place.text} compares texts, letter by letter, where "10" is less than "9"; balances may '
            f"sort differently",
            "operator",
        )


def aggregated_text(subject: Subject) -> Iterator[Finding]:
    """Find the sum of something that is not a number."""
    func, name = subject.spec.aggregation.func, subject.aggregated
    if func not in _NUMBER_FUNCS or name is None:
        return
    if name in TEXT_FIELDS:
        yield Finding(
            "aggregated-text", AGGREGATED, f"{func} of {name} is always 0: an event's {name} is text"
        )


def unique_own_field(subject: Subject) -> Iterator[Finding]:
    """Find `unique` of an event's own field, which is not what it counts."""
    name = subject.aggregated
    if subject.spec.aggregation.func == "unique" and name in EVENT_FIELDS:
        message = f"unique of {name} counts a metadata property of that name, not the event's own {name}"
        yield Finding("unique-own-field", AGGREGATED, message)


def implausible_timestamp(subject: Subject) -> Iterator[Finding]:
    """Find numbers that are no time in seconds."""
    for place in subject.places:
        value = place.clause.value
        if place.name != "timestamp" or type(value) is not int or place.clause.operator not in _MATCHING:
            continue
        if value not in _PLAUSIBLE:
            hint = "" if (day := _day(value)) is None else f", and {day} is none"
            message = f"{place.text} is before the year 2000: a timestamp is in seconds since 1970{hint}"
            yield place.finding("implausible-timestamp", message)


def _day(value: int) -> str | None:
    """Return a number that is a date without hyphens as one. Example: 20250101 is `2025-01-01`."""
    match = re.fullmatch(r"((?:19|20)\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])", str(value))
    return "-".join(match.groups()) if match else None


CHECKS: Checks = {
    "quoted-number": quoted_number,
    "quoted-boolean": quoted_boolean,
    "text-order": text_order,
    "aggregated-text": aggregated_text,
    "unique-own-field": unique_own_field,
    "implausible-timestamp": implausible_timestamp,
}
