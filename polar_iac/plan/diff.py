"""Comparison of a live meter with its declaration: merged spec, changed fields, and their origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import IMPACT, FieldPath
from polar_iac.meter.merge import merge_metadata
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import FieldChange, Origin


def merged(desired: DesiredMeter, record: Record | None, live: MeterSpec) -> MeterSpec:
    """Return the spec after an apply: the manifest's, with ignored fields kept and metadata merged by key."""
    ignored = desired.ignore_changes
    kept = {name: getattr(live, name) for name in IMPACT if FieldPath(name).is_ignored(ignored)}
    base = record.applied_metadata if record else {}
    kept["metadata"] = merge_metadata(desired.spec.metadata, base, live.metadata, ignored)
    return replace(desired.spec, **kept)


def changed_fields(
    desired: DesiredMeter, record: Record | None, live: MeterSpec, after: MeterSpec, manifest: Manifest
) -> Iterator[FieldChange]:
    """Yield the differences between `live` and `after`, field by field in display order.

    Two equal specs yield nothing.
    """
    if replace(live, archived=False) == after:
        return
    was, then = live.by_path, after.by_path
    for path in sorted(map(FieldPath.parse, _differing(was, then))):
        before, wanted = was.get(str(path)), then.get(str(path))
        origin = _origin(path, before, wanted, record)
        yield _field_change(path, before, wanted, origin, desired, manifest)


def created_fields(desired: DesiredMeter, manifest: Manifest) -> Iterator[FieldChange]:
    """Yield every field that a create sends: required ones, and those unlike Polar's defaults."""
    values = {FieldPath.parse(text): value for text, value in desired.spec.created_by_path.items()}
    for path in sorted(values):
        yield _field_change(path, None, values[path], "manifest", desired, manifest)


def _field_change(
    path: FieldPath, before: Any, after: Any, origin: Origin, desired: DesiredMeter, manifest: Manifest
) -> FieldChange:
    span = manifest.span(desired.key, path.steps)
    return FieldChange(str(path), before, after, path.impact, origin, span)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the paths whose values differ."""
    # Imported here, because that takes a quarter of a second, and only a plan with changes has differences
    # to explain.
    from deepdiff import DeepDiff

    # As texts, since only the paths are asked for: to walk into each filter would take four times as long.
    was, then = ({path: canonical_json(value) for path, value in side.items()} for side in (before, after))
    # Compare path by path, even if the two specs share few paths; otherwise the whole is reported as one
    # change.
    tree = DeepDiff(was, then, view="tree", threshold_to_diff_deeper=0)
    return {level.path(output_format="list")[0] for levels in tree.values() for level in levels}


def _origin(path: FieldPath, live: Any, wanted: Any, record: Record | None) -> Origin:
    """Tell who made a value differ since the last apply.

    The manifest counts for anything that apply did not send.
    """
    if record is None or record.spec is None or path.is_ignored(record.ignored):
        return "manifest"
    recorded = record.applied.get(str(path))
    if canonical_json(recorded) == canonical_json(live):
        return "manifest"
    return "outside" if canonical_json(recorded) == canonical_json(wanted) else "both"
