"""A seed as a value. What Polar itself checks of an entry is checked when it is sown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from polar_iac.meter.spec import MeterSpec
from polar_iac.seeding.moments import Moment
from polar_iac.yaml import tree

ANYBODY = "anybody"
"""The customer of an event that names none."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A customer, a benefit, a product or a credit: its content, and its position."""

    node: tree.Node
    said: Json

    def items(self, name: str) -> Sequence[tree.Node]:
        """Return the items of a list, as nodes."""
        node = self.node.entries.get(name) if isinstance(self.node, tree.Map) else None
        return node.children if isinstance(node, tree.List) else ()

    def place(self, name: str) -> tree.Node:
        """Return the node to report for a member: its key, or the entry if it is not there."""
        if isinstance(self.node, tree.Map) and name in self.node.entries:
            return self.node.place(name)
        return self.node


@dataclass(frozen=True)
class SeedMeter:
    """A meter, under the name that other entries of the file use."""

    key: str
    node: tree.Node
    spec: MeterSpec


@dataclass(frozen=True)
class EventSeries:
    """Events of one name, for each of the customers."""

    node: tree.Node
    name: str
    customers: tuple[str, ...]
    metadata: Mapping[str, tuple[Any, ...]]
    """The values of each property. Consecutive events cycle through them."""
    start: Moment
    end: Moment | None
    """None if everything happens at the start."""
    every: timedelta | None
    """None if the events are spread evenly from start to end."""
    times: int
    """Number of events of each customer: at each moment, or in all when they are spread."""


@dataclass(frozen=True)
class Seed:
    """Content of a seed file."""

    document: tree.Document
    digest: str
    """The SHA-256 of the file."""
    meters: tuple[SeedMeter, ...] = ()
    customers: tuple[Entry, ...] = ()
    benefits: tuple[Entry, ...] = ()
    products: tuple[Entry, ...] = ()
    events: tuple[EventSeries, ...] = ()
    credits: tuple[Entry, ...] = ()
