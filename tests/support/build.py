"""Small builders that several tests share: manifests, records and live meters from few words."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from polar_iac.manifest import read as manifest
from polar_iac.manifest.model import LintSettings, Manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.decide import make_plan
from polar_iac.plan.model import Plan

PROJECT = "acme"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
"""After every meter that `live` makes."""
ORGANIZATION = "1dbfc517-0bbf-4301-9ba8-555ca42b9737"


def identifier(number: int) -> str:
    """A UUID version 4 that a failing test shows legibly."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def meter(**fields: Any) -> dict[str, Any]:
    """A meter's block, as JSON data."""
    clause = {"property": "name", "operator": "eq", "value": "call"}
    return {
        "name": "API calls",
        "filter": {"conjunction": "and", "clauses": [clause]},
        "aggregation": {"func": "count"},
    } | fields


def desired(meters: Mapping[str, Any], **top: Any) -> Manifest:
    """A manifest loaded from JSON, which is YAML."""
    return manifest.load(manifest_text(meters, **top).encode(), "meters.yaml")


def without_lint(manifest_: Manifest, *rules: str) -> Manifest:
    """A manifest that ignores rules of lint, on the same lines as before."""
    return replace(manifest_, lint=LintSettings(frozenset(rules)))


def manifest_text(meters: Mapping[str, Any], **top: Any) -> str:
    """JSON that the YAML parser takes: it knows no surrogate pairs, and some characters only escaped."""
    document = {"version": 1, "project": PROJECT, **top, "meters": meters}
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def spec(**fields: Any) -> MeterSpec:
    return MeterSpec.from_json(meter(**fields))


def spec_of(live_meter: LiveMeter) -> MeterSpec:
    """The spec of a meter that this version can read."""
    assert live_meter.spec is not None
    return live_meter.spec


def record(number: int, *, frozen: bool = False, **fields: Any) -> Record:
    return Record(identifier(number), spec(**fields), frozen)


def live(number: int, key: str | None = "calls", *, project: str = PROJECT, **fields: Any) -> LiveMeter:
    """A live meter; `archived_at` archives it, `created_at` dates it."""
    archived_at = fields.pop("archived_at", None)
    return LiveMeter(
        id=identifier(number),
        organization_id=ORGANIZATION,
        created_at=fields.pop("created_at", f"2026-01-01T00:00:00.{number:06d}Z"),
        archived_at=archived_at,
        marker=None if key is None else f"{project}/{key}",
        spec=spec(**fields, archived=archived_at is not None),
    )


def plan(
    manifest_: Manifest,
    recorded: Mapping[str, Record] | None = None,
    meters: Sequence[LiveMeter] | None = (),
    **options: Any,
) -> Plan:
    options = {"environment": "sandbox", "organization_id": ORGANIZATION} | options
    return make_plan(manifest_, recorded or {}, meters, **options)


def random_uuid() -> str:
    return str(uuid.uuid4())
