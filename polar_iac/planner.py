"""What would change: the decision table, as a pure function of desired, recorded and live state.

`_identify` and `_decide` transcribe the two tables of the design, row by row; `tests/test_planner.py` names
each row. Nothing here does IO, knows a clock or reads the environment.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from polar_iac import evidence
from polar_iac.manifest import DesiredMeter, Manifest, Move
from polar_iac.meter import (
    FROZEN_FIELDS,
    IMPACT,
    MARKER,
    MAX_METADATA_KEYS,
    UNIT_FIELDS,
    LiveMeter,
    MeterSpec,
    Record,
    canonical_json,
    is_ignored,
    merge_metadata,
    reading_order,
    record_of,
)
from polar_iac.plan import (
    UNKNOWN_HERE,
    Action,
    Bookkeeping,
    Cause,
    Change,
    Evidence,
    FieldChange,
    Housekeeping,
    Origin,
    Plan,
    Refusal,
    change_digest,
)


@dataclass(frozen=True)
class _State:
    """Recorded and live state after `moved` has renamed keys in both, indexed for the decisions."""

    recorded: Mapping[str, Record]
    by_id: Mapping[str, LiveMeter]
    by_key: Mapping[str, Sequence[LiveMeter]]
    """Per key the meters that bear its marker, and are not recorded under another key."""
    unclaimed: Mapping[str, Sequence[LiveMeter]]
    """Active meters that are none of ours, by what they bill (their filter and aggregation)."""
    record_was: Mapping[str, str]
    """Keys that `moved` renamed in the lockfile, with the former key."""
    marker_was: Mapping[str, str]
    """Ids of meters whose marker `moved` renamed, with the former key."""
    project: str
    refreshed: bool

    @cached_property
    def any_record_live(self) -> bool:
        return any(record.id in self.by_id for record in self.recorded.values())


@dataclass(frozen=True)
class _Blocked:
    cause: Cause
    reason: str
    after: MeterSpec | None = None
    fields: tuple[FieldChange, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class _Effect:
    action: Action
    after: MeterSpec
    fields: tuple[FieldChange, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def make_plan(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter] | None,
    *,
    environment: str,
    organization_id: str | None,
    targets: Collection[str] = (),
    allow_archive: bool = False,
) -> Plan:
    """Decide what an apply would do.

    `live` is every meter of the organisation, archived ones too; None plans against the lockfile alone.
    `targets` leaves all other keys alone altogether. `allow_archive` turns a removal that the manifest does
    not list (`archived: true`) from blocked into archive.
    """
    state = _observe(manifest, recorded, live)
    keys = {*state.recorded, *state.by_key, *manifest.meters}
    changes: list[Change] = []
    bookkeeping: list[Bookkeeping] = []
    unchanged = 0
    for key in sorted(keys.intersection(targets) if targets else keys):
        desired, record = manifest.meters.get(key), state.recorded.get(key)
        meter, problem = _identify(key, desired is not None, state)
        outcome = problem or _decide(key, desired, record, meter, manifest, state, allow_archive)
        if not isinstance(outcome, _Blocked):
            bookkeeping += _bookkeeping(key, desired, record, meter, outcome, state)
        if outcome is None:
            unchanged += desired is not None
            continue
        before, after = meter.spec if meter else None, outcome.after
        named = after or before or (desired and desired.spec)
        action = "blocked" if isinstance(outcome, _Blocked) else outcome.action
        meter_id = meter.id if meter else record.id if record else None
        changes.append(
            Change(
                key=key,
                action=action,
                id=meter_id,
                name=named.name if named else key,
                before=before,
                after=after,
                digest=change_digest(environment, organization_id, key, action, meter_id, before, after),
                fields=outcome.fields,
                source=desired.span if desired else None,
                reason=outcome.reason if isinstance(outcome, _Blocked) else None,
                cause=outcome.cause if isinstance(outcome, _Blocked) else None,
                freeze="frozen" if record and record.frozen else "unknown",
                evidence=outcome.evidence,
            )
        )
    changes = evidence.with_renames(changes)
    return Plan(
        environment=environment,
        organization_id=organization_id,
        project=manifest.project,
        refreshed=live is not None,
        changes=tuple(changes),
        bookkeeping=tuple(bookkeeping),
        unchanged=unchanged,
        refusal=_refusal(changes, state),
        targets=tuple(sorted(set(targets))),
        allow_archive=allow_archive,
    )


def _observe(manifest: Manifest, recorded: Mapping[str, Record], live: Sequence[LiveMeter] | None) -> _State:
    """Follow `moved` through the lockfile and the markers, and index what is there."""
    project = manifest.project
    # A move to a key that is gone itself is merely old: what is left has the name that it was left with.
    new_key = {old: new for old, new in _destinations(manifest.moved).items() if new in manifest.meters}
    records, record_was = dict(recorded), {}
    # The name that a meter bore last comes first in `new_key`, so it wins when two names were recorded.
    for old, new in new_key.items():
        if old in records and new not in records:
            records[new] = records.pop(old)
            record_was[new] = old
    if live is None:
        live = [
            LiveMeter(r.id, "", "", "" if r.spec.archived else None, f"{project}/{key}", r.spec)
            for key, r in records.items()
            if r.spec
        ]
        refreshed = False
    else:
        refreshed = True

    owner = {record.id: key for key, record in records.items()}
    by_key: dict[str, list[LiveMeter]] = defaultdict(list)
    unclaimed: dict[str, list[LiveMeter]] = defaultdict(list)
    by_id, marker_was = {}, {}
    for meter in live:
        key = _key_in(project, meter)
        if key in new_key:
            marker_was[meter.id], key = key, new_key[key]
            meter = meter.marked(f"{project}/{key}")
        by_id[meter.id] = meter
        # An id in the lockfile outweighs a marker: a meter recorded under one key is no other key's.
        if key is not None and owner.get(meter.id, key) == key:
            by_key[key].append(meter)
        elif meter.id not in owner and not meter.archived:
            unclaimed[meter.spec.billing].append(meter)
    return _State(records, by_id, by_key, unclaimed, record_was, marker_was, project, refreshed)


def _destinations(moves: Sequence[Move]) -> dict[str, str]:
    """Per former key the key of today, chains followed; keys nearest to their destination first."""
    step = {move.source: move.target for move in moves}
    paths = {}
    for source in step:
        path = [source]
        while path[-1] in step:
            path.append(step[path[-1]])
        paths[source] = path
    return {source: paths[source][-1] for source in sorted(paths, key=lambda s: (len(paths[s]), s))}


def _key_in(project: str, meter: LiveMeter) -> str | None:
    """The key of this project that the meter's marker names."""
    owner, slash, key = (meter.marker or "").partition("/")
    return key if slash and owner == project else None


