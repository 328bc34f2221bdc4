"""Event names in classes: filters take all names of a class alike, so one answer serves for them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from polar_iac.meter.meaning.events import Event, bare
from polar_iac.meter.meaning.filters import compile_filter

Json = Mapping[str, Any]
Answer = TypeVar("Answer")


class NameClasses(Generic[Answer]):
    """Answers about event names. `decide` is asked for one name of each class.

    Example: a filter with `name = "a"` has two classes of names, `a` and all others.
    """

    def __init__(self, filters: Iterable[Json], decide: Callable[[str], Answer]) -> None:
        # Each clause about the name, compiled as a filter of its own.
        self._tests = [
            compile_filter(all_of(clause)).billing for filter_ in filters for clause in name_clauses(filter_)
        ]
        self._decide = decide
        self._answers: dict[tuple[bool, ...], Answer] = {}

    def answer(self, name: str) -> Answer:
        """Return the answer for the class of a name."""
        event = Event(name, "user", "2025-01-01T00:00:00Z", {})
        matches = tuple(test(event) for test in self._tests)
        if matches not in self._answers:
            self._answers[matches] = self._decide(name)
        return self._answers[matches]


def all_of(*parts: Json) -> dict[str, Any]:
    """Join filters and clauses by `and`."""
    return {"conjunction": "and", "clauses": list(parts)}


def name_is(name: str) -> dict[str, Any]:
    """Return the clause that an event has this name."""
    return {"property": "name", "operator": "eq", "value": name}


def name_clauses(part: Json) -> Iterator[Json]:
    """Yield the clauses of a filter that are about the event's name."""
    for inner in part["clauses"]:
        if "clauses" in inner:
            yield from name_clauses(inner)
        elif bare(inner["property"]) == "name":
            yield inner
