"""Edits of the manifest."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from tests.differential.truth import FIELDS, Json, Meter
from tests.differential.world import KEYS, World

CLAUSES: tuple[Json, ...] = (
    {"property": "name", "operator": "eq", "value": "call"},
    {"property": "model", "operator": "like", "value": "gpt"},
    {"property": "tokens", "operator": "gte", "value": 100},
    {"property": "region", "operator": "ne", "value": "eu"},
    {"property": "cached", "operator": "eq", "value": True},
    {"property": "size", "operator": "lt", "value": "5"},
)
AGGREGATIONS: tuple[Json, ...] = (
    {"func": "count"},
    {"func": "sum", "property": "tokens"},
    {"func": "unique", "property": "user"},
    {"func": "max", "property": "metadata.size"},
)
UNITS: tuple[Json, ...] = (
    {},
    {},
    {"unit": "token"},
    {"unit": "custom", "custom_label": "call"},
    {"unit": "custom", "custom_label": "minute", "custom_multiplier": 60},
)
NAMES = ("API calls", "Tokens used", "Exports", "Seats", "Images 🚀")
TAGS = ("team", "tier", "owner", "plan")
VALUES: tuple[Any, ...] = (1, 2, "x", True, 1.5, 1.0, "1")
IGNORABLE = ("name", "unit", "metadata", "metadata.owner", "metadata.tier")


def any_filter(rng: random.Random, depth: int = 0) -> Json:
    clauses: list[Json] = rng.sample(CLAUSES, rng.randint(0 if depth == 0 else 1, 2))
    if depth < 2 and rng.random() < 0.3:
        clauses = [*clauses, any_filter(rng, depth + 1)]
    return copy.deepcopy({"conjunction": rng.choice(["and", "or"]), "clauses": clauses})


def any_metadata(rng: random.Random) -> Json:
    return {tag: rng.choice(VALUES) for tag in rng.sample(TAGS, rng.randint(0, 3))}


def any_block(rng: random.Random) -> Json:
    """A meter as the manifest declares it."""
    block: Json = {
        "name": rng.choice(NAMES),
        "filter": any_filter(rng),
        "aggregation": dict(rng.choice(AGGREGATIONS)),
        **rng.choice(UNITS),
    }
    if metadata := any_metadata(rng):
        block["metadata"] = metadata
    if rng.random() < 0.15:
        block["lifecycle"] = {"ignore_changes": rng.sample(IGNORABLE, rng.randint(1, 2))}
    return block


def free_keys(world: World) -> list[str]:
    return [key for key in KEYS if key not in world.meters]


def declare(world: World, key: str, block: Json) -> None:
    """Put a block under a key that is not declared; moves from that key end."""
    world.meters[key] = block
    world.moved.pop(key, None)


def add(world: World) -> str:
    if not (free := free_keys(world)):
        return change(world)
    key = world.rng.choice(free)
    declare(world, key, any_block(world.rng))
    return f"add {key}"


def change(world: World) -> str:
    """Change one thing about one meter."""
    if not world.meters:
        return add(world)
    key = world.rng.choice(sorted(world.meters))
    block, rng = world.meters[key], world.rng
    match rng.choice(["name", "filter", "aggregation", "unit", "metadata", "metadata", "lifecycle"]):
        case "name":
            block["name"] = rng.choice(NAMES)
        case "filter":
            block["filter"] = any_filter(rng)
        case "aggregation":
            block["aggregation"] = dict(rng.choice(AGGREGATIONS))
        case "unit":
            for name in ("unit", "custom_label", "custom_multiplier"):
                block.pop(name, None)
            block |= rng.choice(UNITS)
        case "metadata":
            block["metadata"] = any_metadata(rng)
        case _:
            ignored = rng.sample(IGNORABLE, rng.randint(0, 2))
            block["lifecycle"] = {"ignore_changes": ignored}
    return f"change {key}"


def remove(world: World) -> str:
    if not world.meters:
        return add(world)
    key = world.rng.choice(sorted(world.meters))
    del world.meters[key]
    return f"remove {key}"


def rename(world: World) -> str:
    """Put a block under another key, with the move that says so or without."""
    if not world.meters or not (free := free_keys(world)):
        return add(world)
    old, new = world.rng.choice(sorted(world.meters)), world.rng.choice(free)
    declare(world, new, world.meters.pop(old))
    if world.rng.random() < 0.3:
        return f"rename {old} to {new}, without a word"
    world.moved = {source: target for source, target in world.moved.items() if target != new}
    world.moved[old] = new
    return f"rename {old} to {new}, moved"


def drop_moves(world: World) -> str:
    world.moved.clear()
    world.imports.clear()
    world.removed.clear()
    return "drop old moves, imports and removals"


def take_over(world: World) -> str:
    """Import a meter: one of nobody's more likely than its share, as it is more likely than otherwise."""
    live = [meter for meter in world.steady if meter.id not in world.imports.values()]
    strangers = [meter for meter in live if meter.marker is None]
    pool = strangers if strangers and world.rng.random() < 0.7 else live
    keys = free_keys(world) if world.rng.random() < 0.8 else list(KEYS)
    if not pool or not keys:
        return add(world)
    meter, key = world.rng.choice(pool), world.rng.choice(keys)
    if key not in world.meters:
        as_it_is = meter.is_known and world.rng.random() < 0.8
        declare(world, key, block_of(meter) if as_it_is else any_block(world.rng))
    unknown = f"{KEYS.index(key):08}-0000-4000-8000-000000000000"  # no two keys import one meter
    world.imports[key] = unknown if world.rng.random() < 0.05 else meter.id
    return f"import {world.imports[key]} as {key}"


