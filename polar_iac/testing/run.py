"""Run tests: evaluate a meter over the events of a test, and compare with what is expected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polar_iac.meter.meaning.evaluation import Meter, compile_meter
from polar_iac.meter.meaning.events import Event
from polar_iac.meter.meaning.explanation import ClauseReading, explain
from polar_iac.meter.spec import MeterSpec
from polar_iac.testing.model import (
    TOLERANCE,
    Disagreement,
    Explanation,
    Failure,
    Given,
    Json,
    MeterTest,
    Result,
)


def compiled(spec: MeterSpec) -> Meter:
    """Compile a meter of the manifest, to run tests of it."""
    return compile_meter(spec.wire("filter"), spec.wire("aggregation"))


def run(test: MeterTest, spec: MeterSpec, meter: Meter) -> Result:
    """Run a test of a meter, which is `spec`, compiled."""
    seen = _seen(test, meter)
    in_quantities = meter.counts_in_quantities([given.event for given in test.given])
    sql = tuple(in_quantities) if in_quantities is not None else (None,) * len(test.given)
    failures = tuple(_failures(test, seen))
    filter_ = spec.wire("filter")
    return Result(
        test,
        counted=seen.counted,
        counted_in_quantities=sql,
        units=seen.units,
        total=seen.total,
        failures=failures,
        explanations=tuple(_explanations(test, meter, filter_, seen, failures)) if failures else (),
        disagreements=tuple(_disagreements(test, meter, filter_, seen.counted, sql)),
    )


def passes(test: MeterTest, meter: Meter) -> bool:
    """Tell whether a meter is as a test expects."""
    return next(_failures(test, _seen(test, meter)), None) is None


@dataclass(frozen=True)
class _Seen:
    """The events of a test as billing sees them."""

    counted: tuple[bool, ...]
    matched: Mapping[str, Sequence[Event]]
    """The events that count, by customer. Each is there as many times as it happens."""
    units: Mapping[str, float | None]

    @property
    def total(self) -> float | None:
        known = [units for units in self.units.values() if units is not None]
        return math.fsum(known) if len(known) == len(self.units) else None


def _seen(test: MeterTest, meter: Meter) -> _Seen:
    counted = tuple(meter.counts(given.event) for given in test.given)
    matched: dict[str, list[Event]] = {given.customer: [] for given in test.given}
    for given, hit in zip(test.given, counted, strict=True):
        if hit:
            matched[given.customer] += [given.event] * given.times
    return _Seen(counted, matched, {name: meter.charge(events) for name, events in matched.items()})


def _failures(test: MeterTest, seen: _Seen) -> Iterator[Failure]:
    for customer, expected in test.units.items():
        actual = seen.units.get(customer, 0.0)
        if not _equal(expected.value, actual):
            yield Failure(f"units.{customer}", expected.value, actual, expected.span, customer)
    if test.total and not _equal(test.total.value, total := seen.total):
        yield Failure("total", test.total.value, total, test.total.span)
    if test.events:
        number = sum(given.times for given, hit in zip(test.given, seen.counted, strict=True) if hit)
        if number != test.events.value:
            yield Failure("events", test.events.value, number, test.events.span)
    for given, hit in zip(test.given, seen.counted, strict=True):
        if given.counted is not None and given.counted is not hit:
            yield Failure(f"{given.label}.counted", given.counted, hit, given.span)


def _equal(expected: float, actual: float | None) -> bool:
    return actual is not None and math.isclose(expected, actual, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _explanations(
    test: MeterTest, meter: Meter, filter_: Json, seen: _Seen, failures: Sequence[Failure]
) -> Iterator[Explanation]:
    """Explain the events that are not as expected. If only a number differs, explain all it comes from."""
    wrong = {failure.expectation for failure in failures}
    pairs = list(zip(test.given, seen.counted, strict=True))
    chosen = [pair for pair in pairs if f"{pair[0].label}.counted" in wrong]
    if not chosen:
        customers = {failure.customer for failure in failures}
        chosen = [pair for pair in pairs if None in customers or pair[0].customer in customers]
    for given, counted in chosen:
        reading = explain(filter_, given.data)
        by_aggregation = reading.matched and not counted
        clauses = () if by_aggregation else tuple(_deciding(filter_, reading.clauses))
        adds = _adds(given, meter, seen) if counted else 0.0
        yield Explanation(given, counted, adds, clauses, by_aggregation)


def _deciding(filter_: Json, readings: Sequence[ClauseReading]) -> Iterator[ClauseReading]:
    """Yield the clauses that decide whether a filter matches an event.

    Where one clause of an `or` matches, the others decide nothing.
    """
    by_place = {reading.place: reading for reading in readings}

    def of(part: Json, place: tuple[int, ...]) -> tuple[bool, list[ClauseReading]]:
        if "clauses" not in part:
            return by_place[place].matched, [by_place[place]]
        inner = [of(clause, (*place, number)) for number, clause in enumerate(part["clauses"])]
        join = all if part["conjunction"] == "and" or not inner else any
        matched = join(hit for hit, _ in inner)
        return matched, [clause for hit, clauses in inner if hit is matched for clause in clauses]

    yield from of(filter_, ())[1]


def _adds(given: Given, meter: Meter, seen: _Seen) -> float | None:
    """Return the units that an event adds: those of its customer, less those without it."""
    whole = seen.units[given.customer]
    rest = meter.charge([event for event in seen.matched[given.customer] if event is not given.event])
    return None if whole is None or rest is None else whole - rest


def _disagreements(
    test: MeterTest,
    meter: Meter,
    filter_: Json,
    counted: Sequence[bool],
    in_quantities: Sequence[bool | None],
) -> Iterator[Disagreement]:
    """Yield each way in which events are not seen alike, with the first event that shows it."""
    found: dict[tuple[bool, bool | None, bool], Disagreement] = {}
    for given, hit, sql in zip(test.given, counted, in_quantities, strict=True):
        charged = hit and meter.charged(given.event)
        if hit is sql and charged is hit:
            continue
        # A query that fails does so for all events.
        kind = (hit, sql, charged) if sql is not None else (False, None, False)
        if kind in found:
            found[kind] = replace(found[kind], more=found[kind].more + 1)
        else:
            found[kind] = Disagreement(given, hit, sql, charged, _differing(filter_, given))
    yield from found.values()


def _differing(filter_: Json, given: Given) -> tuple[ClauseReading, ...]:
    reading = explain(filter_, given.data)
    return tuple(clause for clause in reading.clauses if clause.matched is not clause.in_quantities)
