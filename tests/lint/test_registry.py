"""The registry: its pages are current, its examples are what they claim, and every rule has a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from polar_iac.errors import Diagnostic, DiagnosticError
from polar_iac.lint.checks import OF_METERS, OF_PAIRS
from polar_iac.lint.page import rules_markdown
from polar_iac.lint.registry import FAMILIES, RULES, nearest_rule, rule_of
from polar_iac.lint.rule import Rule
from polar_iac.manifest import read as manifest
from polar_iac.manifest.findings import diagnostics
from tests.support.golden import golden

ROOT = Path(__file__).parents[2]
OF_COMMENTS = {"ignore-without-reason", "unknown-ignore", "unused-ignore"}


def example(text: str) -> bytes:
    """Make a manifest of an example: of a clause, of fields of a meter, or of blocks at the top."""
    if text.startswith("{"):
        text = f"filter:\n  conjunction: and\n  clauses:\n    - {text}"
    if "meters:" not in text:
        fields = {
            "filter": "filter: {conjunction: and, clauses: [{property: kind, operator: eq, value: a}]}",
            "aggregation": "aggregation: {func: count}",
        }
        missing = [field for name, field in fields.items() if not text.startswith(name)]
        lines = ["name: Calls", *missing, *text.split("\n")]
        text = "meters:\n  calls:\n" + "\n".join(f"    {line}" for line in lines)
    return f"version: 1\nproject: acme\n{text}\n".encode()


def found(text: str) -> list[Diagnostic]:
    try:
        return diagnostics(manifest.load(example(text), "meters.yaml"), infos=True)
    except DiagnosticError as error:
        return list(error.diagnostics)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_examples_of_a_page_are_bad_and_good(rule: Rule) -> None:
    assert [d.rule for d in found(rule.bad) if d.rule == rule.title or d.severity != "info"] == [rule.title]
    assert [d for d in found(rule.good) if d.rule == rule.title or d.severity != "info"] == []


def test_the_document_is_made_of_the_registry() -> None:
    golden(ROOT / "docs" / "lint-rules.md", rules_markdown())


def test_each_rule_has_a_check() -> None:
    checked = {*OF_METERS, *OF_PAIRS, *OF_COMMENTS}
    assert checked == {name for name, rule in RULES.items() if not rule.refused}


def test_codes_are_unique_and_in_order() -> None:
    codes = [rule.code for rule in RULES.values()]
    assert codes == sorted(set(codes))
    assert {rule.family for rule in RULES.values()} == set(FAMILIES)


def test_a_rule_is_found_by_name_and_by_code() -> None:
    assert rule_of("PI201") is rule_of("quoted-number") is rule_of("pi201") is RULES["quoted-number"]
    assert rule_of("PI999") is None
    assert nearest_rule("quoted-nubmer") == "quoted-number"
