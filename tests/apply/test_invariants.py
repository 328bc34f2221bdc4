"""The laws of the design, on generated worlds, through the real client against a served Polar.

Laws 4 and 6, what crashes and races leave, are in the tests of crash safety.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.apply.events import Applied, Event, Failed, Skipped
from polar_iac.manifest.model import Manifest
from polar_iac.meter.canonical import same_value
from polar_iac.meter.fields import FieldPath
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.document import plan_document
from polar_iac.state import lockfile
from polar_iac.state.lockfile import Lockfile
from tests.support import openapi, strategies
from tests.support.build import PROJECT, desired, meter, plan, spec_of
from tests.support.examples import examples
from tests.support.served_polar import Exchange, Served, served_polar
from tests.support.strategies import TAGS, Outside, Step, World
from tests.support.workspace import Room


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
    return desired(world.meters, moved=world.moved)


def everything(room: Room) -> dict[str, LiveMeter]:
    return {meter.id: meter for meter in room.client.list_meters()}


def apply_by_the_laws(polar: Served, room: Room, manifest: Manifest) -> Sequence[Event]:
    """Apply, and hold what came of it against the laws 1, 2, 5 and 7."""
    before, recorded = everything(room), {r.id for r in room.recorded().meters.values()}
    polar.tape.clear()
    events = room.apply(manifest)
    sent = list(polar.tape.exchanges)
    openapi.check((exchange.method, exchange.body) for exchange in sent)
    after = everything(room)
    hold_law_5(before, after, recorded, sent)
    hold_law_7(before, sent)
    hold_law_1(room, manifest, events)
    hold_law_2(polar, room, manifest, after)
    return events


def hold_law_1(room: Room, manifest: Manifest, events: Sequence[Event]) -> None:
    """`plan` after a successful `apply` is empty."""
    again = room.plan(manifest)
    if all(isinstance(event, Applied) for event in events):
        assert again.changes == (), "law 1"
        assert again.bookkeeping == (), "law 1"
    else:
        # What was blocked or refused is all that is left, and is blocked now.
        failed = {event.key for event in events if isinstance(event, Failed | Skipped)}
        assert {change.key for change in again.changes} <= failed, "law 1"


def hold_law_2(polar: Served, room: Room, manifest: Manifest, once: Mapping[str, LiveMeter]) -> None:
    """`apply` twice equals `apply` once."""
    recorded = room.lockfile.read_text()
    polar.tape.clear()
    events = room.apply(manifest)
    assert everything(room) == once, "law 2"
    if all(isinstance(event, Applied) for event in events):
        assert polar.tape.count("POST") == polar.tape.count("PATCH") == 0, "law 2"
        assert room.lockfile.read_text() == recorded, "law 2"


def hold_law_5(
    before: Mapping[str, LiveMeter],
    after: Mapping[str, LiveMeter],
    recorded: set[str],
    sent: Sequence[Exchange],
) -> None:
    """A meter that neither bears our marker nor stands in our lockfile is never touched."""
    theirs = {
        key: meter
        for key, meter in before.items()
        if key not in recorded and not (meter.marker or "").startswith(f"{PROJECT}/")
    }
    assert {key: after[key] for key in theirs} == theirs, "law 5"
    asked = {e.path.rsplit("/", 1)[-1] for e in sent if e.method == "PATCH"}
    assert not asked & set(theirs), "law 5"


def hold_law_7(before: Mapping[str, LiveMeter], sent: Sequence[Exchange]) -> None:
    """A PATCH carries only what changed."""
    patched = [e for e in sent if e.method == "PATCH"]
    for exchange in patched:
        was = before[exchange.path.rsplit("/", 1)[-1]]
        assert exchange.body, "law 7"
        body = dict(exchange.body)
        if "is_archived" in body:
            assert body.pop("is_archived") != was.archived, "law 7"
        if "metadata" in body:
            metadata = body.pop("metadata")
            marker = metadata.pop(MARKER)
            same = MeterSpec(
                spec_of(was).name, spec_of(was).filter, spec_of(was).aggregation, metadata=metadata
            )
            changed = same.canonical["metadata"] != spec_of(was).canonical["metadata"]
            assert changed or marker != was.marker, "law 7"
        for field, value in body.items():
            sent_spec = MeterSpec.from_json({**spec_of(was).canonical, field: value})
            assert sent_spec.canonical[field] != spec_of(was).canonical[field], "law 7"
    assert len({e.path for e in patched}) == len(patched), "law 7"


@examples(60)
@given(world=strategies.worlds())
def test_laws_1_2_5_and_7_of_one_apply(polar: Served, room: Room, world: World) -> None:
    """Plan after apply is empty; twice equals once; others' meters are not touched; a PATCH has only news."""
    apply_by_the_laws(polar, room, furnish(polar, room, world))


