"""Checks for filters and aggregations that can never match, or probably do not mean what they say.

They follow how billing reads events as they arrive. Polar accepts all of these, so they are not errors in the
manifest, but reviewers are informed. The facts are observed on the real server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from polar_iac.meter.canonical import canonical_property
from polar_iac.meter.filter import OPERATOR_SIGNS, ORDER_OPERATORS, Aggregation, Clause, Filter

Doubt = tuple[Literal["info", "warning"], str]
"""Severity and text of a note."""
_NUMERIC = re.compile(r"[-+]?[0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_OWN = ("name", "source")
"""Properties of the event itself that are text. `timestamp` is a number; all others are metadata."""


def filter_notes(conditions: Filter) -> Iterator[Doubt]:
    """Yield one note for each doubtful clause."""
    for part in conditions.clauses:
        if isinstance(part, Filter):
            yield from filter_notes(part)
        else:
            yield from _clause(part)


def _clause(clause: Clause) -> Iterator[Doubt]:
    name, value = canonical_property(clause.property), clause.value
    text = f"`{name} {OPERATOR_SIGNS.get(clause.operator, clause.operator)} {_json(value)}`"
    if name == "":
        yield "warning", f"{text} never matches: it names no property"
    elif name in _OWN and not isinstance(value, str):
        yield "warning", f"{text} never matches: an event's {name} is text, so put the value in quotes"
    elif name == "timestamp" and isinstance(value, str):
        yield "warning", f"{text} never matches: a timestamp is a number, the seconds since 1970"
    elif name not in _OWN and isinstance(value, str) and _NUMERIC.fullmatch(value):
        if clause.operator in ORDER_OPERATORS:
            yield (
                "warning",
                f"{text} compares texts, letter by letter, and never matches where {name} is a number: "
                f"for a number write it without quotes",
            )
        elif clause.operator == "eq":
            yield "info", f"{text} matches the text only, never a number"
        elif clause.operator == "ne":
            yield "info", f"{text} matches every number too, since a number is not that text"


def aggregation_notes(aggregation: Aggregation) -> Iterator[Doubt]:
    """Yield a note when the aggregation counts something other than it seems to."""
    func, name = aggregation.func, canonical_property(aggregation.property or "")
    if func in ("sum", "max", "min", "avg") and name in _OWN:
        yield "warning", f"{func} of {name} is always 0: an event's {name} is text"
    elif func == "unique" and name in (*_OWN, "timestamp"):
        yield (
            "warning",
            f"unique of {name} counts a metadata property of that name, not the event's own {name}",
        )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
