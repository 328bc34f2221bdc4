"""Results of tests as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from click import style

from polar_iac.errors import Diagnostic, SourceSpan
from polar_iac.manifest.model import Manifest
from polar_iac.meter.meaning.events import ABSENT, bare, lookup
from polar_iac.meter.meaning.explanation import ClauseReading, described
from polar_iac.plan.model import MeterTests
from polar_iac.report.filters import aggregation, clause
from polar_iac.report.layout import in_columns, warning
from polar_iac.report.wording import WIDTH, agree, outcome_line, quantity
from polar_iac.sanitize import printable
from polar_iac.testing.model import Disagreement, Explanation, Failure, Result

FORMAT_VERSION = 1
_EVENTS = 10
"""Most events of a failed test that are explained."""
_CLAUSES = 12
"""Most clauses that explain one event."""


def results_text(results: Sequence[Result], manifest: Manifest, width: int = WIDTH) -> str:
    """Return what failed and why, what billing and `/quantities` do not see alike, and a summary."""
    lines: list[str] = []
    for result in results:
        if not result.passed:
            lines += _failed(result, manifest, width)
        for disagreement in result.disagreements:
            lines += _disagreement(result, disagreement, manifest, width)
    return "".join(f"{line}\n" for line in [*lines, f"{summary(results)}."])


def summary(results: Sequence[Result]) -> str:
    """Return how many tests passed, or failed: `14 tests passed`, `1 of 14 tests failed`."""
    return outcome_line(outcome(results))


def outcome(results: Sequence[Result]) -> MeterTests:
    """Return how many tests passed and failed."""
    failed = sum(not result.passed for result in results)
    return MeterTests(len(results) - failed, failed)


def warnings_text(warnings: Sequence[Diagnostic]) -> str:
    """Return `FILE:LINE:COL: warning: message` for each."""
    return "".join(
        f"{_place(found.span)}: {warning('warning')}: {printable(found.message)}\n" for found in warnings
    )


def failure_text(failure: Failure) -> str:
    """Return an expectation and what came of it. Example: `alice: expected 300 units, got 310`."""
    expected, actual = failure.expected, failure.actual
    if isinstance(expected, bool):
        label = failure.expectation.removesuffix(".counted")
        return f"{printable(label)} {_unexpected(not expected)}"
    got = "a failure of the query, as on the real server" if actual is None else number_text(actual)
    if failure.customer is not None:
        units = agree(int(expected) if expected == 1 else 2, "unit", "units")
        return f"{printable(failure.customer)}: expected {number_text(expected)} {units}, got {got}"
    if failure.expectation == "events":
        return f"expected {number_text(expected)} events to count, got {got}"
    return f"total: expected {number_text(expected)}, got {got}"


def number_text(number: float) -> str:
    """Return a quantity without a needless fraction. Examples: `300`, `0.25`."""
    return str(_number(number))


def _number(number: float) -> float:
    """Return an int for a whole number that a float holds exactly."""
    return int(number) if abs(number) < 2**53 and number == int(number) else number


def _place(span: SourceSpan) -> str:
    return f"{printable(span.file)}:{span.line}:{span.column}"


def _failed(result: Result, manifest: Manifest, width: int) -> Iterator[str]:
    test = result.test
    head = style("failed", fg="red", bold=True)
    yield f"{_place(test.span)}: {head}: {printable(test.meter)}: {printable(test.name)}"
    for failure in result.failures:
        if not isinstance(failure.expected, bool):
            unknown = failure.customer is not None and failure.customer not in result.units
            yield f"  {failure_text(failure)}{', and no event is of this customer' if unknown else ''}"
    for explanation in result.explanations[:_EVENTS]:
        yield from _explained(explanation, test.meter, manifest, width)
    if (more := len(result.explanations) - _EVENTS) > 0:
        yield f"  … {quantity(more, 'more event')}"


def _unexpected(counted: bool) -> str:
    return "counted, expected not to" if counted else "not counted, expected to"


def _explained(explanation: Explanation, key: str, manifest: Manifest, width: int) -> Iterator[str]:
    given, counted = explanation.given, explanation.counted
    as_expected = given.counted in (None, counted)
    text = ("counted" if counted else "not counted") if as_expected else _unexpected(counted)
    facts = [quantity(given.times, "time")] if given.times > 1 else []
    if counted:
        adds = explanation.adds
        facts.append("the query fails" if adds is None else f"{'+' * (adds >= 0)}{number_text(adds)}")
    yield f"  {printable(given.label)} {text}" + (f" ({', '.join(facts)})" if facts else "")
    if explanation.by_aggregation:
        yield _by_aggregation(explanation, key, manifest, width)
    elif not (counted and as_expected):
        yield from _clauses(explanation.clauses, key, manifest, width)


def _clauses(clauses: Sequence[ClauseReading], key: str, manifest: Manifest, width: int) -> Iterator[str]:
    for reading in clauses[:_CLAUSES]:
        yield _clause(reading, reading.text, key, manifest, width)
    if len(clauses) > _CLAUSES:
        yield f"    … {quantity(len(clauses) - _CLAUSES, 'more clause')}"


def _clause(reading: ClauseReading, text: str, key: str, manifest: Manifest, width: int) -> str:
    data = {"property": bare(reading.property), "operator": reading.operator, "value": reading.value}
    path = ("filter", *(step for index in reading.place for step in ("clauses", index)))
    return _decided(clause(data), text, manifest.span(key, path), width)


def _decided(what: str, why: str, span: SourceSpan, width: int) -> str:
    return in_columns(f"    {what}   {printable(why)}", [f"{printable(span.file)}:{span.line}"], width)


def _by_aggregation(explanation: Explanation, key: str, manifest: Manifest, width: int) -> str:
    data = manifest.meters[key].spec.wire("aggregation")
    name = bare(data["property"])
    value = lookup(name, ABSENT)(explanation.given.event)
    has = f"the event has no `{name}`" if value is ABSENT else f"`{name}` is {described(value)}"
    why = f"{has}, and {data['func']} takes numbers alone"
    return _decided(aggregation(data), why, manifest.span(key, ("aggregation",)), width)


def _disagreement(
    result: Result, disagreement: Disagreement, manifest: Manifest, width: int
) -> Iterator[str]:
    test, given = result.test, disagreement.given
    label = printable(given.label)
    clauses: Sequence[ClauseReading] = ()
    if disagreement.counted_in_quantities is None:
        text = "`/quantities` fails for these events, and with it balances and the dashboard"
    elif disagreement.counted is not disagreement.counted_in_quantities:
        clauses = disagreement.clauses
        text = f"billing counts {label}, `/quantities` and the dashboard do not"
        if disagreement.counted_in_quantities:
            text = f"`/quantities` and the dashboard count {label}, billing does not"
    else:
        why = "it is not of a user" if given.event.source != "user" else "a text has no quantity"
        text = f"{label} counts, and no invoice adds it up: {why}"
    more = f" (and {quantity(disagreement.more, 'more event')} like it)" if disagreement.more else ""
    where = _place(given.span)
    yield f"{where}: {warning('note')}: {printable(test.meter)}: {printable(test.name)}: {text}{more}"
    for reading in clauses:
        yield _clause(reading, "the two read this differently", test.meter, manifest, width)


# JSON


def results_json(results: Sequence[Result], coverage: Mapping[str, Any] | None = None) -> str:
    """Return the results as JSON: see docs/formats.md. Pure ASCII, so no name affects the terminal."""
    failed = sum(not result.passed for result in results)
    document = {
        "format_version": FORMAT_VERSION,
        "passed": len(results) - failed,
        "failed": failed,
        "tests": [_result(result) for result in results],
        "coverage": coverage,
    }
    return json.dumps(document, indent=2) + "\n"


def _result(result: Result) -> Mapping[str, Any]:
    pairs = zip(result.counted, result.counted_in_quantities, strict=True)
    return {
        "meter": result.test.meter,
        "name": result.test.name,
        "passed": result.passed,
        "source": result.test.span.json,
        "total": _json_number(result.total),
        "units": {customer: _json_number(units) for customer, units in result.units.items()},
        "events": [{"counted": counted, "counted_in_quantities": sql} for counted, sql in pairs],
        "failures": [
            {
                "expectation": failure.expectation,
                "expected": _json_number(failure.expected),
                "actual": _json_number(failure.actual),
                "source": failure.span.json,
            }
            for failure in result.failures
        ],
    }


def _json_number(value: float | bool | None) -> float | bool | None:
    return value if value is None or isinstance(value, bool) else _number(value)
