"""The values of one property, parted into finitely many cells that the atoms of a formula tell apart.

In a cell every atom has one truth, except where it makes a demand that some values of the cell keep and
others break. Demands that contradict each other leave the cell without values; whether others can be met at
once is tried out, and may stay open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from polar_iac.meter.meaning import samples
from polar_iac.meter.meaning.cells import (
    Cell,
    Demand,
    Demands,
    contradict,
    is_closed,
    is_ingestible_cell,
    is_open,
    is_short,
    is_storable,
    lacks,
    number_in,
)
from polar_iac.meter.meaning.comparing import LIKE, ORDER, Engine, part_of, printed, text_in_sql
from polar_iac.meter.meaning.events import ABSENT, OWN_FIELDS, stored
from polar_iac.meter.meaning.formula import Atom

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, which a timestamp can name."""
MAX_EXACT = 2**53
"""Below it, two numbers that differ are two doubles that differ."""
UNSURE = object()
"""The answer where no value was found, and none was proven not to exist."""


@dataclass(frozen=True)
class State:
    """Cells that are left, as bits, and the demands that a value of an open cell must keep or break."""

    mask: int
    kept: Demands = frozenset()
    broken: Demands = frozenset()


class Domain:
    """The cells of one property, for the atoms of one engine."""

    def __init__(self, engine: Engine, name: str, atoms: Sequence[Atom]) -> None:
        self.engine, self.name, self.atoms = engine, name, atoms
        constants = [atom.value for atom in atoms if atom.operation not in LIKE]
        self.texts = _texts(engine, name, constants)
        self.numbers = sorted({v + 0 for v in constants if not isinstance(v, str)})
        self.is_exact = all(abs(number) < MAX_EXACT for number in self.numbers)
        self.cells = tuple(self._cells())
        self.everything = State((1 << len(self.cells)) - 1)
        self.absent = self._mask_of(lambda cell: cell.kind == "absent")
        self.objects = self._mask_of(lambda cell: cell.kind == "object")
        self.ingestible = self._mask_of(lambda cell: is_ingestible_cell(name, cell))
        self._text_cells_mask = self._mask_of(lambda cell: cell.is_text)
        self._bool_cells_mask = self._mask_of(lambda cell: isinstance(cell.value, bool))
        self._number_cells_mask = self._mask_of(lambda cell: cell.is_number)
        self._points = dict[Any, int]()
        """The cells of equal values: 5, 5.0 and, for 1 and 0, the bool."""
        for index, cell in enumerate(self.cells):
            if cell.kind == "point":
                self._points[cell.value] = self._points.get(cell.value, 0) | 1 << index
        self._demands = [self._demand(atom) for atom in atoms]
        self._open, self._true, self._false = [0] * len(atoms), [0] * len(atoms), [0] * len(atoms)
        for place in range(len(atoms)):
            self._fill_masks(place)

    def _mask_of(self, test: Callable[[Cell], bool]) -> int:
        return sum(1 << i for i, cell in enumerate(self.cells) if test(cell))

    # The cells

    def _cells(self) -> Iterator[Cell]:
        """Yield the cells, those first that make the plainest examples."""
        if self.name == "source":
            yield from (Cell("point", "user"), Cell("point", "system"))
        elif self.name == "name":
            yield from self._text_cells()
        elif self.name == "timestamp":
            yield from self._second_cells()
        else:
            yield Cell("absent")
            number_cells = list(self._number_cells())
            bool_cells = [Cell("point", True), Cell("point", False)]
            sorts = [list(self._text_cells()), number_cells, bool_cells]
            # An example of a property that is compared with a bool is a bool.
            if any(isinstance(atom.value, bool) for atom in self.atoms):
                sorts.reverse()
            elif self.numbers and not any(isinstance(atom.value, str) for atom in self.atoms):
                sorts = [number_cells, *(sort for sort in sorts if sort is not number_cells)]
            yield from (cell for sort in sorts for cell in sort)
            yield from (Cell("list"), Cell("object"))

    def _text_cells(self) -> Iterator[Cell]:
        yield from (Cell("point", text) for text in self.texts)
        bounds = set[str]()
        if self.engine == "billing":
            ordering = (atom.value for atom in self.atoms if atom.operation in ORDER)
            bounds = {value for value in ordering if isinstance(value, str)}
        for low, high in pairwise([None, *sorted(bounds), None]):
            if high != "":  # no text comes before ""
                yield Cell("text", low=low, high=high)

    def _number_cells(self) -> Iterator[Cell]:
        # 5 and 5.0 are one number and two texts. An example that adds 0 shows little.
        for number in filter(None, self.numbers):
            yield Cell("point", int(number) if number == int(number) else number)
        for low, high in pairwise([None, *self.numbers, None]):
            yield Cell("number", low=low, high=high)
        yield from (Cell("point", 0) for number in self.numbers if number == 0)
        yield from (Cell("point", float(number)) for number in self.numbers if number == int(number))

    def _second_cells(self) -> Iterator[Cell]:
        inside = [number for number in self.numbers if FIRST_SECOND <= number <= LAST_SECOND]
        yield from (Cell("point", int(number)) for number in inside if number == int(number))
        for low, high in pairwise([FIRST_SECOND - 1, *inside, LAST_SECOND + 1]):
            if -(-high // 1) - low // 1 > 1:
                yield Cell("seconds", low=low, high=high)

    # The truth of atoms

    def _demand(self, atom: Atom) -> Demand | None:
        """Return the demand that an atom makes of values in open cells."""
        if atom.operation in LIKE:
            part = part_of(self.engine, atom.value)
            return ("part", part) if part else None
        if self.engine == "quantities" and atom.operation in ORDER and self.name != "timestamp":
            return "after", text_in_sql(atom.value)
        return None

    def _fill_masks(self, place: int) -> None:
        """Note in which cells an atom is open, holds for some value, and fails for some value."""
        atom, demand = self.atoms[place], self._demands[place]
        if atom.operation in ("eq", "ne"):
            self._true[place] = self._equal_mask(atom)
            self._false[place] = self.everything.mask & ~self._true[place]
            return
        for index, cell in enumerate(self.cells):
            bit = 1 << index
            if demand is not None and is_open(cell, demand):
                self._open[place] |= bit
                # Some values keep the demand and some break it, unless none can contain the part.
                never_kept = demand[0] == "part" and lacks(cell, demand[1])
                self._true[place] |= 0 if never_kept and _keeps(atom) else bit
                self._false[place] |= 0 if never_kept and not _keeps(atom) else bit
            elif self._truth(cell, atom):
                self._true[place] |= bit
            else:
                self._false[place] |= bit

    def _equal_mask(self, atom: Atom) -> int:
        """Return the cells for which `eq` or `ne` holds, without asking each: there may be a thousand."""
        if self.engine == "billing":
            equal = self._points.get(atom.value, 0)
            return equal if atom.operation == "eq" else self.everything.mask & ~self.absent & ~equal
        text = text_in_sql(atom.value)
        # SQL compares a text with the value's text, a number with a number or a bool, a bool with a bool.
        compared = [(self._text_cells_mask, self._points.get(text, 0))]
        if not isinstance(atom.value, str):
            compared.append((self._number_cells_mask, self._points.get(atom.value, 0)))
        if isinstance(atom.value, bool):
            compared.append((self._bool_cells_mask, self._points.get(atom.value, 0)))
        if atom.operation == "eq":
            return sum(mask & equal for mask, equal in compared)
        return sum(mask & ~equal for mask, equal in compared)

    def _truth(self, cell: Cell, atom: Atom) -> bool:
        """Return the truth of an atom for all values of a cell."""
        match cell.kind:
            case "absent":
                return False
            case "point":
                return bool(atom.test(cell.value))
            case "text":
                return self._truth_of_text(cell, atom)
            case "list":
                return bool(atom.test([]))
            case "object":
                return bool(atom.test({}))
            case _:
                return bool(atom.test(number_in(cell)))

    def _truth_of_text(self, cell: Cell, atom: Atom) -> bool:
        if atom.operation in LIKE:
            return atom.operation == "like"  # of the part ""
        if not isinstance(atom.value, str):
            return False
        above = cell.low is not None and atom.value <= cell.low
        return above == (atom.operation in ("gt", "gte"))

    # Narrowing

    def narrow(self, state: State, place: int, holds: bool) -> State | None:
        """Return what is left of a state when an atom holds, or does not; None if nothing is."""
        mask = state.mask & (self._true if holds else self._false)[place]
        kept, broken = state.kept, state.broken
        demand = self._demands[place]
        if demand is not None and mask & self._open[place]:
            if _keeps(self.atoms[place]) == holds:
                kept |= {demand}
            else:
                broken |= {demand}
            if contradict(demand, kept, broken):
                mask &= ~self._open[place]
        return State(mask, kept, broken) if mask else None

    def has_decided(self, state: State, place: int, holds: bool) -> bool:
        """Tell whether an atom holds, or does not, for every value that is left."""
        other = (self._false if holds else self._true)[place]
        if not state.mask & other:
            return True
        demand = self._demands[place]
        wanted = state.kept if _keeps(self.atoms[place]) == holds else state.broken
        return demand in wanted and not state.mask & other & ~self._open[place]

    # Values

    def values(self, state: State, *, objects: bool = True) -> Iterator[Any]:
        """Yield a value for each cell that is left, or UNSURE where none was found and one may exist."""
        for index, cell in enumerate(self.cells):
            if state.mask >> index & 1 and (objects or cell.kind != "object"):
                yield from self._value(cell, state)

    def may_be_object(self, state: State) -> bool:
        """Tell whether an object is among the values that are left, as far as its text is known."""
        return bool(state.mask & self.objects) and not is_closed(Cell("object"), state.broken)

    def _value(self, cell: Cell, state: State) -> Iterator[Any]:
        if cell.kind == "absent":
            yield ABSENT
        elif cell.kind == "point":
            yield cell.value if self._keeps_order(cell.value, state) else UNSURE
        elif not is_closed(cell, state.broken):
            found = (
                v for v in map(stored, self._candidates(cell, state.kept)) if self.accepts(cell, v, state)
            )
            value = next(found, UNSURE)
            if value is not UNSURE or not is_short(cell):  # all values of a short cell were tried
                yield value

    def _candidates(self, cell: Cell, kept: Demands) -> Iterator[Any]:
        parts = [text for kind, text in kept if kind == "part"]
        match cell.kind:
            case "text":
                after = max((text for kind, text in kept if kind == "after"), default=cell.low)
                yield from samples.texts(after, cell.high, parts)
            case "number":
                yield from samples.numbers(cell.low, cell.high, parts)
            case "seconds" if is_short(cell):
                yield from range(int(cell.low // 1) + 1, int(-(-cell.high // 1)))
            case "seconds":
                yield from samples.seconds(cell.low, cell.high, parts)
            case "list":
                yield from samples.lists(parts)
            case _:
                yield from samples.objects({}, parts)

    def accepts(self, cell: Cell, value: Any, state: State) -> bool:
        """Tell whether a value lies in an open cell, keeps what is to be kept, and breaks the rest."""
        if cell.low is not None and not cell.low < value:
            return False
        if cell.high is not None and not value < cell.high:
            return False
        if cell.kind == "text" and (value in self.texts or not is_storable(value)):
            return False
        if cell.kind == "number" and self.name.startswith("_llm.") and not isinstance(value, int):
            return False
        text = printed(self.engine, value)
        keeps = all(part in text for kind, part in state.kept if kind == "part")
        breaks = not any(part in text for kind, part in state.broken if kind == "part")
        return keeps and breaks and self._keeps_order(value, state)

    def _keeps_order(self, value: Any, state: State) -> bool:
        """Tell whether a text comes after and before others as it must, by code point."""
        if not isinstance(value, str):
            return True
        after = all(value >= text for kind, text in state.kept if kind == "after")
        return after and not any(value > text for kind, text in state.broken if kind == "after")


def _texts(engine: Engine, name: str, constants: Sequence[Any]) -> tuple[str, ...]:
    """Return the texts that are compared with, in the order of the formula."""
    if engine == "billing" or name in OWN_FIELDS:
        texts = [value for value in constants if isinstance(value, str)]
    else:
        texts = [text_in_sql(value) for value in constants]
    usual = ["usd"] if name == "_cost.currency" else []
    return tuple(dict.fromkeys(texts + usual))


def _keeps(atom: Atom) -> bool:
    """Tell whether an atom that holds keeps its demand."""
    return atom.operation in ("like", "gt", "gte")
