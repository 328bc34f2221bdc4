"""Wording that all reports share: names, values, sentences and refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polar_iac.manifest.write import block
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, Plan, renames
from polar_iac.sanitize import printable

HOUSEKEEPING = {
    "adopt": "adopted: found by its marker, recorded in the lockfile",
    "forget": "forgotten: gone from the manifest, and archived or unknown",
    "moved": "moved: the same meter under a new key",
    "marker": "its ownership marker will be restored",
    "refresh": "the lockfile is brought up to date",
}
"""Descriptions of changes that affect the lockfile only."""
_BLOCKS = 20
"""Most manifest blocks that a refusal prints."""


def value(data: Any) -> str:
    """Return a value as both YAML and JSON write it. None becomes `none`."""
    return "none" if data is None else printable(json.dumps(data, ensure_ascii=False))


def settled(change: Change) -> str:
    """Describe the effect of settling a duplicate."""
    return (
        f"archives the duplicate {change.id}, which an earlier run of this machine made, and takes its "
        f"marker off; {change.duplicate_of} stays"
    )


def snippets_to_allow(plans: Sequence[Plan]) -> tuple[list[str], list[str]]:
    """Return what a manifest needs to permit plans that are refused for unlisted removals.

    These are the lines of `moved`, if keys seem to be renamed, and the blocks of the meters to archive, at
    most `_BLOCKS`.
    """
    moved: dict[str, str] = {}
    removed: dict[str, MeterSpec] = {}
    for plan in plans:
        gone = plan.refusal.keys if plan.refusal else ()
        moved |= {old: new for old, new in renames(plan.changes).items() if old in gone}
        removed = {c.key: c.before for c in plan.changes if c.key in gone and c.before} | removed
    lines = [f"  - {{from: {old}, to: {new}}}" for old, new in sorted(moved.items())]
    # Use the canonical form, so that a saved plan prints the same.
    specs = ((key, MeterSpec.from_json(spec.canonical)) for key, spec in sorted(removed.items())[:_BLOCKS])
    blocks = [block(key, replace(spec, archived=True)) for key, spec in specs]
    return ["moved:", *lines] if lines else [], blocks


WIDTH = 100
"""Columns of text, unless the terminal has fewer."""
