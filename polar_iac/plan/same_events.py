"""Filters that count the same events in other words: Polar's own is kept, and nothing is sent.

Two filters of one normal form are equal anyway; the others need a proof. Example: `model contains "gpt-4" or
model contains "gpt"` counts what `model contains "gpt"` counts.
"""

from __future__ import annotations

from dataclasses import replace

from polar_iac.manifest.model import DesiredMeter
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.meaning import equivalent
from polar_iac.meter.spec import MeterSpec
from polar_iac.plan.model import Note


def as_counted(desired: DesiredMeter, meter: LiveMeter | None) -> DesiredMeter:
    """Return a declaration with the filter of its live meter, if both are proven to count the same events.

    That holds for invoices and for balances. So a frozen meter may be declared in other words, and a record
    holds the filter that Polar has.
    """
    if meter is None or meter.spec is None or not _is_same(desired.spec, meter.spec):
        return desired
    return replace(desired, spec=replace(desired.spec, filter=meter.spec.filter))


def _is_same(declared: MeterSpec, live: MeterSpec) -> bool:
    one, other = declared.canonical["filter"], live.canonical["filter"]
    # Archiving compares no fields, and a filter of the same form needs no proof.
    return not declared.archived and one != other and equivalent(one, other) is True


def same_events_note(key: str | None = None) -> Note:
    """Report that a filter is not sent. `key` is for a note outside the changes."""
    subject = "the filter" if key is None else f"the filter of `{key}`"
    text = f"{subject} is worded differently at Polar but counts the same events: not sent"
    return Note("same-events", "info", text, "manifest", key=key)
