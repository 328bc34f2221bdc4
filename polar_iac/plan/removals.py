"""Rows of the decision table for a key that is not in the manifest, or only for other environments."""

from __future__ import annotations

from polar_iac.manifest.model import Manifest
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan import annotate
from polar_iac.plan.elsewhere import elsewhere
from polar_iac.plan.identify import Identity
from polar_iac.plan.index import State
from polar_iac.plan.model import MarkerChange
from polar_iac.plan.outcome import Blocked, Effect, archived_spec, unknown_parts


def absent(
    key: str, identity: Identity, manifest: Manifest, state: State, *, allow_archive: bool
) -> Effect | Blocked | None:
    """Handle the rows of a key that is gone from the manifest, or declared for other environments only."""
    meter, record = identity.meter, state.recorded.get(key)

    def still_active(meter_id: str, after: MeterSpec | None = None) -> Blocked:
        if key in manifest.elsewhere:
            return elsewhere(key, meter_id, manifest, state, after)
        return _unlisted(key, meter_id, manifest, after)

    if meter is None:
        if record and _is_unread(record, state):
            return still_active(record.id)
        return None
    if meter.archived or not identity.ours:
        return None
    if claimant := state.claims.get(meter.id):
        reason = (
            f"`{key}` is gone from the manifest, and `import` names its meter {meter.id} for `{claimant}`. "
        )
        return Blocked("unlisted", reason + _rename(key, claimant), archived_spec(meter), meters=(meter,))
    if allow_archive:
        return Effect("archive", archived_spec(meter), notes=annotate.archiving_notes())
    return still_active(meter.id, archived_spec(meter))


def removed(key: str, identity: Identity, state: State) -> Effect | Blocked | None:
    """Handle the rows of a key that `removed` names: the meter stays as it is, and ours no more."""
    meter, record = identity.meter, state.recorded.get(key)
    marker = MarkerChange(state.marker(key), None)
    if meter is None:
        return Effect("release", None, marker=marker) if record and _is_unread(record, state) else None
    if not identity.ours:
        return None
    if claimant := state.claims.get(meter.id):
        return Blocked(
            "import",
            f"`removed` names `{key}`, but `import` names its meter {meter.id} for `{claimant}`. "
            + _rename(key, claimant),
            meters=(meter,),
        )
    # Taking the marker off replaces all metadata, and that of a meter with unknown parts is not known.
    return Effect("release", meter.spec, marker=marker) if meter.spec else unknown_parts(meter)


def _rename(key: str, claimant: str) -> str:
    return f"To rename the key, write `moved: [{{from: {key}, to: {claimant}}}]` instead."


def _is_unread(record: Record, state: State) -> bool:
    """Tell whether a plan is offline, and a recorded meter may be active without a spec to show for it."""
    return not state.refreshed and record.spec is None


def _unlisted(key: str, meter_id: str, manifest: Manifest, after: MeterSpec | None = None) -> Blocked:
    stale = any(move.source == key for move in manifest.moved)
    moved = f" and remove the move from `{key}`" if stale else ""
    return Blocked(
        "unlisted",
        f"`{key}` is gone from the manifest, but {meter_id} is still active. Keep its block with "
        f"`archived: true` to archive it{moved}, name it under `removed` to manage it no more, or allow this "
        "once with --allow-archive.",
        after,
    )