def _identify(key: str, declared: bool, state: _State) -> tuple[LiveMeter | None, _Blocked | None]:
    """The design's first table: which live meter a key means, or why that cannot be told."""
    record = state.recorded.get(key)
    meter = state.by_id.get(record.id) if record else None
    marked = state.by_key.get(key, ())
    active = [meter for meter in marked if not meter.archived]
    if record:
        if meter is None and not state.refreshed:
            return None, None  # Nothing was ever applied to it: what it holds is not known offline.
        if meter is None and (declared or not state.any_record_live):
            return None, _Blocked("unknown-id", f"Polar does not know its id {record.id}: {UNKNOWN_HERE}.")
    if record and meter:
        others = [m for m in active if m.id != meter.id]
        if others:
            return meter, _twins(key, [meter, *others], state)
        if meter.marker is not None and _key_in(state.project, meter) is None:
            return meter, _Blocked(
                "foreign",
                f"the lockfile records {meter.id}, but its marker says that it belongs to {meter.marker}: "
                f"remove `{key}` from the lockfile, or the marker (metadata `polar_iac`) from the meter.",
            )
        return meter, None
    if len(active) > 1:
        return None, _twins(key, active, state)
    if active:
        return active[0], None
    # A key that nobody declares has no business with archived meters that bear its marker.
    return max(marked, key=lambda m: (m.archived_at or "", m.id), default=None), None


