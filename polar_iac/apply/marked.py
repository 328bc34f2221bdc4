"""Meters by their ownership marker: groups of active meters, and the record of one that was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from polar_iac.meter.live import LiveMeter
from polar_iac.meter.record import Record
from polar_iac.meter.spec import MeterSpec

if TYPE_CHECKING:
    from polar_iac.polar.client import PolarClient


def key_by_id(meters: Mapping[str, Record]) -> dict[str, str]:
    """Map each recorded meter id to its key."""
    return {record.id: key for key, record in meters.items()}


def active_by_marker(live: Iterable[LiveMeter], key_by_id: Mapping[str, str]) -> dict[str, list[LiveMeter]]:
    """Group the active meters by marker; each group is sorted by creation time and id, oldest first.

    `key_by_id` holds the recorded meters. A recorded key overrides a marker of another key: that marker
    is outdated. Example: `calls` was renamed to `api-calls`, and its meter is still marked `acme/calls`.
    """
    by_marker: dict[str, list[LiveMeter]] = defaultdict(list)
    for meter in sorted(live, key=lambda m: (m.created_at, m.id)):
        if meter.marker is None or meter.archived:
            continue
        key = meter.owner and meter.owner.key
        if key_by_id.get(meter.id, key) == key:
            by_marker[meter.marker].append(meter)
    return by_marker


_MANY = 20
"""Number of markers from which reading the whole list costs less, with a shorter URL."""


def find_marked(markers: Sequence[str], client: PolarClient) -> list[LiveMeter]:
    """Return meters that include all with one of these markers. Others may be included."""
    return client.find_by_markers(*markers) if len(markers) < _MANY else client.list_meters()


def record_found(meter: LiveMeter, declared: MeterSpec | None) -> Record:
    """Return the record of a meter that was found by its marker, and may be another run's.

    Its applied spec is known only if the meter is as declared.
    """
    return Record(meter.id, declared if declared == meter.spec else None)
