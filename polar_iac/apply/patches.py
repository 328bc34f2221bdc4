"""Changes of existing meters: one PATCH each, which carries only what changes. Runs in pool threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polar_iac.apply.jobs import Job
from polar_iac.clock import StoppedError
from polar_iac.meter.canonical import canonical_json
from polar_iac.meter.fields import MAX_METADATA_KEYS, FieldPath
from polar_iac.meter.live import LiveMeter
from polar_iac.meter.marker import MARKER, OwnershipMarker
from polar_iac.meter.merge import merge_metadata
from polar_iac.plan.model import Change
from polar_iac.polar.errors import ApiError, TransientError

if TYPE_CHECKING:
    from polar_iac.polar.client import PolarClient


def change_meter(job: Job, change: Change, project: str, client: PolarClient) -> LiveMeter:
    """Update, archive, unarchive, mark, or release a meter.

    Raises ApiError when the meter has changed since it was planned. The `fate` of a TransientError is that of
    the PATCH.
    """
    desired, body = job.desired, dict[str, Any]()
    paths = [FieldPath.parse(field.path) for field in change.fields]
    for name in (path.name for path in paths if path.key is None):
        body[name] = desired.spec.wire(name) if desired else None
    if job.action in ("archive", "unarchive"):
        body["is_archived"] = job.action == "archive"
    if change.marker or any(path.key is not None for path in paths):
        # A PATCH replaces the whole object. Read it just before, so that nobody else's key is lost.
        try:
            live = client.get_meter(job.id)
        except TransientError as error:
            raise TransientError(str(error), status=error.status, fate="not-sent") from error
        metadata = _metadata(job, change, live, str(OwnershipMarker(project, job.key)))
        if live.spec and canonical_json(metadata) != canonical_json(_whole(live.spec.metadata, live.marker)):
            body["metadata"] = metadata
        if not body:  # someone has made the same change since
            return live
    return client.update_meter(job.id, body)


def withdraw(meter: LiveMeter, client: PolarClient, *, created: bool) -> str:
    """Archive a meter that this run `created` in the wrong organization. Return the message about it."""
    if not created:
        return f"{meter.id} bears the marker {meter.marker} there: archive it there, if nobody uses it"
    try:
        client.update_meter(meter.id, {"is_archived": True})
    except (ApiError, StoppedError) as error:
        return f"{meter.id} was created there and should be archived, which failed ({error})"
    return f"The one meter created there, {meter.id}, is archived"


def _metadata(job: Job, change: Change, live: LiveMeter, marker: str) -> dict[str, Any]:
    """Return the whole metadata object to send: ours merged into the live one, and the marker."""
    # Without a change of the marker, the meter had ours, or still has none.
    kept = live.marker and marker
    planned = (change.marker.before, change.marker.after) if change.marker else (kept,)
    if live.spec is None or live.marker not in planned:
        now = f"has been marked as {live.marker}" if live.spec else "has changed"
        raise ApiError(f"{live.id} {now} since it was planned: plan again")
    metadata = dict(live.spec.metadata)
    if job.desired and not job.desired.spec.archived:
        base = job.base.applied_metadata if job.base and job.base.id == live.id else {}
        metadata = merge_metadata(job.desired.spec.metadata, base, metadata, job.desired.ignore_changes)
    metadata = _whole(metadata, change.marker.after if change.marker else kept)
    if len(metadata) > MAX_METADATA_KEYS:
        raise ApiError(f"{live.id} would have {len(metadata)} metadata keys, Polar takes 50: plan again")
    return metadata


def _whole(metadata: Mapping[str, Any], marker: str | None) -> dict[str, Any]:
    """Return the metadata as Polar holds it, including the marker."""
    return {**metadata, **({MARKER: marker} if marker else {})}
