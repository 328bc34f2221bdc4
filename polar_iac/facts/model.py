"""Facts as values: what an organization counted, which events exist, and what bills by a meter.

Nothing here names a customer: an event holds only an anonymous number for its customer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["usage", "names", "events", "products", "benefits"]
Lack = Literal["scope", "limited", "budget", "timeout", "failed"]
"""Reasons that facts are missing: the token lacks the scope (or there is no token for it), Polar answered
429, the plan's requests or its time were used up, or the request failed."""


@dataclass(frozen=True)
class Day:
    """Quantity of a meter on one UTC day. `date` is as in 2026-11-24."""

    date: str
    quantity: float


@dataclass(frozen=True)
class Usage:
    """Quantities of a meter, by SQL: since 2023, and by day, oldest first.

    `life` is None where only the days were read. `as_of` is RFC 3339.
    """

    life: float | None
    days: tuple[Day, ...]
    as_of: str


@dataclass(frozen=True)
class EventName:
    """A name of events in the organization. Times are RFC 3339."""

    name: str
    source: Literal["user", "system"]
    occurrences: int
    first_seen: str
    last_seen: str


@dataclass(frozen=True)
class Price:
    """A live metered price of a product. `unit_amount` is the price of one unit in cents, as decimal text."""

    id: str
    meter_id: str
    product_id: str
    product: str
    product_archived: bool
    unit_amount: str
    currency: str = "usd"


@dataclass(frozen=True)
class Credit:
    """A benefit that credits units of a meter."""

    id: str
    meter_id: str
    description: str


@dataclass(frozen=True)
class Window:
    """Consecutive events of one name that one request read, oldest first.

    `start` and `end` are the times of the first and the last, as RFC 3339.
    """

    start: str
    end: str
    events: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class EventsRead:
    """Events of one name that were read, out of `total` between `start` and `end`, both exclusive.

    An event is a mapping with `name`, `source`, `timestamp`, `metadata` and `customer_id` (an anonymous
    number as text, or None), as `meter.meaning` takes it. All were read when `read == total`.
    """

    name: str
    start: str
    end: str
    total: int
    windows: tuple[Window, ...]
    as_of: str

    @property
    def read(self) -> int:
        return sum(len(window.events) for window in self.windows)


@dataclass(frozen=True)
class Gap:
    """Facts that are missing, and why. `keys` are the meters concerned; empty means all of them."""

    source: Source
    lack: Lack
    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All facts of a plan or a check. A source that was not read is None, or lacks the meter or name.

    `usage` is by meter id, `events` by name. `as_of` is when names, prices and credits were read, RFC 3339.
    """

    usage: Mapping[str, Usage] = field(default_factory=dict)
    names: Sequence[EventName] | None = None
    events: Mapping[str, EventsRead] = field(default_factory=dict)
    prices: Sequence[Price] | None = None
    credits: Sequence[Credit] | None = None
    gaps: Sequence[Gap] = ()
    requests: int = 0
    as_of: str = ""