def shuffled(part: Any, rng: random.Random) -> Any:
    """Write a filter in another order and form: groups of one, repeats, and groups of nothing in an `and`."""
    if "clauses" not in part:
        return part if rng.random() < 0.7 else {"conjunction": rng.choice(["and", "or"]), "clauses": [part]}
    clauses = [shuffled(inner, rng) for inner in part["clauses"]]
    if clauses and rng.random() < 0.3:
        clauses.append(rng.choice(clauses))
    if part["conjunction"] == "and" and rng.random() < 0.3:
        clauses.append({"conjunction": rng.choice(["and", "or"]), "clauses": []})
    rng.shuffle(clauses)
    return {**part, "clauses": clauses}


@given(world=strategies.worlds(), rng=st.randoms(use_true_random=False))
def test_law_3_order_and_form_never_change_the_plan(world: World, rng: random.Random) -> None:
    items = [
        (key, {**block, "filter": shuffled(block["filter"], rng)}) for key, block in world.meters.items()
    ]
    rng.shuffle(items)
    moved = list(world.moved)
    rng.shuffle(moved)
    recorded, live = {}, []
    for number, existing in enumerate(world.existing):
        identity, day = f"{number:08x}-0000-4000-8000-000000000000", f"2026-01-0{number + 1}"
        spec = MeterSpec.from_json({**existing.spec, "archived": existing.archived})
        archived_at = day if existing.archived else None
        live.append(LiveMeter(identity, "o", day, archived_at, existing.marker, spec))
        if existing.recorded is not None and existing.key:
            frozen = existing.frozen and existing.learned
            recorded[existing.key] = Record(identity, MeterSpec.from_json(existing.recorded), frozen)
    live_elsewhere = rng.sample(live, len(live))

    def document(meters: Any, moved: Any, live: Any) -> Any:
        found = plan_document(plan(desired(meters, moved=moved), recorded, live))
        for change in found["changes"]:
            change["source"] = None
            for field in change["fields"]:
                field["source"] = None
        return found

    assert document(dict(items), moved, live_elsewhere) == document(world.meters, world.moved, live)


@examples(60)
@given(block=strategies.specs())
def test_law_8_normalisation_never_shows_as_a_change(
    polar: Served, room: Room, block: dict[str, Any]
) -> None:
    manifest = furnish(polar, room, World({"a": block}, []))
    assert [type(event) for event in room.apply(manifest)] == [Applied]
    again = room.plan(manifest)
    assert again.changes == ()
    assert again.bookkeeping == ()
    # Nor when the lockfile is lost.
    room.lockfile.unlink()
    assert room.plan(manifest).changes == ()


class Tags:
    """Whose each metadata key of a meter is, as a reader of the manifests would say."""

    def __init__(self) -> None:
        self.ours: dict[str, dict[str, Any]] = {}
        """Per meter the keys that the manifest set last, and to what."""
        self.unclear: dict[str, set[str]] = {}
        """Keys that were the manifest's and were then left to others: either may be said of them."""

    def hold(
        self, before: LiveMeter | None, after: LiveMeter, declared: Any, ignored: frozenset[str]
    ) -> None:
        """What an apply that said nothing of a failure made of a meter's metadata."""
        ours, unclear = self.ours.setdefault(after.id, {}), self.unclear.setdefault(after.id, set())
        had = spec_of(before).metadata if before else {}
        has = spec_of(after).metadata
        for tag in TAGS:
            left = before is not None and FieldPath("metadata", tag).is_ignored(ignored)
            if left:
                assert has.get(tag) == had.get(tag), f"{tag} is left to others"
                if tag in ours and declared.get(tag) != ours.get(tag):
                    del ours[tag]
                    unclear.add(tag)
            elif tag in declared:
                assert tag in has, f"{tag} is set"
                assert same_value(has[tag], declared[tag]), f"{tag} is set"
                ours[tag] = declared[tag]
                unclear.discard(tag)
            elif tag in ours:
                assert tag not in has, f"{tag} was set once and is dropped"
                del ours[tag]
            elif tag not in unclear:
                assert has.get(tag) == had.get(tag), f"{tag} is another's"

    def forget(self, meter_id: str) -> None:
        self.unclear.setdefault(meter_id, set()).update(self.ours.pop(meter_id, {}))


