"""What a reviewer should know of a change besides what differs: facts of Polar, doubts about the meter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polar_iac.matching import aggregation_remarks, filter_remarks
from polar_iac.meter import FROZEN_FIELDS, LiveMeter, MeterSpec, Record
from polar_iac.plan import Change, Evidence, renames


def of_archiving() -> tuple[Evidence, ...]:
    text = (
        "an archived meter bills nothing, and usage of that time is lost. Polar looks at active prices only: "
        "a subscription on an older price does not stop it, and would be billed no more"
    )
    return (Evidence("archive", "warning", text, "polar"),)


def of_rematching(touched: Sequence[str]) -> tuple[Evidence, ...]:
    if not touched:
        return ()
    return (
        Evidence(
            "freeze",
            "warning",
            "freeze unknown: Polar refuses this if the meter has counted events already",
            "polar",
        ),
        Evidence(
            "rematch",
            "warning",
            "events already ingested are not matched again: what matched before is still billed",
            "polar",
        ),
    )


def of_unarchiving(touched: Sequence[str], record: Record | None) -> tuple[Evidence, ...]:
    gap = Evidence("gap", "warning", "usage of the time it was archived is not filled in", "polar")
    if touched and record and record.frozen:
        text = f"Polar refused to change its {' and '.join(FROZEN_FIELDS)} before, and will refuse this too"
        return (gap, Evidence("freeze", "warning", text, "lockfile"))
    return (gap, *of_rematching(touched))


def of_others_archiving(record: Record | None, meter: LiveMeter) -> tuple[Evidence, ...]:
    """That someone archived the meter at Polar, or brought it back, since the last apply."""
    if not record or not record.spec or record.spec.archived == meter.archived:
        return ()
    told = (
        "someone archived it at Polar since the last apply: to leave it so, write `archived: true`"
        if meter.archived
        else "someone unarchived it at Polar since the last apply: to leave it so, remove `archived: true`"
    )
    return (Evidence("outside", "warning", told, "lockfile"),)


_REMARKS = 5
"""Of doubtful clauses, as many as are told."""


def of_meaning(spec: MeterSpec, touched: Sequence[str]) -> tuple[Evidence, ...]:
    """What of a new filter or aggregation hardly means what it says."""
    clauses = set(filter_remarks(spec.filter)) if "filter" in touched else set()
    found = sorted(clauses, key=lambda remark: (remark[0] != "warning", remark[1]))
    found += aggregation_remarks(spec.aggregation) if "aggregation" in touched else ()
    if len(found) > _REMARKS:
        found[_REMARKS - 1 :] = [("warning", f"{len(found) - _REMARKS + 1} more clauses are as doubtful")]
    return tuple(Evidence("meaning", severity, text, "polar") for severity, text in found)


def with_renames(changes: Sequence[Change]) -> list[Change]:
    """The changes, with a word where a key went and a new one bills by the same rule."""
    renamed = renames(changes)

    def hinted(change: Change) -> Change:
        if change.key not in renamed:
            return change
        told = (
            f"`{renamed[change.key]}` is new and counts the same: if this is the same meter under a new key, "
            f"write `moved: [{{from: {change.key}, to: {renamed[change.key]}}}]`, and nothing is archived"
        )
        return replace(change, evidence=(Evidence("renamed", "warning", told, "manifest"), *change.evidence))

    return [hinted(change) for change in changes]
