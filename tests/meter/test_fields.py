"""The table of fields, paths to fields, and ownership markers."""

from __future__ import annotations

import dataclasses

import pytest

from polar_iac.meter.fields import FIELDS, FROZEN_FIELDS, IGNORABLE, IMPACT, FieldPath
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.spec import MeterSpec
from tests.support.build import spec


def test_the_table_has_exactly_the_fields_of_a_spec() -> None:
    assert {field.name for field in dataclasses.fields(MeterSpec)} == set(FIELDS)
    assert list(spec().canonical) == list(FIELDS)


def test_derived_names_are_in_display_order() -> None:
    names = ["filter", "aggregation", "name", "unit", "custom_label", "custom_multiplier", "metadata"]
    assert list(IMPACT) == names
    assert FROZEN_FIELDS == ("filter", "aggregation")
    assert IGNORABLE == ("name", "unit", "metadata")


@pytest.mark.parametrize(
    ("name", "label", "short"),
    [
        ("unit", "unit", "unit"),
        ("custom_label", "unit label", "label"),
        ("custom_multiplier", "unit multiplier", "multiplier"),
    ],
)
def test_a_field_has_its_label_and_short_label(name: str, label: str, short: str) -> None:
    assert (FIELDS[name].label, FIELDS[name].short_label) == (label, short)


def test_only_fields_that_differ_from_the_defaults_are_declared() -> None:
    required = {"name", "filter", "aggregation"}
    assert spec().declared().keys() == spec().created_by_path.keys() == required
    more = spec(unit="token", custom_multiplier=1, metadata={"a": 1}, archived=True)
    assert more.declared().keys() == required | {"unit", "custom_multiplier", "metadata", "archived"}
    assert more.create_body("acme/a").keys() == required | {"unit", "custom_multiplier", "metadata"}
    assert more.created_by_path.keys() == required | {"unit", "custom_multiplier", "metadata.a"}


def test_a_required_field_is_declared_whatever_its_value() -> None:
    assert "name" in spec(name="scalar").created_by_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unit", FieldPath("unit")),
        ("metadata", FieldPath("metadata")),
        ("metadata.a", FieldPath("metadata", "a")),
        ("metadata.a.b", FieldPath("metadata", "a.b")),
        ("metadata.", FieldPath("metadata", "")),
    ],
)
def test_a_path_is_read_and_written(text: str, path: FieldPath) -> None:
    assert FieldPath.parse(text) == path
    assert str(path) == text


def test_paths_sort_in_display_order_and_metadata_by_key() -> None:
    texts = ["metadata.b", "custom_label", "metadata.a", "name", "filter"]
    expected = ["filter", "name", "custom_label", "metadata.a", "metadata.b"]
    assert [str(path) for path in sorted(map(FieldPath.parse, texts))] == expected


@pytest.mark.parametrize(
    ("text", "ignored", "expected"),
    [
        ("name", {"name"}, True),
        ("name", {"unit"}, False),
        ("custom_label", {"unit"}, True),
        ("metadata.a", {"metadata"}, True),
        ("metadata.a", {"metadata.a"}, True),
        ("metadata.a", {"metadata.b"}, False),
        ("filter", {"name", "unit", "metadata"}, False),
    ],
)
def test_ignore_changes_covers_a_field_and_its_parts(text: str, ignored: set[str], expected: bool) -> None:
    assert FieldPath.parse(text).is_ignored(ignored) is expected


@pytest.mark.parametrize("text", ["acme/a", "acme/a/b", "/a"])
def test_a_marker_is_read_and_written(text: str) -> None:
    assert str(OwnershipMarker.parse(text)) == text


@pytest.mark.parametrize("text", [None, "", "acme", "acme/"])
def test_other_texts_are_not_markers(text: str | None) -> None:
    assert OwnershipMarker.parse(text) is None
