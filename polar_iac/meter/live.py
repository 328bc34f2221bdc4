"""Live meters: a meter as Polar holds it now, and which of them this machine made."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from polar_iac.meter.marker import OwnershipMarker
from polar_iac.meter.spec import MeterSpec

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""Pattern of an id as Polar writes it."""


def instant(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, to the microsecond, so that texts sort like times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class LiveMeter:
    """A meter as Polar holds it now.

    Times are RFC 3339 texts in UTC, all of one length, so they sort as texts. `spec` is None when this
    version cannot read the meter, or does not know every part of its filter and aggregation. Such a meter is
    never compared, and can only be archived; `label` is its name. `marker` is the text as it is in Polar,
    which need not be an ownership marker.
    """

    id: str
    organization_id: str
    created_at: str
    archived_at: str | None
    marker: str | None
    spec: MeterSpec | None
    label: str = ""

    @property
    def name(self) -> str:
        return self.spec.name if self.spec else self.label

    @property
    def archived(self) -> bool:
        return self.archived_at is not None

    @property
    def owner(self) -> OwnershipMarker | None:
        """Owner according to the marker. None without a marker, or if the text is not one."""
        return OwnershipMarker.parse(self.marker)

    def marked(self, marker: str) -> LiveMeter:
        """Return the same meter with another ownership marker."""
        return replace(self, marker=marker)


@dataclass(frozen=True)
class Made:
    """Ids of meters that runs on this machine created, according to its journal.

    `created` are ids from 201 answers that no run has yet checked for duplicates. `landed` are meters that
    match a create without an answer.
    """

    created: frozenset[str] = frozenset()
    landed: frozenset[str] = frozenset()

    def __contains__(self, meter_id: str) -> bool:
        return meter_id in self.created or meter_id in self.landed


NOTHING_MADE = Made()
