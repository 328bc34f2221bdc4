"""Drift: what someone changed at Polar since the lockfile was written. What waits to be applied is none.

Pure, like the planner, whose halves it uses: `identify` finds the meter of a record, `diff` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polar_iac.errors import SourceSpan
from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import Impact
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.decide import is_full
from polar_iac.plan.diff import changed_fields, merged
from polar_iac.plan.identify import Identity, identify, reference
from polar_iac.plan.index import State, index_state
from polar_iac.plan.model import Cause, MeterReference
from polar_iac.plan.outcome import Blocked

ARCHIVED = "archived"
MARKER = "marker"


@dataclass(frozen=True)
class FieldDrift:
    """One part of a meter that is not as it was recorded.

    `path` is a field, `metadata.KEY`, `archived` or `marker` (the ownership marker); the last two have no
    impact. `recorded` and `live` are canonical values; None means absent. `declared` means that the manifest
    says by now what Polar has, so that an apply only records it.
    """

    path: str
    recorded: Any
    live: Any
    impact: Impact | None
    declared: bool


@dataclass(frozen=True)
class MeterDrift:
    """One meter that is not as it was recorded: its fields, or the reason that it cannot be compared.

    `cause` and `reason` are those of a blocked change, and `meters` the live ones that the reason names.
    `listed` is False when the key is gone from the manifest, and `source` is its place there.
    """

    key: str
    id: str
    name: str
    fields: tuple[FieldDrift, ...] = ()
    cause: Cause | None = None
    reason: str | None = None
    meters: tuple[MeterReference, ...] = ()
    listed: bool = True
    source: SourceSpan | None = None


@dataclass(frozen=True)
class Drift:
    """Drift of one environment. `meters` are in the order of their keys; `compared` counts all recorded."""

    environment: str
    organization_id: str | None
    project: str
    meters: tuple[MeterDrift, ...]
    compared: int
    manifest: str | None = None
    lockfile: str | None = None


def find_drift(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter],
    *,
    environment: str,
    made: Made = NOTHING_MADE,
) -> tuple[MeterDrift, ...]:
    """Return the recorded meters that someone changed at Polar, by key.

    `live` and `made` are those of `make_plan`. The manifest counts for `moved`, for what `ignore_changes`
    leaves to others, and for what it has taken over already. A key that `removed` names is let go of as it
    is.
    """
    state = index_state(manifest, recorded, live, made, environment)
    keys = sorted(state.recorded.keys() - state.removed.keys())
    found = (_meter_drift(key, manifest, state) for key in keys)
    return tuple(filter(None, found))


def _meter_drift(key: str, manifest: Manifest, state: State) -> MeterDrift | None:
    record, desired = state.recorded[key], manifest.meters.get(key)
    identity = identify(key, desired is not None, state)
    meter, blocked = identity.meter, identity.blocked
    if blocked is not None and blocked.cause == "import":
        return None  # The manifest names another meter than the lockfile: nothing was changed at Polar.
    if blocked is None and _has_unknown_parts(identity, record):
        blocked = Blocked(
            "unknown-parts",
            "Polar has parts here that this version does not know: someone changed its filter or aggregation "
            "with another tool. Update polar-iac, or change the meter in Polar's dashboard.",
        )
    fields = () if blocked else tuple(_fields(key, record, identity, manifest, state))
    if not blocked and not fields:
        return None
    return MeterDrift(
        key=key,
        id=record.id,
        name=meter.name if meter else record.spec.name if record.spec else key,
        fields=fields,
        cause=blocked.cause if blocked else None,
        reason=blocked.reason if blocked else None,
        meters=tuple(reference(m, state) for m in blocked.meters) if blocked else (),
        listed=desired is not None,
        source=desired.span if desired else None,
    )


def _has_unknown_parts(identity: Identity, record: Record) -> bool:
    meter = identity.meter
    return meter is not None and meter.id == record.id and meter.spec is None and record.spec is not None


def _fields(
    key: str, record: Record, identity: Identity, manifest: Manifest, state: State
) -> Iterator[FieldDrift]:
    """Yield what is not as it was recorded of a meter whose identity is certain."""
    meter = identity.meter
    # Example of another meter: the recorded one is a duplicate that this machine made, and is settled.
    if meter is None or meter.id != record.id or meter.spec is None or record.spec is None:
        return
    if not identity.ours:
        return  # The key is gone from the manifest, and another project has taken the meter over.
    desired = manifest.meters.get(key)
    if record.spec.archived != meter.archived:
        is_declared = desired is not None and desired.spec.archived == meter.archived
        yield FieldDrift(ARCHIVED, record.spec.archived, meter.archived, None, is_declared)
    if not (record.spec.archived and meter.archived):
        yield from _changed(key, record, record.spec, meter.spec, desired, manifest)
    if meter.marker is None and not is_full(meter):
        yield FieldDrift(MARKER, state.marker(key), None, None, declared=False)


def _changed(
    key: str,
    record: Record,
    spec: MeterSpec,
    live: MeterSpec,
    desired: DesiredMeter | None,
    manifest: Manifest,
) -> Iterator[FieldDrift]:
    """Yield the fields that apply sent and that have another value now."""
    ignored = record.ignored | (desired.ignore_changes if desired else frozenset())
    # What was recorded, as if it were declared: what would put it back is what someone changed.
    as_recorded = DesiredMeter(key, spec, ignored, manifest.span(key))
    after = merged(as_recorded, record, live)
    wanted = merged(desired, record, live).by_path if desired else {}
    for field in changed_fields(as_recorded, record, live, after, manifest):
        if field.origin == "manifest":
            continue
        is_declared = desired is not None and _same(wanted.get(field.path), field.before)
        yield FieldDrift(field.path, field.after, field.before, field.impact, is_declared)


def _same(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)
