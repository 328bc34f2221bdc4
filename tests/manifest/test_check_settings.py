"""Block `checks`. What is wrong in it has golden files, as every part of the manifest has."""

from __future__ import annotations

from typing import Any

from polar_iac.manifest.model import CheckSettings
from tests.support.build import desired, meter


def test_what_is_left_out_is_read() -> None:
    block = {"uncounted": {"ignore": ["page.view", "page.view", "é" * 128]}, "idle": {"ignore": ["exports"]}}
    read = desired({"exports": meter()}, checks=block).checks
    assert read == CheckSettings(frozenset({"page.view", "é" * 128}), frozenset({"exports"}))


def test_without_the_block_nothing_is_left_out() -> None:
    blocks: list[dict[str, Any]] = [{}, {"checks": {}}, {"checks": {"uncounted": {"ignore": []}}}]
    for block in blocks:
        assert desired({"exports": meter()}, **block).checks == CheckSettings()
