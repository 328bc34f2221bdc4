"""Notes for reviewers: facts about Polar, and doubts about a meter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from polar_iac.manifest.findings import PlacedFinding, findings_of
from polar_iac.manifest.model import Manifest
from polar_iac.meter.fields import MAX_METADATA_KEYS
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.plan.model import Change, Note
from polar_iac.plan.renames import Rename, renames

PROBE = "polar-iac probe -e ENV KEY"
"""The command in a note that many changes share. A report that shows it for one names that one."""


def archiving_notes() -> tuple[Note, ...]:
    """Describe the effect of an archiving on billing."""
    text = (
        "Usage while archived is never billed. Polar does not protect subscriptions on replaced prices: they "
        "would stop being billed, and cannot be seen here."
    )
    return (Note("archive", "warning", text, "polar"),)


def rematching_notes(touched: Sequence[str]) -> tuple[Note, ...]:
    """Describe the effect of a new filter or aggregation. `touched` are the changed fields that freeze."""
    if not touched:
        return ()
    return (
        Note(
            "freeze",
            "warning",
            f"freeze unknown: `{PROBE}` tells if Polar refuses this",
            "polar",
            data={"state": "unknown", "events": None, "last": None},
        ),
        Note(
            "rematch",
            "warning",
            "Invoices keep what already matched; balances and dashboards recompute the current period by the "
            "new filter.",
            "polar",
        ),
    )


def unarchiving_notes(touched: Sequence[str]) -> tuple[Note, ...]:
    """Describe the effect of an unarchiving, and of what else it changes."""
    gap = Note("gap", "warning", "usage of the time it was archived is not filled in", "polar")
    return (gap, *rematching_notes(touched))


def outside_archiving_notes(record: Record | None, meter: LiveMeter) -> tuple[Note, ...]:
    """Report that someone archived or unarchived the meter in Polar since the last apply."""
    if not record or not record.spec or record.spec.archived == meter.archived:
        return ()
    text = (
        "someone archived it at Polar since the last apply: to leave it so, write `archived: true`"
        if meter.archived
        else "someone unarchived it at Polar since the last apply: to leave it so, remove `archived: true`"
    )
    return (Note("outside", "warning", text, "lockfile"),)


def unmarked_note(key: str, marker: str, meter: LiveMeter) -> Note:
    """Report that a meter has no marker, because other people's metadata leave no room for it."""
    text = (
        f"`{key}` is managed without its ownership marker: {meter.id} has {MAX_METADATA_KEYS} metadata keys, "
        "and Polar takes no more. If the lockfile is lost, the meter is not found again"
    )
    return Note("unmarked", "warning", text, "polar", data={"id": meter.id, "marker": marker}, key=key)


def unknown_meters_note(key: str, meters: Sequence[LiveMeter]) -> Note:
    """Report active meters with a marker whose key neither the manifest nor the lockfile has."""
    text = (
        f"`{key}` of this project is live at Polar; neither this manifest nor this lockfile knows it: "
        "applied from another branch or manifest, or the lockfile was lost"
    )
    return Note("unknown-here", "info", text, "polar", data=_meters_data(meters), key=key)


def foreign_record_note(key: str, meter: LiveMeter, gone: str) -> Note:
    """Report that a key is forgotten while its meter stays active: nothing shows it is ours.

    `gone` says why the key is not declared here.
    """
    owner = f"bears the marker {meter.marker}" if meter.marker else "bears no marker"
    text = (
        f"`{key}` is {gone}, and {meter.id} {owner}: its record is forgotten, and the meter is left as it is"
    )
    return Note("not-ours", "warning", text, "polar", data=_meters_data([meter]), key=key)


def taken_over_note(meter: LiveMeter, key: str | None = None) -> Note:
    """Report that `import` adopts a meter without an owner. `key` is for a note outside the changes."""
    text = f"takes over {meter.id}, which has no owner"
    text = text if key is None else f"`{key}` {text}"
    return Note("import", "info", text, "polar", data=_meters_data([meter]), key=key)


def unread_import_note(key: str, meter_id: str) -> Note:
    """Report, of an offline plan, that the meter which a key takes over is not known."""
    text = f"`{key}` takes over {meter_id}: what differs is not known offline"
    return Note("import", "info", text, "manifest", data={"id": meter_id}, key=key)


def nothing_to_release_note(key: str, bearers: Sequence[LiveMeter]) -> Note:
    """Report that `removed` names a key that is not in the lockfile."""
    bears = "bears" if len(bearers) == 1 else "bear"
    ids = " and ".join(meter.id for meter in bearers)
    left = f"{ids} still {bears} its marker, and nothing is changed" if bearers else "nothing is left to do"
    text = f"`removed` names `{key}`, which is not in this lockfile: {left}"
    return Note("removed", "info", text, "lockfile", data=_meters_data(bearers), key=key)


