"""What earlier or other runs left: unfinished creates are found, and two meters under one marker made one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from polar_iac.api import ApiError, NotFoundError, OnPage, PolarClient
from polar_iac.journal import Journal
from polar_iac.meter import MARKER, LiveMeter, MeterSpec, Record
from polar_iac.plan import Done, Event, Failed, Left
from polar_iac.waiting import Clock, StoppedError, look_repeatedly

LOOKUP_TIMEOUT = 10.0
"""Seconds for which a lookup is repeated: Polar may read from a replica that lags (read)."""

_MANY = 20
"""Markers from which the whole list is cheaper to ask for, and its address shorter."""


def finish_story(
    client: PolarClient,
    journal: Journal,
    confirm: Callable[[Sequence[LiveMeter]], object],
    patience: float,
    clock: Clock,
) -> None:
    """Look for what the last run meant to create and never heard of, and record what is found.

    Nothing is created here: the planner decides that, since the key may have left the manifest. `confirm`
    raises when what is found belongs to another organisation.
    """
    missing = dict(journal.unresolved)

    def look() -> bool:
        markers = [intent.marker for intent in missing.values()]
        found = client.find_by_markers(*markers) if len(markers) < _MANY else client.list_meters()
        confirm(found)
        bearers = active_by_marker(found, owners(journal.meters))
        oldest = {meters[0].marker: meters[0] for meters in bearers.values()}
        for key, intent in list(missing.items()):
            if intent.marker in oldest:
                journal.record(key, found_as(oldest[intent.marker], intent.spec))
                del missing[key]
        return not missing

    if missing:
        look_repeatedly(look, patience, clock)
    for key in missing:
        journal.give_up(key)


def observe(
    project: str,
    at_start: Mapping[str, Record],
    declared: Mapping[str, MeterSpec],
    client: PolarClient,
    journal: Journal,
    confirm: Callable[[Sequence[LiveMeter]], object],
    patience: float,
    clock: Clock,
) -> tuple[list[LiveMeter], list[Event]]:
    """Finish the story that an earlier run left, and see what is live now, for the planner.

    `at_start` is what the lockfile held when the run began. `confirm` raises when what is live belongs to
    another organisation: before anything that is found there is recorded.
    """
    if journal.unresolved:
        confirm(client.list_meters())
        finish_story(client, journal, confirm, patience, clock)
    awaited = {record.id for record in journal.meters.values()} | set(journal.created)

    def settled(live: Sequence[LiveMeter]) -> bool:
        """Whether no other run may be about to archive a second meter, or has, and it does not show yet."""
        bearers = active_by_marker(live, owners(journal.meters))
        return not any(
            len(twins) > 1
            and marker.startswith(f"{project}/")
            and not any(m.id in journal.created for m in twins)
            for marker, twins in bearers.items()
        )

    live = list_with(awaited, client, confirm, patience, clock, settled=settled)
    if not journal.created:
        return live, []
    events = settle_twins(live, project, at_start, declared, client, journal)
    retired = {event.id for event in events if isinstance(event, Done)}
    return [meter for meter in live if meter.id not in retired], [*events]


def list_with(
    awaited: Iterable[str],
    client: PolarClient,
    confirm: Callable[[Sequence[LiveMeter]], object],
    patience: float,
    clock: Clock,
    on_page: OnPage = lambda _done, _of: None,
    settled: Callable[[Sequence[LiveMeter]], bool] = lambda _: True,
) -> list[LiveMeter]:
    """Every meter; asked for again, for `patience` seconds, while meters with the `awaited` ids do not show,
    or what shows is not `settled`. `confirm` raises when they never will, since what is live belongs to
    another organisation."""
    ids, live = set(awaited), list[LiveMeter]()

    def look() -> bool:
        live[:] = client.list_meters(on_page)
        confirm(live)
        return ids <= {meter.id for meter in live} and settled(live)

    look_repeatedly(look, patience, clock)
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


def settle_twins(
    live: Sequence[LiveMeter],
    project: str,
    at_start: Mapping[str, Record],
    declared: Mapping[str, MeterSpec],
    client: PolarClient,
    journal: Journal,
) -> list[Done | Failed | Left]:
    """Where two or more active meters bear one marker, archive those that this run made and that lose.

    What this run made are the ids of 201s that it holds, or that the journal it finishes held. The winner is
    the id that the lockfile held when the run began, else the oldest: every run agrees on it. A loser's
    marker is taken off in the same request. What this run did not create it leaves alone: the run that made
    it settles it, or the next plan names it. Once nothing that it made can be a second one, the journal is
    told; else the next run looks again.
    """
    events: list[Done | Failed | Left] = []
    created = journal.created
    for marker, twins in active_by_marker(live, owners(journal.meters)).items():
        owner, _, key = marker.partition("/")
        ours = {meter.id for meter in twins if meter.id in created}
        if len(twins) < 2 or not ours or owner != project:
            continue
        # An id that this run made, and that no sweep has judged yet, is in the lockfile by a run that was
        # stopped: no other run knows it from there.
        recorded = at_start.get(key)
        known_first = (m for m in twins if recorded and m.id == recorded.id and m.id not in created)
        winner = next(known_first, twins[0])
        known = journal.meters.get(key)
        if known is None or known.id != winner.id:
            journal.record(key, found_as(winner, declared.get(key)))
        for loser in twins:
            if loser.id in ours - {winner.id}:
                events.append(_retire(key, loser, winner, client))
            elif loser.id != winner.id:
                told = f"another run created {loser.id} under the same marker, later: plan again"
                events.append(Left(key, "create", told))
    settled = all(isinstance(event, Done) or event.action != "retire" for event in events)
    if created and settled and set(created) <= {meter.id for meter in live}:
        journal.swept()
    return events


def _still_bears(winner: LiveMeter, client: PolarClient) -> bool:
    """Whether the winner is active under its marker now: the list may be old, and where both gave way to the
    other there would be neither."""
    try:
        now = client.get_meter(winner.id)
    except NotFoundError:  # from a replica that lags behind the list
        return True
    return not now.archived and now.marker == winner.marker


def _retire(key: str, loser: LiveMeter, winner: LiveMeter, client: PolarClient) -> Done | Failed | Left:
    try:
        if not _still_bears(winner, client):
            told = f"{winner.id}, which bore the same marker, is gone meanwhile: plan again"
            return Left(key, "retire", told)
        # A PATCH replaces the whole object: what others added meanwhile is sent back.
        metadata = {k: v for k, v in client.get_meter(loser.id).spec.metadata.items() if k != MARKER}
        client.update_meter(loser.id, {"is_archived": True, "metadata": metadata})
    except (ApiError, StoppedError) as error:
        told = f"{loser.id} bears the same marker as {winner.id} and should be archived: {error}"
        return Failed(key, "retire", told)
    return Done(key, "retire", loser.id)
