"""What differs between a live meter and what the manifest declares: the merged spec, fields, and origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from polar_iac.manifest import DesiredMeter, Manifest
from polar_iac.meter import (
    IMPACT,
    UNIT_FIELDS,
    MeterSpec,
    Record,
    canonical_json,
    is_ignored,
    merge_metadata,
    reading_order,
)
from polar_iac.plan import FieldChange, Origin


def merged(desired: DesiredMeter, record: Record | None, live: MeterSpec) -> MeterSpec:
    """The spec after an apply: the manifest's, but for ignored fields, with metadata merged key by key."""
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
    """What differs between live and after, field by field in reading order. Equality decided before."""
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
    """Every field that a create sends: the required ones and those that differ from Polar's defaults."""
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
    """The paths whose values differ."""
    from deepdiff import DeepDiff  # slow to import, and only a plan with changes needs it

    # Two specs that share few paths are still compared path by path, and not as one changed whole.
    tree = DeepDiff(before, after, view="tree", threshold_to_diff_deeper=0)
    return {level.path(output_format="list")[0] for levels in tree.values() for level in levels}


def _origin(path: str, live: Any, wanted: Any, record: Record | None) -> Origin:
    """Who moved the two apart since the last apply. What that did not send, the manifest sends now."""
    if record is None or record.spec is None or is_ignored(path, record.ignored):
        return "manifest"
    recorded = record.applied.get(path)
    if canonical_json(recorded) == canonical_json(live):
        return "manifest"
    return "outside" if canonical_json(recorded) == canonical_json(wanted) else "both"
