"""Creates that earlier runs left without an answer, and the meters that they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from polar_iac.apply.marked import active_by_marker, key_by_id, record_found
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.state.journal_state import Intent

RESEND_AFTER = 60.0
"""Seconds after which a lost create can no longer take effect: longer than a gateway keeps a request alive.
"""


class UnansweredCreates(Protocol):
    """Records and unanswered creates of a lockfile and its journal."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]: ...


def found_creates(
    live: Sequence[LiveMeter], state: UnansweredCreates
) -> dict[str, tuple[Record, Intent | None]]:
    """Return, by key, the meters that earlier creates without an answer made.

    These are the oldest active meters with their markers.

    Nothing is created here. The planner decides that, because the key may have left the manifest. A create
    that is not found stays unresolved.
    """
    by_marker = active_by_marker(live, key_by_id(state.meters))
    records = {}
    for key, intents in state.unresolved.items():
        if meters := by_marker.get(intents[-1].marker):
            record = record_found(meters[0], intents[-1].spec)
            records[key] = record, intent_of(meters[0], intents)
    return records


def may_still_show(state: UnansweredCreates, now: datetime, seconds: float) -> set[str]:
    """Return the keys with creates so recent that a meter may still show. Others show at once, or never."""
    return {key for key, intents in state.unresolved.items() if time_left(intents, now, seconds)}


def intent_of(meter: LiveMeter, intents: Sequence[Intent]) -> Intent | None:
    """Return the last of these creates that may have made a meter found by a lookup, if any."""
    # A create of an earlier version has no time, so it cannot be excluded.
    possible = (intent for intent in reversed(intents) if intent.may_have_made(meter) or not intent.at)
    return next(possible, None)


def time_left(intents: Sequence[Intent], now: datetime, seconds: float) -> float:
    """Return the seconds until none of these creates can take effect, with `seconds` allowed for each."""
    if any(not intent.at for intent in intents):
        return seconds
    ages = [(now - datetime.fromisoformat(intent.at)).total_seconds() for intent in intents]
    return min(max(seconds - min(ages, default=seconds), 0.0), seconds)
