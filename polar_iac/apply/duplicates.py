"""Duplicates: two or more active meters with one marker, and which run archives which of them.

Polar has no idempotency key, and no lock is shared between machines. So two runs may each create a meter for
the same key, and together they must archive all but one. The rules:

1. A run lists all meters after its last create (the sweep), again and again until its own creates show. Of
   two runs, the one that lists last sees both meters. If a replica still lags then, the created ids stay in
   the journal, and the next run checks them.
2. All runs pick the same winner: the meter in the lockfile when the run began, else the oldest.
3. A run archives only meters that it created, and only while the winner is still active under its marker.

Two machines, A and B, create the same key. Time goes to the right, and a1 is older than a2:

    A   list: none ──── POST a1 ──── list: a1 ───────────────────────────────────► keeps a1, done
    B     list: none ───────────── POST a2 ──── list: a1, a2 ── archive a2 ──────► records a1

If both list after both POSTs, B still archives a2, and A sees that a2 is not its own and leaves it to B:

    A   list: none ─── POST a1 ─────── list: a1, a2 ─────────────────────────────► keeps a1, reports a2
    B     list: none ─── POST a2 ─────── list: a1, a2 ── archive a2 ─────────────► records a1

The check of the winner (rule 3) is for runs that disagree about it. Example: A was stopped after POST a1, and
then pulled B's lockfile, which records a2. B was stopped too: it does not count its own a2 as recorded.

    A   list: a1, a2 ── a2 wins ── GET a2: active ── archive a1 ─────────────────► records a2
    B   list: a1, a2 ── a1 wins ────────────────────────────── GET a1: archived ─► leaves a2 active

GET and PATCH are two requests, so the check makes it unlikely, not impossible, that both are archived.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from polar_iac.apply.events import Applied, Failed, Skipped
from polar_iac.apply.marked import active_by_marker, key_by_id, record_found
from polar_iac.clock import StoppedError
from polar_iac.meter.live import LiveMeter, Made
from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec
from polar_iac.polar.errors import ApiError, NotFoundError, TransientError
from polar_iac.state.journal import Journal

if TYPE_CHECKING:
    from polar_iac.polar.client import PolarClient


class CreatedMeters(Protocol):
    """Knowledge of a lockfile and its journal about meters, and about which were made on this machine."""

    @property
    def meters(self) -> Mapping[str, Record]: ...
    def made(self, live: Iterable[LiveMeter]) -> Made: ...


def others_may_settle(live: Sequence[LiveMeter], project: str, state: CreatedMeters) -> bool:
    """Tell whether another run may be about to archive a duplicate, or did so and it does not show yet."""
    made = state.made(live)
    by_marker = active_by_marker(live, key_by_id(state.meters))
    return any(
        # A run settles the duplicates that it created, so without one of ours another run must do it.
        len(meters) > 1
        and (owner := OwnershipMarker.parse(marker))
        and owner.project == project
        and not any(m.id in made for m in meters)
        for marker, meters in by_marker.items()
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

    `own` are the ids that this run created. `at_start` is the lockfile content when the run began. The same
    request removes the loser's marker. Meters that this run did not create are left alone: the run that
    created them settles them, or the next plan names them.
    """
    events: list[Applied | Failed | Skipped] = []
    for marker, meters in active_by_marker(live, key_by_id(journal.meters)).items():
        owner = OwnershipMarker.parse(marker)
        if len(meters) < 2 or not owner or owner.project != project or not any(m.id in own for m in meters):
            continue
        key = owner.key
        winner = _winner(meters, at_start.get(key), journal.created)
        record = journal.meters.get(key)
        if record is None or record.id != winner.id:
            # Record the winner first: after a crash, the lockfile must not name an archived meter.
            journal.record(key, record_found(winner, declared.get(key)))
        for loser in meters:
            if loser.id == winner.id:
                continue
            if loser.id in own:
                events.append(archive_duplicate(key, loser, winner, client))
            else:
                reason = f"{loser.id} bears the same marker, and this run did not create it: plan again"
                events.append(Skipped(key, "create", reason, id=loser.id))
    return events


def no_duplicates(live: Sequence[LiveMeter], journal: Journal, archived: Collection[str] = ()) -> bool:
    """Tell whether all meters created by runs on this machine show, and none is a duplicate.

    `archived` are ids that were archived after `live` was read.
    """
    active = (meter for meter in live if meter.id not in archived)
    groups = active_by_marker(active, key_by_id(journal.meters)).values()
    duplicates = {meter.id for meters in groups if len(meters) > 1 for meter in meters}
    return set(journal.created) <= {meter.id for meter in live} - duplicates


def _winner(meters: Sequence[LiveMeter], recorded: Record | None, created: Collection[str]) -> LiveMeter:
    """Return the meter that stays: the recorded one, else the oldest.

    A recorded id that this machine created, and that no sweep has checked yet, does not count: a run that was
    stopped has written it to the lockfile. No other run knows it from there, so others pick the oldest.
    """
    from_lockfile = (m for m in meters if recorded and m.id == recorded.id and m.id not in created)
    return next(from_lockfile, meters[0])


def archive_duplicate(
    key: str, loser: LiveMeter, winner: LiveMeter, client: PolarClient
) -> Applied | Failed | Skipped:
    """Archive the loser of two duplicates and remove its marker, in one request."""
    is_asked = False
    try:
        if not _is_still_winner(winner, client):
            reason = f"{winner.id}, which bore the same marker, is gone: plan again"
            return Skipped(key, "settle", reason, id=loser.id)
        # A PATCH replaces the whole object, so send back what others have added since.
        now = client.get_meter(loser.id)
        if now.spec is None or now.marker not in (None, loser.marker):
            reason = f"{loser.id} has changed since it was planned: plan again"
            return Skipped(key, "settle", reason, id=loser.id)
        is_asked = True
        client.update_meter(loser.id, {"is_archived": True, "metadata": dict(now.spec.metadata)})
    except (ApiError, StoppedError) as error:
        reason = f"{loser.id} bears the same marker as {winner.id} and should be archived: {error}"
        status = error.status if isinstance(error, ApiError) else None
        sent = is_asked and isinstance(error, TransientError) and error.fate != "not-sent"
        return Failed(key, "settle", reason, id=loser.id, status=status, unknown=sent)
    return Applied(key, "settle", loser.id)


def _is_still_winner(winner: LiveMeter, client: PolarClient) -> bool:
    """Tell whether the winner is still active under its marker.

    The list may be outdated: if both runs archived their own meter, no meter would be left.
    """
    try:
        now = client.get_meter(winner.id)
    except NotFoundError:  # from a replica that lags behind the list
        return True
    return not now.archived and now.marker == winner.marker
