"""A search for an event for which a formula holds: found, proven not to exist, or left open.

The search tries the parts of an "or" one after the other, and keeps per property what is left of its domain.
An event that is found is evaluated before it is returned. That none exists is claimed only when every way
ended in a domain without cells. All else is open, as is a search that used up its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from typing import Literal as OneOf

from polar_iac.meter.meaning.building import build, completed, is_ingestible
from polar_iac.meter.meaning.domains import UNSURE, Domain, State
from polar_iac.meter.meaning.events import ABSENT, OWN_FIELDS
from polar_iac.meter.meaning.formula import Formula, Literal, Vocabulary
from polar_iac.meter.meaning.samples import objects

STEPS = 20_000
"""Most times that a search may narrow a domain. A limit in time would make plans depend on the machine."""
SIZE = 1_000_000
"""Most truths of an atom in a cell that are found out beforehand."""
DEPTH = 200
"""Most choices that may be open at once."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The result of a search."""

    status: OneOf["found", "none", "open"]
    event: Json | None = None
    """The event that was found, as the recordings write events."""


NONE, OPEN = Finding("none"), Finding("open")
States = dict[str, State]


@dataclass(frozen=True)
class Choice:
    """Parts of which at least one must hold, and the properties of those that are single atoms."""

    parts: tuple[Formula, ...]
    names: frozenset[str]

    @classmethod
    def of(cls, parts: tuple[Formula, ...]) -> Choice:
        return cls(parts, frozenset(part.name for part in parts if isinstance(part, Literal)))


class _OutOfStepsError(Exception):
    """The search has used up its steps."""


