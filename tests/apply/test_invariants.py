"""The invariants, on generated worlds, through the real client against a served Polar.

Invariants 4 and 6, about what crashes and races leave, are in the tests of crash safety.
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
from tests.support.build import PROJECT, desired, identifier, meter, plan, random_uuid, spec_of
from tests.support.examples import examples
from tests.support.served_polar import Exchange, Served, served_polar
from tests.support.strategies import TAGS, Outside, Step, World
from tests.support.workspace import Checkout


@pytest.fixture(scope="module")
def polar() -> Iterator[Served]:
    with served_polar() as served:
        yield served


@pytest.fixture
def checkout(polar: Served, tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(polar.url, tmp_path)
    with checkout.client:
        yield checkout


def furnish(polar: Served, checkout: Checkout, world: World) -> Manifest:
    """Make a world real, from nothing."""
    polar.polar.reset()
    records, ids = {}, list[str]()
    for existing in world.existing:
        marker = {MARKER: existing.marker} if existing.marker else {}
        body = {**existing.spec, "metadata": {**existing.spec["metadata"], **marker}}
        made = checkout.client.create_meter(body)
        ids.append(made.id)
        if existing.archived:
            checkout.client.update_meter(made.id, {"is_archived": True})
        if existing.frozen:
            polar.polar.freeze(made.id)
        if existing.recorded is not None and existing.key is not None:
            frozen = existing.frozen and existing.learned
            records[existing.key] = Record(made.id, MeterSpec.from_json(existing.recorded), frozen)
    organization = polar.polar.organization_id
    lockfile.save(checkout.lockfile, Lockfile("sandbox", organization, PROJECT, records))
    polar.tape.clear()
    return desired(world.meters, **world.top([*ids, random_uuid()]))


def everything(checkout: Checkout) -> dict[str, LiveMeter]:
    return {meter.id: meter for meter in checkout.client.list_meters()}


def apply_and_hold_invariants(polar: Served, checkout: Checkout, manifest: Manifest) -> Sequence[Event]:
    """Apply, and hold the result against invariants 1, 2, 5 and 7."""
    before, ours = everything(checkout), {r.id for r in checkout.recorded().meters.values()}
    ours |= {meter_id for meter_id, _ in manifest.imported("sandbox").values()}
    polar.tape.clear()
    events = checkout.apply(manifest)
    sent = list(polar.tape.exchanges)
    openapi.check((exchange.method, exchange.body) for exchange in sent)
    after = everything(checkout)
    hold_invariant_5(before, after, ours, sent)
    hold_invariant_7(before, sent)
    hold_invariant_1(checkout, manifest, events)
    hold_invariant_2(polar, checkout, manifest, after)
    return events


def hold_invariant_1(checkout: Checkout, manifest: Manifest, events: Sequence[Event]) -> None:
    """`plan` after a successful `apply` is empty."""
    again = checkout.plan(manifest)
    if all(isinstance(event, Applied) for event in events):
        assert again.changes == (), "invariant 1"
        assert again.bookkeeping == (), "invariant 1"
    else:
        # What was blocked or refused is all that is left, and is blocked now.
        failed = {event.key for event in events if isinstance(event, Failed | Skipped)}
        assert {change.key for change in again.changes} <= failed, "invariant 1"


def hold_invariant_2(
    polar: Served, checkout: Checkout, manifest: Manifest, once: Mapping[str, LiveMeter]
) -> None:
    """`apply` twice equals `apply` once."""
    recorded = checkout.lockfile.read_text()
    polar.tape.clear()
    events = checkout.apply(manifest)
    assert everything(checkout) == once, "invariant 2"
    if all(isinstance(event, Applied) for event in events):
        assert polar.tape.count("POST") == polar.tape.count("PATCH") == 0, "invariant 2"
        assert checkout.lockfile.read_text() == recorded, "invariant 2"


def hold_invariant_5(
    before: Mapping[str, LiveMeter],
    after: Mapping[str, LiveMeter],
    ours: set[str],
    sent: Sequence[Exchange],
) -> None:
    """A meter that neither bears our marker, nor is in our lockfile or in `import`, is never touched."""
    foreign = {
        key: meter
        for key, meter in before.items()
        if key not in ours and not (meter.marker or "").startswith(f"{PROJECT}/")
    }
    assert {key: after[key] for key in foreign} == foreign, "invariant 5"
    asked = {e.path.rsplit("/", 1)[-1] for e in sent if e.method == "PATCH"}
    assert not asked & set(foreign), "invariant 5"


def hold_invariant_7(before: Mapping[str, LiveMeter], sent: Sequence[Exchange]) -> None:
    """A PATCH carries only what changed."""
    patched = [e for e in sent if e.method == "PATCH"]
    for exchange in patched:
        was = before[exchange.path.rsplit("/", 1)[-1]]
        assert exchange.body, "invariant 7"
        body = dict(exchange.body)
        if "is_archived" in body:
            assert body.pop("is_archived") != was.archived, "invariant 7"
        if "metadata" in body:
            metadata = body.pop("metadata")
            marker = metadata.pop(MARKER, None)
            same = MeterSpec(
                spec_of(was).name, spec_of(was).filter, spec_of(was).aggregation, metadata=metadata
            )
            changed = same.canonical["metadata"] != spec_of(was).canonical["metadata"]
            assert changed or marker != was.marker, "invariant 7"
        for field, value in body.items():
            sent_spec = MeterSpec.from_json({**spec_of(was).canonical, field: value})
            assert sent_spec.canonical[field] != spec_of(was).canonical[field], "invariant 7"
    assert len({e.path for e in patched}) == len(patched), "invariant 7"


@examples(60)
@given(world=strategies.worlds())
def test_invariants_1_2_5_and_7_of_one_apply(polar: Served, checkout: Checkout, world: World) -> None:
    """Plan after apply is empty; twice equals once; others' meters are not touched; a PATCH has only news."""
    apply_and_hold_invariants(polar, checkout, furnish(polar, checkout, world))


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
def test_invariant_3_order_and_form_never_change_the_plan(world: World, rng: random.Random) -> None:
    items = [
        (key, {**block, "filter": shuffled(block["filter"], rng)}) for key, block in world.meters.items()
    ]
    rng.shuffle(items)
    recorded, live = {}, []
    ids = [identifier(number) for number in range(len(world.existing) + 1)]
    top = world.top(ids)
    top_elsewhere = {name: rng.sample(entries, len(entries)) for name, entries in top.items()}
    for number, existing in enumerate(world.existing):
        identity, day = ids[number], f"2026-01-0{number + 1}"
        spec = MeterSpec.from_json({**existing.spec, "archived": existing.archived})
        archived_at = day if existing.archived else None
        live.append(LiveMeter(identity, "o", day, archived_at, existing.marker, spec))
        if existing.recorded is not None and existing.key:
            frozen = existing.frozen and existing.learned
            recorded[existing.key] = Record(identity, MeterSpec.from_json(existing.recorded), frozen)
    live_elsewhere = rng.sample(live, len(live))

    def document(meters: Any, top: Any, live: Any) -> Any:
        content = plan_document(plan(desired(meters, **top), recorded, live))
        for change in content["changes"]:
            change["source"] = None
            # What lint warns of is how a filter is written: a group of one may be redundant, and has a line.
            change["evidence"] = [note for note in change["evidence"] if note["kind"] != "meaning"]
            for field in change["fields"]:
                field["source"] = None
        return content

    assert document(dict(items), top_elsewhere, live_elsewhere) == document(world.meters, top, live)


