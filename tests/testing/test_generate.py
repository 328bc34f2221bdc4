"""Tests that write themselves: they pass, and hold every clause of their meter."""

from __future__ import annotations

from random import Random

import pytest

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.filter import FUNCS, Aggregation, Filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.testing.coverage import Coverage, cover
from polar_iac.testing.generate import MARK, appended, generate, text_of
from polar_iac.testing.model import MeterTest
from polar_iac.testing.read import load
from polar_iac.testing.run import compiled, passes
from tests.support.build import desired, meter
from tests.support.random_meaning import PROPERTIES, random_filter


def declared(spec: MeterSpec) -> Manifest:
    """A manifest with a filter that the parser might refuse."""
    only = DesiredMeter("m", spec, frozenset(), SourceSpan("meters.yaml", 1, 1, 2))
    return Manifest("meters.yaml", "acme", {}, (), {"m": only})


def held(manifest: Manifest, text: str) -> tuple[tuple[MeterTest, ...], Coverage]:
    tests = load(text.encode(), "m.test.yaml", manifest).tests
    return tests, cover(manifest, ["m"], tests)


@pytest.mark.unmeasured  # the tests below run the same lines
@pytest.mark.parametrize("seed", range(12))
def test_what_is_generated_passes_and_holds_every_clause(seed: int) -> None:
    random = Random(seed)
    func = random.choice(FUNCS)
    aggregation = Aggregation(func, None if func == "count" else random.choice(PROPERTIES))
    spec = MeterSpec("M", Filter.from_json(random_filter(random)), aggregation)
    manifest = declared(spec)
    generated = generate("m", spec)
    if not generated.tests:
        assert cover(manifest, ["m"], ()).percent == 100  # nothing can be noticed
        return
    tests, coverage = held(manifest, text_of(generated.tests))
    assert all(passes(test, compiled(spec)) for test in tests)
    left = {part.place for part in generated.left}
    assert [part.part.data for part in coverage.parts if not part.held and part.part.place not in left] == []


def test_each_clause_has_an_event_that_counts_and_one_that_just_misses() -> None:
    manifest = desired(
        {
            "m": meter(
                filter={
                    "conjunction": "and",
                    "clauses": [
                        {"property": "name", "operator": "eq", "value": "call"},
                        {"property": "tokens", "operator": "gte", "value": 500},
                    ],
                },
                aggregation={"func": "sum", "property": "tokens"},
            )
        }
    )
    assert (
        text_of(generate("m", manifest.meters["m"].spec).tests)
        == f"""\
version: 1
tests:
  {MARK}
  - name: 'm: name = "call"'
    meter: m
    given:
      - {{name: call, metadata: {{tokens: 500}}, counted: true}}
      - {{name: other, metadata: {{tokens: 500}}, counted: false}}
  {MARK}
  - name: "m: tokens >= 500"
    meter: m
    given:
      - {{name: call, metadata: {{tokens: 500}}, counted: true}}
      - {{name: call, metadata: {{tokens: 499}}, counted: false}}
  {MARK}
  - name: "m: sum(tokens)"
    meter: m
    given:
      - {{name: call, metadata: {{tokens: 500}}, times: 2}}
      - {{name: call, metadata: {{tokens: 501}}}}
    expect: {{total: 1501}}
"""
    )


GIVEN = "meter: m, given: [{name: x, counted: true}]"


@pytest.mark.parametrize(
    "before",
    [
        "version: 1\ntests:\n- name: 'm: count'\n  meter: m\n  given: [{name: x, counted: true}]\n# end\n",
        f"version: 1\r\ntests:\r\n    - {{name: 'm: count', {GIVEN}}}\r\nx-own: 1\r\n",
        "version: 1\ntests: []\n",
        '{"version": 1, "tests": [{"name": "m: count", "meter": "m",'
        ' "given": [{"name": "x", "counted": true}]}]}\n',
    ],
)
def test_what_is_appended_leaves_the_rest_as_it_is(before: str) -> None:
    manifest = desired({"m": meter()})
    names = [test.name for test in load(before.encode(), "m.test.yaml", manifest).tests]
    generated = generate("m", manifest.meters["m"].spec, names)
    after = appended(before.encode(), "m.test.yaml", generated.tests).decode()
    tests, coverage = held(manifest, after)
    assert coverage.percent == 100
    assert len({test.name for test in tests}) == len(names) + len(generated.tests)
    rest = iter(after)
    assert all(character in rest for character in before.replace("[]", ""))
    if "[{" not in before.partition("tests")[2][:5] and before[0] != "{":
        assert after.count(MARK) == len(generated.tests)
    assert "\n" not in after.replace("\r\n", "") or "\r" not in before
