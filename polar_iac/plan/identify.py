"""First half of the decision table: finds the live meter of a key, or the reason that it cannot be known.

`identify` implements the table row by row; `tests/plan/test_decision_table.py` names each row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from polar_iac.manifest.model import Manifest, Move
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.annotate import quoted
from polar_iac.plan.model import UNKNOWN_HERE, Cause, FieldChange, MeterReference, Note


@dataclass(frozen=True)
class Blocked:
    """Reason that nothing may be done about a key. `meters` are the live ones that `reason` names."""

    cause: Cause
    reason: str
    after: MeterSpec | None = None
    fields: tuple[FieldChange, ...] = ()
    notes: tuple[Note, ...] = ()
    meters: tuple[LiveMeter, ...] = ()


@dataclass(frozen=True)
class Identity:
    """The live meter of a key, if any. `losers` are its duplicates, to be settled in its favor.

    `ours` is False for the recorded meter of a removed key when nothing shows that the meter is ours.
    """

    meter: LiveMeter | None = None
    blocked: Blocked | None = None
    losers: tuple[LiveMeter, ...] = ()
    ours: bool = True


@dataclass(frozen=True)
class State:
    """Recorded and live state after `moved` has renamed keys in both, indexed for the decisions."""

    recorded: Mapping[str, Record]
    by_id: Mapping[str, LiveMeter]
    bearers: Mapping[str, Sequence[LiveMeter]]
    """Meters by the key in their marker, wherever they are recorded."""
    owner: Mapping[str, str]
    """Recorded key of each meter id."""
    unowned: Sequence[LiveMeter]
    """Active meters that do not belong to this project."""
    record_was: Mapping[str, str]
    """Former keys of records that `moved` renamed, by new key."""
    marker_was: Mapping[str, str]
    """Markers in Polar of meters whose marker `moved` renamed, by meter id."""
    made: Made
    project: str
    refreshed: bool

    @cached_property
    def any_record_live(self) -> bool:
        return any(record.id in self.by_id for record in self.recorded.values())

    def marker(self, key: str) -> str:
        return str(OwnershipMarker(self.project, key))

    def recorded_elsewhere(self, meter: LiveMeter, key: str) -> str | None:
        """Return the other key under which a meter is recorded, or None."""
        owner = self.owner.get(meter.id, key)
        return None if owner == key else owner


def index_state(
    manifest: Manifest,
    recorded: Mapping[str, Record],
    live: Sequence[LiveMeter] | None,
    made: Made,
) -> State:
    """Apply `moved` to the lockfile and the markers, and index the result."""
    project = manifest.project
    paths = _paths(manifest.moved)
    # A move to a key that no longer exists is outdated: the meter keeps its last name.
    new_key = {old: path[-1] for old, path in paths.items() if path[-1] in manifest.meters}
    records, record_was = dict(recorded), {}
    # The meter's most recent name comes first, so it wins when two names were recorded.
    for old, new in new_key.items():
        if old in records and new not in records:
            records[new] = records.pop(old)
            record_was[new] = old
    refreshed = live is not None
    if live is None:
        live = [_as_recorded(r, OwnershipMarker(project, key)) for key, r in records.items() if r.spec]

    owner = {record.id: key for key, record in records.items()}
    bearers: dict[str, list[LiveMeter]] = defaultdict(list)
    unowned: list[LiveMeter] = []
    by_id, marker_was = {}, {}
    for meter in sorted(live, key=lambda m: (m.created_at, m.id)):
        marked = _key_in(project, meter)
        key = marked and _key_today(marked, owner.get(meter.id), paths, new_key)
        if key and meter.marker and key != marked:
            marker_was[meter.id] = meter.marker
            meter = meter.marked(str(OwnershipMarker(project, key)))
        by_id[meter.id] = meter
        if key:
            bearers[key].append(meter)
        elif meter.id not in owner and not meter.archived:
            unowned.append(meter)
    return State(records, by_id, bearers, owner, unowned, record_was, marker_was, made, project, refreshed)


def _paths(moves: Sequence[Move]) -> dict[str, list[str]]:
    """Return, for each former key, all keys up to the current one.

    Keys nearest to their destination come first.
    """
    step = {move.source: move.target for move in moves}
    paths = {}
    for source in step:
        path = [source]
        while path[-1] in step:
            path.append(step[path[-1]])
        paths[source] = path
    return {source: paths[source] for source in sorted(paths, key=lambda s: (len(paths[s]), s))}


def _key_today(
    marked: str, owner: str | None, paths: Mapping[str, Sequence[str]], new_key: Mapping[str, str]
) -> str:
    """Return the key that a marker means after `moved`.

    The recorded key wins if it is on the path of moves. Example, after `moved: a to b`: a meter marked `a`
    belongs to `b` if it is recorded under `b` or not at all. If it is still recorded under `a`, because `b`
    already has a meter, it belongs to `a`.
    """
    if owner is not None and owner in (marked, *paths.get(marked, ())):
        return owner
    return new_key.get(marked, marked)


def _as_recorded(record: Record, marker: OwnershipMarker) -> LiveMeter:
    """Return a meter as it would be live if nobody had changed it since it was recorded."""
    archived_at = "" if record.spec and record.spec.archived else None
    return LiveMeter(record.id, "", "", archived_at, str(marker), record.spec)


def _key_in(project: str, meter: LiveMeter) -> str | None:
    """Return the key that a meter's marker names, if it is of this project."""
    owner = meter.owner
    return owner.key if owner and owner.project == project else None


