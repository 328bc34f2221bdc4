"""Creates that land late: a gateway held them, and their run has ended without an answer."""

from __future__ import annotations

from collections.abc import Mapping

from tests.differential.rounds import Moment
from tests.differential.sessions import Options, Session
from tests.differential.truth import MARKER, Json


def land(session: Session, body: Json) -> str:
    """Let a create be processed that was lost before, later than is to be thought possible; the meter's id.

    The journal still knows of it, so that it is settled where it is a duplicate.
    """
    must_be_settled = is_to_be_settled(session.moment(), body["metadata"][MARKER], session.world.moved)
    # Where somebody dropped the key's record (or the file), the meter found again answers the create instead.
    key = body["metadata"][MARKER].partition("/")[2]
    edits = [line for line in session.log if ". lockfile: " in line]
    whole = ("delete", "lose", "restore")
    must_be_settled = must_be_settled and not any(
        key in edit or any(word in edit for word in whole) for edit in edits
    )
    meter_id = session.world.create(body)
    session.world.made.add(meter_id)
    session.counts["late"] += 1
    session.counts["settled late"] += must_be_settled
    plan = session.plan(Options())[0] if must_be_settled else None
    if plan and not any(c["action"] == "settle" and c["id"] == meter_id for c in plan["changes"]):
        session.flag(
            "unsettled", f"{meter_id} landed late, and the plan does not settle it: {plan['changes']}"
        )
    return meter_id


def is_to_be_settled(now: Moment, marker: str, moved: Mapping[str, str]) -> bool:
    """True if a new meter with this marker would be the one duplicate of a recorded, known meter."""
    key = marker.partition("/")[2]
    bearers = [meter for meter in now.meters.values() if meter.active and meter.marker == marker]
    owners = [name for name, record in now.records.items() if record["id"] in {m.id for m in bearers}]
    return (
        now.lockfile_is_complete
        and len(bearers) == 1
        and bearers[0].is_known
        and owners == [key]
        and key not in {*moved, *moved.values()}
    )
