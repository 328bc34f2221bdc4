"""The JSON Schema of the manifest, held against the reader: both take, and both refuse, the same meters."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

import polar_iac.manifest
from polar_iac.errors import DiagnosticError
from polar_iac.manifest import read as manifest
from polar_iac.manifest.schema import manifest_schema, schema_json
from polar_iac.meter.fields import FIELDS
from tests.manifest.test_manifest import MANIFESTS, METERS, RIGHT, WRONG
from tests.support.build import manifest_text, meter
from tests.support.golden import golden

SCHEMA = manifest_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
SHIPPED = Path(polar_iac.manifest.__file__).parent / "meters.schema.json"

UNSEEN = {
    "checks-of-no-meter": "other entries",
    "conflict-markers": "where a text comes from",
    "environments-that-collide": "other entries",
    "filter-of-127-levels-and-a-clause": "levels",
    "filter-of-128-levels": "levels",
    "import": "other entries",
    "import-removed": "other entries",
    "moved": "other entries",
    "moved-in-a-circle": "other entries",
    "removed": "other entries",
    "url-between-brackets": "how a text is written",
    "version-fraction": "1.0 is the number 1 in JSON",
}
"""Wrong manifests whose fault no schema can express, and what it would have to see."""


EMPTY = {"empty", "only-comments", "only-null"}
"""Wrong manifests that are null to an editor."""

HALVES = {"surrogate-pair", "surrogates"}
"""Wrong manifests with half a character, which cannot be written as JSON in UTF-8."""


class _Constructor(SafeConstructor):
    """YAML 1.2 as editors read it: no dates."""


for tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge", "!"):
    _Constructor.add_constructor(tag, SafeConstructor.construct_yaml_str)


@pytest.fixture(autouse=True)
def _deep_enough() -> Iterator[None]:
    """Let jsonschema follow a filter of 127 levels."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


@cache
def as_editors_read(kind: str, name: str) -> Any:
    """A manifest as JSON data, or None for what is not YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return _with_text_keys(yaml.load((MANIFESTS / kind / f"{name}.yaml").read_bytes()))
    except (YAMLError, ValueError, RecursionError):
        return None


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    return [_with_text_keys(item) for item in data] if isinstance(data, list) else data


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")
def test_each_right_manifest_validates(name: str) -> None:
    VALIDATOR.validate(as_editors_read("right", name))


WRONG_YAML = sorted({*WRONG} - {"alias-bomb"})  # of which nobody reads every value


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", WRONG_YAML)
def test_each_wrong_manifest_fails_whose_fault_a_schema_can_express(name: str) -> None:
    data = as_editors_read("wrong", name)
    if data is not None or name in EMPTY:
        assert VALIDATOR.is_valid(data) == (name in UNSEEN)


def is_read(meters: Any) -> bool:
    try:
        manifest.load(manifest_text(meters).encode(), "meters.yaml")
    except DiagnosticError:
        return False
    return True


def agree(block: Any) -> None:
    """Hold that reader and schema say the same of one meter."""
    meters = {"calls": block}
    errors = list(VALIDATOR.iter_errors({"version": 1, "project": "acme", "meters": meters}))
    assert is_read(meters) == (not errors), errors


def meters_of(data: Any) -> Iterator[Any]:
    meters = data.get("meters") if isinstance(data, dict) else None
    yield from meters.values() if isinstance(meters, dict) else ()


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", [name for name in WRONG_YAML if name not in {*UNSEEN, *HALVES}])
def test_of_each_wrong_meter_the_reader_and_the_schema_say_the_same(name: str) -> None:
    for block in meters_of(as_editors_read("wrong", name)):
        agree(block)


PARTS: dict[str, list[Any]] = {
    "name": [None, "", "ab", "abc", 5],
    "unit": ["scalar", "token", "custom", "tokens", None],
    "custom_label": [None, "", "call", "a\0b", True],
    "custom_multiplier": [None, 0, 1, 1.0, 1.5, 2**63 - 1, 2**63, "1", True],
    "metadata": [{}, {"a": 1}, {"a" * 41: 1}, {"a": "x" * 501}, {"a": ""}, {"a": None}, {"polar_iac": "x"}],
    "archived": [True, False, 1, "true", None],
    "lifecycle": [
        {},
        {"ignore_changes": ["name", "metadata.a.b"]},
        {"ignore_changes": ["custom_label"]},
        {"ignore_changes": ["metadata."]},
        {"ignore_changes": ["metadata.polar_iac"]},
        {"ignore_changes": "name"},
        None,
    ],
    "aggregation": [
        {"func": "count"},
        {"func": "count", "property": "x"},
        {"func": "sum"},
        {"func": "sum", "property": "x"},
        {"property": "x"},
        [],
    ],
    "environments": [["sandbox"], [], ["sandbox", "sandbox"], ["Sandbox"], "sandbox", None],
    "other": [1],
}
"""Values of a meter's keys, right and wrong."""


@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in PARTS.items()}))
def test_of_any_meter_the_reader_and_the_schema_say_the_same(parts: dict[str, Any]) -> None:
    agree(meter(**parts))


CLAUSES = st.fixed_dictionaries(
    {},
    optional={
        "property": st.sampled_from(["name", "timestamp", "metadata.timestamp", "metadata.source", "x", 5]),
        "operator": st.sampled_from(["eq", "like", "gt", "in"]),
        "value": st.sampled_from(["x", "x" * 1001, 5, 1.0, 1.5, 2**31, True, False, None, ["a"]]),
        "conjunction": st.just("or"),
        "clauses": st.sampled_from([[], [{"property": "a", "operator": "eq", "value": 1}], [1], {}]),
    },
)


@given(st.fixed_dictionaries({"conjunction": st.sampled_from(["and", "not"]), "clauses": st.lists(CLAUSES)}))
def test_of_any_filter_the_reader_and_the_schema_say_the_same(filter_: dict[str, Any]) -> None:
    agree(meter(filter=filter_))


@given(METERS)
def test_whatever_meters_the_reader_takes_validate(meters: dict[str, Any]) -> None:
    VALIDATOR.validate({"version": 1, "project": "acme", "meters": meters})


def test_the_package_ships_the_schema() -> None:
    golden(SHIPPED, schema_json())
    jsonschema.Draft7Validator.check_schema(json.loads(SHIPPED.read_text(encoding="utf-8")))


def test_every_key_of_a_meter_has_a_description() -> None:
    properties = SCHEMA["definitions"]["meter"]["properties"]
    assert properties.keys() >= FIELDS.keys()
    assert all(properties[name]["description"] for name in properties)
