"""Records: what the lockfile holds of a meter."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from polar_iac.meter.canonical import same_value
from polar_iac.meter.fields import FROZEN_FIELDS, IGNORABLE, FieldPath
from polar_iac.meter.spec import MeterSpec


@dataclass(frozen=True)
class Record:
    """Lockfile entry of one meter.

    `spec` is what the manifest declared at the last apply. It is None when nothing was ever applied: the
    meter was found by its marker and then refused a change. `frozen` means that Polar once refused to change
    its filter or aggregation. `ignored` holds the fields of `spec` that were not sent, named as in
    `ignore_changes`. `extra` holds fields of later versions of this tool.
    """

    id: str
    spec: MeterSpec | None
    frozen: bool = False
    ignored: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def applied(self) -> Mapping[str, Any]:
        """Canonical values of the last apply, by path (the text of a `FieldPath`)."""
        values = self.spec.by_path if self.spec else {}
        if not self.ignored:
            return values
        return {p: value for p, value in values.items() if not FieldPath.parse(p).is_ignored(self.ignored)}

    @property
    def applied_metadata(self) -> Mapping[str, Any]:
        """Metadata of the last apply: the base of a three-way merge."""
        paths = {FieldPath.parse(text): value for text, value in self.applied.items()}
        return {path.key: value for path, value in paths.items() if path.key is not None}


def record_of(
    meter_id: str,
    declared: MeterSpec,
    ignore_changes: Set[str],
    base: Record | None,
    *,
    created: bool = False,
) -> Record:
    """Return the lockfile entry for a meter once it is as declared.

    `base` is its previous entry. `created` means that a create sent every field. Archiving sends only the
    archived flag, so the rest stays as it was last applied. Recording the same state twice changes nothing.
    """
    base = base if base and base.id == meter_id else None
    record = replace(base, spec=declared) if base else Record(meter_id, declared)
    if declared.archived and not created:
        if base and base.spec:
            return replace(record, spec=replace(base.spec, archived=True))
        # The meter is archived, and nothing of this spec was ever applied: record it all as not sent.
        return replace(record, ignored=frozenset((*FROZEN_FIELDS, *IGNORABLE)))
    if created or not ignore_changes:
        return replace(record, ignored=frozenset())
    # A value that was sent before, and is still declared, is known even if the field is ignored now. Example:
    # `name` was applied as "A", then added to `ignore_changes` and still declared as "A": it stays recorded.
    sent = base.applied if base else {}
    paths = {FieldPath.parse(text): value for text, value in declared.by_path.items()}
    unsent = (
        path.ignored_as
        for path, value in paths.items()
        if path.is_ignored(ignore_changes)
        and (str(path) not in sent or not same_value(sent[str(path)], value))
    )
    return replace(record, ignored=frozenset(unsent))