def _twins(key: str, meters: Sequence[LiveMeter], state: _State) -> _Blocked:
    ordered = sorted(meters, key=lambda m: (m.created_at, m.id))
    named = "; ".join(
        f"{m.id} {_quoted(m.spec.name)}" + (" (archived)" if m.archived else "") + f", created {m.created_at}"
        for m in ordered
    )
    return _Blocked(
        "twins",
        f"{len(ordered)} meters bear the marker {state.project}/{key}, and more than one may be billing: "
        f"{named}. Keep the one that your prices point at; archive each other one in Polar's dashboard, or "
        "take its metadata `polar_iac` off.",
    )


def _quoted(name: str) -> str:
    """A name in quotes that it cannot close."""
    return json.dumps(name, ensure_ascii=False)


def _decide(
    key: str,
    desired: DesiredMeter | None,
    record: Record | None,
    meter: LiveMeter | None,
    manifest: Manifest,
    state: _State,
    allow_archive: bool,
) -> _Effect | _Blocked | None:
    """The design's second table: what happens to the meter, by what the manifest says of its key."""
    if desired is None:
        if meter is None and record and not state.refreshed and record.spec is None:
            return _unlisted(key, record.id, manifest)
        if meter is None or meter.archived:
            return None
        archived = replace(meter.spec, archived=True)
        if allow_archive:
            return _Effect("archive", archived, evidence=evidence.of_archiving())
        return _unlisted(key, meter.id, manifest, archived)
    if desired.spec.archived:
        if meter is None or meter.archived:
            return None
        facts = (*evidence.of_others_archiving(record, meter), *evidence.of_archiving())
        return _Effect("archive", replace(meter.spec, archived=True), evidence=facts)
    if meter is None:
        if record and not state.refreshed:
            return _offline_unknown(desired, record)
        fields = tuple(_create_fields(desired, manifest))
        facts = (*_same_billing(desired, state), *evidence.of_meaning(desired.spec, FROZEN_FIELDS))
        return _Effect("create", desired.spec, fields, facts)

    marks = state.refreshed and meter.marker is None
    if desired.spec == meter.spec and not (marks and _is_full(meter)):  # the common case, and the cheap one
        return None
    after = _merged(desired, record, meter.spec)
    fields = tuple(_changed_fields(desired, record, meter.spec, after, manifest))
    touches_frozen = [f.path for f in fields if f.path in FROZEN_FIELDS]
    if (fields or marks) and len(after.metadata) + 1 > MAX_METADATA_KEYS:
        return _Blocked(
            "metadata-limit",
            f"the meter would have {len(after.metadata) + 1} metadata keys, the marker included; Polar takes "
            f"{MAX_METADATA_KEYS}. Others have added keys: remove some of theirs or of yours.",
            after,
            fields,
        )
    remarks = evidence.of_meaning(after, touches_frozen)
    if meter.archived:
        theirs = evidence.of_others_archiving(record, meter)
        facts = (*theirs, *evidence.of_unarchiving(touches_frozen, record), *remarks)
        return _Effect("unarchive", after, fields, facts)
    if not fields:
        return None
    if touches_frozen and record and record.frozen:
        return _Blocked("frozen", _frozen_reason(touches_frozen), after, fields)
    return _Effect("update", after, fields, (*evidence.of_rematching(touches_frozen), *remarks))


def _unlisted(key: str, meter_id: str, manifest: Manifest, after: MeterSpec | None = None) -> _Blocked:
    stale = any(move.source == key for move in manifest.moved)
    moved = f" and remove the move from `{key}`" if stale else ""
    return _Blocked(
        "unlisted",
        f"`{key}` is gone from the manifest, but {meter_id} still bills. Keep its block with "
        f"`archived: true` to archive it{moved}, or allow this once with --allow-archive.",
        after,
    )


def _is_full(meter: LiveMeter) -> bool:
    """Whether a meter without our marker has no room for it."""
    return meter.marker is None and len(meter.spec.metadata) >= MAX_METADATA_KEYS


def _offline_unknown(desired: DesiredMeter, record: Record) -> _Effect | _Blocked | None:
    """Only the id is recorded, nothing was ever applied: offline that is all there is to say."""
    if record.frozen:
        return _Blocked("frozen", _frozen_reason(FROZEN_FIELDS), desired.spec)
    return None


