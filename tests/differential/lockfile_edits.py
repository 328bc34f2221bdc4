"""Accidents of the lockfile and the journal, and the repairs that people make."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable

from tests.differential import manifest_edits
from tests.differential.truth import duplicates
from tests.differential.world import World


def delete(world: World) -> str:
    world.lockfile.unlink(missing_ok=True)
    return "delete it"


def lose_state(world: World) -> str:
    """Lose what is not committed, as on another machine."""
    world.held.clear()  # Of what lands then, nothing shows whose it is.
    shutil.rmtree(world.directory / ".polar-iac", ignore_errors=True)
    return "lose the journal"


def drop(world: World) -> str:
    entries = world.recorded
    if entries:
        key = world.rng.choice(sorted(entries))
        del entries[key]
        world.write_lockfile(entries)
        return f"drop {key}"
    return "nothing to drop"


def swap(world: World) -> str:
    """Swap the ids of two keys, as a merge that went wrong."""
    entries = world.recorded
    if len(entries) > 1:
        one, other = world.rng.sample(sorted(entries), 2)
        entries[one]["id"], entries[other]["id"] = entries[other]["id"], entries[one]["id"]
        world.write_lockfile(entries)
        return f"swap the ids of {one} and {other}"
    return "nothing to swap"


def restore(world: World) -> str:
    if world.lockfiles:
        number = world.rng.randrange(len(world.lockfiles))
        world.lockfile.write_text(world.lockfiles[number], encoding="utf-8")
        return f"restore version {number}"
    return "nothing to restore"


def point(world: World) -> str:
    """Point a key at a meter that is not recorded, or seldom at none at all."""
    entries = world.recorded
    taken = {entry["id"] for entry in entries.values()}
    others = [meter.id for meter in world.steady if meter.id not in taken]
    if not entries:
        return "nothing to point"
    key = world.rng.choice(sorted(entries))
    unknown = not others or world.rng.random() < 0.2
    nobody = str(uuid.UUID(int=world.rng.getrandbits(128), version=4))
    entries[key]["id"] = nobody if unknown else world.rng.choice(others)
    world.write_lockfile(entries)
    return f"point {key} at {entries[key]['id']}" + (", which is unknown" if unknown else "")


def blank(world: World) -> str:
    """Leave a key its id alone, as one that was found and never applied."""
    entries = world.recorded
    if not entries:
        return "nothing to blank"
    key = world.rng.choice(sorted(entries))
    entries[key] = {"id": entries[key]["id"], "spec": None}
    world.write_lockfile(entries)
    return f"drop the spec of {key}"


EDITS: tuple[tuple[int, Callable[[World], str]], ...] = (
    (2, delete),
    (1, lose_state),
    (3, drop),
    (1, swap),
    (2, restore),
    (2, point),
    (1, blank),
)


def edit(world: World) -> str:
    weights, edits = zip(*EDITS, strict=True)
    return f"lockfile: {world.rng.choices(edits, weights)[0](world)}"


# --- Putting things in order, so that a history does not end in one long refusal ---


def resolve_duplicates(world: World) -> str:
    """Keep one active meter of each marker."""
    live = world.live
    for ids in duplicates(live).values():
        recorded = {entry["id"] for entry in world.recorded.values()}
        oldest_first = [meter_id for meter_id in live if meter_id in ids]
        kept = min(oldest_first, key=lambda meter_id: meter_id not in recorded)
        for meter_id in sorted(ids - {kept}):
            world.mark(live[meter_id], None)
            world.patch(meter_id, is_archived=True)
    return "keep one meter of each marker"


def trust_markers(world: World) -> str:
    """Drop the records whose meter no marker names."""
    live, entries = world.live, world.recorded
    kept = {k: e for k, e in entries.items() if e["id"] in live and live[e["id"]].key == k}
    world.write_lockfile(kept)
    return f"drop {sorted(entries.keys() - kept.keys())} from the lockfile"


def simplify(world: World) -> str:
    """Let every meter bill by known parts again, where it is not frozen."""
    outgrown = [meter for meter in world.steady if not meter.is_known]
    for meter in outgrown:
        world.patch(meter.id, filter=manifest_edits.any_filter(world.rng))
    return f"let {[meter.id for meter in outgrown]} bill by known parts"


def declare_all(world: World) -> str:
    """Declare again whatever is recorded and not listed."""
    gone = sorted(world.recorded.keys() - world.meters.keys())
    for key in gone:
        block = manifest_edits.any_block(world.rng)
        if world.rng.random() < 0.5:
            block["archived"] = True
        manifest_edits.declare(world, key, block)
    world.write_manifest()
    return f"declare {gone}"


REPAIRS = (resolve_duplicates, trust_markers, declare_all, simplify)


def repair(world: World) -> str:
    return f"repair: {world.rng.choice(REPAIRS)(world)}"
