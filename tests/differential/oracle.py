"""The rules that hold for every apply, written without the product's own code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from tests.differential import aftermath
from tests.differential.rounds import Flag, Round, Write, brief
from tests.differential.truth import MARKER, Json, Meter, duplicates, normal, same
from tests.differential.world import marker_of


def flags(of: Round) -> Iterator[Flag]:
    """Everything about an apply that must not be."""
    for check in (_shown, _untouched, _strangers, _reasons, _duplicates_reported, _kept):
        yield from check(of)
    if not of.permitted:
        yield from _without_effect(of)
        return
    if of.calm:
        yield from _exact(of)
    if of.complete:
        yield from _no_new_duplicates(of)
        yield from aftermath.flags(of)


# --- Nothing is written that was not shown ---


def permits(change: Json) -> set[str]:
    """The fields that a PATCH of a change may name."""
    fields = {field["path"].partition(".")[0] for field in change["fields"]}
    if change["action"] in ("archive", "unarchive", "settle"):
        fields.add("is_archived")
    if change["marker"] is not None or change["action"] == "settle":
        fields.add("metadata")
    return fields


def _shown(of: Round) -> Iterator[Flag]:
    for write in of.sent:
        if write.method == "POST":
            yield from _shown_create(of, write)
        elif write.id in of.by_id:
            yield from _shown_change(of.by_id[write.id], write)
        elif not (write.id in of.new and write.body.get("is_archived") is True):
            yield Flag("unshown-write", f"{write} is for a meter without a change")


def _shown_create(of: Round, write: Write) -> Iterator[Flag]:
    change = of.creates.get(write.body.get("metadata", {}).get(MARKER))
    if change is None:
        yield Flag("unshown-write", f"{write} is not a create of the plan")
    elif normal(write.body) != normal(change["after"]):
        yield Flag("unshown-value", f"{write} is not what {change['key']} was to become")


def _shown_change(change: Json, write: Write) -> Iterator[Flag]:
    if surplus := write.body.keys() - permits(change):
        yield Flag("unshown-write", f"{write} names {surplus}, shown was {brief(change)}")
        return
    if change["before"] is None:
        # Of a meter with unknown parts nothing is shown: it can only be archived.
        if write.body != {"is_archived": True}:
            yield Flag("unshown-write", f"{write} for {brief(change)}")
        return
    whole = normal({**change["before"], **write.body})
    expected = normal(change["after"] or change["before"])
    for field in write.body.keys() - {"is_archived", "metadata"}:
        if whole[field] != expected[field]:
            yield Flag("unshown-value", f"{write}: {field} is not what was shown: {brief(change)}")
    archived = write.body.get("is_archived")
    if archived is not None and archived != (change["action"] != "unarchive"):
        yield Flag("unshown-value", f"{write} for {brief(change)}")
    if "metadata" in write.body:
        yield from _shown_metadata(change, write)


def _shown_metadata(change: Json, write: Write) -> Iterator[Flag]:
    kept = change["before"] if change["action"] in ("archive", "settle") else change["after"]
    wanted = dict((kept or change["before"])["metadata"])
    if change["marker"] is not None:
        marker = change["marker"]["after"]
    else:
        marker = None if change["action"] == "settle" else marker_of(change["key"])
    wanted |= {MARKER: marker} if marker else {}
    if not same(write.body["metadata"], wanted):
        yield Flag("unshown-value", f"{write}: the metadata shown was {wanted}")


def _exact(of: Round) -> Iterator[Flag]:
    """Without faults a plan foretells the writes exactly."""
    expected = Counter[str]()
    for change in of.changes:
        kind = "POST" if change["action"] == "create" else f"PATCH {change['id']}"
        expected[f"{kind} {'' if kind == 'POST' else sorted(permits(change))}"] += 1
    sent = Counter(
        f"POST {''}" if write.method == "POST" else f"PATCH {write.id} {sorted(write.body)}"
        for write in of.sent
    )
    if sent != expected:
        yield Flag("inexact", f"surplus {dict(sent - expected)}, missing {dict(expected - sent)}")


# --- Nothing else changes ---


def _untouched(of: Round) -> Iterator[Flag]:
    for meter_id, meter in of.before.meters.items():
        if meter_id not in of.by_id and of.after.meters[meter_id].text != meter.text:
            yield Flag("touched", f"{meter.text} became {of.after.meters[meter_id].text}, without a change")
        elif meter_id in of.by_id:
            yield from _metadata_survives(of, meter)


def _metadata_survives(of: Round, meter: Meter) -> Iterator[Flag]:
    """Metadata that is neither declared nor recorded as ours stays as it is."""
    change = of.by_id[meter.id]
    ours = set(of.declared.get(change["key"], {}).get("metadata", {}))
    for record in of.before.records.values():
        if record["id"] == meter.id and record["spec"]:
            ours |= record["spec"]["metadata"].keys()
    now = of.after.meters[meter.id].metadata
    for name, value in meter.metadata.items():
        if name not in ours and of.before.lockfile_is_complete and not same(now.get(name), value):
            yield Flag("metadata-lost", f"{name} of {meter.text}: {brief(change)}")


def _reasons(of: Round) -> Iterator[Flag]:
    """A meter is archived only where that is declared or asked for, or where it is a duplicate of ours."""
    for change in of.changes:
        block = of.declared.get(change["key"])
        if change["action"] == "settle" and not of.is_ours(of.before.meters[change["id"]]):
            yield Flag("settled-not-ours", brief(change))
        if change["action"] == "archive" and not (block or {"archived": of.allow_archive}).get("archived"):
            yield Flag("archived-unasked", brief(change))
        if change["action"] in ("create", "update", "unarchive") and (not block or block.get("archived")):
            yield Flag("undeclared", brief(change))


def _strangers(of: Round) -> Iterator[Flag]:
    for meter_id, meter in of.before.meters.items():
        if meter.key is None and meter_id not in of.imports and not of.before.remembers(meter_id):
            if of.after.meters[meter_id].text != meter.text:
                yield Flag("stranger-touched", f"{meter.text} became {of.after.meters[meter_id].text}")
            if meter_id in of.by_id:
                yield Flag("stranger-planned", f"{meter.text}: {brief(of.by_id[meter_id])}")


def _kept(of: Round) -> Iterator[Flag]:
    """No recorded id of an active meter is lost, unless the plan says so."""
    let_go = of.let_go_before | of.lets_go
    for key, record in of.before.records.items():
        meter = of.before.meters.get(record["id"])
        if meter and meter.active and meter.id not in let_go and not of.after.remembers(meter.id):
            yield Flag("id-lost", f"{meter.id} of {key}")


def _without_effect(of: Round) -> Iterator[Flag]:
    if of.sent:
        yield Flag("refused-and-written", f"exit {of.code} after {of.sent}")
    if of.after.lockfile != of.before.lockfile:
        yield Flag("refused-and-recorded", f"exit {of.code}: {of.before.lockfile} → {of.after.lockfile}")


# --- No duplicates ---


def _no_new_duplicates(of: Round) -> Iterator[Flag]:
    before = duplicates(of.before.meters)
    for marker, ids in duplicates(of.after.meters).items():
        if ids - before.get(marker, set()):
            yield Flag("duplicates", f"{marker} is borne by {ids}, before by {before.get(marker)}")


def _duplicates_reported(of: Round) -> Iterator[Flag]:
    """The plan blocks what bears one marker and names all of it, or settles all but one.

    Of a key that is neither declared nor recorded it may say so in a note.
    """
    if of.targets:
        return
    settled = {change["id"] for change in of.changes if change["action"] == "settle"}
    blocked = [json.dumps(change) for change in of.blocked.values()]
    for marker, ids in duplicates(of.before.meters).items():
        key = marker.partition("/")[2]
        unknown = key not in of.declared and key not in of.before.records
        texts = [*blocked, *map(json.dumps, of.plan["notes"])] if unknown else blocked
        is_reported = any(all(meter_id in text for meter_id in ids) for text in texts)
        if len(ids - settled) > 1 and not is_reported:
            yield Flag("duplicates-unreported", f"{marker} is on {ids}, and no blocked change names them")