def block_of(meter: Meter) -> Json:
    """The block that declares a meter as it is, but for its metadata."""
    fields = {name: meter.document[name] for name in FIELDS if meter.document[name] is not None}
    return copy.deepcopy(fields) | ({} if meter.active else {"archived": True})


def let_go(world: World) -> str:
    """Manage a key no more, or one that nobody knows."""
    key = world.rng.choice([*KEYS, *world.meters])
    world.meters.pop(key, None)
    world.moved = {old: new for old, new in world.moved.items() if key not in (old, new)}
    world.removed.add(key)
    return f"let go of {key}"


def archive(world: World) -> str:
    if not world.meters:
        return add(world)
    key = world.rng.choice(sorted(world.meters))
    if world.meters[key].pop("archived", False):
        return f"bring {key} back"
    world.meters[key]["archived"] = True
    return f"archive {key}"


def rewrite(world: World) -> str:
    """Write a filter in another form that means the same."""
    if not world.meters:
        return add(world)
    key = world.rng.choice(sorted(world.meters))
    world.meters[key]["filter"] = rewritten(world.rng, world.meters[key]["filter"])
    return f"rewrite the filter of {key}"


def rewritten(rng: random.Random, part: Json) -> Json:
    """Another form of a filter or clause: reordered, prefixed, repeated, grouped."""
    if "clauses" not in part:
        return _rewritten_clause(rng, part)
    clauses = [rewritten(rng, inner) for inner in part["clauses"]]
    rng.shuffle(clauses)
    if clauses and rng.random() < 0.2:
        clauses.append(copy.deepcopy(rng.choice(clauses)))
    if clauses and len(clauses) < 8 and rng.random() < 0.2:
        at = rng.randrange(len(clauses))
        clauses[at] = {"conjunction": rng.choice(["and", "or"]), "clauses": [clauses[at]]}
    if part["conjunction"] == "and" and rng.random() < 0.1:
        clauses.append({"conjunction": rng.choice(["and", "or"]), "clauses": []})
    return {"conjunction": part["conjunction"], "clauses": clauses}


def _rewritten_clause(rng: random.Random, clause: Json) -> Json:
    name, value = str(clause["property"]), clause["value"]
    if rng.random() < 0.3:
        name = name.removeprefix("metadata.") if name.startswith("metadata.") else f"metadata.{name}"
    if type(value) is int and rng.random() < 0.3:
        value = float(value)
    return {"property": name, "operator": clause["operator"], "value": value}


EDITS: tuple[tuple[int, Callable[[World], str]], ...] = (
    (8, add),
    (10, change),
    (2, remove),
    (4, rename),
    (1, drop_moves),
    (3, archive),
    (3, rewrite),
    (5, take_over),
    (2, let_go),
)


def edit(world: World) -> str:
    """Make one edit of the manifest, and write it."""
    weights, edits = zip(*EDITS, strict=True)
    description = world.rng.choices(edits, weights)[0](world)
    world.write_manifest()
    return f"manifest: {description}"
