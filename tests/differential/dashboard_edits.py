"""Edits of meters in Polar's dashboard, and the changes that billing makes."""

from __future__ import annotations

import copy
from collections.abc import Callable

from tests.differential.manifest_edits import (
    AGGREGATIONS,
    NAMES,
    TAGS,
    UNITS,
    VALUES,
    any_block,
    any_filter,
)
from tests.differential.truth import MARKER, Json, Meter
from tests.differential.world import KEYS, World, marker_of


def _any_meter(world: World) -> Meter | None:
    """One of the meters; one of ours more likely than its share."""
    live = world.steady
    ours = [meter for meter in live if meter.key is not None]
    pool = ours if ours and world.rng.random() < 0.7 else live
    return world.rng.choice(pool) if pool else None


def rename(world: World, meter: Meter) -> str:
    world.patch(meter.id, name=world.rng.choice([*NAMES, "Theirs"]))
    return "rename"


def tag(world: World, meter: Meter) -> str:
    """Set or drop a metadata key, the manifest's or somebody else's."""
    metadata = dict(meter.document["metadata"])
    name = world.rng.choice([*TAGS, "theirs", "crm"])
    if name in metadata and world.rng.random() < 0.5:
        del metadata[name]
    else:
        metadata[name] = world.rng.choice(VALUES)
    world.patch(meter.id, metadata=metadata)
    return f"metadata {name}"


def fill(world: World, meter: Meter) -> str:
    """Bring the metadata near the 50 keys that Polar takes, or back."""
    metadata = {k: v for k, v in meter.document["metadata"].items() if not k.startswith("fill-")}
    if len(meter.metadata) < 40:
        space = 50 - len(metadata) - world.rng.randint(0, 2)
        metadata |= {f"fill-{n}": n for n in range(space)}
    world.patch(meter.id, metadata=metadata)
    return "fill metadata"


def unmark(world: World, meter: Meter) -> str:
    world.mark(meter, None)
    return "take the marker off"


def remark(world: World, meter: Meter) -> str:
    """Write another marker: of another key, or of another project."""
    marker = world.rng.choice([marker_of(world.rng.choice(KEYS)), "other/calls", "acmex/calls"])
    world.mark(meter, marker)
    return f"mark as {marker}"


def swap(world: World, meter: Meter) -> str:
    other = _any_meter(world)
    if other is not None and other.id != meter.id:
        world.mark(meter, other.marker)
        world.mark(other, meter.marker)
    return f"swap its marker with {other and other.id}"


def archive(world: World, meter: Meter) -> str:
    world.patch(meter.id, is_archived=meter.active)
    return "archive" if meter.active else "unarchive"


def rebill(world: World, meter: Meter) -> str:
    """Change what it bills by, unless it is frozen."""
    if world.rng.random() < 0.5:
        world.patch(meter.id, filter=any_filter(world.rng))
    else:
        world.patch(meter.id, aggregation=dict(world.rng.choice(AGGREGATIONS)))
    return "change filter or aggregation"


def reunit(world: World, meter: Meter) -> str:
    none = {"unit": "scalar", "custom_label": None, "custom_multiplier": None}
    world.patch(meter.id, **(none | world.rng.choice(UNITS)))
    return "change the unit"


def outgrow(world: World, meter: Meter) -> str:
    """Let it bill by what only later versions know, or no longer."""
    if meter.is_known:
        world.outgrow(meter.id)
        return "bill by a part of a later version"
    world.patch(meter.id, filter=any_filter(world.rng))
    return "bill by known parts again"


def freeze(world: World, meter: Meter) -> str:
    world.polar.freeze(meter.id)
    return "freeze"


CHANGES: tuple[tuple[int, Callable[[World, Meter], str]], ...] = (
    (4, rename),
    (5, tag),
    (1, fill),
    (3, unmark),
    (2, remark),
    (1, swap),
    (4, archive),
    (2, rebill),
    (2, reunit),
    (2, freeze),
    (2, outgrow),
)


def add(world: World) -> str:
    """Add a meter: nobody's, another project's, or with a marker of ours; maybe just as one is declared, and
    maybe archived, or with a part that only later versions know.
    """
    rng = world.rng
    key, block = rng.choice(KEYS), any_block(rng)
    if world.meters and rng.random() < 0.5:
        key = rng.choice(sorted(world.meters))
        block = copy.deepcopy(world.meters[key])
    body: Json = {k: v for k, v in block.items() if k not in ("archived", "lifecycle")}
    marker = rng.choice([None, None, "other/calls", marker_of(key), marker_of(rng.choice(KEYS))])
    body["metadata"] = body.get("metadata", {}) | ({MARKER: marker} if marker else {})
    meter_id = world.create(body)
    if outgrown := rng.random() < 0.15:
        world.outgrow(meter_id)
    if archived := rng.random() < 0.15:
        world.patch(meter_id, is_archived=True)
    details = ", of a later version" * outgrown + ", archived" * archived
    return f"add {meter_id}, marked {marker}{details}"


def edit(world: World) -> str:
    """Make one edit in the dashboard."""
    meter = _any_meter(world)
    if meter is None or world.rng.random() < 0.15:
        return f"dashboard: {add(world)}"
    weights, changes = zip(*CHANGES, strict=True)
    description = world.rng.choices(changes, weights)[0](world, meter)
    return f"dashboard: {meter.id} ({meter.marker}): {description}"
