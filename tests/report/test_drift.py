"""Drift as text, Markdown and JSON: golden files, limits, and the documented shape."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from polar_iac.ci.annotations import drift_annotations
from polar_iac.ci.github import GitHubLinks
from polar_iac.plan.drift import Drift, FieldDrift, MeterDrift, find_drift
from polar_iac.report.comment.drift import drift_markdown
from polar_iac.report.drift import drift_json, drift_text
from tests.support.build import ORGANIZATION, desired, identifier, live, meter, record
from tests.support.comments import read_comment
from tests.support.golden import golden

GOLDEN = Path(__file__).parent / "golden"
LINKS = GitHubLinks("https://github.com", "acme/billing", "3f2a9c41d07be58c6a1f04d2e97bb8350c1d6e7a")
MODELS = [{"property": "model", "operator": "like", "value": name} for name in ("gpt-4", "opus", "sonnet")]


def drift_of(meters: tuple[MeterDrift, ...], compared: int, environment: str = "sandbox") -> Drift:
    return Drift(environment, ORGANIZATION, "acme", meters, compared, "meters.yaml", "meters.lock.json")


@pytest.fixture(scope="module")
def everything() -> Drift:
    """Each kind of drift, and one meter without any."""
    manifest = desired(
        {
            "calls": meter(name="Calls", metadata={"team": "ai"}),
            "tokens": meter(name="Tokens", filter={"conjunction": "or", "clauses": MODELS[:2]}),
            "images": meter(name="Images by now"),
            "exports": meter(name="Exports"),
            "lost": meter(name="Lost"),
            "same": meter(name="Same"),
        }
    )
    recorded = {
        "calls": record(1, name="Calls", metadata={"team": "ai", "tier": 2}),
        "tokens": record(2, name="Tokens", filter={"conjunction": "or", "clauses": MODELS[:2]}),
        "images": record(3, name="Images"),
        "exports": record(4, name="Exports"),
        "lost": record(5, name="Lost"),
        "same": record(6, name="Same"),
        "gone": record(7, name="Gone"),
    }
    meters = [
        live(1, None, name="Calls (old)", unit="token", metadata={"team": "growth"}),
        live(2, "tokens", name="Tokens", filter={"conjunction": "or", "clauses": MODELS}),
        live(3, "images", name="Images by now"),
        live(4, "exports", name="Exports", archived_at="2026-03-01T00:00:00.000000Z"),
        live(6, "same", name="Same"),
        live(7, "gone", name="Gone, renamed"),
    ]
    return drift_of(find_drift(manifest, recorded, meters, environment="sandbox"), len(recorded))


def test_the_text_is_golden(everything: Drift) -> None:
    golden(GOLDEN / "drift.txt", click.unstyle(drift_text(everything, "meters.yaml", 100)))


def test_the_markdown_is_golden(everything: Drift) -> None:
    nothing = drift_of((), 3, "production")
    text = drift_markdown([everything, nothing], manifest_file="meters.yaml", links=LINKS)
    read_comment(text)
    golden(GOLDEN / "drift.md", text)


def test_the_json_is_golden(everything: Drift) -> None:
    golden(GOLDEN / "drift.json", drift_json([everything]))


def test_no_drift_is_one_line() -> None:
    assert drift_text(drift_of((), 1), "meters.yaml", 100).splitlines()[-1] == (
        "No drift. 1 recorded meter is as it was applied."
    )
    text = drift_markdown([drift_of((), 2), drift_of((), 3, "production")], manifest_file="meters.yaml")
    read_comment(text)
    assert text.startswith("### Polar meters: no drift · sandbox and production\n")


def test_what_does_not_fit_is_counted() -> None:
    field = FieldDrift("name", "x" * 400, "y" * 400, "invoice", declared=False)
    meters = tuple(MeterDrift(f"key-{n}", identifier(n), "Name", (field,)) for n in range(200))
    text = drift_markdown([drift_of(meters, 200)], manifest_file="meters.yaml")
    read_comment(text)
    assert 40_000 < len(text.encode()) <= 50_000
    shown = text.count("**Changed**")
    assert f"and {200 - shown} more meters, in the log of the run" in text


@pytest.mark.parametrize(
    "evil", ["a\n::error::b", "</details>\n# x", "\x1b[31mred", "`@mention` #1 | x", "-->"]
)
def test_no_name_breaks_out(evil: str) -> None:
    field = FieldDrift("metadata." + evil, evil, None, "internal", declared=True)
    meters = (MeterDrift(evil, identifier(1), evil, (field,), "mismatch", evil),)
    text = drift_text(drift_of(meters, 1), "meters.yaml", 100)
    assert evil not in text or evil.isprintable()
    assert not any(line.startswith(("::", "#")) for line in text.splitlines())
    read_comment(drift_markdown([drift_of(meters, 1)], manifest_file="meters.yaml"))


def test_annotations_name_meters_and_fields_and_are_limited(everything: Drift) -> None:
    annotations = drift_annotations([everything], 10)
    messages = {annotation.message.partition(" ")[0]: annotation for annotation in annotations}
    assert messages.keys() == {meter.key for meter in everything.meters}
    assert "name, unit, metadata.team" in messages["calls"].message
    assert messages["calls"].span is not None
    limited = drift_annotations([everything, replace(everything, environment="production")], 5)
    assert len(limited) == 5
    assert limited[-1].message == "8 more like these are in the report"


def test_the_documented_fields_are_all_there_are(everything: Drift) -> None:
    """`docs/formats.md` names each field of the JSON."""
    documented = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = documented.split("## Drift as JSON")[1].split("\n## ")[0]

    def names(data: Any) -> set[str]:
        if isinstance(data, dict):
            return {*data, *(name for value in data.values() for name in names(value))}
        return {name for value in data for name in names(value)} if isinstance(data, list) else set()

    document = json.loads(drift_json([everything]))
    assert document["format_version"] == 1
    for meter_ in document["drift"][0]["meters"]:
        for field in meter_["fields"]:
            del field["recorded"], field["live"]  # values of any shape
    assert {name for name in names(document) if not re.search(rf"[`\"]{name}[`\"]", section)} == set()
