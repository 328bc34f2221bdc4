"""Drift: what someone changed at Polar, and nothing that waits to be applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.drift import FieldDrift, MeterDrift, find_drift
from tests.support import strategies
from tests.support.build import desired, identifier, live, meter, plan, record

ARCHIVED_AT = "2026-03-01T00:00:00.000000Z"
CALLS = {"calls": meter()}
IMPORT: dict[str, Any] = {"import": [{"to": "calls", "id": {"sandbox": identifier(1)}}]}

drift_of = partial(find_drift, environment="sandbox")


def only(
    manifest: Manifest, recorded: Mapping[str, Record], meters: Sequence[LiveMeter], **options: Any
) -> MeterDrift:
    (found,) = drift_of(manifest, recorded, meters, **options)
    return found


def values(found: MeterDrift) -> dict[str, tuple[Any, Any]]:
    return {field.path: (field.recorded, field.live) for field in found.fields}


def test_what_waits_to_be_applied_is_no_drift() -> None:
    waiting = desired(
        {"calls": meter(name="Renamed"), "new": meter(), "off": meter(archived=True)},
        moved=[{"from": "old", "to": "new"}],
    )
    recorded = {"calls": record(1), "off": record(2), "old": record(3), "gone": record(4)}
    meters = [live(1), live(2, "off"), live(3, "old"), live(4, "gone")]
    assert plan(waiting, recorded, meters).wanted
    assert drift_of(waiting, recorded, meters) == ()


def test_each_field_is_shown_as_recorded_and_as_live() -> None:
    changed = live(1, name="Changed", aggregation={"func": "sum", "property": "tokens"}, metadata={"a": 2})
    found = only(desired(CALLS), {"calls": record(1, metadata={"a": 1, "b": "x"})}, [changed])
    assert values(found) == {
        "name": ("API calls", "Changed"),
        "aggregation": ({"func": "count"}, {"func": "sum", "property": "tokens"}),
        "metadata.a": (1, 2),
        "metadata.b": ("x", None),
    }
    assert {field.path: field.impact for field in found.fields}["aggregation"] == "billing"
    assert (found.key, found.id, found.name, found.listed) == ("calls", identifier(1), "Changed", True)


def test_what_the_manifest_says_by_now_is_drift_that_needs_no_change() -> None:
    """Also what an apply did and could not record."""
    manifest = desired({"calls": meter(name="Changed", unit="token")})
    found = only(manifest, {"calls": record(1)}, [live(1, name="Changed", unit="scalar", metadata={})])
    assert found.fields == (FieldDrift("name", "API calls", "Changed", "invoice", declared=True),)
    both = only(desired({"calls": meter(name="Other")}), {"calls": record(1)}, [live(1, name="Changed")])
    assert not both.fields[0].declared


def test_what_others_may_change_is_no_drift() -> None:
    ignoring = desired({"calls": meter(lifecycle={"ignore_changes": ["name"]})})
    assert drift_of(ignoring, {"calls": record(1)}, [live(1, name="Theirs")]) == ()
    unsent = replace(record(1), ignored=frozenset({"name"}))
    assert drift_of(desired(CALLS), {"calls": unsent}, [live(1, name="Theirs")]) == ()
    assert drift_of(desired(CALLS), {"calls": record(1)}, [live(1, metadata={"theirs": 1})]) == ()


@pytest.mark.parametrize("archived", [True, False])
def test_archiving_is_drift_both_ways(archived: bool) -> None:
    at = ARCHIVED_AT if archived else None
    found = only(
        desired({"calls": meter(archived=not archived)}),
        {"calls": record(1, archived=not archived)},
        [live(1, archived_at=at)],
    )
    assert found.fields == (FieldDrift("archived", not archived, archived, None, declared=False),)
    gone = only(desired({}), {"calls": record(1, archived=not archived)}, [live(1, archived_at=at)])
    assert not gone.listed
    assert values(gone) == {"archived": (not archived, archived)}


def test_fields_of_what_is_archived_are_not_compared() -> None:
    recorded = {"calls": record(1, archived=True)}
    changed = live(1, name="Changed", archived_at=ARCHIVED_AT)
    assert drift_of(desired({"calls": meter(archived=True)}), recorded, [changed]) == ()


def test_a_marker_that_was_taken_off_is_drift() -> None:
    found = only(desired(CALLS), {"calls": record(1)}, [live(1, None)])
    assert values(found) == {"marker": ("acme/calls", None)}
    full = {f"key{number}": number for number in range(50)}
    without_room = drift_of(desired(CALLS), {"calls": record(1)}, [live(1, None, metadata=full)])
    assert without_room == ()


def test_a_move_that_an_apply_could_not_record_is_no_drift() -> None:
    moved = desired({"new": meter()}, moved=[{"from": "calls", "to": "new"}])
    for marked in ("calls", "new"):
        assert drift_of(moved, {"calls": record(1)}, [live(1, marked)]) == ()
    assert only(moved, {"calls": record(1)}, [live(1, "new", name="Changed")]).key == "new"


@pytest.mark.parametrize(
    ("meters", "cause"),
    [
        ([live(1, "other")], "mismatch"),
        ([live(1), live(2)], "duplicates"),
        ([live(9, None)], "unknown-id"),
        ([replace(live(1), spec=None, label="Theirs")], "unknown-parts"),
    ],
)
def test_a_meter_that_cannot_be_compared_is_drift_with_its_reason(
    meters: list[LiveMeter], cause: str
) -> None:
    found = only(desired(CALLS), {"calls": record(1)}, meters)
    assert (found.cause, found.fields) == (cause, ())
    assert found.reason


def test_what_this_machine_made_twice_is_settled_and_no_drift() -> None:
    made = Made(created=frozenset({identifier(2)}))
    assert drift_of(desired(CALLS), {"calls": record(1)}, [live(1), live(2)], made=made) == ()
    assert drift_of(desired(CALLS), {"calls": record(2)}, [live(1), live(2)], made=made) == ()


def test_what_is_not_recorded_or_was_handed_over_is_no_drift() -> None:
    assert drift_of(desired(CALLS), {}, [live(1)]) == ()
    assert drift_of(desired(CALLS), {"calls": replace(record(1), spec=None)}, [live(1, name="Any")]) == ()
    handed_over = [live(1), live(2, "images", project="other")]
    recorded = {"calls": record(1), "images": record(2)}
    assert drift_of(desired(CALLS), recorded, handed_over) == ()
    gone = {"calls": record(1), "images": record(3)}
    assert drift_of(desired(CALLS), gone, [live(1)]) == ()


@given(strategies.specs(), st.sampled_from([{}, CALLS, {"calls": meter(archived=True)}]), st.booleans())
def test_nothing_drifts_by_itself(fields: dict[str, Any], declared: Any, archived: bool) -> None:
    """Whatever the manifest says, a meter that is as it was recorded has not drifted."""
    spec = MeterSpec.from_json({**fields, "archived": archived})
    shown = replace(live(1), spec=spec, archived_at=ARCHIVED_AT if archived else None)
    assert drift_of(desired(declared), {"calls": Record(identifier(1), spec)}, [shown]) == ()


@pytest.mark.parametrize(
    "there",
    [[live(1, None)], [live(1, None, name="Otherwise")], [live(1, "other")], []],
    ids=["as it is", "with an update", "another key's", "unknown"],
)
def test_a_meter_that_waits_to_be_taken_over_is_no_drift(there: list[LiveMeter]) -> None:
    waiting = desired(CALLS, **IMPORT)
    assert plan(waiting, {}, there).changes
    assert drift_of(waiting, {}, there) == ()


def test_an_entry_that_names_another_meter_than_the_record_is_no_drift() -> None:
    wrong = desired(CALLS, **IMPORT)
    meters = [live(2), live(1, None)]
    assert [change.cause for change in plan(wrong, {"calls": record(2)}, meters).changes] == ["import"]
    assert drift_of(wrong, {"calls": record(2)}, meters) == ()


@pytest.mark.parametrize("there", [live(1), live(1, None), live(1, name="Otherwise")])
def test_a_meter_that_waits_to_be_released_is_no_drift(there: LiveMeter) -> None:
    released = desired({}, removed=[{"from": "calls"}])
    assert drift_of(released, {"calls": record(1)}, [there]) == ()


def test_a_marker_that_was_taken_off_is_drift_although_the_meter_was_imported_once() -> None:
    found = drift_of(desired(CALLS, **IMPORT), {"calls": record(1)}, [live(1, None)])
    assert [field.path for meter in found for field in meter.fields] == ["marker"]
