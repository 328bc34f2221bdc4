"""Entries at the top of the manifest that are done everywhere, and can go."""

from __future__ import annotations

from typing import Any

import pytest

from polar_iac.manifest.done import done_entries
from polar_iac.meter.record import Record
from tests.support.build import desired, identifier, meter, record

TOP: dict[str, Any] = {
    "removed": [{"from": "exports"}],
    "moved": [{"from": "old", "to": "calls"}],
    "import": [{"to": "calls", "id": {"sandbox": identifier(1), "production": identifier(2)}}],
}
ALL = ["the removal of `exports` is done", "the move from `old` is done", "the import of `calls` is done"]
"""In the order of the file."""


def done(recorded: dict[str, dict[str, Record]]) -> list[str]:
    return [sentence for _, sentence in done_entries(desired({"calls": meter()}, **TOP), recorded)]


def test_what_every_lockfile_has_is_done() -> None:
    assert done({"sandbox": {"calls": record(1)}, "production": {"calls": record(2)}}) == ALL


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ({"calls": record(2), "exports": record(3)}, ALL[0]),
        ({"calls": record(2), "old": record(3)}, ALL[1]),
        ({}, ALL[2]),
        ({"calls": record(3)}, ALL[2]),
        ({"calls": Record(identifier(2), None)}, ALL[2]),
    ],
    ids=["still recorded", "not moved", "not imported", "another meter", "never applied"],
)
def test_what_one_lockfile_has_not_is_left(records: dict[str, Record], left: str) -> None:
    recorded = {"sandbox": {"calls": record(1)}, "production": records}
    assert done(recorded) == [sentence for sentence in ALL if sentence != left]


def test_an_import_waits_for_each_environment_that_it_names() -> None:
    assert done({"sandbox": {"calls": record(1)}}) == ALL[:2]


@pytest.mark.parametrize(
    ("imported", "sentences"),
    [
        (2, ["all 2 entries of `import` are done"]),
        (1, ["the import of `a` is done"]),
    ],
    ids=["all of them", "one of two"],
)
def test_a_block_of_which_all_is_done_takes_one_sentence(imported: int, sentences: list[str]) -> None:
    keys = ["a", "b"]
    entries = [{"to": key, "id": {"sandbox": identifier(n)}} for n, key in enumerate(keys)]
    manifest = desired({key: meter() for key in keys}, **{"import": entries})
    recorded = {"sandbox": {key: record(n) for n, key in enumerate(keys[:imported])}}
    found = list(done_entries(manifest, recorded))
    assert [sentence for _, sentence in found] == sentences
    assert found[0][0] == manifest.imports[0].span


def test_without_a_lockfile_nothing_is_known_to_be_done() -> None:
    assert done({}) == []
