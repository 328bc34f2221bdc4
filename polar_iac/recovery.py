"""What earlier or other runs left: lost creates are found, and duplicates under one marker made one."""

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
"""Seconds for which a lookup is repeated: Polar may read from a replica that lags (read)."""

RESEND_AFTER = 60.0
"""Seconds after which a lost create cannot land any more: longer than a gateway keeps a request alive."""

_MANY = 20
"""Markers from which the whole list is cheaper to ask for, and its address shorter."""


def find(markers: Sequence[str], client: PolarClient) -> list[LiveMeter]:
    """The meters that bear one of the markers, among others."""
    return client.find_by_markers(*markers) if len(markers) < _MANY else client.list_meters()


class Judging(Protocol):
    """What a lockfile and its journal say of meters, and of which runs of this machine made."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    def made(self, live: Iterable[LiveMeter]) -> Made: ...


class Pending(Protocol):
    """What a lockfile and its journal say of creates without an answer."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    @property
    def unresolved(self) -> Mapping[str, Sequence[Intent]]: ...


def found_creates(live: Sequence[LiveMeter], state: Pending) -> dict[str, tuple[Record, Answer | None]]:
    """What earlier creates without an answer turn out to have made, by key: the oldest active bearers of
    their markers.

    Nothing is created here: the planner decides that, since the key may have left the manifest. What is not
    found stays unresolved.
    """
    bearers = active_by_marker(live, owners(state.meters))
    found = {}
    for key, intents in state.unresolved.items():
        if meters := bearers.get(intents[-1].marker):
            record = found_as(meters[0], intents[-1].spec)
            found[key] = record, answered_by(meters[0], intents)
    return found


def may_still_show(state: Pending, now: datetime, seconds: float) -> set[str]:
    """The keys whose creates were sent so lately that a meter may yet show; others show at once, or never."""
    return {key for key, intents in state.unresolved.items() if time_left(intents, now, seconds)}


def answered_by(meter: LiveMeter, intents: Sequence[Intent]) -> Answer | None:
    """The one of these creates that made a meter which a lookup found, if any: the last that may have."""
    may_have = (intent for intent in reversed(intents) if intent.may_have_made(meter) or not intent.at)
    return next(may_have, None)


def time_left(intents: Sequence[Intent], now: datetime, seconds: float) -> float:
    """Seconds until none of these creates can land any more, of the `seconds` after each was sent."""
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
    """Every meter; asked for again, for `lookup_timeout` seconds, while meters with the `awaited` ids do not
    show, or what shows is not `settled`. `confirm` raises when they never will, since what is live belongs to
    another organization."""
    ids, live = set(awaited), list[LiveMeter]()

    def look() -> bool:
        live[:] = client.list_meters(on_page)
        confirm(live)
        return ids <= {meter.id for meter in live} and settled(live)

    look_repeatedly(look, lookup_timeout, clock)
    return live


def owners(meters: Mapping[str, Record]) -> dict[str, str]:
    """Under which key each id is recorded."""
    return {record.id: key for key, record in meters.items()}


def active_by_marker(live: Iterable[LiveMeter], recorded: Mapping[str, str]) -> dict[str, list[LiveMeter]]:
    """The active meters by their marker; of each the oldest first, by time of creation and id.

    `recorded` tells under which key an id is recorded: that outweighs a marker of another key.
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
    """What is recorded of a meter that was found by its marker, and may be another run's: what was applied to
    it is known only where it is as declared."""
    return Record(meter.id, declared if declared == meter.spec else None)


def others_may_settle(live: Sequence[LiveMeter], project: str, state: Judging) -> bool:
    """Tell whether another run may be about to archive a duplicate, or has, and it does not show yet."""
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
    """Where two or more active meters bear one marker, archive those that this very run made and that lose.

    `own` are the ids that this run made. The winner is the id that the lockfile held when the run began, else
    the oldest: every run agrees on it. A loser's marker is taken off in the same request. What this run did
    not make it leaves alone: the run that made it settles it, or the next plan names it.

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
    """Tell whether all meters that runs of this machine created show, and none is a duplicate.

    `archived` are ids that were archived since `live` was read.
    """
    active = (meter for meter in live if meter.id not in archived)
    bearers = active_by_marker(active, owners(journal.meters)).values()
    doubled = {meter.id for meters in bearers if len(meters) > 1 for meter in meters}
    return set(journal.created) <= {meter.id for meter in live} - doubled


def _winner(meters: Sequence[LiveMeter], recorded: Record | None, created: Collection[str]) -> LiveMeter:
    """The meter that stays.

    An id that this machine made, and that no sweep has judged yet, is in the lockfile by a run that was
    stopped: no other run knows it from there.
    """
    known = (m for m in meters if recorded and m.id == recorded.id and m.id not in created)
    return next(known, meters[0])


def archive_duplicate(
    key: str, loser: LiveMeter, winner: LiveMeter, client: PolarClient
) -> Done | Failed | Left:
    """Archive the loser of two duplicates and take its marker off, in one request."""
    try:
        if not _still_bears(winner, client):
            return Left(key, "settle", f"{winner.id}, which bore the same marker, is gone: plan again")
        # A PATCH replaces the whole object: what others added since is sent back.
        now = client.get_meter(loser.id)
        if now.spec is None or now.marker not in (None, loser.marker):
            return Left(key, "settle", f"{loser.id} has changed since it was planned: plan again")
        client.update_meter(loser.id, {"is_archived": True, "metadata": dict(now.spec.metadata)})
    except (ApiError, StoppedError) as error:
        reason = f"{loser.id} bears the same marker as {winner.id} and should be archived: {error}"
        return Failed(key, "settle", reason)
    return Done(key, "settle", loser.id)


def _still_bears(winner: LiveMeter, client: PolarClient) -> bool:
    """Tell whether the winner is active under its marker now: the list may be old, and where both gave way to
    the other there would be neither."""
    try:
        now = client.get_meter(winner.id)
    except NotFoundError:  # from a replica that lags behind the list
        return True
    return not now.archived and now.marker == winner.marker
