"""Comparison of a live meter with its declaration: merged spec, changed fields, and their origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import IMPACT, UNIT_FIELDS, is_ignored, reading_order
from polar_iac.meter.merge import merge_metadata
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import FieldChange, Origin


def merged(desired: DesiredMeter, record: Record | None, live: MeterSpec) -> MeterSpec:
    """Return the spec after an apply: the manifest's, with ignored fields kept and metadata merged by key."""
    ignored = desired.ignore_changes
    kept: dict[str, Any] = {"name": live.name} if "name" in ignored else {}
    if "unit" in ignored:
        kept |= {name: getattr(live, name) for name in UNIT_FIELDS}
    base = record.applied_metadata if record else {}
    metadata = merge_metadata(desired.spec.metadata, base, live.metadata, ignored)
    return replace(desired.spec, **kept, metadata=metadata)


def changed_fields(
    desired: DesiredMeter, record: Record | None, live: MeterSpec, after: MeterSpec, manifest: Manifest
) -> Iterator[FieldChange]:
    """Yield the differences between `live` and `after`, field by field in display order.

    Two equal specs yield nothing.
    """
    if replace(live, archived=False) == after:
        return
    was, then = live.by_path, after.by_path
    for path in sorted(_differing(was, then), key=reading_order):
        before, wanted = was.get(path), then.get(path)
        yield FieldChange(
            path,
            before,
            wanted,
            IMPACT[path.partition(".")[0]],
            _origin(path, before, wanted, record),
            manifest.span(desired.key, path.split(".", 1)),
        )


def created_fields(desired: DesiredMeter, manifest: Manifest) -> Iterator[FieldChange]:
    """Yield every field that a create sends: required ones, and those unlike Polar's defaults."""
    canonical = desired.spec.canonical
    for name, impact in IMPACT.items():
        if name == "metadata":
            for sub, value in sorted(canonical["metadata"].items()):
                span = manifest.span(desired.key, ("metadata", sub))
                yield FieldChange(f"metadata.{sub}", None, value, impact, "manifest", span)
        elif canonical[name] is not None and canonical[name] != "scalar":
            span = manifest.span(desired.key, (name,))
            yield FieldChange(name, None, canonical[name], impact, "manifest", span)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the paths whose values differ."""
    from deepdiff import DeepDiff  # slow to import, and only needed for a plan with changes

    # Compare path by path, even if the two specs share few paths; otherwise the whole is reported as one
    # change.
    tree = DeepDiff(before, after, view="tree", threshold_to_diff_deeper=0)
    return {level.path(output_format="list")[0] for levels in tree.values() for level in levels}


def _origin(path: str, live: Any, wanted: Any, record: Record | None) -> Origin:
    """Tell who made a value differ since the last apply.

    The manifest counts for anything that apply did not send.
    """
    if record is None or record.spec is None or is_ignored(path, record.ignored):
        return "manifest"
    recorded = record.applied.get(path)
    if canonical_json(recorded) == canonical_json(live):
        return "manifest"
    return "outside" if canonical_json(recorded) == canonical_json(wanted) else "both"
