"""The state after an apply without faults: everything as declared, recorded, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.rounds import Flag, Round, brief
from tests.differential.truth import Json, Meter, normal, typed
from tests.differential.world import marker_of

FULL = 50
"""Metadata keys at most, the marker among them."""


def flags(of: Round) -> Iterator[Flag]:
    """Everything about what is there afterwards that must not be."""
    for check in (_exit_code, _done, _recorded, _forgotten):
        yield from check(of)
    if of.before.lockfile_is_complete:  # Else what was applied before is not known from the lockfile alone.
        yield from _foretold(of)
        yield from _unchanged(of)


def _exit_code(of: Round) -> Iterator[Flag]:
    due = 1 if of.blocked or of.refused else 0
    if of.code != due:
        yield Flag("exit-code", f"{of.code} instead of {due}")


def _done(of: Round) -> Iterator[Flag]:
    """Each meter is as its change said."""
    for change in of.changes:
        if change["key"] in of.refused and change["action"] != "settle":
            if of.after.meters[change["id"]].text != of.before.meters[change["id"]].text:
                yield Flag("half-done", f"{brief(change)} was refused, and something of it done")
            continue
        created = [
            m for m in of.after.meters.values() if m.id in of.new and m.marker == marker_of(change["key"])
        ]
        meters = created if change["action"] == "create" else [of.after.meters[change["id"]]]
        if len(meters) != 1:
            yield Flag("not-done", f"{brief(change)} made {[meter.id for meter in meters]}")
        for meter in meters:
            yield from _is_as_shown(change, meter, of.before.meters.get(meter.id))


def _is_as_shown(change: Json, meter: Meter, was: Meter | None) -> Iterator[Flag]:
    spec = change["after"] or change["before"]  # neither, of a meter with unknown parts
    if spec and normal(meter.document) != normal(spec):
        yield Flag("not-as-shown", f"{meter.text} is not {spec}")
    if change["action"] in ("mark", "release"):
        active = was is None or was.active
    else:
        active = change["action"] not in ("archive", "settle")
    if meter.active != active:
        yield Flag("not-as-shown", f"after {brief(change)} active is {meter.active}")
    marker = change["marker"]["after"] if change["marker"] else None
    if change["marker"] and meter.marker != marker:
        yield Flag("not-as-shown", f"the marker is {meter.marker}, shown was {change['marker']}")


def merged(block: Json, record: Json | None, live: Meter) -> dict[str, str]:
    """The fields that a meter must have: as declared, but for ignored ones and for others' metadata."""
    ignored = set(block.get("lifecycle", {}).get("ignore_changes", ()))
    wanted, now = normal(block), normal(live.document)
    own = {path for path in wanted if not path.startswith("metadata.")}
    ignored_paths = {"name"} & ignored
    ignored_paths |= {"unit", "custom_label", "custom_multiplier"} if "unit" in ignored else set()
    merged_fields = {path: now[path] if path in ignored_paths else wanted[path] for path in own}
    base = _base(record)
    for path in {path for path in wanted | now if path.startswith("metadata.")}:
        free = "metadata" in ignored or path in ignored or (path not in wanted and path not in base)
        if path in (now if free else wanted):
            merged_fields[path] = (now if free else wanted)[path]
    return merged_fields


def _base(record: Json | None) -> set[str]:
    """The metadata that was applied before, by path."""
    if record is None or not record["spec"]:
        return set()
    unsent = set(record.get("ignored", ()))
    paths = {f"metadata.{key}" for key in record["spec"]["metadata"]}
    return set() if "metadata" in unsent else paths - unsent


def _record_of(of: Round, meter_id: str) -> Json | None:
    return next((r for r in of.before.records.values() if r["id"] == meter_id), None)


def _foretold(of: Round) -> Iterator[Flag]:
    """The `after` of each change is the declared block, merged."""
    for change in of.changes:
        block = of.declared.get(change["key"])
        if change["action"] in ("update", "unarchive", "mark") and block:
            meter = of.before.meters[change["id"]]
            left_alone = change["action"] == "mark" and block.get("archived")
            record = _record_of(of, meter.id)
            wanted = normal(meter.document) if left_alone else merged(block, record, meter)
            if normal(change["after"] or change["before"]) != wanted:
                yield Flag("wrongly-merged", f"{brief(change)} of {meter.text}, wanted {wanted}")
        elif change["action"] == "create" and block and normal(change["after"]) != normal(block):
            yield Flag("wrongly-merged", f"{brief(change)}, declared {block}")


def _recorded(of: Round) -> Iterator[Flag]:
    """Each key that is declared and not blocked is recorded, with a meter that is as declared."""
    for key, block in of.declared.items():
        if not of.concerns(key) or key in of.blocked or key in of.refused:
            continue
        record = of.after.records.get(key)
        if record is None:
            if not block.get("archived") or any(m.key == key for m in of.after.meters.values() if m.active):
                yield Flag("unrecorded", f"{key} has no entry")
            continue
        meter = of.after.meters[record["id"]]
        if meter.active == bool(block.get("archived")):
            yield Flag("not-as-declared", f"{key}: active is {meter.active}: {meter.text}")
        full = meter.marker is None and len(meter.metadata) >= FULL
        if meter.active and meter.marker != marker_of(key) and not full:
            yield Flag("not-as-declared", f"{key} is recorded as {meter.text}")
        if meter.active and typed(_spec(record)) != typed(normal(block)):
            yield Flag("wrongly-recorded", f"{key}: {record['spec']}, declared is {block}")


def _spec(record: Json) -> Any:
    return record["spec"] and normal(record["spec"])


def _unchanged(of: Round) -> Iterator[Flag]:
    """A meter without a change is as declared."""
    changed = {change["key"] for change in of.plan["changes"]}
    for key, block in of.declared.items():
        record = of.after.records.get(key)
        if not of.concerns(key) or key in changed or block.get("archived") or record is None:
            continue
        meter = of.before.meters[record["id"]]
        wanted = merged(block, _record_of(of, meter.id), meter)
        if normal(meter.document) != wanted:
            yield Flag("unplanned", f"{key} is {meter.text}, declared is {block}, no change")


def _forgotten(of: Round) -> Iterator[Flag]:
    blocked = {change["id"] for change in of.blocked.values()}
    for key in of.after.records.keys() - of.declared.keys():
        # The meter of a key that was renamed without `moved`: `import` names it for the new one, in vain.
        moved = of.after.records[key]["id"] in blocked | of.imports
        if of.concerns(key) and key not in of.blocked and not moved:
            yield Flag("unforgotten", f"{key} is not declared, and recorded")
