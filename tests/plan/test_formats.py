"""Plan files of earlier versions: each is read, and means the same.

`formats/plan-1.json` and `plan-2.json` were written by the versions before the packages were named after
concepts. They are never written again.
"""
# ruff: noqa: E501 - the expected values are literal

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polar_iac.errors import SourceSpan
from polar_iac.meter.filter import Aggregation, Clause, Filter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import plan_json
from polar_iac.plan.model import (
    Bookkeeping,
    Change,
    FieldChange,
    MarkerChange,
    Note,
    Plan,
    Refusal,
)
from polar_iac.plan.saved import read_plan

FORMATS = Path(__file__).parent / "formats"

FORMAT_1 = Plan(
    environment="sandbox",
    organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
    project="acme",
    refreshed=True,
    changes=(
        Change(
            key="calls",
            action="update",
            id="00000001-0000-4000-8000-000000000000",
            name="Renamed",
            before=MeterSpec(
                "API calls", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")
            ),
            after=MeterSpec(
                "Renamed",
                Filter("and", (Clause("name", "eq", "call"),)),
                Aggregation("count"),
                metadata={"tier": 2},
            ),
            digest="4437f82e2b51b49c16926234ce6dc9465b421f5293c3e3587d5daa69d7c20530",
            fields=(
                FieldChange(
                    "name",
                    "API calls",
                    "Renamed",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 6, 15, 16),
                ),
                FieldChange(
                    "metadata.tier",
                    None,
                    2,
                    "internal",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 21, 17, 18),
                ),
            ),
            source=SourceSpan("meters.yaml", 5, 5, 6),
        ),
        Change(
            key="gone",
            action="blocked",
            id="00000002-0000-4000-8000-000000000000",
            name="Gone",
            before=MeterSpec("Gone", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            after=MeterSpec(
                "Gone", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count"), archived=True
            ),
            digest="527adc3b595aa241ea4f812d32cf280eca94356858c223254e7cc0c1d0e94705",
            reason="`gone` is gone from the manifest, but 00000002-0000-4000-8000-000000000000 still bills. Keep its block with `archived: true` to archive it, or allow this once with --allow-archive.",
        ),
        Change(
            key="tokens",
            action="create",
            id=None,
            name="Tokens",
            before=None,
            after=MeterSpec(
                "Tokens",
                Filter(
                    "and",
                    (
                        Clause("tokens", "gte", 10),
                        Filter("or", (Clause("model", "like", "gpt"),)),
                    ),
                ),
                Aggregation("sum", "tokens"),
                unit="token",
            ),
            digest="4be2b27919de3c49c57fa7788577bf8df203b76d45fe25762a6488fe91d8b043",
            fields=(
                FieldChange(
                    "filter",
                    None,
                    {
                        "conjunction": "and",
                        "clauses": [
                            {"property": "tokens", "operator": "gte", "value": 10},
                            {
                                "conjunction": "or",
                                "clauses": [{"property": "model", "operator": "like", "value": "gpt"}],
                            },
                        ],
                    },
                    "billing",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 26, 7, 8),
                ),
                FieldChange(
                    "aggregation",
                    None,
                    {"func": "sum", "property": "tokens"},
                    "billing",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 46, 7, 8),
                ),
                FieldChange(
                    "name",
                    None,
                    "Tokens",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 25, 15, 16),
                ),
                FieldChange(
                    "unit",
                    None,
                    "token",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 50, 15, 16),
                ),
            ),
            source=SourceSpan("meters.yaml", 24, 5, 6),
        ),
    ),
    bookkeeping=(Bookkeeping(key="same", action="adopt", id="00000003-0000-4000-8000-000000000000"),),
    unchanged=1,
    refusal=Refusal(cause="unlisted", keys=("gone",)),
    outdated="d1f0f9d792464ee2e2aa3e5defeab67aadc7f5fb56a49987475f8969807af89e",
)