@examples(60)
@given(block=strategies.specs())
def test_invariant_8_normalization_never_shows_as_a_change(
    polar: Served, checkout: Checkout, block: dict[str, Any]
) -> None:
    manifest = furnish(polar, checkout, World({"a": block}, []))
    assert [type(event) for event in checkout.apply(manifest)] == [Applied]
    again = checkout.plan(manifest)
    assert again.changes == ()
    assert again.bookkeeping == ()
    # Nor when the lockfile is lost.
    checkout.lockfile.unlink()
    assert checkout.plan(manifest).changes == ()


def test_a_filter_that_counts_the_same_in_other_words_is_never_sent(
    polar: Served, checkout: Checkout
) -> None:
    clauses = [{"property": "model", "operator": "like", "value": value} for value in ("gpt-4", "gpt")]
    there = {"conjunction": "and", "clauses": clauses[1:]}
    manifest = furnish(polar, checkout, World({"a": meter(filter=there)}, []))
    apply_and_hold_invariants(polar, checkout, manifest)
    recorded = checkout.lockfile.read_text()
    meters = {"a": meter(name="Renamed", filter={"conjunction": "or", "clauses": clauses})}
    apply_and_hold_invariants(polar, checkout, desired(meters))
    (after,) = everything(checkout).values()
    assert (after.name, spec_of(after).canonical["filter"]) == ("Renamed", there)
    assert checkout.lockfile.read_text() == recorded.replace("API calls", "Renamed")


