"""Declared events: which properties the events of a name have, and of which type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
"""Types of a property, and the types of their values. No number is a boolean, nor the reverse."""
MODEL_OBJECTS = ("_cost", "_llm")
"""Properties that every event may have: ingestion itself says what is in them (observed)."""


@dataclass(frozen=True, slots=True)
class DeclaredProperty:
    """The type of a property, a name of `TYPES`. Without `optional` every event of the name has it."""

    type: str
    optional: bool = False

    def takes(self, value: Any) -> bool:
        """Tell whether a value has the type. A whole float is an integer: Polar stores both alike."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return type(value) in TYPES[self.type]


_TEXT, _WHOLE = DeclaredProperty("string"), DeclaredProperty("integer")
MODEL_PROPERTIES: Mapping[str, DeclaredProperty] = {
    "_cost.amount": DeclaredProperty("number"),
    "_cost.currency": _TEXT,
    "_llm.vendor": _TEXT,
    "_llm.model": _TEXT,
    "_llm.prompt": _TEXT,
    "_llm.response": _TEXT,
    "_llm.input_tokens": _WHOLE,
    "_llm.cached_input_tokens": _WHOLE,
    "_llm.output_tokens": _WHOLE,
    "_llm.total_tokens": _WHOLE,
}
"""Properties that ingestion takes in these objects (observed)."""

DeclaredEvents = Mapping[str, Mapping[str, DeclaredProperty]]
"""Properties by name, by the name of the event."""


@dataclass(frozen=True)
class Misfit:
    """A property of an event that its declaration does not know, that has another type, or that is missing.

    `declared` is None for a property that is not declared; `is_missing` is for one that the event lacks.
    """

    property: str
    declared: DeclaredProperty | None
    is_missing: bool = False


def misfits(declared: DeclaredEvents, name: str, metadata: Mapping[str, Any]) -> Iterator[Misfit]:
    """Yield what does not fit of an event's metadata. An event that is not declared fits."""
    properties = declared.get(name)
    if properties is None:
        return
    for key, value in metadata.items():
        if key not in properties:
            if key not in MODEL_OBJECTS:
                yield Misfit(key, None)
        elif not properties[key].takes(value):
            yield Misfit(key, properties[key])
    for key, known in properties.items():
        if key not in metadata and not known.optional:
            yield Misfit(key, known, is_missing=True)
