"""Changes that someone made at Polar, written into the manifest: only that, and all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polar_iac.manifest import read as manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.pull import Pulled, take
from polar_iac.report.pull import left_text
from polar_iac.yaml import tree
from tests.support import strategies
from tests.support.build import identifier, live, plan
from tests.support.styled_yaml import manifests

FILE = "meters.yaml"
MANIFEST = """\
version: 1
project: acme
x-ai: &ai {team: ai, pager: on-call}
meters:
  calls: # the first one
    name: "API calls" # on invoices
    metadata: *ai
    filter:
      conjunction: and
      clauses:
        - {property: metadata.kind, operator: eq, value: call} # our events
        - property: status # of the answer
          operator: lt
          value: 500
    aggregation: {func: sum, property: tokens} # not count
  tokens:
    name: Tokens
    unit: custom
    custom_label: token
    filter: {conjunction: and, clauses: []}
    aggregation: {func: count}
    metadata:
      <<: *ai
      tier: 2
"""
KIND = {"property": "kind", "operator": "eq", "value": "call"}
STATUS = {"property": "status", "operator": "lt", "value": 500}


def pulled(
    changes: Mapping[str, Mapping[str, Any]],
    *,
    text: str = MANIFEST,
    recorded: Mapping[str, MeterSpec] | None = None,
    elsewhere: Mapping[str, Mapping[str, Record]] | None = None,
    named: Sequence[str] = (),
) -> Pulled:
    """Pull after these fields were changed at Polar, from what the manifest declared."""
    specs = recorded or specs_of(MANIFEST)
    records = {key: Record(identifier(number), specs[key]) for number, key in enumerate(specs, 1)}
    meters = []
    for number, (key, spec) in enumerate(specs.items(), 1):
        data = {**spec.canonical, "archived": False, **changes.get(key, {})}
        archived_at = "2026-02-01T00:00:00.000000Z" if data.pop("archived") else None
        meters.append(live(number, key, archived_at=archived_at, **data))
    return take(text.encode(), FILE, lambda m: plan(m, records, meters), elsewhere or {}, named)


def difference(before: str, after: bytes) -> tuple[list[str], list[str]]:
    """The lines that went, and those that came."""
    old, new = before.splitlines(), after.decode().splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


class TestFields:
    def test_a_name_keeps_its_quotes_and_its_comment(self) -> None:
        done = pulled({"calls": {"name": "Calls: all"}})
        assert difference(MANIFEST, done.text) == (
            ['    name: "API calls" # on invoices'],
            ['    name: "Calls: all" # on invoices'],
        )
        assert done.count == 1

    def test_one_value_of_a_filter_leaves_the_others_as_they_are(self) -> None:
        conditions = {"conjunction": "and", "clauses": [KIND, STATUS | {"value": 400}]}
        done = pulled({"calls": {"filter": conditions}})
        assert difference(MANIFEST, done.text) == (["          value: 500"], ["          value: 400"])

    def test_a_clause_more_is_one_line_more(self) -> None:
        more = {"property": "x", "operator": "eq", "value": True}
        done = pulled({"calls": {"filter": {"conjunction": "and", "clauses": [KIND, STATUS, more]}}})
        assert difference(MANIFEST, done.text) == (
            [],
            ["        - {property: x, operator: eq, value: true}"],
        )

    def test_a_clause_less_is_one_line_less(self) -> None:
        done = pulled({"calls": {"filter": {"conjunction": "and", "clauses": [STATUS]}}})
        line = "        - {property: metadata.kind, operator: eq, value: call} # our events"
        assert difference(MANIFEST, done.text) == ([line], [])

    def test_the_groups_of_the_dashboard_are_not_written(self) -> None:
        group = {"conjunction": "or", "clauses": [KIND]}
        done = pulled({"tokens": {"filter": {"conjunction": "and", "clauses": [group]}}})
        assert difference(MANIFEST, done.text)[1] == [
            "    filter: {conjunction: and, clauses: [{property: kind, operator: eq, value: call}]}"
        ]

    def test_a_unit_goes_with_its_label(self) -> None:
        done = pulled({"tokens": {"unit": "token", "custom_label": None}})
        assert difference(MANIFEST, done.text) == (
            ["    unit: custom", "    custom_label: token"],
            ["    unit: token"],
        )

    def test_an_aggregation_loses_its_property(self) -> None:
        done = pulled({"calls": {"aggregation": {"func": "count"}}})
        assert b"    aggregation: {func: count} # not count" in done.text

    def test_metadata_of_an_anchor_are_overridden_at_the_meter(self) -> None:
        done = pulled({"calls": {"metadata": {"team": "core", "pager": "on-call"}}})
        assert difference(MANIFEST, done.text) == (
            ["    metadata: *ai"],
            ["    metadata: {team: core, pager: on-call}"],
        )

    def test_metadata_of_a_merge_key_are_overridden_beside_it(self) -> None:
        done = pulled({"tokens": {"metadata": {"team": "core", "pager": "on-call", "tier": 2}}})
        assert difference(MANIFEST, done.text) == ([], ["      team: core"])

    def test_what_others_added_is_theirs(self) -> None:
        metadata = {"team": "ai", "pager": "on-call", "tier": 2, "other": "x"}
        assert pulled({"tokens": {"metadata": metadata}}).text == MANIFEST.encode()

    def test_what_the_manifest_changed_is_not_taken_back(self) -> None:
        text = MANIFEST.replace("API calls", "Calls of the API")
        assert pulled({}, text=text).text == text.encode()


class TestDoubts:
    def test_a_field_that_both_sides_changed_is_left_unless_its_key_is_named(self) -> None:
        text = MANIFEST.replace("API calls", "Calls of the API")
        done = pulled({"calls": {"name": "Calls: all"}}, text=text)
        assert (done.text, done.count) == (text.encode(), 0)
        assert [(c.key, c.path, c.doubt) for c in done.left] == [
            ("calls", "name", "the manifest has changed it too")
        ]
        done = pulled({"calls": {"name": "Calls: all"}}, text=text, named=["calls"])
        assert b'name: "Calls: all" # on invoices' in done.text
        assert not done.left

    def test_a_field_that_another_environment_has_otherwise_is_left(self) -> None:
        specs = manifest.load(MANIFEST.encode(), FILE).specs
        elsewhere = {"production": {"calls": Record(identifier(9), specs["calls"])}}
        change = {"calls": {"name": "Calls: all"}, "tokens": {"name": "All tokens"}}
        done = pulled(change, elsewhere=elsewhere)
        assert [(c.key, c.doubt) for c in done.left] == [
            ("calls", "the lockfile of production records another value")
        ]
        assert difference(MANIFEST, done.text)[1] == ["    name: All tokens"]
        assert not pulled(change, elsewhere=elsewhere, named=["calls"]).left

    def test_a_field_that_another_environment_has_as_well_is_taken(self) -> None:
        spec = dataclasses.replace(manifest.load(MANIFEST.encode(), FILE).specs["calls"], name="Calls: all")
        elsewhere = {"production": {"calls": Record(identifier(9), spec)}}
        assert pulled({"calls": {"name": "Calls: all"}}, elsewhere=elsewhere).count == 1

    def test_archiving_is_left_unless_its_key_is_named(self) -> None:
        change = {"tokens": {"archived": True}}
        done = pulled(change)
        assert (done.text, [(c.path, c.doubt) for c in done.left]) == (
            MANIFEST.encode(),
            [("archived", "someone archived it")],
        )
        assert difference(MANIFEST, pulled(change, named=["tokens"]).text) == ([], ["    archived: true"])

    def test_after_an_unarchiving_the_fields_are_taken_too(self) -> None:
        text = MANIFEST.replace("  tokens:\n", "  tokens:\n    archived: true\n")
        archived = {
            key: dataclasses.replace(spec, archived=key == "tokens")
            for key, spec in manifest.load(MANIFEST.encode(), FILE).specs.items()
        }
        change = {"tokens": {"name": "All tokens"}}
        done = pulled(change, text=text, recorded=archived, named=["tokens"])
        assert done.text.decode() == MANIFEST.replace("name: Tokens", "name: All tokens")


class TestAnchorsAtAMeter:
    def test_others_keep_what_they_have_through_it(self) -> None:
        text = MANIFEST.replace("x-ai: &ai {team: ai, pager: on-call}\n", "")
        text = text.replace("metadata: *ai", "metadata: &ai {team: ai, pager: on-call}")
        done = pulled({"calls": {"metadata": {"team": "core", "pager": "on-call"}}}, text=text)
        assert not done.errors
        assert difference(text, done.text) == (
            ["    metadata: &ai {team: ai, pager: on-call}"],
            ["    metadata: &ai {team: core, pager: on-call}", "      team: ai"],
        )

    def test_what_cannot_be_written_is_an_error_at_its_place_in_the_file(self) -> None:
        text = MANIFEST.replace("  calls: #", "  calls: &calls #")
        text = text.replace("  tokens:\n", "  tokens:\n    <<: *calls\n")
        text = text.replace("    unit: custom\n    custom_label: token\n", "")
        done = pulled({"calls": {"name": "N ew", "unit": "token"}}, text=text, recorded=specs_of(text))
        assert b'name: "N ew"' in done.text
        assert [(c.key, c.path) for c in done.left] == []
        (error,) = done.errors
        (diagnostic,) = error.diagnostics
        assert (diagnostic.span.line, diagnostic.excerpt) == (5, text.splitlines()[4])
        assert "unit has another value at Polar" in diagnostic.message
        assert "&calls" in diagnostic.message


def specs_of(text: str) -> Mapping[str, MeterSpec]:
    return manifest.load(text.encode(), FILE).specs


@given(data=st.data())
def test_a_pull_leaves_nothing_that_was_changed_outside_and_no_other_byte_changes(
    data: st.DataObject,
) -> None:
    keys = st.sampled_from(strategies.KEYS)
    blocks = data.draw(st.dictionaries(keys, strategies.blocks(), min_size=1, max_size=3))
    within = data.draw(st.booleans())
    active = {key: {**block, "archived": False} for key, block in blocks.items()}
    source = data.draw(manifests(active, anchors_within=within))
    loaded = manifest.load(source, FILE)
    records, meters, touched = {}, list[LiveMeter](), set[str]()
    for number, (key, spec) in enumerate(loaded.specs.items(), 1):
        records[key] = Record(identifier(number), spec)
        changes = data.draw(edits())
        touched |= {key} if changes else set()
        fields = {name: value for name, value in spec.canonical.items() if name != "archived"}
        meters.append(live(number, key, **fields | changes))
    done = take(source, FILE, lambda m: plan(m, records, meters), {})
    edited = manifest.load(done.text, FILE)
    after = plan(edited, records, meters)
    differing = [f.path for change in after.changes for f in change.fields if f.origin != "manifest"]
    assert bool(differing) == bool(done.errors)
    for key, spec in loaded.specs.items():
        assert key in touched or edited.specs[key] == spec
    if not touched:
        assert done.text == source
    if within:
        return
    assert not done.errors
    # What is shared, and each meter that nobody changed, is as it was.
    assert isinstance(loaded.document.root, tree.Map)
    before, text = loaded.document.text, done.text.decode().lstrip("\ufeff")
    assert text.startswith(before[: loaded.document.root.key("meters").start])
    node = loaded.document.root.entries["meters"]
    assert isinstance(node, tree.Map)
    if node.end > node.start:
        return  # in brackets, where no comments are
    starts = [*(place.start for place in node.keys), len(before)]
    for place, start, end in zip(node.keys, starts, starts[1:], strict=False):
        if place.text not in touched:
            assert before[start:end].rstrip() in text


@st.composite
def edits(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of a meter that someone gave other values."""
    other = draw(strategies.specs())
    fields = draw(st.sets(st.sampled_from(["name", "filter", "aggregation", "metadata"])))
    changes = {field: other[field] for field in fields}
    if draw(st.booleans()):
        unit = {field: other[field] for field in ("custom_label", "custom_multiplier") if field in other}
        none = {"custom_label": None, "custom_multiplier": None}
        changes |= {"unit": other.get("unit", "scalar")} | none | unit
    return changes


def test_the_wording_of_what_is_left() -> None:
    done = pulled({"tokens": {"archived": True}})
    assert left_text(done.left, "polar-iac pull -e sandbox") == (
        "Left alone, 1 change at Polar:\n  tokens: archived: someone archived it\n"
        "To take what Polar has: polar-iac pull -e sandbox tokens\n"
    )
