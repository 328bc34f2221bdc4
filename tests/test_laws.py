"""The laws of the design, on generated worlds, through the real client against a served Polar.

Laws 4 and 6, what crashes and races leave, are in the tests of crash safety.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polar_iac import lockfile
from polar_iac.lockfile import Lockfile
from polar_iac.manifest import Manifest
from polar_iac.meter import MARKER, LiveMeter, MeterSpec, Record
from polar_iac.plan import Done, Failed, Left
from polar_iac.render.document import plan_document
from tests import strategies
from tests.build import PROJECT, desired, plan
from tests.room import Room
from tests.serve import Served, served_polar
from tests.strategies import World

SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest.fixture(scope="module")
def polar() -> Iterator[Served]:
    with served_polar() as served:
        yield served


@pytest.fixture
def room(polar: Served, tmp_path: Path) -> Iterator[Room]:
    room = Room(polar.url, tmp_path)
    with room.client:
        yield room


def furnish(polar: Served, room: Room, world: World) -> Manifest:
    """Make a world real, from nothing."""
    polar.polar.reset()
    records = {}
    for existing in world.existing:
        marker = {MARKER: existing.marker} if existing.marker else {}
        body = {**existing.spec, "metadata": {**existing.spec["metadata"], **marker}}
        made = room.client.create_meter(body)
        if existing.archived:
            room.client.update_meter(made.id, {"is_archived": True})
        if existing.frozen:
            polar.polar.freeze(made.id)
        if existing.recorded is not None and existing.key is not None:
            frozen = existing.frozen and existing.learned
            records[existing.key] = Record(made.id, MeterSpec.from_json(existing.recorded), frozen)
    organization = polar.polar.organization_id
    lockfile.save(room.lockfile, Lockfile("sandbox", organization, PROJECT, records))
    polar.tape.clear()
    return desired(world.meters)


def everything(room: Room) -> dict[str, LiveMeter]:
    return {meter.id: meter for meter in room.client.list_meters()}


@SLOW
@given(world=strategies.worlds())
def test_law_1_plan_after_a_successful_apply_is_empty(polar: Served, room: Room, world: World) -> None:
    manifest = furnish(polar, room, world)
    events = room.apply(manifest)
    again = room.plan(manifest)
    if all(isinstance(event, Done) for event in events):
        assert again.changes == ()
        assert again.bookkeeping == ()
    else:
        # What was blocked or refused is all that is left, and is blocked now.
        failed = {event.key for event in events if isinstance(event, Failed | Left)}
        assert {change.key for change in again.changes} <= failed


@SLOW
@given(world=strategies.worlds())
def test_law_2_apply_twice_equals_apply_once(polar: Served, room: Room, world: World) -> None:
    manifest = furnish(polar, room, world)
    room.apply(manifest)
    once, recorded = everything(room), room.lockfile.read_text()
    polar.tape.clear()
    events = room.apply(manifest)
    assert everything(room) == once
    if all(isinstance(event, Done) for event in events):
        assert polar.tape.count("POST") == polar.tape.count("PATCH") == 0
        assert room.lockfile.read_text() == recorded


def shuffled(filter_: Any, rng: random.Random) -> Any:
    if "clauses" not in filter_:
        return filter_
    clauses = [shuffled(part, rng) for part in filter_["clauses"]]
    rng.shuffle(clauses)
    return {**filter_, "clauses": clauses}


@given(world=strategies.worlds(), rng=st.randoms(use_true_random=False))
def test_law_3_order_never_changes_the_plan(world: World, rng: random.Random) -> None:
    items = [
        (key, {**block, "filter": shuffled(block["filter"], rng)}) for key, block in world.meters.items()
    ]
    rng.shuffle(items)
    recorded, live = {}, []
    for number, existing in enumerate(world.existing):
        spec = MeterSpec.from_json(existing.spec)
        identity = f"{number:08x}-0000-4000-8000-000000000000"
        live.append(LiveMeter(identity, "o", f"2026-01-0{number + 1}", None, existing.marker, spec))
        if existing.recorded is not None and existing.key:
            recorded[existing.key] = Record(identity, MeterSpec.from_json(existing.recorded))

    def document(meters: Any) -> Any:
        found = plan_document(plan(desired(meters), recorded, live))
        for change in found["changes"]:
            change["source"] = None
            for field in change["fields"]:
                field["source"] = None
        return found

    assert document(dict(items)) == document(world.meters)


@SLOW
@given(world=strategies.worlds())
def test_law_5_what_is_not_ours_is_never_touched(polar: Served, room: Room, world: World) -> None:
    manifest = furnish(polar, room, world)
    recorded = {r.id for r in lockfile.read(room.lockfile, "sandbox", PROJECT).meters.values()}
    before = {
        key: meter
        for key, meter in everything(room).items()
        if key not in recorded and not (meter.marker or "").startswith(f"{PROJECT}/")
    }
    polar.tape.clear()
    room.apply(manifest)
    after = everything(room)
    assert {key: after[key] for key in before} == before
    asked = {e.path.rsplit("/", 1)[-1] for e in polar.tape.exchanges if e.method == "PATCH"}
    assert not asked & set(before)


@SLOW
@given(world=strategies.worlds())
def test_law_7_a_patch_carries_only_what_changed(polar: Served, room: Room, world: World) -> None:
    manifest = furnish(polar, room, world)
    before = everything(room)
    polar.tape.clear()
    room.apply(manifest)
    patched = [e for e in polar.tape.exchanges if e.method == "PATCH"]
    for exchange in patched:
        was = before[exchange.path.rsplit("/", 1)[-1]]
        assert exchange.body
        body = dict(exchange.body)
        if "is_archived" in body:
            assert body.pop("is_archived") != was.archived
        if "metadata" in body:
            metadata = body.pop("metadata")
            marker = metadata.pop(MARKER)
            same = MeterSpec(was.spec.name, was.spec.filter, was.spec.aggregation, metadata=metadata)
            assert marker != was.marker or same.canonical["metadata"] != was.spec.canonical["metadata"]
        for field, value in body.items():
            sent = MeterSpec.from_json({**was.spec.canonical, field: value})
            assert sent.canonical[field] != was.spec.canonical[field]
    assert len({e.path for e in patched}) == len(patched)


@SLOW
@given(block=strategies.specs())
def test_law_8_normalisation_never_shows_as_a_change(
    polar: Served, room: Room, block: dict[str, Any]
) -> None:
    manifest = furnish(polar, room, World({"a": block}, []))
    assert [type(event) for event in room.apply(manifest)] == [Done]
    again = room.plan(manifest)
    assert again.changes == ()
    assert again.bookkeeping == ()
    # Nor when the lockfile is lost.
    room.lockfile.unlink()
    assert room.plan(manifest).changes == ()