def identify(key: str, declared: bool, state: State) -> Identity:
    """Return the live meter of a key, by the first matching row of the table's first half."""
    record = state.recorded.get(key)
    meter = state.by_id.get(record.id) if record else None
    active = [m for m in state.bearers.get(key, ()) if not m.archived]
    if record and meter:
        if meter.marker != state.marker(key):
            return _unmarked(key, declared, record, meter, active, state)
        # Example of the second case: the recorded meter was archived by hand, and a copy with its marker is
        # active.
        if len(active) > 1 or (active and meter.archived):
            return _duplicates(key, list({m.id: m for m in (meter, *active)}.values()), meter, state)
        return Identity(meter)
    if record:
        if not state.refreshed:
            return Identity()  # Nothing was ever applied to it, so its content is unknown offline.
        # A removed key whose meter is unknown is forgotten, unless no recorded meter at all is live: then the
        # token is probably for another organization.
        if declared or not state.any_record_live:
            reason = f"Polar does not know its id {record.id}: {UNKNOWN_HERE}."
            if active:
                reason += f" Here, {_bearing(key, active, state)}."
            return Identity(blocked=Blocked("unknown-id", reason, meters=tuple(active)))
        return Identity()
    return _unrecorded(key, declared, active, state)


def _unrecorded(key: str, declared: bool, active: Sequence[LiveMeter], state: State) -> Identity:
    """Handle the rows of a key that is not in the lockfile."""
    if not declared:
        return Identity()  # Another branch's or manifest's meter. Whoever created it manages it.
    if len(active) > 1:
        return _duplicates(key, active, None, state)
    bearers = active or state.bearers.get(key, ())
    elsewhere = [meter for meter in bearers if state.recorded_elsewhere(meter, key)]
    if elsewhere:
        return Identity(blocked=_mismatch_elsewhere(key, elsewhere[0], state))
    if active:
        return Identity(active[0])
    # All bearers are archived: the one archived last is probably the one that was in use.
    return Identity(max(bearers, key=lambda m: (m.archived_at or "", m.id), default=None))