class Tags:
    """The owner of each metadata key of a meter, as a reader of the manifests would say."""

    def __init__(self) -> None:
        self.ours: dict[str, dict[str, Any]] = {}
        """Per meter the keys that the manifest set last, and to what."""
        self.unclear: dict[str, set[str]] = {}
        """Keys that were the manifest's and were then left to others: either may be said of them."""

    def hold(
        self, before: LiveMeter | None, after: LiveMeter, declared: Any, ignored: frozenset[str]
    ) -> None:
        """Check a meter's metadata after an apply that reported no failure."""
        ours, unclear = self.ours.setdefault(after.id, {}), self.unclear.setdefault(after.id, set())
        had = spec_of(before).metadata if before else {}
        has = spec_of(after).metadata
        for tag in TAGS:
            is_ignored = before is not None and FieldPath("metadata", tag).is_ignored(ignored)
            if is_ignored:
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


def act(checkout: Checkout, outside: Outside) -> None:
    """Edit a meter as somebody in the dashboard does."""
    meters = list(everything(checkout).values())
    if not meters:
        return
    it = meters[outside.nth % len(meters)]
    metadata = {**spec_of(it).metadata, **({MARKER: it.marker} if it.marker else {})}
    match outside.what:
        case "archive" | "unarchive":
            checkout.client.update_meter(it.id, {"is_archived": outside.what == "archive"})
        case "unmark":
            checkout.client.update_meter(it.id, {"metadata": dict(spec_of(it).metadata)})
        case "name":
            checkout.client.update_meter(it.id, {"name": outside.value})
        case "set":
            checkout.client.update_meter(it.id, {"metadata": metadata | outside.value})
        case "drop":
            kept = {k: v for k, v in metadata.items() if k != outside.value}
            checkout.client.update_meter(it.id, {"metadata": kept})


def meter_of_each_key(before: Mapping[str, LiveMeter], records: Mapping[str, Record]) -> dict[str, str]:
    """The meter of each key: the one in the lockfile, else the active one that bears the marker."""
    recorded = {key: record.id for key, record in records.items()}
    marked = {
        m.marker.removeprefix(f"{PROJECT}/"): m.id
        for m in before.values()
        if m.marker and m.marker.startswith(f"{PROJECT}/") and not m.archived
    }
    free = {key: id_ for key, id_ in marked.items() if id_ not in recorded.values()}
    return free | recorded


def heirs(moved: Sequence[Mapping[str, str]], meters: Mapping[str, str]) -> dict[str, str]:
    """The meter that each key inherits by `moved`, where just one may be meant."""
    step = {move["from"]: move["to"] for move in moved}
    candidates: dict[str, set[str]] = {}
    for source in step.keys() & meters.keys():
        target = source
        while target in step:
            target = step[target]
        candidates.setdefault(target, set()).add(meters[source])
    return {key: ids.pop() for key, ids in candidates.items() if len(ids) == 1 and key not in meters}


@examples(40)
@given(steps=strategies.histories())
def test_the_invariants_hold_after_each_of_several_manifests(
    polar: Served, checkout: Checkout, steps: list[Step]
) -> None:
    """Metadata that the manifest set and drops is removed, while that of others stays; a meter that is
    renamed stays the same one.
    """
    furnish(polar, checkout, World({}, []))
    for body in (meter(name="Calls"), meter(name="Calls", metadata={MARKER: "other/a", "team": 1})):
        checkout.client.create_meter(body)
    tags = Tags()
    for step in steps:
        for outside in step.outside:
            act(checkout, outside)
        if step.lost:
            checkout.lockfile.unlink()
            for meter_id in list(tags.ours):
                tags.forget(meter_id)
        manifest = desired(step.meters, moved=step.moved)
        before, recorded_before = everything(checkout), checkout.recorded().meters
        events = apply_and_hold_invariants(polar, checkout, manifest)
        after, recorded = everything(checkout), checkout.recorded().meters
        undone = {event.key for event in events if isinstance(event, Failed | Skipped)}
        for key, record in recorded.items():
            it = manifest.meters.get(key)
            if it and key not in undone and not it.spec.archived:
                tags.hold(before.get(record.id), after[record.id], it.spec.metadata, it.ignore_changes)
        for key, meter_id in heirs(step.moved, meter_of_each_key(before, recorded_before)).items():
            if key in recorded and key not in undone:
                assert recorded[key].id == meter_id, f"{key} is the meter that was moved"
        for gone in {r.id for r in recorded_before.values()} - {r.id for r in recorded.values()}:
            tags.forget(gone)
