"""Import of live meters into a manifest: keys, second environments, near misses, and what is written."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.manifest import read as manifest
from polar_iac.manifest.adopt import Adoption, Surroundings, adopt, new_manifest, with_imports
from polar_iac.manifest.keys import keys_for, slug
from polar_iac.manifest.write import block, plain_filter
from polar_iac.meter.filter import Filter
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.spec import MeterSpec
from polar_iac.report.adoption import adoption_text, unowned_text
from tests.support import strategies
from tests.support.build import identifier, live, meter, plan, spec, spec_of
from tests.support.styled_yaml import manifests

FILE = "meters.yaml"
SAMPLE = Path(__file__).parents[3] / "shared" / "wire" / "sample.json"
ARCHIVED = "2026-02-01T00:00:00.000000Z"
CALL = {"property": "name", "operator": "eq", "value": "call"}
OTHER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


def unowned(number: int, name: str = "API calls", **fields: Any) -> LiveMeter:
    return live(number, None, name=name, **fields)


def around(
    meters: Sequence[LiveMeter],
    text: str | None = None,
    environment: str = "sandbox",
    recorded: dict[str, str] | None = None,
) -> Surroundings:
    declared = manifest.load(text.encode(), FILE) if text else new_manifest("acme")
    return Surroundings(declared, environment, recorded or {}, meters)


def imported(meters: Sequence[LiveMeter], text: str | None = None, environment: str = "sandbox") -> str:
    """The manifest after an import of all meters."""
    found = around(meters, text, environment)
    adoption = adopt(found, found.unowned)
    return with_imports((text and text.encode()) or None, found.manifest, environment, adoption).decode()


class TestKeys:
    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("LLM tokens (Pro)", "llm-tokens-pro"),
            ("Größe/Volumen", "groe-volumen"),
            ("api_calls", "api_calls"),
            ("  -- 5 GB  ", "5-gb"),
            ("x" * 70, "x" * 63),
            ("日本語", ""),
        ],
    )
    def test_a_key_comes_from_the_name(self, name: str, key: str) -> None:
        assert slug(name) == key

    def test_keys_of_one_name_are_numbered_by_age_and_avoid_those_taken(self) -> None:
        meters = [unowned(3), unowned(1), unowned(2), unowned(4, "日本語"), unowned(5, "Images")]
        assert keys_for(meters, {"images", "api-calls-2"}) == {
            identifier(1): "api-calls",
            identifier(2): "api-calls-3",
            identifier(3): "api-calls-4",
            identifier(4): "meter-00000004",
            identifier(5): "images-2",
        }

    def test_a_key_does_not_depend_on_what_is_imported_with_it(self) -> None:
        found = around([unowned(1), unowned(2, filter=OTHER)])
        assert [*adopt(found, found.unowned[1:]).new] == ["api-calls-2"]

    def test_former_keys_are_not_used_again(self) -> None:
        text = (
            "version: 1\nproject: acme\nmoved: [{from: api-calls, to: b}]\nremoved: [{from: images}]\n"
            "meters: {}\n"
        )
        found = around([unowned(1), unowned(2, "Images")], text)
        assert [*adopt(found, found.unowned).new] == ["api-calls-2", "images-2"]

    @given(st.lists(st.text(max_size=70), max_size=6))
    def test_every_key_can_be_declared_and_no_two_are_equal(self, names: list[str]) -> None:
        meters = [
            dataclasses.replace(unowned(number), spec=None, label=name) for number, name in enumerate(names)
        ]
        keys = [*keys_for(meters, {"a"}).values()]
        assert len({*keys, "a"}) == len(keys) + 1
        assert all(slug(key) == key for key in keys)


class TestUnowned:
    def test_meters_with_a_marker_a_record_or_an_entry_have_an_owner(self) -> None:
        text = (
            f"version: 1\nproject: acme\nimport: [{{to: a, id: {{sandbox: {identifier(4)}}}}}]\n"
            f"meters: {{a: {json.dumps(meter())}}}\n"
        )
        meters = [live(1, "b"), live(2, "x", project="other"), *(unowned(n) for n in (3, 4, 5))]
        found = around(meters, text, recorded={"b": identifier(3)})
        assert [m.id for m in found.unowned] == [identifier(5)]
        assert around(meters, text, "production").unowned == meters[2:]

    def test_the_list_says_what_each_one_counts(self) -> None:
        meters = [
            unowned(1, unit="custom", custom_label="GB", custom_multiplier=1000),
            unowned(2, "Users", aggregation={"func": "unique", "property": "user"}, archived_at=ARCHIVED),
        ]
        assert unowned_text(meters, {identifier(1): 1234.5, identifier(2): None}, 30) == (
            f'{identifier(1)}  "API calls"\n    count over name = "call"\n'
            '    unit "GB" × 1,000, created 2026-01-01, usage in the last 30 days: 1,234.5\n'
            f'{identifier(2)}  "Users"\n    unique(user) over name = "call"\n'
            "    unit scalar, created 2026-01-01, archived 2026-02-01, usage of all time: unknown\n"
        )


class TestWriting:
    def test_a_manifest_that_is_not_there_is_made(self) -> None:
        group = {"conjunction": "or", "clauses": [CALL, {"property": "size", "operator": "gt", "value": 5}]}
        meters = [
            unowned(1, filter={"conjunction": "and", "clauses": [{"conjunction": "or", "clauses": [CALL]}]}),
            unowned(2, "yes", filter=group, metadata={"5": "5", "team": "ai"}),
        ]
        assert imported(meters) == (
            "version: 1\n"
            "project: acme\n"
            "\n"
            "import:\n"
            f"  - {{to: api-calls, id: {{sandbox: {identifier(1)}}}}}\n"
            f"  - {{to: yes, id: {{sandbox: {identifier(2)}}}}}\n".replace("to: yes", 'to: "yes"')
            + "\n"
            "meters:\n"
            "  api-calls:\n"
            "    name: API calls\n"
            "    filter:\n"
            "      conjunction: and\n"
            "      clauses:\n"
            "        - {property: name, operator: eq, value: call}\n"
            "    aggregation: {func: count}\n"
            "\n"
            '  "yes":\n'
            '    name: "yes"\n'
            "    filter:\n"
            "      conjunction: or\n"
            "      clauses:\n"
            "        - {property: name, operator: eq, value: call}\n"
            "        - {property: size, operator: gt, value: 5}\n"
            "    aggregation: {func: count}\n"
            '    metadata: {"5": "5", team: ai}\n'
        )

    def test_a_second_import_finds_nothing(self) -> None:
        meters = [unowned(1), unowned(2)]
        assert around(meters, imported(meters)).unowned == []

    def test_an_archived_meter_is_declared_as_archived(self) -> None:
        assert "    archived: true\n    name: API calls\n" in imported([unowned(1, archived_at=ARCHIVED)])

    @given(strategies.filters)
    def test_a_plain_filter_means_the_same(self, data: dict[str, Any]) -> None:
        written = Filter.from_json(data)
        assert plain_filter(written).canonical() == written.canonical()

    @given(data=st.data())
    def test_blocks_and_entries_are_put_into_a_manifest_in_any_style(self, data: st.DataObject) -> None:
        declared = data.draw(
            st.dictionaries(st.sampled_from(strategies.KEYS), strategies.blocks(), max_size=2)
        )
        entries = [{"to": key, "id": {"production": identifier(50)}} for key in [*declared][:1]]
        source = data.draw(manifests(declared, {"import": entries} if entries else {}))
        specs = data.draw(st.lists(strategies.specs(), min_size=1, max_size=3))
        meters = [
            dataclasses.replace(unowned(number), spec=spec(**fields))
            for number, fields in enumerate(specs, 1)
        ]
        before = manifest.load(source, FILE)
        found = Surroundings(before, "sandbox", {}, meters)
        adoption = adopt(found, meters)
        assert not adoption.left_out
        text = with_imports(source, before, "sandbox", adoption)
        after = manifest.load(text, FILE)
        assert after.imported("sandbox").keys() == adoption.imported.keys()
        assert {key: id_ for key, (id_, _) in after.imported("sandbox").items()} == {
            key: m.id for key, m in adoption.imported.items()
        }
        assert after.imported("production").keys() == before.imported("production").keys()
        assert after.specs == {**before.specs, **{key: spec_of(m) for key, m in adoption.new.items()}}
        # Every byte that was there still is, in order, but for the sign that there are no meters.
        rest = iter(text)
        assert all(byte in rest for byte in re.sub(rb" \{ *\}", b"", source))

    @pytest.mark.skipif(not SAMPLE.exists(), reason="no recorded exchanges here")
    def test_every_meter_of_the_recorded_exchanges_can_be_written(self) -> None:
        meters = recorded_meters()
        assert len(meters) > 100
        found = around(meters)
        adoption = adopt(found, found.unowned)
        text = with_imports(None, found.manifest, "sandbox", adoption)
        assert manifest.load(text, FILE).specs == {key: spec_of(m) for key, m in adoption.new.items()}
        assert adoption.left_out == ()


def recorded_meters() -> list[LiveMeter]:
    """Every meter that Polar answered with in the recorded exchanges, active and without a marker."""
    from polar_iac.polar.answers import meter_from

    seen: dict[str, LiveMeter] = {}
    unread: list[Any] = [json.loads(SAMPLE.read_text("utf-8"))]
    while unread:
        part = unread.pop()
        if isinstance(part, dict) and {"aggregation", "archived_at", "created_at"} <= part.keys():
            number = len(seen) + 1
            ids = {"id": identifier(number), "organization_id": identifier(0), "archived_at": None}
            text = json.dumps([part["name"], part["filter"], part["aggregation"], part["metadata"]])
            if text not in seen:
                seen[text] = meter_from({**part, **ids, "created_at": "2026-01-01T00:00:00Z"})
        elif isinstance(part, dict | list):
            unread += part.values() if isinstance(part, dict) else part
    return [*seen.values()]


@st.composite
def held(draw: st.DrawFn) -> dict[str, Any]:
    """A meter as the API can hold it: also what no create makes today, but an earlier one or a PATCH did."""
    fields = draw(strategies.specs())
    if draw(st.booleans()):
        fields |= {
            "name": draw(
                st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3)
            ),
            "unit": draw(st.sampled_from(["scalar", "token", "custom"])),
            "custom_label": draw(st.sampled_from([None, "GB", "yes"])),
            "custom_multiplier": draw(st.sampled_from([None, 1, 2**63 - 1])),
        }
    if draw(st.booleans()):
        fields["metadata"] = {f"key {n}": n for n in range(draw(st.integers(48, 50)))}
    wrapped = draw(st.integers(0, 2))
    for _ in range(wrapped):
        conjunction = draw(st.sampled_from(["and", "or"]))
        fields["filter"] = {"conjunction": conjunction, "clauses": [fields["filter"]]}
    return fields


@given(st.lists(held(), min_size=1, max_size=4))
def test_whatever_the_api_holds_is_imported_and_gets_a_marker_and_nothing_else(
    fields: list[dict[str, Any]],
) -> None:
    meters = [dataclasses.replace(unowned(n), spec=MeterSpec.from_json(f)) for n, f in enumerate(fields, 1)]
    found = around(meters)
    adoption = adopt(found, meters)
    assert (len(adoption.new), adoption.left_out) == (len(meters), ())
    text = with_imports(None, found.manifest, "sandbox", adoption)
    planned = plan(manifest.load(text, FILE), {}, meters)
    assert {(c.action, c.reason, c.id, c.fields) for c in planned.changes} == {
        ("mark", "adopted", m.id, ()) for m in meters if len(spec_of(m).metadata) < 50
    }
    # One without room for a marker is recorded alone.
    full = {m.id for m in meters if len(spec_of(m).metadata) == 50}
    assert {(entry.action, entry.id) for entry in planned.bookkeeping} == {("adopt", id_) for id_ in full}


class TestASecondEnvironment:
    def both(self, *others: LiveMeter) -> tuple[str, Surroundings]:
        production = [
            live(11, None, name="API calls"),
            live(12, None, name="Tokens", filter=OTHER, aggregation={"func": "sum", "property": "tokens"}),
        ]
        text = imported(production, environment="production")
        return text, around(others, text)

    def test_the_same_name_and_meaning_is_the_same_key(self) -> None:
        group = {"conjunction": "or", "clauses": [CALL]}
        calls = unowned(1, filter={"conjunction": "and", "clauses": [group]}, unit="token")
        tokens = unowned(2, "Tokens", filter=OTHER, aggregation={"func": "sum", "property": "tokens"})
        text, found = self.both(calls, tokens)
        adoption = adopt(found, found.unowned)
        assert adoption == Adoption(known={"api-calls": calls, "tokens": tokens})
        after = with_imports(text.encode(), found.manifest, "sandbox", adoption).decode()
        assert after == text.replace(
            f"production: {identifier(11)}}}", f"production: {identifier(11)}, sandbox: {identifier(1)}}}"
        ).replace(
            f"production: {identifier(12)}}}", f"production: {identifier(12)}, sandbox: {identifier(2)}}}"
        )

    def test_a_key_without_an_entry_gets_one(self) -> None:
        text = f"version: 1\nproject: acme\nmeters:\n{block('calls', spec())}"
        after = imported([unowned(1)], text)
        assert after == text.replace(
            "meters:", f"import:\n  - {{to: calls, id: {{sandbox: {identifier(1)}}}}}\nmeters:"
        )

    @pytest.mark.parametrize(
        ("meter_", "likeness"),
        [
            (unowned(1, filter=OTHER), "name"),
            (unowned(1, "Calls of the API"), "meaning"),
        ],
    )
    def test_a_near_miss_is_listed_with_both_ways_to_go_on(self, meter_: LiveMeter, likeness: str) -> None:
        _, found = self.both(meter_)
        adoption = adopt(found, found.unowned)
        assert adoption.imported == {}
        (miss,) = adoption.near
        assert (miss.meter, miss.likeness, miss.keys) == (meter_, likeness, ("api-calls",))
        text = adoption_text(adoption, "polar-iac import -e sandbox", "Imported")
        assert f"if it is the same meter:  polar-iac import -e sandbox {meter_.id} --key api-calls\n" in text
        assert (
            f"if it is another meter:   polar-iac import -e sandbox {meter_.id} --key {miss.new_key}\n"
            in text
        )
        assert adopt(found, [meter_], "api-calls") == Adoption(known={"api-calls": meter_})
        assert adopt(found, [meter_], miss.new_key) == Adoption(new={miss.new_key: meter_})

    def test_of_two_that_fit_none_is_guessed(self) -> None:
        _, found = self.both(unowned(1), unowned(2))
        adoption = adopt(found, found.unowned)
        assert adoption.imported == {}
        assert [(miss.likeness, miss.keys) for miss in adoption.near] == [("several", ("api-calls",))] * 2

    def test_a_key_of_other_environments_is_never_the_same(self) -> None:
        declared = json.dumps(meter(environments=["production"]))
        text = f"version: 1\nproject: acme\nmeters: {{calls: {declared}}}\n"
        alike, named, counting = unowned(1), unowned(2, filter=OTHER), unowned(3, "Calls of the API")
        found = around([alike, named, counting], text)
        adoption = adopt(found, found.unowned)
        assert adoption.known == {}
        assert adoption.new == {"api-calls-2": named, "calls-of-the-api": counting}
        assert [(m.meter, m.likeness, m.keys, m.new_key) for m in adoption.near] == [
            (alike, "elsewhere", ("calls",), "api-calls")
        ]
        listed = adoption_text(adoption, "polar-iac import -e sandbox", "Imported")
        assert "add this environment to the `environments` of `calls`, and import it again\n" in listed
        assert adopt(around([alike], text, "production"), [alike]).known == {"calls": alike}

    def test_a_key_that_has_a_meter_here_resembles_nothing(self) -> None:
        text, _ = self.both()
        found = around([unowned(1), live(2, "tokens")], text, recorded={"api-calls": identifier(9)})
        assert [*adopt(found, found.unowned).new] == ["api-calls-2"]


class TestLeftOut:
    def test_a_meter_with_unknown_parts(self) -> None:
        found = around([dataclasses.replace(unowned(1), spec=None, label="Calls")])
        ((meter_, reason),) = adopt(found, found.unowned).left_out
        assert (meter_.id, "does not know" in reason) == (identifier(1), True)

    def test_a_meter_that_no_manifest_can_declare_leaves_the_others(self) -> None:
        # A PATCH takes it (observed), and then Polar cannot compute the meter.
        ordered = {"conjunction": "and", "clauses": [{"property": "paid", "operator": "gt", "value": True}]}
        found = around([unowned(1, filter=ordered), unowned(2, "Images")])
        adoption = adopt(found, found.unowned)
        assert [*adoption.new] == ["images"]
        ((meter_, reason),) = adoption.left_out
        assert meter_.id == identifier(1)
        assert "gt cannot compare with true or false" in reason
