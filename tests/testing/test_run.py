"""Tests of meters, run: what is expected, what came of it, and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import pytest

from polar_iac.ci.annotations import result_annotations
from polar_iac.errors import SourceSpan
from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import Manifest
from polar_iac.meter.filter import Aggregation, Filter
from polar_iac.meter.meaning.events import Event
from polar_iac.meter.spec import MeterSpec
from polar_iac.report.coverage import coverage_text
from polar_iac.report.testing import results_json, results_text
from polar_iac.testing.coverage import cover
from polar_iac.testing.generate import generate, text_of
from polar_iac.testing.model import Given, MeterTest, Result
from polar_iac.testing.read import load
from polar_iac.testing.run import compiled, run
from tests.support.build import manifest_text, meter
from tests.support.golden import golden_block

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "meter" / "semantics" / "sample.jsonl"
CASES = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
NOWHERE = SourceSpan("", 1, 1, 2)


def clause(name: str, operator: str, value: Any) -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def of(conjunction: str, *clauses: Any) -> dict[str, Any]:
    return {"conjunction": conjunction, "clauses": list(clauses)}


def declared(filter_: Any, aggregation: Any) -> Manifest:
    text = manifest_text({"m": meter(filter=filter_, aggregation=aggregation)})
    return manifest.load(text.encode(), "meters.yaml")


def results(manifest_: Manifest, text: str) -> list[Result]:
    found = load(text.encode(), "meters.test.yaml", manifest_)
    specs = {key: meter.spec for key, meter in manifest_.meters.items()}
    return [run(test, specs[test.meter], compiled(specs[test.meter])) for test in found.tests]


def result(manifest_: Manifest, given: str, expect: str) -> Result:
    (only,) = results(
        manifest_,
        f"version: 1\ntests:\n  - name: t\n    meter: m\n    given: {given}\n    expect: {expect}\n",
    )
    return only


def shown(results: list[Result], manifest_: Manifest) -> str:
    return click.unstyle(results_text(results, manifest_, 100))


TOKENS = declared(of("and", clause("name", "eq", "call")), {"func": "sum", "property": "tokens"})


@pytest.mark.unmeasured  # the tests below run the same lines
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded_cases_are_counted_and_charged_as_polar_did(case: dict[str, Any]) -> None:
    spec = MeterSpec("M", Filter.from_json(case["filter"]), Aggregation.from_json(case["aggregation"]))
    given = tuple(
        Given(f"given[{n}]", Event.from_json(event), event, "c", 1, None, lambda: NOWHERE)
        for n, event in enumerate(case["events"])
    )
    ours = run(MeterTest("t", "m", given, {}, None, None, NOWHERE), spec, compiled(spec))
    assert list(ours.counted) == case["billing"]
    charged = case["charged_quantity"]
    if charged is None:
        assert ours.total is None
    else:
        assert ours.total is not None
        assert math.isclose(ours.total, charged, rel_tol=1e-9, abs_tol=1e-9)
    if not case.get("collation"):
        sql = case["sql_matched"] or [None] * len(given)
        assert list(ours.counted_in_quantities) == sql


def test_what_is_expected_is_compared_per_customer_in_total_and_by_event() -> None:
    given = (
        "[{name: call, customer: a, metadata: {tokens: 0.1}, times: 3}, {name: call, metadata: {tokens: 2}},"
        " {name: other, customer: a, counted: false}]"
    )
    assert result(TOKENS, given, "{units: {a: 0.3, anonymous: 2, c: 0}, total: 2.3, events: 4}").passed
    wrong = result(TOKENS, given.replace("false", "true"), "{units: {a: 0.4, c: 1}, total: 2, events: 3}")
    assert [(f.expectation, f.expected, f.actual) for f in wrong.failures if f.expectation != "total"] == [
        ("units.a", 0.4, pytest.approx(0.3)),
        ("units.c", 1, 0),
        ("events", 3, 4),
        ("given[2].counted", True, False),
    ]
    assert not result(TOKENS, given, "{total: 2.300001}").passed
    assert "\n  c: expected 1 unit, got 0, and no event is of this customer\n" in shown([wrong], TOKENS)


def test_the_total_sums_over_customers_for_every_aggregation() -> None:
    given = (
        "[{name: call, customer: a, metadata: {tokens: 7}}, {name: call, customer: b, metadata: {tokens: 7}}]"
    )
    for func in ("max", "min", "avg", "sum"):
        meters = declared(of("and"), {"func": func, "property": "tokens"})
        assert result(meters, given, "{total: 14}").passed
    meters = declared(of("and"), {"func": "unique", "property": "tokens"})
    assert result(meters, given, "{units: {a: 1, b: 1}, total: 2}").passed


DOCUMENT = ROOT / "docs" / "testing.md"
DOCUMENTED = manifest.load(
    b"""\