FORMAT_2 = Plan(
    environment="sandbox",
    organization_id="1dbfc517-0bbf-4301-9ba8-555ca42b9737",
    project="acme",
    refreshed=True,
    changes=(
        Change(
            key="calls",
            action="update",
            id="00000001-0000-4000-8000-000000000000",
            name="Renamed",
            before=MeterSpec(
                "By hand",
                Filter("and", (Clause("name", "eq", "call"),)),
                Aggregation("count"),
                metadata={"tier": 1, "owner": "kim"},
            ),
            after=MeterSpec(
                "Renamed",
                Filter("and", (Clause("name", "eq", "call"),)),
                Aggregation("count"),
                metadata={"owner": "kim", "tier": 2},
            ),
            digest="a65087265647737cfa840b647bdaea15d99f4c7f4991dd1a4e1f4eda9ccf100a",
            fields=(
                FieldChange(
                    "name",
                    "By hand",
                    "Renamed",
                    "invoice",
                    origin="both",
                    source=SourceSpan("meters.yaml", 12, 15, 16),
                ),
                FieldChange(
                    "metadata.tier",
                    1,
                    2,
                    "internal",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 27, 17, 18),
                ),
            ),
            source=SourceSpan("meters.yaml", 11, 5, 6),
        ),
        Change(
            key="frozen",
            action="blocked",
            id="00000004-0000-4000-8000-000000000000",
            name="Frozen",
            before=MeterSpec("Frozen", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            after=MeterSpec(
                "Frozen",
                Filter(
                    "and",
                    (
                        Clause("tokens", "gte", 10),
                        Filter(
                            "or",
                            (
                                Clause("done", "eq", True),
                                Clause("model", "like", "gpt"),
                            ),
                        ),
                    ),
                ),
                Aggregation("count"),
            ),
            digest="bab843faaadf08b62b8c3fae129ef4271c8e46793cd6c34d23d2b4dea1728fc6",
            fields=(
                FieldChange(
                    "filter",
                    {
                        "conjunction": "and",
                        "clauses": [{"property": "name", "operator": "eq", "value": "call"}],
                    },
                    {
                        "conjunction": "and",
                        "clauses": [
                            {"property": "tokens", "operator": "gte", "value": 10},
                            {
                                "conjunction": "or",
                                "clauses": [
                                    {"property": "done", "operator": "eq", "value": True},
                                    {"property": "model", "operator": "like", "value": "gpt"},
                                ],
                            },
                        ],
                    },
                    "billing",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 125, 7, 8),
                ),
            ),
            source=SourceSpan("meters.yaml", 123, 5, 6),
            reason="filter differs, but Polar has frozen filter and aggregation, since the meter already aggregates events. Nothing of this meter is changed. Put back what Polar has; to bill by another rule, declare a new meter under another key, move the prices to it, and archive this one.",
            cause="frozen",
            freeze="frozen",
        ),
        Change(
            key="gone",
            action="blocked",
            id="00000002-0000-4000-8000-000000000000",
            name="Gone",
            before=MeterSpec("Gone", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            after=MeterSpec(
                "Gone", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count"), archived=True
            ),
            digest="eaa901902403fd71096efd0842ad2ea596b2d0dfc9ee35611ccb09e682d1eb70",
            reason="`gone` is gone from the manifest, but 00000002-0000-4000-8000-000000000000 still bills. Keep its block with `archived: true` to archive it, or allow this once with --allow-archive.",
            cause="unlisted",
        ),
        Change(
            key="llm-input",
            action="mark",
            id="00000006-0000-4000-8000-000000000000",
            name="Input",
            before=MeterSpec("Input", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            after=MeterSpec("Input", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            digest="89a1b64cc0d62a2431fca7080a51e564130d5dddb8950e3a4529456d0fc6afa8",
            source=SourceSpan("meters.yaml", 35, 5, 6),
            reason="moved",
            marker=MarkerChange("acme/tokens-in", "acme/llm-input"),
        ),
        Change(
            key="settled",
            action="settle",
            id="0000000d-0000-4000-8000-000000000000",
            name="Settled",
            before=MeterSpec("Settled", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count")),
            after=MeterSpec(
                "Settled", Filter("and", (Clause("name", "eq", "call"),)), Aggregation("count"), archived=True
            ),
            digest="7f34dc3b358602da4a8b874beecdd84f47c43269620afb4059b7772ca740a9fd",
            source=SourceSpan("meters.yaml", 67, 5, 6),
            marker=MarkerChange("acme/settled", None),
            duplicate_of="0000000c-0000-4000-8000-000000000000",
        ),
        Change(
            key="tokens",
            action="create",
            id=None,
            name="Tokens",
            before=None,
            after=MeterSpec(
                "Tokens",
                Filter(
                    "and",
                    (
                        Clause("tokens", "gte", 10),
                        Filter(
                            "or",
                            (
                                Clause("done", "eq", True),
                                Clause("model", "like", "gpt"),
                            ),
                        ),
                    ),
                ),
                Aggregation("sum", "tokens"),
                unit="custom",
                custom_label="kilo‑token 🚀",
                custom_multiplier=1000,
                metadata={"ratio": 1.5, "big": 100000000000000000000, "on": True},
            ),
            digest="8135431dfcf6cd4c31cb6032902a9de66eded542a78a413d7d553b194b65679a",
            fields=(
                FieldChange(
                    "filter",
                    None,
                    {
                        "conjunction": "and",
                        "clauses": [
                            {"property": "tokens", "operator": "gte", "value": 10},
                            {
                                "conjunction": "or",
                                "clauses": [
                                    {"property": "done", "operator": "eq", "value": True},
                                    {"property": "model", "operator": "like", "value": "gpt"},
                                ],
                            },
                        ],
                    },
                    "billing",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 85, 7, 8),
                ),
                FieldChange(
                    "aggregation",
                    None,
                    {"func": "sum", "property": "tokens"},
                    "billing",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 110, 7, 8),
                ),
                FieldChange(
                    "name",
                    None,
                    "Tokens",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 84, 15, 16),
                ),
                FieldChange(
                    "unit",
                    None,
                    "custom",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 114, 15, 16),
                ),
                FieldChange(
                    "custom_label",
                    None,
                    "kilo‑token 🚀",
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 115, 23, 24),
                ),
                FieldChange(
                    "custom_multiplier",
                    None,
                    1000,
                    "invoice",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 116, 28, 29),
                ),
                FieldChange(
                    "metadata.big",
                    None,
                    100000000000000000000,
                    "internal",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 119, 16, 17),
                ),
                FieldChange(
                    "metadata.on",
                    None,
                    True,
                    "internal",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 120, 15, 16),
                ),
                FieldChange(
                    "metadata.ratio",
                    None,
                    1.5,
                    "internal",
                    origin="manifest",
                    source=SourceSpan("meters.yaml", 118, 18, 19),
                ),
            ),
            source=SourceSpan("meters.yaml", 83, 5, 6),
            notes=(
                Note(
                    "same-name",
                    "info",
                    "00000010-0000-4000-8000-000000000000 has the same name and another filter or aggregation",
                    "polar",
                    data={
                        "meters": [
                            {"id": "00000010-0000-4000-8000-000000000000", "name": "Tokens", "marker": None}
                        ]
                    },
                ),
            ),
            marker=MarkerChange(None, "acme/tokens"),
        ),
    ),
    bookkeeping=(
        Bookkeeping(
            key="llm-input", action="moved", id="00000006-0000-4000-8000-000000000000", was="tokens-in"
        ),
        Bookkeeping(key="lost", action="adopt", id="0000000a-0000-4000-8000-000000000000"),
    ),
    unchanged=2,
    refusal=Refusal(cause="unlisted", keys=("gone",)),
    notes=(
        Note(
            "unknown-here",
            "info",
            "`elsewhere` of this project is live at Polar; neither this manifest nor this lockfile knows it: applied from another branch or manifest, or the lockfile was lost",
            "polar",
            data={
                "meters": [
                    {
                        "id": "0000000f-0000-4000-8000-000000000000",
                        "name": "Of another branch",
                        "marker": "acme/elsewhere",
                    }
                ]
            },
            key="elsewhere",
        ),
    ),
    manifest="meters.yaml",
    lockfile="meters.sandbox.lock.json",
)


@pytest.mark.parametrize(("name", "expected"), [("plan-1.json", FORMAT_1), ("plan-2.json", FORMAT_2)])
def test_a_plan_of_an_earlier_version_is_read_with_the_same_meaning(name: str, expected: Plan) -> None:
    plan = read_plan(FORMATS / name)
    assert plan == expected
    assert plan_json(plan) == plan_json(expected)
    assert plan.digest == json.loads((FORMATS / name).read_text(encoding="utf-8"))["digest"]


def test_a_plan_of_the_current_format_is_written_as_it_was() -> None:
    text = (FORMATS / "plan-2.json").read_text(encoding="utf-8")
    assert plan_json(FORMAT_2) == text
    assert plan_json(read_plan(FORMATS / "plan-2.json")) == text
