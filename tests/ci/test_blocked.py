"""Blocked meters of a pull request: which of them its check fails for."""

from __future__ import annotations

from pathlib import Path

from polar_iac.ci.blocked import base_manifest, changed_keys
from polar_iac.manifest.model import Manifest
from tests.support.build import manifest_text, meter

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


def read(tmp_path: Path, text: str) -> Manifest:
    file = tmp_path / "meters.yaml"
    file.write_text(text, encoding="utf-8")
    found = base_manifest(file)
    assert found is not None
    return found


def test_what_a_block_means_is_compared(tmp_path: Path) -> None:
    keys = {"calls", "images"}
    base = read(tmp_path, YAML.replace("FUNC", "count"))
    commented = read(tmp_path, YAML.replace("FUNC", "count").replace("meters:", "# more\nmeters:"))
    anchored = read(tmp_path, YAML.replace("FUNC", "sum, property: tokens"))
    assert changed_keys(keys, base, commented) == set()
    assert changed_keys(keys, base, anchored) == {"calls"}


def test_a_block_that_came_went_or_ignores_something_else_is_changed(tmp_path: Path) -> None:
    base = read(tmp_path, manifest_text({"gone": meter(), "left": meter(metadata={"key": "left"})}))
    left = meter(metadata={"key": "left"}, lifecycle={"ignore_changes": ["name"]})
    head = read(tmp_path, manifest_text({"new": meter(), "left": left}))
    assert changed_keys({"gone", "new", "left", "nobody"}, base, head) == {"gone", "new", "left"}


def test_without_a_manifest_at_the_merge_base_each_block_is_changed(tmp_path: Path) -> None:
    head = read(tmp_path, manifest_text({"calls": meter()}))
    assert base_manifest(tmp_path / "none.yaml") is None
    (tmp_path / "odd.yaml").write_text("version: 7\n")
    assert base_manifest(tmp_path / "odd.yaml") is None
    assert changed_keys({"calls"}, None, head) == {"calls"}
