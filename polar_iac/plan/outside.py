"""Fields that someone changed at Polar, and which of them may be written into the manifest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import FieldPath
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Change, FieldChange, Plan


@dataclass(frozen=True)
class OutsideChange:
    """A field of a declared meter that has another value at Polar.

    `value` is that value as the manifest would declare it, None where Polar has none. `doubt` says why it is
    left alone unless its key is named, and is empty otherwise.
    """

    key: str
    path: str
    value: Any
    doubt: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        return FieldPath.parse(self.path).steps


def outside_changes(
    plan: Plan, elsewhere: Mapping[str, Mapping[str, Record]], named: Collection[str] = ()
) -> Iterator[OutsideChange]:
    """Yield every field that differs by a change outside, key by key.

    `elsewhere` are the records of other environments. `named` are the keys whose doubtful changes are taken
    as well.
    """
    for change in plan.changes:
        if change.source is None or change.before is None:
            continue
        live = change.before
        found = [*_fields(change, live, elsewhere), *_archiving(change, live)]
        for outside in found:
            if outside.key in named:
                outside = OutsideChange(outside.key, outside.path, outside.value)
            yield outside


def _fields(
    change: Change, live: MeterSpec, elsewhere: Mapping[str, Mapping[str, Record]]
) -> Iterator[OutsideChange]:
    for field in change.fields:
        if field.origin == "manifest" or change.action in ("create", "settle"):
            continue
        path = FieldPath.parse(field.path)
        value = getattr(live, path.name)
        if path.key is not None:
            value = value.get(path.key)
        doubt = (
            "the manifest has changed it too"
            if field.origin == "both"
            else _recorded_elsewhere(change.key, field, elsewhere)
        )
        yield OutsideChange(change.key, field.path, value, doubt)


def _recorded_elsewhere(key: str, field: FieldChange, elsewhere: Mapping[str, Mapping[str, Record]]) -> str:
    """Return which environments have another value than Polar has here, or an empty text."""
    found = []
    for environment, records in sorted(elsewhere.items()):
        applied = records[key].applied if key in records else {}
        if field.path in applied and canonical_json(applied[field.path]) != canonical_json(field.before):
            found.append(environment)
    return f"the lockfile of {' and '.join(found)} records another value" if found else ""


def _archiving(change: Change, live: MeterSpec) -> Iterator[OutsideChange]:
    # The planner notes it where the record says otherwise.
    if any(note.kind == "outside" for note in change.notes):
        done = "archived" if live.archived else "unarchived"
        yield OutsideChange(change.key, "archived", live.archived, f"someone {done} it")