def _unmarked(
    key: str,
    declared: bool,
    record: Record,
    meter: LiveMeter,
    active: Sequence[LiveMeter],
    state: State,
) -> Identity:
    """Handle the rows of a recorded meter without its key's marker."""
    foreign = meter.marker is not None and _key_in(state.project, meter) is None
    # Example: the key was removed, and another project has taken the meter over.
    if not declared and not active and (foreign or meter.marker is None):
        return Identity(meter, ours=False)
    recorded = f"the lockfile records {meter.id} under `{key}`"
    bearers = _bearing(key, active, state)
    if meter.marker is not None:
        owner = f"belongs to {meter.marker}" if foreign else f"is {meter.marker}"
        reason = f"{recorded}, but its marker says that it {owner}" + (f", while {bearers}" if active else "")
        return Identity(meter, _mismatch(key, reason, [meter, *active], state))
    if active:
        reason = f"{recorded}, which has no marker, while {bearers}"
        return Identity(meter, _mismatch(key, reason, [meter, *active], state))
    if record.spec is None:
        reason = (
            f"{recorded}, but nothing shows that it is ours: it has no marker, and nothing was applied to it"
        )
        return Identity(meter, _mismatch(key, reason, [meter], state))
    return Identity(meter)


def _bearing(key: str, active: Sequence[LiveMeter], state: State) -> str:
    bears = "bears" if len(active) == 1 else "bear"
    return f"{' and '.join(m.id for m in active)} {bears} the marker {state.marker(key)}"


def _mismatch(key: str, reason: str, meters: Sequence[LiveMeter], state: State) -> Blocked:
    return Blocked(
        "mismatch",
        f"{reason}. Nothing is changed until both agree: correct the lockfile (an id belongs under the key "
        f"that its marker names), or set the meter's metadata `polar_iac` to {state.marker(key)} through "
        "Polar's API.",
        meters=tuple(meters),
    )


def _mismatch_elsewhere(key: str, meter: LiveMeter, state: State) -> Blocked:
    owner = state.recorded_elsewhere(meter, key)
    marker = state.marker_was.get(meter.id, meter.marker)
    return _mismatch(
        owner or key,
        f"{meter.id} bears the marker {marker}, but the lockfile records it under `{owner}`",
        [meter],
        state,
    )


def _duplicates(key: str, meters: Sequence[LiveMeter], recorded: LiveMeter | None, state: State) -> Identity:
    """Handle two or more active meters for one key.

    They are settled only if all have the key's own marker, and every loser was created by a run on this
    machine. The winner is the recorded meter, else the oldest, so that every run picks the same one.
    Exception: no other run knows a recorded id that this machine created and has not settled yet, so it does
    not win by being recorded.

        run A   POST (made a2) ... killed            next run of A: a1 wins, a2 is settled
        run B            POST (made a1, older by the clock of Polar's answers) ... done
    """
    ordered = sorted(meters, key=lambda m: (m.created_at, m.id))
    # Other runs can only know a recorded id that this machine has settled, or did not create.
    shared = recorded if recorded and recorded.id not in state.made.created else None
    winner = shared or ordered[0]
    losers = tuple(meter for meter in ordered if meter.id != winner.id)
    certain = all(
        not meter.archived
        and meter.spec is not None
        and meter.id not in state.marker_was
        and not state.recorded_elsewhere(meter, key)
        for meter in ordered
    )
    if certain and all(loser.id in state.made for loser in losers):
        return Identity(winner, losers=losers)
    return Identity(recorded, _unsettled(key, ordered, state))


def _unsettled(key: str, ordered: Sequence[LiveMeter], state: State) -> Blocked:
    meters = "; ".join(
        f"{m.id} {quoted(m.name)}" + (" (archived)" if m.archived else "") + f", created {m.created_at}"
        for m in ordered
    )
    return Blocked(
        "duplicates",
        f"{len(ordered)} meters bear the marker {state.marker(key)}, and more than one may be billing: "
        f"{meters}. Keep the one that your prices use, and archive each other one in Polar's dashboard.",
        meters=tuple(ordered),
    )


def reference(meter: LiveMeter, state: State) -> MeterReference:
    """Return what a plan shows about a live meter that it names."""
    marker = state.marker_was.get(meter.id, meter.marker)
    return MeterReference(meter.id, meter.name, marker, meter.created_at, meter.archived_at)
