"""The lint corpus: for every rule bad manifests with positions, and good neighbors that stay silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from polar_iac.errors import Diagnostic
from polar_iac.lint.registry import RULES
from polar_iac.lint.rule import Rule
from polar_iac.manifest import read as manifest
from polar_iac.manifest.findings import diagnostics
from tests.support.golden import golden

CASES = Path(__file__).parent / "cases"
RULES_TO_SHOW = [rule for rule in RULES.values() if not rule.refused]
"""What the reader refuses has its manifests in tests/manifest/cases/wrong."""


def found(path: Path, *, infos: bool) -> list[Diagnostic]:
    return diagnostics(manifest.load(path.read_bytes(), path.name), infos=infos)


def case(title: str, kind: str) -> Path:
    return CASES / f"{title.replace(' ', '-')}.{kind}.yaml"


@pytest.mark.parametrize("rule", RULES_TO_SHOW, ids=lambda rule: rule.name)
def test_bad_examples_are_found_where_they_are(rule: Rule) -> None:
    path = case(rule.title, "bad")
    shown = [
        d for d in found(path, infos=rule.severity == "info") if d.rule == rule.title or d.severity != "info"
    ]
    assert {d.rule for d in shown} == {rule.title}
    assert len(shown) >= 3
    golden(path.with_suffix(".expected"), "".join(f"{d.span}: {d.severity}: {d.text}\n" for d in shown))


@pytest.mark.parametrize("rule", RULES_TO_SHOW, ids=lambda rule: rule.name)
def test_good_neighbors_stay_silent(rule: Rule) -> None:
    shown = found(case(rule.title, "good"), infos=rule.severity == "info")
    assert [d for d in shown if d.rule == rule.title or d.severity != "info"] == []


def test_every_case_is_of_a_rule() -> None:
    names = {f"{rule.title.replace(' ', '-')}.{kind}" for rule in RULES_TO_SHOW for kind in ("bad", "good")}
    assert {path.stem for path in CASES.iterdir()} == names
