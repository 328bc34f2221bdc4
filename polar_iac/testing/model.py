"""Tests as values: the events that are given, what is expected, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.meter.meaning.events import Event
from polar_iac.meter.meaning.explanation import ClauseReading

ANONYMOUS = "anonymous"
"""The customer of an event that names none."""
TOLERANCE = 1e-9
"""Relative and absolute difference up to which two quantities are equal."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """An event of a test, which happens `times` times."""

    label: str
    """As reports name it. Example: `given[1]`."""
    event: Event
    data: Json
    """The event as the recordings write events."""
    customer: str
    times: int
    counted: bool | None
    """True if the meter is expected to count it, False if not, None if nothing is expected."""
    where: Callable[[], SourceSpan]
    """Finds the position, which is asked for only where something is wrong."""

    @property
    def span(self) -> SourceSpan:
        return self.where()


@dataclass(frozen=True, slots=True)
class Expected:
    """A number that is expected, and where."""

    value: float
    span: SourceSpan


@dataclass(frozen=True, slots=True)
class MeterTest:
    """A test of one meter."""

    name: str
    meter: str
    """The key of the meter."""
    given: tuple[Given, ...]
    units: Mapping[str, Expected]
    """Per customer, of one period, before credits and caps."""
    total: Expected | None
    """The sum of the units over the customers, whatever the aggregation."""
    events: Expected | None
    """The number of events that the meter counts."""
    span: SourceSpan


@dataclass(frozen=True)
class Reading:
    """The tests of one file, and what is doubtful about them."""

    tests: tuple[MeterTest, ...]
    warnings: tuple[Diagnostic, ...] = ()
    has_defaults: bool = False
    """True if the file says something of every event."""


@dataclass(frozen=True)
class Failure:
    """An expectation that was not met. `actual` is None where the real server fails."""

    expectation: str
    """Examples: `total`, `units.alice`, `given[1].counted`."""
    expected: float | bool
    actual: float | bool | None
    span: SourceSpan
    customer: str | None = None


@dataclass(frozen=True)
class Explanation:
    """The reason why an event of a failed test counts, or does not."""

    given: Given
    counted: bool
    adds: float | None
    """The units that the event adds for its customer, all its times together. None where the server fails."""
    clauses: tuple[ClauseReading, ...]
    """The clauses that decide it."""
    by_aggregation: bool
    """True if the filter matches the event, and the aggregation does not take it."""


@dataclass(frozen=True)
class Disagreement:
    """An event that billing and `/quantities` do not see alike, or that no invoice takes.

    `more` other events of the test differ in the same way.
    """

    given: Given
    counted: bool
    counted_in_quantities: bool | None
    """None if the query fails."""
    charged: bool
    clauses: tuple[ClauseReading, ...]
    """The clauses that the two read differently."""
    more: int = 0


@dataclass(frozen=True)
class Result:
    """The result of a test."""

    test: MeterTest
    counted: tuple[bool, ...]
    """Per event: whether billing matches it."""
    counted_in_quantities: tuple[bool | None, ...]
    """Per event: whether `/quantities` counts it. None if the query fails."""
    units: Mapping[str, float | None]
    """Per customer. None where the real server fails."""
    total: float | None
    failures: tuple[Failure, ...]
    explanations: tuple[Explanation, ...]
    disagreements: tuple[Disagreement, ...]

    @property
    def passed(self) -> bool:
        return not self.failures
