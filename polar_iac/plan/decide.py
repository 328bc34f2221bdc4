"""Planner: the decision table as a pure function of desired, recorded, and live state.

`identify` and `_decide` implement the two halves of the table, row by row;
`tests/plan/test_decision_table.py` names each row. Nothing here does I/O, uses a clock, or reads the
environment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.fields import FROZEN_FIELDS, MAX_METADATA_KEYS
from polar_iac.meter.limits import broken_limits
from polar_iac.meter.live import NOTHING_MADE, LiveMeter, Made
from polar_iac.meter.record import Record, record_of
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan import annotate
from polar_iac.plan.creates import create
from polar_iac.plan.diff import changed_fields, merged
from polar_iac.plan.examples import with_examples
from polar_iac.plan.identify import Identity, identify, reference
from polar_iac.plan.index import State, index_state
from polar_iac.plan.model import (
    Action,
    Bookkeeping,
    Change,
    Housekeeping,
    MarkerChange,
    MarkReason,
    Note,
    Plan,
    Refusal,
    change_digest,
)
from polar_iac.plan.outcome import Blocked, Effect, archived_spec, too_many_keys, unknown_parts
from polar_iac.plan.removals import absent, removed
from polar_iac.plan.same_events import as_counted, same_events_note


@dataclass(frozen=True)
class _Scope:
    """Environment and organization of a plan, which every digest includes."""

    environment: str
    organization_id: str | None


def make_plan(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter] | None,
    *,
    environment: str,
    organization_id: str | None,
    made: Made = NOTHING_MADE,
    targets: Collection[str] = (),
    allow_archive: bool = False,
    lockfile: str | None = None,
) -> Plan:
    """Return the plan: what an apply would do.

    `live` is every meter of the organization, including archived ones; None plans against the lockfile alone.
    `made` says which of them were created by runs on this machine; only those are settled as duplicates.
    `targets` excludes all other keys completely. `allow_archive` changes a removal that the manifest does not
    list (`archived: true`) from blocked to archive. `lockfile` is its path as given.
    """
    manifest = manifest.in_environment(environment)
    state = index_state(manifest, recorded, live, made, environment)
    scope = _Scope(environment, organization_id)
    keys = {*state.recorded, *state.bearers, *manifest.meters, *state.removed}
    changes: list[Change] = []
    bookkeeping, notes = list[Bookkeeping](), list[Note]()
    unchanged = 0
    for key in sorted(keys.intersection(targets) if targets else keys):
        declared, left_out = manifest.meters.get(key), manifest.elsewhere.get(key)
        # A meter that is declared elsewhere is found as a declared one is, and forgotten as a removed one.
        sought = declared or (None if key in state.recorded else left_out)
        identity, written = identify(key, sought is not None, state), declared or left_out
        desired = declared and as_counted(declared, identity.meter)
        outcome = identity.blocked or _decide(key, desired, identity, manifest, state, allow_archive)
        if isinstance(outcome, Effect):
            outcome = _with_notes(outcome, identity, filter_kept=desired is not declared)
        changes += (_settled(key, loser, identity, written, state, scope) for loser in identity.losers)
        if not isinstance(outcome, Blocked):
            bookkeeping += _bookkeeping(key, desired, identity, outcome, state)
            notes += _notes(key, desired, identity, outcome, manifest, state)
        if outcome is None:
            unchanged += desired is not None
            continue
        changes.append(_change(key, written, identity, outcome, state, scope))
    return Plan(
        environment=environment,
        organization_id=organization_id,
        project=manifest.project,
        refreshed=live is not None,
        changes=tuple(with_examples(annotate.with_renames(annotate.with_lint(changes, manifest)))),
        bookkeeping=tuple(bookkeeping),
        unchanged=unchanged,
        refusal=_refusal(changes, state),
        targets=tuple(sorted(set(targets))),
        allow_archive=allow_archive,
        notes=tuple(notes),
        manifest=manifest.file,
        lockfile=lockfile,
        unowned=len(state.unowned) if any(map(_is_create, changes)) else 0,
        on_production=manifest.server(environment) == "production",
    )


def _with_notes(effect: Effect, identity: Identity, *, filter_kept: bool) -> Effect:
    """Return an effect that says whose meter is taken over, and that a filter is not sent."""
    first = (annotate.taken_over_note(identity.meter),) if identity.taken_over and identity.meter else ()
    last = (same_events_note(),) if filter_kept else ()
    return replace(effect, notes=(*first, *effect.notes, *last))


def _is_create(change: Change) -> bool:
    """Tell whether a meter is created, or would be but for one like it without an owner."""
    return change.action == "create" or change.cause == "unowned"


def _change(
    key: str,
    desired: DesiredMeter | None,
    identity: Identity,
    outcome: Effect | Blocked,
    state: State,
    scope: _Scope,
) -> Change:
    meter, record = identity.meter, state.recorded.get(key)
    before, after = meter.spec if meter else None, outcome.after
    spec = after or before or (desired and desired.spec)
    meter_id = meter.id if meter else record.id if record else None
    blocked = outcome if isinstance(outcome, Blocked) else None
    action: Action = "blocked" if blocked else outcome.action  # type: ignore[union-attr]
    marker = None if isinstance(outcome, Blocked) else outcome.marker
    source = (blocked and blocked.source) or (desired.span if desired else state.removed.get(key))
    return Change(
        key=key,
        action=action,
        id=meter_id,
        name=spec.name if spec else meter.name if meter else key,
        before=before,
        after=after,
        digest=change_digest(
            scope.environment, scope.organization_id, key, action, meter_id, before, after, marker
        ),
        fields=outcome.fields,
        source=source,
        reason=outcome.reason,
        cause=blocked.cause if blocked else None,
        freeze="frozen" if record and record.frozen else "unknown",
        notes=outcome.notes,
        marker=marker,
        meters=tuple(reference(m, state) for m in blocked.meters) if blocked else (),
    )


def _settled(
    key: str,
    loser: LiveMeter,
    identity: Identity,
    desired: DesiredMeter | None,
    state: State,
    scope: _Scope,
) -> Change:
    """Return the change that archives a duplicate made by a run on this machine, and removes its marker."""
    before = loser.spec
    after = before and replace(before, archived=True)
    marker = MarkerChange(state.marker(key), None)
    return Change(
        key=key,
        action="settle",
        id=loser.id,
        name=loser.name,
        before=before,
        after=after,
        digest=change_digest(
            scope.environment, scope.organization_id, key, "settle", loser.id, before, after, marker
        ),
        source=desired.span if desired else None,
        marker=marker,
        duplicate_of=identity.meter.id if identity.meter else None,
    )


def _decide(
    key: str,
    desired: DesiredMeter | None,
    identity: Identity,
    manifest: Manifest,
    state: State,
    allow_archive: bool,
) -> Effect | Blocked | None:
    """Return the effect on a meter, by the second half of the decision table."""
    meter, record = identity.meter, state.recorded.get(key)
    if key in state.removed:
        return removed(key, identity, state)
    if desired is None:
        return absent(key, identity, manifest, state, allow_archive=allow_archive)
    if meter is None:
        if desired.spec.archived:
            return None
        if not state.refreshed and (record or key in state.imports):
            return _offline_unknown(desired, record)
        return create(desired, manifest, state)
    marker = _marker_change(key, meter, state)
    if desired.spec.archived and meter.archived:
        return _mark(meter, marker, identity)
    if desired.spec.archived and identity.taken_over:
        return _archived_import(key, meter, state)
    if desired.spec.archived:
        notes = (*annotate.outside_archiving_notes(record, meter), *annotate.archiving_notes())
        # Writing a marker replaces all metadata, and that of a meter with unknown parts is not known.
        marker = marker if meter.spec else None
        return Effect("archive", archived_spec(meter), notes=notes, marker=marker)
    if meter.spec is None:
        return unknown_parts(meter)
    # A record of another meter does not describe this one. Example: the lockfile records the duplicate that
    # loses, so the meter that stays has no base for a three-way merge.
    base = record if record and record.id == meter.id else None
    return _compared(desired, base, identity, meter, meter.spec, marker, manifest)


def _archived_import(key: str, meter: LiveMeter, state: State) -> Blocked:
    return Blocked(
        "import",
        f"`import` names {meter.id} for `{key}`, which is active and has no owner, and the block of `{key}` "
        "says `archived: true`. Import it as it is first, without that line; then archive it.",
        meters=(meter,),
        source=state.imports[key][1],
    )


def _compared(
    desired: DesiredMeter,
    record: Record | None,
    identity: Identity,
    meter: LiveMeter,
    live: MeterSpec,
    marker: MarkerChange | None,
    manifest: Manifest,
) -> Effect | Blocked | None:
    """Handle the rows of an active declaration and a live meter: equal, different, archived, frozen."""
    if desired.spec == live:  # the common case, and the fastest
        return _mark(meter, marker, identity)
    after = merged(desired, record, live)
    fields = tuple(changed_fields(desired, record, live, after, manifest))
    touches_frozen = [f.path for f in fields if f.path in FROZEN_FIELDS]
    # The limit counts the marker: either the one to write, or one that is there already.
    marked = 1 if marker or meter.marker else 0
    if (fields or marker) and len(after.metadata) + marked > MAX_METADATA_KEYS:
        return Blocked(
            "metadata-limit",
            f"{too_many_keys(len(after.metadata) + marked)}. Others have added keys: remove some of theirs "
            "or of yours.",
            after,
            fields,
        )
    if reason := "; ".join(broken_limits(after, [field.path for field in fields])):
        return Blocked("limits", f"nothing of this meter is changed: {reason}.", after, fields)
    if touches_frozen and record and record.frozen:
        return Blocked("frozen", _frozen_reason(touches_frozen, meter), after, fields)
    if meter.archived:
        outside = annotate.outside_archiving_notes(record, meter)
        notes = (*outside, *annotate.unarchiving_notes(touches_frozen))
        return Effect("unarchive", after, fields, notes, marker)
    if not fields:
        return _mark(meter, marker, identity)
    return Effect("update", after, fields, annotate.rematching_notes(touches_frozen), marker)


def _marker_change(key: str, meter: LiveMeter, state: State) -> MarkerChange | None:
    """Return the ownership marker to write, or None when it is already correct.

    A meter without room for the marker, because of other people's metadata, gets none.
    """
    # A `moved` renames the marker in `state` only. Example: after `moved: a to b`, `meter.marker` is already
    # `acme/b`, and the marker at Polar is still `acme/a`.
    wanted, current = state.marker(key), state.marker_was.get(meter.id, meter.marker)
    if current == wanted or is_full(meter):
        return None
    return MarkerChange(current, wanted)


def is_full(meter: LiveMeter) -> bool:
    """Tell whether a meter has no room left for our marker."""
    return meter.marker is None and meter.spec is not None and len(meter.spec.metadata) >= MAX_METADATA_KEYS


def _mark(meter: LiveMeter, marker: MarkerChange | None, identity: Identity) -> Effect | Blocked | None:
    """Return the effect that writes only the marker, if it must be written."""
    if marker is None:
        return None
    if meter.spec is None:
        return unknown_parts(meter)
    reason: MarkReason = "moved" if marker.before else "adopted" if identity.taken_over else "restored"
    return Effect("mark", meter.spec, marker=marker, reason=reason)


def _offline_unknown(desired: DesiredMeter, record: Record | None) -> Blocked | None:
    """Handle a meter of which only the id is known offline: nothing was ever applied to it."""
    if record and record.frozen:
        return Blocked("frozen", _frozen_reason(FROZEN_FIELDS, None), desired.spec)
    return None


def _frozen_reason(fields: Sequence[str], meter: LiveMeter | None) -> str:
    """Say why nothing of a frozen meter is changed. Offline the meter may not be known."""
    archived = ", and it stays archived" if meter and meter.archived else ""
    verb = "differs" if len(fields) == 1 else "differ"
    return (
        f"{' and '.join(fields)} {verb}, but Polar has frozen filter and aggregation, since the meter "
        f"already aggregates events. Nothing of this meter is changed{archived}. Put back what Polar has; to "
        "bill by another rule, declare a new meter under another key, move the prices to it, and archive "
        "this one."
    )


def _bookkeeping(
    key: str, desired: DesiredMeter | None, identity: Identity, effect: Effect | None, state: State
) -> Iterator[Bookkeeping]:
    """Yield the changes that only affect the lockfile."""

    def entry(action: Housekeeping, meter_id: str, was: str | None = None) -> Bookkeeping:
        return Bookkeeping(key, action, meter_id, was)

    record, meter = state.recorded.get(key), identity.meter
    if desired is None:
        if record and effect is None and record.id not in state.claims:
            yield entry("forget", record.id)
        return
    if meter is None:
        return
    if was := state.record_was.get(key):
        yield entry("moved", meter.id, was)
    if record is None or record.id != meter.id:
        # What takes a meter over says so itself. Only one that has no room for a marker has no such change.
        if not (identity.taken_over and effect):
            yield entry("adopt", meter.id)
    # Update the record of a meter that is already equal. The record of a change is written with the change.
    elif not effect and record != record_of(meter.id, desired.spec, desired.ignore_changes, record):
        yield entry("refresh", meter.id)


def _notes(
    key: str,
    desired: DesiredMeter | None,
    identity: Identity,
    effect: Effect | None,
    manifest: Manifest,
    state: State,
) -> Iterator[Note]:
    """Yield notes for reviewers about meters that have no change."""
    meter = identity.meter
    bearers = [m for m in state.bearers.get(key, ()) if not m.archived]
    if key in state.removed and key not in state.recorded:
        yield annotate.nothing_to_release_note(key, bearers)
        return
    if desired is not None:
        if effect is None and desired is not manifest.meters[key]:
            yield same_events_note(key)
        if identity.taken_over and meter and not effect:
            yield annotate.taken_over_note(meter, key)
        if key in state.imports and key not in state.recorded and not state.refreshed:
            yield annotate.unread_import_note(key, state.imports[key][0])
        managed = meter and state.refreshed and not meter.archived and (effect is None or not effect.marker)
        if meter and managed and is_full(meter):
            yield annotate.unmarked_note(key, state.marker(key), meter)
        return
    if not identity.ours and meter and not meter.archived:
        gone = (
            "declared for other environments only" if key in manifest.elsewhere else "gone from the manifest"
        )
        yield annotate.foreign_record_note(key, meter, gone)
    # Example: another branch created `acme/exports`, and this manifest has no key `exports`.
    unknown = any(m.id not in state.owner for m in bearers)
    if unknown and meter is None and state.refreshed:
        yield annotate.unknown_meters_note(key, bearers)


def _refusal(changes: Sequence[Change], state: State) -> Refusal | None:
    """Return the reason that an apply would be refused as a whole, or None."""
    unknown = {change.key for change in changes if change.cause == "unknown-id"}
    if state.refreshed and not state.any_import_live:  # one that is live shows the right organization
        unknown |= {change.key for change in changes if change.cause == "import"}
    if unknown and not state.any_record_live:
        return Refusal("unknown-id", tuple(sorted(unknown)))
    unlisted = tuple(change.key for change in changes if change.cause == "unlisted")
    return Refusal("unlisted", unlisted) if unlisted else None
