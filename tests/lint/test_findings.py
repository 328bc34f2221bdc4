"""Lint of whole manifests: what is ignored, what is declared, and that the quick look hides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.errors import DiagnosticError
from polar_iac.lint.checks import meter_findings, rules_for
from polar_iac.lint.subject import Subject
from polar_iac.lint.unremarkable import is_unremarkable
from polar_iac.manifest import read as manifest
from polar_iac.manifest.findings import diagnostics
from polar_iac.meter.declared import DeclaredProperty, Misfit, misfits
from polar_iac.meter.spec import MeterSpec
from tests.support import strategies
from tests.support.build import desired, meter

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared" / "wire" / "sample.json"
HEAD = "version: 1\nproject: acme\n"
QUOTED = '{property: n, operator: eq, value: "1"}'


def text(*lines: str, top: str = "") -> str:
    clauses = "".join(f"        {line}\n" for line in lines)
    return (
        f"{HEAD}{top}meters:\n  calls:\n    name: Calls\n    filter:\n"
        f"      conjunction: and\n      clauses:\n"
        f"{clauses}    aggregation: {{func: count}}\n"
    )


def shown(source: str, *, infos: bool = False) -> list[str]:
    found = diagnostics(manifest.load(source.encode(), "meters.yaml"), infos=infos)
    return [f"{d.span.line}: {d.rule.partition(' ')[2]}" for d in found]


def errors(source: str) -> list[str]:
    with pytest.raises(DiagnosticError) as caught:
        manifest.load(source.encode(), "meters.yaml")
    return [f"{d.span.line}:{d.span.column}: {d.text}" for d in caught.value.diagnostics]


class TestIgnoring:
    def test_a_rule_is_ignored_everywhere_by_name_or_code(self) -> None:
        assert shown(text(f"- {QUOTED}")) == ["9: quoted-number"]
        assert shown(text(f"- {QUOTED}", top="lint: {ignore: [quoted-number]}\n")) == []
        assert shown(text(f"- {QUOTED}", top="lint: {ignore: [pi201]}\n")) == []

    def test_a_comment_is_about_its_own_line_or_the_next(self) -> None:
        comment = "# polar-iac: ignore[quoted-number] the SDK sends text"
        assert shown(text(f"- {QUOTED} {comment}")) == []
        assert shown(text(comment, "# more", "", f"- {QUOTED}")) == []
        assert shown(text(f"- {QUOTED} {comment}", '- {property: k, operator: eq, value: "2"}')) == [
            "10: quoted-number"
        ]

    def test_in_a_text_it_is_no_comment(self) -> None:
        inside = "{property: k, operator: eq, value: 'a # polar-iac: ignore[quoted-number] b'}"
        assert shown(text(f"- {inside}")) == []

    def test_a_text_of_the_same_line_ends_before_the_comment(self) -> None:
        lines = ["- property: n", "  operator: eq", '  value: "1" # polar-iac: ignore[PI201] sent as text']
        assert shown(text(*lines)) == []

    def test_rules_that_there_are_not_are_errors(self) -> None:
        assert errors(
            text(f"- {QUOTED}", top="lint: {ignore: [quoted-nmber, boolean-order], strict: 1}\n")
        ) == [
            '3:17: there is no rule "quoted-nmber": did you mean quoted-number?',
            "3:31: boolean-order is an error, and cannot be ignored: remove this",
            "3:55: strict must be true or false, got the number 1",
        ]

    def test_an_alias_is_reported_once(self) -> None:
        shared = f"x-f: &f {{conjunction: and, clauses: [{QUOTED}]}}\n"
        fields = "filter: *f, aggregation: {func: sum, property: p%d}"
        meters = "".join(f"  m{n}: {{name: M{n}, {fields % n}}}\n" for n in range(3))
        assert shown(f"{HEAD}{shared}meters:\n{meters}") == ["3: quoted-number"]


def test_an_archived_meter_bills_nobody_and_is_not_linted() -> None:
    gone = meter(filter={"conjunction": "and", "clauses": []})
    assert [d.rule for d in diagnostics(desired({"calls": gone}))] == ["PI102 always-matches"]
    assert diagnostics(desired({"calls": gone | {"archived": True}})) == []


class TestDeclaredEvents:
    def test_what_is_wrong_is_an_error_at_its_place(self) -> None:
        top = (
            "events: {call: {a.b: string, _llm: string, n: text, m: {optional: true}, "
            "k: {type: number, x: 1}}}\n"
        )
        assert errors(text(f"- {QUOTED}", top=top)) == [
            "3:17: a property cannot have a dot: metadata is flat, and a filter reaches no key with a dot",
            "3:30: _llm needs no declaration: ingestion says what is in it",
            '3:47: a type must be one of string, integer, number, boolean, got "text"',
            "3:56: `type` is missing",
            "3:92: unknown key `x`: expected one of type, optional",
        ]

    def test_a_text_that_is_declared_may_look_like_a_number(self) -> None:
        assert shown(text(f"- {QUOTED}", top="events: {call: {n: string}}\n")) == []

    def test_events_fit_their_declaration_or_say_why_not(self) -> None:
        declared = {
            "call": {
                "n": DeclaredProperty("integer"),
                "x": DeclaredProperty("number"),
                "ok": DeclaredProperty("boolean", optional=True),
            }
        }
        assert list(misfits(declared, "call", {"n": 1, "x": 0.5, "_llm": {}})) == []
        assert list(misfits(declared, "call", {"n": 2.0, "x": 1, "ok": True})) == []
        assert list(misfits(declared, "other", {"anything": 1})) == []
        assert list(misfits(declared, "call", {"n": "1", "ok": 1, "m": 2})) == [
            Misfit("n", DeclaredProperty("integer")),
            Misfit("ok", DeclaredProperty("boolean", optional=True)),
            Misfit("m", None),
            Misfit("x", DeclaredProperty("number"), is_missing=True),
        ]
        assert [m.property for m in misfits(declared, "call", {"n": True, "x": False})] == ["n", "x"]


WARNINGS = rules_for((), infos=False)
_words = st.sampled_from(
    ["a", "model", "gpt-4", "gpt-4%", "5", "true", "x ", "", "name", "source", "a.b", "*"]
)
_near = st.builds(
    lambda name, operator, value: {"property": name, "operator": operator, "value": value},
    _words | st.sampled_from(["tokens", "timestamp", "customer_id", "_llm.model", "Name"]),
    st.sampled_from(["eq", "ne", "gt", "lte", "like", "not_like"]),
    _words | st.integers(0, 9) | st.booleans(),
)


def _groups(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    joined = st.sampled_from(["and", "or"])
    return st.builds(lambda c, p: {"conjunction": c, "clauses": p}, joined, st.lists(parts, max_size=3))


_near_filters = st.recursive(_groups(_near), lambda inner: _groups(_near | inner), max_leaves=4)


@given(filter_=_near_filters | strategies.filters, label=_words, aggregated=_words)
def test_the_quick_look_hides_no_warning(filter_: Any, label: str, aggregated: str) -> None:
    spec = MeterSpec.from_json(
        meter(name=label, filter=filter_, aggregation={"func": "unique", "property": aggregated})
    )
    if is_unremarkable(spec):
        assert meter_findings(Subject(spec), WARNINGS) == []


def test_the_quick_look_passes_what_most_meters_are() -> None:
    assert is_unremarkable(MeterSpec.from_json(meter()))


def test_the_manifest_of_this_repository_is_clean() -> None:
    assert diagnostics(manifest.read(ROOT / "meters.yaml")) == []


def bodies(node: Any) -> Iterator[Any]:
    """Yield all meters of the recorded exchanges, those that Polar refuses too."""
    if isinstance(node, dict):
        if {"name", "filter", "aggregation"} <= node.keys():
            yield node
        for value in node.values():
            yield from bodies(value)
    elif isinstance(node, list):
        for value in node:
            yield from bodies(value)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the recorded exchanges are not here")
def test_every_recorded_meter_is_linted() -> None:
    read = 0
    keys = ("name", "unit", "custom_label", "custom_multiplier", "filter", "aggregation")
    for body in bodies(json.loads(SAMPLE.read_text(encoding="utf-8"))):
        block = {key: body[key] for key in keys if body.get(key) is not None}
        try:
            loaded = desired({"calls": block})
        except DiagnosticError:  # what Polar refuses as well, or stores and cannot compute
            continue
        assert all(d.severity != "error" for d in diagnostics(loaded, infos=True))
        read += 1
    assert read > 20