class Space:
    """The domains of all properties of a vocabulary, and how paths contain each other."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.engine = vocabulary.engine
        self.domains = {
            name: Domain(vocabulary.engine, name, atoms) for name, atoms in vocabulary.atoms.items()
        }
        self.parents = {name: _parent(name, self.domains) for name in self.domains}
        self.children: dict[str, list[str]] = {name: [] for name in self.domains}
        for name, parent in self.parents.items():
            if parent is not None:
                self.children[parent].append(name)
        self.is_exact = all(domain.is_exact for domain in self.domains.values())

    def start(self, *, ingestible: bool) -> States | None:
        """Return the states before anything is known; None if ingestion accepts no value of a property."""
        states = {name: domain.everything for name, domain in self.domains.items()}
        if ingestible:
            states = {name: State(domain.ingestible) for name, domain in self.domains.items()}
        return states if all(state.mask for state in states.values()) else None

    def narrow(self, states: States, literal: Literal) -> set[str] | None:
        """Let a literal hold, in place. Return the properties that changed; None if one is left empty."""
        left = self.domains[literal.name].narrow(states[literal.name], literal.atom, literal.holds)
        if left is None:
            return None
        states[literal.name] = left
        return self._spread(states, literal.name)

    def _spread(self, states: States, name: str) -> set[str] | None:
        """Let a property that is there make its parent an object, and one that is none empty its children."""
        waiting, changed = [name], {name}
        while waiting:
            name = waiting.pop()
            parent = self.parents[name]
            wanted = {}
            if parent is not None and not states[name].mask & self.domains[name].absent:
                wanted[parent] = self.domains[parent].objects
            if not states[name].mask & self.domains[name].objects:
                wanted |= {child: self.domains[child].absent for child in self.children[name]}
            for other, mask in wanted.items():
                state = states[other]
                if not state.mask & mask:
                    return None
                if state.mask & mask != state.mask:
                    states[other] = State(state.mask & mask, state.kept, state.broken)
                    waiting.append(other)
                    changed.add(other)
        return changed

    # Values

    def values(self, states: States) -> dict[str, Any] | Finding:
        """Return a value for each property that is left in its state; NONE or OPEN if one has none."""
        chosen: dict[str, Any] = {}
        for name in self.domains:
            if self.parents[name] is None:
                finding = self._choose(name, states, chosen)
                if finding is not None:
                    return finding
        return chosen

    def _choose(self, name: str, states: States, chosen: dict[str, Any]) -> Finding | None:
        """Choose values of a property and of those below it; return why not, if not."""
        domain, below = self.domains[name], self.children[name]
        is_open = False
        for value in islice(domain.values(states[name], objects=not below), 1000):
            if value is UNSURE:
                is_open = True
            elif all(states[child].mask & self.domains[child].absent for child in below):
                chosen[name] = value
                chosen |= dict.fromkeys(self._all_below(name), ABSENT)
                return None
        if not below or not domain.may_be_object(states[name]):
            return OPEN if is_open else NONE
        for child in below:
            if (finding := self._choose(child, states, chosen)) is not None:
                return OPEN if is_open else finding
        chosen[name] = self._object(name, states[name], chosen)
        return OPEN if chosen[name] is UNSURE else None

    def _all_below(self, name: str) -> Iterator[str]:
        for child in self.children[name]:
            yield child
            yield from self._all_below(child)

    def _object(self, name: str, state: State, chosen: Mapping[str, Any]) -> Any:
        """Return the object that the values below a property make, with the parts that its text must have."""
        domain = self.domains[name]
        inner = {n: chosen[n] for n in self._all_below(name)}
        made: Any = build(inner)["metadata"]
        for key in name.split("."):
            made = made.get(key, {}) if isinstance(made, dict) else {}
        cell = next(cell for cell in domain.cells if cell.kind == "object")
        parts = [text for kind, text in state.kept if kind == "part"]
        return next((v for v in objects(made, parts) if domain.accepts(cell, v, state)), UNSURE)


def _parent(name: str, names: Collection[str]) -> str | None:
    """Return the longest of the names whose path leads to this one."""
    keys = name.split(".")
    paths = (".".join(keys[:length]) for length in range(len(keys) - 1, 0, -1))
    return next((path for path in paths if path in names and path not in OWN_FIELDS), None)


class Search:
    """A search for an event in one of the two worlds: of what ingestion accepts, or of all events."""

    def __init__(self, space: Space, holds: Callable[[Json], bool], *, ingestible: bool) -> None:
        self.space, self.holds, self.ingestible = space, holds, ingestible
        self.steps = 0

    def run(self, formula: Formula) -> Finding:
        """Search for an event for which a formula holds."""
        states = self.space.start(ingestible=self.ingestible)
        if states is None:
            return NONE
        try:
            finding = self._solve([formula], states, [], 0)
        except _OutOfStepsError:
            return OPEN
        # A domain that is not exact may have values that no cell has.
        return OPEN if finding.status == "none" and not self.space.is_exact else finding

    def _step(self) -> None:
        self.steps += 1
        if self.steps > STEPS:
            raise _OutOfStepsError

    def _narrow(self, states: States, literal: Literal) -> set[str] | None:
        self._step()
        return self.space.narrow(states, literal)

    def _solve(self, waiting: list[Formula], states: States, choices: list[Choice], depth: int) -> Finding:
        """Search on from states to which the choices were reduced, with more that must hold."""
        if depth > DEPTH:
            raise _OutOfStepsError
        states = dict(states)
        while waiting:
            new, changed = list[Choice](), set[str]()
            while waiting:
                part = waiting.pop()
                if isinstance(part, Literal):
                    narrowed = self._narrow(states, part)
                    if narrowed is None:
                        return NONE
                    changed |= narrowed
                elif part.every:
                    waiting += part.parts
                else:
                    new.append(Choice.of(part.parts))
            touched = [choice for choice in choices if choice.names & changed]
            reduced = self._reduce([*touched, *new], states)
            if reduced is None:
                return NONE
            waiting, remaining = reduced
            choices = [*(choice for choice in choices if not choice.names & changed), *remaining]
        if not choices:
            return self._finish(states)
        best = min(choices, key=lambda choice: len(choice.parts))
        return self._branch(best, states, [choice for choice in choices if choice is not best], depth)

    def _reduce(self, choices: list[Choice], states: States) -> tuple[list[Formula], list[Choice]] | None:
        """Leave out what cannot hold and what holds anyway. Return what must hold, and the choices left."""
        must: list[Formula] = []
        remaining: list[Choice] = []
        for choice in choices:
            parts: list[Formula] = []
            for part in choice.parts:
                self._step()
                if not isinstance(part, Literal):
                    parts.append(part)
                    continue
                domain, state = self.space.domains[part.name], states[part.name]
                if domain.has_decided(state, part.atom, part.holds):
                    break
                if domain.narrow(state, part.atom, part.holds) is not None:
                    parts.append(part)
            else:
                if not parts:
                    return None
                if len(parts) == 1:
                    must.append(parts[0])
                else:
                    remaining.append(Choice.of(tuple(parts)))
        return must, remaining

    def _branch(self, choice: Choice, states: States, others: list[Choice], depth: int) -> Finding:
        result = NONE
        excluded: list[Formula] = []
        for part in choice.parts:
            finding = self._solve([*excluded, part], states, others, depth + 1)
            if finding.status == "found":
                return finding
            if finding.status == "open":
                result = OPEN
            if isinstance(part, Literal):
                # What holds for this part is done with: the next ones are tried where it does not.
                excluded.append(Literal(part.name, part.atom, not part.holds))
        return result

    def _finish(self, states: States) -> Finding:
        """Make an event of values that are left, and evaluate it."""
        values = self.space.values(states)
        if isinstance(values, Finding):
            return values
        event = build(values)
        if self.ingestible:
            event = completed(event)
            if not is_ingestible(event):
                return OPEN
        return Finding("found", event) if self.holds(event) else OPEN
