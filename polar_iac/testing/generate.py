"""Tests that write themselves: events at the borders of each clause, and what they come to today."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from polar_iac.meter.filter import OPERATOR_SIGNS
from polar_iac.meter.meaning.evaluation import Meter, compile_meter
from polar_iac.meter.meaning.events import ABSENT, OWN_FIELDS, Event, bare, lookup
from polar_iac.meter.spec import MeterSpec
from polar_iac.testing.events import given_of
from polar_iac.testing.model import Json
from polar_iac.testing.mutants import Mutant, Part, parts
from polar_iac.testing.run import compiled
from polar_iac.testing.telling import clause, compare, counted_by, difference, every, told_apart
from polar_iac.yaml import tree
from polar_iac.yaml.edit import Editor
from polar_iac.yaml.parse import parse
from polar_iac.yaml.write import OneLine, lines

MARK = "# generated: check the expectation"
_NUMBERS = (2, 3, 5)
"""Values to tell sums, maxima and counts apart, where a meter counts events with them."""


@dataclass(frozen=True)
class Generated:
    """Tests of a meter as data, and the parts of which some mutant may stay unnoticed."""

    tests: Sequence[Json]
    left: tuple[Part, ...]


def generate(key: str, spec: MeterSpec, taken: Collection[str] = ()) -> Generated:
    """Return tests of a meter that notice each mutant that a test can notice.

    `taken` holds the names that the file has already. What is expected is what the meter does today.
    """
    names = set(taken)
    tests: list[Json] = []
    left: list[Part] = []
    for part in parts(spec):
        writer = _Aggregation(spec, part) if part.is_aggregation else _Clause(spec, part)
        for body in writer.tests():
            name = _unique(f"{key}: {_text(part.data)}", names)
            tests.append({"name": name, "meter": key, **body})
        if any(compare(writer.filter, writer.aggregation, m).alike is not True for m in writer.unnoticed):
            left.append(part)
    return Generated(tuple(tests), tuple(left))


def without_a_test(spec: MeterSpec, aggregation: Part) -> Sequence[Mutant]:
    """Return the mutants of the aggregation that none of the generated tests notices."""
    writer = _Aggregation(spec, aggregation)
    deque(writer.tests(), maxlen=0)
    return writer.unnoticed


def _unique(name: str, names: set[str]) -> str:
    """Return a name that the file does not have yet, with a number if needed."""
    number, free = 2, name
    while free in names:
        free, number = f"{name} ({number})", number + 1
    names.add(free)
    return free


def _text(data: Json) -> str:
    if "func" in data:
        return f"{data['func']}({bare(data['property'])})" if "property" in data else str(data["func"])
    value = json.dumps(data["value"], ensure_ascii=False)
    return f"{bare(data['property'])} {OPERATOR_SIGNS[data['operator']]} {value}"


class _Writer(ABC):
    """Writer of the tests of one part. `unnoticed` are the mutants that they do not notice yet."""

    def __init__(self, spec: MeterSpec, part: Part) -> None:
        self.part = part
        self.filter: Json = spec.wire("filter")
        self.aggregation: Json = spec.wire("aggregation")
        self.counted = counted_by(self.filter, self.aggregation)
        self.meter = compiled(spec)
        self.unnoticed = list(part.mutants)
        self.changed = {id(m): compile_meter(m.filter, m.aggregation) for m in part.mutants}

    @abstractmethod
    def tests(self) -> Iterator[Json]:
        """Yield tests as data, without name and meter."""

    def told_apart(self, mutant: Mutant, most: int = 2) -> Sequence[tuple[Json, bool]]:
        """Return an event that the meter alone counts, and one that the mutant alone counts."""
        return [*islice(told_apart(self.filter, self.aggregation, mutant), most)]

    def notices(self, mutant: Mutant, event: Json) -> bool:
        """Tell whether an event that says `counted` notices a mutant."""
        read = Event.from_json(event)
        return self.meter.counts(read) is not self.changed[id(mutant)].counts(read)

    def given(self, events: Sequence[tuple[Json, bool]]) -> list[Json]:
        """Return events as a file of tests gives them, each once."""
        said = {json.dumps(event): OneLine({**given_of(event), "counted": hit}) for event, hit in events}
        return list(said.values())


class _Clause(_Writer):
    """Writer of the test of a clause: one event that it decides to count, one that it decides to miss."""

    def tests(self) -> Iterator[Json]:
        removed, negated, *others = self.part.mutants
        # Changed constants first: they lead to the border.
        events = list(self._noticing(others))
        kinds = {counted for _, counted in events}
        events += self._forgetting([pair for pair in self.told_apart(negated) if pair[1] not in kinds])
        events += self._noticing((negated, removed))
        if events:
            yield {"given": self.given(events)}

    def _noticing(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Json, bool]]:
        for mutant in mutants:
            if mutant in self.unnoticed:
                yield from self._forgetting(self.told_apart(mutant, 1))

    def _forgetting(self, events: Sequence[tuple[Json, bool]]) -> Sequence[tuple[Json, bool]]:
        """Return events, and forget the mutants that they notice."""
        self.unnoticed = [m for m in self.unnoticed if not any(self.notices(m, event) for event, _ in events)]
        return events


class _Aggregation(_Writer):
    """Writer of the tests of an aggregation: events whose sum is not their maximum, and so on."""

    def tests(self) -> Iterator[Json]:
        mixtures = list(_mixtures(list(self._pool())))
        while mixtures:
            best = max(mixtures, key=lambda mixture: len(self._noticed_by(mixture)))
            noticed = self._noticed_by(best)
            if not noticed:
                break
            self._forget(noticed)
            total = _whole(self.meter.charge(_repeated(best)))
            yield {"given": [_times(event, times) for event, times in best], "expect": {"total": total}}
        apart = [pair for mutant in self.unnoticed for pair in self.told_apart(mutant, 1)]
        if apart:
            self._forget([m for m in self.unnoticed if any(self.notices(m, event) for event, _ in apart)])
            yield {"given": self.given(apart)}

    def _noticed_by(self, mixture: _Mixture) -> list[Mutant]:
        """Return the mutants for which events come to something else."""
        events = _repeated(mixture)
        total = self.meter.charge(events)
        if total is None:
            return []
        return [m for m in self.unnoticed if _charge(self.changed[id(m)], events) != total]

    def _forget(self, noticed: Sequence[Mutant]) -> None:
        self.unnoticed = [mutant for mutant in self.unnoticed if mutant not in noticed]

    def _pool(self) -> Iterator[Json]:
        """Yield events that count, each with another value of the property that is added up."""
        written = self.aggregation.get("property", "")
        name = bare(written)
        values: list[Any] = []
        for condition in _conditions(written, values) if written else ((),):
            event = difference(every(self.counted, *condition), None).event
            if event is None:
                continue
            value = _value(name, event)
            if not any(value == other for other in values):
                values.append(value)
                yield event
        if name in OWN_FIELDS and (event := difference(self.counted, None).event):
            # `unique` looks for it in the metadata.
            other = {**event, "metadata": {**event["metadata"], name: "a"}}
            if self.meter.counts(Event.from_json(other)):
                yield other


def _value(name: str, event: Json) -> Any:
    read = Event.from_json(event)
    return read.seconds_rounded if name == "timestamp" else lookup(name, ABSENT)(read)


def _conditions(name: str, values: Sequence[Any]) -> Iterator[Sequence[Json]]:
    """Yield conditions that lead to events with other values than those that were found: `values` grows."""
    for number in _NUMBERS:
        yield (clause(name, "eq", number),)
    for _ in range(3):
        others = [clause(name, "ne", v) for v in values if isinstance(v, str | int)]
        yield others
        yield (*others, clause(name, "gt", 1))
        yield (*others, clause(name, "lt", 0))


_Mixture = Sequence[tuple[Json, int]]
"""Events, each with how often it happens."""


def _repeated(mixture: _Mixture) -> list[Event]:
    return [Event.from_json(event) for event, times in mixture for _ in range(times)]


def _whole(number: float | None) -> float | None:
    return int(number) if number is not None and number == int(number) else number


def _mixtures(pool: Sequence[Json]) -> Iterator[_Mixture]:
    """Yield events with how often each happens: first what tells most functions apart."""
    for one in pool:
        for other in pool:
            if one is not other:
                yield (one, 2), (other, 1)
    for one in pool:
        yield ((one, 2),)
        yield ((one, 1),)


def _charge(meter: Meter, events: Sequence[Event]) -> float | None:
    return meter.charge([event for event in events if meter.counts(event)])


def _times(event: Json, times: int) -> Json:
    return OneLine({**given_of(event), **({"times": times} if times > 1 else {})})


# Text


def text_of(tests: Sequence[Json]) -> str:
    """Return a new file of tests."""
    return _marked("\n".join(["version: 1", "tests:", *lines(tests, 2), ""]), "", len(tests))


def appended(source: bytes, file: str, tests: Sequence[Json]) -> bytes:
    """Return a file of tests with more tests at its end. Raises DiagnosticError if it cannot be edited so."""
    editor = Editor(source, file)
    editor.append(("tests",), tests)
    edited = editor.finish()
    return _marked(edited.decode(), file, len(tests)).encode()


def _marked(text: str, file: str, count: int) -> str:
    """Put the mark above the last `count` tests of a text. Tests in brackets have no line of their own."""
    root = parse(text.encode(), file).root
    tests = root.entries["tests"] if isinstance(root, tree.Map) else root
    for node in reversed(tests.children[-count:] if isinstance(tests, tree.List) else ()):
        start = text.rfind("\n", 0, node.start) + 1
        pad, dash, _ = text[start : node.start].partition("-")
        if dash and not pad.strip():
            end = "\r\n" if text[:start].endswith("\r\n") else "\n"
            text = f"{text[:start]}{pad}{MARK}{end}{text[start:]}"
    return text
