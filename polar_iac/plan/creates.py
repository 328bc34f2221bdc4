"""Rows of the decision table for an active declaration without a meter: a create, or what blocks it."""

from __future__ import annotations

from collections.abc import Sequence

from polar_iac.manifest.model import DesiredMeter, Manifest
from polar_iac.meter.fields import MAX_METADATA_KEYS
from polar_iac.meter.limits import broken_limits
from polar_iac.meter.live import LiveMeter
from polar_iac.plan import annotate
from polar_iac.plan.diff import created_fields
from polar_iac.plan.index import State
from polar_iac.plan.model import MarkerChange
from polar_iac.plan.outcome import Blocked, Effect, too_many_keys


def create(desired: DesiredMeter, manifest: Manifest, state: State) -> Effect | Blocked:
    """Return the create of a meter, with notes about the meters of others that it is like."""
    key, environment = desired.key, state.environment
    # In most plans everything is ours, and texts to compare would be made for nothing.
    same_billing = state.others_by_billing.get(desired.spec.billing, []) if state.others else []
    same = [m for m in same_billing if m.marker is None and m.name == desired.spec.name]
    if same:
        return _unowned(desired, same, state)
    same_name = [m for m in state.others_by_name.get(desired.spec.name, ()) if m not in same_billing]
    notes = (
        *annotate.same_billing_notes(key, same_billing, environment),
        *annotate.same_name_notes(key, same_name, environment),
    )
    if reason := "; ".join(broken_limits(desired.spec)):
        return Blocked("limits", f"Polar takes no new meter like this: {reason}.", desired.spec)
    if (count := len(desired.spec.metadata) + 1) > MAX_METADATA_KEYS:
        return Blocked("metadata-limit", f"{too_many_keys(count)}. Remove some.", desired.spec)
    fields = tuple(created_fields(desired, manifest))
    return Effect("create", desired.spec, fields, notes, MarkerChange(None, state.marker(key)))


def _unowned(desired: DesiredMeter, same: Sequence[LiveMeter], state: State) -> Blocked:
    """Return the block of a create that would most likely double a meter which nobody manages."""
    ids, have = " and ".join(meter.id for meter in same), "has" if len(same) == 1 else "have"
    entries = " or ".join(annotate.import_entry(desired.key, meter, state.environment) for meter in same)
    return Blocked(
        "unowned",
        f"{ids} {have} the same name, filter and aggregation and no owner: a second meter would count the "
        f"same events. To go on with that meter, add {entries} to `import`; for a second one, give this "
        "another name.",
        desired.spec,
        meters=tuple(same),
    )
