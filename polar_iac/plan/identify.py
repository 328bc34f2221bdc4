"""First half of the decision table: finds the live meter of a key, or the reason that it cannot be known.

`identify` implements the table row by row; `tests/plan/test_decision_table.py` names each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.plan.annotate import import_entry, quoted
from polar_iac.plan.index import State
from polar_iac.plan.model import UNKNOWN_HERE, UNKNOWN_IMPORT, MeterReference
from polar_iac.plan.outcome import Blocked


@dataclass(frozen=True)
class Identity:
    """The live meter of a key, if any. `losers` are its duplicates, to be settled in its favor.

    `ours` is False for the recorded meter of a key that is gone from the manifest, when nothing shows that
    the meter is ours. `taken_over` is True for a meter without an owner that `import` names.
    """

    meter: LiveMeter | None = None
    blocked: Blocked | None = None
    losers: tuple[LiveMeter, ...] = ()
    ours: bool = True
    taken_over: bool = False


def identify(key: str, declared: bool, state: State) -> Identity:
    """Return the live meter of a key, by the first matching row of the table's first half."""
    if key in state.removed:
        return _removed(key, state)
    identity = _identify(key, declared, state)
    record, named = state.recorded.get(key), state.imported(key)
    if identity.blocked is None and record and named not in (None, record.id):
        reason = f"the lockfile records {record.id} under `{key}`: a key is one meter"
        return Identity(identity.meter, _import_blocked(key, reason, [], state))
    return identity


def _identify(key: str, declared: bool, state: State) -> Identity:
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


def _removed(key: str, state: State) -> Identity:
    """Handle the rows of a key that `removed` names. It is never settled: its meters are let go of."""
    record = state.recorded.get(key)
    if record is None:
        return Identity()
    meter = state.by_id.get(record.id)
    active = [m for m in state.bearers.get(key, ()) if not m.archived]
    is_marked = meter is not None and meter.marker == state.marker(key)
    if meter and is_marked:
        active = [meter, *(m for m in active if m.id != meter.id)]
    if len(active) > 1:
        return Identity(meter, _unsettled(key, sorted(active, key=lambda m: (m.created_at, m.id)), state))
    if meter is None:
        return _identify(key, False, state)
    return Identity(meter, ours=is_marked)


def _unrecorded(key: str, declared: bool, active: Sequence[LiveMeter], state: State) -> Identity:
    """Handle the rows of a key that is not in the lockfile."""
    if not declared:
        return Identity()  # Another branch's or manifest's meter. Whoever created it manages it.
    named = state.imported(key)
    if len(active) > 1:
        return _duplicates(key, active, next((m for m in active if m.id == named), None), state)
    bearers = active or state.bearers.get(key, ())
    elsewhere = [meter for meter in bearers if state.recorded_elsewhere(meter, key)]
    if elsewhere:
        return Identity(blocked=_mismatch_elsewhere(key, elsewhere[0], state))
    if named and state.refreshed:
        return _imported(key, named, active, state)
    if active:
        return Identity(active[0])
    # All bearers are archived: the one archived last is probably the one that was in use.
    return Identity(max(bearers, key=lambda m: (m.archived_at or "", m.id), default=None))


def _imported(key: str, named: str, active: Sequence[LiveMeter], state: State) -> Identity:
    """Handle the rows of a key that is not in the lockfile, and for which `import` names an id."""
    meter = state.by_id.get(named)
    if meter is None:
        reason = f"Polar does not know that id: {UNKNOWN_IMPORT}"
        return Identity(blocked=_import_blocked(key, reason, [], state))
    others = [m for m in active if m.id != meter.id]
    marker = state.marker_was.get(meter.id, meter.marker)
    if owner := state.recorded_elsewhere(meter, key):
        reason = (
            f"the lockfile records it under `{owner}`: to rename that key, write "
            f"`moved: [{{from: {owner}, to: {key}}}]`"
        )
    elif (other := state.key_in(meter)) not in (None, key):
        reason = (
            f"its marker says that it is {marker}: to rename that key, write "
            f"`moved: [{{from: {other}, to: {key}}}]`"
        )
    elif meter.marker not in (None, state.marker(key)):
        reason = (
            f"its marker says that it belongs to {marker}: a meter is handed over by `removed` there and "
            "then `import` here"
        )
    elif others:
        reason = f"{_bearing(key, others, state)}: a key is one meter"
    else:
        return Identity(meter, taken_over=meter.marker is None)
    return Identity(blocked=_import_blocked(key, reason, [meter, *others], state))


def _import_blocked(key: str, reason: str, meters: Sequence[LiveMeter], state: State) -> Blocked:
    named, source = state.imports[key]
    return Blocked(
        "import",
        f"`import` names {named} for `{key}`, but {reason}. Correct the entry, or remove it.",
        meters=tuple(meters),
        source=source,
    )


def _unmarked(
    key: str,
    declared: bool,
    record: Record,
    meter: LiveMeter,
    active: Sequence[LiveMeter],
    state: State,
) -> Identity:
    """Handle the rows of a recorded meter without its key's marker."""
    foreign = meter.marker is not None and state.key_in(meter) is None
    # Example: the key was removed, and another project has taken the meter over.
    if not declared and not active and (foreign or meter.marker is None):
        return Identity(meter, ours=False)
    recorded = f"the lockfile records {meter.id} under `{key}`"
    bearers = _bearing(key, active, state)
    if meter.marker is not None:
        owner = f"belongs to {meter.marker}" if foreign else f"is {meter.marker}"
        reason = f"{recorded}, but its marker says that it {owner}" + (f", while {bearers}" if active else "")
        return Identity(meter, _mismatch(reason, [meter, *active]))
    if active:
        reason = f"{recorded}, which has no marker, while {bearers}"
        return Identity(meter, _mismatch(reason, [meter, *active]))
    if record.spec is None and state.imported(key) != meter.id:
        reason = (
            f"{recorded}, but nothing shows that it is ours: it has no marker, and nothing was applied to it"
        )
        advice = f"To take the meter over, add {import_entry(key, meter, state.environment)} to `import`."
        return Identity(meter, _mismatch(reason, [meter], advice))
    return Identity(meter, taken_over=record.spec is None)


def _bearing(key: str, active: Sequence[LiveMeter], state: State) -> str:
    bears = "bears" if len(active) == 1 else "bear"
    return f"{' and '.join(m.id for m in active)} {bears} the marker {state.marker(key)}"


_BOTH_AGREE = "Correct the lockfile: an id belongs under the key that its marker names."


def _mismatch(reason: str, meters: Sequence[LiveMeter], advice: str = _BOTH_AGREE) -> Blocked:
    text = f"{reason}. Nothing is changed until both agree. {advice}"
    return Blocked("mismatch", text, meters=tuple(meters))


def _mismatch_elsewhere(key: str, meter: LiveMeter, state: State) -> Blocked:
    owner = state.recorded_elsewhere(meter, key)
    marker = state.marker_was.get(meter.id, meter.marker)
    reason = f"{meter.id} bears the marker {marker}, but the lockfile records it under `{owner}`"
    return _mismatch(reason, [meter])


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
