"""Outcomes of the decision table: what is done about a key, or why nothing may be done."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polar_iac.errors import SourceSpan
from polar_iac.meter.fields import MAX_METADATA_KEYS
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Action, Cause, FieldChange, MarkerChange, MarkReason, Note


@dataclass(frozen=True)
class Effect:
    """Effect that an apply would have on the meter of a key.

    `after` is None for a meter with unknown parts, which can only be archived, and where offline nothing is
    known of the meter.
    """

    action: Action
    after: MeterSpec | None
    fields: tuple[FieldChange, ...] = ()
    notes: tuple[Note, ...] = ()
    marker: MarkerChange | None = None
    reason: MarkReason | None = None


@dataclass(frozen=True)
class Blocked:
    """Reason that nothing may be done about a key. `meters` are the live ones that `reason` names.

    `source` is the place of the entry that is in the way, where that is not the meter's block.
    """

    cause: Cause
    reason: str
    after: MeterSpec | None = None
    fields: tuple[FieldChange, ...] = ()
    notes: tuple[Note, ...] = ()
    meters: tuple[LiveMeter, ...] = ()
    source: SourceSpan | None = None


def archived_spec(meter: LiveMeter) -> MeterSpec | None:
    """Return the spec of a meter once it is archived, or None for one with unknown parts."""
    return replace(meter.spec, archived=True) if meter.spec else None


def too_many_keys(count: int) -> str:
    """Return the reason that a meter cannot have this many metadata keys."""
    return f"the meter would have {count} metadata keys, the marker included; Polar takes {MAX_METADATA_KEYS}"


def unknown_parts(meter: LiveMeter) -> Blocked:
    """Return the block of a meter of which this version does not know every part."""
    return Blocked(
        "unknown-parts",
        f"Polar has parts here that this version does not know: {meter.id} cannot be compared with the "
        "manifest, and nothing of it is changed. Update polar-iac, or change the meter in Polar's dashboard.",
        meters=(meter,),
    )
