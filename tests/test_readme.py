"""The examples in the README are the real output of the tool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from polar.v2026_04 import Polar
from ruamel.yaml import YAML

from polar_iac.errors import DiagnosticError
from polar_iac.local import LocalPolar, serving
from polar_iac.manifest import read as manifest
from polar_iac.report.diagnostics import diagnostics_text
from polar_iac.report.text import plan_text
from polar_iac.testing.read import load
from polar_iac.testing.run import compiled, passes
from tests.support.build import desired, live, meter, plan, record
from tests.support.golden import golden_block

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LLM = {"property": "name", "operator": "eq", "value": "llm_call"}


def test_the_plan_in_the_readme_is_the_real_output() -> None:
    def tokens(least: int) -> dict[str, Any]:
        either = [
            {"property": "model", "operator": "like", "value": "gpt-4"},
            {"property": "tokens", "operator": "gte", "value": least},
        ]
        clauses = [LLM, {"conjunction": "or", "clauses": either}]
        return {
            "filter": {"conjunction": "and", "clauses": clauses},
            "aggregation": {"func": "sum", "property": "tokens"},
        }

    embedding = {**LLM, "value": "embedding"}
    manifest_ = desired(
        {
            "embeddings": meter(name="Embeddings", filter={"conjunction": "and", "clauses": [embedding]}),
            "llm-tokens": meter(name="LLM token usage", **tokens(1000), metadata={"owner": "kim"}),
        }
        | {f"m{n}": meter() for n in range(12)}
    )
    recorded = {"llm-tokens": record(1, name="LLM tokens", **tokens(100), metadata={"owner": "kim"})}
    recorded |= {f"m{n}": record(3 + n) for n in range(12)}
    meters = [
        live(1, "llm-tokens", name="LLM tokens", **tokens(100), metadata={"owner": "ana"}),
        *(live(3 + n, f"m{n}") for n in range(12)),
    ]
    golden_block(README, "plan", click.unstyle(plan_text(plan(manifest_, recorded, meters), "meters.yaml")))


def test_the_errors_in_the_readme_are_the_real_output() -> None:
    text = """\
version: 1
project: acme-billing
meters:
  exports:
    name: Exports
    filter:
      conjunction: and
      clauses:
        - {property: name, operator: eq, value: export}
        - {property: day, operator: gte, value: 2026-01-01}
        - {property: size, opertor: gt, value: 1.5}
    aggregation: {func: count}
"""
    with pytest.raises(DiagnosticError) as caught:
        manifest.load(text.encode(), "meters.yaml")
    golden_block(README, "errors", click.unstyle(diagnostics_text(caught.value.diagnostics)))


def test_the_manifest_in_the_readme_is_valid() -> None:
    block = re.search(r"```yaml\n(version: 1\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert set(manifest.load(block[1].encode(), "README.md").meters) == {"llm-tokens", "old-exports"}


def test_the_test_in_the_readme_passes() -> None:
    (block,) = re.findall(r"```yml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    clauses = [
        {"property": "name", "operator": "eq", "value": "llm.completion"},
        {"property": "cached", "operator": "eq", "value": False},
    ]
    filter_ = {"conjunction": "and", "clauses": clauses}
    declared = desired(
        {"llm-tokens": meter(filter=filter_, aggregation={"func": "sum", "property": "tokens"})}
    )
    (only,) = load(f"version: 1\ntests:\n{block}".encode(), "README.md", declared).tests
    assert passes(only, compiled(declared.specs["llm-tokens"]))


def properties(data: Any) -> Iterator[str]:
    """The properties that clauses and aggregations name, anywhere in a YAML document."""
    if isinstance(data, dict):
        if isinstance(data.get("property"), str):
            yield data["property"]
        for value in data.values():
            yield from properties(value)
    elif isinstance(data, list):
        for value in data:
            yield from properties(value)


def test_every_example_looks_where_events_have_something() -> None:
    """The metadata of an event is flat but for two objects: a meter by another dotted name bills nothing."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    texts = {"meters.yaml": (ROOT / "meters.yaml").read_text(encoding="utf-8"), "README.md": blocks[0]}
    texts |= {f"README.md, block {n}": block for n, block in enumerate(blocks[1:], 2)}
    properties_by_file = {name: set(properties(YAML(typ="safe").load(text))) for name, text in texts.items()}
    assert "_llm.input_tokens" in properties_by_file["meters.yaml"]
    assert "tokens" in properties_by_file["README.md"]
    dotted = {(name, p) for name in properties_by_file for p in properties_by_file[name] if "." in p}
    assert [entry for entry in sorted(dotted) if not entry[1].startswith(("_cost.", "_llm."))] == []


def test_it_stays_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_sdk_example_lists_the_meters_of_the_embedded_polar(capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    app = LocalPolar()
    with serving(app) as url:
        example = block[1].replace("http://127.0.0.1:8010", url)
        assert example != block[1]
        with Polar("polar_oat_local", base_url=url) as polar:
            polar.meters.create(
                name="Calls", filter={"conjunction": "and", "clauses": []}, aggregation={"func": "count"}
            )
        exec(example, {})  # noqa: S102  what a reader would paste
    assert capsys.readouterr().out == "Calls {}\n"
