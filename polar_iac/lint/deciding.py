"""Questions to the decision procedure, asked only where the answer is not plain, and each once."""

from __future__ import annotations

import json
from functools import lru_cache
from types import ModuleType
from typing import Any

from polar_iac.lint.subject import TEXT_FIELDS, Place
from polar_iac.meter.canonical import canonical_json, canonical_property
from polar_iac.meter.declared import MODEL_OBJECTS, MODEL_PROPERTIES
from polar_iac.meter.filter import Clause, Filter

FilterJson = dict[str, Any]


def joined(conjunction: str, *parts: Clause | Filter) -> FilterJson:
    """Return a filter of parts as JSON, for the decision procedure."""
    return {"conjunction": conjunction, "clauses": [part.wire() for part in parts]}


def is_plain(place: Place) -> bool:
    """Tell whether some events match a clause beyond doubt, and others that have the property do not.

    It compares metadata with a text or a number in the usual way. No one has to be asked about it.
    """
    clause = place.clause
    if (member := MODEL_PROPERTIES.get(place.name)) is not None and place.name != "_cost.currency":
        return clause.value != "" and member.takes(clause.value)
    if place.name.partition(".")[0] in MODEL_OBJECTS or place.name in ("", "source", "timestamp"):
        return False
    if isinstance(clause.value, str):
        return clause.value != ""
    return place.name not in TEXT_FIELDS and clause.operator not in ("like", "not_like")


def repeats(names: tuple[str, ...]) -> bool:
    """Tell whether clauses may bear on each other: one property twice, or one inside another.

    Clauses of different properties never contradict or imply each other.
    """
    different = set(names)
    if len(different) < len(names):
        return True
    dotted = [name for name in different if "." in name]
    return any(name[:end] in different for name in dotted for end in range(len(name)) if name[end] == ".")


def names_of(part: Clause | Filter) -> tuple[str, ...]:
    """Return the property of each clause of a part."""
    if isinstance(part, Clause):
        return (canonical_property(part.property),)
    return tuple(name for inner in part.clauses for name in names_of(inner))


def never(filter_: FilterJson) -> bool:
    """Tell whether it is proven that a filter matches no event."""
    return _ask("never", canonical_json(filter_))


def unreachable(filter_: FilterJson) -> bool:
    """Tell whether it is proven that a filter matches no event of a user."""
    return _ask("unreachable", canonical_json(filter_))


def always(filter_: FilterJson) -> bool:
    """Tell whether it is proven that a filter matches every event."""
    return _ask("always", canonical_json(filter_))


def implies(one: FilterJson, other: FilterJson) -> bool:
    """Tell whether it is proven that each event of one filter is matched by the other one."""
    return _ask("implies", canonical_json(one), canonical_json(other))


def equivalent(one: FilterJson, other: FilterJson) -> bool:
    """Tell whether it is proven that two filters match the same events, in both engines."""
    return _ask("equivalent", canonical_json(one), canonical_json(other))


@lru_cache(maxsize=50_000)
def _ask(question: str, *texts: str) -> bool:
    filters = [json.loads(text) for text in texts]
    if question == "unreachable":
        return bool(meaning().ingestible_witness(*filters).status == "none")
    answer: bool | None = getattr(meaning(), question)(*filters)
    return answer is True


def meaning() -> ModuleType:
    """Return the package that evaluates filters. It is loaded late: a plain manifest does not wait for it."""
    from polar_iac.meter import meaning

    return meaning


def covers_all(one: Clause, other: Clause) -> bool:
    """Tell whether every event that has the property of two clauses is matched by one of them.

    `like ""` stands for "has the property": every text contains an empty one.
    """
    positive = ("eq", "like")
    if one.operator in positive and other.operator in positive and "" not in (one.value, other.value):
        return False
    name = canonical_property(one.property)
    either = joined("or", one, other)
    if name in (*TEXT_FIELDS, "timestamp"):
        return always(either)
    return implies(joined("and", Clause(name, "like", "")), either)