def _frozen_reason(fields: Sequence[str]) -> str:
    verb = "differs" if len(fields) == 1 else "differ"
    return (
        f"{' and '.join(fields)} {verb}, but Polar has frozen filter and aggregation, since the meter "
        "already aggregates events. Nothing of this meter is changed. Put back what Polar has; to bill by "
        "another rule, declare a new meter under another key, move the prices to it, and archive this one."
    )


def _same_billing(desired: DesiredMeter, state: _State) -> tuple[Evidence, ...]:
    def told(meter: LiveMeter) -> str:
        same = f"{meter.id} {_quoted(meter.spec.name)} has the same filter and aggregation"
        if meter.marker:
            return f"{same} and belongs to {meter.marker}: both would count the same events"
        mark = f"{MARKER}: {_quoted(f'{state.project}/{desired.key}')}"
        return (
            f"{same} and no owner: both would count the same events. To go on with that one instead, give it "
            f"the metadata `{mark}` in Polar's dashboard"
        )

    found = sorted(state.unclaimed.get(desired.spec.billing, ()), key=lambda m: m.id)
    return tuple(Evidence("same-billing", "warning", told(meter), "polar") for meter in found)


def _merged(desired: DesiredMeter, record: Record | None, live: MeterSpec) -> MeterSpec:
    """The spec that the meter would have: the manifest's, but for what it ignores and others' metadata."""
    ignored = desired.ignore_changes
    kept: dict[str, Any] = {"name": live.name} if "name" in ignored else {}
    if "unit" in ignored:
        kept |= {name: getattr(live, name) for name in UNIT_FIELDS}
    base = record.applied_metadata if record else {}
    metadata = merge_metadata(desired.spec.metadata, base, live.metadata, ignored)
    return replace(desired.spec, **kept, metadata=metadata)


def _changed_fields(
    desired: DesiredMeter, record: Record | None, live: MeterSpec, after: MeterSpec, manifest: Manifest
) -> Iterator[FieldChange]:
    """What differs between live and after, field by field in reading order. Equality decided before."""
    if replace(live, archived=False) == after:
        return
    was, then = live.by_path, after.by_path
    for path in sorted(_explain(was, then), key=reading_order):
        before, wanted = was.get(path), then.get(path)
        yield FieldChange(
            path,
            before,
            wanted,
            IMPACT[path.partition(".")[0]],
            _origin(path, before, wanted, record),
            manifest.span(desired.key, path.split(".", 1)),
        )


def _explain(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
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


def _create_fields(desired: DesiredMeter, manifest: Manifest) -> Iterator[FieldChange]:
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


def _bookkeeping(
    key: str,
    desired: DesiredMeter | None,
    record: Record | None,
    meter: LiveMeter | None,
    effect: _Effect | None,
    state: _State,
) -> Iterator[Bookkeeping]:
    """What the lockfile and the marker would be told besides."""

    def entry(action: Housekeeping, meter_id: str, was: str | None = None) -> Bookkeeping:
        return Bookkeeping(key, action, meter_id, was)

    if desired is None:
        if record and effect is None:
            yield entry("forget", record.id)
        return
    if meter is None:
        return
    was = state.record_was.get(key) or state.marker_was.get(meter.id)
    if was:
        yield entry("moved", meter.id, was)
    if record is None:
        yield entry("adopt", meter.id)
    # Archiving comes first: it is not to fail because others have left the marker no room.
    if state.refreshed and meter.marker != f"{state.project}/{key}" and not _is_full(meter):
        yield entry("marker", meter.id)
    # A record of what is equal already is brought up to date; one of a change is written with the change.
    if record and not effect and record != record_of(meter.id, desired.spec, desired.ignore_changes, record):
        yield entry("refresh", meter.id)


def _refusal(changes: Sequence[Change], state: _State) -> Refusal | None:
    """Why an apply would be refused as a whole, if it would."""
    unknown = tuple(change.key for change in changes if change.cause == "unknown-id")
    if unknown and not state.any_record_live:
        return Refusal("unknown-id", unknown)
    unlisted = tuple(change.key for change in changes if change.cause == "unlisted")
    return Refusal("unlisted", unlisted) if unlisted else None
