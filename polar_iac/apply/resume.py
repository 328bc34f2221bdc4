"""What earlier runs left: creates without an answer, and the meters they made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from polar_iac.apply.bearers import active_by_marker, found_as, owners
from polar_iac.clock import Clock, poll_until
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.polar.client import OnPage, PolarClient
from polar_iac.state.journal_state import Answer, Intent

LOOKUP_TIMEOUT = 10.0
"""Seconds during which a lookup is repeated. Polar may read from a replica that lags (read)."""
RESEND_AFTER = 60.0
"""Seconds after which a lost create can no longer take effect: longer than a gateway keeps a request alive.
"""


class Pending(Protocol):
    """Knowledge of a lockfile and its journal about creates without an answer."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]: ...


def found_creates(live: Sequence[LiveMeter], state: Pending) -> dict[str, tuple[Record, Answer | None]]:
    """Return, by key, the meters that earlier creates without an answer made.

    These are the oldest active meters with their markers.

    Nothing is created here. The planner decides that, because the key may have left the manifest. A create
    that is not found stays unresolved.
    """
    bearers = active_by_marker(live, owners(state.meters))
    found = {}
    for key, intents in state.unresolved.items():
        if meters := bearers.get(intents[-1].marker):
            record = found_as(meters[0], intents[-1].spec)
            found[key] = record, answered_by(meters[0], intents)
    return found


def may_still_show(state: Pending, now: datetime, seconds: float) -> set[str]:
    """Return the keys with creates so recent that a meter may still show. Others show at once, or never."""
    return {key for key, intents in state.unresolved.items() if time_left(intents, now, seconds)}


def answered_by(meter: LiveMeter, intents: Sequence[Intent]) -> Answer | None:
    """Return the last of these creates that may have made a meter found by a lookup, if any."""
    may_have = (intent for intent in reversed(intents) if intent.may_have_made(meter) or not intent.at)
    return next(may_have, None)


def time_left(intents: Sequence[Intent], now: datetime, seconds: float) -> float:
    """Return the seconds until none of these creates can take effect, with `seconds` allowed for each."""
    if any(not intent.at for intent in intents):
        return seconds
    ages = [(now - datetime.fromisoformat(intent.at)).total_seconds() for intent in intents]
    return min(max(seconds - min(ages, default=seconds), 0.0), seconds)


def list_with(
    awaited: Iterable[str],
    client: PolarClient,
    confirm: Callable[[Sequence[LiveMeter]], object],
    lookup_timeout: float,
    clock: Clock,
    on_page: OnPage = lambda _done, _of: None,
    settled: Callable[[Sequence[LiveMeter]], bool] = lambda _: True,
) -> list[LiveMeter]:
    """List every meter, and retry for `lookup_timeout` seconds until the list is complete.

    It is complete when all `awaited` ids are in it and it is `settled`. `confirm` raises when that can never
    happen, because the live meters belong to another organization.
    """
    ids, live = set(awaited), list[LiveMeter]()

    def look() -> bool:
        live[:] = client.list_meters(on_page)
        confirm(live)
        return ids <= {meter.id for meter in live} and settled(live)

    poll_until(look, lookup_timeout, clock)
    return live