def act(room: Room, outside: Outside) -> None:
    """Somebody in the dashboard."""
    meters = list(everything(room).values())
    if not meters:
        return
    it = meters[outside.nth % len(meters)]
    metadata = {**spec_of(it).metadata, **({MARKER: it.marker} if it.marker else {})}
    match outside.what:
        case "archive" | "unarchive":
            room.client.update_meter(it.id, {"is_archived": outside.what == "archive"})
        case "unmark":
            room.client.update_meter(it.id, {"metadata": dict(spec_of(it).metadata)})
        case "name":
            room.client.update_meter(it.id, {"name": outside.value})
        case "set":
            room.client.update_meter(it.id, {"metadata": metadata | outside.value})
        case "drop":
            kept = {k: v for k, v in metadata.items() if k != outside.value}
            room.client.update_meter(it.id, {"metadata": kept})


def names(before: Mapping[str, LiveMeter], known: Mapping[str, Record]) -> dict[str, str]:
    """The meter of each key: the one in the lockfile, else the active one that bears the marker."""
    recorded = {key: record.id for key, record in known.items()}
    marked = {
        m.marker.removeprefix(f"{PROJECT}/"): m.id
        for m in before.values()
        if m.marker and m.marker.startswith(f"{PROJECT}/") and not m.archived
    }
    free = {key: id_ for key, id_ in marked.items() if id_ not in recorded.values()}
    return free | recorded


def heirs(moved: Sequence[Mapping[str, str]], named: Mapping[str, str]) -> dict[str, str]:
    """The meter that each key inherits by `moved`, where just one may be meant."""
    step = {move["from"]: move["to"] for move in moved}
    found: dict[str, set[str]] = {}
    for source in step.keys() & named.keys():
        target = source
        while target in step:
            target = step[target]
        found.setdefault(target, set()).add(named[source])
    return {key: ids.pop() for key, ids in found.items() if len(ids) == 1 and key not in named}


@examples(40)
@given(steps=strategies.histories())
def test_the_laws_hold_after_each_of_several_manifests(polar: Served, room: Room, steps: list[Step]) -> None:
    """And metadata that the manifest set and drops is gone, while others' stays; a meter that is renamed
    stays the same one."""
    furnish(polar, room, World({}, []))
    for body in (meter(name="Calls"), meter(name="Calls", metadata={MARKER: "other/a", "team": 1})):
        room.client.create_meter(body)
    tags = Tags()
    for step in steps:
        for outside in step.outside:
            act(room, outside)
        if step.lost:
            room.lockfile.unlink()
            for meter_id in list(tags.ours):
                tags.forget(meter_id)
        manifest = desired(step.meters, moved=step.moved)
        before, known = everything(room), room.recorded().meters
        events = apply_by_the_laws(polar, room, manifest)
        after, recorded = everything(room), room.recorded().meters
        undone = {event.key for event in events if isinstance(event, Failed | Skipped)}
        for key, record in recorded.items():
            it = manifest.meters.get(key)
            if it and key not in undone and not it.spec.archived:
                tags.hold(before.get(record.id), after[record.id], it.spec.metadata, it.ignore_changes)
        for key, meter_id in heirs(step.moved, names(before, known)).items():
            if key in recorded and key not in undone:
                assert recorded[key].id == meter_id, f"{key} is the meter that was moved"
        for gone in {r.id for r in known.values()} - {r.id for r in recorded.values()}:
            tags.forget(gone)
