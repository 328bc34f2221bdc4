"""Meters that change hands: `import` takes them over, `removed` lets them go, and nobody's keys are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polar_iac.apply.events import Applied, Failed, Skipped
from polar_iac.apply.executor import execute
from polar_iac.clock import Stop
from polar_iac.manifest.model import Manifest
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.plan.model import Plan
from polar_iac.state.journal import Journal
from tests.support.build import PROJECT, desired, meter, spec_of
from tests.support.served_polar import Served
from tests.support.workspace import Checkout

FULL = {f"k{n}": n for n in range(50)}
OTHER_FILTER = {"conjunction": "and", "clauses": [{"property": "name", "operator": "eq", "value": "other"}]}


@pytest.fixture
def checkout(polar: Served, tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        yield checkout


def importing(meters: dict[str, Any], ids: dict[str, str]) -> Manifest:
    entries = [{"to": key, "id": {"sandbox": meter_id}} for key, meter_id in ids.items()]
    return desired(meters, **{"import": entries})


def carry_out(checkout: Checkout, manifest: Manifest, plan: Plan) -> list[Any]:
    """Execute a plan that was made earlier."""
    with Journal(checkout.journal, checkout.recorded()) as journal:
        live = checkout.client.list_meters()
        return list(execute(plan, manifest, live, checkout.client, journal, at_start={}, stop=Stop()))


def only(checkout: Checkout) -> LiveMeter:
    (there,) = checkout.client.list_meters()
    return there


def test_many_meters_are_taken_over_by_one_get_and_one_patch_each(polar: Served, checkout: Checkout) -> None:
    """Every other key of their metadata is kept, in its type, and the next plan is empty."""
    metadata = {"text": "x", "number": 1, "fraction": 1.0, "big": 10**25, "on": True}
    blocks = {f"m{n}": meter(name=f"Meter {n}") for n in range(3)}
    made = {
        key: checkout.client.create_meter({**block, "metadata": metadata}) for key, block in blocks.items()
    }
    manifest = importing(blocks, {key: there.id for key, there in made.items()})
    polar.tape.clear()
    assert [type(event) for event in checkout.apply(manifest)] == [Applied] * 3
    assert (polar.tape.count("POST"), polar.tape.count("PATCH")) == (0, 3)
    gets = [exchange.path for exchange in polar.tape.exchanges if exchange.method == "GET"]
    assert len(gets) == 1 + 3
    for key, there in made.items():
        # As JSON, in which 1, 1.0 and true differ.
        body = {"metadata": {**metadata, MARKER: f"{PROJECT}/{key}"}}
        assert json.dumps(body, sort_keys=True) in [
            json.dumps(sent, sort_keys=True) for sent in polar.tape.sent("PATCH")
        ]
        assert checkout.recorded().meters[key].id == there.id
    for again in (manifest, desired(blocks)):
        planned = checkout.plan(again)
        assert (planned.changes, planned.bookkeeping, planned.notes) == ((), (), ())


def test_a_meter_without_room_for_the_marker_is_managed_by_its_record(
    polar: Served, checkout: Checkout
) -> None:
    made = checkout.client.create_meter(meter(metadata=FULL))
    polar.tape.clear()
    checkout.apply(importing({"calls": meter()}, {"calls": made.id}))
    assert polar.tape.writes() == []
    renamed = desired({"calls": meter(name="Calls")})
    assert [type(event) for event in checkout.apply(renamed)] == [Applied]
    assert polar.tape.sent("PATCH") == [{"name": "Calls"}]
    planned = checkout.plan(renamed)
    assert (planned.changes, planned.bookkeeping) == ((), ())
    assert [note.kind for note in planned.notes] == ["unmarked"]


def test_an_import_that_is_blocked_is_reported_at_its_entry(polar: Served, checkout: Checkout) -> None:
    made = checkout.client.create_meter(meter(metadata={MARKER: "other/calls"}))
    manifest = importing({"calls": meter()}, {"calls": made.id})
    polar.tape.clear()
    (event,) = checkout.apply(manifest)
    assert isinstance(event, Skipped)
    (problem,) = event.diagnostics
    assert problem.excerpt[problem.span.column - 1 : problem.span.end_column - 1] == f'"{made.id}"'
    assert polar.tape.writes() == []


def test_a_frozen_meter_that_is_declared_otherwise_is_taken_over_once_that_is_put_right(
    polar: Served, checkout: Checkout
) -> None:
    made = checkout.client.create_meter(meter())
    polar.polar.freeze(made.id)
    wrong = importing({"calls": meter(filter=OTHER_FILTER)}, {"calls": made.id})
    assert [type(event) for event in checkout.apply(wrong)] == [Failed]
    assert [change.cause for change in checkout.plan(wrong).changes] == ["frozen"]
    right = importing({"calls": meter()}, {"calls": made.id})
    assert [change.reason for change in checkout.plan(right).changes] == ["adopted"]
    assert [type(event) for event in checkout.apply(right)] == [Applied]
    assert only(checkout).marker == f"{PROJECT}/calls"
    assert checkout.plan(desired({"calls": meter()})).changes == ()


def test_a_meter_that_another_project_marks_after_the_plan_is_left_to_it(checkout: Checkout) -> None:
    made = checkout.client.create_meter(meter())
    manifest = importing({"calls": meter()}, {"calls": made.id})
    planned = checkout.plan(manifest)
    checkout.client.update_meter(made.id, {"metadata": {MARKER: "other/calls"}})
    (event,) = carry_out(checkout, manifest, planned)
    assert isinstance(event, Failed)
    assert "has been marked as other/calls" in event.message
    assert only(checkout).marker == "other/calls"


def test_a_release_takes_the_marker_off_and_nothing_else(polar: Served, checkout: Checkout) -> None:
    checkout.apply(desired({"calls": meter(metadata={"ours": 1})}))
    marked = {"ours": 1, "theirs": 2.0, MARKER: f"{PROJECT}/calls"}
    checkout.client.update_meter(only(checkout).id, {"metadata": marked})
    polar.tape.clear()
    gone = desired({}, removed=[{"from": "calls"}])
    assert [type(event) for event in checkout.apply(gone)] == [Applied]
    assert polar.tape.sent("PATCH") == [{"metadata": {"ours": 1, "theirs": 2.0}}]
    assert (only(checkout).archived, checkout.recorded().meters) == (False, {})
    planned = checkout.plan(gone)
    assert (planned.changes, planned.bookkeeping) == ((), ())


def test_a_release_of_what_somebody_unmarked_meanwhile_sends_nothing(
    polar: Served, checkout: Checkout
) -> None:
    checkout.apply(desired({"calls": meter()}))
    gone = desired({}, removed=[{"from": "calls"}])
    planned = checkout.plan(gone)
    checkout.client.update_meter(only(checkout).id, {"metadata": {"theirs": 1}})
    polar.tape.clear()
    assert [type(event) for event in carry_out(checkout, gone, planned)] == [Applied]
    assert polar.tape.writes() == []
    assert spec_of(only(checkout)).metadata == {"theirs": 1}


def test_a_release_of_what_another_project_took_meanwhile_is_left_to_it(checkout: Checkout) -> None:
    checkout.apply(desired({"calls": meter()}))
    gone = desired({}, removed=[{"from": "calls"}])
    planned = checkout.plan(gone)
    checkout.client.update_meter(only(checkout).id, {"metadata": {MARKER: "other/calls"}})
    (event,) = carry_out(checkout, gone, planned)
    assert isinstance(event, Failed)
    assert only(checkout).marker == "other/calls"


def test_a_released_meter_is_taken_over_under_another_key(checkout: Checkout) -> None:
    checkout.apply(desired({"calls": meter()}))
    checkout.apply(desired({}, removed=[{"from": "calls"}]))
    made = only(checkout)
    checkout.apply(importing({"requests": meter()}, {"requests": made.id}))
    assert only(checkout).marker == f"{PROJECT}/requests"
    assert {key: record.id for key, record in checkout.recorded().meters.items()} == {"requests": made.id}
