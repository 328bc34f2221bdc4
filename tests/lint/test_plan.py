"""Lint in a plan: the warnings of what a change creates or changes, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from polar_iac.plan.model import Note
from tests.support.build import desired, live, meter, plan, record

CLAUSES = [{"property": f"p{n}", "operator": "gt", "value": "5"} for n in range(8)]
QUOTED = meter(filter={"conjunction": "and", "clauses": CLAUSES})


def notes(block: Any, *meters: Any, recorded: bool = True, **top: Any) -> list[Note]:
    (change,) = plan(
        desired({"calls": block}, **top), {"calls": record(1)} if recorded else {}, meters
    ).changes
    return [note for note in change.notes if note.kind == "meaning"]


def test_similar_notes_are_summed_up_after_the_first_four() -> None:
    texts = [note.text for note in notes(QUOTED, live(1))]
    assert len(texts) == 5
    assert all(text.startswith("[PI201 quoted-number] `p") for text in texts[:4])
    assert texts[-1] == "4 more warnings like these"


def test_a_plan_notes_only_fields_that_change() -> None:
    renamed = {**QUOTED, "name": "Before"}
    assert notes(QUOTED, live(1, **renamed)) == []
    ((note,)) = notes({**QUOTED, "name": "After "}, live(1, **renamed))
    assert note.text.startswith("[PI601 white-space]")


def test_a_note_has_the_code_and_the_place_of_what_validate_shows() -> None:
    one = meter(filter={"conjunction": "and", "clauses": CLAUSES[:1]})
    (note,) = notes(one, recorded=False)
    assert (note.severity, note.source) == ("warning", "manifest")
    assert note.data == {
        "code": "PI201",
        "name": "quoted-number",
        "source": {"file": "meters.yaml", "line": 13, "column": 22},
    }


@pytest.mark.parametrize("top", [{"lint": {"ignore": ["quoted-number"]}}, {"lint": {"ignore": ["PI201"]}}])
def test_what_the_manifest_ignores_is_in_no_plan(top: dict[str, Any]) -> None:
    assert notes(QUOTED, live(1), **top) == []


def test_infos_are_in_no_plan() -> None:
    clauses = [{"property": "cached", "operator": "ne", "value": True}]
    assert notes(meter(filter={"conjunction": "and", "clauses": clauses}), live(1)) == []


def test_a_new_meter_is_compared_with_the_others() -> None:
    manifest = desired({"calls": meter(), "copy": meter(name="Copy")})
    (change,) = plan(manifest, {"calls": record(1)}, [live(1)]).changes
    assert [note.text.partition("]")[0] for note in change.notes if note.kind == "meaning"] == [
        "[PI501 equal-meters"
    ]
