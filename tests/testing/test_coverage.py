"""Coverage: clauses and aggregations of which tests notice every change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from polar_iac.ci.annotations import coverage_annotations
from polar_iac.manifest.model import Manifest
from polar_iac.manifest.read import read
from polar_iac.report.coverage import coverage_json, coverage_text, percent_text
from polar_iac.testing.coverage import Coverage, cover
from polar_iac.testing.mutants import parts
from polar_iac.testing.read import load, read_tests
from polar_iac.testing.run import compiled, run
from tests.support.build import desired, meter, spec

ROOT = Path(__file__).parents[2]
NAME = {"property": "name", "operator": "eq", "value": "call"}


def clause(name: str, operator: str, value: Any) -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def declared(*clauses: Any, conjunction: str = "and", **aggregation: str) -> Manifest:
    filter_ = {"conjunction": conjunction, "clauses": list(clauses)}
    return desired({"m": meter(filter=filter_, aggregation=aggregation or {"func": "count"})})


def measured(manifest: Manifest, *tests: str) -> Coverage:
    """The coverage of tests, each written as `given` and what follows it."""
    text = "version: 1\ntests:\n" + "".join(
        f"  - {{name: t{number}, meter: m, given: {test}}}\n" for number, test in enumerate(tests)
    )
    found = load((text if tests else "version: 1\ntests: []\n").encode(), "t.yaml", manifest)
    return cover(manifest, manifest.meters, found.tests)


def unnoticed(coverage: Coverage, number: int) -> list[Any]:
    """The values or functions that may stand in place of a part; `removed` if it may be missing."""
    changes = [u.mutant.instead for u in coverage.parts[number].unnoticed]
    return ["removed" if c is None else c.get("func") or (c["operator"], c["value"]) for c in changes]


def instead(**fields: Any) -> list[Any]:
    """The changes of one clause, by operator and value."""
    (part, _) = parts(spec(filter={"conjunction": "and", "clauses": [clause(**fields)]}))
    return [m.instead and (m.instead["operator"], m.instead["value"]) for m in part.mutants]


def test_a_clause_is_removed_negated_nudged_and_given_another_type() -> None:
    assert instead(name="p", operator="gte", value=5) == [
        *(None, ("lt", 5), ("gte", 6), ("gte", 4), ("gte", "5")),
    ]
    assert instead(name="p", operator="like", value="ab") == [
        *(None, ("not_like", "ab"), ("like", "ab~"), ("like", "a")),
    ]
    assert instead(name="p", operator="eq", value=True) == [
        *(None, ("ne", True), ("eq", False), ("eq", "true")),
    ]
    assert ("ne", 7) in instead(name="p", operator="ne", value="7")
    assert ("gt", 2**31) not in instead(name="p", operator="gt", value=2**31 - 1)
    # What Polar stores and then fails on is no mutant.
    assert instead(name="p", operator="gt", value="true")[-1] == ("gt", "tru")
    assert instead(name="timestamp", operator="eq", value="true")[-1] == ("eq", "tru")


def test_an_aggregation_becomes_each_other_one() -> None:
    changes = list(parts(spec(aggregation={"func": "max", "property": "p"})))[-1].mutants
    assert [m.instead for m in changes] == [
        {"func": "count"},
        *({"func": func, "property": "p"} for func in ("sum", "min", "avg", "unique")),
    ]


def test_what_no_test_notices_is_listed() -> None:
    manifest = declared(NAME, clause("tokens", "gte", 5), func="sum", property="tokens")
    nothing = measured(manifest)
    assert (nothing.held, nothing.percent) == (0, 0.0)
    some = measured(manifest, "[{name: call, metadata: {tokens: 7}}], expect: {total: 7}")
    assert [part.held for part in some.parts] == [False, False, False]
    assert unnoticed(some, 0) == ["removed"]
    assert unnoticed(some, 1) == ["removed", ("gte", 6), ("gte", 4)]
    assert unnoticed(some, 2) == ["max", "min", "avg"]
    more = measured(
        manifest,
        "[{name: call, metadata: {tokens: 7}}, {name: call, metadata: {tokens: 5}}], expect: {total: 12}",
        "[{name: call, metadata: {tokens: 4}}, {name: x, metadata: {tokens: 7}}], expect: {total: 0}",
    )
    assert (more.held, more.percent) == (3, 100.0)


def test_a_test_that_fails_holds_nothing() -> None:
    manifest = declared(NAME)
    test = "[{name: call, times: 2}, {name: x}], expect: {total: %d}"
    assert measured(manifest, test % 2).percent == 100
    assert measured(manifest, test % 3).percent == 0


def test_changes_that_are_proven_to_change_nothing_do_not_count() -> None:
    redundant = declared(NAME, clause("name", "like", "cal"))
    test = "[{name: call, times: 2}, {name: cal}], expect: {total: 2}"
    coverage = measured(redundant, test)
    assert coverage.percent == 100
    # Where each event has a 5, the maximum is the minimum and the average.
    fives = declared(NAME, clause("n", "eq", 5), func="max", property="n")
    assert unnoticed(measured(fives), 2) == ["count", "sum", "unique"]
    # What a number must be anyway: the aggregation takes no other event.
    there = declared(NAME, clause("n", "like", ""), func="sum", property="n")
    assert unnoticed(measured(there), 1) == [("not_like", ""), ("like", "~")]


def test_what_nobody_knows_is_listed_apart_and_does_not_count() -> None:
    # Only 5 is left for `n`, but no clause says so: then the maximum is the minimum.
    bounds = clause("n", "gte", 5), clause("n", "lte", 5)
    manifest = declared(NAME, *bounds, func="max", property="n")
    coverage = measured(manifest)
    assert unnoticed(coverage, 3) == ["count", "sum", "unique"]
    assert [m.aggregation["func"] for m in coverage.parts[3].undecided] == ["min", "avg"]
    assert "undecided: m: max(n): nobody knows whether a test could notice it as min(n) and as avg(n)" in (
        click.unstyle(coverage_text(coverage))
    )
    held = measured(
        manifest,
        "[{name: call, metadata: {n: 5}, times: 2}, {name: x, metadata: {n: 5}},"
        " {name: call, metadata: {n: 4}}, {name: call, metadata: {n: 6}}], expect: {total: 5, events: 2}",
    )
    assert held.percent == 100


def test_system_events_show_what_no_event_of_a_user_can() -> None:
    manifest = declared(NAME, clause("usage.tokens", "gt", 5))
    text = coverage_text(measured(manifest))
    assert "source: system, metadata: {usage: {tokens: 6}}}, counted" not in text
    assert "source: system, metadata: {usage: {tokens: " in text
    held = measured(
        manifest,
        "[{name: call, source: system, metadata: {usage: {tokens: 6}}, counted: true},"
        " {name: x, source: system, metadata: {usage: {tokens: 6}}, counted: false},"
        " {name: call, source: system, metadata: {usage: {tokens: 5}}, counted: false}]",
    )
    assert held.parts[0].held
    assert held.parts[1].held


def test_the_tests_of_the_repository_hold_every_clause_of_its_manifest() -> None:
    manifest = read(ROOT / "meters.yaml")
    found = read_tests(ROOT / "meters.test.yaml", manifest)
    results = [run(t, (spec := manifest.specs[t.meter]), compiled(spec)) for t in found.tests]
    assert [
        (r.test.name, r.failures, r.disagreements) for r in results if r.failures or r.disagreements
    ] == []
    assert found.warnings == ()
    coverage = cover(manifest, manifest.meters, found.tests)
    assert [part.part.data for part in coverage.parts if not part.held or part.undecided] == []
    assert len(coverage.parts) > 20


def test_an_archived_meter_needs_no_test() -> None:
    assert measured(desired({"m": meter(archived=True)})).parts == ()
    assert measured(desired({"m": meter(archived=True)})).percent == 100


def test_the_text_names_the_line_the_changes_and_an_event_that_would_show_them() -> None:
    manifest = declared(NAME, func="sum", property="tokens")
    coverage = measured(manifest, "[{name: call, metadata: {tokens: 7}}], expect: {total: 7}")
    text = click.unstyle(coverage_text(coverage))
    lines = text.splitlines()
    assert lines[0].startswith("meters.yaml:")
    assert lines[0].endswith(': not held: m: name = "call": no test notices it removed')
    assert lines[1] == "  a test that would: {name: other, metadata: {tokens: 1}, counted: false}"
    assert lines[2].endswith(
        "sum(tokens): no test notices it as max(tokens), as min(tokens) and as avg(tokens)"
    )
    assert lines[-1] == "Tests hold 0 of 2 clauses and aggregations (0%)."
    annotation = coverage_annotations(coverage, 10)[0]
    assert (annotation.level, annotation.message) == (
        "warning",
        'm: name = "call": no test notices it removed',
    )
    document = coverage_json(coverage)
    assert (document["held"], document["total"], document["percent"]) == (0, 2, 0)
    assert document["parts"][0]["unnoticed"] == [None]
    assert document["parts"][0]["value"] == NAME
    assert document["parts"][1]["kind"] == "aggregation"


@pytest.mark.parametrize(
    ("percent", "text"), [(100.0, "100%"), (99.99, "99.9%"), (0.0, "0%"), (71.43, "71.4%")]
)
def test_a_share_is_rounded_down(percent: float, text: str) -> None:
    assert percent_text(percent) == text