def import_entry(key: str, meter: LiveMeter, environment: str) -> str:
    """Return the entry of `import` that takes a meter over, as code."""
    return f"`{{to: {key}, id: {{{environment}: {meter.id}}}}}`"


def same_billing_notes(key: str, others: Sequence[LiveMeter], environment: str) -> Iterator[Note]:
    """Report that a new meter would count the same events as a meter that is not ours."""
    for meter in others:
        owner = f"belongs to {meter.marker}" if meter.marker else "has no owner"
        text = (
            f"{meter.id} {quoted(meter.name)} has the same filter and aggregation and {owner}: both would "
            f"count the same events{_instead(key, meter, environment)}"
        )
        yield Note("same-billing", "warning", text, "polar", data=_meters_data([meter]))


def same_name_notes(key: str, others: Sequence[LiveMeter], environment: str) -> Iterator[Note]:
    """Report that a new meter would share its name with one that is not ours and counts something else."""
    for meter in others:
        text = f"{meter.id} has the same name and another filter or aggregation"
        text += _instead(key, meter, environment)
        yield Note("same-name", "info", text, "polar", data=_meters_data([meter]))


def _instead(key: str, meter: LiveMeter, environment: str) -> str:
    """Return how to take over a meter that has no owner, instead of creating another one."""
    entry = import_entry(key, meter, environment)
    return "" if meter.marker else f". To go on with that meter, add {entry} to `import`"


def _meters_data(meters: Sequence[LiveMeter]) -> dict[str, Any]:
    return {"meters": [{"id": m.id, "name": m.name, "marker": m.marker} for m in meters]}


def quoted(name: str) -> str:
    """Return the name in quotes, escaped so that it cannot end them."""
    return json.dumps(name, ensure_ascii=False)


_MAX_DOUBTS = 5
"""Most warnings of lint that a change lists."""


def with_lint(changes: Sequence[Change], manifest: Manifest) -> list[Change]:
    """Return the changes, with the warnings of lint about the fields that each creates or changes."""
    linted = {
        change.key: {path.partition(".")[0] for path in (field.path for field in change.fields)}
        for change in changes
        if change.action in ("create", "update", "unarchive") and change.key in manifest.meters
    }
    if not linted:
        return list(changes)
    found: dict[str, list[PlacedFinding]] = {}
    for placed in findings_of(manifest, linted.keys()):
        if placed.finding.path[0] in linted[placed.key]:
            found.setdefault(placed.key, []).append(placed)
    return [
        replace(change, notes=(*change.notes, *_lint_notes(found[change.key])))
        if change.key in found and change.action in ("create", "update", "unarchive")
        else change
        for change in changes
    ]


def _lint_notes(found: Sequence[PlacedFinding]) -> list[Note]:
    notes = [
        _lint_note(placed) for placed in sorted(found, key=lambda placed: (placed.rule.code, placed.span))
    ]
    if len(notes) > _MAX_DOUBTS:
        # Example: of 8 warnings, 4 are listed, and the fifth line counts the other 4.
        rest = len(notes) - _MAX_DOUBTS + 1
        notes[_MAX_DOUBTS - 1 :] = [
            Note("meaning", "warning", f"{rest} more warnings like these", "manifest")
        ]
    return notes


def _lint_note(placed: PlacedFinding) -> Note:
    rule = placed.rule
    data = {"code": rule.code, "name": rule.name, "source": placed.span.json}
    return Note("meaning", "warning", f"[{rule.title}] {placed.finding.message}", "manifest", data=data)


def with_renames(changes: Sequence[Change]) -> list[Change]:
    """Return the changes, with a hint where a key was removed and a new key is probably the same meter."""
    renamed = renames(changes)
    return [
        replace(change, notes=(_renamed_note(change.key, renamed[change.key]), *change.notes))
        if change.key in renamed
        else change
        for change in changes
    ]


_LIKENESS = {
    "billing": "counts the same",
    "name": "has the same name",
    "most": "differs in little",
}


def _renamed_note(key: str, rename: Rename) -> Note:
    """Suggest `moved`. A meter that counts otherwise under its new key is changed, which Polar may refuse."""
    outcome = (
        "nothing is archived"
        if rename.likeness == "billing"
        else "it is changed instead of archived, unless it is frozen"
    )
    text = (
        f"`{rename.key}` is new and {_LIKENESS[rename.likeness]}: if this is the same meter under a new key, "
        f"write `moved: [{{from: {key}, to: {rename.key}}}]`, and {outcome}"
    )
    return Note("renamed", "warning", text, "manifest")
