"""Blocked meters of a pull request: which of them its check fails for."""

from __future__ import annotations

from polar_iac.ci.blocked import base_manifest, changed_keys
from polar_iac.manifest.model import Manifest
from tests.support.build import identifier, manifest_text, meter

YAML = """version: 1
project: acme
x-count: &count {func: FUNC}
meters:
  calls:
    name: Calls
    filter: {conjunction: and, clauses: []}
    aggregation: *count
  images: {name: Images, filter: {conjunction: and, clauses: []}, aggregation: {func: count}}
"""


def read(text: str) -> Manifest:
    found = base_manifest(text.encode(), "meters.yaml")
    assert found is not None
    return found


def test_what_a_block_means_is_compared() -> None:
    keys = {"calls", "images"}
    base = read(YAML.replace("FUNC", "count"))
    commented = read(YAML.replace("FUNC", "count").replace("meters:", "# more\nmeters:"))
    anchored = read(YAML.replace("FUNC", "sum, property: tokens"))
    assert changed_keys(keys, base, commented) == set()
    assert changed_keys(keys, base, anchored) == {"calls"}


def test_a_block_that_came_went_or_ignores_something_else_is_changed() -> None:
    base = read(manifest_text({"gone": meter(), "left": meter(metadata={"key": "left"})}))
    left = meter(metadata={"key": "left"}, lifecycle={"ignore_changes": ["name"]})
    head = read(manifest_text({"new": meter(), "left": left}))
    assert changed_keys({"gone", "new", "left", "nobody"}, base, head) == {"gone", "new", "left"}


def test_a_key_that_an_entry_at_the_top_names_now_is_changed() -> None:
    meters = {"calls": meter(), "tokens": meter()}
    entries = [{"to": "calls", "id": {"sandbox": identifier(1)}}]
    base = read(manifest_text(meters, **{"import": entries}))
    head = read(
        manifest_text(
            meters,
            removed=[{"from": "gone"}],
            **{"import": [*entries, {"to": "tokens", "id": {"sandbox": identifier(2)}}]},
        ),
    )
    assert changed_keys({"calls", "tokens", "gone", "nobody"}, base, head) == {"tokens", "gone"}


def test_without_a_manifest_at_the_merge_base_each_block_is_changed() -> None:
    head = read(manifest_text({"calls": meter()}))
    assert base_manifest(None, "none.yaml") is None
    assert base_manifest(b"version: 7\n", "odd.yaml") is None
    assert changed_keys({"calls"}, None, head) == {"calls"}
