"""Rules about properties that a filter cannot reach, and patterns that `like` does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator

from polar_iac.lint.characters import shown
from polar_iac.lint.deciding import joined, unreachable
from polar_iac.lint.rule import Finding, Path
from polar_iac.lint.subject import AGGREGATED, Checks, Subject
from polar_iac.meter.declared import MODEL_OBJECTS, MODEL_PROPERTIES
from polar_iac.meter.filter import EVENT_FIELDS, Clause
from polar_iac.yaml.scalars import nearest

_MEMBERS = tuple(MODEL_PROPERTIES)
_NOT_METADATA = {
    "event_name": "an event's name is `name`",
    **dict.fromkeys(
        ("customer_id", "external_customer_id", "customer.id", "customer.external_id"),
        "each customer has a quantity of their own, and no filter asks for the customer",
    ),
    **dict.fromkeys(("organization_id", "organization.id"), "all events are of one organization"),
    **dict.fromkeys(("event.name", "event.source", "event.timestamp"), "write it without `event.`"),
}
"""Names that people write for what is no metadata, and what to do."""
_ODD_BEGINNING = re.compile(r"(?i)\$|metadata(?:[.\[]|$)|properties\.|event\.metadata")
_PATTERN = re.compile(r"^%|%$|\*|^\^|\$$|\.\+|\\[dws]|\[(?:\w-\w|\^)[^\]]*\]|\(\?|\w\|\w|\{\d+(?:,\d*)?\}")


def _properties(subject: Subject) -> Iterator[tuple[str, Path]]:
    """Yield the properties of the clauses and of the aggregation, with their paths."""
    for place in subject.places:
        yield place.name, (*place.path, "property")
    if subject.aggregated is not None:
        yield subject.aggregated, AGGREGATED


def nested_property(subject: Subject) -> Iterator[Finding]:
    """Find properties with a dot: no metadata of a user's event has objects, but for two."""
    for name, path in _properties(subject):
        if "." in name and name.partition(".")[0] not in MODEL_OBJECTS and not _is_odd(name):
            flat = re.sub(r"\W+", "_", name).strip("_")
            yield Finding(
                "nested-property",
                path,
                f"no event of a user has `{name}`, ever: metadata is flat, and a key with a dot is out of "
                f"reach. "
                f"Send a property without a dot, such as {flat}",
            )


def _is_odd(name: str) -> bool:
    """Tell whether a property names what is no metadata, or in a way that Polar does not read."""
    return (
        name in _NOT_METADATA
        or _ODD_BEGINNING.match(name) is not None
        or "[" in name
        or (name.lower() in EVENT_FIELDS and name not in EVENT_FIELDS)
    )


def unreachable_property(subject: Subject) -> Iterator[Finding]:
    """Find properties that a filter cannot reach."""
    for name, path in _properties(subject):
        if name in _NOT_METADATA:
            advice = _NOT_METADATA[name]
        elif name.lower() in EVENT_FIELDS and name not in EVENT_FIELDS:
            advice = f"the event's own is `{name.lower()}`"
        elif _is_odd(name):
            plain = re.sub(r"(?i)^\$\.?|^(?:event\.)?(?:metadata|properties)\.?", "", name)
            plain = re.sub(r"^\[['\"]?|['\"]?\]$", "", plain).strip(".")
            is_key = plain and not re.search(r"[\[\].]", plain)
            advice = f"write the key alone, `{plain}`" if is_key else "metadata is flat: write one key of it"
        elif name.startswith(tuple(f"{key}." for key in MODEL_OBJECTS)) and name not in _MEMBERS:
            if not unreachable(joined("and", Clause(name, "like", ""))):
                continue
            guess = nearest(name, _MEMBERS)
            advice = f"did you mean `{guess}`?" if guess else f"ingestion takes {', '.join(_MEMBERS)}"
        else:
            continue
        message = f"Polar looks for {shown(name)} in the metadata: {advice}"
        yield Finding("unreachable-property", path, message)


def pattern_in_like(subject: Subject) -> Iterator[Finding]:
    """Find wildcards and regular expressions, which `like` takes literally."""
    for place in subject.places:
        value = place.clause.value
        if place.clause.operator not in ("like", "not_like") or not isinstance(value, str):
            continue
        if _PATTERN.search(value):
            plain = re.sub(r"^[%*^]+|[%*$]+$|\.\*|\.\+", "", value)
            advice = f": write {shown(plain)}" if plain and not _PATTERN.search(plain) else ""
            effect = "looks for this very text: like knows no patterns, and finds a text anywhere"
            message = f"{place.text} {effect}{advice}"
            yield place.finding("pattern-in-like", message)


CHECKS: Checks = {
    "nested-property": nested_property,
    "unreachable-property": unreachable_property,
    "pattern-in-like": pattern_in_like,
}