version: 1
project: acme
meters:
  llm-tokens:
    name: LLM tokens
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: llm.completion}
        - {property: cached, operator: ne, value: true}
    aggregation: {func: sum, property: tokens}
""",
    "meters.yaml",
)


def test_the_outputs_in_the_document_are_real() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    first = text.partition("  - name: a recorded day")[0]
    golden_block(DOCUMENT, "failure", shown(results(DOCUMENTED, first), DOCUMENTED))
    sent = first.replace("tokens: 150", "tokens: 150, cached: false").replace(
        "tokens: 5}", "tokens: 5, cached: false}"
    )
    assert [found.passed for found in results(DOCUMENTED, sent)] == [True]
    tests = load(sent.encode(), "meters.test.yaml", DOCUMENTED).tests
    coverage = cover(DOCUMENTED, DOCUMENTED.meters, tests)
    golden_block(DOCUMENT, "coverage", click.unstyle(coverage_text(coverage)))
    generated = generate("llm-tokens", DOCUMENTED.meters["llm-tokens"].spec)
    golden_block(DOCUMENT, "generated", text_of(generated.tests))


def test_an_event_that_counts_against_what_is_expected_shows_what_it_adds() -> None:
    meters = declared(
        of("and", clause("name", "eq", "call"), of("or", clause("a", "eq", 1), clause("b", "eq", 2))),
        {"func": "sum", "property": "tokens"},
    )
    text = shown(
        [
            result(
                meters,
                "[{name: call, metadata: {b: 2, tokens: 10}, times: 2, counted: false},"
                ' {name: call, metadata: {a: 1, tokens: "9"}, counted: true}]',
                "{units: {anonymous: 0}}",
            )
        ],
        meters,
    )
    assert text.splitlines()[0] == "meters.test.yaml:3:5: failed: m: t"
    lines = [" ".join(line.split()) for line in text.splitlines()[1:]]
    assert lines[0] == "anonymous: expected 0 units, got 20"
    assert lines[1] == "given[0] counted, expected not to (2 times, +20)"
    assert lines[2].startswith('name = "call" `name` is the string "call", which equals the string "call"')
    # Of the `or` only the clause that matches decides.
    assert lines[3].startswith("b = 2 `b` is the number 2, which equals the number 2 meters.yaml:")
    assert lines[4] == "given[1] not counted, expected to"
    assert lines[5].startswith(
        'sum(tokens) `tokens` is the string "9", and sum takes numbers alone meters.yaml:'
    )
    assert lines[6:] == ["1 of 1 test failed."]


def test_a_number_that_differs_shows_the_events_that_it_comes_from() -> None:
    given = (
        "[{name: call, customer: a, metadata: {tokens: 3}}, {name: x, customer: a},"
        " {name: call, customer: b, metadata: {tokens: 1}}]"
    )
    text = shown([result(TOKENS, given, "{units: {a: 4}}")], TOKENS)
    assert "  given[0] counted (+3)\n  given[1] not counted\n" in text
    assert "given[2]" not in text


def test_where_the_engines_disagree_it_says_so_once_and_the_test_passes() -> None:
    meters = declared(of("and", clause("a", "eq", 1)), {"func": "count"})
    found = result(
        meters, "[{name: call, metadata: {a: true}}, {name: x, metadata: {a: true}}]", "{events: 2}"
    )
    assert found.passed
    text = shown([found], meters)
    note = "billing counts given[0], `/quantities` and the dashboard do not (and 1 more event like it)"
    assert text.count(f"note: m: t: {note}") == 1
    assert "    a = 1   the two read this differently" in text
    assert "note" not in shown([result(meters, "[{name: call, metadata: {a: 1}}]", "{events: 1}")], meters)


def test_an_event_of_the_system_counts_and_no_invoice_adds_it_up() -> None:
    given = "[{name: call, source: system, metadata: {tokens: 5, usage: {deep: [null]}}, counted: true}]"
    found = result(TOKENS, given, "{total: 0, events: 1}")
    assert found.passed
    assert "given[0] counts, and no invoice adds it up: it is not of a user" in shown([found], TOKENS)


def test_a_query_that_fails_on_the_server_fails_the_test_that_depends_on_it() -> None:
    given = "[{name: call, metadata: {tokens: 1e308}, times: 3}]"
    found = result(TOKENS, given, "{total: 1e308}")
    assert found.total is None
    assert "got a failure of the query, as on the real server" in shown([found], TOKENS)
    assert json.loads(results_json([found], None))["tests"][0]["total"] is None
    compared = declared(of("and", clause("tokens", "gt", 5)), {"func": "count"})
    too_large = result(
        compared, f"[{{name: x, metadata: {{tokens: 1{'0' * 400}}}}}, {{name: x}}]", "{total: 1}"
    )
    assert too_large.passed
    assert too_large.counted_in_quantities == (None, None)
    assert shown([too_large], compared).count("`/quantities` fails for these events") == 1


def test_the_json_has_what_the_formats_name() -> None:
    given = "[{name: call, customer: a, metadata: {tokens: 1}, counted: false}, {name: x}]"
    document = json.loads(results_json([result(TOKENS, given, "{total: 2}")], None))
    assert document == {
        "format_version": 1,
        "passed": 0,
        "failed": 1,
        "tests": [
            {
                "meter": "m",
                "name": "t",
                "passed": False,
                "source": {"file": "meters.test.yaml", "line": 3, "column": 5},
                "total": 1,
                "units": {"a": 1, "anonymous": 0},
                "events": [
                    {"counted": True, "counted_in_quantities": True},
                    {"counted": False, "counted_in_quantities": False},
                ],
                "failures": [
                    {
                        "expectation": "total",
                        "expected": 2,
                        "actual": 1,
                        "source": {"file": "meters.test.yaml", "line": 6, "column": 21},
                    },
                    {
                        "expectation": "given[0].counted",
                        "expected": False,
                        "actual": True,
                        "source": {"file": "meters.test.yaml", "line": 5, "column": 13},
                    },
                ],
            }
        ],
        "coverage": None,
    }


def test_no_name_affects_the_terminal() -> None:
    odd = "a\\e[2J\\u202e"
    found = result(
        TOKENS, f'[{{name: call, customer: "{odd}", metadata: {{tokens: 1}}}}]', f'{{units: {{"{odd}": 2}}}}'
    )
    assert results_json([found], None).isascii()
    assert list(json.loads(results_json([found], None))["tests"][0]["units"]) == ["a\x1b[2J\u202e"]
    assert all(line.isprintable() for line in shown([found], TOKENS).splitlines())


def test_each_failed_test_is_an_annotation_up_to_the_limit() -> None:
    failed = result(TOKENS, "[{name: call, metadata: {tokens: 1}}]", "{total: 2}")
    passed = result(TOKENS, "[{name: call, metadata: {tokens: 1}}]", "{total: 1}")
    (only,) = result_annotations([passed, failed], 10)
    assert (only.level, only.message) == ("error", "m: t: total: expected 2, got 1")
    assert only.span == failed.test.span
    many = result_annotations([failed] * 12, 10)
    assert [len(many), many[-1].message] == [10, "3 more like these are in the report"]
