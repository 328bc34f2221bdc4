"""Duplicates: two or more active meters with one marker, and who archives which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from polar_iac.apply.bearers import active_by_marker, found_as, owners
from polar_iac.apply.events import Applied, Failed, Skipped
from polar_iac.clock import StoppedError
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.client import PolarClient
from polar_iac.polar.errors import ApiError, NotFoundError
from polar_iac.state.journal import Journal


class Judging(Protocol):
    """Knowledge of a lockfile and its journal about meters, and about which were made on this machine."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    def made(self, live: Iterable[LiveMeter]) -> Made: ...


def others_may_settle(live: Sequence[LiveMeter], project: str, state: Judging) -> bool:
    """Tell whether another run may be about to archive a duplicate, or did so and it does not show yet."""
    made = state.made(live)
    bearers = active_by_marker(live, owners(state.meters))
    return any(
        len(meters) > 1
        and (owner := OwnershipMarker.parse(marker))
        and owner.project == project
        and not any(m.id in made for m in meters)
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
) -> list[Applied | Failed | Skipped]:
    """Archive the duplicates that this run created and that lose, where active meters share one marker.

    `own` are the ids that this run created. The winner is the id in the lockfile when the run began, else the
    oldest, so that every run picks the same one. The same request removes the loser's marker. Meters that
    this run did not create are left alone: the run that created them settles them, or the next plan names
    them.

        run A   list (nothing) ... POST a2 ........... list: a1, a2 -> a2 is younger and A's: archived
        run B   list (nothing) ... POST a1 .. list: a1 (a2 is not there yet) ................ done
    """
    events: list[Applied | Failed | Skipped] = []
    for marker, meters in active_by_marker(live, owners(journal.meters)).items():
        owner = OwnershipMarker.parse(marker)
        if len(meters) < 2 or not owner or owner.project != project or not any(m.id in own for m in meters):
            continue
        key = owner.key
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
                events.append(Skipped(key, "create", reason))
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
) -> Applied | Failed | Skipped:
    """Archive the loser of two duplicates and remove its marker, in one request."""
    try:
        if not _still_bears(winner, client):
            return Skipped(key, "settle", f"{winner.id}, which bore the same marker, is gone: plan again")
        # A PATCH replaces the whole object, so send back what others have added since.
        now = client.get_meter(loser.id)
        if now.spec is None or now.marker not in (None, loser.marker):
            return Skipped(key, "settle", f"{loser.id} has changed since it was planned: plan again")
        client.update_meter(loser.id, {"is_archived": True, "metadata": dict(now.spec.metadata)})
    except (ApiError, StoppedError) as error:
        reason = f"{loser.id} bears the same marker as {winner.id} and should be archived: {error}"
        return Failed(key, "settle", reason)
    return Applied(key, "settle", loser.id)


def _still_bears(winner: LiveMeter, client: PolarClient) -> bool:
    """Tell whether the winner is still active under its marker.

    The list may be outdated. If both runs archived their own meter, no meter would be left.
    """
    try:
        now = client.get_meter(winner.id)
    except NotFoundError:  # from a replica that lags behind the list
        return True
    return not now.archived and now.marker == winner.marker
