"""Recovery: finds lost creates of earlier runs, and reduces duplicates under one marker to one meter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from polar_iac.api import ApiError, NotFoundError, OnPage, PolarClient
from polar_iac.journal import Answer, Intent, Journal
from polar_iac.meter import LiveMeter, Made, MeterSpec, Record
from polar_iac.plan import Done, Failed, Left
from polar_iac.waiting import Clock, StoppedError, look_repeatedly

LOOKUP_TIMEOUT = 10.0
"""Seconds during which a lookup is repeated. Polar may read from a replica that lags (read)."""

RESEND_AFTER = 60.0
"""Seconds after which a lost create can no longer take effect: longer than a gateway keeps a request alive.
"""

_MANY = 20
"""Number of markers from which reading the whole list costs less, with a shorter URL."""


def find(markers: Sequence[str], client: PolarClient) -> list[LiveMeter]:
    """Return meters that include all with one of these markers. Others may be included."""
    return client.find_by_markers(*markers) if len(markers) < _MANY else client.list_meters()


class Judging(Protocol):
    """Knowledge of a lockfile and its journal about meters, and about which were made on this machine."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    def made(self, live: Iterable[LiveMeter]) -> Made: ...


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

    look_repeatedly(look, lookup_timeout, clock)
    return live


def owners(meters: Mapping[str, Record]) -> dict[str, str]:
    """Map each recorded meter id to its key."""
    return {record.id: key for key, record in meters.items()}


def active_by_marker(live: Iterable[LiveMeter], recorded: Mapping[str, str]) -> dict[str, list[LiveMeter]]:
    """Group the active meters by marker; each group is sorted by creation time and id, oldest first.

    `recorded` maps meter ids to keys. A recorded key overrides a marker of another key.
    """
    by_marker: dict[str, list[LiveMeter]] = defaultdict(list)
    for meter in sorted(live, key=lambda m: (m.created_at, m.id)):
        if meter.marker is None or meter.archived:
            continue
        key = meter.marker.partition("/")[2]
        if recorded.get(meter.id, key) == key:
            by_marker[meter.marker].append(meter)
    return by_marker


def found_as(meter: LiveMeter, declared: MeterSpec | None) -> Record:
    """Return the record of a meter that was found by its marker, and may be another run's.

    Its applied spec is known only if the meter is as declared.
    """
    return Record(meter.id, declared if declared == meter.spec else None)


def others_may_settle(live: Sequence[LiveMeter], project: str, state: Judging) -> bool:
    """Tell whether another run may be about to archive a duplicate, or did so and it does not show yet."""
    made = state.made(live)
    bearers = active_by_marker(live, owners(state.meters))
    return any(
        len(meters) > 1 and marker.startswith(f"{project}/") and not any(m.id in made for m in meters)
        for marker, meters in bearers.items()
    )


def settle_duplicates(
    live: Sequence[LiveMeter],
    own: Collection[str],
    project: str,
    at_start: Mapping[str, Record],
    declared: Mapping[str, MeterSpec],
    client: PolarClient,
    journal: Journal,
) -> list[Done | Failed | Left]:
    """Archive the duplicates that this run created and that lose, where active meters share one marker.

    `own` are the ids that this run created. The winner is the id in the lockfile when the run began, else the
    oldest, so that every run picks the same one. The same request removes the loser's marker. Meters that
    this run did not create are left alone: the run that created them settles them, or the next plan names
    them.

        run A   list (nothing) ... POST a2 ........... list: a1, a2 -> a2 is younger and A's: archived
        run B   list (nothing) ... POST a1 .. list: a1 (a2 is not there yet) ................ done
    """
    events: list[Done | Failed | Left] = []
    for marker, meters in active_by_marker(live, owners(journal.meters)).items():
        owner, _, key = marker.partition("/")
        if len(meters) < 2 or owner != project or not any(m.id in own for m in meters):
            continue
        winner = _winner(meters, at_start.get(key), journal.created)
        known = journal.meters.get(key)
        if known is None or known.id != winner.id:
            journal.record(key, found_as(winner, declared.get(key)))
        for loser in meters:
            if loser.id == winner.id:
                continue
            if loser.id in own:
                events.append(archive_duplicate(key, loser, winner, client))
            else:
                reason = f"{loser.id} bears the same marker, and this run did not create it: plan again"
                events.append(Left(key, "create", reason))
    return events


def no_duplicates(live: Sequence[LiveMeter], journal: Journal, archived: Collection[str] = ()) -> bool:
    """Tell whether all meters created by runs on this machine show, and none is a duplicate.

    `archived` are ids that were archived after `live` was read.
    """
    active = (meter for meter in live if meter.id not in archived)
    bearers = active_by_marker(active, owners(journal.meters)).values()
    doubled = {meter.id for meters in bearers if len(meters) > 1 for meter in meters}
    return set(journal.created) <= {meter.id for meter in live} - doubled


def _winner(meters: Sequence[LiveMeter], recorded: Record | None, created: Collection[str]) -> LiveMeter:
    """Return the meter that stays.

    An id that this machine created, and that no sweep has checked yet, was written to the lockfile by a run
    that was stopped. No other run knows it from there.
    """
    known = (m for m in meters if recorded and m.id == recorded.id and m.id not in created)
    return next(known, meters[0])


def archive_duplicate(
    key: str, loser: LiveMeter, winner: LiveMeter, client: PolarClient
) -> Done | Failed | Left:
    """Archive the loser of two duplicates and remove its marker, in one request."""
    try:
        if not _still_bears(winner, client):
            return Left(key, "settle", f"{winner.id}, which bore the same marker, is gone: plan again")
        # A PATCH replaces the whole object, so send back what others have added since.
        now = client.get_meter(loser.id)
        if now.spec is None or now.marker not in (None, loser.marker):
            return Left(key, "settle", f"{loser.id} has changed since it was planned: plan again")
        client.update_meter(loser.id, {"is_archived": True, "metadata": dict(now.spec.metadata)})
    except (ApiError, StoppedError) as error:
        reason = f"{loser.id} bears the same marker as {winner.id} and should be archived: {error}"
        return Failed(key, "settle", reason)
    return Done(key, "settle", loser.id)


def _still_bears(winner: LiveMeter, client: PolarClient) -> bool:
    """Tell whether the winner is still active under its marker.

    The list may be outdated. If both runs archived their own meter, no meter would be left.
    """
    try:
        now = client.get_meter(winner.id)
    except NotFoundError:  # from a replica that lags behind the list
        return True
    return not now.archived and now.marker == winner.marker
